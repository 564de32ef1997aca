//! `ai_insights` and `contextual_analysis` as the original's command line asked them.

use super::Tool;
use crate::cli::args::ToolArgs;
use crate::cli::ask::{self, Ask, Insights};
use crate::cli::failure::Failure;
use crate::cli::filters::When;
use crate::cli::locate::{Capture, Named, locate};
use crate::cli::render::answers::Printer;

/// One of both.
#[derive(Debug)]
pub enum Words {
    /// `ai_insights`.
    Insights(Insights),
    /// `contextual_analysis`.
    Ask(Ask),
}

impl Words {
    /// What was asked, if it is one of these tools.
    pub fn of(tool: Tool, asked: &ToolArgs) -> Result<Option<Self>, Failure> {
        let question = &asked.question;
        // 0 stands for "not given".
        let when = When { duration: question.duration.filter(|s| *s > 0), ..When::default() };
        let given = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        match tool {
            Tool::Insights => Ok(Some(Words::Insights(Insights {
                text: given(&asked.summary_text).into_iter().collect(),
                process: given(&question.process).into_iter().collect(),
                pid: question
                    .pid
                    .filter(|pid| *pid > 0)
                    .map(|pid| pid.to_string())
                    .into_iter()
                    .collect(),
                when,
                ..Insights::default()
            }))),
            Tool::Contextual => {
                let Some(query) = given(&asked.query) else {
                    let text = "contextual_analysis needs a question: --query 'why can curl not \
                                reach 192.0.2.1?'";
                    return Err(Failure::Usage(text.to_owned()));
                };
                Ok(Some(Words::Ask(Ask { question: vec![query], when, ..Ask::default() })))
            }
            _ => Ok(None),
        }
    }

    /// Finds a source, and asks.
    pub async fn ask(&self, server: Named<'_>, printer: &mut Printer<'_>) -> Result<(), Failure> {
        let words = match self {
            Words::Insights(args) => ask::Words::Insights(args),
            Words::Ask(args) => ask::Words::Ask(args),
        };
        words.check()?;
        let origin = locate(server, Capture::Allowed { no_unix: true }).await?;
        words.ask(&origin, printer).await
    }
}
