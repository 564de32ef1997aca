//! Times, durations and sizes as people read them.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// The time zone of the reader (`TZ`, /etc/localtime) and their day.
#[derive(Debug, Clone)]
pub struct Clock {
    zone: TimeZone,
    now: Zoned,
}

impl Clock {
    /// Local time, as of now.
    pub fn local() -> Self {
        let zone = TimeZone::system();
        let now = Timestamp::now().to_zoned(zone.clone());
        Clock { zone, now }
    }

    fn at(&self, time: Timestamp) -> Zoned {
        time.to_zoned(self.zone.clone())
    }

    /// `21:05:53`, or `11/22 21:05:53` on another day: the form of the original.
    pub fn short(&self, time: Timestamp) -> String {
        let time = self.at(time);
        if time.date() == self.now.date() {
            time.strftime("%H:%M:%S").to_string()
        } else {
            time.strftime("%m/%d %H:%M:%S").to_string()
        }
    }

    /// As [`short`](Self::short), with milliseconds.
    pub fn fine(&self, time: Timestamp) -> String {
        let millis = self.at(time).millisecond();
        format!("{}.{millis:03}", self.short(time))
    }

    /// Date, time and zone.
    pub fn full(&self, time: Timestamp) -> String {
        self.at(time).strftime("%Y-%m-%d %H:%M:%S.%3f %:z").to_string()
    }
}

/// `412 µs`, `1.2 ms`, `3.1 s`, `2m07s`: three digits are what a reader takes in.
pub fn duration(us: u64) -> String {
    let tenths = |value: u64, unit: u64| format!("{}.{}", value / unit, value % unit * 10 / unit);
    match us {
        0 => "<1 µs".to_owned(),
        1..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{} ms", tenths(us, 1_000)),
        10_000..1_000_000 => format!("{} ms", us / 1_000),
        1_000_000..10_000_000 => format!("{} s", tenths(us, 1_000_000)),
        10_000_000..100_000_000 => format!("{} s", us / 1_000_000),
        _ => seconds(us / 1_000_000),
    }
}

/// `2m07s`, `3h04m`, `5d02h`.
pub fn seconds(s: u64) -> String {
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{}m{:02}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h{:02}m", s / 3_600, s % 3_600 / 60),
        _ => format!("{}d{:02}h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// `512 B`, `1.2 KiB`, `64 MiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut scaled = n;
    let mut unit = 0;
    while scaled >= 1024 * 1024 && unit + 1 < UNITS.len() {
        scaled /= 1024;
        unit += 1;
    }
    let (whole, tenth) = (scaled / 1024, scaled % 1024 * 10 / 1024);
    if whole < 10 && tenth > 0 {
        format!("{whole}.{tenth} {}", UNITS[unit])
    } else {
        format!("{whole} {}", UNITS[unit])
    }
}

/// `12,345`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 group`, `2 groups`.
pub fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_never_round_up_to_another_unit() {
        for (us, text) in [
            (0, "<1 µs"),
            (412, "412 µs"),
            (999, "999 µs"),
            (1_234, "1.2 ms"),
            (9_999, "9.9 ms"),
            (12_345, "12 ms"),
            (999_999, "999 ms"),
            (3_100_000, "3.1 s"),
            (99_999_999, "99 s"),
            (127_000_000, "2m07s"),
            (11_040_000_000, "3h04m"),
        ] {
            assert_eq!(duration(us), text);
        }
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1229), "1.2 KiB");
        assert_eq!(bytes(64 << 20), "64 MiB");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(123), "123");
        assert_eq!(
            [0, 1, 2].map(|n| counted(n, "group", "groups")),
            ["0 groups", "1 group", "2 groups"]
        );
    }

    #[test]
    fn another_day_is_named() {
        let now: Zoned = "2026-11-22T10:00:00+01:00[Europe/Paris]".parse().unwrap();
        let clock = Clock { zone: now.time_zone().clone(), now };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(clock.short(at("2026-11-22T08:01:02Z")), "09:01:02");
        assert_eq!(clock.short(at("2026-11-21T22:59:59Z")), "11/21 23:59:59");
        assert_eq!(clock.fine(at("2026-11-22T08:01:02.0456Z")), "09:01:02.045");
    }
}
