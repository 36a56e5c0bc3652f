//! VHD, the disk images of Virtual PC, Hyper-V and Xen, which QEMU calls `vpc`.
//! Specification: Virtual Hard Disk Image Format Specification 1.0.

mod behind;
mod check;
mod create;
mod differencing;
mod disk;
mod dynamic;
mod fixed;
mod fixed_check;
mod inspect;
mod open;
mod parent;
mod profile;
mod records;
mod reshape;
mod sectors;

pub use profile::{AZURE, XEN};

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::format::blocks::{Blocks, ByteOrder, Parts, Table};
use crate::format::unstated::{of, one_of};
use crate::format::{ChildSpec, Features, Format, FormatDriver, OpenContext, Signature};
use crate::options::{OptionKind, OptionSpec};
use crate::size::SECTOR;

use disk::{COOKIE, DiskType, DynamicHeader, FOOTER_LEN, Footer, VpcLayout};
use dynamic::Dynamic;
use fixed::Fixed;
use open::Damage;
use records::Records;

/// The maximum size of a disk with blocks, and of one whose geometry counts: 2040 GiB.
const MAX_SIZE: u64 = 2040 << 30;

/// The maximum size of a fixed disk that is as large as its footer says: 32 TiB, the limit of Azure.
const MAX_FIXED: u64 = 32 << 40;

/// The VHD format.
pub static DRIVER: FormatDriver = FormatDriver {
    name: "vpc",
    of_images: Features::WRITE
        .union(Features::RESIZE)
        .union(Features::CHECK)
        .union(Features::REPAIR),
    signature: Some(Signature {
        rank: 50,
        fits: |file| file.starts(COOKIE),
        footer: Some(COOKIE),
    }),
    has_metadata: true,
    is_transparent: false,
    is_stream: false,
    children: &[ChildSpec::FILE, ChildSpec::PARENT],
    open,
    read_in_order: None,
    inspect: inspect::inspect,
    create: Some(create::plan),
    outline: create::outline,
    measure: Some(create::measure),
    create_options: create::OPTIONS,
    unstated: &[
        of("force_size", "off"),
        one_of("subformat", "dynamic", &["dynamic", "fixed"]),
    ],
    own_options: create::OWN,
    summary: create::SUMMARY,
    amend_options: &[],
    open_options: &[OptionSpec {
        name: SIZE_CALC,
        kind: OptionKind::Str,
        help: "Force disk size calculation to use either CHS geometry, or use the disk current_size specified in the VHD footer. {chs, current_size}",
        default: None,
        allowed: &["chs", "current_size"],
    }],
    secret_option: None,
    strong_options: &[SIZE_CALC],
    events: &[],
};

const SIZE_CALC: &str = "force_size_calc";

fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    let by_geometry = match context.options.str(SIZE_CALC) {
        None => None,
        Some("chs") => Some(true),
        Some("current_size") => Some(false),
        Some(other) => {
            return Err(Error::invalid(format!(
                "Invalid size calculation mode: '{other}'"
            )));
        }
    };
    let storage = context.storage;
    let file_len = storage.len()?;
    let found = match open::find(&*storage, file_len) {
        // A check can repair it.
        Err(error) if context.for_check && error.kind() == ErrorKind::Corrupt => {
            open::find_despite_checksum(&*storage, file_len)?.ok_or(error)?
        }
        found => found?,
    };
    let len = found.footer.size(by_geometry);
    let writable = !context.read_only && !storage.read_only();
    let Some(header) = found.header else {
        if len > found.footer_at {
            let text = format!(
                "The file has {} bytes of a disk of {len} bytes",
                found.footer_at
            );
            return Err(Error::corrupt(text).with_offset(file_len));
        }
        return Ok(Box::new(Fixed {
            storage,
            footer: Mutex::new(found.footer),
            len: AtomicU64::new(len),
            writable,
            durability: context.durability,
            is_damaged: AtomicBool::new(found.damage == Damage::Last),
        }));
    };
    check_header(&found.footer, &header, len, file_len)?;
    let layout = VpcLayout::of(&header, found.footer.data_offset);
    let is_overlay = found.footer.disk_type == DiskType::Differencing;
    let (parent, names) = match is_overlay {
        true => {
            check_names(&layout, &header, file_len)?;
            let mut names = name_places(&header);
            let lost = names.iter().find(|name| name.end > file_len);
            if let Some(name) = lost.filter(|_| writable || context.for_check) {
                // What is written there would become part of the name.
                let text = "A name of the parent reaches past the end of the file";
                return Err(Error::corrupt(text).with_offset(name.start));
            }
            // A name that is not in the file takes up none of it.
            names.retain(|name| name.start < file_len);
            (Some(parent::read(&*storage, &header, file_len)?), names)
        }
        false => (None, Vec::new()),
    };
    // Entries beyond the largest disk have no meaning.
    let entries = u64::from(header.entries).min(MAX_SIZE / u64::from(header.block_size));
    let table = Table::on_disk(entries, header.table_offset, ByteOrder::Big)?;
    Ok(Box::new(Dynamic::with_header(
        Blocks::new(Parts {
            storage,
            layout,
            table,
            len,
            is_overlay,
            writable,
            durability: context.durability,
            keeper: Records::new(
                found.footer,
                &layout,
                names,
                found.damage,
                context.durability,
            ),
        }),
        header,
        parent,
    )))
}

