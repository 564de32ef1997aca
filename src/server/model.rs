//! The model that `ai_insights` and `contextual_analysis` of `/mcp` ask, if one is named.
//!
//! A slow model holds up nothing else: a few questions at a time, each of bounded time; whoever
//! comes beyond, and whomever it fails, is answered by fixed rules, and told why.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use clap::Args;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::ai::{Assistant, InvalidEndpoint, Nobody, Reply, Settings, SettingsError};
use crate::private::{self, PrivateError};
use crate::tools::advisor::Means;
use crate::tools::{Advice, Advisor, RuleBased, Scope, ToolError};

/// The variables that every program that asks such an endpoint knows.
const KEY: &str = "OPENAI_API_KEY";
const BASE: &str = "OPENAI_API_BASE";
/// Questions that the model is asked at a time.
const QUESTIONS: usize = 4;

/// How the model is asked.
#[derive(Debug, Clone, Args)]
// A group of their own would be an option that changes with them.
#[group(skip)]
pub struct ModelOptions {
    /// The model that ai_insights and contextual_analysis of /mcp ask; without one, fixed rules answer.
    #[arg(id = "model", long = "model", env = "NETSPY_MODEL", value_name = "NAME")]
    pub name: Option<String>,

    /// Where it is asked: the base URL of what speaks OpenAI's chat completions [default: OPENAI_API_BASE, else OpenAI].
    #[arg(id = "model_base", long = "model-base", env = "NETSPY_MODEL_BASE", value_name = "URL")]
    pub base: Option<String>,

    /// A file with the key for it, which only its owner can read [default: that of OPENAI_API_KEY].
    #[arg(
        id = "model_key_file",
        long = "model-key-file",
        env = "NETSPY_MODEL_KEY_FILE",
        value_name = "FILE"
    )]
    pub key_file: Option<PathBuf>,

    /// Seconds that an answer may take; then fixed rules answer.
    #[arg(id = "model_timeout", long = "model-timeout", env = "NETSPY_MODEL_TIMEOUT",
          value_name = "SECONDS", default_value_t = 120,
          value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub timeout: u32,

    /// Rounds of tool calls; then the model has to answer.
    #[arg(id = "model_max_rounds", long = "model-max-rounds", env = "NETSPY_MODEL_MAX_ROUNDS",
          value_name = "N", default_value_t = Settings::MAX_ROUNDS,
          value_parser = clap::value_parser!(u32).range(0..=50))]
    pub max_rounds: u32,

    /// Send stand-ins for private addresses, as for names of users.
    #[arg(
        id = "model_hide_addresses",
        long = "model-hide-addresses",
        env = "NETSPY_MODEL_HIDE_ADDRESSES"
    )]
    pub hide_addresses: bool,
}

/// The model cannot be asked as it is configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelConfigError {
    /// The base URL is none. It is not repeated: people put keys into it.
    #[error("model-base, or {BASE}: {0}")]
    Base(InvalidEndpoint),
    /// OpenAI itself wants a key.
    #[error(
        "the model {0} is to be asked at OpenAI, which wants a key: name a file that holds it with \
         model-key-file, or another endpoint with model-base (Ollama: http://localhost:11434/v1)"
    )]
    NoKey(String),
    /// The file of the key cannot be read.
    #[error("cannot read the key of the model in {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Others than its owner can read or write it.
    #[error(
        "{} holds a key and can be read or written by others than its owner (mode {mode:04o}): take \
         that away (chmod 600 {})", path.display(), path.display()
    )]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// What is there is no key.
    #[error(
        "{0} holds no key: a key is one line of letters, digits and punctuation without spaces"
    )]
    Form(String),
}

/// A model, and what is to be known of it. No key is shown.
#[derive(Debug, Clone)]
pub struct Model {
    settings: Option<Settings>,
    key: String,
    timeout: Duration,
}

impl ModelOptions {
    /// What they come to; reads the file of the key.
    pub fn read(&self) -> Result<Model, ModelConfigError> {
        let timeout = Duration::from_secs(self.timeout.into());
        let none = Model { settings: None, key: String::new(), timeout };
        // A key, or an endpoint, is no consent: only a name is.
        let Some(name) = given(self.name.as_deref()) else { return Ok(none) };
        let variable = |name: &str| std::env::var(name).ok();
        let (key, place) = match &self.key_file {
            Some(path) => (Some(read_key(path)?), path.display().to_string()),
            None => (variable(KEY), KEY.to_owned()),
        };
        let key = given(key.as_deref());
        let base = variable(BASE);
        let base = given(self.base.as_deref()).or(given(base.as_deref()));
        let settings = Settings::of(Some(name), base, key).map_err(|error| match error {
            SettingsError::Base(error) => ModelConfigError::Base(error),
            SettingsError::Key => ModelConfigError::Form(place.clone()),
            SettingsError::NoKey(model) => ModelConfigError::NoKey(model),
        })?;
        let settings = settings.map(|mut settings| {
            settings.max_rounds = self.max_rounds;
            settings.silence = settings.silence.min(timeout);
            settings.privacy.addresses = self.hide_addresses;
            settings
        });
        let key = key.map_or_else(|| "no key".to_owned(), |_| format!("the key of {place}"));
        Ok(Model { settings, key, timeout })
    }
}

