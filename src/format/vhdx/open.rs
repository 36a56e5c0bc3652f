//! Opening: the current header, the log, regions, metadata.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::format::OpenContext;
use crate::format::inflight::InFlight;
use crate::format::limbo::Limbo;
use crate::format::read_ahead::ReadAhead;
use crate::memory;
use crate::options::{OptionKind, OptionSpec};
use crate::policy::OpenPolicy;
use crate::storage::Storage;

use super::disk::{
    Geometry, HEADERS, Header, Items, Metadata, REGION_TABLE_LEN, REGION_TABLES, RegionTable,
    SIGNATURE,
};
use super::headers::Headers;
use super::log::{LogArea, LogWriter, Replayed, replay};
use super::pages::{Bat, BitmapPages, DirtyPages};
use super::parent;
use super::state::Vhdx;

const REPLAY_LOG: &str = "replay-log";

/// The options for opening an image.
pub(super) const OPTIONS: &[OptionSpec] = &[OptionSpec {
    name: REPLAY_LOG,
    kind: OptionKind::Bool,
    help: "Replay a log that is left over in memory, where the image is opened read-only",
    default: Some("off"),
    allowed: &[],
}];

/// An image that was opened with it does not open without it.
pub(super) const STRONG_OPTIONS: &[&str] = &[REPLAY_LOG];

/// The contents of the structures at the beginning of a file.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) header: Header,
    pub(super) regions: RegionTable,
    pub(super) metadata: Metadata,
    pub(super) geometry: Geometry,
}

/// Reads the copies of the header; those that are not valid are `None`.
pub(super) fn read_headers(storage: &dyn Storage) -> Result<[Option<Header>; 2]> {
    let mut signature = [0; SIGNATURE.len()];
    storage.read_at(&mut signature, 0)?;
    if signature != *SIGNATURE {
        return Err(Error::new(
            ErrorKind::NotAnImage,
            "Image is not in VHDX format",
        ));
    }
    let copy = |at: usize| -> Result<Option<Header>> {
        let mut bytes = [0; Header::LEN];
        storage.read_at(&mut bytes, HEADERS[at])?;
        Ok(Header::from_bytes(&bytes))
    };
    Ok([copy(0)?, copy(1)?])
}

/// Reads the copies of the region table; those that are not valid are `None`.
pub(super) fn read_region_tables(storage: &dyn Storage) -> Result<[Option<memory::IoBuf>; 2]> {
    let copy = |at: usize| -> Result<Option<memory::IoBuf>> {
        let mut bytes = memory::zeroed(REGION_TABLE_LEN)?;
        storage.read_at(&mut bytes, REGION_TABLES[at])?;
        Ok(RegionTable::is_valid(&bytes).then_some(bytes))
    };
    Ok([copy(0)?, copy(1)?])
}

impl Front {
    /// Reads what follows the header.
    pub(super) fn read(storage: &dyn Storage, header: Header) -> Result<Self> {
        let [first, second] = read_region_tables(storage)?;
        let table = first.or(second).ok_or_else(|| {
            Error::corrupt("No valid VHDX region table found").with_offset(REGION_TABLES[0])
        })?;
        let regions = RegionTable::from_bytes(&table)?;
        check_apart(&regions, &header, storage.len()?)?;
        let metadata = Metadata::read(storage, regions.metadata)?;
        let geometry = check_items(&metadata.items)?;
        let entries = geometry.entries(metadata.items.size);
        if entries > u64::from(regions.bat.len) / 8 {
            return Err(Error::corrupt(format!(
                "The VHDX block allocation table has no room for {entries} entries"
            ))
            .with_offset(regions.bat.offset));
        }
        Ok(Self {
            header,
            regions,
            metadata,
            geometry,
        })
    }

    /// Rejects what exceeds the limits of the policy.
    pub(super) fn check_policy(&self, policy: &OpenPolicy) -> Result<()> {
        let size = self.metadata.items.size;
        policy.check_virtual_size(size)?;
        policy.check_table("Block allocation table", self.geometry.entries(size) * 8)
    }
}