/// Where the names of the parent are.
fn name_places(header: &DynamicHeader) -> Vec<Range<u64>> {
    let known = header.locators().filter(|locator| locator.len > 0);
    let places = known.filter_map(|locator| {
        let len = u64::from(locator.len).next_multiple_of(512);
        Some(locator.offset..locator.offset.checked_add(len)?)
    });
    places.collect()
}

/// Checks that the fields of the headers are consistent with each other and with the file.
fn check_header(footer: &Footer, header: &DynamicHeader, len: u64, file_len: u64) -> Result<()> {
    if len > MAX_SIZE {
        return Err(Error::new(ErrorKind::Limit, "The disk is too large").with_errno(libc::EFBIG));
    }
    if u64::from(header.entries) * u64::from(header.block_size) < len {
        return Err(Error::corrupt("Page table too small"));
    }
    let end = header.table_offset.checked_add(header.table_len());
    if end.is_none_or(|end| end > file_len) {
        return Err(
            Error::corrupt("The file ends within the table of blocks").with_offset(file_len)
        );
    }
    if !header.table_offset.is_multiple_of(SECTOR) {
        let text = format!(
            "The table of blocks is said to be at {}, within a sector",
            header.table_offset
        );
        return Err(Error::corrupt(text).with_offset(header.table_offset));
    }
    let layout = VpcLayout::of(header, footer.data_offset);
    let (table, place) = (layout.table(), layout.header());
    let headers = [0..FOOTER_LEN as u64, place.clone()];
    if place.start < FOOTER_LEN as u64
        || headers
            .iter()
            .any(|other| other.start < table.end && table.start < other.end)
    {
        return Err(Error::corrupt("The table of blocks overlaps the headers")
            .with_offset(header.table_offset));
    }
    Ok(())
}

/// Refuses names of the parent that overlap other metadata: the next change to one would destroy the other, and nothing
/// says which of them is right.
fn check_names(layout: &VpcLayout, header: &DynamicHeader, file_len: u64) -> Result<()> {
    let others = [
        (0..FOOTER_LEN as u64, "The footer"),
        (layout.header(), "The header"),
        (layout.table(), "The table of blocks"),
    ];
    let known = header.locators().filter(|it| it.platform.is_some());
    for name in known.filter(|it| it.len > 0 && it.offset < file_len) {
        let end = name.offset.saturating_add(u64::from(name.len));
        let mut others = others.iter();
        let meets = others.find(|(other, _)| name.offset < other.end && other.start < end);
        if let Some((_, what)) = meets {
            let text = format!("{what} overlaps a name of the parent");
            return Err(Error::corrupt(text).with_offset(name.offset));
        }
    }
    Ok(())
}

/// Refuses a size that no footer can express.
fn check_size(len: u64, most: u64) -> Result<()> {
    if !len.is_multiple_of(512) {
        return Err(Error::odd_new_size());
    }
    if len > most {
        return Err(too_large());
    }
    Ok(())
}

fn too_large() -> Error {
    Error::size_too_large_for("vpc").with_errno(libc::EFBIG)
}
