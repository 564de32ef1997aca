//! The daemon: from options to answers.

mod check;
mod clients;
pub mod config;
mod containers;
mod descriptors;
mod geo;
pub mod listen;
mod lists;
pub mod logging;
#[cfg(feature = "ai")]
mod model;
mod notify;
pub mod options;
mod patience;
mod reload;
mod run;
mod serve;
mod tls;

pub use check::PlaceError;
pub use clients::Limits;
pub use config::{ConfigError, Configuration};
pub use containers::{ContainerOptions, Socket};
pub use geo::{Geo, GeoError};
pub use lists::Listed;
#[cfg(feature = "ai")]
pub use model::{Model, ModelAdvisor, ModelConfigError, ModelOptions};
pub use options::Options;
pub use reload::RELOADED;
pub use run::{CheckReport, ServerError, check, run};
pub use serve::{Listeners, Terms, serve, serve_mcp, serve_on};
pub use tls::{Tls, TlsError};