/// What was said, if that is anything.
fn given(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

fn read_key(path: &Path) -> Result<String, ModelConfigError> {
    let text = private::read(path).map_err(|error| match error {
        PrivateError::Read(source) => ModelConfigError::Read { path: path.to_owned(), source },
        PrivateError::Mode(mode) => ModelConfigError::Mode { path: path.to_owned(), mode },
    })?;
    let key = text.trim();
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(ModelConfigError::Form(path.display().to_string()));
    }
    Ok(key.to_owned())
}

impl Model {
    /// Who asks it, from now on; the log says which it is.
    pub(super) fn advisor(self) -> ModelAdvisor {
        self.announce();
        ModelAdvisor {
            current: RwLock::new(Arc::new(Asked::of(self))),
            room: Semaphore::new(QUESTIONS),
        }
    }

    fn announce(&self) {
        if let Some(settings) = &self.settings {
            tracing::info!("ai_insights and contextual_analysis ask {self}");
            if settings.endpoint.is_readable_by_others() {
                tracing::warn!(
                    "{}: http:// to another host: whoever is on the way can read the key and what \
                     is sent",
                    settings.endpoint
                );
            }
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Settings { model, endpoint, .. }) = &self.settings else {
            return f.write_str("none is named, fixed rules answer");
        };
        let leaves = if endpoint.is_local() { "stays on" } else { "leaves" };
        let (model, key) = (crate::text::clean(model), &self.key);
        write!(f, "{model} at {endpoint} with {key}; what it is told {leaves} this host")
    }
}

/// Asks the model where one is named, within bounds. The model can be exchanged meanwhile.
#[derive(Debug)]
pub struct ModelAdvisor {
    current: RwLock<Arc<Asked>>,
    /// Room for questions to the model.
    room: Semaphore,
}

#[derive(Debug)]
struct Asked {
    assistant: Assistant,
    timeout: Duration,
}

impl ModelAdvisor {
    /// Asks this model from now on. Questions under way stay where they were asked.
    pub(super) fn replace(&self, model: Model) {
        model.announce();
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Asked::of(model));
    }

    fn current(&self) -> Arc<Asked> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The model's answer, or that of the rules and why.
    async fn bounded(
        &self,
        asked: &Asked,
        asking: impl Future<Output = Result<Reply, ToolError>> + Send,
        rules: impl Future<Output = Result<Advice, ToolError>> + Send,
    ) -> Result<Advice, ToolError> {
        if asked.assistant.settings().is_none() {
            return rules.await;
        }
        let why = match self.room.try_acquire() {
            Err(_) => format!("the model is being asked {QUESTIONS} questions already; try again"),
            Ok(_place) => match timeout(asked.timeout, asking).await {
                Ok(reply) => {
                    let reply = reply?;
                    if let Some(failure) = &reply.failure {
                        tracing::warn!("the model gave no answer: {failure}");
                    }
                    return Ok(reply.advice);
                }
                Err(_) => {
                    let seconds = asked.timeout.as_secs();
                    tracing::warn!("the model gave no answer within {seconds} s (model-timeout)");
                    format!("the model took longer than {seconds} s")
                }
            },
        };
        let mut advice = rules.await?;
        advice.note = Some(format!("by rules, since {why}"));
        Ok(advice)
    }
}

impl Asked {
    fn of(model: Model) -> Self {
        Asked { assistant: Assistant::new(model.settings), timeout: model.timeout }
    }
}

#[async_trait]
impl Advisor for ModelAdvisor {
    fn calls_out(&self) -> bool {
        self.current().assistant.calls_out()
    }

    async fn insights(
        &self,
        summary: &str,
        scope: &Scope,
        means: Means<'_>,
    ) -> Result<Advice, ToolError> {
        let asked = self.current();
        let asking = asked.assistant.insights_to(summary, scope, means, &Nobody);
        self.bounded(&asked, asking, RuleBased.insights(summary, scope, means)).await
    }

    async fn answer(
        &self,
        question: &str,
        scope: &Scope,
        means: Means<'_>,
    ) -> Result<Advice, ToolError> {
        let asked = self.current();
        let asking = asked.assistant.answer_to(question, scope, means, &Nobody);
        self.bounded(&asked, asking, RuleBased.answer(question, scope, means)).await
    }
}
