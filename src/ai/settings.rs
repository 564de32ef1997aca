//! Which model is asked, where, and with what key.

use std::env;
use std::time::Duration;

use hyper::header::HeaderValue;

use super::endpoint::{Endpoint, InvalidEndpoint};
use super::veil::Privacy;

/// The setting that names a model, and with it gives consent.
pub const MODEL: &str = "NETSPY_MODEL";
/// The key, for endpoints that want one.
pub const KEY: &str = "OPENAI_API_KEY";
/// The base URL.
pub const BASE: &str = "OPENAI_API_BASE";

/// How a model is asked.
#[derive(Clone)]
pub struct Settings {
    /// Its name, as the endpoint knows it.
    pub model: String,
    /// Where it is asked.
    pub endpoint: Endpoint,
    pub(super) key: Option<Key>,
    /// Rounds of tool calls, after which it has to answer.
    pub max_rounds: u32,
    /// For how long it may be silent.
    pub silence: Duration,
    /// What is not sent.
    pub privacy: Privacy,
}

/// A key. It is shown nowhere.
#[derive(Clone)]
pub(super) struct Key {
    text: String,
    pub(super) header: HeaderValue,
}

impl Key {
    fn new(text: &str) -> Option<Self> {
        let mut header = HeaderValue::try_from(format!("Bearer {text}")).ok()?;
        header.set_sensitive(true);
        Some(Key { text: text.to_owned(), header })
    }

    /// What somebody said, without the key: servers like to repeat a wrong one.
    pub(super) fn strip(&self, said: &str) -> String {
        // A server may show its ends alone ("sk-ab****xyz"), which is its own choice.
        said.replace(&self.text, crate::redact::HIDDEN)
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("model", &self.model)
            .field("endpoint", &self.endpoint.to_string())
            .field("key", &self.key.as_ref().map(|_| crate::redact::HIDDEN))
            .finish_non_exhaustive()
    }
}

/// The environment names no way to a model.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The base URL is none.
    #[error("{BASE}: {0}")]
    Base(#[from] InvalidEndpoint),
    /// The key cannot be sent.
    #[error("{KEY} holds characters that no key has: is there a line feed in it?")]
    Key,
    /// OpenAI itself wants a key.
    #[error(
        "a model is named ({0}), but {KEY} holds no key for {openai}; set it, or name another \
         endpoint with {BASE} (Ollama: http://localhost:11434/v1)", openai = Endpoint::OPENAI
    )]
    NoKey(String),
}

impl Settings {
    /// Rounds of tool calls unless asked otherwise.
    pub const MAX_ROUNDS: u32 = 6;
    /// How long a model may be silent unless asked otherwise: large ones think before a word.
    pub const SILENCE: Duration = Duration::from_secs(90);

    /// From the environment, where `model` or NETSPY_MODEL names a model; `None` where nothing
    /// does, whatever key there is.
    pub fn from_environment(model: Option<&str>) -> Result<Option<Settings>, SettingsError> {
        let named = model.map(ToOwned::to_owned).or_else(|| env::var(MODEL).ok());
        let get = |name: &str| env::var(name).ok();
        Self::of(named.as_deref(), get(BASE).as_deref(), get(KEY).as_deref())
    }

    /// The same from given values; empty ones are none.
    pub fn of(
        model: Option<&str>,
        base: Option<&str>,
        key: Option<&str>,
    ) -> Result<Option<Settings>, SettingsError> {
        let given = |text: Option<&str>| {
            text.map(str::trim).filter(|t| !t.is_empty()).map(ToOwned::to_owned)
        };
        let Some(model) = given(model) else { return Ok(None) };
        let base = given(base);
        let endpoint: Endpoint = base.as_deref().unwrap_or(Endpoint::OPENAI).parse()?;
        let key = match given(key) {
            Some(text) => Some(Key::new(&text).ok_or(SettingsError::Key)?),
            None if base.is_none() => return Err(SettingsError::NoKey(model)),
            None => None,
        };
        let (max_rounds, silence) = (Self::MAX_ROUNDS, Self::SILENCE);
        let privacy = Privacy::default();
        Ok(Some(Settings { model, endpoint, key, max_rounds, silence, privacy }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_alone_is_no_consent() {
        let settings = Settings::of(None, None, Some("sk-secret"));
        assert!(settings.unwrap().is_none());
        assert!(Settings::of(Some(" "), Some("http://localhost:1/v1"), None).unwrap().is_none());
    }

    #[test]
    fn a_server_of_ones_own_needs_no_key_and_openai_does() {
        let local = Settings::of(Some("qwen3"), Some("http://localhost:11434/v1"), None).unwrap();
        assert!(local.unwrap().key.is_none());
        let error = Settings::of(Some("gpt"), None, Some("")).unwrap_err().to_string();
        assert!(error.contains(KEY) && error.contains(BASE), "{error}");
    }

    #[test]
    fn a_key_is_shown_nowhere() {
        let settings = Settings::of(Some("gpt"), None, Some("sk-secret")).unwrap().unwrap();
        let key = settings.key.clone().unwrap();
        let shown = format!("{settings:?} {:?} {}", key.header, key.strip("wrong key sk-secret"));
        assert!(!shown.contains("secret"), "{shown}");
        let error = Settings::of(Some("gpt"), None, Some("sk-sec\nret")).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("sec"), "{error}");
    }
}
