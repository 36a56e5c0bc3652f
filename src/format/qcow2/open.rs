//! Opening: checks the header, loads the L1 table, and for writing also what protects metadata.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::codec::Compression;
use crate::error::{Error, Result};
use crate::format::inflight::InFlight;
use crate::format::read_ahead::ReadAhead;
use crate::format::{ChildSpec, OpenContext, OpenNewContext};
use crate::job::JobControl;
use crate::memory;
use crate::storage::data_cipher::DataCipher;
use crate::storage::{Durability, Step, Storage};

use super::allocator::Alloc;
use super::bitmaps::recorder::Recorder;
use super::cache::Cache;
use super::crypt;
use super::data_file;
use super::disk::{
    Autoclear, Compatible, CryptMethod, Header, ImageHeader, Incompatible, L1Entry,
    RefcountTableEntry, read_snapshot_table,
};
use super::layout::Layout;
use super::overlap::{Area, MetaMap};
use super::partial::PartialClusters;
use super::snapshot::views::Views;
use super::state::{L1, Qcow2, units_of};
use crate::format::limbo::Limbo;
use crate::format::units::Units;

/// No table entry holds a larger offset.
const MAX_OFFSET: u64 = 1 << 55;
/// Tables are read in pieces of this many bytes.
const PIECE: u64 = 1 << 20;
/// Number of table entries between two checks for cancellation.
const CHECKED: usize = 1 << 14;

/// The parts of an open image.
struct Parts {
    storage: Arc<dyn Storage>,
    data_file: Option<Arc<dyn Storage>>,
    image: ImageHeader,
    layout: Layout,
    l1: L1,
    cipher: Option<DataCipher>,
    secret_id: Option<String>,
    read_only: bool,
    protected: bool,
    durability: Durability,
    compression_level: Option<i64>,
    max_cache_bytes: u64,
}

/// What the creator of an image knows about it.
pub(super) struct NewParts {
    pub storage: Arc<dyn Storage>,
    pub data_file: Option<Arc<dyn Storage>>,
    /// The header as written.
    pub image: ImageHeader,
    pub cipher: Option<DataCipher>,
}

impl Qcow2 {
    /// Opens the image; see [`OpenContext`].
    pub(super) fn open(ctx: &OpenContext<'_>) -> Result<Self> {
        let (image, geometry) = if ctx.for_check && !ctx.read_only {
            let image = ImageHeader::read_for_repair(&*ctx.storage)?;
            let geometry = image.header.validate_for_repair()?;
            (image, geometry)
        } else {
            let image = ImageHeader::read(&*ctx.storage)?;
            let geometry = image.header.validate(ctx.for_check)?;
            (image, geometry)
        };
        let layout = Layout(geometry);
        check_policy(&image.header, ctx)?;
        check_flags(&image.header, ctx)?;
        super::open_options::check(ctx.options, layout.cluster_size())?;
        // Refused here, before the first write.
        Compression::at_level(image.header.compression.method(), ctx.compression_level)?;
        let cipher = crypt::cipher(&image, ctx)?;
        let data_file = data_file::open(&image, ctx)?;
        let l1 = load_l1(
            &*ctx.storage,
            &image.header,
            layout,
            (ctx.read_only, ctx.for_check),
            ctx.control,
        )?;
        warn(&image, ctx)?;
        let qcow2 = Self::assembled(Parts {
            storage: ctx.storage.clone(),
            data_file,
            image,
            layout,
            l1,
            cipher,
            secret_id: ctx.options.str("encrypt.key-secret").map(str::to_owned),
            read_only: ctx.read_only,
            protected: !ctx.read_only && !ctx.metadata_only && !ctx.for_check,
            durability: ctx.durability,
            compression_level: ctx.compression_level,
            max_cache_bytes: ctx.opener.policy().max_cache_bytes,
        });
        if ctx.opener.has_child(ChildSpec::BACKING.name) {
            // The header does not have to name the layer that shows through.
            qcow2.has_backing.store(true, Ordering::Release);
        }
        if qcow2.protected {
            let dirty = qcow2.is_marked_dirty();
            qcow2.prepare_for_writing(ctx.control)?;
            if dirty {
                (ctx.warn)(
                    "the image was not closed properly; its reference counts have been rebuilt"
                        .to_owned(),
                );
            }
        }
        Ok(qcow2)
    }

