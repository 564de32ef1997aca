//! What a process descends from.
//!
//! A process is told whom it descends from when it is made, and keeps that: those who have ended
//! since stay in the line, and a number that is given to another process changes nothing in it.

use std::collections::HashMap;
use std::sync::Arc;

use super::stat::Stat;

/// Names in a line, at most; so many of the nearest are kept of one that is longer. Processes that
/// make their successor and end would have one without end.
const LONGEST: u16 = 64;
const KEPT: usize = 32;
/// Processes of which /proc has told; then all are asked for anew.
const ASKED: usize = 4096;

/// An ancestor, and those above it. Shared by all that descend from it.
#[derive(Debug)]
pub(super) struct Line {
    name: Arc<str>,
    above: Option<Arc<Line>>,
    length: u16,
}

impl Line {
    /// A line that begins with `name`.
    pub(super) fn new(name: Arc<str>, above: Option<Arc<Line>>) -> Arc<Self> {
        let above = match above {
            Some(above) if above.length >= LONGEST => above.cut(),
            above => above,
        };
        let length = above.as_ref().map_or(0, |above| above.length) + 1;
        Arc::new(Line { name, above, length })
    }

    /// The nearest of it.
    fn cut(&self) -> Option<Arc<Line>> {
        let names: Vec<_> = self.names().take(KEPT - 1).collect();
        names.into_iter().rev().fold(None, |above, name| Some(Line::new(name, above)))
    }

    /// Nearest first.
    pub(super) fn names(&self) -> impl Iterator<Item = Arc<str>> {
        let mut next = Some(self);
        std::iter::from_fn(move || {
            let line = next?;
            next = line.above.as_deref();
            Some(Arc::clone(&line.name))
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// What /proc tells of processes that were there before anybody looked.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// By number and start in clock ticks.
    lines: HashMap<(u32, u64), Option<Arc<Line>>>,
}

impl Asked {
    /// The line above a process that is in /proc.
    pub(super) fn above(&mut self, pid: u32, stat: &Stat) -> Option<Arc<Line>> {
        self.up(pid, stat, LONGEST)
    }

    /// The line of a child of `ppid` that began in tick `born`, if /proc still has that process: no
    /// parent is younger than its child.
    pub(super) fn of_child(&mut self, ppid: u32, born: u64) -> Option<Arc<Line>> {
        let stat = Stat::of(ppid).filter(|stat| stat.start_ticks <= born)?;
        Some(Line::new(stat.comm.as_str().into(), self.above(ppid, &stat)))
    }

    fn up(&mut self, pid: u32, stat: &Stat, left: u16) -> Option<Arc<Line>> {
        let key = (pid, stat.start_ticks);
        if let Some(known) = self.lines.get(&key) {
            return known.clone();
        }
        let parent = Stat::of(stat.ppid)
            .filter(|parent| stat.ppid != 0 && left > 1 && parent.start_ticks <= stat.start_ticks);
        let line = parent.map(|parent| {
            let above = self.up(stat.ppid, &parent, left - 1);
            Line::new(parent.comm.as_str().into(), above)
        });
        if self.lines.len() >= ASKED {
            self.lines.clear();
        }
        self.lines.insert(key, line.clone());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(line: &Option<Arc<Line>>) -> Vec<String> {
        line.iter().flat_map(|line| line.names()).map(|name| name.to_string()).collect()
    }

    #[test]
    fn a_line_without_end_keeps_the_nearest() {
        let mut line = None;
        for n in 0..1_000 {
            line = Some(Line::new(n.to_string().into(), line));
            assert!(line.as_ref().is_some_and(|line| line.length <= LONGEST));
        }
        let names = names(&line);
        assert!((KEPT..=usize::from(LONGEST)).contains(&names.len()), "{}", names.len());
        assert_eq!(names[..3], ["999", "998", "997"]);
    }

    #[test]
    fn the_line_of_this_process_is_that_of_proc_and_known_the_second_time() {
        let mut asked = Asked::default();
        let mut expected = Vec::new();
        let mut pid = Stat::of(std::process::id()).unwrap().ppid;
        while let Some(stat) = Stat::of(pid).filter(|_| pid != 0) {
            expected.push(stat.comm.clone());
            pid = stat.ppid;
        }
        let pid = std::process::id();
        let stat = Stat::of(pid).unwrap();
        assert_eq!(names(&asked.above(pid, &stat)), expected);
        assert_eq!(asked.lines.len(), expected.len() + 1);
        assert_eq!(names(&asked.of_child(stat.ppid, stat.start_ticks)), expected);
        // Who is younger is not the parent, but has its number.
        let parent = Stat::of(stat.ppid).unwrap();
        if parent.start_ticks > 0 {
            assert!(asked.of_child(stat.ppid, parent.start_ticks - 1).is_none());
        }
    }
}
