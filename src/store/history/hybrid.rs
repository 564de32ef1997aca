//! Parquet's hybrid of run lengths and bit packing, in which it writes keys and levels
//! (parquet-format, Encodings.md, "RLE").

/// Values are packed in groups of so many.
const GROUP: usize = 8;

/// How many bits the numbers below `count` take.
pub(super) fn width(count: usize) -> u8 {
    let greatest = count.saturating_sub(1);
    (usize::BITS - greatest.leading_zeros()) as u8
}

/// Appends these values, none of which takes more than `width` bits.
pub(super) fn encode(values: &[u32], width: u8, to: &mut Vec<u8>) {
    let mut packed_from = 0;
    let mut at = 0;
    // Always a whole number of groups after `packed_from`.
    while let Some(value) = values.get(at) {
        let rest = values.get(at..).unwrap_or_default();
        let run = rest.iter().take_while(|next| *next == value).count();
        if run >= GROUP {
            pack(values.get(packed_from..at).unwrap_or_default(), width, to);
            repeat(*value, run, width, to);
            at += run;
            packed_from = at;
        } else {
            at += GROUP;
        }
    }
    pack(values.get(packed_from..).unwrap_or_default(), width, to);
}

fn repeat(value: u32, count: usize, width: u8, to: &mut Vec<u8>) {
    header((count as u64) << 1, to);
    let bytes = usize::from(width.div_ceil(8));
    to.extend(value.to_le_bytes().iter().take(bytes));
}

/// The last group may be cut: who reads knows how many values there are.
fn pack(values: &[u32], width: u8, to: &mut Vec<u8>) {
    if values.is_empty() {
        return;
    }
    let groups = values.len().div_ceil(GROUP);
    header((groups as u64) << 1 | 1, to);
    let end = to.len() + groups * usize::from(width);
    let (mut pending, mut bits) = (0_u64, 0);
    for value in values {
        pending |= u64::from(*value) << bits;
        bits += u32::from(width);
        if bits >= 32 {
            to.extend_from_slice(&(pending as u32).to_le_bytes());
            pending >>= 32;
            bits -= 32;
        }
    }
    to.extend(pending.to_le_bytes().iter().take(bits.div_ceil(8) as usize));
    to.resize(end, 0);
}

/// ULEB128.
fn header(mut number: u64, to: &mut Vec<u8>) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_records::Random;

    /// As the specification says to read it.
    fn decode(bytes: &[u8], width: u8, count: usize) -> Vec<u32> {
        let mut bytes = bytes.iter().copied();
        let mut values = Vec::new();
        while values.len() < count {
            let (mut number, mut shift) = (0_u64, 0);
            loop {
                let byte = bytes.next().unwrap();
                number |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    break;
                }
            }
            if number & 1 == 0 {
                let mut value = [0; 4];
                (0..width.div_ceil(8)).for_each(|i| value[i as usize] = bytes.next().unwrap());
                values.extend((0..number >> 1).map(|_| u32::from_le_bytes(value)));
                continue;
            }
            for _ in 0..number >> 1 {
                let group: Vec<u8> = (0..width).map(|_| bytes.next().unwrap()).collect();
                let bit = |n: usize| u32::from(group[n / 8] >> (n % 8) & 1);
                let width = usize::from(width);
                values.extend(
                    (0..8).map(|i| (0..width).map(|b| bit(i * width + b) << b).sum::<u32>()),
                );
            }
        }
        assert_eq!(bytes.next(), None);
        values.truncate(count);
        values
    }

    #[test]
    fn a_width_holds_every_number_below() {
        let widths = [0, 1, 2, 3, 4, 5, 256, 257, 1 << 16, 1 << 24].map(width);
        assert_eq!(widths, [0, 0, 1, 2, 2, 3, 8, 9, 16, 24]);
    }

    #[test]
    fn values_come_out_as_they_went_in() {
        let mut random = Random(7);
        for round in 0..2_000 {
            let count = [1, 2, 3, 17, 300, 70_000, 1 << 20, 1 << 32][round % 8];
            let mut values = Vec::new();
            while values.len() < random.next(600) as usize {
                let value = random.next(count) as u32;
                let run = [1, 1, 2, 7, 8, 9, 40][random.next(7) as usize];
                values.extend(std::iter::repeat_n(value, run));
            }
            let mut bytes = Vec::new();
            let width = width(count as usize);
            encode(&values, width, &mut bytes);
            assert_eq!(decode(&bytes, width, values.len()), values, "{width}");
        }
    }
}
