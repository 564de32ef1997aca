//! Where a model is asked.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;

/// The base URL of an endpoint, such as `https://api.openai.com/v1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub(super) is_tls: bool,
    /// Without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Without a slash at its end.
    path: String,
    query: Option<String>,
}

/// The text is no base URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} (accepted: http://HOST:PORT/PATH or https://HOST/PATH, such as http://localhost:11434/v1)"
)]
pub struct InvalidEndpoint(&'static str);

impl Endpoint {
    /// OpenAI's own.
    pub const OPENAI: &'static str = "https://api.openai.com/v1";

    /// The target of a request for a chat completion.
    pub(super) fn target(&self) -> String {
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}/chat/completions{query}", self.path)
    }

    /// For the `Host` header.
    pub(super) fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.is_tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    /// Whether it is on this host: what is sent there does not leave it.
    pub fn is_local(&self) -> bool {
        let ip = self.host.parse::<std::net::IpAddr>();
        self.host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
    }

    /// Whether others on the way can read what is sent.
    pub fn is_readable_by_others(&self) -> bool {
        !self.is_tls && !self.is_local()
    }
}

impl fmt::Display for Endpoint {
    /// Without its query, in which some services want a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let text = text.trim();
        let uri: Uri = text.parse().map_err(|_| InvalidEndpoint("it is no URL"))?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(InvalidEndpoint("it begins with neither http:// nor https://")),
        };
        let authority = uri.authority().ok_or(InvalidEndpoint("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(InvalidEndpoint("a key belongs into OPENAI_API_KEY, not into the URL"));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(InvalidEndpoint("it names no host"));
        }
        let given = authority.as_str().rsplit_once(':').filter(|(_, port)| !port.contains(']'));
        let port = match (uri.port_u16(), given) {
            (Some(0), _) | (None, Some(_)) => {
                return Err(InvalidEndpoint("its port is no number from 1 to 65535"));
            }
            (Some(port), _) => port,
            (None, None) if is_tls => 443,
            (None, None) => 80,
        };
        let path = uri.path().trim_end_matches('/');
        // People paste the whole of it.
        let path = path.strip_suffix("/chat/completions").unwrap_or(path).to_owned();
        Ok(Endpoint { is_tls, host, port, path, query: uri.query().map(ToOwned::to_owned) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_of_well_known_servers_are_understood() {
        for (text, target, authority, is_local) in [
            (Endpoint::OPENAI, "/v1/chat/completions", "api.openai.com", false),
            ("http://localhost:11434/v1/", "/v1/chat/completions", "localhost:11434", true),
            (
                "http://127.0.0.1:8000/v1/chat/completions",
                "/v1/chat/completions",
                "127.0.0.1:8000",
                true,
            ),
            ("http://[::1]:8000", "/chat/completions", "[::1]:8000", true),
            ("https://[2001:db8::1]/v1", "/v1/chat/completions", "[2001:db8::1]", false),
            (
                "https://x.openai.azure.com/openai/deployments/d?api-version=2024-10-21",
                "/openai/deployments/d/chat/completions?api-version=2024-10-21",
                "x.openai.azure.com",
                false,
            ),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.target(), target, "{text}");
            assert_eq!(endpoint.authority(), authority, "{text}");
            assert_eq!(endpoint.is_local(), is_local, "{text}");
        }
    }

    #[test]
    fn what_is_no_base_url_is_refused_without_being_repeated() {
        for text in [
            "",
            "localhost:11434",
            "ftp://x/v1",
            "http://",
            "http://x:0/",
            "http://x:99999/",
            "https://u:secret@x/v1",
            "http://a b/",
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains("accepted") && !error.contains("secret"), "{text}: {error}");
        }
    }
}
