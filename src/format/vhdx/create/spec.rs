//! The specification of a new image: its options, checked, and its layout.

use bstr::ByteSlice;

use crate::error::{Error, ErrorKind, Result};
use crate::format::driver::file_preallocation;
use crate::format::{CreateParams, Sectors};
use crate::options::Values;
use crate::storage::Preallocation;

use super::super::disk::{BatEntry, Geometry, MIB, Region};
use super::super::parent;

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const MIN_BLOCK: u64 = MIB;
const MAX_BLOCK: u64 = 256 * MIB;

/// Checked options.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) geometry: Geometry,
    pub(super) size: u64,
    pub(super) physical_sector: u32,
    /// The sector sizes that were requested: logical and physical.
    asked: (Option<u32>, Option<u32>),
    pub(super) log_len: u32,
    /// All blocks are allocated.
    pub(super) fixed: bool,
    /// The entry of a block that has not been written.
    pub(super) blank: BatEntry,
    /// The name of the parent.
    pub(super) parent: Option<String>,
    /// For the blocks of a fixed disk.
    pub(super) preallocation: Preallocation,
}

impl Spec {
    pub(super) fn new(params: &CreateParams<'_>) -> Result<Self> {
        let values = params.values;
        let asked = (
            sector(values, "logical_sector_size")?,
            sector(values, "physical_sector_size")?,
        );
        let sector = asked.0.unwrap_or(512);
        let size = whole_sectors(params.size, sector)?;
        let fixed = match values.str("subformat") {
            None | Some("dynamic") => false,
            Some("fixed") => true,
            Some(other) => return Err(Error::refused_value("subformat", other)),
        };
        let parent = match params.backing {
            None => None,
            Some(_) if fixed => {
                return Err(Error::invalid("A fixed VHDX cannot have a backing file"));
            }
            Some(backing) => {
                if backing
                    .format
                    .as_ref()
                    .is_some_and(|format| *format != super::super::DRIVER.name)
                {
                    return Err(Error::unsupported(
                        "The backing file of a VHDX has to be a VHDX",
                    ));
                }
                Some(parent::to_record(backing.name.as_bstr())?)
            }
        };
        let zero = values.bool("block_state_zero").unwrap_or(true) && parent.is_none();
        Ok(Self {
            geometry: Geometry::new(
                block_size(values.num("block_size"), size)?,
                sector,
                parent.is_some(),
            )?,
            size,
            physical_sector: asked.1.unwrap_or(sector),
            asked,
            log_len: log_len(values.num("log_size"))?,
            fixed,
            blank: match zero {
                true => BatEntry::ZERO,
                false => BatEntry::NOT_PRESENT,
            },
            parent,
            preallocation: file_preallocation(values)?,
        })
    }

    /// Adopts the sector sizes of the parent, where no others were requested.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if its logical sector size is not the requested one.
    pub(super) fn inherit(&mut self, parent: Sectors) -> Result<()> {
        let (logical, physical) = self.asked;
        if let (Some(logical), Some(name)) = (logical, &self.parent) {
            let fits = parent.check_child(logical);
            fits.map_err(|reason| Error::invalid(format!("'{name}' {reason}")))?;
        }
        self.size = whole_sectors(self.size, parent.logical)?;
        self.geometry = Geometry::new(self.geometry.block_size() as u32, parent.logical, true)?;
        self.physical_sector = physical.unwrap_or(parent.physical);
        Ok(())
    }

    /// Offset of the log.
    pub(super) fn log_offset(&self) -> u64 {
        MIB
    }

    /// The region of the metadata.
    pub(super) fn metadata(&self) -> Region {
        Region {
            offset: self.log_offset() + u64::from(self.log_len),
            len: MIB as u32,
        }
    }

    /// The region of the block allocation table.
    pub(super) fn bat(&self) -> Region {
        let len = (self.geometry.entries(self.size) * 8)
            .next_multiple_of(MIB)
            .max(MIB);
        Region {
            offset: self.metadata().end(),
            len: len as u32,
        }
    }

    /// Offset of the first block.
    pub(super) fn data_start(&self) -> u64 {
        self.bat().end()
    }

    /// Length of the file with every block allocated.
    pub(super) fn end_of_all(&self) -> u64 {
        let geometry = &self.geometry;
        let blocks = geometry.blocks(self.size);
        let bitmaps = match geometry.has_parent() {
            true => blocks.div_ceil(geometry.chunk_blocks()) * MIB,
            false => 0,
        };
        self.data_start() + geometry.start(blocks) + bitmaps
    }
}

fn sector(values: &Values, name: &str) -> Result<Option<u32>> {
    match values.num(name) {
        None => Ok(None),
        Some(size @ (512 | 4096)) => Ok(Some(size as u32)),
        Some(other) => Err(Error::refused_value(name, other)),
    }
}

/// Rounds a size up to whole sectors.
fn whole_sectors(size: u64, sector: u32) -> Result<u64> {
    size.checked_next_multiple_of(u64::from(sector))
        .filter(|size| *size <= Geometry::MAX_SIZE)
        .ok_or_else(|| Error::new(ErrorKind::Limit, "Image size too large; max of 64TB"))
}

fn block_size(given: Option<u64>, size: u64) -> Result<u32> {
    let bytes = match given.unwrap_or(0) {
        0 if size > 32 * TIB => 64 * MIB,
        0 if size > 100 * GIB => 32 * MIB,
        0 if size > GIB => 16 * MIB,
        0 => 8 * MIB,
        given if !given.is_power_of_two() => {
            return Err(Error::invalid("Block size must be a power of two"));
        }
        given => given.clamp(MIN_BLOCK, MAX_BLOCK),
    };
    Ok(bytes as u32)
}

fn log_len(given: Option<u64>) -> Result<u32> {
    if given == Some(0) {
        return Err(Error::invalid("Log size must be a multiple of 1 MB"));
    }
    let bytes = given.unwrap_or(0).max(MIB);
    let whole = bytes.checked_next_multiple_of(MIB);
    let fits = whole.and_then(|bytes| u32::try_from(bytes).ok());
    fits.ok_or_else(|| Error::invalid("Log size must be smaller than 4 GB"))
}
