//! What kind of address it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, IntoStaticStr, VariantArray};

use super::word_enum;

word_enum! {
    /// Where an address is of use, by the registries of special-purpose addresses (RFC 6890; IANA's
    /// iana-ipv4-special-registry and iana-ipv6-special-registry). Addresses that are mapped to IPv6
    /// count as what they are.
    Scope {
        /// This host alone: 127.0.0.0/8 (RFC 1122, 3.2.1.3), ::1 (RFC 4291, 2.5.3).
        Loopback,
        /// A network of one's own: 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 (RFC 1918), fc00::/7
        /// (RFC 4193), fec0::/10 (RFC 3879), 64:ff9b:1::/48 (RFC 8215).
        Private,
        /// A provider's side of address translation: 100.64.0.0/10 (RFC 6598).
        Shared,
        /// One link: 169.254.0.0/16 (RFC 3927), fe80::/10 (RFC 4291, 2.5.6). Where clouds have the
        /// services that tell a machine about itself.
        LinkLocal,
        /// A group: 224.0.0.0/4 (RFC 5771), ff00::/8 (RFC 4291, 2.7).
        Multicast,
        /// Everybody on the link: 255.255.255.255 (RFC 919).
        Broadcast,
        /// No address: 0.0.0.0 (RFC 1122, 3.2.1.3), :: (RFC 4291, 2.5.2). A connect() to it goes to
        /// this host.
        Unspecified,
        /// Examples: 192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24 (RFC 5737), 2001:db8::/32 (RFC
        /// 3849), 3fff::/20 (RFC 9637).
        Documentation,
        /// Tests of network devices: 198.18.0.0/15 (RFC 2544), 2001:2::/48 (RFC 5180).
        Benchmarking,
        /// Not to be seen anywhere: the rest of 0.0.0.0/8 (RFC 791), 192.0.0.0/24 (RFC 6890, 2.1)
        /// and 2001::/23 (RFC 2928) but for what is given out of them to everybody, 240.0.0.0/4
        /// (RFC 1112, 4), 100::/64 (RFC 6666), 100:0:0:1::/64 (RFC 9780), 5f00::/16 (RFC 9602).
        Reserved,
        /// Anywhere.
        Global,
    }
}

impl Scope {
    /// That of an address.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => of_v4(v4),
            IpAddr::V6(v6) => of_v6(v6),
        }
    }
}

fn of_v4(ip: Ipv4Addr) -> Scope {
    match ip.octets() {
        [0, 0, 0, 0] => Scope::Unspecified,
        [0, ..] => Scope::Reserved,
        [127, ..] => Scope::Loopback,
        [10, ..] | [192, 168, ..] => Scope::Private,
        [172, second, ..] if second & 0xf0 == 16 => Scope::Private,
        [100, second, ..] if second & 0xc0 == 64 => Scope::Shared,
        [169, 254, ..] => Scope::LinkLocal,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Scope::Documentation,
        // Port Control Protocol and TURN, by anycast (RFC 7723, RFC 8155).
        [192, 0, 0, 9 | 10] => Scope::Global,
        [192, 0, 0, _] => Scope::Reserved,
        [198, 18 | 19, ..] => Scope::Benchmarking,
        [255, 255, 255, 255] => Scope::Broadcast,
        [224..=239, ..] => Scope::Multicast,
        [240..=255, ..] => Scope::Reserved,
        _ => Scope::Global,
    }
}

fn of_v6(ip: Ipv6Addr) -> Scope {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Scope::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Scope::Loopback,
        [first, ..] if first & 0xff00 == 0xff00 => Scope::Multicast,
        [first, ..] if first & 0xffc0 == 0xfe80 => Scope::LinkLocal,
        [first, ..] if first & 0xffc0 == 0xfec0 || first & 0xfe00 == 0xfc00 => Scope::Private,
        [0x64, 0xff9b, 1, ..] => Scope::Private,
        [0x100, 0, 0, 0 | 1, ..] | [0x5f00, ..] => Scope::Reserved,
        [0x2001, 0xdb8, ..] => Scope::Documentation,
        [0x3fff, second, ..] if second & 0xf000 == 0 => Scope::Documentation,
        [0x2001, 2, 0, ..] => Scope::Benchmarking,
        [0x2001, second, ..] if second < 0x200 => of_ietf(ip),
        _ => Scope::Global,
    }
}

/// 2001::/23, of which the registry names what may be reached from anywhere.
fn of_ietf(ip: Ipv6Addr) -> Scope {
    match ip.segments() {
        // Teredo (RFC 4380).
        [_, 0, ..] => Scope::Global,
        // Anycast: Port Control Protocol, TURN, DNS-SD (RFC 7723, RFC 8155, RFC 9665).
        [_, 1, 0, 0, 0, 0, 0, 1..=3] => Scope::Global,
        // AMT (RFC 7450), AS112 (RFC 7535), ORCHIDv2 (RFC 7343), drones (RFC 9374).
        [_, 3, ..] | [_, 4, 0x112, ..] | [_, 0x20..=0x3f, ..] => Scope::Global,
        _ => Scope::Reserved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_what_the_registries_say() {
        for (scope, addresses) in [
            (Scope::Loopback, "127.0.0.1 127.255.255.255 ::1 ::ffff:127.0.0.1"),
            (Scope::Private, "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.1"),
            (Scope::Private, "fc00::1 fdff::1 fec0::1 64:ff9b:1::1 ::ffff:10.1.2.3"),
            (Scope::Shared, "100.64.0.0 100.127.255.255"),
            (Scope::LinkLocal, "169.254.169.254 fe80::1 febf::1"),
            (Scope::Multicast, "224.0.0.1 239.255.255.255 ff02::1 ffff::"),
            (Scope::Broadcast, "255.255.255.255"),
            (Scope::Unspecified, "0.0.0.0 ::"),
            (Scope::Documentation, "192.0.2.1 198.51.100.255 203.0.113.0 2001:db8::1 3fff:fff::1"),
            (Scope::Benchmarking, "198.18.0.0 198.19.255.255 2001:2::1"),
            (
                Scope::Reserved,
                "0.0.0.1 192.0.0.8 240.0.0.1 255.255.255.254 100::1 100:0:0:1::1 5f00::1",
            ),
            (Scope::Reserved, "2001:1::4 2001:10::1 2001:1ff::1 2001:2:1::1"),
            (Scope::Global, "1.1.1.1 9.255.255.255 11.0.0.0 172.15.255.255 172.32.0.0 126.0.0.1"),
            (Scope::Global, "100.63.255.255 100.128.0.0 169.253.0.1 192.0.0.9 192.0.1.0 192.0.3.0"),
            (Scope::Global, "192.88.99.1 198.17.255.255 198.20.0.0 223.255.255.255 128.0.0.0"),
            (Scope::Global, "2606:4700::1111 2001::1 2001:1::1 2001:20::1 2001:3::1 2001:200::1"),
            (Scope::Global, "64:ff9b::1 2002::1 100:0:0:2::1 3fff:1000::1 4000::1 2001:4:112::1"),
        ] {
            for address in addresses.split(' ') {
                let ip = address.parse().unwrap();
                assert_eq!(Scope::of(ip), scope, "{address}");
            }
        }
    }
}
