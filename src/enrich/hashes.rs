//! SHA-256 of executables, worked out by a thread of its own: capture never waits for it.
//!
//! A record is handed on without it and comes again when it is known. A file is read once for each
//! device, inode, time of change and size that it has; what was changed after the attempt is not
//! what ran then, and has none.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::event::{Connection, ConnectionId, ProcessInfo};

/// Questions that may wait for the thread; what comes beyond has no answer.
const QUESTIONS: usize = 4096;
/// Records that may wait for an answer; others do not come again.
const WAITING: usize = 16_384;
/// Answers that are remembered for the processes to come, and files for which they are.
const KEPT: usize = 8192;
/// The largest file that is read, in bytes.
const LARGEST: u64 = 512 << 20;

/// A program in a process, as its records tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    pid: u32,
    start_time: Option<Timestamp>,
    dev: u64,
    inode: u64,
}

impl Key {
    fn of(info: &ProcessInfo) -> Option<Self> {
        let (dev, inode) = (info.exe_dev?, info.exe_inode?);
        Some(Key { pid: info.pid, start_time: info.start_time, dev, inode })
    }
}

#[derive(Debug)]
struct Question {
    key: Key,
    path: Option<Arc<str>>,
    /// When it ran.
    at: Timestamp,
}

type Answer = (Key, Option<Arc<str>>);

/// An answer, and the last process that was described with it.
#[derive(Debug)]
struct Told {
    sha256: Option<Arc<str>>,
    last: Option<(Arc<ProcessInfo>, Arc<ProcessInfo>)>,
}

/// What is asked, and what waits for it. Owned by the capture thread.
#[derive(Debug)]
pub(crate) struct Hashes {
    ask: SyncSender<Question>,
    answers: Receiver<Answer>,
    /// Of what the thread is made, until it runs.
    worker: Option<Worker>,
    /// `None` while there is no answer.
    known: HashMap<Key, Option<Told>>,
    waiting: HashMap<Key, HashMap<ConnectionId, Connection>>,
    waiting_count: usize,
}

impl Hashes {
    pub(crate) fn new() -> Self {
        let (ask, questions) = sync_channel(QUESTIONS);
        let (tell, answers) = channel();
        let worker = Worker { questions, tell, files: HashMap::new() };
        let (known, waiting) = (HashMap::new(), HashMap::new());
        Hashes { ask, answers, worker: Some(worker), known, waiting, waiting_count: 0 }
    }

    /// Starts the thread, with the privileges of the one that calls: what was asked before waits.
    pub(crate) fn start(&mut self) -> std::io::Result<()> {
        let Some(worker) = self.worker.take() else { return Ok(()) };
        let thread = std::thread::Builder::new().name("netspy-hash".into());
        // It ends when nobody can ask any more.
        thread.spawn(move || worker.run()).map(drop)
    }

    /// Asks, unless there are too many questions: then the next attempt of the process does.
    fn ask(&mut self, key: Key, info: &ProcessInfo, at: Timestamp) {
        if self.known.len() >= KEPT {
            self.known.retain(|_, known| known.is_none());
        }
        let question = Question { key, path: info.exe.clone(), at };
        if self.known.len() < KEPT && self.ask.try_send(question).is_ok() {
            self.known.insert(key, None);
        }
    }

    /// A record on its way to the reader: it gets its hash, or is remembered until that is known.
    pub(crate) fn note(&mut self, connection: &mut Connection) {
        let Some(process) = &mut connection.process else { return };
        let Some(key) = Key::of(&process.info) else { return };
        if !self.known.contains_key(&key) {
            self.ask(key, &process.info, connection.time);
        }
        match self.known.get_mut(&key) {
            Some(Some(told)) => {
                process.info = told.describe(&process.info);
                self.forget(&key, connection.id);
            }
            Some(None) => self.remember(key, connection),
            None => {}
        }
    }