    /// An image whose files have just been written, opened for writing.
    pub(super) fn of_new(new: NewParts, context: &OpenNewContext<'_>) -> Result<Self> {
        let layout = Layout(new.image.header.validate(false)?);
        let l1 = load_l1(
            &*new.storage,
            &new.image.header,
            layout,
            (false, false),
            context.control,
        )?;
        let qcow2 = Self::assembled(Parts {
            storage: new.storage,
            data_file: new.data_file,
            image: new.image,
            layout,
            l1,
            cipher: new.cipher,
            secret_id: None,
            read_only: false,
            protected: true,
            durability: context.durability,
            compression_level: None,
            max_cache_bytes: context.policy.max_cache_bytes,
        });
        qcow2.prepare_for_writing(context.control)?;
        Ok(qcow2)
    }

    fn assembled(parts: Parts) -> Self {
        let Parts {
            image,
            layout,
            durability,
            ..
        } = parts;
        let header = &image.header;
        Self {
            read_ahead: ReadAhead::of(&*parts.storage),
            storage: parts.storage,
            data_file: parts.data_file,
            layout,
            version: AtomicU32::new(header.version),
            has_data_file: image.has_data_file(),
            raw_data_file: image.has_data_file()
                && header.autoclear.contains(Autoclear::RAW_DATA_FILE),
            has_backing: AtomicBool::new(image.backing_file.is_some()),
            lazy: AtomicBool::new(
                header.compatible.contains(Compatible::LAZY_REFCOUNTS)
                    && durability != Durability::None,
            ),
            refcount_order: AtomicU32::new(header.refcount_order),
            cipher: parts.cipher,
            compression_level: parts.compression_level,
            encrypted: header.crypt != CryptMethod::None,
            secret_id: parts.secret_id,
            read_only: parts.read_only,
            protected: parts.protected,
            durability,
            size: AtomicU64::new(header.size),
            l1: RwLock::new(parts.l1),
            l1_dirty: Mutex::default(),
            l2_alloc: Mutex::default(),
            cache: Cache::new(layout.slice_bytes() as usize, parts.max_cache_bytes),
            alloc: Mutex::default(),
            meta: MetaMap::default(),
            decoded: crate::format::decoded::DecodedUnits::default(),
            limbo: Limbo::default(),
            inflight: InFlight::default(),
            reshaping: Mutex::default(),
            pass: Mutex::default(),
            reclaiming: Mutex::default(),
            recorder: Recorder::default(),
            prepared: Mutex::default(),
            is_prepared: AtomicBool::default(),
            views: Views::default(),
            _view: None,
            broken: AtomicBool::default(),
            uncounted: AtomicBool::default(),
            lost: AtomicBool::default(),
            header: Mutex::new(image),
        }
    }

    fn is_marked_dirty(&self) -> bool {
        let header = self.header.lock();
        header.header.incompatible.contains(Incompatible::DIRTY)
    }

    fn prepare_for_writing(&self, control: &Arc<JobControl>) -> Result<()> {
        let dirty = self.is_marked_dirty();
        if dirty {
            self.rebuild_refcounts(control)?;
        }
        let header = self.header.lock().header.clone();
        control.checkpoint()?;
        self.load_allocator()?;
        control.checkpoint()?;
        self.protect_metadata(&header, control)?;
        if dirty {
            self.mark_active(false, control)?;
            self.end_flags(true)?;
            self.barrier()?;
        }
        let unknown = header.autoclear - Autoclear::KNOWN;
        if !unknown.is_empty() {
            self.update_header(|h| h.autoclear &= Autoclear::KNOWN)?;
            self.barrier()?;
        }
        Ok(())
    }

    /// The refcount table as stored on disk; `validate` has limited its length.
    pub(super) fn read_refcount_table(&self) -> Result<Vec<u64>> {
        let header = self.header.lock().header.clone();
        let len = u64::from(header.reftable_clusters) * self.layout.cluster_size();
        let mut table = Vec::new();
        memory::reserve(&mut table, (len / 8) as usize)?;
        self.announce(Step::ReftableLoad);
        read_table(&*self.storage, header.reftable_offset, len, |entry| {
            table.push(entry);
        })?;
        Ok(table)
    }

