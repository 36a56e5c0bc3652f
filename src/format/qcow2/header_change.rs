//! Another header over the one that stands in the header cluster, so that after a crash one of the two stands
//! there. A disk writes a sector whole or not at all, and of more than that any part: so the first sector
//! decides, and what lies behind it is durable, where nothing counts yet, before it is named.

use std::ops::Range;

use crate::error::Result;
use crate::memory;
use crate::storage::Storage;

use super::disk::{Extension, ImageHeader};

const SECTOR: usize = crate::size::SECTOR as usize;

/// Writes `new` over `image`, which becomes what the file then holds; `barrier` keeps what was written before it
/// from coming after what is written behind it. On failure `image` counts, as it was or without the names of
/// features. No barrier is implied at the end.
///
/// Where both are longer than a sector, the new one stands behind the old one first: padding, which every reader
/// skips, leads to it. In a cluster that has no space for that, the old one does without the names of features
/// meanwhile, which brings it down to a sector. Where neither helps, in clusters of up to 2 KiB or so whose
/// names fill them, the cluster is one write: the block of a disk is larger than that.
///
/// # Errors
/// [`crate::ErrorKind::Limit`] where the new one does not fit into the cluster, or of I/O.
pub(super) fn replace(
    storage: &dyn Storage,
    image: &mut ImageHeader,
    mut new: ImageHeader,
    barrier: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let cluster = 1usize << new.header.cluster_bits;
    let bytes = new.to_bytes()?;
    let old_end = image.len_in_file().min(cluster);
    let end = bytes
        .len()
        .max(old_end)
        .next_multiple_of(SECTOR)
        .min(cluster);
    let mut there = memory::zeroed(end)?;
    storage.read_at(&mut there, 0)?;
    let tail = SECTOR.min(bytes.len())..bytes.len();
    let stays = there.get(tail.clone()) == bytes.get(tail.clone());
    let mut used = old_end;
    let mut change = Change {
        storage,
        barrier,
        image,
        begun: false,
    };
    if stays {
        change.switch(new, &bytes, 0..0)?;
    } else if old_end <= SECTOR {
        change.switch(new, &bytes, tail)?;
    } else if let Some((moved, moved_bytes)) = new.displaced(end) {
        used = moved_bytes.len();
        change.switch(moved, &moved_bytes, end..used)?;
        // The new one counts by now: where this fails, it stays where it is.
        if change.switch(new, &bytes, tail).is_err() {
            return Ok(());
        }
    } else if let Some((short, short_bytes)) = without_feature_names(change.image) {
        change.switch(short, &short_bytes, 0..0)?;
        change.switch(new, &bytes, tail)?;
    } else {
        change.switch_at_once(new, &bytes, &there)?;
    }
    // What is left of the old one counts no more; it may stay.
    let _ = change.wipe(bytes.len()..used);
    Ok(())
}

/// The header without what has no meaning for any reader, where a sector holds that.
fn without_feature_names(image: &ImageHeader) -> Option<(ImageHeader, Vec<u8>)> {
    let mut short = image.clone();
    short
        .extensions
        .retain(|extension| !matches!(extension, Extension::FeatureNames(_)));
    let bytes = short.to_bytes().ok()?;
    (bytes.len() <= SECTOR).then_some((short, bytes))
}

/// A change under way.
struct Change<'a> {
    storage: &'a dyn Storage,
    barrier: &'a dyn Fn() -> Result<()>,
    /// The header that counts.
    image: &'a mut ImageHeader,
    /// The first sector was written, and there was no barrier since.
    begun: bool,
}