    fn remember(&mut self, key: Key, connection: &Connection) {
        let has_room = self.waiting_count < WAITING;
        let waiting = self.waiting.entry(key).or_default();
        // A later version takes the place of the one before.
        if (has_room || waiting.contains_key(&connection.id))
            && waiting.insert(connection.id, connection.clone()).is_none()
        {
            self.waiting_count += 1;
        }
    }

    /// Records that never reached the reader, who must not be told of them by an update.
    pub(crate) fn forget_all(&mut self, lost: &[Connection]) {
        for connection in lost {
            if let Some(key) = connection.process.as_ref().and_then(|p| Key::of(&p.info)) {
                self.forget(&key, connection.id);
            }
        }
    }

    fn forget(&mut self, key: &Key, id: ConnectionId) {
        if let Some(waiting) = self.waiting.get_mut(key)
            && waiting.remove(&id).is_some()
        {
            self.waiting_count -= 1;
        }
    }

    /// Records whose hash has become known.
    pub(crate) fn updates(&mut self) -> Vec<Connection> {
        let mut updates = Vec::new();
        while let Ok((key, sha256)) = self.answers.try_recv() {
            let waiting = self.waiting.remove(&key).unwrap_or_default();
            self.waiting_count -= waiting.len();
            let mut told = Told { sha256, last: None };
            if told.sha256.is_some() {
                updates.extend(waiting.into_values().map(|mut connection| {
                    if let Some(process) = &mut connection.process {
                        process.info = told.describe(&process.info);
                    }
                    connection
                }));
            }
            self.known.insert(key, Some(told));
        }
        updates.sort_by_key(|connection| connection.time);
        updates
    }
}

impl Told {
    /// The process with what is known of its executable. Records of one process share it.
    fn describe(&mut self, info: &Arc<ProcessInfo>) -> Arc<ProcessInfo> {
        if self.sha256.is_none() || info.exe_sha256 == self.sha256 {
            return Arc::clone(info);
        }
        match &self.last {
            Some((without, with)) if Arc::ptr_eq(without, info) => Arc::clone(with),
            _ => {
                let exe_sha256 = self.sha256.clone();
                let with = Arc::new(ProcessInfo { exe_sha256, ..(**info).clone() });
                self.last = Some((Arc::clone(info), Arc::clone(&with)));
                with
            }
        }
    }
}

/// A file as it is at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Version {
    dev: u64,
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        Version {
            dev: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            size: metadata.size(),
        }
    }
}

/// The thread.
#[derive(Debug)]
struct Worker {
    questions: Receiver<Question>,
    tell: Sender<Answer>,
    files: HashMap<Version, Arc<str>>,
}

impl Worker {
    fn run(mut self) {
        // After everything else that wants the processor.
        if let Err(error) = rustix::process::setpriority_process(None, 10) {
            tracing::debug!("executables are read with the priority of others: {error}");
        }
        while let Ok(question) = self.questions.recv() {
            let sha256 = self.answer(&question);
            if self.tell.send((question.key, sha256)).is_err() {
                return;
            }
        }
    }

    fn answer(&mut self, question: &Question) -> Option<Arc<str>> {
        let of_process = format!("/proc/{}/exe", question.key.pid);
        let places = [Some(of_process.as_str()), question.path.as_deref()];
        let is_meant =
            |file: &Version| (file.dev, file.inode) == (question.key.dev, question.key.inode);
        let (mut file, version) = places.into_iter().flatten().find_map(|place| {
            let file = File::open(place).ok()?;
            let metadata = file.metadata().ok().filter(Metadata::is_file)?;
            Some((file, Version::of(&metadata))).filter(|(_, version)| is_meant(version))
        })?;
        let modified = Timestamp::new(version.modified.0, i32::try_from(version.modified.1).ok()?);
        if modified.is_ok_and(|modified| modified > question.at) || version.size > LARGEST {
            return None;
        }
        if let Some(known) = self.files.get(&version) {
            return Some(Arc::clone(known));
        }
        let sha256 = read(&mut file)?;
        // It may have been written to meanwhile.
        let after = file.metadata().ok().map(|metadata| Version::of(&metadata));
        if after != Some(version) {
            return None;
        }
        if self.files.len() >= KEPT {
            self.files.clear();
        }
        self.files.insert(version, Arc::clone(&sha256));
        Some(sha256)
    }
}

