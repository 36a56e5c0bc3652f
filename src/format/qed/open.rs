//! Opening an image, and repairing one that was not closed.

use std::sync::Arc;

use bstr::BString;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::format::blocks::{BAD, Blocks, Directory, FREE, Parts, Table, ZERO};
use crate::format::{Check, ChildSpec, Format, OpenContext, RepairMode};
use crate::job::Job;
use crate::memory;
use crate::policy::OpenPolicy;
use crate::storage::{Durability, Storage, read_exact_at};

use super::disk::{FeatureBits, HEADER_LEN, Header, QedLayout};
use super::records::Records;
use super::{Qed, QedFormat};

/// Maximum length of the name of a backing file that is read.
const MAX_NAME: u32 = 4096;

/// See [`crate::format::FormatDriver::open`].
pub(super) fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    let header = read_header(&*context.storage)?;
    let needs_check = header.features.contains(FeatureBits::NEED_CHECK);
    let writable = !context.read_only && !context.storage.read_only();
    let durability = context.durability;
    let image = build(
        &context.storage,
        header,
        context.opener.policy(),
        (writable, durability),
    )?;
    if context.opener.has_child(ChildSpec::BACKING.name) {
        // The backing file in use need not be named by the header.
        image.blocks.set_overlay(true);
    }
    if needs_check && writable && !context.for_check && !context.metadata_only {
        make_whole(&image, &context)?;
    }
    Ok(Box::new(image))
}

/// Reads the header of a file, and checks that it fits the file.
pub(super) fn read_header(storage: &dyn Storage) -> Result<Header> {
    let mut head = [0; HEADER_LEN];
    storage.read_at(&mut head, 0)?;
    let header = Header::from_bytes(&head)?;
    header.check(storage.len()?)?;
    Ok(header)
}

/// Builds the image from a header that fits the file.
pub(super) fn build(
    storage: &Arc<dyn Storage>,
    header: Header,
    policy: &OpenPolicy,
    (writable, durability): (bool, Durability),
) -> Result<Qed> {
    let backing = read_name(&**storage, &header)?;
    let table = Table::in_parts(
        header.clusters(),
        header.table_offset,
        header.coding(),
        read_directory(&**storage, &header, policy)?,
    )?;
    let is_overlay = backing.is_some();
    let own = QedFormat {
        backing: Mutex::new(backing),
        table_span: header.per_table() * u64::from(header.cluster_size),
    };
    let blocks = Blocks::new(Parts {
        storage: storage.clone(),
        layout: QedLayout::of(&header),
        table,
        len: header.size,
        is_overlay,
        writable,
        durability,
        keeper: Records::new(header, durability),
    });
    Ok(Qed::new(blocks, own, false))
}

/// Reads the name of the backing file, if there is one.
fn read_name(storage: &dyn Storage, header: &Header) -> Result<Option<BString>> {
    if !header.features.contains(FeatureBits::BACKING_FILE) {
        return Ok(None);
    }
    if header.name_len > MAX_NAME {
        return Err(Error::corrupt("QED backing filename is too long")
            .with_offset(u64::from(header.name_offset)));
    }
    let mut name = vec![0; header.name_len as usize];
    storage.read_at(&mut name, u64::from(header.name_offset))?;
    let end = name.iter().position(|byte| *byte == 0);
    name.truncate(end.unwrap_or(name.len()));
    Ok((!name.is_empty()).then(|| name.into()))
}

/// Reads the upper table, as far as the image reaches.
fn read_directory(
    storage: &dyn Storage,
    header: &Header,
    policy: &OpenPolicy,
) -> Result<Directory> {
    let file_len = storage.len()?;
    let coding = header.coding();
    let len = header.clusters().div_ceil(header.per_table()) * coding.len();
    policy.check_table("L1 table", len)?;
    let mut bytes = memory::zeroed(len as usize)?;
    read_exact_at(storage, &mut bytes, header.table_offset)?;
    let vet = |word| {
        let host = match word {
            FREE => return FREE,
            ZERO | BAD => return BAD,
            word => u64::from(word) * u64::from(header.cluster_size),
        };
        let fits = host >= header.start() && host + header.table_len() <= file_len;
        if fits { word } else { BAD }
    };
    let words = memory::collect(coding.words(&bytes).map(vet))?;
    Directory::new(
        header.table_offset,
        (header.table_len(), header.per_table()),
        header.cluster_size.trailing_zeros(),
        words,
    )
}

/// Checks and repairs an image that was not closed, unless the damage is beyond repair.
fn make_whole(image: &Qed, context: &OpenContext<'_>) -> Result<()> {
    let name = image.blocks.storage.name();
    let mut job = Job::heeding(context.control);
    let report = image.check(RepairMode::All, &mut job)?;
    if report.corruptions > 0 {
        return Err(Error::corrupt(format!(
            "'{name}' was not closed and is damaged; check the image first"
        )));
    }
    if report.corruptions_fixed > 0 {
        (context.warn)(format!(
            "'{name}' was not closed: {} entries of its tables that named nothing were cleared",
            report.corruptions_fixed
        ));
    }
    Ok(())
}
