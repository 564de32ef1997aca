//! Whose a process is: the unit and the container that its cgroup stands for.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use netspy::event::{Container, Process};

use crate::group::Group;
use crate::harness::{bound_port, observes, shared};
use crate::roles::play;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

/// cgroups below one of the test's own, all of which go with this value.
struct Tree {
    top: Group,
    below: Vec<PathBuf>,
}

impl Tree {
    fn new() -> Option<Self> {
        Some(Tree { top: Group::new("containers")?, below: Vec::new() })
    }

    /// A cgroup of this path below the top.
    fn grow(&mut self, path: &str) -> Group {
        let mut directory = self.top.path.clone();
        for part in path.split('/') {
            directory.push(part);
            std::fs::create_dir_all(&directory).unwrap();
            if !self.below.contains(&directory) {
                self.below.push(directory.clone());
            }
        }
        Group { path: directory }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        for directory in self.below.iter().rev() {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

#[test]
fn records_name_the_unit_and_the_container_of_their_process() {
    let Some(watch) = shared() else { return };
    if !observes(&watch, "cgroup_names") {
        println!("skipped: nothing tells the paths of new control groups here");
        return;
    }
    let Some(mut tree) = Tree::new() else { return };
    let of_pod = "kubepods.slice/kubepods-burstable.slice/\
                  kubepods-burstable-pod8f7c1a52_3b1e_4d6a_9c55_0a1b2c3d4e5f.slice";
    let uid = "8f7c1a52-3b1e-4d6a-9c55-0a1b2c3d4e5f";
    let pod = Some(uid);
    let of_user = "user.slice/user-1000.slice/user@1000.service/user.slice";
    for (path, runtime, id, unit, pod) in [
        (format!("system.slice/docker-{ID}.scope"), Some("docker"), ID, None, None),
        (format!("docker/{ID}"), Some("docker"), ID, None, None),
        (format!("{of_pod}/cri-containerd-{ID}.scope"), Some("containerd"), ID, None, pod),
        (format!("{of_pod}/crio-{ID}.scope/container"), Some("cri-o"), ID, None, pod),
        (format!("{of_pod}/crio-conmon-{ID}.scope"), None, "", Some("SCOPE"), None),
        (format!("kubepods/besteffort/pod{uid}/{ID}"), Some("cri"), ID, None, pod),
        (format!("machine.slice/libpod-{ID}.scope/container"), Some("podman"), ID, None, None),
        (format!("machine.slice/libpod-conmon-{ID}.scope"), None, "", Some("SCOPE"), None),
        (
            format!("machine.slice/machine-libpod_pod_{OTHER}.slice/libpod-{ID}.scope"),
            Some("podman"),
            ID,
            None,
            None,
        ),
        (format!("libpod_parent/{OTHER}/libpod-{ID}"), Some("podman"), ID, None, None),
        (format!("{of_user}/libpod-{ID}.scope/container"), Some("podman"), ID, None, None),
        ("lxc.payload.web".to_owned(), Some("lxc"), "web", None, None),
        ("lxc.monitor.web".to_owned(), None, "", None, None),
        (
            "machine.slice/systemd-nspawn@web.service/payload".into(),
            Some("systemd-nspawn"),
            "web",
            None,
            None,
        ),
        (
            "machine.slice/systemd-nspawn@web.service/supervisor".into(),
            None,
            "",
            Some("systemd-nspawn@web.service"),
            None,
        ),
        ("system.slice/backup.service".to_owned(), None, "", Some("backup.service"), None),
        (
            format!("docker/{ID}/system.slice/a.service"),
            Some("docker"),
            ID,
            Some("a.service"),
            None,
        ),
        // A node of kind: the container of the pod within counts.
        (
            format!("docker/{OTHER}/kubelet.slice/kubelet-{of_pod}/cri-containerd-{ID}.scope"),
            Some("containerd"),
            ID,
            None,
            pod,
        ),
        ("elsewhere".to_owned(), None, "", None, None),
    ] {
        // Not to be dropped before the tree, which has it in its list.
        let group = std::mem::ManuallyDrop::new(tree.grow(&path));
        let remote = bound_port();
        let status = group.take(play("connect", remote)).status().unwrap();
        assert_eq!(status.code(), Some(libc::ECONNREFUSED));
        let record = watch.outcome(remote);
        let Some(Process { info, .. }) = record.process else { panic!("{path}: no process") };
        let last = path.rsplit('/').next();
        let unit = if unit == Some("SCOPE") { last } else { unit };
        assert_eq!(info.unit.as_deref(), unit, "{path}");
        let expected = runtime.map(|runtime| Container {
            pod_uid: pod.map(str::to_owned),
            ..Container::new(id, runtime)
        });
        assert_eq!(info.container.as_deref(), expected.as_ref(), "{path}");
    }
}

/// Where a hierarchy of v1 is mounted in which directories can be made.
fn hierarchy_of_v1() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let of_v1 = mounts.lines().filter(|line| line.contains(" - cgroup "));
    let mut places = of_v1.filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    places.find(|place| {
        let own = place.join(format!("netspy-live-v1-{}", std::process::id()));
        // Some want their members set before anybody may be in them.
        let takes = std::fs::create_dir(&own).is_ok() && !own.join("cpuset.cpus").exists();
        let _ = std::fs::remove_dir(&own);
        takes
    })
}

#[test]
fn a_hierarchy_of_v1_tells_the_container_of_a_process_that_that_of_v2_has_elsewhere() {
    let Some(watch) = shared() else { return };
    let Some(place) = hierarchy_of_v1() else {
        println!("skipped: no hierarchy of version 1 is mounted, or none can be written to");
        return;
    };
    let Some(mut tree) = Tree::new() else { return };
    let service = std::mem::ManuallyDrop::new(tree.grow("system.slice/containerd.service"));
    let top = Group { path: place.join(format!("netspy-live-v1-{}", std::process::id())) };
    std::fs::create_dir(&top.path).unwrap();
    let docker = Group { path: top.path.join("docker") };
    std::fs::create_dir(&docker.path).unwrap();
    let container = Group { path: docker.path.join(ID) };
    std::fs::create_dir(&container.path).unwrap();
    let remote = bound_port();
    // It lives until its record was seen: /proc alone tells hierarchies of v1.
    let script = format!(": 3<>/dev/tcp/127.0.0.1/{}; read end", remote.port());
    let mut stays = Command::new("/bin/bash");
    stays.args(["-c", &script]).stdin(Stdio::piped()).stderr(Stdio::null());
    let mut stays = service.take(container.take(stays)).spawn().unwrap();
    let record = watch.outcome(remote);
    drop(stays.stdin.take());
    stays.wait().unwrap();
    let info = record.process.expect("a process").info;
    assert_eq!(info.container.as_deref(), Some(&Container::new(ID, "docker")));
    // That of the service is not the container's.
    assert_eq!(info.unit, None);
    drop((container, docker, top));
}
