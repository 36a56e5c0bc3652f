//! The driver as the registry sees it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bstr::BString;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Extent, StorageSlot};
use crate::format::magic::PROBE_BYTES;
use crate::format::unstated::{of, one_of};
use crate::format::{
    BackingChange, Check, ChildSpec, DecodeAhead, ExpectedParent, Features, FileRole, Format,
    FormatDriver, FormatFile, FormatInfo, FormatWrite, IoGuard, Lineage, Mismatch, NameStyle,
    OpenContext, ParentId, ParentName, ParentRef, Probe, Signature,
};
use crate::options::COMPRESSION_LEVEL;
use crate::storage::Storage;

use super::NAME;
use super::create;
use super::disk::{cowd_header, sparse_header};
use super::parts::{self, Part, PartKind};
use super::read::Kept;
use super::state::Vmdk;

/// The driver's entry in the registry.
pub static DRIVER: FormatDriver = FormatDriver {
    name: NAME,
    of_images: Features::WRITE
        .union(Features::COMPRESS)
        .union(Features::CHECK)
        .union(Features::REPAIR)
        .union(Features::RESIZE),
    signature: Some(Signature {
        rank: 40,
        fits,
        footer: None,
    }),
    has_metadata: true,
    is_transparent: false,
    is_stream: false,
    children: &[ChildSpec::FILE, ChildSpec::EXTENTS, ChildSpec::BACKING],
    open,
    read_in_order: Some(super::passing::open),
    inspect: super::inspect::inspect,
    create: Some(create::plan),
    outline: create::outline,
    measure: Some(create::measure),
    create_options: create::OPTIONS,
    unstated: &[
        one_of(
            "adapter_type",
            "ide",
            &["ide", "lsilogic", "buslogic", "legacyESX"],
        ),
        of("compat6", "off"),
        of("hwversion", "4"),
        of("toolsversion", "2147483647"),
        of("zeroed_grain", "off"),
        one_of(
            "subformat",
            "monolithicSparse",
            &[
                "monolithicSparse",
                "monolithicFlat",
                "twoGbMaxExtentSparse",
                "twoGbMaxExtentFlat",
                "streamOptimized",
            ],
        ),
    ],
    own_options: &[COMPRESSION_LEVEL],
    summary: create::SUMMARY,
    amend_options: &[],
    open_options: &[],
    secret_option: None,
    strong_options: &[],
    events: &[],
};

fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    Ok(Box::new(super::open::open(&context)?))
}

