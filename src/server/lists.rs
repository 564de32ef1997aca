//! Options that list texts: separated by commas, with a backslash before one that is part of a text,
//! as in filters. A list of the configuration file needs no escape: its items are the texts.

use clap::{Arg, ArgAction};

use crate::query::filter::{escape, split};

/// What one flag, one variable or one text of the file lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T>(Vec<T>);

impl<T> Listed<T> {
    /// Reads each of them.
    pub(super) fn read(
        text: &str,
        one: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Self, String> {
        let texts = split(text);
        let told = |text: &str, why| match texts.len() {
            1 => why,
            _ => format!("'{}': {why}", text.escape_debug()),
        };
        let read = texts.iter().map(|text| one(text).map_err(|why| told(text, why)));
        read.collect::<Result<_, _>>().map(Listed)
    }

    /// All that an option lists, which may be there more than once.
    pub fn all(lists: &[Self]) -> impl Iterator<Item = &T> {
        lists.iter().flat_map(|list| &list.0)
    }
}

/// Whether an option takes more than one value.
pub(super) fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// A text of the file in the form that the option reads, one for each value: however a list is
/// written, it is the same.
pub(super) fn texts(arg: &Arg, text: String) -> Vec<String> {
    match is_list(arg) && arg.get_value_delimiter().is_none() {
        true => split(&text).iter().map(|text| escape(text)).collect(),
        false => vec![text],
    }
}

/// The same for an item of a list of the file, which stands for itself.
pub(super) fn item(arg: &Arg, text: String) -> String {
    match arg.get_value_delimiter() {
        None => escape(&text),
        Some(_) => text,
    }
}
