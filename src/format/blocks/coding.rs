//! How table entries are encoded in the file.

/// The number of a block that is not in the table.
pub(crate) const FREE: u32 = u32::MAX;

/// The number of a block that reads as zeroes, in a table of offsets.
pub(crate) const ZERO: u32 = u32::MAX - 1;

/// Stands for an entry without a meaning, in a table of offsets.
pub(crate) const BAD: u32 = u32::MAX - 2;

/// Byte order of the numbers in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteOrder {
    /// The least significant byte first.
    Little,
    /// The most significant byte first.
    Big,
}

impl ByteOrder {
    /// The numbers encoded in the bytes.
    pub(crate) fn words(self, bytes: &[u8]) -> impl ExactSizeIterator<Item = u32> {
        let (chunks, _) = bytes.as_chunks::<4>();
        chunks.iter().map(move |bytes| match self {
            Self::Little => u32::from_le_bytes(*bytes),
            Self::Big => u32::from_be_bytes(*bytes),
        })
    }
}

/// How an entry is encoded in the file. In memory it is always a 32-bit number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// 32 bits: the number itself.
    Words(ByteOrder),
    /// 32 bits, least significant byte first: the number plus one. 0 is free.
    FromOne,
    /// A 64-bit byte offset; the number counts units of `1 << bits` bytes. 0 is free, 1 is zero.
    Offsets {
        /// See above.
        bits: u32,
    },
}

impl From<ByteOrder> for Coding {
    fn from(order: ByteOrder) -> Self {
        Self::Words(order)
    }
}

impl Coding {
    /// Length of an entry in bytes.
    pub(crate) fn len(self) -> u64 {
        match self {
            Self::Words(_) | Self::FromOne => 4,
            Self::Offsets { .. } => 8,
        }
    }

    /// The numbers of the entries encoded in the bytes.
    pub(crate) fn words(self, bytes: &[u8]) -> impl ExactSizeIterator<Item = u32> {
        let chunks = bytes.chunks_exact(self.len() as usize);
        chunks.map(move |bytes| self.word(bytes))
    }

    fn word(self, bytes: &[u8]) -> u32 {
        let low = bytes.first_chunk().copied().unwrap_or_default();
        match self {
            Self::Words(ByteOrder::Little) => u32::from_le_bytes(low),
            Self::Words(ByteOrder::Big) => u32::from_be_bytes(low),
            Self::FromOne => match u32::from_le_bytes(low) {
                0 => FREE,
                count => (count - 1).min(BAD),
            },
            Self::Offsets { bits } => {
                let wide = bytes.first_chunk().copied().unwrap_or_default();
                match u64::from_le_bytes(wide) {
                    0 => FREE,
                    1 => ZERO,
                    offset if offset.trailing_zeros() < bits => BAD,
                    offset => u32::try_from(offset >> bits).map_or(BAD, |word| word.min(BAD)),
                }
            }
        }
    }

    /// Encodes the entry for a number into `place`, which is [`Coding::len`] bytes long.
    pub(crate) fn put(self, word: u32, place: &mut [u8]) {
        let wide = match self {
            Self::Words(ByteOrder::Little) => u64::from(word),
            Self::Words(ByteOrder::Big) => u64::from(word.swap_bytes()),
            Self::FromOne => match word {
                FREE => 0,
                // Past the end of any file, so it still has no meaning.
                BAD => u64::from(u32::MAX),
                word => u64::from(word) + 1,
            },
            Self::Offsets { bits } => match word {
                FREE => 0,
                ZERO => 1,
                // Not a multiple of a unit, so it still has no meaning.
                BAD => 2,
                word => u64::from(word) << bits,
            },
        };
        for (to, from) in place.iter_mut().zip(wide.to_le_bytes()) {
            *to = from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_counted_in_units_and_others_say_nothing() {
        let coding = Coding::Offsets { bits: 12 };
        for (offset, word) in [
            (0_u64, FREE),
            (1, ZERO),
            (2, BAD),
            (4096, 1),
            (4097, BAD),
            (0x1_0000_0000 << 12, BAD),
            (u64::from(BAD) << 12, BAD),
            (u64::from(BAD - 1) << 12, BAD - 1),
        ] {
            let words: Vec<u32> = coding.words(&offset.to_le_bytes()).collect();
            assert_eq!(words, [word], "{offset:#x}");
            let mut bytes = [0xee; 8];
            coding.put(word, &mut bytes);
            if word != BAD {
                assert_eq!(u64::from_le_bytes(bytes), offset);
            }
            assert_eq!(coding.words(&bytes).next(), Some(word));
        }
    }

    #[test]
    fn what_is_counted_from_one_has_no_place_at_zero() {
        for (count, word) in [(0, FREE), (1, 0), (77, 76), (u32::MAX, BAD), (BAD, BAD - 1)] {
            let mut bytes = [0xee; 4];
            Coding::FromOne.put(word, &mut bytes);
            assert_eq!(u32::from_le_bytes(bytes), count);
            assert_eq!(Coding::FromOne.words(&bytes).next(), Some(word));
        }
    }

    #[test]
    fn numbers_stand_in_either_order() {
        for (order, bytes) in [
            (ByteOrder::Little, [4, 3, 2, 1]),
            (ByteOrder::Big, [1, 2, 3, 4]),
        ] {
            let coding = Coding::from(order);
            let mut place = [0; 4];
            coding.put(0x0102_0304, &mut place);
            assert_eq!(place, bytes);
            assert_eq!(coding.words(&bytes).next(), Some(0x0102_0304));
        }
    }
}
