//! Numbers in memory, most of which are small.

/// Numbers in as many bytes as each needs (LEB128).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packed(Box<[u8]>);

impl Packed {
    pub(super) fn of(numbers: impl IntoIterator<Item = u32>) -> Self {
        let mut bytes = Vec::new();
        for mut number in numbers {
            while number >= 0x80 {
                bytes.push(number as u8 | 0x80);
                number >>= 7;
            }
            bytes.push(number as u8);
        }
        Packed(bytes.into())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        let mut bytes = self.0.iter();
        std::iter::from_fn(move || {
            let (mut number, mut shift) = (0, 0);
            loop {
                let byte = bytes.next()?;
                number |= u32::from(byte & 0x7f) << shift;
                if *byte < 0x80 {
                    return Some(number);
                }
                shift += 7;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_out_as_they_went_in() {
        let numbers = [0, 1, 127, 128, 16_383, 16_384, u32::MAX - 1, u32::MAX, 0];
        let packed = Packed::of(numbers);
        assert_eq!(packed.iter().collect::<Vec<_>>(), numbers);
        assert_eq!(Packed::of([]).iter().next(), None);
    }
}
