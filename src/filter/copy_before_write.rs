//! `copy-before-write`: what a write is about to replace is copied to another image first, which thus becomes a
//! backup as of the time of opening.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bstr::BStr;
use parking_lot::{Mutex, RwLock};

use crate::error::{Error, Result};
use crate::filter::{FilterContext, FilterDriver};
use crate::format::ChildSpec;
use crate::memory::IoBuf;
use crate::options::{OptionKind, OptionSpec, Values};
use crate::storage::forward::forward;
use crate::storage::{Durability, HostFile, LockRequest, Preallocation, Storage, ZeroFlags};
use crate::zero::is_zero;

/// The line of the registry.
pub static DRIVER: FilterDriver = FilterDriver {
    name: "copy-before-write",
    children: &[ChildSpec::FILE, ChildSpec::required(TARGET)],
    // Snapshots, and whatever else bypasses the filter, would change bytes that are not copied yet.
    shows: None,
    contents: None,
    holds_file: false,
    passes_compressed: false,
    keeps_writers_out: false,
    open_options: &[
        OptionSpec {
            name: BITMAP_NAME,
            kind: OptionKind::Name,
            help: "dirty bitmap: only what it marks is copied",
            default: None,
            allowed: &[],
        },
        OptionSpec {
            name: BITMAP_NODE,
            kind: OptionKind::Str,
            help: "node name of the image that has the bitmap",
            default: None,
            allowed: &[],
        },
        OptionSpec {
            name: TIMEOUT,
            kind: OptionKind::Num,
            help: "seconds after which a copy has failed, 0 for none",
            default: Some("0"),
            allowed: &[],
        },
        OptionSpec {
            name: CLUSTER,
            kind: OptionKind::Size,
            help: "smallest unit of copies",
            default: None,
            allowed: &[],
        },
        OptionSpec {
            name: ON_ERROR,
            kind: OptionKind::Str,
            help: "what a copy that fails breaks",
            default: Some(BREAK_WRITE),
            allowed: &[BREAK_WRITE, BREAK_SNAPSHOT],
        },
    ],
    weak_options: &[],
    events: &[],
    open,
    file_names: None,
    file_name: None,
};

const TARGET: &str = "target";
const BITMAP_NAME: &str = "bitmap.name";
const BITMAP_NODE: &str = "bitmap.node";
const TIMEOUT: &str = "cbw-timeout";
const CLUSTER: &str = "min-cluster-size";
const ON_ERROR: &str = "on-cbw-error";
const BREAK_WRITE: &str = "break-guest-write";
const BREAK_SNAPSHOT: &str = "break-snapshot";

/// The unit of copies, where neither the target nor the user wants a larger one.
const DEFAULT_CLUSTER: u64 = 64 << 10;
/// The most that one copy holds in memory.
const MAX_CLUSTER: u64 = 64 << 20;
/// The most copies that are made at once; two whose numbers collide wait for each other.
const LOCKS: usize = 64;
/// Clusters whose copies are noted in one piece.
const GROUP: u64 = 4096;

#[derive(Debug)]
struct CopyBeforeWrite {
    file: Arc<dyn Storage>,
    target: Arc<dyn Storage>,
    cluster: u64,
    timeout: Option<Duration>,
    breaks_snapshot: bool,
    /// A copy has failed and the write went ahead: the target is no longer a backup.
    broken: AtomicBool,
    copied: RwLock<Clusters>,
    /// The only ones to copy; None for all.
    marked: Option<Clusters>,
    /// Serializes the copies of a cluster.
    copying: [Mutex<()>; LOCKS],
}

/// Some of the clusters. It grows with those alone.
#[derive(Debug, Default)]
struct Clusters(BTreeMap<u64, [u64; (GROUP / 64) as usize]>);

impl Clusters {
    fn contains(&self, cluster: u64) -> bool {
        let at = (cluster % GROUP) as usize;
        let group = self.0.get(&(cluster / GROUP));
        group.is_some_and(|words| words[at / 64] >> (at % 64) & 1 != 0)
    }

    fn insert(&mut self, cluster: u64) {
        let at = (cluster % GROUP) as usize;
        let words = self.0.entry(cluster / GROUP).or_insert([0; 64]);
        words[at / 64] |= 1 << (at % 64);
    }
}

