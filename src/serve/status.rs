//! Block status: the runs of an export in the contexts that clients may query.

use bstr::{BStr, BString};

use crate::error::{Error, Result};
use crate::format::Bitmaps;
use crate::job::JobControl;
use crate::memory;
use crate::nbd::chunk::StatusExtent;
use crate::nbd::flags::StateFlags;
use crate::nbd::meta::{self, Query};
use crate::serve::export::{Export, layers};

/// Maximum number of runs per context in one reply.
const MAX_RUNS: usize = 8 << 10;
/// Maximum number of runs looked up for one reply: adjacent runs of the same kind count as one in it.
const MAX_LOOKUPS: usize = 64 << 10;

/// What can be queried about an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    /// `base:allocation`.
    Allocation,
    /// `qemu:allocation-depth`.
    Depth,
    /// `qemu:dirty-bitmap:NAME`, the bitmap with that index.
    Bitmap(usize),
}

impl Context {
    /// All contexts of an export.
    pub(super) fn all(export: &Export) -> impl Iterator<Item = Self> {
        let options = export.options();
        let depth = options.allocation_depth.then_some(Self::Depth);
        let bitmaps = (0..options.bitmaps.len()).map(Self::Bitmap);
        std::iter::once(Self::Allocation)
            .chain(depth)
            .chain(bitmaps)
    }

    pub(super) fn name(self, export: &Export) -> BString {
        match self {
            Self::Allocation => meta::ALLOCATION.into(),
            Self::Depth => meta::ALLOCATION_DEPTH.into(),
            Self::Bitmap(index) => {
                let name = export.options().bitmaps.get(index);
                let name = name.map(|name| name.as_slice()).unwrap_or_default();
                [meta::DIRTY_BITMAP.as_bytes(), name].concat().into()
            }
        }
    }

    /// Whether a query selects this context; one for all contexts of a kind does so only when listing.
    pub(super) fn matches(self, export: &Export, query: &BStr, listing: bool) -> bool {
        match (Query::parse(query), self) {
            (Query::Allocation, Self::Allocation) | (Query::AllocationDepth, Self::Depth) => true,
            (Query::DirtyBitmap(name), Self::Bitmap(index)) => {
                let own = export.options().bitmaps.get(index);
                own.is_some_and(|own| own == name)
            }
            (Query::AnyBase, Self::Allocation)
            | (Query::AnyQemu, Self::Depth | Self::Bitmap(_))
            | (Query::AnyDirtyBitmap, Self::Bitmap(_)) => listing,
            _ => false,
        }
    }

    /// The ID that identifies the context in replies.
    pub(super) fn id(self) -> u32 {
        match self {
            Self::Allocation => 0,
            Self::Depth => 1,
            Self::Bitmap(index) => u32::try_from(index).unwrap_or(u32::MAX).saturating_add(2),
        }
    }
}

/// The runs of a range within the export, from its start and never past its end. At most `most` of them, and fewer if
/// looking up more would take long; at least one.
///
/// # Errors
/// If the first run cannot be looked up.
pub(super) fn runs(
    export: &Export,
    context: Context,
    offset: u64,
    len: u64,
    most: usize,
) -> Result<Vec<StatusExtent>> {
    let mut runs = Runs {
        found: Vec::new(),
        most: most.min(MAX_RUNS),
        lookups: 0,
    };
    match context {
        Context::Allocation | Context::Depth => by_status(export, context, offset, len, &mut runs)?,
        Context::Bitmap(index) => {
            let (bitmaps, name) = export.bitmap(index)?;
            by_bitmap(bitmaps, name, export.place(offset), len, &mut runs)?;
        }
    }
    Ok(runs.found)
}

struct Runs {
    found: Vec<StatusExtent>,
    most: usize,
    lookups: usize,
}

impl Runs {
    /// Adds a run; false if no more should be added.
    fn add(&mut self, len: u64, flags: u64) -> Result<bool> {
        self.lookups += 1;
        let full = self.found.len() == self.most;
        match self.found.last_mut() {
            Some(last) if last.flags == flags => last.len = last.len.saturating_add(len),
            _ if full => return Ok(false),
            _ => memory::push(&mut self.found, StatusExtent { len, flags })?,
        }
        Ok(self.lookups < MAX_LOOKUPS)
    }
}

/// The runs according to the tables of the image.
fn by_status(
    export: &Export,
    context: Context,
    offset: u64,
    len: u64,
    runs: &mut Runs,
) -> Result<()> {
    let mut statuses = export.image().statuses();
    let start = export.place(offset);
    let mut done = 0;
    while done < len {
        let status = match statuses.at(start.saturating_add(done), len - done) {
            Ok(status) => status,
            // The error recurs when the client queries that range itself.
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        };
        if status.len == 0 {
            return Err(Error::corrupt("The image has an empty run"));
        }
        let flags = match context {
            Context::Depth if status.present => u64::from(status.depth) + 1,
            Context::Depth => {
                // A backing file that ends earlier counts as the holder of the rest, as in QEMU.
                let layer = layers(export.image()).nth(status.depth as usize);
                match layer.and_then(|layer| layer.backing()) {
                    Some(_) => u64::from(status.depth) + 2,
                    None => 0,
                }
            }
            _ => {
                // Ranges whose state is unknown are not reported as zeroes.
                let data = status.data || status.unknown;
                let mut flags = StateFlags::empty();
                flags.set(StateFlags::HOLE, !data);
                flags.set(StateFlags::ZERO, status.zero);
                flags.bits()
            }
        };
        if !runs.add(status.len.min(len - done), flags)? {
            break;
        }
        done += status.len;
    }
    Ok(())
}

/// The runs of a bitmap; the range past the bitmap's end is clean.
fn by_bitmap(
    bitmaps: &dyn Bitmaps,
    name: &BStr,
    start: u64,
    len: u64,
    runs: &mut Runs,
) -> Result<()> {
    let end = start.saturating_add(len);
    let covered = end.min(bitmaps.covered());
    let mut at = start;
    let mut full = false;
    if start < covered {
        let control = JobControl::default();
        let enough = |runs: &mut Runs, len: u64, flags| -> Result<()> {
            if len > 0 && !runs.add(len, flags)? {
                // Only ends the iteration.
                return Err(Error::cancelled());
            }
            Ok(())
        };
        let visited = bitmaps.visit_dirty(name, start..covered, &control, &mut |dirty, len| {
            let from = dirty.clamp(at, covered);
            let to = dirty.saturating_add(len).clamp(from, covered);
            full = true;
            enough(runs, from - at, 0)?;
            enough(runs, to - from, StateFlags::DIRTY)?;
            full = false;
            at = to;
            Ok(())
        });
        match visited {
            Err(_) if full => {}
            visited => visited?,
        }
    }
    if !full && at < end {
        runs.add(end - at, 0)?;
    }
    Ok(())
}
