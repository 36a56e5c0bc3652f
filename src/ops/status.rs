//! The block status of guest ranges in QEMU's terms, for `map` and strict `compare`.

use crate::error::Result;
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::format::raw;
use crate::image::{ChainExtent, Image};

/// A run of guest bytes with QEMU's flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// Length in bytes; never 0.
    pub len: u64,
    /// The layer that decides.
    pub depth: u32,
    /// Its storage.
    pub slot: StorageSlot,
    /// A layer holds the run.
    pub present: bool,
    /// It reads as zeroes.
    pub zero: bool,
    /// It has data in the host file.
    pub data: bool,
    /// The data is compressed.
    pub compressed: bool,
    /// Where in the storage it stands.
    pub offset: Option<u64>,
}

impl Status {
    /// Whether the flags, not the place, agree.
    pub fn same_flags(&self, other: &Self) -> bool {
        (self.present, self.zero, self.data, self.compressed)
            == (other.present, other.zero, other.data, other.compressed)
            && self.offset.is_some() == other.offset.is_some()
    }
}

/// Looks up the status of runs of one image; remembers per layer whether holes of the host file count.
pub(crate) struct Statuses<'a> {
    image: &'a Image,
    sparse: Vec<bool>,
    /// Of the layers that are raw over another image, the status of that image: it shows through.
    nodes: Vec<Option<Statuses<'a>>>,
    /// The run that was looked up last: holes of the host file cut it into many.
    run: Option<ChainExtent<'a>>,
}

impl<'a> Statuses<'a> {
    /// For `image` and its chain.
    pub fn new(image: &'a Image) -> Result<Self> {
        let mut sparse = Vec::new();
        let mut nodes = Vec::new();
        let mut layer = Some(image);
        while let Some(current) = layer {
            sparse.push(host_is_sparse(current)?);
            let node = current
                .file_image()
                .filter(|_| current.driver().name == raw::DRIVER.name);
            nodes.push(node.map(Self::new).transpose()?);
            layer = current.backing().map(AsRef::as_ref);
        }
        Ok(Self {
            image,
            sparse,
            nodes,
            run: None,
        })
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

    /// The status of the run at `offset`, at most `len` bytes.
    pub fn at(&mut self, offset: u64, len: u64) -> Result<Status> {
        let found = self.run_at(offset, len)?;
        if let Some(status) = self.through(&found)? {
            return Ok(status);
        }
        let mut status = Status {
            len: found.extent.len,
            depth: found.depth,
            slot: StorageSlot::MAIN,
            present: true,
            zero: false,
            data: false,
            compressed: false,
            offset: None,
        };
        match found.extent.kind {
            ExtentKind::Data { slot, host_offset } => {
                status.slot = slot;
                status.offset = Some(host_offset);
                status.data = true;
                self.look_into_host(&found, slot, host_offset, &mut status)?;
            }
            ExtentKind::Zero { host_offset } => {
                status.zero = true;
                status.offset = host_offset;
            }
            ExtentKind::Unallocated { host_offset } => {
                status.present = false;
                status.zero = true;
                status.offset = host_offset;
            }
            ExtentKind::Encoded { compressed } => {
                status.data = true;
                status.compressed = compressed;
            }
        }
        Ok(status)
    }

    /// The status of the image below a raw layer that decides.
    fn through(&mut self, found: &ChainExtent<'_>) -> Result<Option<Status>> {
        let depth = usize::try_from(found.depth).unwrap_or(usize::MAX);
        let Some(Some(node)) = self.nodes.get_mut(depth) else {
            return Ok(None);
        };
        let (ExtentKind::Data { host_offset, .. }
        | ExtentKind::Zero {
            host_offset: Some(host_offset),
        }) = found.extent.kind
        else {
            return Ok(None);
        };
        let left = node.image.len().saturating_sub(host_offset);
        if left == 0 {
            return Ok(None);
        }
        let inner = node.at(host_offset, found.extent.len.min(left))?;
        Ok(Some(Status {
            depth: found.depth,
            slot: StorageSlot::MAIN,
            ..inner
        }))
    }

    /// Marks data that lies in a hole of the host file as zero.
    fn look_into_host(
        &self,
        found: &ChainExtent<'_>,
        slot: StorageSlot,
        host_offset: u64,
        status: &mut Status,
    ) -> Result<()> {
        let depth = usize::try_from(found.depth).unwrap_or(usize::MAX);
        if self.sparse.get(depth) == Some(&true) {
            let file = found.layer.format().storage(slot)?;
            let host = file.extent(host_offset, status.len)?;
            status.len = status.len.min(host.len);
            status.zero = host.zero;
        }
        Ok(())
    }
}

/// Whether the file holds so much less than the image's tables say that looking for its holes
/// pays: an image with preallocated metadata. The bound is the one that QEMU's output shows.
fn host_is_sparse(layer: &Image) -> Result<bool> {
    let (Some(cluster), Some(allocated)) = (
        layer.format().cluster_size(),
        layer.storage().allocated_size(),
    ) else {
        return Ok(false);
    };
    let cluster = u64::from(cluster.max(1));
    let Some(used) = layer.format().host_bytes_in_use()? else {
        return Ok(false);
    };
    let present = allocated / cluster;
    Ok(used / cluster >= (present.saturating_mul(10) / 9).max(present.saturating_add(2)))
}
