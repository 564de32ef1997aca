//! Which changes are where: sets of their numbers.

/// Ranges of numbers of changes, each without its first: in their order, and apart from each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changes(Vec<(u64, u64)>);

impl Changes {
    /// Adds what comes after the first of these, up to the second.
    pub(super) fn add(&mut self, (after, last): (u64, u64)) {
        if after >= last {
            return;
        }
        // Of those that touch it, one is made.
        let from = self.0.partition_point(|(_, end)| *end < after);
        let to = self.0.partition_point(|(begin, _)| *begin <= last);
        let touching = self.0.get(from..to).unwrap_or_default();
        let begin = touching.first().map_or(after, |(begin, _)| after.min(*begin));
        let end = touching.last().map_or(last, |(_, end)| last.max(*end));
        self.0.splice(from..to.max(from), [(begin, end)]);
    }

    /// Adds single numbers, in any order.
    pub(super) fn add_all(&mut self, mut numbers: Vec<u64>) {
        numbers.sort_unstable();
        let mut numbers = numbers.into_iter().filter_map(|n| Some((n.checked_sub(1)?, n)));
        let Some(mut range) = numbers.next() else { return };
        for (before, n) in numbers {
            if before > range.1 {
                self.add(range);
                range = (before, n);
            }
            range.1 = n;
        }
        self.add(range);
    }

    /// The parts of a range that are not among these.
    pub(super) fn missing_in(&self, (after, last): (u64, u64)) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut from = after;
        for (begin, end) in &self.0 {
            if *begin >= last {
                break;
            }
            if from < *begin {
                missing.push((from, *begin));
            }
            from = from.max(*end);
        }
        if from < last {
            missing.push((from, last));
        }
        missing
    }

    /// Whether a range has any of these.
    pub(super) fn touch(&self, (after, last): (u64, u64)) -> bool {
        let first = self.0.partition_point(|(_, end)| *end <= after);
        self.0.get(first).is_some_and(|(begin, _)| *begin < last)
    }

    /// Forgets what lies wholly before this change.
    pub(super) fn forget_before(&mut self, change: u64) {
        self.0.retain(|(_, last)| *last > change);
    }

    pub(super) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ranges: &[(u64, u64)]) -> Changes {
        let mut changes = Changes::default();
        ranges.iter().for_each(|range| changes.add(*range));
        changes
    }

    #[test]
    fn ranges_that_touch_are_one() {
        let cases: [(&[_], &[_]); 6] = [
            (&[(5, 9), (1, 3)], &[(1, 3), (5, 9)]),
            (&[(1, 3), (3, 5)], &[(1, 5)]),
            (&[(3, 5), (1, 3)], &[(1, 5)]),
            (&[(1, 3), (5, 7), (2, 6)], &[(1, 7)]),
            (&[(1, 9), (2, 3)], &[(1, 9)]),
            (&[(2, 3), (4, 5), (6, 7), (0, 9), (9, 9), (8, 4)], &[(0, 9)]),
        ];
        for (added, expected) in cases {
            assert_eq!(of(added).ranges().collect::<Vec<_>>(), expected, "{added:?}");
        }
        let mut single = of(&[(10, 12)]);
        single.add_all(vec![9, 3, 4, 13, 3, 5, 20, 0]);
        assert_eq!(single.ranges().collect::<Vec<_>>(), [(2, 5), (8, 9), (10, 13), (19, 20)]);
        single.forget_before(9);
        assert_eq!(single.ranges().collect::<Vec<_>>(), [(10, 13), (19, 20)]);
    }

    #[test]
    fn what_is_missing_in_a_range_is_what_no_range_has() {
        let changes = of(&[(10, 20), (30, 40)]);
        let cases: [(_, &[_]); 7] = [
            ((0, 10), &[(0, 10)]),
            ((10, 20), &[]),
            ((12, 15), &[]),
            ((5, 35), &[(5, 10), (20, 30)]),
            ((25, 50), &[(25, 30), (40, 50)]),
            ((40, 41), &[(40, 41)]),
            ((7, 7), &[]),
        ];
        for (range, missing) in cases {
            assert_eq!(changes.missing_in(range), missing, "{range:?}");
            let (after, last) = range;
            let is_whole = missing.iter().map(|(from, to)| to - from).sum::<u64>() == last - after;
            assert_eq!(changes.touch(range), !is_whole, "{range:?}");
        }
        assert_eq!(Changes::default().missing_in((1, 2)), [(1, 2)]);
    }
}