impl Format for Vmdk {
    fn driver(&self) -> &'static str {
        NAME
    }

    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn cluster_size(&self) -> Option<u32> {
        let grain = self.parts.iter().find_map(|part| match &part.kind {
            PartKind::Sparse(sparse) => Some(sparse.grain),
            PartKind::Flat { .. } | PartKind::Zero { .. } => None,
        });
        grain.and_then(|grain| u32::try_from(grain).ok())
    }

    fn request_alignment(&self) -> u32 {
        1
    }

    fn map(&self, offset: u64, len: u64) -> Result<Extent> {
        self.look_up(offset, len, true)
    }

    fn locate(&self, offset: u64, len: u64) -> Result<Extent> {
        self.look_up(offset, len, false)
    }

    fn map_ahead(&self, offset: u64, end: u64) {
        if let Ok((part, within)) = parts::at(&self.parts, offset)
            && let PartKind::Sparse(sparse) = &part.kind
        {
            let len = end.saturating_sub(offset).min(part.len() - within);
            sparse.look_ahead(within, within + len);
        }
    }

    fn has_fixed_places(&self) -> bool {
        let sparse = |part: &Arc<Part>| matches!(part.kind, PartKind::Sparse(_));
        !self.parts.iter().any(sparse)
    }

    fn status_span(&self) -> Option<u64> {
        self.cluster_size().map(u64::from)
    }

    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        if slot == StorageSlot::MAIN {
            return Ok(&self.storage);
        }
        let mut parts = self.parts.iter();
        let found = parts.find_map(|part| part.storage().filter(|_| part.slot() == Some(slot)));
        found.ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                format!("The image has no extent {}", slot.0),
            )
        })
    }

    fn visit_files<'a>(&'a self, visit: &mut dyn FnMut(FormatFile<'a>)) {
        visit(FormatFile::own(&self.storage));
        for part in self.parts.iter() {
            if let (Some(slot), Some(storage)) = (part.slot(), part.storage())
                && slot != StorageSlot::MAIN
            {
                visit(FormatFile::extent(slot, storage));
            }
        }
    }

    fn closed_files(&self) -> Vec<(FileRole, BString)> {
        Vec::new()
    }

    fn read_encoded(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let (part, within) = parts::at(&self.parts, at)?;
            let len = (part.len() - within).min(rest.len() as u64);
            let (piece, tail) = rest.split_at_mut(len as usize);
            let PartKind::Sparse(sparse) = &part.kind else {
                return Err(Error::new(
                    ErrorKind::Internal,
                    format!("Guest offset {at} is not compressed"),
                ));
            };
            sparse.read_compressed(Kept(&self.decoded), piece, within)?;
            (rest, at) = (tail, at + len);
        }
        Ok(())
    }

    fn begin_io(&self) -> IoGuard<'_> {
        // The bytes at a place stay: a grain keeps its place, or gets another one and leaves the old one as it is.
        IoGuard::UNGUARDED
    }

    fn info(&self) -> Result<FormatInfo> {
        super::info::info(self)
    }

    fn decode_ahead(&self) -> Option<&dyn DecodeAhead> {
        Some(self)
    }

    fn close(&self) -> Result<()> {
        self.end_use()
    }

    fn lineage(&self) -> Option<&dyn Lineage> {
        Some(self)
    }

    fn writer(&self) -> Option<&dyn FormatWrite> {
        let takes = self.parts.iter().all(|part| match &part.kind {
            PartKind::Flat { .. } | PartKind::Zero { .. } => true,
            PartKind::Sparse(sparse) => sparse.takes_writes(),
        });
        takes.then_some(self)
    }

    fn checker(&self) -> Option<&dyn Check> {
        Some(self)
    }

    fn backing_change(&self) -> Option<&dyn BackingChange> {
        let flat = |part: &Arc<Part>| matches!(part.kind, PartKind::Flat { .. });
        self.writer()?;
        (!self.parts.iter().any(flat)).then_some(self)
    }
}

impl Lineage for Vmdk {
    fn parent(&self) -> Option<ParentRef> {
        let stored = self.stored.lock();
        let descriptor = &stored.descriptor;
        if !descriptor.has_parent() {
            return None;
        }
        let names = descriptor.parent.clone().into_iter().map(|name| {
            let here = name.contains(&b'/') || !name.contains(&b'\\');
            let style = match here {
                true => NameStyle::Posix,
                false => NameStyle::Windows,
            };
            ParentName { name, style }
        });
        Some(ParentRef {
            names: names.collect(),
            format: Some(NAME.into()),
            expected: Some(ExpectedParent {
                ids: vec![ParentId::ContentId(descriptor.parent_cid)],
                if_changed: Mismatch::Refuse,
                if_other: Mismatch::Refuse,
            }),
        })
    }

    fn id(&self) -> Option<ParentId> {
        Some(ParentId::ContentId(self.stored.lock().descriptor.cid))
    }
}

fn fits(file: &Probe<'_>) -> bool {
    file.starts(&sparse_header::MAGIC)
        || file.starts(&cowd_header::MAGIC)
        || is_descriptor(file.head)
}

/// A text descriptor: comments and blank lines, followed by `version=1`, 2 or 3.
fn is_descriptor(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(..PROBE_BYTES).unwrap_or(bytes);
    while let Some(end) = rest.iter().position(|b| *b == b'\n') {
        let line = &rest[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if matches!(line, b"version=1" | b"version=2" | b"version=3") {
            return true;
        }
        let blank = !line.is_empty() && line.iter().all(|b| *b == b' ');
        if !blank && line.first() != Some(&b'#') {
            return false;
        }
        rest = &rest[end + 1..];
    }
    false
}
