//! Block status: what guest ranges read as and where they are stored, in QEMU's terms. It is used by `map`, `compare`,
//! `measure`, `commit`, the NBD server, images as files and the C call; code that only needs to know whether a run
//! reads as zeroes uses [`ChainExtent::reads_as`].

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
    /// They are contained in a layer.
    Data,
    /// The backing file that may contain them is not open: reading them is refused.
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
    /// The layer that contains the run: 0 is the image itself, 1 its backing file, and so on.
    pub depth: u32,
    /// A layer contains the run.
    pub present: bool,
    /// It reads as zeroes.
    pub zero: bool,
    /// It has data in the host file.
    pub data: bool,
    /// What it reads as is unknown: the backing file that may contain it is not open.
    pub unknown: bool,
    /// The data is compressed.
    pub compressed: bool,
    /// Its offset in the host file of its layer.
    pub offset: Option<u64>,
    /// The host file, if the layer has several; the image's own if there is no offset.
    pub slot: StorageSlot,
}

impl Status {
    /// Whether the flags agree, regardless of the offset.
    pub fn same_flags(&self, other: &Self) -> bool {
        self.flags() == other.flags() && self.offset.is_some() == other.offset.is_some()
    }

    /// Whether `next`, which begins where this run ends, continues it.
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

/// Whether holes of an image's file count as zeroes; determined on first use.
#[derive(Debug, Default)]
pub(super) struct Sparse(OnceLock<bool>);

/// Looks up the status of one run after another; changes made to the image in the meantime may go unnoticed.
#[derive(Debug)]
pub struct Statuses<'a> {
    image: &'a Image,
    /// The last run that was looked up: holes of the host file may split it into many.
    run: Option<ChainExtent<'a>>,
    /// The state for the image that shows through a raw layer at that depth.
    node: Option<(u32, Box<Statuses<'a>>)>,
}

impl<'a> Statuses<'a> {
    /// The status of a run at `offset`, limited to `len` bytes. The next run may continue it.
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
                // Where a write would go; nothing visible to the guest is stored there.
                status.offset = host_offset.filter(|_| status.zero);
            }
            ExtentKind::Encoded { compressed } => status.compressed = compressed,
        }
        // QEMU's tools treat formats that they can only read as opaque data.
        if !found.layer.driver.of_images.contains(Features::WRITE) {
            (status.present, status.zero, status.data) = (true, false, true);
            (status.compressed, status.offset) = (false, None);
        }
        if !found.layer.has_places() {
            status.offset = None;
        }
        Ok(status)
    }

    /// As [`Statuses::at`], up to the end of the run.
    fn whole(&mut self, offset: u64, len: u64, control: &JobControl) -> Result<Status> {
        control.check()?;
        let mut run = self.at(offset, len)?;
        while run.len < len {
            control.check()?;
            match self.at(offset.saturating_add(run.len), len - run.len) {
                Ok(next) if run.continues_with(&next) => {
                    run.len = run.len.saturating_add(next.len);
                }
                // An error will be reported when this range itself is requested.
                _ => break,
            }
        }
        Ok(run)
    }

    /// The run at `offset`, limited to `len` bytes; uses the rest of the last run if that covers it.
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

    /// The status of the image that shows through a layer.
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
            // Data in a lower layer has no offset in the file of this one.
            offset: inner.offset.filter(|_| inner.depth == 0),
            ..inner
        }))
    }
}

impl Image {
    /// The longest run of one status that starts at `offset`, limited to `len` bytes.
    ///
    /// # Errors
    /// As [`Image::map`].
    pub fn status(&self, offset: u64, len: u64) -> Result<Status> {
        self.status_under(&JobControl::default(), offset, len)
    }

    /// As [`Image::status`]; `control` can stop a long walk through tables.
    ///
    /// # Errors
    /// As [`Image::map`], and [`crate::ErrorKind::Cancelled`].
    pub fn status_under(&self, control: &JobControl, offset: u64, len: u64) -> Result<Status> {
        self.statuses().whole(offset, len, control)
    }

    /// For looking up many runs, one after another.
    pub fn statuses(&self) -> Statuses<'_> {
        Statuses {
            image: self,
            run: None,
            node: None,
        }
    }

    /// Whether the file has so much less space allocated than the tables say that looking for holes is worthwhile: an
    /// image with preallocated metadata. The threshold is the one visible in QEMU's output. If the counts cannot be
    /// read, nothing is known.
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

/// Marks data that the server reports as neither allocated nor zero: this is how a bitmap shows in a raw disk. It can
/// be read nevertheless.
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
    // An image opened only for its metadata has no data file.
    if let Ok(file) = found.layer.format.storage(slot) {
        let host = file.extent(host_offset, status.len)?;
        status.len = status.len.min(host.len);
        status.zero = host.zero;
    }
    Ok(())
}
