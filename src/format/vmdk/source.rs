//! What an image's own file is: a descriptor, or an extent with or without one inside.

use crate::bytes::le64;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{self, IoBuf};
use crate::policy::OpenPolicy;
use crate::size::SECTOR;
use crate::storage::{Storage, read_exact_at};

use super::disk::marker::{Special, is_special};
use super::disk::sparse_header::{self, HEADER_LEN};
use super::disk::{CowdHeader, Descriptor, SparseHeader, cowd_header, not_vmdk};

/// Maximum length of a descriptor: that of a disk of 64 TiB in parts of 2 GiB takes three quarters of this.
const MAX_DESCRIPTOR: u64 = 2 << 20;

/// Offset in the header of a hosted extent of the end of its metadata, which is in sectors.
const OVERHEAD: usize = 64;

/// The content of the image's own file.
#[derive(Debug)]
pub(super) enum Source {
    /// A text that names the extents.
    Text(Descriptor),
    /// A hosted extent that contains the descriptor, and the descriptor's offset.
    Hosted {
        header: SparseHeader,
        descriptor: Descriptor,
        offset: u64,
    },
}

impl Source {
    /// Reads the beginning of a file, and the descriptor wherever it is.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotAnImage`], [`crate::ErrorKind::Corrupt`], [`crate::ErrorKind::Unsupported`],
    /// [`crate::ErrorKind::Limit`] according to the policy; if reading fails.
    pub(super) fn read(storage: &dyn Storage, policy: &OpenPolicy) -> Result<Self> {
        let mut head = [0; cowd_header::HEADER_LEN];
        storage.read_at(&mut head, 0)?;
        if head.starts_with(&cowd_header::MAGIC) {
            CowdHeader::from_bytes(&head)?;
            return Err(lone_extent());
        }
        if head.starts_with(&sparse_header::MAGIC) {
            let header = hosted(storage)?;
            if header.descriptor == 0 {
                return Err(lone_extent());
            }
            let (descriptor, offset) =
                embedded(storage, header.descriptor, header.descriptor_len, policy)?;
            return Ok(Self::Hosted {
                header,
                descriptor,
                offset,
            });
        }
        let len = storage.len()?;
        let text = read_text(storage, 0, len, policy)?;
        Descriptor::parse(&text).map(Self::Text)
    }
}