impl Change<'_> {
    fn barrier(&mut self) -> Result<()> {
        self.begun = false;
        (self.barrier)()
    }

    /// Lets another header count: of its bytes those at `tail`, where none counts now, and then those of the first
    /// sector. Others that it has are there.
    fn switch(&mut self, to: ImageHeader, bytes: &[u8], tail: Range<usize>) -> Result<()> {
        if self.begun {
            self.barrier()?;
        }
        if let Some(rest) = bytes.get(tail.clone()).filter(|rest| !rest.is_empty()) {
            self.storage.write_at(rest, tail.start as u64)?;
            self.barrier()?;
        }
        let mut first = [0; SECTOR];
        for (to, from) in first.iter_mut().zip(bytes) {
            *to = *from;
        }
        let mut old = [0; SECTOR];
        self.storage.read_at(&mut old, 0)?;
        self.decide(to, &first, &old)
    }

    /// As [`Change::switch`] with one write, where the cluster has no space for another way.
    fn switch_at_once(&mut self, to: ImageHeader, bytes: &[u8], old: &[u8]) -> Result<()> {
        let mut all = memory::copied(bytes)?;
        all.resize(old.len())?;
        self.decide(to, &all, old)
    }

    /// Writes what decides, over `old`.
    fn decide(&mut self, to: ImageHeader, bytes: &[u8], old: &[u8]) -> Result<()> {
        if let Err(error) = self.storage.write_at(bytes, 0) {
            // Part of it may have been written: the old parts belong together.
            let _ = self.storage.write_at(old, 0);
            return Err(error);
        }
        *self.image = to;
        self.begun = true;
        Ok(())
    }

    /// Writes zeroes where nothing counts, behind the first sector.
    fn wipe(&mut self, range: Range<usize>) -> Result<()> {
        let start = range.start.max(SECTOR);
        let Some(len) = range.end.checked_sub(start).filter(|len| *len > 0) else {
            return Ok(());
        };
        let mut bytes = memory::zeroed(len)?;
        self.storage.read_at(&mut bytes, start as u64)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        self.barrier()?;
        self.storage.write_at(&memory::zeroed(len)?, start as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::qcow2::disk::{
        Autoclear, BitmapsExtension, Compatible, CompressionType, CryptMethod, Header, Incompatible,
    };
    use crate::storage::Durability;
    use crate::storage::testing::{Event, Log};

    fn header(version: u32, cluster_bits: u32) -> ImageHeader {
        ImageHeader {
            header: Header {
                version,
                backing_offset: 0,
                backing_len: 0,
                cluster_bits,
                size: 1 << 20,
                crypt: CryptMethod::None,
                l1_entries: 1,
                l1_offset: 0x30000,
                reftable_offset: 0x10000,
                reftable_clusters: 1,
                snapshots: 0,
                snapshots_offset: 0,
                incompatible: Incompatible::empty(),
                compatible: Compatible::empty(),
                autoclear: Autoclear::empty(),
                refcount_order: 4,
                header_len: 104,
                compression: CompressionType::Zlib,
                rest: Vec::new(),
            },
            extensions: Vec::new(),
            superseded: Vec::new(),
            unusable: None,
            backing_file: None,
        }
    }

    /// A header with the names of features or not, so many bitmaps, a data file's name, a backing file's name,
    /// and something unknown, of these lengths.
    fn with(mut to: ImageHeader, names: bool, lens: [usize; 4]) -> ImageHeader {
        let [bitmaps, data, backing, unknown] = lens;
        let text = |len: usize| vec![b'a' + (len % 26) as u8; len];
        let mut all = Vec::new();
        if data > 0 {
            all.push(Extension::DataFile(text(data)));
        }
        if bitmaps > 0 {
            all.push(Extension::Bitmaps(BitmapsExtension {
                count: bitmaps as u32,
                directory_size: 64 * bitmaps as u64,
                directory_offset: 0x50000 + ((bitmaps as u64) << 16),
            }));
        }
        if names {
            all.push(Extension::known_feature_names());
        }
        if unknown > 0 {
            let data = text(unknown);
            all.push(Extension::Unknown { kind: 77, data });
        }
        to.extensions = all;
        to.backing_file = (backing > 0).then(|| text(backing));
        to
    }

    /// What a reader makes of a header.
    fn meaning(image: &ImageHeader) -> (Vec<Extension>, Option<Vec<u8>>, u32) {
        let mut all = image.extensions.clone();
        all.retain(|extension| !matches!(extension, Extension::FeatureNames(_)));
        (all, image.backing_file.clone(), image.header.version)
    }

    /// Changes a header, and looks at what a crash may leave at each instant: sector by sector, what was not
    /// synced is there or not. Returns the file and the number of states.
    fn crash(before: &[u8], old: &ImageHeader, new: &ImageHeader) -> (Vec<u8>, usize) {
        let log = Log::new();
        let file = log.file("image", before.to_vec());
        let mut image = old.clone();
        replace(&*file, &mut image, new.clone(), &|| {
            file.sync(Durability::Synced)
        })
        .unwrap();
        assert_eq!(meaning(&image), meaning(new));
        assert!(image.superseded.is_empty());
        let expected = [meaning(old), meaning(new)];
        let mut durable = before.to_vec();
        let mut pending: Vec<(usize, Vec<u8>)> = Vec::new();
        let mut states = 0;
        for record in log.records() {
            match &record.event {
                Event::Write { offset, bytes } => {
                    let mut at = *offset as usize;
                    let mut rest = &bytes[..];
                    while !rest.is_empty() {
                        let (now, later) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
                        pending.push((at, now.to_vec()));
                        (at, rest) = (at + now.len(), later);
                    }
                }
                _ => {
                    for (at, bytes) in pending.drain(..) {
                        durable[at..at + bytes.len()].copy_from_slice(&bytes);
                    }
                }
            }
            assert!(pending.len() < 12, "{} sectors at once", pending.len());
            for kept in 0..1 << pending.len() {
                let mut state = durable.clone();
                for (n, (at, bytes)) in pending.iter().enumerate() {
                    if kept >> n & 1 != 0 {
                        state[*at..at + bytes.len()].copy_from_slice(bytes);
                    }
                }
                let found = ImageHeader::from_bytes(&state, state.len() as u64).unwrap();
                assert!(expected.contains(&meaning(&found)), "{found:?}");
                states += 1;
            }
        }
        (file.to_vec(), states)
    }

    fn go_through(version: u32, bits: u32, shapes: &[(bool, [usize; 4])]) -> usize {
        let mut states = 0;
        for (n, from) in shapes.iter().enumerate() {
            for to in &shapes[n + 1..] {
                let mut old = with(header(version, bits), from.0, from.1);
                let new = with(header(version, bits), to.0, to.1);
                let mut file = vec![0; 1 << bits];
                let bytes = old.to_bytes().unwrap();
                file[..bytes.len()].copy_from_slice(&bytes);
                let (there, some) = crash(&file, &old, &new);
                let mut plain = new.clone();
                let bytes = plain.to_bytes().unwrap();
                assert!(there.starts_with(&bytes), "{from:?} {to:?}");
                assert!(there[bytes.len()..].iter().all(|byte| *byte == 0));
                // And back.
                let (again, more) = crash(&there, &plain, &old);
                assert_eq!(again, file, "{from:?} {to:?}");
                states += some + more;
            }
        }
        states
    }

    #[test]
    fn one_of_two_headers_counts_whatever_a_crash_leaves_of_a_change() {
        let shapes = [
            (false, [0, 0, 0, 0]),
            (true, [0, 0, 3, 0]),
            (true, [0, 0, 700, 0]),
            (true, [1, 0, 3, 0]),
            (true, [2, 0, 700, 0]),
            (true, [2, 900, 0, 0]),
            (true, [1, 30, 20, 500]),
            (false, [1, 30, 1023, 0]),
            (true, [0, 1, 0, 600]),
        ];
        assert!(go_through(3, 16, &shapes) > 200);
        assert!(go_through(3, 12, &shapes) > 200);
        let shapes = [
            (false, [0, 0, 3, 0]),
            (false, [0, 0, 1000, 0]),
            (false, [0, 0, 1023, 700]),
            (false, [0, 0, 5, 900]),
        ];
        assert!(go_through(2, 16, &shapes) > 20);
    }

    #[test]
    fn small_clusters_give_up_the_names_of_features_meanwhile() {
        let shapes = [
            (true, [0, 0, 3, 0]),
            (true, [1, 0, 200, 0]),
            (true, [2, 100, 150, 0]),
            (true, [3, 0, 0, 0]),
        ];
        assert!(go_through(3, 10, &shapes) > 20);
    }

    #[test]
    fn a_header_behind_padding_is_put_in_order_by_the_next_change() {
        let mut old = with(header(3, 16), true, [2, 0, 700, 0]);
        old.to_bytes().unwrap();
        let (moved, bytes) = old.displaced(2048).unwrap();
        let mut file = vec![0; 1 << 16];
        file[..SECTOR].copy_from_slice(&bytes[..SECTOR]);
        // What the padding covers may hold anything.
        file[SECTOR..2048].fill(0xa5);
        file[2048..bytes.len()].copy_from_slice(&bytes[2048..]);
        let found = ImageHeader::from_bytes(&file, 1 << 16).unwrap();
        assert_eq!(found.superseded, moved.superseded);
        assert_eq!(meaning(&found), meaning(&old));
        let new = with(header(3, 16), true, [2, 0, 701, 0]);
        let (there, _) = crash(&file, &found, &new);
        let bytes = new.clone().to_bytes().unwrap();
        assert!(there.starts_with(&bytes));
        assert!(there[bytes.len()..].iter().all(|byte| *byte == 0));
    }
}
