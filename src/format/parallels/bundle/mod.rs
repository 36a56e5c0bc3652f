//! Bundles: a directory whose descriptor names the files of a disk, in parts and with snapshots ("Parallels Disk
//! Format"). Read-only.

mod descriptor;
mod inspect;

use std::sync::Arc;

use bstr::{BStr, BString};

use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::format::blocks::{Entry, Layout};
use crate::format::extents::open_extent;
use crate::format::magic::PROBE_BYTES;
use crate::format::{
    Check, CheckReport, FileRole, Format, FormatFile, FormatInfo, IoGuard, OpenContext, RepairMode,
};
use crate::job::Job;
use crate::memory;
use crate::storage::{Durability, Storage};

use super::open::{Use, build, read_header};
use super::{DRIVER, Parallels};

use descriptor::{Descriptor, ImageFile};

pub(super) use descriptor::fits;
pub(super) use inspect::inspect;

/// The name of the descriptor in the directory.
pub(super) const DESCRIPTOR: &str = "DiskDescriptor.xml";

/// Whether a file is the descriptor of a bundle.
///
/// # Errors
/// If reading fails.
pub(super) fn is_one(storage: &dyn Storage) -> Result<bool> {
    let mut head = [0; PROBE_BYTES];
    storage.read_at(&mut head, 0)?;
    Ok(descriptor::is_descriptor(&head))
}

/// What a snapshot holds of a part.
#[derive(Debug)]
enum Held {
    /// All of it, uncompressed.
    Plain,
    /// Clusters.
    Clusters(Box<Parallels>),
}

/// A file of a part.
#[derive(Debug)]
struct Layer {
    slot: StorageSlot,
    held: Held,
    /// Bytes of the part that it can hold.
    len: u64,
}

/// A part of the disk.
#[derive(Debug)]
struct Part {
    start: u64,
    len: u64,
    /// From the top down.
    layers: Vec<Layer>,
}

/// An open bundle.
#[derive(Debug)]
struct Bundle {
    /// The descriptor.
    file: Arc<dyn Storage>,
    len: u64,
    parts: Vec<Part>,
    /// By slot, from 1 on.
    files: Vec<Arc<dyn Storage>>,
}

/// Opens the disk described by a descriptor.
///
/// # Errors
/// If the descriptor is bad, or what it names cannot be opened or does not fit.
pub(super) fn open(context: &OpenContext<'_>) -> Result<Box<dyn Format>> {
    let text = descriptor::read(&*context.storage)?;
    let descriptor = Descriptor::parse(&text)?;
    let most = context.opener.policy().chain_limit();
    let mut files = Vec::new();
    let mut parts = Vec::new();
    for part in &descriptor.parts {
        let mut layers = Vec::new();
        for image in descriptor.chain(part, most)? {
            context.control.checkpoint()?;
            let layer = open_layer(context, part, image, &mut files)?;
            memory::push(&mut layers, layer)?;
        }
        // Snapshots may be smaller than what the disk has become since.
        if layers.first().is_some_and(|top| top.len < part.len) {
            return Err(Error::corrupt(
                "An image is smaller than its part of the disk",
            ));
        }
        let (start, len) = (part.start, part.len);
        memory::push(&mut parts, Part { start, len, layers })?;
    }
    Ok(Box::new(Bundle {
        file: context.storage.clone(),
        len: descriptor.size,
        parts,
        files,
    }))
}

fn open_layer(
    context: &OpenContext<'_>,
    part: &descriptor::Part,
    image: &ImageFile,
    files: &mut Vec<Arc<dyn Storage>>,
) -> Result<Layer> {
    let number = u16::try_from(files.len())
        .ok()
        .filter(|number| *number < u16::MAX - 1)
        .ok_or_else(|| Error::new(ErrorKind::Limit, "The disk has too many files"))?;
    let name = BStr::new(&image.name);
    let storage = open_extent(context.opener, number, name, false)?;
    let (held, len) = match image.is_plain {
        true => (Held::Plain, storage.len()?),
        false => {
            let image = open_image(context, part, &storage)
                .map_err(|error| error.could_not_open(storage.name()))?;
            let len = image.blocks.len();
            (Held::Clusters(Box::new(image)), len)
        }
    };
    memory::push(files, storage)?;
    Ok(Layer {
        slot: StorageSlot(number + 1),
        held,
        len,
    })
}

