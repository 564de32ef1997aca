//! The original's command line: Go's flag package takes `-pid 5` for `--pid 5`.

use std::ffi::OsString;

/// Long flags of the original.
const FLAGS: [&str; 9] = [
    "server",
    "verbose",
    "tool",
    "pid",
    "process",
    "duration",
    "max-events",
    "summary-text",
    "query",
];

/// Gives the original's single-dash flags, and those only, their second dash.
pub fn normalise(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let (mut literal, mut is_value) = (false, false);
    args.into_iter()
        .enumerate()
        .map(|(position, arg)| {
            literal |= arg == "--";
            let known = |text: &str| {
                let name = text.strip_prefix('-').unwrap_or_default();
                let name = name.split_once('=').map_or(name, |(name, _)| name);
                FLAGS.contains(&name) || name == "help"
            };
            // What follows belongs to the command that is to be run.
            let runs = arg == "run" && !is_value;
            is_value = arg.to_str().is_some_and(|text| text.starts_with('-'));
            let arg = match arg.to_str() {
                Some(text) if position > 0 && !literal && known(text) => {
                    OsString::from(format!("-{text}"))
                }
                _ => arg,
            };
            literal |= runs && position > 0;
            arg
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(args: &str) -> String {
        let args = args.split(' ').map(OsString::from);
        normalise(args).join(std::ffi::OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn go_flags_get_their_second_dash() {
        assert_eq!(
            after("netspy -tool list_connections -pid=5"),
            "netspy --tool list_connections --pid=5"
        );
        assert_eq!(after("netspy -help"), "netspy --help");
    }

    #[test]
    fn everything_else_is_left_alone() {
        for args in [
            "netspy --tool x",
            "netspy -h",
            "netspy -V",
            "netspy -pidx 5",
            "netspy -x",
            "netspy -",
            "-pid",
            "netspy list -- -pid",
            "netspy run curl -server x",
            "netspy run -- x -pid 5",
        ] {
            assert_eq!(after(args), args);
        }
    }
}