fn open(mut context: FilterContext<'_>) -> Result<Arc<dyn Storage>> {
    let seconds = context.options.num(TIMEOUT).unwrap_or(0);
    if u32::try_from(seconds).is_err() {
        return Err(Error::invalid(format!(
            "Parameter '{TIMEOUT}' expects uint32_t"
        )));
    }
    let breaks_snapshot = match context.options.str(ON_ERROR) {
        None | Some(BREAK_WRITE) => false,
        Some(BREAK_SNAPSHOT) => true,
        Some(other) => {
            return Err(Error::refused_value(ON_ERROR, other));
        }
    };
    let named = named_bitmap(context.options)?;
    context.require_writable()?;
    let asked = context.options.num(CLUSTER).unwrap_or(0);
    if asked != 0 && !asked.is_power_of_two() {
        return Err(Error::invalid(format!(
            "Cannot create block-copy-state: {CLUSTER} needs to be a power of 2"
        )));
    }
    if asked > MAX_CLUSTER {
        return Err(Error::invalid(format!(
            "{CLUSTER} is at most {MAX_CLUSTER} bytes"
        )));
    }
    let file = context.take(ChildSpec::FILE.name)?.storage;
    let target = context.take(TARGET)?;
    let unit = target.image.as_ref().map_or(1, |image| image.layer_unit());
    let unit = u64::from(unit).min(MAX_CLUSTER);
    let cluster = DEFAULT_CLUSTER.max(asked).max(unit).next_power_of_two();
    let marked = match named {
        Some(named) => Some(marked(&context, named, file.len()?, cluster)?),
        None => None,
    };
    Ok(Arc::new(CopyBeforeWrite {
        file,
        target: target.storage,
        cluster,
        timeout: (seconds != 0).then(|| Duration::from_secs(seconds)),
        breaks_snapshot,
        broken: AtomicBool::new(false),
        copied: RwLock::default(),
        marked,
        copying: std::array::from_fn(|_| Mutex::new(())),
    }))
}

/// The node and the name of the bitmap that the options name; None without one.
fn named_bitmap(options: &Values) -> Result<Option<(&str, &BStr)>> {
    let missing = |option| Error::missing_parameter(option);
    match (options.str(BITMAP_NODE), options.name(BITMAP_NAME)) {
        (Some(node), Some(name)) => Ok(Some((node, name))),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(missing(BITMAP_NODE)),
        (Some(_), None) => Err(missing(BITMAP_NAME)),
    }
}

/// The clusters that a bitmap marks.
fn marked(
    context: &FilterContext<'_>,
    (node, name): (&str, &BStr),
    len: u64,
    cluster: u64,
) -> Result<Clusters> {
    let image = context.nodes.image(node)?;
    let bitmaps = image.as_ref().and_then(|image| image.bitmaps());
    let Some(bitmaps) = bitmaps else {
        return Err(Error::no_such_bitmap(name));
    };
    let covered = bitmaps.covered();
    if covered != len {
        return Err(Error::invalid(format!(
            "Cannot create block-copy-state: Failed to merge bitmap '{name}' to internal copy-bitmap: Bitmaps \
             are of different sizes (destination size is {len}, source size is {covered}) and can't \
             be merged"
        )));
    }
    let mut marked = Clusters::default();
    bitmaps.visit_dirty(name, 0..len, context.control, &mut |offset, len| {
        let end = offset.saturating_add(len).div_ceil(cluster);
        (offset / cluster..end).for_each(|cluster| marked.insert(cluster));
        Ok(())
    })?;
    Ok(marked)
}

impl CopyBeforeWrite {
    /// Copies what a change of a range is about to replace.
    fn before_change(&self, offset: u64, len: u64) -> Result<()> {
        if self.broken.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.copy(offset, len) {
            Err(_) if self.breaks_snapshot => {
                self.broken.store(true, Ordering::Release);
                Ok(())
            }
            copied => copied,
        }
    }

    fn copy(&self, offset: u64, len: u64) -> Result<()> {
        let there = self.file.len()?;
        let end = offset.saturating_add(len).min(there);
        let mut bounce = IoBuf::new();
        let clusters = offset / self.cluster..end.div_ceil(self.cluster);
        for cluster in clusters.filter(|_| end > offset) {
            let marked = self.marked.as_ref();
            if marked.is_some_and(|marked| !marked.contains(cluster)) {
                continue;
            }
            if self.copied.read().contains(cluster) {
                continue;
            }
            let _alone = self.copying[(cluster % LOCKS as u64) as usize].lock();
            // Another write may have copied it in the meantime.
            if self.copied.read().contains(cluster) {
                continue;
            }
            let began = Instant::now();
            let start = cluster * self.cluster;
            let part = self.cluster.min(there.saturating_sub(start));
            let bytes = bounce.room(part as usize)?;
            self.file.read_at(bytes, start)?;
            match is_zero(bytes) {
                true => {
                    let flags = ZeroFlags::MAY_UNMAP;
                    self.target.write_zeroes(start, part, flags)?;
                }
                false => self.target.write_at(bytes, start)?,
            }
            if self.timeout.is_some_and(|limit| began.elapsed() > limit) {
                return Err(Error::os(libc::ETIMEDOUT));
            }
            self.copied.write().insert(cluster);
        }
        Ok(())
    }
}

