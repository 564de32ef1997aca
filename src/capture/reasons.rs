//! What this kernel tells of drops: whether there is a reason, and how reasons are called.
//!
//! The numbers differ between kernels, so the names come from the running kernel's own types. Where
//! there are none (before Linux 5.17), the function that dropped the packet stands for the reason.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::sync::Arc;

use libbpf_rs::btf::{Btf, BtfType, types};

/// What the running kernel's types tell.
#[derive(Debug, Clone, Default)]
pub(super) struct DropFacts {
    /// Arguments of the tracepoint: the packet and the place, since 5.17 the reason, since 6.11
    /// the receiving socket. 0 where there is no such tracepoint.
    pub arguments: usize,
    /// Whether any memory can be read through a type (Linux 6.2).
    pub rdonly_cast: bool,
    /// Names by number.
    pub names: Names,
}

/// Prefix of the names of reasons.
const PREFIX: &str = "SKB_DROP_REASON_";
/// Prefix of the names of subsystems, whose number is in the upper half of a reason.
const SUBSYSTEM: &str = "SKB_DROP_REASON_SUBSYS_";
/// Where subsystems name their reasons, if they are not modules.
const SUBSYSTEMS: [&str; 2] = ["mac80211_drop_reason", "ovs_drop_reason"];

impl DropFacts {
    /// Asks the running kernel.
    pub(super) fn probe() -> libbpf_rs::Result<Self> {
        let btf = Btf::from_vmlinux()?;
        // The first argument of the typedef is for the caller's own data.
        let arguments = btf
            .type_by_name::<types::Typedef<'_>>("btf_trace_kfree_skb")
            .and_then(|typedef| typedef.next_type())
            .and_then(|pointer| pointer.next_type())
            .and_then(|function| types::FuncProto::try_from(function).ok())
            .map_or(0, |function| function.len().saturating_sub(1));
        let rdonly_cast = btf.type_by_name::<types::Func<'_>>("bpf_rdonly_cast").is_some();
        let mut names = Names::read(&btf);
        if names.names.is_empty() {
            names.places = Some(Places::read());
        }
        Ok(DropFacts { arguments, rdonly_cast, names })
    }
}

/// Names of reasons.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    names: HashMap<u32, Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
    subsystems: HashMap<u32, String>,
    /// Where places stand for reasons.
    places: Option<Places>,
}

impl Names {
    /// Stands for the reasons that are counted together.
    pub(super) const OTHER: u32 = u32::MAX;

    fn read(btf: &Btf<'_>) -> Self {
        let mut names = Names::default();
        for (name, value) in variants(btf, "skb_drop_reason") {
            names.add(&name, value);
        }
        for (name, value) in variants(btf, "skb_drop_reason_subsys") {
            names.add_subsystem(&name, value);
        }
        for (name, value) in SUBSYSTEMS.iter().flat_map(|subsystem| variants(btf, subsystem)) {
            if value >> 16 != 0 {
                names.names.entry(value).or_insert_with(|| name.into());
            }
        }
        names
    }

    fn add(&mut self, name: &str, value: u32) {
        let short = name.strip_prefix(PREFIX).unwrap_or(name);
        // A mask, and the end of the list: no reasons.
        if !short.starts_with("SUBSYS_") && short != "MAX" {
            let name = self.names.entry(value).or_insert_with(|| short.into());
            self.numbers.entry(Arc::clone(name)).or_insert(value);
        }
    }

    fn add_subsystem(&mut self, name: &str, value: u32) {
        if let Some(short) = name.strip_prefix(SUBSYSTEM).filter(|short| *short != "NUM") {
            self.subsystems.entry(value).or_insert_with(|| short.to_owned());
        }
    }

    /// The number of a reason on this kernel, if it has it.
    pub(super) fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// The name of a reason. One that the kernel does not name is called by its number, and by its
    /// subsystem where that is known.
    pub(super) fn of(&mut self, reason: u32) -> Arc<str> {
        if let Some(name) = self.names.get(&reason) {
            return Arc::clone(name);
        }
        if reason == Self::OTHER {
            return "OTHER".into();
        }
        if let Some(places) = &self.places {
            let name = places.function(reason).unwrap_or_else(|| NOT_SPECIFIED.to_owned()).into();
            return self.keep(reason, name);
        }
        let name: Arc<str> = match (self.subsystems.get(&(reason >> 16)), reason & 0xffff) {
            (Some(subsystem), number) if reason >> 16 != 0 => {
                format!("{subsystem}_{number}").into()
            }
            _ => format!("REASON_{reason}").into(),
        };
        self.keep(reason, name)
    }

    fn keep(&mut self, reason: u32, name: Arc<str>) -> Arc<str> {
        // The kernel has no more than a few hundred.
        if self.names.len() < 4096 {
            self.names.insert(reason, Arc::clone(&name));
        }
        name
    }

    /// Whether places stand for reasons, whose names the kernel shows to the privileged.
    pub(super) fn are_places(&self) -> bool {
        self.places.is_some()
    }

