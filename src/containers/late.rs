//! Records that are shown before anybody knows what their container is called, and then again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use super::{ContainerDetails, Look, Question};
use crate::event::{Connection, ConnectionId, Container, DnsId, DnsRecord, Process, ProcessInfo};

/// Records of one kind that wait for an answer.
const WAITING: usize = 4096;
/// Processes that are remembered.
const PROCESSES: usize = 4096;

/// Adds what is known of containers to records. Owned by the capture thread.
#[derive(Debug)]
pub(crate) struct Late {
    known: Processes,
    connections: Waiting<Connection>,
    look_ups: Waiting<DnsRecord>,
}

/// Processes of containers.
#[derive(Debug)]
struct Processes {
    details: Arc<dyn ContainerDetails>,
    /// By the address of the description, which is held here.
    described: HashMap<usize, Described>,
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

/// What is told of a process, and may come again.
pub(crate) trait Told: Clone {
    type Id: Copy + Eq + Hash + Ord;
    fn id(&self) -> Self::Id;
    fn process(&mut self) -> Option<&mut Process>;
}

impl Told for Connection {
    type Id = ConnectionId;
    fn id(&self) -> ConnectionId {
        self.id
    }
    fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }
}

impl Told for DnsRecord {
    type Id = DnsId;
    fn id(&self) -> DnsId {
        self.id
    }
    fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }
}

/// The newest versions of records of one kind that wait for an answer.
#[derive(Debug)]
struct Waiting<T: Told> {
    asked: HashMap<Arc<Question>, HashMap<T::Id, T>>,
    /// How many there are in all of these.
    len: usize,
}

impl<T: Told> Waiting<T> {
    fn new() -> Self {
        Waiting { asked: HashMap::new(), len: 0 }
    }

    /// Puts a record in; returns how many were given up for it.
    fn put(&mut self, question: &Arc<Question>, record: &T) -> usize {
        let mut given_up = 0;
        if self.len >= WAITING {
            given_up = std::mem::take(&mut self.len);
            self.asked.clear();
        }
        let asked = self.asked.entry(Arc::clone(question)).or_default();
        self.len += usize::from(asked.insert(record.id(), record.clone()).is_none());
        given_up
    }

    fn remove(&mut self, question: &Arc<Question>, id: T::Id) {
        if let Some(asked) = self.asked.get_mut(question) {
            self.len -= usize::from(asked.remove(&id).is_some());
        }
    }

    fn take(&mut self, question: &Arc<Question>) -> impl Iterator<Item = T> + use<T> {
        let asked = self.asked.remove(question).unwrap_or_default();
        self.len -= asked.len();
        asked.into_values()
    }
}

/// Records whose container is known by now, in the order of their ids.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) connections: Vec<Connection>,
    pub(crate) look_ups: Vec<DnsRecord>,
}

impl Late {
    pub(crate) fn new(details: Arc<dyn ContainerDetails>) -> Self {
        let known = Processes { details, described: HashMap::new() };
        Late { known, connections: Waiting::new(), look_ups: Waiting::new() }
    }

    /// Adds what is known of the container of a record, which is the newest version of it. Where
    /// nothing is known yet, the record will be among the [`news`](Self::news).
    pub(crate) fn add(&mut self, connection: &mut Connection) {
        self.known.add(connection, &mut self.connections);
    }

    /// The same of a question for a name.
    pub(crate) fn add_look_up(&mut self, record: &mut DnsRecord) {
        self.known.add(record, &mut self.look_ups);
    }

    /// Adds what is known by now of the container of a process that is told of but once.
    pub(crate) fn add_known(&mut self, process: &mut Process) {
        if process.info.container.is_some()
            && let Look::Known(container) =
                self.known.details.look(&Arc::new(question(&process.info)))
        {
            process.info = described(&process.info, &container);
        }
    }

