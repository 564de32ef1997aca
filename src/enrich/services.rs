//! Registered names of ports, as /etc/services of this host has them (services(5)).

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::event::Protocol;

/// Read as far as this.
const MOST: usize = 1 << 20;

type Services = HashMap<(u16, bool), String>;

/// The name of a port; `None` where the file has none, or is not there.
pub(super) fn name(port: u16, protocol: Protocol) -> Option<&'static str> {
    static SERVICES: OnceLock<Services> = OnceLock::new();
    let is_udp = match protocol {
        Protocol::Tcp | Protocol::Mptcp => false,
        Protocol::Udp => true,
        _ => return None,
    };
    let read = || {
        let text = std::fs::read("/etc/services").unwrap_or_default();
        parse(&String::from_utf8_lossy(&text[..text.len().min(MOST)]))
    };
    SERVICES.get_or_init(read).get(&(port, is_udp)).map(String::as_str)
}

fn parse(text: &str) -> Services {
    let mut services = Services::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let (Some(name), Some(port)) = (words.next(), words.next()) else { continue };
        let Some((port, protocol)) = port.split_once('/') else { continue };
        let is_udp = match protocol {
            "tcp" => false,
            "udp" => true,
            _ => continue,
        };
        // At most 15 letters (RFC 6335, 5.1); some of before are longer.
        let is_name = name.len() <= 32 && name.bytes().all(|b| b.is_ascii_graphic());
        if let (true, Ok(port)) = (is_name, port.parse()) {
            services.entry((port, is_udp)).or_insert_with(|| name.to_owned());
        }
    }
    services
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_port_counts_for_its_protocol_alone() {
        let services = parse(
            "# comment\nhttp 80/tcp www # WorldWideWeb\ndomain\t53/udp\nother 80/tcp\n\
             broken 99999/tcp\nx\ny 7\nz 8/sctp\nq\u{1b}[2J 9/tcp\n",
        );
        let name = |port, is_udp| services.get(&(port, is_udp)).map(String::as_str);
        assert_eq!((name(80, false), name(80, true)), (Some("http"), None));
        assert_eq!((name(53, true), name(53, false)), (Some("domain"), None));
        assert_eq!(services.len(), 2);
    }
}