    /// The number to show: a part of an address is nobody's business.
    pub(super) fn code(&self, reason: u32) -> u32 {
        if self.places.is_some() { 0 } else { reason }
    }
}

/// What the kernel calls a reason that it does not tell.
const NOT_SPECIFIED: &str = "NOT_SPECIFIED";

/// Functions of the kernel, by the lower half of an address in them.
#[derive(Debug, Clone, Default)]
struct Places {
    /// Where the kernel's code begins; `None` where addresses are not shown to this process.
    text: Option<u64>,
}

impl Places {
    fn read() -> Self {
        let text = symbols().and_then(|mut symbols| symbols.find(|(_, name)| name == "_stext"));
        Places { text: text.map(|(at, _)| at).filter(|at| *at != 0) }
    }

    fn function(&self, place: u32) -> Option<String> {
        function_at(symbols()?, self.text?, place)
    }
}

/// The function that an address is in, of which the lower half is known: a place just behind a
/// call, within 2 GiB of the beginning of the kernel's code.
fn function_at(
    symbols: impl Iterator<Item = (u64, String)>,
    text: u64,
    place: u32,
) -> Option<String> {
    let distance = place.wrapping_sub(1).wrapping_sub(text as u32).cast_signed();
    let place = text.wrapping_add_signed(distance.into());
    let (_, name) = symbols.filter(|(at, _)| *at <= place).max_by_key(|(at, _)| *at)?;
    // What the compiler appends to the name of a part or a copy.
    name.split('.').next().map(str::to_owned)
}

/// The kernel's functions, where they are and what they are called. Read anew for each of the few
/// places that drop packets, rather than kept.
fn symbols() -> Option<impl Iterator<Item = (u64, String)>> {
    let lines = BufReader::new(File::open("/proc/kallsyms").ok()?).lines();
    Some(lines.map_while(Result::ok).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let at = u64::from_str_radix(fields.next()?, 16).ok()?;
        let is_code = matches!(fields.next()?, "t" | "T" | "w" | "W");
        is_code.then(|| Some((at, fields.next()?.to_owned())))?
    }))
}

/// The variants of an enumeration; none if the kernel has none of that name.
fn variants(btf: &Btf<'_>, name: &str) -> Vec<(String, u32)> {
    // A structure may have the same name.
    let named = |ty: &BtfType<'_>| ty.name().is_some_and(|n| n == name);
    let found = btf
        .type_by_name::<types::Enum<'_>>(name)
        .or_else(|| btf.type_by_kind::<types::Enum<'_>>().find(|ty| named(ty) && !ty.is_empty()));
    let Some(found) = found else { return Vec::new() };
    found
        .iter()
        .filter_map(|variant| {
            let name = variant.name?.to_str()?.to_owned();
            Some((name, variant.value as u32))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_that_of_the_function_around_it() {
        let text = 0xffff_ffff_8100_0000_u64;
        let at = |offset: i64, name: &str| (text.wrapping_add_signed(offset), name.to_owned());
        let symbols = [
            at(0, "_stext"),
            at(0x1000, "tcp_v4_rcv"),
            at(0x3f00_0000, "nf_hook_slow"),
            at(0x2000, "__udp4_lib_rcv.part.0"),
            at(-0x1000, "of_a_module"),
        ];
        for (place, name) in [
            (0x1000, Some("_stext")),
            (0x1001, Some("tcp_v4_rcv")),
            (0x2000, Some("tcp_v4_rcv")),
            (0x2080, Some("__udp4_lib_rcv")),
            (0x3f00_0010, Some("nf_hook_slow")),
            (-0xff0, Some("of_a_module")),
            (-0x1000, None),
        ] {
            let place = text.wrapping_add_signed(place) as u32;
            let found = function_at(symbols.iter().cloned(), text, place);
            assert_eq!(found.as_deref(), name, "{place:x}");
        }
    }

    #[test]
    fn a_reason_has_the_kernels_name_without_its_prefix() {
        let mut names = Names::default();
        names.add("SKB_DROP_REASON_NO_SOCKET", 3);
        names.add("SKB_CONSUMED", 1);
        names.add("SKB_DROP_REASON_MAX", 9);
        names.add("SKB_DROP_REASON_SUBSYS_MASK", 0xffff_0000);
        names.add_subsystem("SKB_DROP_REASON_SUBSYS_OPENVSWITCH", 2);
        names.add_subsystem("SKB_DROP_REASON_SUBSYS_CORE", 0);
        let cases = [
            (3, "NO_SOCKET"),
            (1, "SKB_CONSUMED"),
            (9, "REASON_9"),
            (0x2_0005, "OPENVSWITCH_5"),
            (0x7_0005, "REASON_458757"),
            (Names::OTHER, "OTHER"),
        ];
        for (reason, name) in cases {
            assert_eq!(&*names.of(reason), name);
            assert_eq!(&*names.of(reason), name, "again");
        }
        assert_eq!((names.number("NO_SOCKET"), names.number("MAX")), (Some(3), None));
    }
}
