//! Where a server listens.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The place of a server: a TCP address or a UNIX socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `http://host:port`.
    Http {
        /// Host name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// `https://host:port`.
    Https {
        /// Host name or address, without brackets, as the certificate has it.
        host: String,
        /// Port.
        port: u16,
    },
    /// A UNIX socket.
    Unix(PathBuf),
}

/// The text names no place where a server could listen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct InvalidAddress {
    problem: String,
}

impl InvalidAddress {
    /// What is accepted, for messages.
    pub const ACCEPTED: &'static str = "http://HOST:PORT, https://HOST:PORT, HOST:PORT, unix:/run/netspy/api.sock or the path of a UNIX socket";

    fn new(problem: impl Into<String>) -> Self {
        InvalidAddress { problem: problem.into() }
    }
}

impl Address {
    /// The authority for the `Host` header (RFC 9112, section 3.2).
    pub fn authority(&self) -> String {
        match self {
            Address::Http { host, port } | Address::Https { host, port } => {
                if host.contains(':') {
                    format!("[{host}]:{port}")
                } else {
                    format!("{host}:{port}")
                }
            }
            Address::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Http { .. } => write!(f, "http://{}", self.authority()),
            Address::Https { .. } => write!(f, "https://{}", self.authority()),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path.strip_prefix("//").unwrap_or(path));
        }
        if text.starts_with('/') {
            return unix(text);
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        if scheme.eq_ignore_ascii_case("https") {
            let (host, port) = tcp(rest, "443")?;
            return Ok(Address::Https { host, port });
        }
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(InvalidAddress::new(format!("unknown scheme '{scheme}'")));
        }
        let (host, port) = tcp(rest, "80")?;
        Ok(Address::Http { host, port })
    }
}

fn unix(path: &str) -> Result<Address, InvalidAddress> {
    if !path.starts_with('/') {
        return Err(InvalidAddress::new("the path of a UNIX socket starts with '/'"));
    }
    // sun_path holds 108 bytes with its end (unix(7)).
    if path.len() > 107 {
        return Err(InvalidAddress::new("the path of a UNIX socket has at most 107 bytes"));
    }
    Ok(Address::Unix(PathBuf::from(path)))
}

fn tcp(rest: &str, usual: &str) -> Result<(String, u16), InvalidAddress> {
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@']) {
        return Err(InvalidAddress::new("only host and port can be given, no path and no user"));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, after) =
                v6.split_once(']').ok_or_else(|| InvalidAddress::new("']' is missing"))?;
            host.parse::<std::net::Ipv6Addr>()
                .map_err(|_| InvalidAddress::new(format!("'{host}' is no IPv6 address")))?;
            (host, after.strip_prefix(':').or(after.is_empty().then_some(usual)))
        }
        None => match authority.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => {
                return Err(InvalidAddress::new("an IPv6 address is written in brackets"));
            }
            Some((host, port)) => (host, Some(port)),
            None => (authority, Some(usual)),
        },
    };
    let port = port
        .and_then(|p| p.parse::<u16>().ok())
        .filter(|p| *p != 0)
        .ok_or_else(|| InvalidAddress::new("the port is a number from 1 to 65535"))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    if host.is_empty() || !host.chars().all(plain) {
        return Err(InvalidAddress::new(format!("'{host}' is no host name")));
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_that_people_write_are_understood() {
        for (text, shown) in [
            ("http://localhost:8080", "http://localhost:8080"),
            ("http://localhost:8080/", "http://localhost:8080"),
            ("HTTP://10.0.0.1:1", "http://10.0.0.1:1"),
            ("http://web-1", "http://web-1:80"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("https://web-1", "https://web-1:443"),
            ("HTTPS://[::1]:8443/", "https://[::1]:8443"),
            ("unix:/run/netspy/api.sock", "unix:/run/netspy/api.sock"),
            ("unix:///run/x", "unix:/run/x"),
            ("/run/x", "unix:/run/x"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_names_no_server_is_refused() {
        for text in [
            "",
            "http://",
            "http://:80",
            "http://a:0",
            "http://a:99999",
            "http://a:b",
            "http://a/b",
            "http://a?b",
            "http://u@a:1",
            "http://::1:80",
            "http://[::1",
            "http://[zz]:1",
            "http://a b:1",
            "http://a\u{1b}[31m:1",
            "ftp://a",
            "unix:relative",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