impl Storage for CopyBeforeWrite {
    forward!(
        file: name, read_only, read_at, read_vectored_at, try_read, len, extent, limits, allocated_size
    );

    fn driver(&self) -> &'static str {
        DRIVER.name
    }

    fn identity(&self) -> Option<crate::storage::Identity> {
        self.file.identity()
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.before_change(offset, buf.len() as u64)?;
        self.file.write_at(buf, offset)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.before_change(offset, len)?;
        self.file.write_zeroes(offset, len, flags)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.before_change(offset, len)?;
        self.file.discard(offset, len)
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        let now = self.file.len()?;
        self.before_change(len, now.saturating_sub(len))?;
        self.file.set_len(len, preallocation)
    }

    fn sync(&self, durability: Durability) -> Result<()> {
        // What was replaced must last at least as long as what replaces it.
        if !self.broken.load(Ordering::Acquire) {
            self.target.sync(durability)?;
        }
        self.file.sync(durability)
    }

    fn lock(&self, request: LockRequest) -> Result<()> {
        self.file.lock(request)?;
        self.target.lock(request)
    }

    fn host(&self) -> Option<&dyn HostFile> {
        // Calls on the descriptor would change what is not copied yet.
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    const LEN: usize = 5 << 16;

    fn over(
        target: Arc<dyn Storage>,
        breaks_snapshot: bool,
    ) -> (Arc<MemoryStorage>, CopyBeforeWrite) {
        let bytes = (0..LEN).map(|at| (at >> 12) as u8 + 1).collect();
        let file = Arc::new(MemoryStorage::with_bytes("f", bytes));
        let storage = CopyBeforeWrite {
            file: file.clone(),
            target,
            cluster: DEFAULT_CLUSTER,
            timeout: None,
            breaks_snapshot,
            broken: AtomicBool::new(false),
            copied: RwLock::default(),
            marked: None,
            copying: std::array::from_fn(|_| Mutex::new(())),
        };
        (file, storage)
    }

    #[test]
    fn what_is_replaced_is_in_the_target_first_and_once() {
        let target = Arc::new(MemoryStorage::with_bytes("t", vec![0; LEN]));
        let (file, storage) = over(target.clone(), false);
        let old = file.to_vec();
        storage.write_at(&[0xee; 100], 65_500).unwrap();
        storage.write_at(&[0xdd; 100], 65_500).unwrap();
        storage
            .write_zeroes(200_000, 10, ZeroFlags::empty())
            .unwrap();
        // Memory cannot discard, but another storage might have.
        storage.discard(200_000, 10).unwrap_err();
        storage.set_len(LEN as u64 - 5, Preallocation::Off).unwrap();
        let copy = target.to_vec();
        for cluster in 0..5 {
            let range = cluster << 16..(cluster + 1) << 16;
            let expected = match cluster {
                2 => vec![0; 1 << 16],
                _ => old[range.clone()].to_vec(),
            };
            assert_eq!(copy[range], expected, "{cluster}");
        }
        assert_eq!(file.to_vec()[65_500..65_600], [0xdd; 100]);
        // Past the end there is nothing to copy.
        storage.write_at(&[1; 10], LEN as u64 + 70_000).unwrap();
        assert_eq!(target.to_vec().len(), LEN);
    }

    #[test]
    fn a_copy_that_fails_breaks_the_write_or_the_backup() {
        let refuses = || Arc::new(MemoryStorage::with_bytes("t", vec![0; LEN]).into_read_only());
        let (file, storage) = over(refuses(), false);
        let old = file.to_vec();
        storage.write_at(&[9; 10], 0).unwrap_err();
        assert_eq!(file.to_vec(), old);
        let (file, storage) = over(refuses(), true);
        storage.write_at(&[9; 10], 0).unwrap();
        assert_eq!(file.to_vec()[..10], [9; 10]);
        storage.sync(Durability::Synced).unwrap();
    }
}
