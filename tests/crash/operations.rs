//! The operations that a run is made of. A new one is a variant of [`Operation`], its share of
//! [`MIX`], and a function that carries it out and tells the history what may be read from now on.

use bstr::BStr;

use platter::format::{AmendContext, BackingRef, NewParent, NewSnapshot, RepairMode, registry};
use platter::job::JobControl;
use platter::options::Values;
use platter::storage::{Preallocation, Storage, ZeroFlags};
use platter::{ErrorKind, Job, Options};

use crate::bitmaps::Tracked;
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
    Amend,
    Bitmap,
    Repair,
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
    (Operation::Amend, 4),
    (Operation::Bitmap, 4),
    (Operation::Repair, 1),
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
            Self::Amend => amend(run),
            Self::Bitmap => bitmap(run),
            Self::Repair => repair(run),
        }
    }
}

/// Sectors of the image, mostly few; whole ones of the guest.
fn range(run: &mut Run<'_>) -> std::ops::Range<usize> {
    let len = run.history.len();
    let start = run.random.below(len);
    let span = if run.random.below(4) == 0 { 64 } else { 12 };
    let range = start..start + 1 + run.random.below(span.min(len - start));
    run.config.whole(range)
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
    run.record(&range, Some(tag));
    range.for_each(|s| run.history.set(at, s, tag));
    run.writer().write(&bytes, offset, &run.below()).unwrap();
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
    run.record(&range, None);
    range.for_each(|s| run.history.set(at, s, 0));
    let done = run.writer().write_zeroes(offset, len, flags, &run.below());
    done.unwrap();
}

fn discard(run: &mut Run<'_>) {
    let range = range(run);
    let at = run.log.count();
    let (offset, len) = bytes_of(&range);
    run.record(&range, None);
    range.clone().for_each(|s| run.history.give_up(at, s));
    run.writer().discard(offset, len).unwrap();
    run.look(range);
}

/// A whole cluster, compressed.
fn compressed(run: &mut Run<'_>) {
    let Some(compressor) = run.writer().compressor() else {
        return write(run);
    };
    let unit = compressor.encode_unit() as usize / SECTOR;
    let len = run.history.len();
    let start = run.random.below(len.div_ceil(unit)) * unit;
    let range = start..len.min(start + unit);
    let tag = run.new_tag();
    let at = run.log.count();
    let bytes = rig::sector_of(tag).repeat(range.len());
    let (offset, _) = bytes_of(&range);
    run.record(&range, Some(tag));
    range.for_each(|s| run.history.set(at, s, tag));
    let compressor = run.writer().compressor().unwrap();
    compressor.write_compressed(&bytes, offset).unwrap();
}

/// Makes all durable.
pub fn flush(run: &mut Run<'_>) {
    run.writer().flush(run.durability).unwrap();
    run.settle();
}

fn close(run: &mut Run<'_>) {
    run.image().close().unwrap();
    run.image = None;
    for storage in &run.files {
        storage.sync(run.durability).unwrap();
    }
    run.settle();
}

fn reopen(run: &mut Run<'_>) {
    close(run);
    run.image = Some(run.open(&run.storages(), Access::Write).unwrap());
}

/// A repair of an image in order finds nothing to repair but what is leaked.
fn repair(run: &mut Run<'_>) {
    close(run);
    run.image = Some(run.open(&run.storages(), Access::Repair).unwrap());
    let (report, notes) = rig::check(run.image(), RepairMode::All).unwrap();
    let wrong = report.corruptions + report.corruptions_fixed + report.check_errors;
    assert_eq!((wrong, report.leaks), (0, 0), "{report:?} {notes:?}");
    reopen(run);
}

