//! QED: clusters mapped by two levels of tables, with or without a backing file.

mod backing;
mod behind;
mod check;
mod create;
mod disk;
mod inspect;
mod open;
mod records;
mod resize;

use bstr::BString;
use parking_lot::Mutex;

use crate::error::Result;
use crate::format::blocks::{BlockFormat, BlockImage};
use crate::format::unstated::of;
use crate::format::{
    BackingChange, Check, ChildSpec, Features, FormatDriver, ParentRef, Resize, Signature,
};

use disk::{Header, MAGIC};
use records::Records;

/// The QED format.
pub static DRIVER: FormatDriver = FormatDriver {
    name: "qed",
    of_images: Features::WRITE
        .union(Features::RESIZE)
        .union(Features::CHECK)
        .union(Features::REPAIR),
    signature: Some(Signature {
        rank: 20,
        fits: |file| file.starts(MAGIC),
        footer: None,
    }),
    has_metadata: true,
    is_transparent: false,
    is_stream: false,
    children: &[ChildSpec::FILE, ChildSpec::BACKING],
    open: open::open,
    read_in_order: None,
    inspect: inspect::inspect,
    create: Some(create::plan),
    outline: create::outline,
    measure: Some(create::measure),
    create_options: create::OPTIONS,
    unstated: &[of("cluster_size", "65536"), of("table_size", "4")],
    own_options: &[],
    summary: create::SUMMARY,
    amend_options: &[],
    open_options: &[],
    secret_option: None,
    strong_options: &[],
    events: &[],
};

/// An open image.
type Qed = BlockImage<QedFormat>;

/// The state of an open image besides its blocks.
#[derive(Debug)]
struct QedFormat {
    /// The name of the backing file, as stored in the image.
    backing: Mutex<Option<BString>>,
    /// Guest bytes mapped by one lower table.
    table_span: u64,
}

impl BlockFormat for QedFormat {
    type Keeper = Records;

    fn driver() -> &'static str {
        DRIVER.name
    }

    /// Clears the features that a change invalidates.
    fn note_first_change(image: &Qed) -> Result<()> {
        let storage = &*image.blocks.storage;
        let clear = |header: &mut Header| header.autoclear = 0;
        match image.blocks.keeper.change(storage, clear)? {
            true => image.blocks.barrier(),
            false => Ok(()),
        }
    }

    fn status_span(image: &Qed) -> Option<u64> {
        Some(image.own.table_span)
    }

    fn parent(image: &Qed) -> Option<ParentRef> {
        image.parent_ref()
    }

    fn checker(image: &Qed) -> Option<&dyn Check> {
        Some(image)
    }

    fn resizer(image: &Qed) -> Option<&dyn Resize> {
        Some(image)
    }

    fn backing_change(image: &Qed) -> Option<&dyn BackingChange> {
        Some(image)
    }
}
