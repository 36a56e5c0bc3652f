//! Block status: what guest ranges read as and where they stand, in QEMU's terms. `map`, `compare`, `measure`,
//! `commit`, the NBD server, images as files and the C call all ask here; who only wants to know whether a run
//! reads as zeroes asks [`ChainExtent::reads_as`].

use std::sync::OnceLock;

use crate::error::Result;
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::format::Features;
use crate::image::{ChainExtent, Image};
use crate::job::JobControl;

/// What is known of the bytes of a run before they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadsAs {
    /// They are zero.
    Zero,
    /// A layer holds them.
    Data,
    /// The backing file that may hold them is not open: reading them is refused.
    Unknown,
}

impl ChainExtent<'_> {
    /// What the run reads as, as far as that is known without reading it.
    pub fn reads_as(&self) -> ReadsAs {
        match self.extent.kind {
            ExtentKind::Data { .. } | ExtentKind::Encoded { .. } => ReadsAs::Data,
            ExtentKind::Unallocated { .. } if self.layer.backing_missing() => ReadsAs::Unknown,
            ExtentKind::Zero { .. } | ExtentKind::Unallocated { .. } => ReadsAs::Zero,
        }
    }
}

/// A run of guest bytes with QEMU's flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Length in bytes; never 0.
    pub len: u64,
    /// The layer that decides: 0 is the image itself, 1 its backing file, and so on.
    pub depth: u32,
    /// A layer holds the run.
    pub present: bool,
    /// It reads as zeroes.
    pub zero: bool,
    /// It has data in the host file.
    pub data: bool,
    /// What it reads as is unknown: the backing file that may hold it is not open.
    pub unknown: bool,
    /// The data is compressed.
    pub compressed: bool,
    /// Where in the host file of its layer it stands.
    pub offset: Option<u64>,
    /// The host file, where the layer has several; the image's own where there is no place.
    pub slot: StorageSlot,
}

impl Status {
    /// Whether the flags, not the place, agree.
    pub fn same_flags(&self, other: &Self) -> bool {
        self.flags() == other.flags() && self.offset.is_some() == other.offset.is_some()
    }

    /// Whether `next`, which begins where this run ends, is more of the same.
    pub fn continues_with(&self, next: &Self) -> bool {
        let follows = match (self.offset, next.offset) {
            (None, None) => true,
            (Some(a), Some(b)) => a.checked_add(self.len) == Some(b) && self.slot == next.slot,
            _ => false,
        };
        follows && self.depth == next.depth && self.flags() == next.flags()
    }

    fn flags(&self) -> [bool; 5] {
        [
            self.present,
            self.zero,
            self.data,
            self.unknown,
            self.compressed,
        ]
    }
}

/// Whether the holes of an image's file count as zeroes; found out when it is first asked for.
#[derive(Debug, Default)]
pub(super) struct Sparse(OnceLock<bool>);

/// Looks up the status of one run after the other; how anything else changes the image meanwhile may
/// go unseen.
#[derive(Debug)]
pub struct Statuses<'a> {
    image: &'a Image,
    /// The run that was looked up last: holes of the host file cut it into many.
    run: Option<ChainExtent<'a>>,
    /// The same for the image below a raw layer of that depth, which shows through.
    node: Option<(u32, Box<Statuses<'a>>)>,
}

impl<'a> Statuses<'a> {
    /// The status of a run at `offset`, at most `len` bytes. What follows may be more of the same.
    ///
    /// # Errors
    /// As [`Image::map`].
    pub fn at(&mut self, offset: u64, len: u64) -> Result<Status> {
        let found = self.run_at(offset, len)?;
        if let Some(status) = self.through(&found)? {
            return Ok(status);
        }
        let reads = found.reads_as();
        let mut status = Status {
            len: found.extent.len,
            depth: found.depth,
            present: true,
            zero: reads == ReadsAs::Zero,
            data: reads == ReadsAs::Data,
            unknown: reads == ReadsAs::Unknown,
            compressed: false,
            offset: None,
            slot: StorageSlot::MAIN,
        };
        match found.extent.kind {
            ExtentKind::Data { slot, host_offset } => {
                status.offset = Some(host_offset);
                status.slot = slot;
                look_into_host(&found, slot, host_offset, &mut status)?;
                look_for_nothing(&found, slot, host_offset, &mut status)?;
            }
            ExtentKind::Zero { slot, host_offset } => {
                status.offset = host_offset;
                status.slot = slot;
                status.data = host_offset.is_some() && found.layer.format.has_fixed_places();
            }
            ExtentKind::Unallocated { host_offset } => {
                status.present = false;
                // Where a write would go; nothing of what the guest may see stands there.
                status.offset = host_offset.filter(|_| status.zero);
            }
            ExtentKind::Encoded { compressed } => status.compressed = compressed,
        }
        // QEMU's tools know nothing of what they only read but its bytes.
        if !found.layer.driver.of_images.contains(Features::WRITE) {
            (status.present, status.zero, status.data) = (true, false, true);
            (status.compressed, status.offset) = (false, None);
        }
        if !found.layer.has_places() {
            status.offset = None;
        }
        Ok(status)
    }

