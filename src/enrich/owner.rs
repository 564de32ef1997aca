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
    // Beside a service that has it started in its own cgroup (podman run --cgroups=split).
    ("libpod-payload-", "podman"),
];
/// Directories in which ids of containers stand as they are.
const PARENTS: &[(&str, &str)] = &[
    ("docker", "docker"),
    ("libpod_parent", "podman"),
    // Namespaces of containerd, of which it makes paths unless told otherwise.
    ("default", "containerd"),
    ("k8s.io", "containerd"),
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

    /// What /proc/PID/cgroup adds to what the path of the v2 cgroup says. That path is the attempt's own
    /// and holds; a process that ends is in the roots of v1 already.
    pub(crate) fn or_of_process(self, text: &str) -> Self {
        if self.container.is_some() {
            return self;
        }
        let of_process = Owner::of_process(text);
        match of_process.container {
            Some(_) => of_process,
            None => Owner { unit: self.unit.or(of_process.unit), container: None },
        }
    }

    /// By /proc/PID/cgroup (cgroups(7)), where processes are in hierarchies of v1, alone or beside v2:
    /// systemd's own tells the unit, any may tell the container. Of a process in a container, only a
    /// path that leads through the container tells the unit: others name the service that started it.
    fn of_process(text: &str) -> Self {
        let mut owner = Owner::default();
        let mut unit_within = None;
        for line in text.lines() {
            let mut members = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (members.next(), members.next()) else {
                continue;
            };
            let of_path = Owner::of_path(path);
            if matches!(controllers, "" | "name=systemd") {
                let unit =
                    if of_path.container.is_some() { &mut unit_within } else { &mut owner.unit };
                *unit = unit.take().or(of_path.unit);
            }
            owner.container = owner.container.or(of_path.container);
        }
        if owner.container.is_some() {
            owner.unit = unit_within;
        }
        owner
    }
}

/// The container that a part of a path is of.
fn container(parts: &[&str], at: usize) -> Option<Container> {
    let part = *parts.get(at)?;
    let before = |by: usize| at.checked_sub(by).and_then(|at| parts.get(at)).copied();
    let parent = before(1).unwrap_or_default();
    let named = |id: &str, runtime: &str| {
        (!id.is_empty()).then(|| Container {
            pod_uid: pod_uid(parts.get(..=at).unwrap_or_default()),
            ..Container::new(id, runtime)
        })
    };
    // `SLICE:cri-containerd:ID` is what systemd would take apart: the names of directories, where
    // kubelet and runtime do not agree on who manages cgroups.
    if let Some((before, id)) = part.rsplit_once(':').filter(|(_, id)| is_id(id)) {
        let of = before.rsplit_once(':').map_or(before, |(_, of)| of);
        let known = RUNTIMES.iter().find(|(prefix, _)| prefix.strip_suffix('-') == Some(of));
        return known.and_then(|(_, runtime)| named(id, runtime));
    }
    let name = part.strip_suffix(".scope").unwrap_or(part);
    for (prefix, runtime) in RUNTIMES {
        // What watches over a container is outside of it: `libpod-conmon-ID.scope`.
        if let Some(id) = name.strip_prefix(prefix).filter(|id| is_id(id)) {
            return named(id, runtime);
        }
    }
    if is_id(part) {
        if let Some((_, runtime)) = PARENTS.iter().find(|(of, _)| *of == parent) {
            return named(part, runtime);
        }
        // Amazon's: /ecs/TASK/ID.
        if before(2) == Some("ecs") {
            return named(part, "docker");
        }
        // Which runtime it is that serves the kubelet does not show.
        return pod_uid(parts.get(..at).unwrap_or_default()).and_then(|_| named(part, "cri"));
    }
    // `lxc.monitor.NAME`, what watches over one, has none of these shapes.
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return named(name, "lxc");
    }
    if matches!(parent, "lxc" | "lxc.payload") {
        return named(part, "lxc");
    }
    if parent == "machine.slice" {
        let machine = part.strip_prefix("systemd-nspawn@").and_then(|n| n.strip_suffix(".service"));
        let machine = machine.map(unescaped);
        let machine = machine.or_else(|| {
            let name = unescaped(part.strip_prefix("machine-")?.strip_suffix(".scope")?);
            // Those of libvirt are virtual machines, or its own kind of containers.
            let is_of_others = ["qemu", "lxc", "libvirt"].iter().any(|of| name.starts_with(of));
            (!is_of_others).then_some(name)
        });
        let Some(machine) = machine else {
            return of_libvirt(part).and_then(|n| named(&n, "libvirt-lxc"));
        };
        // systemd-nspawn itself, which is outside.
        let is_supervisor = parts.get(at + 1) == Some(&"supervisor");
        return if is_supervisor { None } else { named(&machine, "systemd-nspawn") };
    }
    None
}

