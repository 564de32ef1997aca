//! Insights and answers in words: by fixed rules always, and by a model where one is named.
//!
//! ```text
//! question ─> Assistant ─┬─> Model: rounds of [request ─> tool calls ─> their answers] ─> answer
//!                        │          every text that leaves goes through the Veil
//!                        └─> RuleBased: the answer where no model is named, or it fails
//! ```
//!
//! A model is any endpoint that speaks OpenAI's chat completions. A key in the environment is no
//! consent: without the name of a model ([`Settings`]) nothing leaves this host. Figures of an
//! answer that no tool returned are told with it ([`figures`]).

mod accounts;
mod assistant;
mod conversation;
mod digits;
mod endpoint;
mod error;
pub mod figures;
mod prompt;
mod settings;
mod transport;
mod turn;
mod veil;
mod wire;

pub use assistant::{Assistant, Reply};
pub use conversation::{Listener, Nobody, Usage};
pub use endpoint::{Endpoint, InvalidEndpoint};
pub use error::ModelError;
pub use settings::{Settings, SettingsError};
pub use veil::{Privacy, Veil};
