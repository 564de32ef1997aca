//! Which build this is.

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version, and the commit in parentheses where it was known to the build.
pub const VERSION_AND_COMMIT: &str = env!("NETSPY_VERSION");

/// The commit that was built, if it was known to the build.
pub const COMMIT: Option<&str> = commit(VERSION_AND_COMMIT);

const fn commit(version: &'static str) -> Option<&'static str> {
    let (_, rest) = version.split_at(VERSION.len());
    match rest.len() {
        0 => None,
        // Between " (" and ")".
        len => Some(rest.split_at(2).1.split_at(len - 3).0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commit_is_what_stands_in_parentheses() {
        let with = match COMMIT {
            Some(commit) => format!("{VERSION} ({commit})"),
            None => VERSION.to_owned(),
        };
        assert_eq!(with, VERSION_AND_COMMIT);
    }
}
