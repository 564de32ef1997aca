//! What this kernel tells of drops: whether there is a reason, and how reasons are called.
//!
//! The numbers differ between kernels, so the names come from the running kernel's own types.

use std::collections::HashMap;
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
        Ok(DropFacts { arguments, rdonly_cast, names: Names::read(&btf) })
    }
}

/// Names of reasons.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    names: HashMap<u32, Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
    subsystems: HashMap<u32, String>,
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
        let name: Arc<str> = match (self.subsystems.get(&(reason >> 16)), reason & 0xffff) {
            (Some(subsystem), number) if reason >> 16 != 0 => {
                format!("{subsystem}_{number}").into()
            }
            _ => format!("REASON_{reason}").into(),
        };
        // The kernel has no more than a few hundred.
        if self.names.len() < 4096 {
            self.names.insert(reason, Arc::clone(&name));
        }
        name
    }
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
