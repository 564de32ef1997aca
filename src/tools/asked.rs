//! What a question asks for, by its words: fixed rules understand no more of it than these.

use jiff::SignedDuration;

use crate::analysis::Kind;

/// What is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    /// Whether there are findings of this kind.
    Found(Kind),
    /// What listens, and what is open.
    Listening,
    /// What is dropped, and whom it hurts.
    Dropped,
    /// Whether anything is missing.
    Trust,
    /// What differs from the time before.
    Changes,
}

/// What these words ask for, each topic once.
pub(super) fn topics(words: &[&str]) -> Vec<Topic> {
    let mut topics = Vec::new();
    for word in words.iter().map(|word| word.to_lowercase()) {
        for topic in of_word(&word) {
            if !topics.contains(topic) {
                topics.push(*topic);
            }
        }
    }
    topics
}

fn of_word(word: &str) -> &'static [Topic] {
    use Topic::Found;
    match word {
        "beacon" | "beacons" | "beaconing" => &[Found(Kind::Beaconing)],
        "scan" | "scans" | "scanning" | "scanned" | "port-scan" => &[Found(Kind::PortScan)],
        "storm" | "storms" | "flood" | "flooding" => &[Found(Kind::ConnectionStorm)],
        "stuck" | "hangs" | "hanging" => &[Found(Kind::StuckAttempts)],
        "clear-text" | "cleartext" | "plaintext" | "unencrypted" => {
            &[Found(Kind::ClearTextService)]
        }
        "tunnel" | "tunnels" | "tunnelling" | "tunneling" | "exfiltrating" | "exfiltration" => {
            &[Found(Kind::DnsWithoutConnection), Found(Kind::ConnectionWithoutDns)]
        }
        "listen" | "listens" | "listening" | "listeners" | "open" => &[Topic::Listening],
        "drop" | "drops" | "dropped" | "dropping" => &[Topic::Dropped],
        "trust" | "trusted" | "trustworthy" | "complete" | "reliable" => &[Topic::Trust],
        "new" | "change" | "changes" | "changed" | "different" | "differs" => &[Topic::Changes],
        _ => &[],
    }
}

/// `last 3 minutes`: how long, and in these words.
pub(super) fn span(words: &[&str]) -> Option<(SignedDuration, String)> {
    let words: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
    let at = words.iter().position(|word| word == "last" || word == "past")?;
    let next = words.get(at + 1)?;
    let (n, unit) = match next.parse::<i64>() {
        Ok(n) => (n, words.get(at + 2)?.as_str()),
        Err(_) => (1, next.as_str()),
    };
    let seconds = match unit {
        "s" | "second" | "seconds" => 1,
        "min" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 3_600,
        "day" | "days" => 86_400,
        _ => return None,
    };
    // Of more than a year nothing is held.
    let all = n.checked_mul(seconds).filter(|all| (1..=366 * 86_400).contains(all))?;
    let said = if n == 1 { format!("the last {unit}") } else { format!("the last {n} {unit}") };
    Some((SignedDuration::from_secs(all), said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        text.split([' ', '?']).filter(|word| !word.is_empty()).collect()
    }

    #[test]
    fn the_words_of_a_question_say_what_is_asked() {
        let asked = |text| topics(&words(text));
        let both = [Topic::Found(Kind::Beaconing), Topic::Found(Kind::PortScan)];
        assert_eq!(asked("Is anything beaconing or scanning?"), both);
        assert_eq!(asked("what is open or listening"), [Topic::Listening]);
        assert_eq!(asked("what is dropped and whom does it hurt"), [Topic::Dropped]);
        assert_eq!(asked("can this answer be trusted"), [Topic::Trust]);
        assert_eq!(asked("what changed in the last 3 minutes?"), [Topic::Changes]);
        assert_eq!(asked("why can curl not reach 192.0.2.1?"), []);
    }

    #[test]
    fn a_time_that_a_question_names_is_read() {
        let span = |text| span(&words(text)).map(|(time, said)| (time.as_secs(), said));
        let three = Some((180, "the last 3 minutes".to_owned()));
        assert_eq!(span("what changed in the last 3 minutes?"), three);
        assert_eq!(span("what failed in the past hour"), Some((3_600, "the last hour".to_owned())));
        for none in ["last", "who was last", "the last 0 minutes", "last 99999999999999 days"] {
            assert_eq!(span(none), None, "{none}");
        }
    }
}
