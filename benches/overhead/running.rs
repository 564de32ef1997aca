//! A tracer's process: started on its own CPU, waited for until it is attached, and ended.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process};

use crate::bpf_stats::{Stats, programs_of};
use crate::load::{self, Kind, Plan, Rate};
use crate::roles::Cost;
use crate::tracers::{Start, Tracer};
use crate::usage::{CpuTime, Memory};

/// A tracer that takes longer than this to start or to end is given up.
const PATIENCE: Duration = Duration::from_secs(90);
/// A program of others says in its own way that it is attached, if at all. Its BPF programs run
/// when calls are made, and there is none that has not run before, for this long: it is.
const SETTLED: Duration = Duration::from_millis(400);
const POLL: Duration = Duration::from_millis(20);
/// What a program of others may need to catch up before it is asked to end.
const CATCH_UP: Duration = Duration::from_millis(300);

pub struct Running {
    child: Child,
    talk: Talk,
}

/// How it is spoken to.
enum Talk {
    /// `ready`, the end of its standard input, and a line of JSON.
    Lines(Receiver<String>),
    /// A program of others: its output goes into files, its CPU time is that of /proc.
    Output { out: File, errors: File, start_cpu: CpuTime },
}

impl Running {
    /// Starts this program in the tracer's role and waits until it is attached.
    pub fn start(tracer: &Tracer) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--role", tracer.name]);
        match tracer.start {
            Start::Own(_) => Self::start_own(command),
            Start::Command { .. } => Self::start_other(command),
        }
    }

    fn start_own(mut command: Command) -> Result<Self, Box<dyn Error>> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (send, lines) = mpsc::channel();
        let out = child.stdout.take().ok_or("no standard output")?;
        // Ends with the child's output, which ends with the child.
        thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        let running = Running { child, talk: Talk::Lines(lines) };
        match running.line()?.as_str() {
            "ready" => Ok(running),
            other => Err(other.trim_start_matches("failed: ").into()),
        }
    }

    fn start_other(mut command: Command) -> Result<Self, Box<dyn Error>> {
        let file =
            |name| Ok::<_, std::io::Error>(File::from(memfd_create(name, MemfdFlags::CLOEXEC)?));
        let (out, errors) = (file("out")?, file("errors")?);
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(errors.try_clone()?)
            .spawn()?;
        let talk = Talk::Output { out, errors, start_cpu: CpuTime::default() };
        let mut running = Running { child, talk };
        running.wait_until_it_runs()?;
        let now = CpuTime::of(running.pid())?;
        if let Talk::Output { start_cpu, .. } = &mut running.talk {
            *start_cpu = now;
        }
        Ok(running)
    }

    fn wait_until_it_runs(&mut self) -> Result<(), Box<dyn Error>> {
        let _stats = Stats::enable()?;
        let start = Instant::now();
        let (mut seen, mut since) = (BTreeSet::new(), start);
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.last_words(status).into());
            }
            for kind in [Kind::Udp, Kind::TcpRefused, Kind::TcpEstablished] {
                load::run(&Plan { kind, rate: Rate::Max, count: 1 })?;
            }
            let programs = programs_of(self.pid())?.into_iter();
            let running = programs.filter(|(_, runs)| runs.count > 0).map(|(key, _)| key).collect();
            if seen != running {
                (seen, since) = (running, Instant::now());
            } else if !seen.is_empty() && since.elapsed() > SETTLED {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        Err(format!("none of its BPF programs ran within {} s", PATIENCE.as_secs()).into())
    }

    /// Why a program of others ended: the first line that sounds like it.
    fn last_words(&self, status: ExitStatus) -> String {
        let text = match &self.talk {
            Talk::Output { out, errors, .. } => {
                [out, errors].map(|f| text_of(f).unwrap_or_default())
            }
            Talk::Lines(_) => Default::default(),
        }
        .concat();
        let sounds_bad = |line: &&str| {
            let line = line.to_lowercase();
            // bpftrace complains of the limit wherever it cannot be set, and goes on.
            let bad = ["fail", "error", "unable", "cannot"].iter().any(|word| line.contains(word));
            bad && !line.contains("rlimit_memlock")
        };
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (_, Some(signal)) => format!("signal {signal}"),
            _ => "ended".into(),
        };
        let why = text.lines().find(sounds_bad).or(text.lines().last()).unwrap_or("no word of why");
        format!("{} ({how})", why.trim_start_matches("overhead: ").trim())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it end and returns what it cost.
    pub fn stop(mut self) -> Result<Cost, Box<dyn Error>> {
        let (start_cpu, out) = match &self.talk {
            Talk::Lines(_) => {
                drop(self.child.stdin.take());
                let line = self.line()?;
                let cost = serde_json::from_str(&line).map_err(|_| line)?;
                self.child.wait()?;
                return Ok(cost);
            }
            Talk::Output { start_cpu, out, .. } => (*start_cpu, out.try_clone()?),
        };
        thread::sleep(CATCH_UP);
        let cpu = CpuTime::of(self.pid())?.since(start_cpu);
        let memory = Memory::of(self.pid())?;
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::INT)?;
        let asked = Instant::now();
        while self.child.try_wait()?.is_none() {
            if asked.elapsed() > PATIENCE {
                return Err("it did not end when asked by SIGINT".into());
            }
            thread::sleep(POLL);
        }
        let events = lines_of(&out)?;
        Ok(Cost { cpu, memory, start_cpu, events, counters: None })
    }

    fn line(&self) -> Result<String, String> {
        let Talk::Lines(lines) = &self.talk else {
            return Err("a program of others has nothing to say".into());
        };
        lines.recv_timeout(PATIENCE).map_err(|e| format!("no answer from the tracer: {e}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Of a child that has ended there is nothing to kill; both fail then, and that is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child writes at the same offset that reading would move, hence by position.
fn read_by_position(file: &File, mut take: impl FnMut(&[u8])) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut position = 0;
    loop {
        let read = file.read_at(&mut buffer, position)?;
        if read == 0 {
            return Ok(());
        }
        position += read as u64;
        take(buffer.get(..read).unwrap_or_default());
    }
}

fn text_of(file: &File) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    read_by_position(file, |part| bytes.extend_from_slice(part))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn lines_of(file: &File) -> std::io::Result<u64> {
    let mut lines = 0;
    read_by_position(file, |part| {
        lines += part.iter().filter(|byte| **byte == b'\n').count() as u64
    })?;
    Ok(lines)
}