    /// Loads what allocation and table updates need.
    pub(super) fn load_allocator(&self) -> Result<()> {
        let header = self.header.lock().header.clone();
        let table = self.read_refcount_table()?;
        let table_len = table.len();
        self.l1_dirty.lock().make_room(self.l1.read().units())?;
        *self.alloc.lock() = Alloc {
            table,
            table_offset: header.reftable_offset,
            table_clusters: u64::from(header.reftable_clusters),
            table_dirty: Units::with_room(units_of(table_len))?,
            cursor: 0,
            high_water: self.storage.len()?,
            partial: PartialClusters::new(self.layout.cluster_bits()),
        };
        Ok(())
    }

    fn clusters(&self, offset: u64, len: u64) -> Range<u64> {
        let first = offset >> self.layout.cluster_bits();
        let end = offset
            .saturating_add(len)
            .div_ceil(self.layout.cluster_size());
        first..end.max(first)
    }

    /// Records where metadata is, and refuses tables that are shared or misplaced.
    fn protect_metadata(&self, header: &Header, control: &JobControl) -> Result<()> {
        self.meta.set_area(Area::Header, 0..1);
        let l1_len = u64::from(header.l1_entries) * 8;
        self.meta
            .set_area(Area::L1, self.clusters(header.l1_offset, l1_len));
        let reftable_len = u64::from(header.reftable_clusters) * self.layout.cluster_size();
        self.meta.set_area(
            Area::RefcountTable,
            self.clusters(header.reftable_offset, reftable_len),
        );
        if header.snapshots > 0 {
            let (snapshots, len) = read_snapshot_table(&*self.storage, header)?;
            self.meta.set_area(
                Area::SnapshotTable,
                self.clusters(header.snapshots_offset, len),
            );
            for snapshot in snapshots {
                let len = u64::from(snapshot.l1_entries) * 8;
                self.meta
                    .set_area(Area::InactiveL1, self.clusters(snapshot.l1_offset, len));
            }
        }
        if let Some(crypto) = self.header.lock().crypto() {
            self.meta.set_area(
                Area::EncryptionHeader,
                self.clusters(crypto.offset, crypto.len),
            );
        }
        if let Some(bitmaps) = self.header.lock().bitmaps() {
            self.meta.set_area(
                Area::BitmapDirectory,
                self.clusters(bitmaps.directory_offset, bitmaps.directory_size),
            );
        }
        control.checkpoint()?;
        self.protect_bitmaps()?;
        self.protect_tables(control)
    }

    fn protect_tables(&self, control: &JobControl) -> Result<()> {
        let file_len = self.storage.len()?;
        let blocks = memory::collect(self.alloc.lock().table.iter().copied())?;
        let loaded = |entry: &AtomicU64| entry.load(std::sync::atomic::Ordering::Relaxed);
        let l1 = self.l1.read();
        let words = l1.entries.iter().map(loaded).chain(blocks.iter().copied());
        self.meta
            .reserve_tables(words.filter(|word| *word != 0).count())?;
        for (index, entry) in blocks.into_iter().enumerate() {
            if index % CHECKED == 0 {
                control.checkpoint()?;
            }
            let offset = RefcountTableEntry(entry).offset();
            self.protect_table(offset, file_len, "refcount block", index)?;
        }
        for (index, entry) in l1.entries.iter().enumerate() {
            if index % CHECKED == 0 {
                control.checkpoint()?;
            }
            let entry = L1Entry(loaded(entry));
            self.protect_table(entry.offset(), file_len, "L2 table", index)?;
        }
        Ok(())
    }

    fn protect_table(&self, offset: u64, file_len: u64, what: &str, index: usize) -> Result<()> {
        if offset == 0 || self.layout.in_cluster(offset) != 0 {
            // An unaligned table is reported where it is used.
            return Ok(());
        }
        let cluster = offset >> self.layout.cluster_bits();
        let problem = match self.meta.overlap(cluster..cluster + 1) {
            Some(other) => format!("overlaps with {other}"),
            None if offset >= file_len => "lies past the end of the file".to_owned(),
            None => {
                self.meta.add_table(cluster);
                return Ok(());
            }
        };
        Err(Error::corrupt(format!(
            "qcow2: {what} {index} at offset {offset:#x} {problem}; the image cannot be opened read/write"
        ))
        .with_offset(offset))
    }

