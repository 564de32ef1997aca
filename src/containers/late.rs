//! Records that are shown before anybody knows what their container is called, and then again.

use std::collections::HashMap;
use std::sync::Arc;

use super::{ContainerDetails, Look, Question};
use crate::event::{Connection, ConnectionId, Container, Process, ProcessInfo};

/// Records that wait for an answer.
const WAITING: usize = 4096;
/// Processes that are remembered.
const PROCESSES: usize = 4096;

/// Adds what is known of containers to records. Owned by the capture thread.
#[derive(Debug)]
pub(crate) struct Late {
    details: Arc<dyn ContainerDetails>,
    /// By the address of the description, which is held here.
    processes: HashMap<usize, Described>,
    waiting: HashMap<Arc<Question>, HashMap<ConnectionId, Connection>>,
    /// How many there are in all of these.
    waiting_len: usize,
}

/// A process of a container, as it came and as it is told.
#[derive(Debug)]
struct Described {
    as_it_came: Arc<ProcessInfo>,
    question: Arc<Question>,
    told: Option<(Arc<Container>, Arc<ProcessInfo>)>,
}

impl Described {
    fn told(&mut self, container: Arc<Container>) -> Arc<ProcessInfo> {
        if let Some((known, info)) = &self.told
            && Arc::ptr_eq(known, &container)
        {
            return Arc::clone(info);
        }
        let info = described(&self.as_it_came, &container);
        self.told = Some((container, Arc::clone(&info)));
        info
    }
}

fn described(info: &Arc<ProcessInfo>, container: &Arc<Container>) -> Arc<ProcessInfo> {
    if info.container.as_ref() == Some(container) {
        return Arc::clone(info);
    }
    Arc::new(ProcessInfo { container: Some(Arc::clone(container)), ..(**info).clone() })
}

impl Late {
    pub(crate) fn new(details: Arc<dyn ContainerDetails>) -> Self {
        let (processes, waiting) = (HashMap::new(), HashMap::new());
        Late { details, processes, waiting, waiting_len: 0 }
    }

    /// Adds what is known of the container of a record, which is the newest version of it. Where
    /// nothing is known yet, the record will be among the [`news`](Self::news).
    pub(crate) fn add(&mut self, connection: &mut Connection) {
        let Some(process) = &mut connection.process else { return };
        if process.info.container.is_none() {
            return;
        }
        if self.processes.len() >= PROCESSES {
            self.processes.clear();
        }
        let described =
            self.processes.entry(Arc::as_ptr(&process.info) as usize).or_insert_with(|| {
                Described {
                    as_it_came: Arc::clone(&process.info),
                    question: Arc::new(question(&process.info)),
                    told: None,
                }
            });
        match self.details.look(&described.question) {
            Look::Known(container) => {
                process.info = described.told(container);
                // An older version must not come after this one.
                if let Some(waiting) = self.waiting.get_mut(&described.question) {
                    self.waiting_len -= usize::from(waiting.remove(&connection.id).is_some());
                }
            }
            Look::Asked => {
                let question = Arc::clone(&described.question);
                self.wait(question, connection);
            }
            Look::Unknown => {}
        }
    }

    /// Adds what is known by now of the container of a process that is told of but once.
    pub(crate) fn add_known(&mut self, process: &mut Process) {
        if process.info.container.is_some()
            && let Look::Known(container) = self.details.look(&Arc::new(question(&process.info)))
        {
            process.info = described(&process.info, &container);
        }
    }

    fn wait(&mut self, question: Arc<Question>, connection: &Connection) {
        if self.waiting_len >= WAITING {
            self.details.forgot(self.waiting_len as u64);
            self.waiting.clear();
            self.waiting_len = 0;
        }
        let waiting = self.waiting.entry(question).or_default();
        let before = waiting.insert(connection.id, connection.clone());
        self.waiting_len += usize::from(before.is_none());
    }

    /// Records whose container is known by now, in the order of their ids.
    pub(crate) fn news(&mut self) -> Vec<Connection> {
        let mut news = Vec::new();
        for question in self.details.answered() {
            let Some(waiting) = self.waiting.remove(&question) else { continue };
            self.waiting_len -= waiting.len();
            let Look::Known(container) = self.details.look(&question) else { continue };
            news.extend(waiting.into_values().map(|mut connection| {
                if let Some(process) = &mut connection.process {
                    process.info =
                        match self.processes.get_mut(&(Arc::as_ptr(&process.info) as usize)) {
                            Some(known) => known.told(Arc::clone(&container)),
                            None => described(&process.info, &container),
                        };
                }
                connection
            }));
        }
        news.sort_unstable_by_key(|connection| connection.id);
        news
    }
}

fn question(info: &ProcessInfo) -> Question {
    let container = info.container.as_deref().cloned().unwrap_or_default();
    let Container { id, runtime, pod_uid, .. } = container;
    Question { id, runtime, pod_uid, user: info.cgroup.as_deref().and_then(delegated_to) }
}

