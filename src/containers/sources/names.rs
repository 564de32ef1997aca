//! The thread that asks, and what it was told.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::LocalSet;

use super::SourceError;
use super::facts::Facts;
use super::groups;
use super::options::ContainerSources;
use super::source::Source;
use crate::capture::privileges::{GiveUp, give_up_all};
use crate::containers::{ContainerDetails, ContainerStatus, Look, Question};
use crate::event::Container;

/// Questions that may wait for the thread.
const QUEUE: usize = 256;
/// Questions that it works at.
const AT_A_TIME: usize = 64;
/// Containers in one generation of what is known; two generations are kept.
const GENERATION: usize = 2048;
/// How long an answer counts until somebody is asked again: labels of pods change.
const FRESH: Duration = Duration::from_secs(300);
/// How long nobody is asked about a container that nobody knows, and after failures.
const UNKNOWN: Duration = Duration::from_secs(30);
const FAILED: Duration = Duration::from_secs(5);
/// How long failures are waited out, and a kubelet that does not know a container yet.
const PATIENCE: Duration =
    if cfg!(test) { Duration::from_secs(8) } else { Duration::from_secs(15) };
const LAG: Duration = Duration::from_secs(2);
/// How long a question waits that could not be asked, because whom to ask is left alone: longer than
/// anybody is.
const LEFT_ALONE: Duration = Duration::from_secs(180);
/// After how long a runtime that answers is asked again about the container of which it said nothing
/// of use, and how often.
const AGAIN: Duration = Duration::from_secs(1);
const TRIES: u32 = 3;
/// Questions that wait until they are asked (again).
const WAITING: usize = 512;

/// Names, images, labels and pods of containers, from the sources that were named.
#[derive(Debug)]
pub struct ContainerNames {
    state: Arc<State>,
    questions: Sender<Arc<Question>>,
}

#[derive(Debug)]
struct State {
    sources: Vec<Source>,
    table: Mutex<Table>,
    answered: Mutex<Vec<Arc<Question>>>,
    has_answers: AtomicBool,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    asked: AtomicU64,
    named: AtomicU64,
    unknown: AtomicU64,
    failed: AtomicU64,
    skipped: AtomicU64,
    forgotten: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    young: HashMap<Arc<Question>, Entry>,
    old: HashMap<Arc<Question>, Entry>,
}

#[derive(Debug)]
enum Entry {
    Asked,
    Known { container: Arc<Container>, until: Instant, is_asked: bool },
    Unknown { until: Instant },
}

impl Table {
    fn get(&mut self, question: &Arc<Question>) -> Option<&mut Entry> {
        if !self.young.contains_key(question)
            && let Some(entry) = self.old.remove(question)
        {
            self.put(question, entry);
        }
        self.young.get_mut(question)
    }

    fn put(&mut self, question: &Arc<Question>, entry: Entry) {
        if self.young.len() >= GENERATION && !self.young.contains_key(question) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(Arc::clone(question), entry);
    }
}

/// What came of a question.
#[derive(Debug)]
enum Told {
    Facts(Facts),
    Unknown,
    Failed,
    /// There was no room to wait for who could be asked.
    Skipped,
}