fn read(file: &mut File) -> Option<Arc<str>> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    let mut left = LARGEST;
    loop {
        let count = file.read(&mut buffer).ok()?;
        if count == 0 {
            break;
        }
        left = left.checked_sub(count as u64)?;
        hash.update(buffer.get(..count)?);
    }
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(hex.into())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::test_records::{info, refused};

    /// Of "abc" (FIPS 180-4's example).
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    struct Place(std::path::PathBuf);

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn file(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("netspy-hash-{}-{name}", std::process::id()));
        std::fs::write(&path, "abc").unwrap();
        Place(path)
    }

    /// A record of a process that runs this file, and is gone.
    fn record(n: u64, place: &Place) -> Connection {
        let metadata = std::fs::metadata(&place.0).unwrap();
        let info = ProcessInfo {
            exe: Some(place.0.to_str().unwrap().into()),
            exe_dev: Some(metadata.dev()),
            exe_inode: Some(metadata.ino()),
            ..(*info(u32::MAX - 1, "x")).clone()
        };
        Connection { time: Timestamp::now(), ..refused(n, &Arc::new(info)) }
    }

    fn sha256(connection: &Connection) -> Option<&str> {
        connection.process.as_ref().and_then(|process| process.exe_sha256.as_deref())
    }

    fn wait(hashes: &mut Hashes) -> Vec<Connection> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let updates = hashes.updates();
            if !updates.is_empty() || hashes.known.values().all(Option::is_some) {
                return updates;
            }
            assert!(Instant::now() < end, "no answer");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_record_comes_again_when_the_hash_of_its_executable_is_known() {
        let place = file("known");
        let mut hashes = Hashes::new();
        let (mut first, mut second) = (record(1, &place), record(2, &place));
        hashes.note(&mut first);
        hashes.note(&mut second);
        assert_eq!((sha256(&first), hashes.waiting_count), (None, 2));
        hashes.start().unwrap();
        let updates = wait(&mut hashes);
        let found: Vec<_> = updates.iter().map(|c| (c.id, sha256(c))).collect();
        assert_eq!(found, [(first.id, Some(ABC)), (second.id, Some(ABC))]);
        assert_eq!(hashes.waiting_count, 0);
        // From then on they have it at once.
        let mut third = record(3, &place);
        hashes.note(&mut third);
        assert_eq!((sha256(&third), hashes.waiting_count), (Some(ABC), 0));
    }

    #[test]
    fn what_was_changed_or_replaced_since_has_none() {
        let (changed, replaced) = (file("changed"), file("replaced"));
        let mut hashes = Hashes::new();
        let before = Timestamp::from_second(1_000_000_000).unwrap();
        let mut old = Connection { time: before, ..record(1, &changed) };
        hashes.note(&mut old);
        let mut other = record(2, &replaced);
        std::fs::rename(&changed.0, &replaced.0).unwrap();
        hashes.note(&mut other);
        hashes.start().unwrap();
        while hashes.known.values().any(Option::is_none) {
            assert!(wait(&mut hashes).is_empty());
        }
        assert_eq!(hashes.waiting_count, 0);
    }

    #[test]
    fn questions_and_what_waits_for_them_are_bounded() {
        let place = file("bounded");
        let mut hashes = Hashes::new();
        let template = record(0, &place);
        for n in 0..2 * KEPT as u64 {
            let mut next = template.clone();
            let process = next.process.as_mut().unwrap();
            let pid = n as u32 + 1;
            process.info = Arc::new(ProcessInfo { pid, ..(*process.info).clone() });
            next.id.start_ns = n;
            hashes.note(&mut next);
        }
        assert!(hashes.known.len() <= KEPT && hashes.waiting_count <= WAITING);
        assert_eq!(hashes.waiting_count, QUESTIONS);
    }
}
