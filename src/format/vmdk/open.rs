//! Opening: the descriptor, then every extent that it names.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bstr::ByteSlice;
use parking_lot::Mutex;

use crate::codec::{Compression, Method};
use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageSlot;
use crate::format::OpenContext;
use crate::format::decoded::DecodedUnits;
use crate::format::extents::open_extent;
use crate::format::inflight::InFlight;
use crate::newest::Newest;
use crate::printable::printable;
use crate::size::SECTOR;
use crate::storage::Storage;

use super::disk::create_type::check_type;
use super::disk::se_sparse::{self, ConstHeader};
use super::disk::{Access, CowdHeader, ExtentLine, ExtentType, SparseHeader, cowd_header};
use super::parts::{Part, PartKind};
use super::placed_descriptor::PlacedDescriptor;
use super::source::{Source, hosted};
use super::sparse::{Sparse, SparseInput};
use super::state::Vmdk;
use crate::format::table_cache::Cache;

/// Maximum number of extents with a file, because slots are numbered.
pub(super) const MAX_EXTENTS: usize = u16::MAX as usize - 1;

/// Opens the image; see [`OpenContext`].
///
/// # Errors
/// As [`Source::read`]; if an extent cannot be opened.
pub(super) fn open(ctx: &OpenContext<'_>) -> Result<Vmdk> {
    let policy = ctx.opener.policy();
    let cache = Arc::new(Cache::new(policy.max_cache_bytes));
    let source = Source::read(&*ctx.storage, policy)?;
    let mut opening = Opening {
        ctx,
        cache,
        parts: Vec::new(),
        empty: None,
        len: 0,
        files: 0,
        table_bytes: 0,
    };
    let stored = match source {
        Source::Hosted {
            header,
            descriptor,
            offset,
        } => {
            check_type(descriptor.create_type.as_bstr(), true)?;
            let room = Some(header.descriptor_len.saturating_mul(SECTOR));
            opening.own(header)?;
            PlacedDescriptor {
                file: ctx.storage.clone(),
                descriptor,
                offset,
                room,
                has_begun: false,
            }
        }
        Source::Text(descriptor) => {
            check_type(descriptor.create_type.as_bstr(), false)?;
            for (n, line) in descriptor.extents.iter().enumerate() {
                ctx.control.checkpoint()?;
                opening.extent(n, line)?;
            }
            if descriptor.extents.is_empty() {
                return Err(Error::corrupt("The descriptor names no extents"));
            }
            PlacedDescriptor {
                file: ctx.storage.clone(),
                descriptor,
                offset: 0,
                room: None,
                has_begun: false,
            }
        }
    };
    opening.keep_one()?;
    if !ctx.read_only && stored.descriptor.change_tracking.is_some() {
        (ctx.warn)(
            "the image has a file that tracks its changes, and changes made now will be missing there"
                .to_owned(),
        );
    }
    let vmdk = Vmdk {
        storage: ctx.storage.clone(),
        len: AtomicU64::new(opening.len),
        parts: Newest::new(opening.parts),
        slots: Mutex::new(opening.files),
        cache: opening.cache,
        stored: Mutex::new(stored),
        decoded: DecodedUnits::default(),
        read_only: ctx.read_only,
        durability: ctx.durability,
        compression: Compression::at_level(Method::Zlib, ctx.compression_level)?,
        is_changed: AtomicBool::default(),
        flushing: Mutex::default(),
        inflight: InFlight::default(),
    };
    if !ctx.read_only && !ctx.for_check && vmdk.is_unclean() {
        (ctx.warn)("the image was not closed properly; check it".to_owned());
    }
    Ok(vmdk)
}

struct Opening<'a> {
    ctx: &'a OpenContext<'a>,
    cache: Arc<Cache>,
    parts: Vec<Arc<Part>>,
    /// The last extent of size 0.
    empty: Option<Part>,
    /// Number of guest bytes so far.
    len: u64,
    /// Number of files so far, besides the image's own.
    files: u16,
    table_bytes: u64,
}

