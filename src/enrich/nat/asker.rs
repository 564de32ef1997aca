//! The thread that asks the kernel.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};

use super::desk::NatDesk;
use super::message::{AnswerError, Flow};
use super::places::{Others, Place, own_number, tracks};
use crate::capture::privileges::{GiveUp, give_up_to_ask, may_ask_tracking};
use crate::event::{ConnectionId, Endpoint};

/// Questions that are worked at before the namespaces of others are let go.
const BATCH: usize = 256;

/// A connection of which it is to be found out where it goes.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) id: ConnectionId,
    pub(super) flow: Flow,
    pub(super) netns: u32,
    /// The thread, its process and the parent of that, of which one may still be in there.
    pub(super) tasks: [u32; 3],
}

/// Where it goes, if that is not where it seems to.
pub(super) type Answer = (ConnectionId, Option<Endpoint>);

/// Of what the thread is made, until it runs.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) questions: Receiver<Question>,
    pub(super) tell: Sender<Answer>,
    pub(super) desk: Arc<NatDesk>,
}

impl Asker {
    /// Starts the thread, which first gives up what it has no use for. Returns what it has kept, and
    /// what for.
    ///
    /// # Errors
    ///
    /// The thread, or what it needs, cannot be had.
    pub(super) fn start(self, give_up: Option<GiveUp>) -> io::Result<BTreeMap<String, String>> {
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new().name("netspy-nat".into()).spawn(move || {
            let begun = self.begin(give_up).map(|(kept, running)| {
                let _ = ready.send(Ok(kept));
                running
            });
            match begun {
                Ok(running) => running.run(),
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })?;
        is_ready.recv().unwrap_or_else(|_| Err(io::Error::other("the thread has ended")))
    }

    fn begin(self, give_up: Option<GiveUp>) -> io::Result<(BTreeMap<String, String>, Running)> {
        if !may_ask_tracking() {
            return Err(io::Error::other("this takes CAP_NET_ADMIN"));
        }
        let kept = match give_up {
            Some(to) => give_up_to_ask(to, self.desk.others)?,
            None => BTreeMap::new(),
        };
        let others = if self.desk.others { Some(Others::new()?) } else { None };
        let running =
            Running { own_number: own_number()?, asker: self, own: None, tracks: None, others };
        Ok((kept, running))
    }
}

#[derive(Debug)]
struct Running {
    asker: Asker,
    own_number: u32,
    /// Opened when something is tracked: before, that might load what nobody needs.
    own: Option<Place>,
    /// Whether anything is tracked here, looked at once for the questions that come together.
    tracks: Option<bool>,
    others: Option<Others>,
}

impl Running {
    fn run(mut self) {
        // After everything else that wants the processor.
        if let Err(error) = rustix::process::setpriority_process(None, 10) {
            tracing::debug!("the kernel is asked with the priority of others: {error}");
        }
        while let Ok(first) = self.asker.questions.recv() {
            let more: Vec<_> = self.asker.questions.try_iter().take(BATCH).collect();
            for question in std::iter::once(first).chain(more) {
                let actual = self.answer(&question);
                if self.asker.tell.send((question.id, actual)).is_err() {
                    return;
                }
            }
            self.tracks = None;
            if let Some(others) = &mut self.others {
                others.close();
            }
        }
    }

    fn answer(&mut self, question: &Question) -> Option<Endpoint> {
        let desk = Arc::clone(&self.asker.desk);
        desk.asked.fetch_add(1, Ordering::Relaxed);
        let left = match self.follow(question) {
            Ok(left) => {
                desk.answered(None);
                left
            }
            Err(error) => {
                desk.failed.fetch_add(1, Ordering::Relaxed);
                desk.answered(Some(error.to_string()));
                // What it may still have to say is the answer to no later question.
                self.own = None;
                return None;
            }
        };
        let actual = Endpoint { ip: left.to.ip(), port: left.to.port() };
        let is_same = left.to == question.flow.to;
        desk.translated.fetch_add(u64::from(!is_same), Ordering::Relaxed);
        (!is_same).then_some(actual)
    }

    /// How packets leave this host: through the namespace of the process, and then that of this thread,
    /// where what containers send comes by.
    fn follow(&mut self, question: &Question) -> Result<Flow, AnswerError> {
        let is_own = question.netns == self.own_number;
        let mut flow = question.flow;
        let others = self.others.as_mut().filter(|_| !is_own);
        if let Some(place) = others.and_then(|o| o.place(question.netns, question.tasks)) {
            flow = place.ask(&flow)?.unwrap_or(flow);
        }
        // Loopback of another namespace is not that of this one.
        let stays = flow.from.ip().is_loopback() || flow.to.ip().is_loopback();
        if (!is_own && stays) || !*self.tracks.get_or_insert_with(tracks) {
            return Ok(flow);
        }
        let place = match &mut self.own {
            Some(place) => place,
            none => none.insert(Place::here().map_err(AnswerError::Refused)?),
        };
        Ok(place.ask(&flow)?.unwrap_or(flow))
    }
}