impl ContainerNames {
    /// Starts the thread, which first gives up what it has no use for: all capabilities, and where
    /// `give_up` names a user, being anybody else. A socket has to be one that this user may
    /// connect to, by the groups that list them, too.
    ///
    /// # Errors
    ///
    /// There is no thread, or the user could not be taken on.
    pub fn start(sources: ContainerSources, give_up: GiveUp) -> io::Result<Arc<Self>> {
        let (questions, queue) = async_channel::bounded(QUEUE);
        let state = Arc::new(State {
            sources: Source::all(sources),
            table: Mutex::default(),
            answered: Mutex::default(),
            has_answers: AtomicBool::new(false),
            counts: Counts::default(),
        });
        let (ready, is_ready) = mpsc::sync_channel(1);
        let here = Arc::clone(&state);
        std::thread::Builder::new().name("netspy-names".into()).spawn(move || {
            let groups = give_up.user.map_or_else(Vec::new, |user| groups::of(user.uid));
            let given_up = match (give_up_all(give_up, &groups), give_up.user) {
                (Err(error), Some(_)) => Err(error),
                (Err(error), None) => {
                    tracing::debug!("privileges of the thread that asks for names: {error}");
                    Ok(())
                }
                (Ok(()), _) => Ok(()),
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match given_up.and(runtime) {
                Ok(runtime) => {
                    let _ = ready.send(Ok(()));
                    LocalSet::new().block_on(&runtime, answer_all(queue, here));
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })?;
        is_ready.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended")))?;
        Ok(Arc::new(ContainerNames { state, questions }))
    }
}

impl ContainerDetails for ContainerNames {
    fn look(&self, question: &Arc<Question>) -> Look {
        // An id becomes part of a request: it is digits, whatever a cgroup may be called.
        let is_id = !question.id.is_empty() && question.id.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_id || !self.state.sources.iter().any(|source| source.may_know(question)) {
            return Look::Unknown;
        }
        let mut table = self.state.table();
        match table.get(question) {
            Some(Entry::Asked) => Look::Asked,
            Some(Entry::Unknown { until }) if *until > Instant::now() => Look::Unknown,
            Some(Entry::Known { container, until, is_asked }) => {
                let container = Arc::clone(container);
                if !*is_asked && *until <= Instant::now() {
                    *is_asked = self.ask(question);
                    *until = Instant::now() + FAILED;
                }
                Look::Known(container)
            }
            _ => match self.ask(question) {
                true => {
                    table.put(question, Entry::Asked);
                    Look::Asked
                }
                false => {
                    table.put(question, Entry::Unknown { until: Instant::now() + FAILED });
                    Look::Unknown
                }
            },
        }
    }

    fn answered(&self) -> Vec<Arc<Question>> {
        if !self.state.has_answers.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut self.state.answered())
    }

    fn forgot(&self, records: u64) {
        self.state.counts.forgotten.fetch_add(records, Ordering::Relaxed);
    }

    fn status(&self) -> ContainerStatus {
        let counts = &self.state.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ContainerStatus {
            asked: read(&counts.asked),
            named: read(&counts.named),
            unknown: read(&counts.unknown),
            failed: read(&counts.failed),
            skipped: read(&counts.skipped),
            forgotten: read(&counts.forgotten),
            sources: self.state.sources.iter().filter_map(Source::status).collect(),
        }
    }
}

impl ContainerNames {
    /// Whether the question could be put into the queue.
    fn ask(&self, question: &Arc<Question>) -> bool {
        let is_asked = self.questions.try_send(Arc::clone(question)).is_ok();
        let counts = &self.state.counts;
        let count = if is_asked { &counts.asked } else { &counts.skipped };
        count.fetch_add(1, Ordering::Relaxed);
        is_asked
    }
}

impl State {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self) -> MutexGuard<'_, Vec<Arc<Question>>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, question: &Arc<Question>, told: Told) {
        let now = Instant::now();
        let (count, entry) = match told {
            Told::Facts(facts) => {
                let container = Arc::new(facts.container(question));
                let entry = Entry::Known { container, until: now + FRESH, is_asked: false };
                (&self.counts.named, entry)
            }
            Told::Unknown => (&self.counts.unknown, Entry::Unknown { until: now + UNKNOWN }),
            Told::Failed => (&self.counts.failed, Entry::Unknown { until: now + FAILED }),
            Told::Skipped => {
                self.counts.asked.fetch_sub(1, Ordering::Relaxed);
                (&self.counts.skipped, Entry::Unknown { until: now + FAILED })
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
        let mut table = self.table();
        match (table.get(question), entry) {
            // What was known of it stays true enough: containers that have ended are forgotten by their
            // runtime before their last connection has.
            (Some(Entry::Known { is_asked, until, .. }), Entry::Unknown { until: later }) => {
                (*is_asked, *until) = (false, later);
            }
            // What is told again word for word keeps its place.
            (
                Some(Entry::Known { container, until, is_asked }),
                Entry::Known { container: told, until: later, .. },
            ) if *container == told => (*is_asked, *until) = (false, later),
            (_, entry) => table.put(question, entry),
        }
        drop(table);
        self.answered().push(Arc::clone(question));
        self.has_answers.store(true, Ordering::Release);
    }
}

/// Until nobody can ask any more.
async fn answer_all(queue: Receiver<Arc<Question>>, state: Arc<State>) {
    let room =
        Rc::new(Room { work: Arc::new(Semaphore::new(AT_A_TIME)), wait: Semaphore::new(WAITING) });
    loop {
        let Ok(question) = queue.recv().await else { return };
        // Never closed.
        let Ok(permit) = Arc::clone(&room.work).acquire_owned().await else { return };
        let (state, room) = (Arc::clone(&state), Rc::clone(&room));
        tokio::task::spawn_local(async move {
            let told = answer(&state.sources, &question, &room, permit).await;
            state.note(&question, told);
        });
    }
}

/// For questions that are worked at, and those that wait meanwhile: they keep nobody from being asked.
struct Room {
    work: Arc<Semaphore>,
    wait: Semaphore,
}

/// Asks whoever may know, and again while that may help.
async fn answer(
    sources: &[Source],
    question: &Question,
    room: &Room,
    permit: OwnedSemaphorePermit,
) -> Told {
    let mut works = Some(permit);
    let mut tries = 0;
    let is_complete =
        |facts: &Facts| facts.name.is_some() && (facts.pod.is_some() || question.pod_uid.is_none());
    let since = Instant::now();
    loop {
        let mut found: Option<Facts> = None;
        let (mut failed, mut again) = (false, None::<Duration>);
        let mut patience = PATIENCE;
        tries += 1;
        for source in sources.iter().filter(|source| source.is_to_be_asked(question)) {
            if found.as_ref().is_some_and(is_complete) {
                break;
            }
            match source.ask(question).await {
                Ok(Some(facts)) => {
                    if source.lags() && facts.name.is_none() {
                        again = again.max(Some(LAG));
                    }
                    found = Some(match found.take() {
                        Some(known) => known.or(facts),
                        None => facts,
                    });
                }
                Ok(None) if source.lags() => again = again.max(Some(LAG)),
                Ok(None) => {}
                Err(error) => {
                    failed = true;
                    let is_left_alone = matches!(error, SourceError::LeftAlone);
                    patience = if is_left_alone { LEFT_ALONE } else { patience };
                    let pause = match source.is_of_one_container(&error) {
                        true => (tries < TRIES).then(|| AGAIN.saturating_mul(tries)),
                        // Its time may have come by now.
                        false if is_left_alone => {
                            Some(source.left_alone_for().unwrap_or(Duration::ZERO))
                        }
                        false => source.left_alone_for(),
                    };
                    again = again.max(pause);
                }
            }
        }
        if found.as_ref().is_some_and(is_complete) {
            again = None;
        }
        match again {
            Some(pause) if since.elapsed() + pause < patience => {
                let Ok(_waits) = room.wait.try_acquire() else {
                    let none = if patience == LEFT_ALONE { Told::Skipped } else { Told::Failed };
                    return found.map_or(none, Told::Facts);
                };
                drop(works.take());
                // Others who wait for the same are to have their turn, too.
                tokio::time::sleep(pause.max(Duration::from_millis(1))).await;
                works = Arc::clone(&room.work).acquire_owned().await.ok();
            }
            _ => {
                return match (found, failed) {
                    (Some(facts), _) => Told::Facts(facts),
                    (None, true) => Told::Failed,
                    (None, false) => Told::Unknown,
                };
            }
        }
    }
}
