//! The bytes of a disk, of which zeroes take no room.

use std::collections::{BTreeMap, BTreeSet};

use platter::Image;

/// Bytes that are kept or left out together.
const PIECE: u64 = 64 << 10;
const SECTOR: usize = 512;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    len: u64,
    /// By their offset those that are not all zeroes.
    pieces: BTreeMap<u64, Vec<u8>>,
}

impl Contents {
    pub fn of(image: &Image) -> platter::Result<Self> {
        let mut contents = Self {
            len: image.len(),
            ..Self::default()
        };
        let mut at = 0;
        while at < image.len() {
            let status = image.status(at, image.len() - at)?;
            let end = at + status.len;
            if status.zero && (end >= at + PIECE || end == image.len()) {
                at = if end == image.len() {
                    end
                } else {
                    end - end % PIECE
                };
                continue;
            }
            let mut bytes = vec![0; PIECE.min(image.len() - at) as usize];
            image.read_at(&mut bytes, at)?;
            if bytes.iter().any(|byte| *byte != 0) {
                contents.pieces.insert(at, bytes);
            }
            at += PIECE;
        }
        Ok(contents)
    }

    /// The beginning of the first piece that is not the same, or the length of the shorter one.
    pub fn differ_at(&self, other: &Self) -> Option<u64> {
        let shorter = (self.len != other.len).then(|| self.len.min(other.len));
        let at = self.places(other).into_iter();
        let mut at = at.filter(|at| self.pieces.get(at) != other.pieces.get(at));
        at.next().or(shorter)
    }

    fn places(&self, other: &Self) -> BTreeSet<u64> {
        self.pieces
            .keys()
            .chain(other.pieces.keys())
            .copied()
            .collect()
    }

    fn sector(&self, piece: u64, n: usize) -> &[u8] {
        let bytes = self.pieces.get(&piece).map_or(&[][..], Vec::as_slice);
        let sector = bytes.chunks(SECTOR).nth(n).unwrap_or_default();
        // Nothing stands for zeroes.
        if sector.iter().all(|byte| *byte == 0) {
            &[]
        } else {
            sector
        }
    }

    /// Whether each sector is that of one of the two, and so is the length.
    pub fn is_between(&self, before: &Self, after: &Self) -> bool {
        let same = |piece: u64, n: usize| {
            let now = self.sector(piece, n);
            now == before.sector(piece, n) || now == after.sector(piece, n)
        };
        let mut pieces = self.places(before);
        pieces.extend(after.pieces.keys());
        let sectors = PIECE as usize / SECTOR;
        let mut pieces = pieces.into_iter();
        pieces.all(|piece| (0..sectors).all(|n| same(piece, n)))
            && [before.len, after.len].contains(&self.len)
    }
}