    /// As [`Statuses::at`], to the end of the run.
    fn whole(&mut self, offset: u64, len: u64, control: &JobControl) -> Result<Status> {
        control.check()?;
        let mut run = self.at(offset, len)?;
        while run.len < len {
            control.check()?;
            match self.at(offset.saturating_add(run.len), len - run.len) {
                Ok(next) if run.continues_with(&next) => {
                    run.len = run.len.saturating_add(next.len);
                }
                // What cannot be looked up is met when it is asked for itself.
                _ => break,
            }
        }
        Ok(run)
    }

    /// The run at `offset`, at most `len` bytes, from what is left of the last one if it covers that.
    fn run_at(&mut self, offset: u64, len: u64) -> Result<ChainExtent<'a>> {
        let run = match self.run {
            Some(run) if (run.offset..run.offset + run.extent.len).contains(&offset) => run,
            _ => *self.run.insert(self.image.map(offset, len)?),
        };
        let skip = offset - run.offset;
        Ok(ChainExtent {
            offset,
            extent: Extent {
                len: len.min(run.extent.len - skip),
                kind: run.extent.kind.advanced(skip),
            },
            ..run
        })
    }

    /// The status of the image below a layer that it shows through.
    fn through(&mut self, found: &ChainExtent<'a>) -> Result<Option<Status>> {
        let Some(image) = found.layer.shown_through() else {
            return Ok(None);
        };
        let (ExtentKind::Data { host_offset, .. }
        | ExtentKind::Zero {
            host_offset: Some(host_offset),
            ..
        }) = found.extent.kind
        else {
            return Ok(None);
        };
        let left = image.len().saturating_sub(host_offset);
        if left == 0 {
            return Ok(None);
        }
        let node = match &mut self.node {
            Some((depth, node)) if *depth == found.depth => node,
            node => &mut node.insert((found.depth, Box::new(image.statuses()))).1,
        };
        let inner = node.at(host_offset, found.extent.len.min(left))?;
        if found.layer.is_filter() {
            return Ok(Some(Status {
                depth: found.depth.saturating_add(inner.depth),
                ..inner
            }));
        }
        Ok(Some(Status {
            depth: found.depth,
            // What a layer further down holds has no place in the file of this one.
            offset: inner.offset.filter(|_| inner.depth == 0),
            ..inner
        }))
    }
}

impl Image {
    /// The longest run of one status that starts at `offset`, at most `len` bytes.
    ///
    /// # Errors
    /// As [`Image::map`].
    pub fn status(&self, offset: u64, len: u64) -> Result<Status> {
        self.status_under(&JobControl::default(), offset, len)
    }

    /// As [`Image::status`]; `control` ends the look at tables without end.
    ///
    /// # Errors
    /// As [`Image::map`], and [`crate::ErrorKind::Cancelled`].
    pub fn status_under(&self, control: &JobControl, offset: u64, len: u64) -> Result<Status> {
        self.statuses().whole(offset, len, control)
    }

    /// For many runs, one after the other.
    pub fn statuses(&self) -> Statuses<'_> {
        Statuses {
            image: self,
            run: None,
            node: None,
        }
    }

    /// Whether the file holds so much less than the tables say that looking for its holes pays: an
    /// image with preallocated metadata. The bound is the one that QEMU's output shows. Counts that
    /// cannot be read say nothing of where the data is.
    fn is_sparse(&self) -> bool {
        *self.sparse.0.get_or_init(|| {
            let (Some(cluster), Some(allocated)) =
                (self.format.cluster_size(), self.storage.allocated_size())
            else {
                return false;
            };
            let cluster = u64::from(cluster.max(1));
            let present = allocated / cluster;
            let enough = (present.saturating_mul(10) / 9)
                .max(present.saturating_add(2))
                .saturating_mul(cluster);
            let counted = self.format.space_count();
            counted.is_some_and(|space| {
                let used = space.host_bytes_in_use(enough);
                used.is_ok_and(|used| used >= enough)
            })
        })
    }
}

/// Marks data of which its server says that it is neither there nor zero: what a plain disk shows of a
/// bitmap. It is read all the same.
fn look_for_nothing(
    found: &ChainExtent<'_>,
    slot: StorageSlot,
    host_offset: u64,
    status: &mut Status,
) -> Result<()> {
    if !found.layer.driver.is_transparent || status.zero {
        return Ok(());
    }
    let Ok(file) = found.layer.format.storage(slot) else {
        return Ok(());
    };
    if file.host().is_some() || file.step_watcher().is_some() {
        return Ok(());
    }
    let host = file.extent(host_offset, status.len)?;
    if !host.zero {
        status.len = status.len.min(host.len);
        if !host.allocated {
            (status.present, status.data, status.offset) = (false, false, None);
        }
    }
    Ok(())
}

/// Marks data that lies in a hole of the host file as zero.
fn look_into_host(
    found: &ChainExtent<'_>,
    slot: StorageSlot,
    host_offset: u64,
    status: &mut Status,
) -> Result<()> {
    if !found.layer.is_sparse() {
        return Ok(());
    }
    // An image opened for its metadata alone has no data file.
    if let Ok(file) = found.layer.format.storage(slot) {
        let host = file.extent(host_offset, status.len)?;
        status.len = status.len.min(host.len);
        status.zero = host.zero;
    }
    Ok(())
}
