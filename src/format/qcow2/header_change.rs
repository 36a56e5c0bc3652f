//! Replaces the header in the header cluster, such that after a crash one of the two headers is in effect. A disk
//! writes a sector completely or not at all, but any part of a longer range: so a single sector decides, and the rest
//! is made durable, in places not yet in effect, before that sector is written.

use std::collections::VecDeque;

use crate::error::{Error, ErrorKind, Result};
use crate::memory;
use crate::storage::Storage;

use super::disk::{Extension, ImageHeader, Placement};

const SECTOR: usize = crate::size::SECTOR as usize;

/// How much of the header cluster is read at first.
const HEAD: usize = 4096;

/// Writes `new` over `image`, which is updated to what the file then holds; `barrier` orders what was written before it
/// ahead of what is written after it. On failure `image` stays in effect, as it was or without the feature names. No
/// barrier is implied at the end.
///
/// If no single sector turns the old header into the new one, there are intermediate steps: the new one is first put
/// behind the old one, and padding, which every reader skips, leads to it; or, if the cluster has no space for that,
/// one of them goes without the feature names, which have no meaning for any reader, or has its backing file name
/// somewhere else. In a cluster of 1 or 2 KiB the new one may have to stay that way.
///
/// # Errors
/// As [`check`], before anything is written, or if I/O fails.
pub(super) fn replace(
    storage: &dyn Storage,
    image: &mut ImageHeader,
    new: ImageHeader,
    barrier: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let way = find_way(storage, image, new)?;
    let mut change = Change {
        storage,
        barrier,
        begun: false,
    };
    let mut new_counts = false;
    for step in way.steps {
        match change.carry_out(&step) {
            Ok(()) => *image = step.to.image,
            // If this fails, the new header stays as it is.
            Err(_) if new_counts => return Ok(()),
            Err(error) => return Err(error),
        }
        new_counts = step.is_new;
    }
    // Remains of the old header have no effect; they may stay.
    let _ = change.wipe(image, way.reach);
    Ok(())
}

/// Refuses what [`replace`] would refuse.
///
/// # Errors
/// [`ErrorKind::Limit`] if the new header does not fit into the cluster, or not beside what the old one needs in the
/// meantime; or if I/O fails.
pub(super) fn check(storage: &dyn Storage, image: &ImageHeader, new: ImageHeader) -> Result<()> {
    find_way(storage, image, new).map(drop)
}

/// A change from one placement to the next.
struct Step {
    to: Placement,
    /// The sector that decides.
    decider: usize,
    /// The new header is in effect after this step.
    is_new: bool,
}

/// How to get from one header to the other.
struct Way {
    steps: Vec<Step>,
    /// End of the bytes that matter before, during or after the change.
    reach: usize,
}

/// The fewest steps to the new header in its best form, or else to another placement of it.
fn find_way(storage: &dyn Storage, image: &ImageHeader, new: ImageHeader) -> Result<Way> {
    let len = new.clone().to_bytes()?.len();
    let found = read_placement(storage, image)?;
    let mut reach = found.end();
    let behind = len.max(reach).next_multiple_of(SECTOR);
    // Best placements first.
    let mut places = placements(image, &new, behind);
    let from = places.len();
    places.push((found, false));
    let mut came_from = vec![None; from];
    let mut reached = VecDeque::from([from]);
    while let Some(at) = reached.pop_front() {
        let next = places.iter().zip(&mut came_from).enumerate();
        for (to, ((place, _), unknown)) in next.filter(|(_, (_, way))| way.is_none()) {
            let decider = places.get(at).and_then(|(at, _)| at.decider(place));
            if let Some(decider) = decider {
                *unknown = Some((at, decider));
                reached.push_back(to);
            }
        }
    }
    let is_end = |(place, way): (&(Placement, bool), &Option<_>)| place.1 && way.is_some();
    let Some(mut at) = places.iter().zip(&came_from).position(is_end) else {
        return Err(Error::new(
            ErrorKind::Limit,
            "A crash could lose the image header while it is changed, because its cluster has no space for two; \
             use a shorter backing file name, or convert the image to one with larger clusters",
        )
        .with_errno(libc::ENOSPC));
    };
    let mut places: Vec<_> = places.into_iter().map(Some).collect();
    let mut steps = Vec::new();
    while let Some(Some((before, decider))) = came_from.get(at).copied() {
        let Some((to, is_new)) = places.get_mut(at).and_then(Option::take) else {
            break;
        };
        reach = reach.max(to.end());
        steps.push(Step {
            to,
            decider,
            is_new,
        });
        at = before;
    }
    steps.reverse();
    Ok(Way { steps, reach })
}

