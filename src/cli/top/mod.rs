//! `top` on a terminal: processes, remotes, ports and connections over the whole screen.
//!
//! Each second the source is asked the questions that every other front end asks; how much happens
//! on the host costs nothing here, as following every change would.

mod about;
mod answers;
mod draw;
mod empty;
mod head;
mod help;
mod look;
mod rows;
mod state;
mod tabs;
mod terminal;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use crossterm::event::{Event, EventStream, KeyEventKind};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use self::answers::Answers;
use self::look::Look;
use self::state::{Next, State};
use self::terminal::FullScreen;
use super::failure::{Failure, note};
use super::filters::What;
use super::locate::Origin;
use super::render::screen::Screen;
use super::render::units::Clock;
use super::signals::Signals;
use crate::query::QueryError;
use crate::query::sees_sent;

/// The screen is never older than this, unless the answers take their time.
const PERIOD: Duration = Duration::from_secs(1);

/// Of the time, no more than one part in so many is spent by the source on answers.
const SHARE: u32 = 4;

type Round = BoxFuture<'static, Result<Answers, QueryError>>;

/// Whether standard output is a terminal that can show it.
pub fn is_possible(screen: &Screen) -> bool {
    screen.width.is_some() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Shows the screen until it is told to stop.
pub async fn run(what: &What, origin: &Origin) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let mut hangup = signal(SignalKind::hangup())?;
    // A source that does not answer is told of on the screen of the shell.
    let begin = async {
        let mut state = State::new(what.clone(), sees_sent(&*origin.source).await?)?;
        state.take(ask(&state, origin).await?);
        Ok::<_, QueryError>(state)
    };
    let mut state = tokio::select! {
        () = signals.wait() => {
            note("cancelled");
            return Ok(());
        }
        state = begin => state?,
    };
    let mut screen = FullScreen::enter()?;
    let mut events = EventStream::new();
    let look = Look::new(Screen::of_stdout());
    let mut round: Option<Round> = None;
    // What is shown beside the rows depends on the size of the screen, which is known when it is
    // drawn.
    let mut due = Instant::now();
    loop {
        let clock = Clock::local();
        screen.terminal.draw(|frame| draw::draw(frame, &mut state, origin, &look, &clock))?;
        tokio::select! {
            biased;
            () = signals.wait() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
            event = events.next() => {
                let next = match event {
                    Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => state.key(key),
                    // A wider screen has room for more answers.
                    Some(Ok(Event::Resize(..))) => Next::Ask,
                    Some(Ok(_)) => Next::Draw,
                    Some(Err(error)) => return Err(error.into()),
                    None => return Ok(()),
                };
                match next {
                    Next::Draw => {}
                    Next::Ask => (round, due) = (None, Instant::now()),
                    Next::Quit => return Ok(()),
                    Next::Suspend => screen.suspend()?,
                }
            }
            answers = wait(&mut round) => {
                round = None;
                let mut pause = PERIOD;
                match answers {
                    Ok(answers) => {
                        pause = pause.max(answers.took * SHARE);
                        state.take(answers);
                    }
                    Err(error) => state.error = Some(error.to_string()),
                }
                due = Instant::now() + pause;
            }
            () = sleep_until(due), if round.is_none() => {
                // What is paused is asked once for each view of it.
                due = Instant::now() + PERIOD;
                if state.paused.is_none() || !state.is_answered() {
                    round = Some(ask(&state, origin));
                }
            }
        }
        if let Some(why) = origin.own.as_ref().and_then(|own| own.stopped()) {
            return Err(Failure::Unreachable(format!("capture stopped: {why}")));
        }
        if screen.is_lost() {
            return Err(Failure::Unreachable("a part of netspy failed, see above".to_owned()));
        }
    }
}

fn ask(state: &State, origin: &Origin) -> Round {
    Box::pin(state.question().ask(Arc::clone(&origin.source), state.more()))
}

async fn wait(round: &mut Option<Round>) -> Result<Answers, QueryError> {
    match round {
        Some(round) => round.await,
        None => pending().await,
    }
}