/// Creates, applies or deletes a snapshot.
fn snapshot(run: &mut Run<'_>) {
    if run.image().snapshots().is_none() {
        return write(run);
    }
    let at = run.log.count();
    let live: Vec<usize> = (0..run.snapshots.len())
        .filter(|n| run.snapshots[*n].dropped == usize::MAX)
        .collect();
    let pick = live.get(run.random.below(live.len().max(1))).copied();
    let action = run.random.below(if live.len() > 4 { 2 } else { 4 });
    if action == 0 && run.bitmaps.iter().any(Tracked::is_live) {
        // Bitmaps would not say what the change of contents changed.
        if let Some(pick) = pick {
            let id = run.id_of(pick);
            let snapshots = run.image().snapshots().unwrap();
            snapshots
                .apply(BStr::new(&id), &JobControl::default())
                .unwrap_err();
        }
        return;
    }
    let done = match (action, pick) {
        (0, Some(pick)) => apply_snapshot(run, at, pick),
        (1, Some(pick)) => {
            run.snapshots[pick].dropped = at;
            let id = run.id_of(pick);
            let snapshots = run.image().snapshots().unwrap();
            snapshots.delete(BStr::new(&id), &JobControl::default())
        }
        _ => {
            let name = format!("s{}", run.new_tag());
            let new = NewSnapshot {
                name: name.clone().into(),
                ..NewSnapshot::default()
            };
            let history = &run.history;
            run.snapshots.push(Taken {
                name,
                contents: (0..history.len()).map(|s| history.current(s)).collect(),
                made: usize::MAX,
                dropped: usize::MAX,
            });
            let made = run
                .image()
                .snapshots()
                .unwrap()
                .create(&new, &JobControl::default());
            match &made {
                Ok(_) => run.snapshots.last_mut().unwrap().made = run.log.count(),
                Err(_) => drop(run.snapshots.pop()),
            }
            made.map(drop)
        }
    };
    match done {
        Ok(()) => run.settle(),
        // A few bits cannot count all references; a data file holds one state alone.
        Err(error) => {
            let bits = run.property("refcount-bits").unwrap().as_u64().unwrap();
            assert!(bits <= 4 || run.config.has("data_file"), "{error:?}");
        }
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
    snapshots.apply(BStr::new(&id), &JobControl::default())
}

fn resize(run: &mut Run<'_>) {
    if run.is_old() && has_snapshots(run) || run.image().resizer().is_none() {
        return write(run);
    }
    let old = run.history.len();
    let new = match other_len(run) {
        new if new < old && !run.config.shrinks => return write(run),
        new => new,
    };
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
    let at = run.log.count();
    let len = (new * SECTOR) as u64;
    let image = run.image();
    let resizer = image.resizer().expect("a format that can be resized");
    match resizer.resize_above(len, mode, &run.below(), &Default::default()) {
        // Not every format has every kind of preallocation.
        Err(error) if mode != Preallocation::Off && error.kind() == ErrorKind::Unsupported => {
            assert_eq!(image.len() as usize, run.history.len() * SECTOR);
        }
        done => {
            done.unwrap();
            note_size(run, at, new);
        }
    }
}

/// Another number of sectors.
fn other_len(run: &mut Run<'_>) -> usize {
    let least = run.config.sectors() / 2;
    let len = least + run.random.below(run.config.max_sectors() - least);
    run.config.whole(0..len).end
}

/// An operation that began at event `at` has made the image so many sectors long.
fn note_size(run: &mut Run<'_>, at: usize, new: usize) {
    let old = run.history.len();
    for s in new..old {
        run.history.give_up(at, s);
        // What is cut off is gone for good.
        run.history.observe(s, 0);
    }
    for s in old..new {
        // Whatever lies below.
        run.history.set(at, s, 0);
    }
    run.history.set_len(at, new);
    for bitmap in &mut run.bitmaps {
        bitmap.give_up(at, new);
    }
    assert_eq!(run.image().len() as usize, new * SECTOR);
    if new > old {
        run.look(old..new);
        assert!((old..new).all(|s| run.history.current(s) == 0));
    }
}

fn has_snapshots(run: &Run<'_>) -> bool {
    run.snapshots.iter().any(|s| s.dropped == usize::MAX)
}

/// Changes an option, or finds that refused.
fn amend(run: &mut Run<'_>) {
    if run.image().amender().is_none() {
        return write(run);
    }
    let old = run.is_old();
    let snapshots = has_snapshots(run);
    let bitmaps = run.bitmaps.iter().any(Tracked::is_live);
    let mut size = None;
    let (options, refused) = match run.random.below(6) {
        0 | 1 if !old => {
            let newer = ["data_file", "extended_l2", "zstd"];
            let newer = newer.iter().any(|option| run.config.has(option));
            let options = "compat=0.10,refcount_bits=16,lazy_refcounts=off".to_owned();
            (options, newer || snapshots || bitmaps)
        }
        0 | 1 => ("compat=1.1".to_owned(), false),
        2 => {
            let bits = 1 << run.random.below(7);
            // Compressed clusters share their hosts, snapshots all.
            let options = format!("refcount_bits={bits}");
            (options, bits < 8 || old && bits != 16)
        }
        3 => ("lazy_refcounts=on".to_owned(), old),
        4 if run.config.has("data_file_raw") => ("data_file_raw=off".to_owned(), false),
        4 => ("lazy_refcounts=off".to_owned(), false),
        _ => {
            let new = other_len(run);
            size = Some(new);
            let options = format!("size={}", new * SECTOR);
            (options, old && snapshots)
        }
    };
    let at = run.log.count();
    let driver = registry::by_name(run.config.format).unwrap();
    let parsed = Options::parse(&options).unwrap();
    let values = Values::check(&parsed, driver.amend_options).unwrap();
    let context = AmendContext {
        values: &values,
        objects: &rig::objects(),
        force: false,
        below: &run.below(),
    };
    let amender = run.image().amender().unwrap();
    match amender.amend(&context, &mut Job::new()) {
        Ok(()) => {
            if let Some(new) = size {
                note_size(run, at, new);
            }
            run.settle();
        }
        Err(error) => assert!(refused, "{options}: {error:?}"),
    }
}

/// Makes a bitmap or changes one.
fn bitmap(run: &mut Run<'_>) {
    if run.image().bitmaps().is_none() {
        assert!(run.is_old() || run.config.format != "qcow2");
        return write(run);
    }
    let at = run.log.count();
    let flushes = run.flush_count();
    let live: Vec<usize> = (0..run.bitmaps.len())
        .filter(|n| run.bitmaps[*n].is_live())
        .collect();
    let pick = live.get(run.random.below(live.len().max(1))).copied();
    let other = live.get(run.random.below(live.len().max(1))).copied();
    let action = run.random.below(if live.len() > 2 { 6 } else { 8 });
    let (Some(pick), Some(other), 0..6) = (pick, other, action) else {
        let name = format!("b{}", run.new_tag());
        let granularity = 512 << run.random.below(8);
        let bitmaps = run.image().bitmaps().unwrap();
        bitmaps
            .add(BStr::new(&name), Some(granularity), &JobControl::default())
            .unwrap();
        let made = run.log.count();
        run.bitmaps.push(Tracked::new(name, granularity, made));
        return run.settle();
    };
    let name = run.bitmaps[pick].name.clone();
    let from = run.bitmaps[other].name.clone();
    let bitmaps = run.image().bitmaps().unwrap();
    match action {
        0 | 1 => {
            bitmaps
                .remove(BStr::new(&name), &JobControl::default())
                .unwrap();
            run.bitmaps[pick].dropped = at;
        }
        2 => {
            bitmaps
                .clear(BStr::new(&name), &JobControl::default())
                .unwrap();
            run.bitmaps[pick].give_up(at, 0);
        }
        3 | 4 => {
            let enabled = !run.bitmaps[pick].enabled.current();
            bitmaps
                .set_enabled(BStr::new(&name), enabled, &JobControl::default())
                .unwrap();
            run.bitmaps[pick].enabled.set(at, enabled);
        }
        _ => {
            let merged = bitmaps.mark(
                BStr::new(&name),
                &mut |mark| {
                    bitmaps.visit_dirty(
                        BStr::new(&from),
                        0..u64::MAX,
                        &JobControl::default(),
                        &mut |offset, len| {
                            mark(offset, len);
                            Ok(())
                        },
                    )
                },
                &JobControl::default(),
            );
            merged.unwrap();
            let held = run.bitmaps[other].held();
            run.bitmaps[pick].merge(&held, flushes);
        }
    }
    run.settle();
}

fn change_layer(run: &mut Run<'_>) {
    if run.property("data-file-raw") == Some(true.into()) {
        // Never one of a chain.
        return write(run);
    }
    let n = run.new_tag();
    let image = run.image();
    let Some(overlay) = image.backing_change() else {
        return;
    };
    if run.config.overlay {
        let (format, id) = run.config.base;
        let may_be_named = run.config.keeps_base_format();
        let is_named = id.is_some() || may_be_named && n.is_multiple_of(2);
        let backing = BackingRef {
            name: format!("base {n}").into(),
            format: is_named.then(|| format.into()),
        };
        let parent = NewParent {
            id,
            ..NewParent::default()
        };
        let parent = id.is_some().then_some(&parent);
        overlay.set_backing(Some(&backing), parent).unwrap();
        let parent = image.parent().unwrap();
        match parent.is_nameless() {
            true => assert_eq!(parent.expected_id(), id),
            false => assert_eq!(parent.first(), Some(backing)),
        }
    }
    let at = run.log.count();
    let overlay = run.image().backing_change().unwrap();
    match overlay.make_empty() {
        // There is nothing below that would show.
        Err(error) if error.kind() == ErrorKind::Unsupported && !run.config.overlay => {
            return write(run);
        }
        emptied => emptied.unwrap(),
    }
    for s in 0..run.history.len() {
        run.history.set(at, s, run.history.below(s));
    }
}
