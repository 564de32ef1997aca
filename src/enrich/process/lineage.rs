//! What a process descends from.
//!
//! A process is told whom it descends from when it is made, and keeps that: those who have ended
//! since stay in the line, and a number that is given to another process changes nothing in it.

use std::collections::HashMap;
use std::sync::Arc;

use super::stat::Stat;

/// Names that are told of a line: the nearest of one that is longer. Processes that make their
/// successor and end would have one without end.
const LONGEST: u16 = 64;
/// Names that a line may have until it is cut to those that are told. Not each time that it has one
/// more: then nobody would share it.
const UNCUT: u16 = 2 * LONGEST;
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
            Some(above) if above.length >= UNCUT => above.cut(),
            above => above,
        };
        let length = above.as_ref().map_or(0, |above| above.length) + 1;
        Arc::new(Line { name, above, length })
    }

    /// The nearest of it: all that is told of one that has one name more.
    fn cut(&self) -> Option<Arc<Line>> {
        let names: Vec<_> = self.names().take(usize::from(LONGEST) - 1).collect();
        names.into_iter().rev().fold(None, |above, name| Some(Line::new(name, above)))
    }

    /// Nearest first.
    pub(super) fn names(&self) -> impl Iterator<Item = Arc<str>> {
        let mut next = Some(self);
        let all = std::iter::from_fn(move || {
            let line = next?;
            next = line.above.as_deref();
            Some(Arc::clone(&line.name))
        });
        all.take(LONGEST.into())
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// A process, by its number and its start in clock ticks.
type Who = (u32, u64);

/// What /proc tells of processes that were there before anybody looked.
#[derive(Debug, Default)]
pub(super) struct Asked {
    lines: HashMap<Who, Option<Arc<Line>>>,
}

impl Asked {
    /// The line above a process that is in /proc.
    pub(super) fn above(&mut self, pid: u32, stat: &Stat) -> Option<Arc<Line>> {
        self.up(pid, stat, Stat::of)
    }

    /// The line of a child of `ppid` that began in tick `born`, if /proc still has that process: no
    /// parent is younger than its child.
    pub(super) fn of_child(&mut self, ppid: u32, born: u64) -> Option<Arc<Line>> {
        let stat = Stat::of(ppid).filter(|stat| stat.start_ticks <= born)?;
        Some(Line::new(stat.comm.as_str().into(), self.above(ppid, &stat)))
    }

    fn up(
        &mut self,
        pid: u32,
        stat: &Stat,
        look: impl Fn(u32) -> Option<Stat>,
    ) -> Option<Arc<Line>> {
        // Up to the first process, or to one whose line is known.
        let mut passed: Vec<(Who, Option<Stat>)> = Vec::new();
        let (mut pid, mut ppid, mut born) = (pid, stat.ppid, stat.start_ticks);
        let (mut line, mut is_whole) = (None, false);
        while passed.len() < UNCUT.into() {
            if let Some(known) = self.lines.get(&(pid, born)) {
                (line, is_whole) = (known.clone(), true);
                break;
            }
            let parent = look(ppid).filter(|parent| ppid != 0 && parent.start_ticks <= born);
            let next = parent.as_ref().map(|parent| (ppid, parent.ppid, parent.start_ticks));
            passed.push(((pid, born), parent));
            let Some(next) = next else {
                is_whole = true;
                break;
            };
            (pid, ppid, born) = next;
        }
        if self.lines.len() >= ASKED {
            self.lines.clear();
        }
        for (key, parent) in passed.into_iter().rev() {
            if let Some(parent) = parent {
                line = Some(Line::new(parent.comm.into(), line));
            }
            // One that ends where nobody looked further is not all that can be told.
            if is_whole || line.as_ref().is_some_and(|line| line.length >= LONGEST) {
                self.lines.insert(key, line.clone());
            }
        }
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
    fn of_a_line_without_end_exactly_the_nearest_are_told() {
        let mut line = None;
        for n in 0..1_000_usize {
            line = Some(Line::new(n.to_string().into(), line));
            assert!(line.as_ref().is_some_and(|line| line.length <= UNCUT));
            let told = usize::from(LONGEST).min(n + 1);
            let expected: Vec<_> = (0..told).map(|back| (n - back).to_string()).collect();
            assert_eq!(names(&line), expected);
        }
    }

    #[test]
    fn of_a_deep_tree_in_proc_exactly_the_nearest_are_told_of_each() {
        // Each is the child of the one before.
        let look = |pid: u32| {
            let comm = format!("p{pid}");
            (pid != 0).then(|| Stat { comm, ppid: pid - 1, start_ticks: pid.into() })
        };
        let expected = |pid: u32| -> Vec<_> {
            (1..pid).rev().take(LONGEST.into()).map(|pid| format!("p{pid}")).collect()
        };
        let mut asked = Asked::default();
        for pid in [300, 299, 70, 200, 240, 171, 130, 64, 65, 1, 500, 301] {
            let stat = look(pid).unwrap();
            assert_eq!(names(&asked.up(pid, &stat, look)), expected(pid), "{pid}");
        }
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