impl Opening<'_> {
    /// Adds the image's own file as the only extent.
    fn own(&mut self, header: SparseHeader) -> Result<()> {
        self.check_hosted(&header)?;
        self.count_tables(header.directory_entries().saturating_mul(8))?;
        let storage = &self.ctx.storage;
        let place = SparseInput {
            id: 0,
            slot: StorageSlot::MAIN,
            storage,
            cache: &self.cache,
            file_len: storage.len()?,
        };
        let sparse = Sparse::hosted(&place, &header)?;
        let kind = PartKind::Sparse(Box::new(sparse));
        self.push(None, 0, Access::ReadWrite, kind)
    }

    /// Rejects what cannot be opened in this way.
    fn check_hosted(&self, header: &SparseHeader) -> Result<()> {
        if !self.ctx.read_only && header.version >= 3 && header.compression == 0 {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                "VMDK version 3 must be read only",
            ));
        }
        if header.compression != 0 {
            self.ctx
                .opener
                .policy()
                .check_decompressed(header.grain_bytes())?;
        }
        Ok(())
    }

    /// Limits the size of all directories together.
    fn count_tables(&mut self, bytes: u64) -> Result<()> {
        self.table_bytes = self.table_bytes.saturating_add(bytes);
        let policy = self.ctx.opener.policy();
        policy.check_table("Grain directory", self.table_bytes)
    }

    fn push(
        &mut self,
        word: Option<ExtentType>,
        line: usize,
        access: Access,
        kind: PartKind,
    ) -> Result<()> {
        let part = Part {
            start: self.len,
            word,
            line,
            read_only: access != Access::ReadWrite,
            kind,
        };
        let end = self.len.checked_add(part.len());
        let end = end.filter(|end| *end <= i64::MAX as u64);
        self.len = end.ok_or_else(|| Error::corrupt("The extents are too large together"))?;
        match part.len() {
            0 => self.empty = Some(part),
            _ => crate::memory::push(&mut self.parts, crate::memory::shared(part)?)?,
        }
        Ok(())
    }

    /// A disk of size 0 has an extent too, by which it can grow.
    fn keep_one(&mut self) -> Result<()> {
        match self.empty.take().filter(|_| self.parts.is_empty()) {
            Some(part) => crate::memory::push(&mut self.parts, crate::memory::shared(part)?),
            None => Ok(()),
        }
    }

    /// Opens one extent of the descriptor.
    fn extent(&mut self, n: usize, line: &ExtentLine) -> Result<()> {
        if line.access == Access::None {
            return Err(Error::unsupported(format!(
                "The extent '{}' may not be accessed, as the descriptor says",
                printable(&line.name.to_str_lossy())
            )));
        }
        let len = line.sectors.saturating_mul(SECTOR);
        if line.kind == ExtentType::Zero {
            return self.push(Some(line.kind), n, line.access, PartKind::Zero { len });
        }
        let storage = self.file(line)?;
        let slot = StorageSlot(self.files);
        let kind = match line.kind {
            ExtentType::Flat | ExtentType::Vmfs | ExtentType::Zero => {
                self.flat(line, slot, storage)?
            }
            ExtentType::Sparse | ExtentType::VmfsSparse | ExtentType::SeSparse => {
                let sparse = self.sparse(line, slot, &storage);
                // Errors are in the words of the peer, which does not name the file.
                let sparse = sparse?;
                // An extent that is being grown records its new size first.
                if sparse.len() < len {
                    return Err(Error::corrupt(format!(
                        "'{}' has {} sectors, and {} by its descriptor",
                        storage.name(),
                        sparse.len() / SECTOR,
                        line.sectors
                    )));
                }
                sparse.len.store(len, Ordering::Release);
                PartKind::Sparse(Box::new(sparse))
            }
        };
        self.push(Some(line.kind), n, line.access, kind)
    }

    /// Opens the file of an extent: as the user describes it, else under the name in the descriptor.
    fn file(&mut self, line: &ExtentLine) -> Result<Arc<dyn Storage>> {
        if usize::from(self.files) >= MAX_EXTENTS {
            return Err(Error::new(
                ErrorKind::Limit,
                format!("The image has more than {MAX_EXTENTS} extents"),
            ));
        }
        let number = self.files;
        self.files += 1;
        let writable = !self.ctx.read_only && line.access == Access::ReadWrite;
        open_extent(self.ctx.opener, number, line.name.as_bstr(), writable)
    }

    fn flat(
        &self,
        line: &ExtentLine,
        slot: StorageSlot,
        storage: Arc<dyn Storage>,
    ) -> Result<PartKind> {
        let (offset, len) = (line.offset * SECTOR, line.sectors * SECTOR);
        let has = storage.len()?.next_multiple_of(SECTOR);
        if !self.ctx.metadata_only && offset.saturating_add(len) > has {
            return Err(Error::corrupt(format!(
                "'{}' has {has} bytes, and {} by its descriptor",
                storage.name(),
                offset.saturating_add(len)
            )));
        }
        Ok(PartKind::Flat {
            slot,
            storage,
            offset,
            len: AtomicU64::new(len),
        })
    }

    fn sparse(
        &mut self,
        line: &ExtentLine,
        slot: StorageSlot,
        storage: &Arc<dyn Storage>,
    ) -> Result<Sparse> {
        let cache = self.cache.clone();
        let place = SparseInput {
            id: u32::from(slot.0),
            slot,
            storage,
            cache: &cache,
            file_len: storage.len()?,
        };
        match line.kind {
            ExtentType::SeSparse => {
                if !self.ctx.read_only {
                    return Err(Error::read_only_image());
                }
                let mut bytes = [0; se_sparse::HEADER_LEN];
                storage.read_at(&mut bytes, 0)?;
                let header = ConstHeader::from_bytes(&bytes)?;
                storage.read_at(&mut bytes, header.volatile)?;
                se_sparse::check_volatile(&bytes)?;
                self.count_tables(header.capacity.div_ceil(8 * se_sparse::TABLE_ENTRIES) * 8)?;
                Sparse::se_sparse(&place, &header)
            }
            ExtentType::VmfsSparse => {
                let mut bytes = [0; cowd_header::HEADER_LEN];
                storage.read_at(&mut bytes, 0)?;
                let header = CowdHeader::from_bytes(&bytes)?;
                self.count_tables(u64::from(header.directory_entries) * 4)?;
                Sparse::cowd(&place, &header)
            }
            _ => {
                let header = hosted(&**storage)?;
                self.check_hosted(&header)?;
                self.count_tables(header.directory_entries().saturating_mul(8))?;
                Sparse::hosted(&place, &header)
            }
        }
    }
}
