//! Opening an image, and repairing one that was not closed.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::error::{Error, ErrorKind, Result};
use crate::format::blocks::{Blocks, Layout, Parts, Table};
use crate::format::{Check, Format, OpenContext, RepairMode};
use crate::job::Job;
use crate::options::{OptionKind, OptionSpec, Values};
use crate::policy::OpenPolicy;
use crate::storage::{Durability, Preallocation, Storage};

use super::disk::{CODING, Closing, HEADER_LEN, Header, ParallelsLayout};
use super::extension;
use super::records::{Ahead, Kept, Records};
use super::{Parallels, ParallelsFormat};

/// How much to allocate ahead if only the mode is given, as in QEMU.
const AHEAD: u64 = 128 << 20;

/// Open options.
pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "prealloc-mode",
        kind: OptionKind::Str,
        help: "How space is taken ahead of need (falloc, truncate)",
        default: None,
        allowed: &["falloc", "truncate"],
    },
    OptionSpec {
        name: "prealloc-size",
        kind: OptionKind::Size,
        help: "How much space is taken ahead of need",
        default: None,
        allowed: &[],
    },
];

/// What to allocate ahead; nothing unless requested.
fn ahead(options: &Values) -> Option<Ahead> {
    let mode = match options.str("prealloc-mode") {
        Some("falloc") => Some(Preallocation::Falloc),
        Some(_) => Some(Preallocation::Off),
        None => None,
    };
    let bytes = options.num("prealloc-size");
    if mode.is_none() && bytes.is_none() {
        return None;
    }
    Some(Ahead {
        bytes: bytes.unwrap_or(AHEAD),
        mode: mode.unwrap_or(Preallocation::Falloc),
    })
}

/// See [`crate::format::FormatDriver::open`].
pub(super) fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    context.options.check_words(OPTIONS)?;
    let header = read_header(&*context.storage)?;
    let was_open = header.closing() == Closing::Open;
    let writable = !context.read_only && !context.storage.read_only();
    let image = build(
        &context.storage,
        header,
        context.opener.policy(),
        Use {
            writable,
            for_check: context.for_check,
            durability: context.durability,
            ahead: ahead(context.options),
        },
    )?;
    if was_open && writable && !context.for_check && !context.metadata_only {
        make_whole(&image, &context)?;
    }
    Ok(Box::new(image))
}

/// Reads the header of a file.
pub(super) fn read_header(storage: &dyn Storage) -> Result<Header> {
    let mut head = [0; HEADER_LEN];
    storage.read_at(&mut head, 0)?;
    let header = Header::from_bytes(&head)?;
    let file_len = storage.len()?;
    if header.table_end() > file_len {
        return Err(Error::corrupt("The file ends within the BAT").with_offset(file_len));
    }
    Ok(header)
}

/// How an image is to be used.
pub(super) struct Use {
    pub(super) writable: bool,
    /// Damage is to be reported, not refused.
    pub(super) for_check: bool,
    pub(super) durability: Durability,
    pub(super) ahead: Option<Ahead>,
}

/// Builds the image from its header.
pub(super) fn build(
    storage: &Arc<dyn Storage>,
    header: Header,
    policy: &OpenPolicy,
    how: Use,
) -> Result<Parallels> {
    let is_current = header.closing() == Closing::Whole;
    let (found, lacks_extension) = match extension::read(&**storage, &header, policy) {
        Ok(found) => (found, false),
        // The program that closed the image did not support the extension, and may have overwritten it.
        Err(error) if error.kind() == ErrorKind::Corrupt && !is_current => (None, false),
        Err(error) if error.kind() == ErrorKind::Corrupt && how.for_check && how.writable => {
            (None, true)
        }
        Err(error) => return Err(error),
    };
    let mut found = found.unwrap_or_default();
    if how.writable && found.is_necessary && is_current {
        return Err(Error::unsupported(format!(
            "'{}' has a format extension that must be kept up to date; it can only be read",
            storage.name()
        )));
    }
    let file_len = storage.len()?;
    let (start, has_start) = header.start(file_len);
    let layout = ParallelsLayout::of(&header, start);
    let table = Table::on_disk(u64::from(header.entries), HEADER_LEN as u64, CODING)?;
    let own = ParallelsFormat {
        has_start: AtomicBool::new(has_start),
        lacks_extension: AtomicBool::new(lacks_extension),
        was_open: AtomicBool::new(header.closing() == Closing::Open),
        was_current: is_current,
        // The last writer may not have kept them up to date.
        bitmaps: match is_current {
            true => std::mem::take(&mut found.bitmaps),
            false => Vec::new(),
        },
    };
    let blocks = Blocks::new(Parts {
        storage: storage.clone(),
        layout,
        table,
        len: header.size(),
        is_overlay: false,
        writable: how.writable,
        durability: how.durability,
        keeper: Records::new(
            header,
            how.durability,
            Kept::of(found, layout.start()..file_len),
            how.ahead,
        ),
    });
    Ok(Parallels::new(blocks, own, false))
}

/// Checks and repairs an image that was not closed, unless the damage is beyond repair.
fn make_whole(image: &Parallels, context: &OpenContext<'_>) -> Result<()> {
    let name = image.blocks.storage.name();
    let mut job = Job::heeding(context.control);
    let report = image.check(RepairMode::All, &mut job)?;
    if report.corruptions > 0 {
        return Err(Error::corrupt(format!(
            "'{name}' was not closed and is damaged; check the image first"
        )));
    }
    // That it was not closed counts as one of them.
    if report.corruptions_fixed > 1 {
        (context.warn)(format!(
            "'{name}' was not closed: {} entries of its table were damaged and were repaired",
            report.corruptions_fixed - 1
        ));
    }
    Ok(())
}
