//! Why a model gave no answer, each with what to do.

/// A model was asked and gave no answer that could be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Nobody answers there.
    #[error("cannot reach {endpoint}: {why}; check OPENAI_API_BASE, and that the server runs")]
    Unreachable {
        /// Where.
        endpoint: String,
        /// What happened.
        why: String,
    },
    /// 401, 403.
    #[error("{endpoint} refuses the key ({status}{said}); check OPENAI_API_KEY")]
    Unauthorized {
        /// Where.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// What it said, with a separator in front.
        said: String,
    },
    /// 404.
    #[error(
        "{endpoint} has no model '{model}', or no chat completions (404{said}); check NETSPY_MODEL, --model and OPENAI_API_BASE"
    )]
    NotFound {
        /// Where.
        endpoint: String,
        /// Which model.
        model: String,
        /// What it said.
        said: String,
    },
    /// 429 for the moment.
    #[error("{endpoint} takes no more requests now (429{said}); {}", again(*.retry_after))]
    RateLimited {
        /// Where.
        endpoint: String,
        /// Seconds after which to try again, if it said so.
        retry_after: Option<u64>,
        /// What it said.
        said: String,
    },
    /// 429 for good.
    #[error("the quota at {endpoint} is used up (429{said}); check its plan and billing")]
    Quota {
        /// Where.
        endpoint: String,
        /// What it said.
        said: String,
    },
    /// Another 4xx.
    #[error("{endpoint} refuses the request ({status}{said})")]
    Refused {
        /// Where.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        said: String,
    },
    /// 5xx, or an error in the middle of an answer.
    #[error("{endpoint} failed{}{said}; it may work in a moment", .status.map(|s| format!(" with {s}")).unwrap_or_default())]
    Server {
        /// Where.
        endpoint: String,
        /// The HTTP status, if that is how it was told.
        status: Option<u16>,
        /// What it said.
        said: String,
    },
    /// It takes too long.
    #[error("no {what} from {endpoint} within {seconds} s; --timeout gives it more")]
    Timeout {
        /// Where.
        endpoint: String,
        /// What was waited for.
        what: &'static str,
        /// For how long.
        seconds: u64,
    },
    /// The stream ended before the answer did.
    #[error("the answer of {endpoint} broke off{why}; what there is of it is incomplete")]
    Cut {
        /// Where.
        endpoint: String,
        /// How, with a separator in front.
        why: String,
    },
    /// More than anybody would read.
    #[error("the answer of {endpoint} is larger than {limit} bytes and was given up")]
    TooLarge {
        /// Where.
        endpoint: String,
        /// The limit.
        limit: usize,
    },
    /// What came is no chat completion.
    #[error(
        "{endpoint} answered with something else than a chat completion: {why}; does OPENAI_API_BASE lack its path, such as /v1?"
    )]
    Malformed {
        /// Where.
        endpoint: String,
        /// What was wrong.
        why: String,
    },
    /// Every tool call of a round was unusable, again and again.
    #[error(
        "the model '{model}' makes calls that no tool can take ({why}); one that is made for tool calls may do better"
    )]
    BadCalls {
        /// Which model.
        model: String,
        /// The last one's fault.
        why: String,
    },
    /// No word in it.
    #[error("the model '{model}' answered without a word")]
    Empty {
        /// Which model.
        model: String,
    },
    /// It calls tools without end.
    #[error(
        "the model '{model}' called tools in each of {rounds} rounds and gave no answer; --max-rounds allows more"
    )]
    EndlessLoop {
        /// Which model.
        model: String,
        /// How many.
        rounds: u32,
    },
    /// It calls tools where it was asked to answer without any.
    #[error(
        "the model '{model}' was asked to answer without tools, and called some instead of giving an answer"
    )]
    CallsInstead {
        /// Which model.
        model: String,
    },
    /// The provider's filter took it away.
    #[error("the filter of {endpoint} took the answer away")]
    Filtered {
        /// Where.
        endpoint: String,
    },
    /// A request would be larger than is sent.
    #[error(
        "the question with its context has {bytes} bytes, more than the {limit} that are sent; ask for less"
    )]
    TooMuch {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

fn again(after: Option<u64>) -> String {
    match after {
        Some(seconds) => format!("it says to try again in {seconds} s"),
        None => "try again later".to_owned(),
    }
}

impl ModelError {
    /// Whether the same request may have an answer at once or soon: what to wait, in milliseconds.
    pub(super) fn wait_before_retry(&self) -> Option<u64> {
        /// A person waits in front of it.
        const LONGEST_S: u64 = 10;
        match self {
            ModelError::RateLimited { retry_after, .. } => {
                let seconds = retry_after.unwrap_or(2);
                (seconds <= LONGEST_S).then(|| seconds.saturating_mul(1000))
            }
            ModelError::Server { status: Some(_), .. } => Some(500),
            _ => None,
        }
    }
}
