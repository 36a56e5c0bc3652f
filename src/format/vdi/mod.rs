//! VDI, the disk images of VirtualBox: a header, a table of blocks, blocks.
//!
//! There is no published specification; see `docs/formats/vdi.md`.

mod check;
mod create;
mod disk;
mod inspect;
mod overlay;
mod records;
mod reshape;

use crate::bytes::le32;
use crate::error::{Error, Result};
use crate::format::blocks::{BlockFormat, BlockImage, Blocks, ByteOrder, Layout, Parts, Table};
use crate::format::{
    BackingChange, Check, ChildSpec, Features, Format, FormatDriver, OpenContext, ParentId,
    ParentRef, ParentSearch, Resize, Signature,
};

use disk::{HEAD_LEN, Header, ImageType, SIGNATURE, SIGNATURE_AT, VdiLayout, Version};
use records::Records;

/// The VDI format.
pub static DRIVER: FormatDriver = FormatDriver {
    name: "vdi",
    of_images: Features::WRITE
        .union(Features::RESIZE)
        .union(Features::CHECK)
        .union(Features::REPAIR),
    signature: Some(Signature {
        rank: 60,
        fits: |file| le32(file.head, SIGNATURE_AT) == Some(SIGNATURE),
        footer: None,
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
    unstated: &[],
    own_options: create::OWN,
    summary: create::SUMMARY,
    amend_options: &[],
    open_options: &[],
    secret_option: None,
    strong_options: &[],
    events: &[],
};

/// An open image.
type Vdi = BlockImage<VdiFormat>;

/// The state of an open image besides its blocks.
#[derive(Debug)]
struct VdiFormat {
    /// Every block has its place.
    is_fixed: bool,
}

fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    let storage = context.storage;
    let mut head = vec![0; HEAD_LEN];
    storage.read_at(&mut head, 0)?;
    let header = Header::from_bytes(&head)?;
    let writable = !context.read_only && !storage.read_only();
    if header.version == Version::V0 && writable {
        return Err(Error::unsupported(
            "VDI images of versions before 1.0 can only be read; convert the image",
        ));
    }
    let file_len = storage.len()?;
    if header.table_end() > file_len {
        return Err(Error::corrupt("The file ends within the block map").with_offset(file_len));
    }
    let table = Table::on_disk(
        u64::from(header.blocks),
        u64::from(header.table_offset),
        ByteOrder::Little,
    )?;
    let own = VdiFormat {
        is_fixed: header.image_type == ImageType::Fixed,
    };
    let blocks = Blocks::new(Parts {
        storage,
        layout: VdiLayout::of(&header),
        table,
        len: virtual_size(&header),
        is_overlay: !header.link.is_nil(),
        writable,
        durability: context.durability,
        keeper: Records::new(header, context.durability),
    });
    Ok(Box::new(Vdi::new(blocks, own, false)))
}

/// The virtual size: whole sectors, limited to what the blocks hold.
fn virtual_size(header: &Header) -> u64 {
    let room = u64::from(header.blocks) * u64::from(header.block_size);
    header.disk_size.next_multiple_of(512).min(room)
}

impl BlockFormat for VdiFormat {
    type Keeper = Records;

    fn driver() -> &'static str {
        DRIVER.name
    }

    fn note_first_change(image: &Vdi) -> Result<()> {
        image.blocks.keeper.note_change(&*image.blocks.storage)
    }

    fn has_fixed_places(image: &Vdi) -> bool {
        image.own.is_fixed
    }

    fn status_span(image: &Vdi) -> Option<u64> {
        Some(image.blocks.layout().block_size())
    }

    fn parent(image: &Vdi) -> Option<ParentRef> {
        image.parent_ref()
    }

    fn parent_search() -> Option<&'static ParentSearch> {
        Some(&overlay::SEARCH)
    }

    fn parent_id(image: &Vdi) -> Option<ParentId> {
        Some(overlay::id_of(&image.blocks.keeper.header()))
    }

    fn checker(image: &Vdi) -> Option<&dyn Check> {
        Some(image)
    }

    fn resizer(image: &Vdi) -> Option<&dyn Resize> {
        Some(image)
    }

    fn backing_change(image: &Vdi) -> Option<&dyn BackingChange> {
        Some(image)
    }
}