/// The text of a descriptor and its offset, however damaged it and the header before it are; `None` if there is none,
/// or it is longer than any descriptor.
///
/// # Errors
/// If reading fails.
pub(super) fn descriptor_text(
    storage: &dyn Storage,
    policy: &OpenPolicy,
) -> Result<Option<(IoBuf, u64)>> {
    let mut head = [0; HEADER_LEN];
    storage.read_at(&mut head, 0)?;
    let file_len = storage.len()?;
    let (offset, len) = if head.starts_with(&sparse_header::MAGIC) {
        let word = |at| le64(&head, at).unwrap_or_default();
        (
            word(28).saturating_mul(SECTOR),
            word(36).saturating_mul(SECTOR),
        )
    } else if head.starts_with(&cowd_header::MAGIC) {
        (0, 0)
    } else {
        (0, file_len)
    };
    let len = len.min(file_len.saturating_sub(offset));
    match read_text(storage, offset, len, policy) {
        Ok(text) => Ok(Some((text, offset))),
        Err(error) if matches!(error.kind(), ErrorKind::Limit | ErrorKind::NotAnImage) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The valid header of a hosted extent; if the grain directory is at the end, the footer.
///
/// # Errors
/// As [`Source::read`].
pub(super) fn hosted(storage: &dyn Storage) -> Result<SparseHeader> {
    let mut bytes = [0; HEADER_LEN];
    storage.read_at(&mut bytes, 0)?;
    let need = u128::from(le64(&bytes, OVERHEAD).unwrap_or_default()) * u128::from(SECTOR);
    if bytes.starts_with(&sparse_header::MAGIC)
        && u128::from(storage.len()?.next_multiple_of(SECTOR)) < need
    {
        let text = format!("File truncated, expecting at least {need} bytes");
        return Err(Error::corrupt(text));
    }
    let header = SparseHeader::from_bytes(&bytes)?;
    header.validate()?;
    if !header.has_footer {
        return Ok(header);
    }
    // Marker of the footer, footer, end of stream.
    let len = storage.len()?;
    let start = len.checked_sub(3 * SECTOR).ok_or_else(no_footer)?;
    let mut end = [0; 3 * SECTOR as usize];
    read_exact_at(storage, &mut end, start)?;
    let (marker, rest) = end.split_at(SECTOR as usize);
    let (footer, last) = rest.split_at(SECTOR as usize);
    if !is_special(marker, Special::Footer) || !is_special(last, Special::EndOfStream) {
        return Err(no_footer().with_offset(start));
    }
    let footer = footer_of(&header, footer, start + SECTOR)?;
    Ok(SparseHeader {
        descriptor: header.descriptor,
        descriptor_len: header.descriptor_len,
        has_footer: true,
        ..footer
    })
}

/// Parses the footer at `offset` of a stream with this header.
///
/// # Errors
/// [`ErrorKind::Corrupt`] if it is not a footer, or is that of another stream.
pub(super) fn footer_of(header: &SparseHeader, bytes: &[u8], offset: u64) -> Result<SparseHeader> {
    let footer = SparseHeader::from_bytes(bytes).map_err(|_| no_footer().with_offset(offset))?;
    footer.validate()?;
    let agree = |h: &SparseHeader| (h.version, h.flags, h.capacity, h.grain, h.table_entries);
    match agree(header) == agree(&footer) && !footer.has_footer {
        true => Ok(footer),
        false => {
            let text = "Header and footer of the stream do not agree";
            Err(Error::corrupt(text).with_offset(offset))
        }
    }
}

/// The error for an extent without a descriptor.
pub(super) fn lone_extent() -> Error {
    Error::invalid(
        "The file is an extent of a disk and has no descriptor in it; open the descriptor that names it",
    )
}

/// The error for a stream that ends without its footer.
pub(super) fn no_footer() -> Error {
    Error::corrupt("The stream has no footer: the file was cut off, or is still being written")
}

fn embedded(
    storage: &dyn Storage,
    sector: u64,
    sectors: u64,
    policy: &OpenPolicy,
) -> Result<(Descriptor, u64)> {
    let outside = || {
        Error::corrupt(format!(
            "The descriptor is said to have {sectors} sectors from sector {sector} on"
        ))
        .with_offset(28)
    };
    let offset = sector.checked_mul(SECTOR).ok_or_else(outside)?;
    let len = sectors.checked_mul(SECTOR).ok_or_else(outside)?;
    let end = offset.checked_add(len).ok_or_else(outside)?;
    if end > storage.len()? {
        return Err(outside());
    }
    let text = read_text(storage, offset, len, policy)?;
    Ok((parse_embedded(&text)?, offset))
}

/// Parses the descriptor inside an extent.
///
/// # Errors
/// As [`Descriptor::parse`]; if there is none.
pub(super) fn parse_embedded(text: &[u8]) -> Result<Descriptor> {
    // In a disk with several extents, each has the space, but nothing in it.
    match text.first() {
        Some(0) => Err(lone_extent()),
        _ => Descriptor::parse(text),
    }
}

fn read_text(storage: &dyn Storage, offset: u64, len: u64, policy: &OpenPolicy) -> Result<IoBuf> {
    let mut text = room_for_text(len, policy)?;
    storage.read_at(&mut text, offset)?;
    Ok(text)
}

/// Allocates memory for a descriptor.
///
/// # Errors
/// [`ErrorKind::Limit`] according to the policy, [`ErrorKind::NotAnImage`] if no descriptor is that long.
pub(super) fn room_for_text(len: u64, policy: &OpenPolicy) -> Result<IoBuf> {
    if len == 0 {
        return Err(not_vmdk());
    }
    policy.check_table("Descriptor", len)?;
    if len > MAX_DESCRIPTOR {
        return Err(not_vmdk());
    }
    memory::zeroed(len as usize)
}
