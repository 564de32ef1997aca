//! The other side of a connection.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::{NameSource, Scope, time};

/// The other side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Remote {
    /// Address.
    pub ip: IpAddr,
    /// Port, host byte order.
    pub port: u16,
    /// What kind of address it is: told by the address alone.
    pub scope: Scope,
    /// Host name that led to this address, if one was seen.
    pub name: Option<Arc<str>>,
    /// Where the name came from.
    pub name_source: Option<NameSource>,
    /// When it was resolved: the last time before the attempt that is remembered. `None` where it
    /// came from a file.
    #[serde(serialize_with = "time::serialize_option")]
    pub name_time: Option<Timestamp>,
    /// Registered name of the port, for display only: the protocol spoken may differ.
    pub service: Option<Cow<'static, str>>,
    /// Country of the address (ISO 3166-1, two letters), by the database that was asked.
    pub country: Option<Arc<str>>,
    /// Number of the network (autonomous system) that the address belongs to, by the database.
    pub asn: Option<u32>,
    /// Who runs that network, by the database.
    pub as_name: Option<Arc<str>>,
}

impl Remote {
    /// An address of which nothing else is known.
    pub fn new(ip: IpAddr, port: u16) -> Self {
        Remote {
            ip,
            port,
            scope: Scope::of(ip),
            name: None,
            name_source: None,
            name_time: None,
            service: None,
            country: None,
            asn: None,
            as_name: None,
        }
    }
}

/// Records of before there was a scope have none, and what others say of it counts for nothing.
impl<'de> Deserialize<'de> for Remote {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Told {
            ip: IpAddr,
            port: u16,
            name: Option<Arc<str>>,
            name_source: Option<NameSource>,
            name_time: Option<Timestamp>,
            service: Option<Cow<'static, str>>,
            country: Option<Arc<str>>,
            asn: Option<u32>,
            as_name: Option<Arc<str>>,
        }
        let told = Told::deserialize(deserializer)?;
        let Told { ip, port, name, name_source, name_time, service, country, asn, as_name } = told;
        let remote = Remote::new(ip, port);
        Ok(Remote { name, name_source, name_time, service, country, asn, as_name, ..remote })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scope_is_that_of_the_address_whatever_was_written() {
        for told in ["", r#""scope":null,"#, r#""scope":"global","#, r#""scope":7,"#] {
            let text = format!(
                r#"{{"ip":"10.0.0.1","port":1,{told}"name":null,"name_source":null,"service":null}}"#
            );
            let remote: Remote = serde_json::from_str(&text).unwrap();
            assert_eq!(remote, Remote::new([10, 0, 0, 1].into(), 1));
            assert_eq!(remote.scope, Scope::Private);
        }
    }
}
