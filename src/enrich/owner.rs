//! What the path of a cgroup says: which systemd unit and which container its processes are of.
//!
//! The names of cgroups are conventions of those who make them; what has none of these shapes is of no
//! container. Only who may make cgroups can give them names: root, or whom root has delegated a part
//! of the tree to.

use std::sync::Arc;

use crate::event::Container;

/// Whose the processes of a cgroup are.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub unit: Option<Arc<str>>,
    pub container: Option<Arc<Container>>,
}

/// Characters of the ids that Docker, containerd, CRI-O and podman give.
const ID: usize = 64;
/// Prefixes of scopes (`docker-ID.scope`), or of directories where no systemd manages cgroups.
const RUNTIMES: &[(&str, &str)] = &[
    ("docker-", "docker"),
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-", "cri-o"),
    ("libpod-", "podman"),
];
/// Kinds of units that hold processes; slices hold units.
const UNITS: &[&str] = &[".service", ".scope", ".socket", ".mount", ".swap"];

impl Owner {
    /// By the path of a cgroup of the v2 hierarchy.
    pub(crate) fn of_path(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        // The innermost container.
        let found = (0..parts.len()).rev().find_map(|at| Some((at, container(&parts, at)?)));
        let within = found.as_ref().map_or(0, |(at, _)| at + 1);
        let is_unit = |part: &&&str| UNITS.iter().any(|kind| part.ends_with(kind));
        Owner {
            unit: parts[within..].iter().rev().find(is_unit).map(|unit| (*unit).into()),
            container: found.map(|(_, container)| Arc::new(container)),
        }
    }

    /// By /proc/PID/cgroup (cgroups(7)), where processes are in hierarchies of v1: systemd's own tells
    /// the unit, any may tell the container.
    pub(crate) fn of_process(text: &str) -> Self {
        let mut owner = Owner::default();
        for line in text.lines() {
            let mut members = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (members.next(), members.next()) else {
                continue;
            };
            let of_path = Owner::of_path(path);
            if matches!(controllers, "" | "name=systemd") {
                owner.unit = owner.unit.or(of_path.unit);
            }
            owner.container = owner.container.or(of_path.container);
        }
        owner
    }
}

/// The container that a part of a path is of.
fn container(parts: &[&str], at: usize) -> Option<Container> {
    let part = *parts.get(at)?;
    let parent = at.checked_sub(1).and_then(|at| parts.get(at)).copied().unwrap_or_default();
    let named = |id: &str, runtime: &str| {
        (!id.is_empty()).then(|| Container {
            id: id.to_owned(),
            runtime: runtime.to_owned(),
            name: None,
            pod: None,
            namespace: None,
        })
    };
    let name = part.strip_suffix(".scope").unwrap_or(part);
    for (prefix, runtime) in RUNTIMES {
        // What watches over a container is outside of it: `libpod-conmon-ID.scope`.
        if let Some(id) = name.strip_prefix(prefix).filter(|id| is_id(id)) {
            return named(id, runtime);
        }
    }
    if is_id(part) {
        let is_of_pod = parent.starts_with("pod") || parent.contains("-pod");
        return match parent {
            "docker" => named(part, "docker"),
            "libpod_parent" => named(part, "podman"),
            // Which runtime it is that serves the kubelet does not show.
            _ if is_of_pod => named(part, "cri"),
            _ => None,
        };
    }
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return named(name, "lxc");
    }
    if parent == "lxc" {
        return named(part, "lxc");
    }
    if parent == "machine.slice" {
        let machine = part.strip_prefix("systemd-nspawn@").and_then(|n| n.strip_suffix(".service"));
        let machine = machine.or_else(|| {
            let name = part.strip_prefix("machine-")?.strip_suffix(".scope")?;
            // Those of libvirt are virtual machines, or its own kind of containers.
            let is_of_others = ["qemu", "lxc", "libvirt"].iter().any(|of| name.starts_with(of));
            (!is_of_others).then_some(name)
        })?;
        return named(&unescaped(machine), "systemd-nspawn");
    }
    None
}