/// The name in `machine-lxc-NUMBER-NAME.scope`, which libvirt gives its LXC containers.
fn of_libvirt(part: &str) -> Option<String> {
    let name = unescaped(part.strip_prefix("machine-lxc")?.strip_suffix(".scope")?);
    let (number, name) = name.strip_prefix('-')?.split_once('-')?;
    number.bytes().all(|b| b.is_ascii_digit()).then(|| name.to_owned())
}

/// The uid of the Kubernetes pod that a path leads through: `podUID`, or `kubepods-…-podUID.slice`
/// with `_` for `-` where systemd manages cgroups.
fn pod_uid(parts: &[&str]) -> Option<String> {
    let is_kubelets = |part: &str| part.contains("kubepods");
    parts.iter().enumerate().rev().find_map(|(at, part)| {
        let uid = match part.strip_prefix("pod") {
            Some(uid) => parts.get(..at)?.iter().any(|p| is_kubelets(p)).then_some(uid)?,
            None => part.rsplit_once("-pod").filter(|(before, _)| is_kubelets(before))?.1,
        };
        let uid = uid.split(['.', ':']).next().unwrap_or_default().replace('_', "-");
        let is_uid = (8..=64).contains(&uid.len())
            && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        is_uid.then_some(uid)
    })
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

    const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
    const UID: &str = "8f7c1a52-3b1e-4d6a-9c55-0a1b2c3d4e5f";

    /// `ID`, `OTHER`, `UID` (and `U_I_D`, as systemd's slices have it) stand for what they are called.
    fn whole(path: &str) -> String {
        let path = path.replace("OTHER", OTHER).replace("U_I_D", &UID.replace('-', "_"));
        path.replace("UID", UID).replace("ID", HEX)
    }

    fn told(path: &str) -> (Option<String>, Option<(String, String)>) {
        let owner = Owner::of_path(&whole(path));
        let container = owner.container.map(|c| (c.runtime.clone(), c.id.clone()));
        (owner.unit.map(|unit| unit.to_string()), container)
    }

    #[test]
    fn a_process_that_ends_is_of_its_v2_cgroup_though_v1_has_it_in_its_roots_by_then() {
        let id = "0".repeat(ID);
        let ending = "9:name=systemd:/\n4:memory:/\n0::/\n";
        for path in [format!("/docker/{id}"), "/system.slice/backup.service".into()] {
            let owner = Owner::of_path(&path);
            assert_eq!(Owner::of_path(&path).or_of_process(ending), owner, "{path}");
        }
        // One that lives may be of a container by v1 alone, in the service that started it.
        let lives = format!("4:memory:/docker/{id}\n0::/system.slice/containerd.service\n");
        let owner = Owner::of_path("/system.slice/containerd.service").or_of_process(&lives);
        let container = owner.container.map(|c| c.id.to_string());
        assert_eq!((owner.unit, container), (None, Some(id)));
    }

    #[test]
    fn containers_are_known_by_the_shapes_that_runtimes_give_their_cgroups() {
        let burstable =
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice";
        let guaranteed = "/kubepods.slice/kubepods-podU_I_D.slice";
        let of_user = "/user.slice/user-1000.slice/user@1000.service/user.slice";
        for (path, runtime, id) in [
            // Docker: with systemd, without, of a user, with a parent of its own, with init in a
            // child; below Amazon's agent.
            ("/system.slice/docker-ID.scope", "docker", "ID"),
            ("/docker/ID", "docker", "ID"),
            ("/docker/ID/init.scope", "docker", "ID"),
            (&format!("{of_user}/docker-ID.scope"), "docker", "ID"),
            ("/batch.slice/docker-ID.scope", "docker", "ID"),
            ("/ecs/1d3b1e4d6a9c550a1b2c3d4e5f60718/ID", "docker", "ID"),
            ("/ecstasks.slice/ecstasks-1d3b.slice/docker-ID.scope", "docker", "ID"),
            // containerd, by nerdctl, and by its own paths of namespace and id.
            ("/system.slice/nerdctl-ID.scope", "containerd", "ID"),
            ("/default/ID", "containerd", "ID"),
            ("/k8s.io/ID", "containerd", "ID"),
            // Kubernetes: who manages cgroups may be systemd or the runtime, or they do not agree.
            (&format!("{burstable}/cri-containerd-ID.scope"), "containerd", "ID"),
            (&format!("{burstable}/crio-ID.scope"), "cri-o", "ID"),
            (&format!("{burstable}/crio-ID.scope/container"), "cri-o", "ID"),
            (&format!("{guaranteed}/docker-ID.scope"), "docker", "ID"),
            ("/kubepods/besteffort/podUID/ID", "cri", "ID"),
            ("/kubepods/podUID/ID", "cri", "ID"),
            ("/kubepods/burstable/podUID/crio-ID", "cri-o", "ID"),
            (
                "/system.slice/containerd.service/kubepods-burstable-podU_I_D.slice:cri-containerd:ID",
                "containerd",
                "ID",
            ),
            // podman: with systemd, without, in pods, of a user, in the cgroup of a service.
            ("/machine.slice/libpod-ID.scope", "podman", "ID"),
            ("/machine.slice/libpod-ID.scope/container", "podman", "ID"),
            ("/machine.slice/machine-libpod_pod_OTHER.slice/libpod-ID.scope", "podman", "ID"),
            ("/libpod_parent/libpod-ID", "podman", "ID"),
            ("/libpod_parent/OTHER/libpod-ID", "podman", "ID"),
            (&format!("{of_user}/libpod-ID.scope/container"), "podman", "ID"),
            (
                &format!("{of_user}/user-libpod_pod_OTHER.slice/libpod-ID.scope/container"),
                "podman",
                "ID",
            ),
            ("/system.slice/web.service/libpod-payload-ID", "podman", "ID"),
            // LXC, of which versions differ, and LXD, Incus, Proxmox and libvirt.
            ("/lxc.payload.web-1", "lxc", "web-1"),
            ("/lxc.payload.web-1/system.slice", "lxc", "web-1"),
            ("/lxc.payload/web-1", "lxc", "web-1"),
            ("/lxc/old", "lxc", "old"),
            ("/lxc/101/ns/init.scope", "lxc", "101"),
            ("/machine.slice/machine-lxc\\x2d4242\\x2dweb.scope/libvirt", "libvirt-lxc", "web"),
            ("/machine.slice/systemd-nspawn@web.service/payload", "systemd-nspawn", "web"),
            ("/machine.slice/systemd-nspawn@my\\x2dweb.service", "systemd-nspawn", "my-web"),
            ("/machine.slice/machine-my\\x2dweb.scope", "systemd-nspawn", "my-web"),
            // A node of kind, in Docker: the container of the pod, not that of the node.
            (
                "/docker/OTHER/kubelet.slice/kubelet-kubepods.slice/\
                 kubelet-kubepods-podU_I_D.slice/cri-containerd-ID.scope",
                "containerd",
                "ID",
            ),
            ("/docker/OTHER/docker/ID", "docker", "ID"),
        ] {
            let expected = (runtime.to_owned(), whole(id));
            assert_eq!(told(path).1, Some(expected), "{path}");
        }
    }

    #[test]
    fn the_pod_of_a_container_is_told_as_the_kubelet_names_it() {
        for (path, uid) in [
            ("/kubepods/besteffort/podUID/ID", Some(UID)),
            ("/kubepods.slice/kubepods-podU_I_D.slice/crio-ID.scope", Some(UID)),
            ("/system.slice/x.service/kubepods-podU_I_D.slice:cri-containerd:ID", Some(UID)),
            // Pods that the kubelet has from a file.
            (
                "/kubepods/pod0123456789abcdef0123456789abcdef/ID",
                Some("0123456789abcdef0123456789abcdef"),
            ),
            ("/kubepods.slice/kubepods-pod..evil.slice/crio-ID.scope", None),
            ("/mine/podUID/crio-ID", None),
            ("/machine.slice/machine-libpod_pod_OTHER.slice/libpod-ID.scope", None),
            ("/docker/ID", None),
        ] {
            let container = Owner::of_path(&whole(path)).container;
            assert_eq!(container.unwrap().pod_uid.as_deref(), uid, "{path}");
        }
    }

    #[test]
    fn the_innermost_container_counts_and_units_within_it_are_its_own() {
        let path = "/docker/ID/lxc.payload.in/system.slice/nginx.service";
        let expected =
            (Some("nginx.service".to_owned()), Some(("lxc".to_owned(), "in".to_owned())));
        assert_eq!(told(path), expected);
        // What started the container is none of them.
        assert_eq!(told("/system.slice/web.service/libpod-payload-ID").0, None);
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
            "/libpod_parent/conmon",
            "/libpod_parent/libpod-conmon-ID",
            "/system.slice/web.service/supervisor",
            "/kubepods.slice/kubepods-podU_I_D.slice/crio-conmon-ID.scope",
            "/kubepods/burstable/podUID/crio-conmon-ID",
            "/kubepods/burstable/podUID",
            "/lxc.monitor.web",
            "/lxc.monitor/web",
            "/lxc.payload",
            "/machine.slice/systemd-nspawn@web.service/supervisor",
            "/machine.slice/machine-web.scope/supervisor",
            "/machine.slice/machine-lxc\\x2dweb.scope",
            "/docker/buildkit/0dq2zv5xwmfr7bqgy0pcvbkd2",
            "/mine:ID",
            "/podUID/ID",
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
        let docker = |text: &str| {
            let owner = Owner::of_process(&text.replace("ID", HEX));
            let container = owner.container.map(|c| (c.runtime.clone(), c.id.clone()));
            assert_eq!(container, Some(("docker".to_owned(), HEX.to_owned())), "{text}");
            owner.unit.map(|unit| unit.to_string())
        };
        // The unit that a hierarchy without the container names is that of what started it.
        let hybrid = "12:pids:/docker/ID\n3:cpu,cpuacct:/docker/ID\n\
                      1:name=systemd:/docker/ID\n0::/system.slice/containerd.service\nnonsense\n";
        assert_eq!(docker(hybrid), None);
        let apart = "12:pids:/docker/ID\n1:name=systemd:/system.slice/docker.service\n0::/\n";
        assert_eq!(docker(apart), None);
        let within = "4:memory:/docker/ID/system.slice/a.service\n\
                      1:name=systemd:/docker/ID/system.slice/a.service\n0::/x.slice/b.service\n";
        assert_eq!(docker(within).as_deref(), Some("a.service"));
        let plain = "4:memory:/\n1:name=systemd:/system.slice/a.service\n0::/\n";
        assert_eq!(Owner::of_process(plain).unit.as_deref(), Some("a.service"));
        assert_eq!(Owner::of_process("4:memory:/system.slice/a.service\n").unit, None);
    }
}
