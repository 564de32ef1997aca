//! Databases without a description: the format has it optional, and the library does not read them.

/// What stands before the metadata (MaxMind DB File Format Specification, "Database Metadata").
const MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";
/// The metadata is at the end, within so many bytes.
const WITHIN: usize = 128 << 10;
/// A key of eleven bytes.
const KEY: &[u8] = b"\x4bdescription";
/// A map of one entry: `"en"`, and a text that is empty.
const SOME: &[u8] = b"\xe1\x42en\x40";
/// The control byte of a map without entries; the number of them is in the lower bits.
const MAP: u8 = 7 << 5;
/// From here on the number of entries has a byte of its own.
const LONG: u8 = 29;

/// Gives a database that has no description an empty one. Nothing else is looked at.
pub(super) fn described(bytes: &mut Vec<u8>) {
    let from = bytes.len().saturating_sub(WITHIN);
    let end = bytes.get(from..).unwrap_or_default();
    let Some(at) = end.windows(MARKER.len()).rposition(|part| part == MARKER) else { return };
    let start = from + at + MARKER.len();
    let metadata = bytes.get(start..).unwrap_or_default();
    match metadata.windows(KEY.len()).position(|part| part == KEY) {
        Some(at) => {
            let value = start + at + KEY.len();
            if bytes.get(value) == Some(&MAP) {
                bytes.splice(value..=value, SOME.iter().copied());
            }
        }
        None => {
            if let Some(entries) = bytes.get_mut(start)
                && (MAP..MAP + LONG - 1).contains(entries)
            {
                *entries += 1;
                bytes.extend(KEY);
                bytes.extend(SOME);
            }
        }
    }
}