fn is_id(text: &str) -> bool {
    text.len() == ID && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A name as systemd escapes it in a unit's (`\x2d` for `-`).
fn unescaped(name: &str) -> String {
    let mut text = String::new();
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("\\x") {
        text.push_str(before);
        let byte = after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte.filter(u8::is_ascii_graphic) {
            Some(byte) => {
                text.push(char::from(byte));
                rest = &after[2..];
            }
            None => {
                text.push_str("\\x");
                rest = after;
            }
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn told(path: &str) -> (Option<String>, Option<(String, String)>) {
        let owner = Owner::of_path(&path.replace("ID", HEX));
        let container = owner.container.map(|c| (c.runtime.clone(), c.id.replace(HEX, "ID")));
        (owner.unit.map(|unit| unit.to_string()), container)
    }

    #[test]
    fn containers_are_known_by_the_shapes_that_runtimes_give_their_cgroups() {
        let pod = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod8f_1.slice";
        for (path, runtime, id) in [
            ("/system.slice/docker-ID.scope", "docker", "ID"),
            ("/docker/ID", "docker", "ID"),
            (&format!("{pod}/cri-containerd-ID.scope"), "containerd", "ID"),
            (&format!("{pod}/crio-ID.scope"), "cri-o", "ID"),
            ("/kubepods/besteffort/pod8f-1/ID", "cri", "ID"),
            ("/kubepods/pod8f-1/ID", "cri", "ID"),
            ("/machine.slice/libpod-ID.scope", "podman", "ID"),
            ("/machine.slice/libpod-ID.scope/container", "podman", "ID"),
            ("/libpod_parent/libpod-ID", "podman", "ID"),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
                "podman",
                "ID",
            ),
            ("/system.slice/nerdctl-ID.scope", "containerd", "ID"),
            ("/lxc.payload.web-1", "lxc", "web-1"),
            ("/lxc.payload.web-1/system.slice", "lxc", "web-1"),
            ("/lxc/old", "lxc", "old"),
            ("/machine.slice/systemd-nspawn@web.service/payload", "systemd-nspawn", "web"),
            ("/machine.slice/machine-my\\x2dweb.scope", "systemd-nspawn", "my-web"),
        ] {
            let expected = (None, Some((runtime.to_owned(), id.to_owned())));
            assert_eq!(told(path), expected, "{path}");
        }
    }

    #[test]
    fn the_innermost_container_counts_and_units_within_it_are_its_own() {
        let path = "/docker/ID/lxc.payload.in/system.slice/nginx.service";
        let expected =
            (Some("nginx.service".to_owned()), Some(("lxc".to_owned(), "in".to_owned())));
        assert_eq!(told(path), expected);
    }

    #[test]
    fn units_are_told_and_slices_are_none() {
        for (path, unit) in [
            ("/system.slice/ssh.service", Some("ssh.service")),
            ("/system.slice/foo.service/worker/3", Some("foo.service")),
            ("/user.slice/user-1000.slice/session-2.scope", Some("session-2.scope")),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.scope",
                Some("app-x.scope"),
            ),
            ("/system.slice/system-getty.slice/getty@tty1.service", Some("getty@tty1.service")),
            ("/system.slice", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(told(path), (unit.map(str::to_owned), None), "{path}");
        }
    }

    #[test]
    fn what_only_looks_like_a_container_is_none() {
        for path in [
            "/machine.slice/libpod-conmon-ID.scope",
            "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope",
            "/system.slice/docker-0123.scope",
            "/system.slice/docker.service",
            "/mine/ID",
            "/ID",
            "/lxc.payload.",
            "/lxc",
        ] {
            assert_eq!(told(path).1, None, "{path}");
        }
    }

    #[test]
    fn hierarchies_of_v1_tell_together() {
        let text = format!(
            "12:pids:/docker/{HEX}\n3:cpu,cpuacct:/docker/{HEX}\n\
             1:name=systemd:/system.slice/docker.service\n0::/\nnonsense\n"
        );
        let owner = Owner::of_process(&text);
        assert_eq!(owner.container.map(|c| c.runtime.clone()).as_deref(), Some("docker"));
        assert_eq!(owner.unit.as_deref(), Some("docker.service"));
        assert_eq!(Owner::of_process("4:memory:/system.slice/a.service\n").unit, None);
    }
}
