//! The operations that a run is made of. A new one is a variant of [`Operation`], its share of
//! [`MIX`], and a function that carries it out and tells the history what may be read from now on.

use platter::format::{BackingRef, NewSnapshot};
use platter::storage::{Preallocation, Storage, ZeroFlags};

use crate::model::{MAX_SECTORS, SECTORS};
use crate::replay::{Run, Taken};
use crate::rig::{self, Access, SECTOR};

/// One operation.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    Write,
    Zero,
    Discard,
    Compressed,
    Flush,
    Reopen,
    Snapshot,
    Resize,
    /// What commit and rebase do to an overlay.
    ChangeLayer,
}

/// How often each occurs.
const MIX: &[(Operation, usize)] = &[
    (Operation::Write, 20),
    (Operation::Zero, 6),
    (Operation::Discard, 6),
    (Operation::Compressed, 4),
    (Operation::Flush, 4),
    (Operation::Reopen, 4),
    (Operation::Snapshot, 6),
    (Operation::Resize, 3),
    (Operation::ChangeLayer, 1),
];

impl Operation {
    /// A random one.
    pub fn pick(run: &mut Run<'_>) -> Self {
        let total = MIX.iter().map(|(_, share)| share).sum();
        let mut at = run.random.below(total);
        for (operation, share) in MIX {
            match at.checked_sub(*share) {
                None => return *operation,
                Some(left) => at = left,
            }
        }
        Self::Write
    }

    /// Carries it out.
    pub fn apply(self, run: &mut Run<'_>) {
        match self {
            Self::Write => write(run),
            Self::Zero => zero(run),
            Self::Discard => discard(run),
            Self::Compressed => compressed(run),
            Self::Flush => flush(run),
            Self::Reopen => reopen(run),
            Self::Snapshot => snapshot(run),
            Self::Resize => resize(run),
            Self::ChangeLayer => change_layer(run),
        }
    }
}

/// Sectors of the image, mostly few.
fn range(run: &mut Run<'_>) -> std::ops::Range<usize> {
    let len = run.history.len();
    let start = run.random.below(len);
    let span = if run.random.below(4) == 0 { 64 } else { 12 };
    start..start + 1 + run.random.below(span.min(len - start))
}

fn bytes_of(range: &std::ops::Range<usize>) -> (u64, u64) {
    let offset = (range.start * SECTOR) as u64;
    (offset, (range.len() * SECTOR) as u64)
}

fn write(run: &mut Run<'_>) {
    let range = range(run);
    write_to(run, range);
}

/// Writes a tag of their own into sectors.
pub fn write_to(run: &mut Run<'_>, range: std::ops::Range<usize>) {
    let tag = run.new_tag();
    let at = run.log.count();
    let bytes = rig::sector_of(tag).repeat(range.len());
    let (offset, _) = bytes_of(&range);
    range.for_each(|s| run.history.set(at, s, tag));
    run.image().write(&bytes, offset, &run.below()).unwrap();
}

fn zero(run: &mut Run<'_>) {
    let range = range(run);
    let flags = if run.random.coin() {
        ZeroFlags::MAY_UNMAP
    } else {
        ZeroFlags::empty()
    };
    let at = run.log.count();
    let (offset, len) = bytes_of(&range);
    range.for_each(|s| run.history.set(at, s, 0));
    let done = run.image().write_zeroes(offset, len, flags, &run.below());
    done.unwrap();
}

fn discard(run: &mut Run<'_>) {
    let range = range(run);
    let at = run.log.count();
    let (offset, len) = bytes_of(&range);
    range.clone().for_each(|s| run.history.give_up(at, s));
    run.image().discard(offset, len).unwrap();
    run.look(range);
}

/// A whole cluster, compressed.
fn compressed(run: &mut Run<'_>) {
    let Some(compressor) = run.image().compressor() else {
        return write(run);
    };
    let unit = compressor.unit() as usize / SECTOR;
    let len = run.history.len();
    let start = run.random.below(len.div_ceil(unit)) * unit;
    let range = start..len.min(start + unit);
    let tag = run.new_tag();
    let at = run.log.count();
    let bytes = rig::sector_of(tag).repeat(range.len());
    let (offset, _) = bytes_of(&range);
    range.for_each(|s| run.history.set(at, s, tag));
    let compressor = run.image().compressor().unwrap();
    compressor.write_compressed(&bytes, offset).unwrap();
}

/// Makes all durable.
pub fn flush(run: &mut Run<'_>) {
    run.image().flush(run.durability).unwrap();
    run.settle();
}

