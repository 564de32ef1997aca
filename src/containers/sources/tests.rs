//! The whole of asking, against scripted runtimes and kubelets.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::{ContainerNames, ContainerSources, Kubelet};
use crate::capture::privileges::GiveUp;
use crate::containers::{ContainerDetails, Look, Question};
use crate::event::Container;

mod cri;
mod docker;
mod kubelet;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
const UID: &str = "8f7c1a52-3b1e-4d6a-9c55-0a1b2c3d4e5f";
/// Longer than anything here is waited for by what is tested.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory of a test's own.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("netspy-names-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.at(name), text).unwrap();
        self.at(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn head(stream: &mut impl Read) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

fn answer(stream: &mut impl Write, status: u16, body: &str) {
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
    // Whoever asks may have had enough.
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body.as_bytes());
}

fn asking(sockets: &[&str], kubelet: Option<Kubelet>) -> Arc<ContainerNames> {
    let sockets = sockets.iter().map(|text| text.parse().unwrap()).collect();
    let sources = ContainerSources { sockets, kubelet };
    ContainerNames::start(sources, GiveUp::default()).unwrap()
}

/// Of a container of this user: root's are nobody's own.
fn question(id: &str, runtime: &str) -> Arc<Question> {
    let user = rustix::process::geteuid();
    Arc::new(Question {
        id: id.to_owned(),
        runtime: runtime.to_owned(),
        pod_uid: None,
        user: (!user.is_root()).then_some(user.as_raw()),
    })
}

fn of_pod(id: &str, runtime: &str) -> Arc<Question> {
    Arc::new(Question { pod_uid: Some(UID.to_owned()), ..(*question(id, runtime)).clone() })
}

/// What is known once nobody is being asked any more.
fn settled(names: &ContainerNames, question: &Arc<Question>) -> Option<Arc<Container>> {
    let end = Instant::now() + PATIENCE;
    loop {
        match names.look(question) {
            Look::Known(container) => return Some(container),
            Look::Unknown => return None,
            Look::Asked => assert!(Instant::now() < end, "{:?}", names.status()),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn problem(names: &ContainerNames) -> String {
    let status = names.status();
    status.sources[0].problem.clone().unwrap_or_else(|| panic!("{status:?}"))
}