    pub(crate) fn news(&mut self) -> News {
        let mut news = News::default();
        for question in self.known.details.answered() {
            let (connections, look_ups) =
                (self.connections.take(&question), self.look_ups.take(&question));
            let Look::Known(container) = self.known.details.look(&question) else { continue };
            news.connections.extend(self.known.told(connections, &container));
            news.look_ups.extend(self.known.told(look_ups, &container));
        }
        news.connections.sort_unstable_by_key(|connection| connection.id);
        news.look_ups.sort_unstable_by_key(|record| record.id);
        news
    }
}

impl Processes {
    fn add<T: Told>(&mut self, record: &mut T, waiting: &mut Waiting<T>) {
        let id = record.id();
        let Some(process) = record.process() else { return };
        if process.info.container.is_none() {
            return;
        }
        if self.described.len() >= PROCESSES {
            self.described.clear();
        }
        let described =
            self.described.entry(Arc::as_ptr(&process.info) as usize).or_insert_with(|| {
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
                waiting.remove(&described.question, id);
            }
            Look::Asked => match waiting.put(&described.question, record) {
                0 => {}
                given_up => self.details.forgot(given_up as u64),
            },
            Look::Unknown => {}
        }
    }

    /// The same records, with what their container is called.
    fn told<T: Told>(
        &mut self,
        records: impl Iterator<Item = T>,
        container: &Arc<Container>,
    ) -> impl Iterator<Item = T> {
        records.map(|mut record| {
            if let Some(process) = record.process() {
                process.info = match self.described.get_mut(&(Arc::as_ptr(&process.info) as usize))
                {
                    Some(known) => known.told(Arc::clone(container)),
                    None => described(&process.info, container),
                };
            }
            record
        })
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
    use crate::test_records::{asked, closed, info, refused};

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
        assert!(late.news().connections.is_empty());
        scripted.answer(Some("web"));
        let news = late.news().connections;
        assert_eq!(news.iter().map(name).collect::<Vec<_>>(), [Some("web")]);
        assert_eq!(news[0].id, first.id);
        assert!(late.news().connections.is_empty());
        let mut second = in_container(refused(2, &curl));
        late.add(&mut second);
        assert_eq!(name(&second), Some("web"));
        assert_eq!(late.connections.len, 0);
    }

    #[test]
    fn so_does_a_question_for_a_name_in_its_newest_version() {
        let (scripted, mut late) = late();
        let process = in_container(refused(1, &info(1, "curl"))).process;
        let mut look_up = DnsRecord { process, ..asked(1) };
        late.add_look_up(&mut look_up);
        look_up.connections = vec![refused(1, &info(1, "curl")).id];
        late.add_look_up(&mut look_up);
        scripted.answer(Some("web"));
        let news = late.news();
        assert!(news.connections.is_empty());
        let [told]: [DnsRecord; 1] = news.look_ups.try_into().unwrap();
        let container = told.process.as_ref().unwrap().info.container.clone().unwrap();
        assert_eq!(container.name.as_deref(), Some("web"));
        assert_eq!((told.id, told.connections), (look_up.id, look_up.connections));
        assert_eq!((late.news().look_ups.len(), late.look_ups.len), (0, 0));
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
        assert!(late.news().connections.is_empty());
        assert_eq!(late.connections.len, 0);

        let (scripted, mut late) = self::late();
        late.add(&mut Connection { close: None, ..open.clone() });
        late.add(&mut open.clone());
        scripted.answer(Some("web"));
        let news = late.news().connections;
        assert!(news.len() == 1 && news[0].close.is_some(), "{news:?}");
    }

    #[test]
    fn what_nobody_knows_does_not_come_again() {
        let (scripted, mut late) = late();
        late.add(&mut in_container(refused(1, &info(1, "curl"))));
        scripted.answer(None);
        assert!(late.news().connections.is_empty());
        assert_eq!(late.connections.len, 0);
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_given_up_is_counted() {
        let (scripted, mut late) = late();
        let curl = info(1, "curl");
        for number in 0..=WAITING as u64 {
            late.add(&mut in_container(refused(number, &curl)));
        }
        assert_eq!(*scripted.forgotten.lock().unwrap(), WAITING as u64);
        assert_eq!(late.connections.len, 1);
        assert!(late.known.described.len() <= PROCESSES);
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
