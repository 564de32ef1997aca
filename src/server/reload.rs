//! SIGHUP: options are read again, and what can change while the server runs does.

use std::ffi::OsString;
use std::sync::Arc;

use super::config::Configuration;
use super::geo::Geo;
use super::lists::Listed;
use super::logging::Level;
use super::{Limits, Tls};
use crate::api::Tokens;

/// Options that take effect at once. The files that some of them name are read again each time.
pub const RELOADED: [&str; 13] = [
    "log-level",
    "token-file",
    "tls-cert",
    "tls-key",
    "geoip",
    "max-connections",
    "max-connections-per-client",
    "model",
    "model-base",
    "model-key-file",
    "model-timeout",
    "model-max-rounds",
    "model-hide-addresses",
];

/// What can change while the server runs.
#[derive(Debug)]
pub(super) struct Reloader {
    /// The command line.
    pub arguments: Vec<OsString>,
    pub current: Configuration,
    pub log: Option<Level>,
    pub limits: Arc<Limits>,
    pub tokens: Option<Arc<Tokens>>,
    pub tls: Option<Arc<Tls>>,
    pub geo: Arc<Geo>,
    #[cfg(feature = "ai")]
    pub model: Arc<super::ModelAdvisor>,
}

impl Reloader {
    /// Reads everything again. What is wrong changes nothing.
    pub(super) fn reload(&mut self) {
        let next = match Configuration::load(&self.arguments) {
            Ok(next) => next,
            Err(error) => {
                tracing::error!("the configuration stays as it was: {error}");
                return;
            }
        };
        let mut changed = self.current.differences(&next);
        let mut kept = Vec::new();
        changed.retain(|name| {
            let is_reloaded = RELOADED.contains(&name.as_str()) && self.can_change(name, &next);
            if !is_reloaded && name != "config" {
                kept.push(name.clone());
            }
            is_reloaded
        });
        if let Err(error) = self.read_files(&next) {
            tracing::error!("the configuration stays as it was: {error}");
            return;
        }
        let options = &next.options;
        if let Some(log) = &self.log {
            log.set(options.log_level);
        }
        let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        let (all, of_one) = (options.max_connections, options.connections_per_client());
        self.limits.set(count(all), count(of_one));
        if !kept.is_empty() {
            tracing::warn!("these take a restart to change: {}", kept.join(", "));
        }
        let changed = if changed.is_empty() { "no option".to_owned() } else { changed.join(", ") };
        tracing::info!("reloaded; changed: {changed}");
        // What takes a restart is compared with what is in effect, each time.
        self.current.take_over(&next, |name| !kept.iter().any(|kept| kept == name));
    }

    /// Whether there are tokens, or TLS, is settled when the listener is opened.
    fn can_change(&self, name: &str, next: &Configuration) -> bool {
        match name {
            "token-file" => self.tokens.is_some() && next.options.token_file.is_some(),
            "tls-cert" | "tls-key" => self.tls.is_some() && next.options.tls_cert.is_some(),
            _ => true,
        }
    }

    fn read_files(&self, next: &Configuration) -> Result<(), super::ServerError> {
        let options = &next.options;
        // All are read before any takes effect.
        #[cfg(feature = "ai")]
        let model = options.model.read()?;
        let geo = Geo::read(Listed::all(&options.geoip))?;
        let tokens = match (&self.tokens, &options.token_file) {
            (Some(tokens), Some(path)) => Some((tokens, Tokens::read(path)?)),
            _ => None,
        };
        if let (Some(tls), Some(cert), Some(key)) = (&self.tls, &options.tls_cert, &options.tls_key)
        {
            tls.reload(cert, key)?;
        }
        if let Some((tokens, read)) = tokens {
            tokens.replace(read);
        }
        self.geo.replace(geo);
        #[cfg(feature = "ai")]
        self.model.replace(model);
        Ok(())
    }
}