fn reopen(run: &mut Run<'_>) {
    run.image().close().unwrap();
    run.image = None;
    for storage in &run.files {
        storage.sync(run.durability).unwrap();
    }
    run.settle();
    run.image = Some(run.open(&run.storages(), Access::Write).unwrap());
}

/// Creates, applies or deletes a snapshot.
fn snapshot(run: &mut Run<'_>) {
    let at = run.log.count();
    let live: Vec<usize> = (0..run.snapshots.len())
        .filter(|n| run.snapshots[*n].dropped == usize::MAX)
        .collect();
    let pick = live.get(run.random.below(live.len().max(1))).copied();
    let action = run.random.below(if live.len() > 4 { 2 } else { 4 });
    let done = match (action, pick) {
        (0, Some(pick)) => apply_snapshot(run, at, pick),
        (1, Some(pick)) => {
            run.snapshots[pick].dropped = at;
            let id = run.id_of(pick);
            let snapshots = run.image().snapshots().unwrap();
            snapshots.delete(&id)
        }
        _ => {
            let name = format!("s{}", run.new_tag());
            let new = NewSnapshot {
                name: name.clone(),
                ..NewSnapshot::default()
            };
            let history = &run.history;
            run.snapshots.push(Taken {
                name,
                contents: (0..history.len()).map(|s| history.current(s)).collect(),
                made: usize::MAX,
                dropped: usize::MAX,
            });
            let made = run.image().snapshots().unwrap().create(&new);
            match &made {
                Ok(_) => run.snapshots.last_mut().unwrap().made = run.log.count(),
                Err(_) => drop(run.snapshots.pop()),
            }
            made.map(drop)
        }
    };
    match done {
        Ok(()) => run.settle(),
        // One bit cannot count two references; a raw data file holds one state alone.
        Err(error) => assert!(
            run.config.has("refcount_bits=1") || run.config.has("data_file"),
            "{error:?}"
        ),
    }
}

fn apply_snapshot(run: &mut Run<'_>, at: usize, pick: usize) -> platter::Result<()> {
    let contents = run.snapshots[pick].contents.clone();
    let old = run.history.len();
    for s in 0..old.max(contents.len()) {
        match contents.get(s) {
            Some(tag) => run.history.set(at, s, *tag),
            None => {
                run.history.give_up(at, s);
                run.history.observe(s, 0);
            }
        }
    }
    run.history.set_len(at, contents.len());
    let id = run.id_of(pick);
    let snapshots = run.image().snapshots().unwrap();
    snapshots.apply(&id)
}

fn resize(run: &mut Run<'_>) {
    if run.config.has("compat=0.10") && run.snapshots.iter().any(|s| s.dropped == usize::MAX) {
        return write(run);
    }
    let old = run.history.len();
    let new = SECTORS / 2 + run.random.below(MAX_SECTORS - SECTORS / 2);
    let mode = match run.random.below(4) {
        0 if new > old => Preallocation::Metadata,
        1 if new > old => Preallocation::Falloc,
        2 if new > old => Preallocation::Full,
        _ => Preallocation::Off,
    };
    resize_to(run, new, mode);
}

/// Makes the image so many sectors long.
pub fn resize_to(run: &mut Run<'_>, new: usize, mode: Preallocation) {
    let old = run.history.len();
    let at = run.log.count();
    for s in old.min(new)..old.max(new) {
        run.history.give_up(at, s);
        // What is cut off is gone for good; before it grew there was nothing to be read.
        run.history.observe(s, 0);
    }
    run.history.set_len(at, new);
    let len = (new * SECTOR) as u64;
    run.image().resize(len, mode).unwrap();
    assert_eq!(run.image().len(), len);
    if new > old {
        run.look(old..new);
    }
}

fn change_layer(run: &mut Run<'_>) {
    let n = run.new_tag();
    let image = run.image();
    let Some(overlay) = image.overlay() else {
        return;
    };
    if run.config.overlay {
        let backing = BackingRef {
            name: format!("base {n}"),
            format: n.is_multiple_of(2).then(|| "raw".to_owned()),
        };
        overlay.set_backing(Some(&backing)).unwrap();
        assert_eq!(image.backing(), Some(backing));
    }
    let at = run.log.count();
    for s in 0..run.history.len() {
        run.history.set(at, s, run.history.below(s));
    }
    let overlay = run.image().overlay().unwrap();
    overlay.make_empty().unwrap();
}