    /// Refcounts cannot be trusted after a crash with the dirty bit set: rebuilds them.
    fn rebuild_refcounts(&self, control: &Arc<JobControl>) -> Result<()> {
        let mut image = self.header.lock();
        super::check::rebuild_refcounts(&*self.storage, &mut image, self.durability, control)
    }
}

fn check_policy(header: &Header, ctx: &OpenContext<'_>) -> Result<()> {
    let policy = ctx.opener.policy();
    policy.check_virtual_size(header.size)?;
    policy.check_decompressed(1 << header.cluster_bits)?;
    policy.check_table("Active L1 table", u64::from(header.l1_entries) * 8)?;
    // An unusable table is not read.
    if header.validate_reftable().is_ok() {
        let refcounts = u64::from(header.reftable_clusters) << header.cluster_bits;
        policy.check_table("Reference count table", refcounts)?;
    }
    Ok(())
}

fn check_flags(header: &Header, ctx: &OpenContext<'_>) -> Result<()> {
    let corrupt = header.incompatible.contains(Incompatible::CORRUPT);
    if corrupt && !ctx.read_only && !ctx.for_check {
        return Err(Error::corrupt(
            "qcow2: Image is corrupt; cannot be opened read/write",
        ));
    }
    Ok(())
}

/// Warns about problems of an image that can be opened all the same.
fn warn(image: &ImageHeader, ctx: &OpenContext<'_>) -> Result<()> {
    let header = &image.header;
    if header.version >= 3 && image.bitmaps().is_some() && image.consistent_bitmaps().is_none() {
        (ctx.warn)(
            "a program lacking bitmap support modified this file, so all bitmaps are now \
             considered inconsistent\n\
             Some clusters may be leaked; a repair of the image frees them"
                .to_owned(),
        );
    }
    // Opening it for writing fails anyway, and `check` has its own message.
    let looks = ctx.metadata_only && ctx.read_only && !ctx.for_check;
    if looks && header.snapshots > 0 && header.snapshots_offset >= ctx.storage.len()? {
        (ctx.warn)(format!(
            "the snapshot table at offset {:#x} lies past the end of '{}': the image can be read, but \
             not changed before it is repaired",
            header.snapshots_offset,
            ctx.storage.name()
        ));
    }
    Ok(())
}

fn load_l1(
    storage: &dyn Storage,
    header: &Header,
    layout: Layout,
    (read_only, for_check): (bool, bool),
    control: &JobControl,
) -> Result<L1> {
    let len = u64::from(header.l1_entries) * 8;
    let file_len = storage.len()?.next_multiple_of(layout.cluster_size());
    // `validate` has limited both numbers.
    let end = header.l1_offset.saturating_add(len);
    let cut = end > file_len && !for_check;
    if cut && (!read_only || end > MAX_OFFSET) {
        return Err(Error::corrupt("Active L1 table passes the end of the file").with_offset(40));
    }
    let mut entries = Vec::new();
    memory::reserve(&mut entries, (len / 8) as usize)?;
    let mut place = header.l1_offset;
    read_table(storage, header.l1_offset, len, |entry| {
        // A missing table is not a table of zeroes: whatever needs it fails this way.
        let missing = cut && place >= file_len;
        entries.push(AtomicU64::new(if missing {
            L1Entry::new(place - layout.in_cluster(place), false).0
        } else {
            entry
        }));
        place += 8;
    })?;
    control.checkpoint()?;
    Ok(L1 {
        offset: header.l1_offset,
        entries: entries.into_boxed_slice(),
    })
}

/// Reads a table of 64-bit entries in pieces; entries past the end of the file are 0.
pub(super) fn read_table(
    storage: &dyn Storage,
    offset: u64,
    len: u64,
    mut entry: impl FnMut(u64),
) -> Result<()> {
    let mut at = 0;
    let mut piece = memory::zeroed(len.min(PIECE) as usize)?;
    while at < len {
        let want = (len - at).min(PIECE) as usize;
        let Some(bytes) = piece.get_mut(..want) else {
            break;
        };
        storage.read_at(bytes, offset + at)?;
        for word in bytes.chunks_exact(8) {
            entry(word.iter().fold(0, |v, b| (v << 8) | u64::from(*b)));
        }
        at += want as u64;
    }
    Ok(())
}
