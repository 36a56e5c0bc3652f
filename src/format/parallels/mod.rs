//! Parallels images: a header, a table of clusters, clusters.

mod bitmaps;
mod bundle;
mod check;
mod create;
mod disk;
mod extension;
mod inspect;
mod open;
mod records;
mod resize;

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{ErrorKind, Result};
use crate::format::blocks::{BlockFormat, BlockImage};
use crate::format::unstated::of;
use crate::format::{
    Bitmaps, Check, ChildSpec, Features, Format, FormatDriver, FormatInfo, InspectContext,
    Inspection, OpenContext, Resize, Signature,
};

use disk::Closing;
use extension::DirtyBitmap;
use records::Records;

/// The Parallels format.
pub static DRIVER: FormatDriver = FormatDriver {
    name: "parallels",
    of_images: Features::WRITE
        .union(Features::RESIZE)
        .union(Features::CHECK)
        .union(Features::REPAIR),
    signature: Some(Signature {
        rank: 10,
        fits: |file| disk::fits(file) || bundle::fits(file),
        footer: None,
    }),
    has_metadata: true,
    is_transparent: false,
    is_stream: false,
    children: &[
        ChildSpec::FILE.in_directory(bundle::DESCRIPTOR),
        ChildSpec::EXTENTS,
    ],
    open,
    read_in_order: None,
    inspect,
    create: Some(create::plan),
    outline: create::outline,
    measure: Some(create::measure),
    create_options: create::OPTIONS,
    unstated: &[of("cluster_size", "1048576")],
    own_options: &[],
    summary: create::SUMMARY,
    amend_options: &[],
    open_options: open::OPTIONS,
    secret_option: None,
    strong_options: &[],
    events: &[],
};

fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    match bundle::is_one(&*context.storage)? {
        true => bundle::open(&context),
        false => open::open(context),
    }
}

fn inspect(context: &InspectContext<'_>) -> Result<Inspection> {
    match bundle::is_one(&*context.storage)? {
        true => bundle::inspect(context),
        false => inspect::inspect(context),
    }
}

/// An open image.
type Parallels = BlockImage<ParallelsFormat>;

/// The state of an open image besides its blocks.
#[derive(Debug)]
struct ParallelsFormat {
    /// The header says correctly where the clusters begin.
    has_start: AtomicBool,
    /// The header names a format extension that cannot be read.
    lacks_extension: AtomicBool,
    /// Its last writer did not close it.
    was_open: AtomicBool,
    /// The format extension, if there is one, was up to date on opening.
    was_current: bool,
    /// Its dirty bitmaps, if they can be trusted.
    bitmaps: Vec<DirtyBitmap>,
}

impl BlockFormat for ParallelsFormat {
    type Keeper = Records;

    fn driver() -> &'static str {
        DRIVER.name
    }

    /// Records in the header that the image is open and its contents change.
    fn note_first_change(image: &Parallels) -> Result<()> {
        image.blocks.keeper.begin(&*image.blocks.storage, true)?;
        image.blocks.renew_reserved();
        Ok(())
    }

    fn info(image: &Parallels) -> Result<FormatInfo> {
        Ok(FormatInfo {
            hides_dirty: true,
            dirty: Some(image.own.was_open.load(Ordering::Acquire)),
            bitmaps: image.own.bitmaps.len() as u64,
            ..FormatInfo::default()
        })
    }

    fn close(image: &Parallels) -> Result<()> {
        let keeper = &image.blocks.keeper;
        let was_open = image.own.was_open.load(Ordering::Acquire);
        if !image.blocks.is_writable() || keeper.header().closing() != Closing::Open || was_open {
            return Ok(());
        }
        if keeper.has_dropped() {
            match image.blocks.exclusive().cut(0) {
                // The space of the format extension stays in the file, unused.
                Err(error) if error.kind() == ErrorKind::Corrupt => {}
                done => done?,
            }
        }
        let is_current = image.own.was_current && !image.is_noted();
        keeper.end(&*image.blocks.storage, is_current)
    }

    fn checker(image: &Parallels) -> Option<&dyn Check> {
        Some(image)
    }

    fn bitmaps(image: &Parallels) -> Option<&dyn Bitmaps> {
        // The first change drops them.
        (!image.blocks.is_writable()).then_some(image)
    }

    fn resizer(image: &Parallels) -> Option<&dyn Resize> {
        Some(image)
    }
}
