//! cloop, compressed loop images of version 2: a header, a table of offsets, blocks of zlib. Only read.
//!
//! See `docs/formats/cloop.md`.

mod disk;
mod inspect;

use std::sync::Arc;

use bstr::BString;

use crate::codec::Packing;
use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::format::unit_reader::{EncodedUnit, UnitReader};
use crate::format::{
    ChildSpec, Features, FileRole, Format, FormatDriver, FormatFile, FormatInfo, IoGuard,
    OpenContext, Outline, ParentRef, Signature,
};
use crate::storage::Storage;

use disk::{HEADER_LEN, Header, SCRIPT, Table};

/// The cloop format.
pub static DRIVER: FormatDriver = FormatDriver {
    name: "cloop",
    of_images: Features::empty(),
    signature: Some(Signature {
        rank: 120,
        fits: |file| file.starts(SCRIPT),
        footer: None,
    }),
    has_metadata: true,
    is_transparent: false,
    is_stream: false,
    children: &[ChildSpec::FILE],
    open,
    inspect: inspect::inspect,
    create: None,
    outline: |_| Outline::default(),
    measure: None,
    create_options: &[],
    summary: &[],
    amend_options: &[],
    open_options: &[],
    secret_option: None,
    strong_options: &[],
    events: &[],
};

/// An open image.
#[derive(Debug)]
struct Cloop {
    storage: Arc<dyn Storage>,
    file_len: u64,
    header: Header,
    table: Table,
    units: UnitReader,
}

fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    let storage = context.storage;
    let policy = context.opener.policy();
    let mut head = [0; HEADER_LEN];
    storage.read_at(&mut head, 0)?;
    let header = Header::from_bytes(&head)?;
    policy.check_decompressed(u64::from(header.block_size))?;
    let file_len = storage.len()?;
    let table = Table::read(&*storage, file_len, &header, policy)?;
    Ok(Box::new(Cloop {
        storage,
        file_len,
        header,
        table,
        units: UnitReader::default(),
    }))
}

impl Cloop {
    /// The block of a guest offset.
    fn unit(&self, offset: u64) -> Result<EncodedUnit> {
        let len = u64::from(self.header.block_size);
        let index = offset / len;
        let (host, end) = self
            .table
            .block(index)
            .ok_or_else(|| Error::new(ErrorKind::Internal, "A read passes the end of the table"))?;
        Ok(EncodedUnit {
            guest: index * len,
            len,
            host,
            encoded: end - host,
            packing: Packing::Zlib,
        })
    }
}

impl Format for Cloop {
    fn driver(&self) -> &'static str {
        DRIVER.name
    }

    fn len(&self) -> u64 {
        self.header.virtual_size()
    }

    fn cluster_size(&self) -> Option<u32> {
        None
    }

    fn request_alignment(&self) -> u32 {
        1
    }

    fn map(&self, _offset: u64, len: u64) -> Result<Extent> {
        Ok(Extent {
            len,
            kind: ExtentKind::Encoded { compressed: true },
        })
    }

    fn is_opaque(&self) -> bool {
        true
    }

    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        match slot {
            StorageSlot::MAIN => Ok(&self.storage),
            _ => Err(Error::new(
                ErrorKind::Internal,
                "A cloop image has one file",
            )),
        }
    }

    fn visit_files<'a>(&'a self, visit: &mut dyn FnMut(FormatFile<'a>)) {
        visit(FormatFile::own(&self.storage));
    }

    fn closed_files(&self) -> Vec<(FileRole, BString)> {
        Vec::new()
    }

    fn read_encoded(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let unit = self.unit(at)?;
            let left = unit.len - (at - unit.guest);
            let len = left.min(rest.len() as u64) as usize;
            let (part, tail) = rest.split_at_mut(len);
            let file = (&*self.storage, self.file_len);
            self.units.read(file, &unit, part, at)?;
            (rest, at) = (tail, at + len as u64);
        }
        Ok(())
    }

    fn begin_io(&self) -> IoGuard<'_> {
        IoGuard::UNGUARDED
    }

    fn info(&self) -> Result<FormatInfo> {
        Ok(FormatInfo::default())
    }

    fn parent(&self) -> Option<ParentRef> {
        None
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}
