//! Words as bash has them: a line as it was typed, cut at characters of bash's own choice.

/// No line has it: it stands at the cursor.
const CURSOR: char = '\u{1}';

/// The words of a line, the last of which is begun. Quotes need not be closed yet.
pub(super) fn words(line: &str) -> Vec<String> {
    let split = ["", "'", "\"", " "].into_iter().find_map(|end| {
        // A backslash in front of the cursor quotes what comes there.
        let line = if end == " " { line.strip_suffix('\\')? } else { line };
        shlex::split(&format!("{line}{CURSOR}{}", end.trim()))
    });
    let mut words = split.unwrap_or_default();
    if let Some(begun) = words.last_mut() {
        begun.retain(|c| c != CURSOR);
    }
    words
}

/// What of a word goes where bash completes: behind the last of these characters that was typed, and
/// with backslashes before what would mean something to bash.
pub(super) fn continued(line: &str, word: &str, breaks: &str) -> String {
    let begun = words(line).pop().unwrap_or_default();
    let is_quoted =
        line.rsplit(char::is_whitespace).next().is_some_and(|w| w.starts_with(['"', '\'']));
    let is_break = |c: char| breaks.contains(c) && !c.is_whitespace() && !"\"'".contains(c);
    let from = match begun.rfind(is_break) {
        Some(at) if word.starts_with(&begun[..at]) && !is_quoted => {
            at + begun[at..].chars().next().map_or(0, char::len_utf8)
        }
        _ => 0,
    };
    let rest = word.get(from..).unwrap_or(word);
    match is_quoted {
        true => rest.to_owned(),
        false => escaped(rest),
    }
}

fn escaped(word: &str) -> String {
    let mut text = String::with_capacity(word.len());
    for c in word.chars() {
        if c.is_ascii() && !c.is_ascii_alphanumeric() && !"_./:,=@%+-".contains(c) {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const BREAKS: &str = " \t\n\"'><=;|&(:";

    #[test]
    fn words_are_those_of_bash_however_far_they_are_typed() {
        assert_eq!(words("netspy "), ["netspy", ""]);
        assert_eq!(words("netspy li"), ["netspy", "li"]);
        assert_eq!(words("netspy --process 'tmux: s"), ["netspy", "--process", "tmux: s"]);
        assert_eq!(words("netspy --process tmux:\\ s"), ["netspy", "--process", "tmux: s"]);
        assert_eq!(words("netspy --process \"a"), ["netspy", "--process", "a"]);
        assert_eq!(words("netspy a\\"), ["netspy", "a"]);
    }

    #[test]
    fn what_is_put_in_follows_what_bash_leaves() {
        let line = "netspy list --outcome=refused,ti";
        assert_eq!(continued(line, "--outcome=refused,timed_out", BREAKS), "refused,timed_out");
        let line = "netspy list --remote 2001:db8";
        assert_eq!(continued(line, "2001:db8::1", BREAKS), "db8::1");
        let line = "netspy list --process tm";
        assert_eq!(continued(line, "tmux: server", BREAKS), "tmux:\\ server");
        assert_eq!(continued(line, "a\\,b", BREAKS), "a\\\\,b");
        let line = "netspy list --process 'tm";
        assert_eq!(continued(line, "tmux: server", BREAKS), "tmux: server");
    }
}