/// The user to whom systemd has delegated the part of the tree in which a cgroup lies.
fn delegated_to(cgroup: &str) -> Option<u32> {
    let services = cgroup.split('/').filter_map(|part| part.strip_prefix("user@"));
    services.filter_map(|part| part.strip_suffix(".service")?.parse().ok()).next()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::containers::ContainerStatus;
    use crate::test_records::{closed, info, refused};

    /// Answers when it is told to.
    #[derive(Debug, Default)]
    struct Scripted {
        known: Mutex<Option<Arc<Container>>>,
        answered: Mutex<Vec<Arc<Question>>>,
        asked: Mutex<Vec<Arc<Question>>>,
        forgotten: Mutex<u64>,
    }

    impl Scripted {
        fn answer(&self, name: Option<&str>) {
            let container = name.map(|name| {
                let name = Some(name.to_owned());
                Arc::new(Container { name, ..Container::new("c1", "docker") })
            });
            *self.known.lock().unwrap() = container;
            self.answered.lock().unwrap().append(&mut self.asked.lock().unwrap());
        }
    }

    impl ContainerDetails for Scripted {
        fn look(&self, question: &Arc<Question>) -> Look {
            match &*self.known.lock().unwrap() {
                Some(known) => Look::Known(Arc::clone(known)),
                None => {
                    self.asked.lock().unwrap().push(Arc::clone(question));
                    Look::Asked
                }
            }
        }
        fn answered(&self) -> Vec<Arc<Question>> {
            std::mem::take(&mut self.answered.lock().unwrap())
        }
        fn forgot(&self, records: u64) {
            *self.forgotten.lock().unwrap() += records;
        }
        fn status(&self) -> ContainerStatus {
            ContainerStatus::default()
        }
    }

    fn in_container(mut connection: Connection) -> Connection {
        let process = connection.process.take().unwrap();
        let mut info = (*process.info).clone();
        info.container = Some(Arc::new(Container::new("c1", "docker")));
        connection.process = Some(Process { info: Arc::new(info), ..process });
        connection
    }

    fn name(connection: &Connection) -> Option<&str> {
        connection.process.as_ref()?.info.container.as_ref()?.name.as_deref()
    }

    fn late() -> (Arc<Scripted>, Late) {
        let scripted = Arc::new(Scripted::default());
        (Arc::clone(&scripted), Late::new(scripted))
    }

    #[test]
    fn a_record_comes_again_when_its_container_is_known_and_later_ones_have_its_name_at_once() {
        let (scripted, mut late) = late();
        let curl = info(1, "curl");
        let mut first = in_container(refused(1, &curl));
        late.add(&mut first);
        assert_eq!(name(&first), None);
        assert!(late.news().is_empty());
        scripted.answer(Some("web"));
        let news = late.news();
        assert_eq!(news.iter().map(name).collect::<Vec<_>>(), [Some("web")]);
        assert_eq!(news[0].id, first.id);
        assert!(late.news().is_empty());
        let mut second = in_container(refused(2, &curl));
        late.add(&mut second);
        assert_eq!(name(&second), Some("web"));
        assert_eq!(late.waiting_len, 0);
    }

    #[test]
    fn an_older_version_never_comes_after_a_newer_one() {
        let (scripted, mut late) = late();
        let curl = info(1, "curl");
        let open = in_container(closed(1, &curl));
        late.add(&mut Connection { close: None, ..open.clone() });
        late.add(&mut open.clone());
        scripted.answer(Some("web"));
        // Known before the news were looked at.
        late.add(&mut open.clone());
        assert!(late.news().is_empty());
        assert_eq!(late.waiting_len, 0);

        let (scripted, mut late) = self::late();
        late.add(&mut Connection { close: None, ..open.clone() });
        late.add(&mut open.clone());
        scripted.answer(Some("web"));
        let news = late.news();
        assert!(news.len() == 1 && news[0].close.is_some(), "{news:?}");
    }

    #[test]
    fn what_nobody_knows_does_not_come_again() {
        let (scripted, mut late) = late();
        late.add(&mut in_container(refused(1, &info(1, "curl"))));
        scripted.answer(None);
        assert!(late.news().is_empty());
        assert_eq!(late.waiting_len, 0);
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_given_up_is_counted() {
        let (scripted, mut late) = late();
        let curl = info(1, "curl");
        for number in 0..=WAITING as u64 {
            late.add(&mut in_container(refused(number, &curl)));
        }
        assert_eq!(*scripted.forgotten.lock().unwrap(), WAITING as u64);
        assert_eq!(late.waiting_len, 1);
        assert!(late.processes.len() <= PROCESSES);
    }

    #[test]
    fn records_of_one_process_share_its_description() {
        let (scripted, mut late) = late();
        scripted.answer(Some("web"));
        let first = in_container(refused(1, &info(1, "curl")));
        let mut second = Connection { process: first.process.clone(), ..refused(2, &info(1, "x")) };
        let mut first = first;
        late.add(&mut first);
        late.add(&mut second);
        let of = |c: &Connection| Arc::clone(&c.process.as_ref().unwrap().info);
        assert!(Arc::ptr_eq(&of(&first), &of(&second)));
        // As it is told already.
        late.add(&mut second);
        assert!(Arc::ptr_eq(&of(&first), &of(&second)));
    }

    #[test]
    fn the_user_of_a_delegated_tree_is_told() {
        let of_user = "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-x.scope";
        assert_eq!(delegated_to(of_user), Some(1000));
        assert_eq!(delegated_to("/system.slice/docker-x.scope"), None);
        assert_eq!(delegated_to("/user.slice/user@me.service"), None);
    }
}
