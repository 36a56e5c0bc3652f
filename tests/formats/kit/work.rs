//! Random changes of an image, and the byte array that it must equal.

use std::ops::Range;

use platter::storage::ZeroFlags;
use platter::{ErrorKind, Image, Result};

use crate::random::Random;

/// One change of guest bytes.
#[derive(Clone, Debug)]
pub enum Change {
    /// These bytes are written at an offset.
    Write(u64, Vec<u8>),
    /// A range is zeroed; it may become a hole.
    Zero(Range<u64>, bool),
    /// A range is given back: its bytes are as before, zeroes, or those of the layer below. Where the
    /// format or its file cannot, that is refused and nothing changes.
    Discard(Range<u64>),
}

impl Change {
    /// A random one within an image of `size` bytes.
    pub fn pick(random: &mut Random, size: u64) -> Self {
        let unit = [1, 512, 4096, 65536][random.below(4)];
        let offset = random.below(size as usize) as u64 / unit * unit;
        let most = [600, 5000, 70_000, 200_000][random.below(4)];
        let len = (1 + random.below(most) as u64).min(size - offset);
        let range = offset..offset + len;
        match random.below(10) {
            0 => Self::Discard(range),
            1 | 2 => Self::Zero(range, random.coin()),
            _ => Self::Write(offset, filling(random, len as usize)),
        }
    }

    /// The range that it touches.
    pub fn range(&self) -> Range<usize> {
        let range = match self {
            Self::Write(offset, bytes) => *offset..*offset + bytes.len() as u64,
            Self::Zero(range, _) | Self::Discard(range) => range.clone(),
        };
        range.start as usize..range.end as usize
    }

    /// Carries it out.
    pub fn apply(&self, image: &Image) -> Result<()> {
        match self {
            Self::Write(offset, bytes) => image.write_at(bytes, *offset),
            Self::Zero(range, unmap) => {
                let flags = if *unmap {
                    ZeroFlags::MAY_UNMAP
                } else {
                    ZeroFlags::empty()
                };
                image.write_zeroes(range.start, range.end - range.start, flags)
            }
            Self::Discard(range) => match image.discard(range.start, range.end - range.start) {
                Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
                done => done,
            },
        }
    }

    /// What the guest sees once it is done: `model` is what it saw before. What a discard leaves is
    /// taken from the image, which may choose between three values.
    pub fn note(&self, image: &Image, model: &mut [u8], below: impl Fn(u64) -> u8) -> Result<()> {
        match self {
            Self::Write(_, bytes) => model[self.range()].copy_from_slice(bytes),
            Self::Zero(..) => model[self.range()].fill(0),
            Self::Discard(range) => {
                let mut now = vec![0; (range.end - range.start) as usize];
                image.read_at(&mut now, range.start)?;
                for (at, byte) in self.range().zip(now) {
                    assert!(
                        byte == 0 || byte == model[at] || byte == below(at as u64),
                        "{}: byte {at} reads as {byte:#x} after a discard of {range:?}, which is neither 0 \
                         nor what it was nor what is below",
                        image.driver().name
                    );
                    model[at] = byte;
                }
            }
        }
        Ok(())
    }
}

/// Bytes that compress, are all the same, or are noise.
fn filling(random: &mut Random, len: usize) -> Vec<u8> {
    let seed = random.next();
    match seed % 3 {
        0 => (0..len).map(|i| (seed >> (i / 64 % 8)) as u8).collect(),
        1 => vec![seed as u8 | 1; len],
        _ => {
            let mut noise = Random(seed);
            (0..len).map(|_| noise.next() as u8).collect()
        }
    }
}

/// Fails unless the bytes are the same.
pub fn same(name: &str, bytes: &[u8], model: &[u8]) {
    assert_eq!(bytes.len(), model.len(), "{name}: length");
    if bytes != model {
        let mut pairs = bytes.iter().zip(model);
        let at = pairs.position(|(a, b)| a != b).expect("a difference");
        panic!(
            "{name}: byte {at} is {:#x}, not {:#x}",
            bytes[at], model[at]
        );
    }
}