/// Ways to write the new header, and to write the old one in the meantime; true for the new one.
fn placements(old: &ImageHeader, new: &ImageHeader, behind: usize) -> Vec<(Placement, bool)> {
    let old_name = old.name_range().start;
    let same_name = (old.backing_file == new.backing_file).then_some(old_name);
    let mut all = Vec::new();
    let mut add = |image: &ImageHeader, behind: Option<usize>, name: Option<usize>, is_new| {
        let place = Placement::at(image.clone(), behind, name);
        all.extend(place.map(|place| (place, is_new)));
    };
    let short = without_feature_names(new);
    for new in [Some(new), short.as_ref()].into_iter().flatten() {
        add(new, None, None, true);
        add(new, Some(behind), None, true);
        if new.backing_file.is_some() {
            if same_name.is_some() {
                add(new, None, same_name, true);
            }
            add(new, None, at_end(new), true);
        }
    }
    if let Some(old) = without_feature_names(old) {
        if old.backing_file.is_some() {
            add(&old, None, Some(old_name), false);
            add(&old, None, at_end(&old), false);
        }
        add(&old, None, None, false);
    }
    all
}

/// Where the name begins if it is at the very end of the cluster.
fn at_end(image: &ImageHeader) -> Option<usize> {
    let name = image.backing_file.as_ref()?;
    (1usize << image.header.cluster_bits).checked_sub(name.len())
}

/// The header without the feature names, which have no meaning for any reader; None if it has none.
fn without_feature_names(image: &ImageHeader) -> Option<ImageHeader> {
    let is_names = |extension: &Extension| matches!(extension, Extension::FeatureNames(_));
    if !image.extensions.iter().any(is_names) {
        return None;
    }
    let mut short = image.clone();
    short.extensions.retain(|extension| !is_names(extension));
    Some(short)
}

/// Where the parts of the header are on disk.
fn read_placement(storage: &dyn Storage, image: &ImageHeader) -> Result<Placement> {
    let cluster = 1usize << image.header.cluster_bits;
    let mut len = HEAD.max(image.name_range().end).min(cluster);
    loop {
        let mut head = memory::zeroed(len)?;
        storage.read_at(&mut head, 0)?;
        let found = Placement::found(image, &head)?;
        if found.end() < len || len == cluster {
            return Ok(found);
        }
        len = len.saturating_mul(2).min(cluster);
    }
}

/// A change in progress.
struct Change<'a> {
    storage: &'a dyn Storage,
    barrier: &'a dyn Fn() -> Result<()>,
    /// A deciding sector was written, and there has been no barrier since.
    begun: bool,
}