fn open_image(
    context: &OpenContext<'_>,
    part: &descriptor::Part,
    storage: &Arc<dyn Storage>,
) -> Result<Parallels> {
    let header = read_header(&**storage)?;
    let how = Use {
        writable: false,
        for_check: context.for_check,
        durability: Durability::None,
        ahead: None,
    };
    let image = build(storage, header, context.opener.policy(), how)?;
    match image.blocks.layout().block_size() == part.cluster {
        true => Ok(image),
        false => Err(Error::corrupt(
            "Its clusters are not those of the disk descriptor",
        )),
    }
}

impl Layer {
    /// The longest run at an offset of the part that it either holds or lacks.
    fn run(&self, offset: u64, len: u64) -> Result<(Option<u64>, u64)> {
        if offset >= self.len {
            return Ok((None, len));
        }
        let len = len.min(self.len - offset);
        match &self.held {
            Held::Plain => Ok((Some(offset), len)),
            Held::Clusters(image) => match image.blocks.run_in_file(offset, len)? {
                (Entry::At(host), run) => Ok((Some(host), run)),
                (Entry::Free | Entry::Zero | Entry::Bad, run) => Ok((None, run)),
            },
        }
    }
}

impl Part {
    fn map(&self, offset: u64, len: u64) -> Result<Extent> {
        let mut len = len.min(self.len - offset);
        for layer in &self.layers {
            let (host, run) = layer.run(offset, len)?;
            len = run;
            if let Some(host_offset) = host {
                let slot = layer.slot;
                let kind = ExtentKind::Data { slot, host_offset };
                return Ok(Extent { len, kind });
            }
        }
        let kind = ExtentKind::Unallocated { host_offset: None };
        Ok(Extent { len, kind })
    }
}

impl Format for Bundle {
    fn driver(&self) -> &'static str {
        DRIVER.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn cluster_size(&self) -> Option<u32> {
        None
    }

    fn request_alignment(&self) -> u32 {
        1
    }

    fn map(&self, offset: u64, len: u64) -> Result<Extent> {
        let index = self.parts.partition_point(|part| part.start <= offset);
        let part = index.checked_sub(1).and_then(|index| self.parts.get(index));
        let part = part.filter(|part| offset - part.start < part.len);
        let part = part.ok_or_else(|| Error::new(ErrorKind::Internal, "Behind the last part"))?;
        part.map(offset - part.start, len)
    }

    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        let file = match usize::from(slot.0).checked_sub(1) {
            None => Some(&self.file),
            Some(index) => self.files.get(index),
        };
        file.ok_or_else(|| Error::new(ErrorKind::Internal, "The disk has no such file"))
    }

    fn visit_files<'a>(&'a self, visit: &mut dyn FnMut(FormatFile<'a>)) {
        visit(FormatFile::own(&self.file));
        for (slot, file) in (1..).zip(&self.files) {
            visit(FormatFile::extent(StorageSlot(slot), file));
        }
    }

    fn closed_files(&self) -> Vec<(FileRole, BString)> {
        Vec::new()
    }

    fn read_encoded(&self, _buf: &mut [u8], _offset: u64) -> Result<()> {
        Err(Error::new(
            ErrorKind::Internal,
            "Nothing is encoded in a bundle",
        ))
    }

    fn begin_io(&self) -> IoGuard<'_> {
        IoGuard::UNGUARDED
    }

    fn info(&self) -> Result<FormatInfo> {
        Ok(FormatInfo {
            hides_dirty: true,
            ..FormatInfo::default()
        })
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }

    fn checker(&self) -> Option<&dyn Check> {
        Some(self)
    }
}

/// Checks all files that have a table, and adds up their counts.
impl Check for Bundle {
    fn repairs(&self) -> RepairMode {
        RepairMode::Report
    }

    fn check(&self, _: RepairMode, job: &mut Job) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        for layer in self.parts.iter().flat_map(|part| &part.layers) {
            if let Held::Clusters(image) = &layer.held {
                image.add_to(&mut report, job)?;
            }
        }
        Ok(report)
    }
}