/// Rejects parts of the file that overlap or extend past its end.
fn check_apart(regions: &RegionTable, header: &Header, file_len: u64) -> Result<()> {
    let log = LogArea::of(header);
    let mut areas = vec![("the log", log.offset, log.offset.saturating_add(log.len))];
    areas.extend(
        regions
            .regions()
            .map(|(name, region)| (name, region.offset, region.end())),
    );
    areas.retain(|(_, start, end)| start < end);
    areas.sort_by_key(|(_, start, _)| *start);
    for pair in areas.windows(2) {
        if let [(first, _, end), (second, start, _)] = pair
            && end > start
        {
            return Err(
                Error::corrupt(format!("In the VHDX, {first} overlaps with {second}"))
                    .with_offset(*start),
            );
        }
    }
    match areas.last() {
        Some((name, start, end)) if *end > file_len => Err(Error::corrupt(format!(
            "The VHDX ends at {file_len}, before the end of {name} at {end}"
        ))
        .with_offset(*start)),
        _ => Ok(()),
    }
}

fn check_items(items: &Items) -> Result<Geometry> {
    let geometry = Geometry::new(items.block_size, items.logical_sector, items.has_parent)?;
    if items.size > Geometry::MAX_SIZE || !items.size.is_multiple_of(geometry.sector()) {
        return Err(Error::corrupt(format!(
            "Invalid VHDX disk size {}",
            items.size
        )));
    }
    Ok(geometry)
}

impl Vhdx {
    /// Opens the image; see [`OpenContext`].
    pub(super) fn open(ctx: &OpenContext<'_>) -> Result<Self> {
        let mut storage = ctx.storage.clone();
        let (which, header) = Header::current(read_headers(&*storage)?)?;
        header.check()?;
        let mut headers = Headers::new((which, header));
        let policy = ctx.opener.policy();
        let mut replayed = false;
        if headers.current.has_log() {
            let live = replay(
                &storage,
                &headers.current,
                !ctx.read_only,
                policy.max_table_bytes,
            )?;
            match live {
                Replayed::Memory(_) if !ctx.options.bool(REPLAY_LOG).unwrap_or(false) => {
                    return Err(needs_replay(&storage));
                }
                Replayed::Memory(overlay) => storage = overlay,
                Replayed::File => replayed = true,
                Replayed::Nothing => {}
            }
            if !ctx.read_only {
                headers.change(&*storage, ctx.durability, |header| header.log = Uuid::nil())?;
                storage.sync(ctx.durability)?;
            }
        }
        let front = Front::read(&*storage, headers.current.clone())?;
        front.check_policy(policy)?;
        let items = &front.metadata.items;
        let entries = front.geometry.entries(items.size);
        if let Some(locator) = &items.locator {
            parent::of_locator(locator)?;
        }
        let vhdx = Self {
            shape: front.geometry,
            has_parent: AtomicBool::new(items.has_parent),
            fixed: items.leave_allocated && !items.has_parent,
            read_only: ctx.read_only,
            changes_guest: !ctx.read_only && !ctx.metadata_only && !ctx.for_check,
            durability: ctx.durability,
            disk_id: items.disk_id,
            size: AtomicU64::new(items.size),
            file_len: AtomicU64::new(storage.len()?),
            bat: RwLock::new(Bat::new(front.regions.bat, entries)?),
            read_ahead: ReadAhead::of(&*storage),
            bitmaps: BitmapPages::new(&*storage, policy.max_cache_bytes),
            bitmap_alloc: Mutex::default(),
            dirty: DirtyPages::default(),
            space: Mutex::default(),
            log: Mutex::new(LogWriter::new(LogArea::of(&headers.current))),
            limbo: Limbo::default(),
            inflight: InFlight::default(),
            reclaiming: Mutex::default(),
            reshaping: Mutex::default(),
            prepared: Mutex::default(),
            is_prepared: AtomicBool::default(),
            lost: AtomicBool::default(),
            replayed: AtomicBool::new(replayed),
            max_table_bytes: policy.max_table_bytes,
            headers: Mutex::new(headers),
            regions: Mutex::new(front.regions),
            metadata: Mutex::new(front.metadata),
            storage,
        };
        if vhdx.changes_guest {
            if vhdx.log.lock().most_pages() == 0 {
                return Err(Error::unsupported("A VHDX without a log cannot be written"));
            }
            ctx.control.checkpoint()?;
            vhdx.load_space()?;
        }
        Ok(vhdx)
    }
}

/// The error for an image that is opened read-only although its log has to be replayed.
fn needs_replay(storage: &Arc<dyn Storage>) -> Error {
    let name = storage.name();
    Error::new(
        ErrorKind::ReadOnly,
        format!("VHDX image file '{name}' opened read-only, but contains a log that needs to be replayed"),
    )
    .with_hint(format!("A repair of '{name}' replays the log"))
}
