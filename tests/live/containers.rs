//! Whose a process is: the unit and the container that its cgroup stands for.

use std::path::PathBuf;

use netspy::event::{Container, Process};

use crate::group::Group;
use crate::harness::{bound_port, observes, shared};
use crate::roles::play;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

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
    let pod = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod8f.slice";
    for (path, runtime, id, unit) in [
        (format!("system.slice/docker-{ID}.scope"), Some("docker"), ID, None),
        (format!("docker/{ID}"), Some("docker"), ID, None),
        (format!("{pod}/cri-containerd-{ID}.scope"), Some("containerd"), ID, None),
        (format!("{pod}/crio-{ID}.scope"), Some("cri-o"), ID, None),
        (format!("kubepods/besteffort/pod8f/{ID}"), Some("cri"), ID, None),
        (format!("machine.slice/libpod-{ID}.scope/container"), Some("podman"), ID, None),
        ("lxc.payload.web".to_owned(), Some("lxc"), "web", None),
        (
            "machine.slice/systemd-nspawn@web.service/payload".into(),
            Some("systemd-nspawn"),
            "web",
            None,
        ),
        ("system.slice/backup.service".to_owned(), None, "", Some("backup.service")),
        (format!("docker/{ID}/system.slice/a.service"), Some("docker"), ID, Some("a.service")),
        ("elsewhere".to_owned(), None, "", None),
    ] {
        // Not to be dropped before the tree, which has it in its list.
        let group = std::mem::ManuallyDrop::new(tree.grow(&path));
        let remote = bound_port();
        let status = group.take(play("connect", remote)).status().unwrap();
        assert_eq!(status.code(), Some(libc::ECONNREFUSED));
        let record = watch.outcome(remote);
        let Some(Process { info, .. }) = record.process else { panic!("{path}: no process") };
        assert_eq!(info.unit.as_deref(), unit, "{path}");
        let expected = runtime.map(|runtime| Container {
            id: id.to_owned(),
            runtime: runtime.to_owned(),
            name: None,
            pod: None,
            namespace: None,
        });
        assert_eq!(info.container.as_deref(), expected.as_ref(), "{path}");
    }
}