impl Change<'_> {
    fn barrier(&mut self) -> Result<()> {
        self.begun = false;
        (self.barrier)()
    }

    /// Puts another header into effect: its other parts are written first, to places not in effect now.
    fn carry_out(&mut self, step: &Step) -> Result<()> {
        if self.begun {
            self.barrier()?;
        }
        let decides = step.decider * SECTOR..(step.decider + 1) * SECTOR;
        let mut staged = false;
        for part in &step.to.parts {
            let mut there = memory::zeroed(part.bytes.len())?;
            self.storage.read_at(&mut there, part.at as u64)?;
            let old = memory::copied(&there)?;
            for (n, (to, from)) in there.iter_mut().zip(&part.bytes).enumerate() {
                if !decides.contains(&(part.at + n)) {
                    *to = *from;
                }
            }
            staged |= self.write_changes(&old, &there, part.at)?;
        }
        if staged {
            self.barrier()?;
        }
        let mut old = [0; SECTOR];
        self.storage.read_at(&mut old, decides.start as u64)?;
        let mut sector = [0; SECTOR];
        for part in &step.to.parts {
            for (n, to) in sector.iter_mut().enumerate() {
                let at = (decides.start + n).checked_sub(part.at);
                if let Some(from) = at.and_then(|at| part.bytes.get(at)) {
                    *to = *from;
                }
            }
        }
        if let Err(error) = self.storage.write_at(&sector, decides.start as u64) {
            // Part of it may have been written: the old parts belong together, so it is restored.
            let _ = self.storage.write_at(&old, decides.start as u64);
            return Err(error);
        }
        self.begun = true;
        Ok(())
    }

    /// Writes from the first byte that differs to the last; returns whether there is any.
    fn write_changes(&self, old: &[u8], new: &[u8], at: usize) -> Result<bool> {
        let differs = |(old, new): (&u8, &u8)| old != new;
        let pairs = || old.iter().zip(new);
        let (Some(first), Some(last)) = (pairs().position(differs), pairs().rposition(differs))
        else {
            return Ok(false);
        };
        let changes = new.get(first..=last).unwrap_or_default();
        self.storage.write_at(changes, (at + first) as u64)?;
        Ok(true)
    }

    /// Zeroes everything that is not in effect between the first sector and `end`.
    fn wipe(&mut self, image: &ImageHeader, end: usize) -> Result<()> {
        let Some(len) = end.checked_sub(SECTOR) else {
            return Ok(());
        };
        let parts = read_placement(self.storage, image)?.parts;
        let mut old = memory::zeroed(len)?;
        self.storage.read_at(&mut old, SECTOR as u64)?;
        let mut new = memory::zeroed(len)?;
        for part in &parts {
            let from = part.bytes.get(SECTOR.saturating_sub(part.at)..);
            let to = new.get_mut(part.at.saturating_sub(SECTOR)..);
            for (to, from) in to.into_iter().flatten().zip(from.into_iter().flatten()) {
                *to = *from;
            }
        }
        if *old != *new {
            self.barrier()?;
            self.write_changes(&old, &new, SECTOR)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::format::qcow2::disk::{
        Autoclear, BitmapsExtension, Compatible, CompressionType, CryptMethod, Header, Incompatible,
    };
    use crate::storage::Durability;
    use crate::storage::memory::MemoryStorage;
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

    /// A header with or without feature names, with this many bitmaps, and with a data file name, a backing file name
    /// and an unknown extension of these lengths.
    fn with(mut to: ImageHeader, names: bool, lens: [usize; 4]) -> ImageHeader {
        let [bitmaps, data, backing, unknown] = lens;
        let text = |len: usize| -> Vec<u8> {
            format!("{len}/")
                .into_bytes()
                .into_iter()
                .cycle()
                .take(len)
                .collect()
        };
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

    /// What a reader gets from a header.
    fn meaning(image: &ImageHeader) -> (Vec<Extension>, Option<Vec<u8>>, u32) {
        let mut all = image.extensions.clone();
        all.retain(|extension| !matches!(extension, Extension::FeatureNames(_)));
        (all, image.backing_file.clone(), image.header.version)
    }

    /// Changes a header, and checks what a crash may leave at each instant: each unsynced sector is either there or
    /// not. Returns the file and the number of states.
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

    /// Changes between headers no two of which fit into a cluster together; returns the number of states, and the
    /// changes that are refused, which change nothing.
    fn go_through_tight(
        version: u32,
        bits: u32,
        shapes: &[(bool, [usize; 4])],
    ) -> (usize, Vec<(usize, usize)>) {
        let (mut states, mut refused) = (0, Vec::new());
        for (n, from) in shapes.iter().enumerate() {
            for (m, to) in shapes.iter().enumerate().filter(|(m, _)| *m != n) {
                let mut old = with(header(version, bits), from.0, from.1);
                let new = with(header(version, bits), to.0, to.1);
                let mut file = vec![0; 1 << bits];
                let bytes = old.to_bytes().unwrap();
                file[..bytes.len()].copy_from_slice(&bytes);
                let storage = MemoryStorage::with_bytes("image", file.clone());
                if let Err(error) = check(&storage, &old, new.clone()) {
                    assert_eq!(error.kind(), ErrorKind::Limit);
                    let mut image = old.clone();
                    let done = replace(&storage, &mut image, new, &|| Ok(()));
                    assert_eq!(done.unwrap_err().kind(), ErrorKind::Limit);
                    assert_eq!((&image, storage.to_vec()), (&old, file));
                    refused.push((n, m));
                    continue;
                }
                let (there, some) = crash(&file, &old, &new);
                // And back, from wherever the name is now.
                let found = ImageHeader::from_bytes(&there, there.len() as u64).unwrap();
                let (_, more) = crash(&there, &found, &old);
                states += some + more;
            }
        }
        (states, refused)
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
    fn headers_of_which_no_two_fit_into_a_small_cluster_are_changed_safely_or_refused() {
        let names =
            |lens: &[usize]| -> Vec<_> { lens.iter().map(|len| (true, [0, 0, *len, 0])).collect() };
        let (states, refused) = go_through_tight(3, 10, &names(&[0, 3, 300, 350, 399, 433]));
        assert!(states > 200, "{states}");
        assert_eq!(refused, []);
        let (states, refused) = go_through_tight(3, 11, &names(&[3, 500, 700, 999, 1023]));
        assert!(states > 100, "{states}");
        // The longest one is in the middle, and none moves past itself.
        assert_eq!(refused, [(3, 4), (4, 2), (4, 3)]);
        // Without feature names, and with bitmaps beside a long name.
        let plain = |lens: &[usize]| -> Vec<_> {
            lens.iter().map(|len| (false, [0, 0, *len, 0])).collect()
        };
        let (states, refused) = go_through_tight(2, 10, &plain(&[3, 450, 470, 600, 930]));
        assert!(states > 50, "{states}");
        // Pairs that are longer than a cluster together.
        let pairs = [(1, 3), (1, 4), (2, 3), (2, 4), (3, 4)];
        let both = pairs.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]);
        assert_eq!(BTreeSet::from_iter(refused), BTreeSet::from_iter(both));
        let shapes = [
            (true, [0, 0, 400, 0]),
            (true, [1, 0, 400, 0]),
            (true, [2, 0, 400, 0]),
        ];
        let (states, refused) = go_through_tight(3, 10, &shapes);
        assert!(states > 20, "{states}");
        assert_eq!(refused, []);
    }

    #[test]
    fn a_header_behind_padding_is_put_in_order_by_the_next_change() {
        let mut old = with(header(3, 16), true, [2, 0, 700, 0]);
        old.to_bytes().unwrap();
        let moved = Placement::at(old.clone(), Some(2048), None).unwrap();
        // What the padding covers may hold anything.
        let mut file = vec![0xa5; 2048];
        file.resize(1 << 16, 0);
        for part in &moved.parts {
            file[part.at..part.at + part.bytes.len()].copy_from_slice(&part.bytes);
        }
        let found = ImageHeader::from_bytes(&file, 1 << 16).unwrap();
        assert_eq!(found.superseded, moved.image.superseded);
        assert_eq!(meaning(&found), meaning(&old));
        let new = with(header(3, 16), true, [2, 0, 701, 0]);
        let (there, _) = crash(&file, &found, &new);
        let bytes = new.clone().to_bytes().unwrap();
        assert!(there.starts_with(&bytes));
        assert!(there[bytes.len()..].iter().all(|byte| *byte == 0));
    }
}
