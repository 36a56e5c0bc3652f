//! cloop, compressed loop images of version 2: a header, a table of offsets, blocks of zlib. Read-only.
//!
//! See `docs/formats/cloop.md`.

mod disk;
mod inspect;

use crate::codec::Packing;
use crate::error::{Error, ErrorKind, Result};
use crate::format::read_only::{Contents, EncodedUnit, GuestRun, Held, ReadOnly, SizedStorage};
use crate::format::{Format, FormatDriver, OpenContext, Signature};

use disk::{HEADER_LEN, Header, SCRIPT, Table};

/// The cloop format.
pub static DRIVER: FormatDriver = FormatDriver {
    signature: Some(Signature {
        rank: 120,
        fits: |file| file.starts(SCRIPT),
        footer: None,
    }),
    ..FormatDriver::read_only("cloop", open, inspect::inspect)
};

/// The state of an open image.
#[derive(Debug)]
struct Cloop {
    header: Header,
    table: Table,
}

fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    let source = SizedStorage::new(context.storage)?;
    let policy = context.opener.policy();
    let mut head = [0; HEADER_LEN];
    source.storage.read_at(&mut head, 0)?;
    let header = Header::from_bytes(&head)?;
    policy.check_decompressed(u64::from(header.block_size))?;
    let table = Table::read(&*source.storage, source.len, &header, policy)?;
    let contents = Cloop { header, table };
    Ok(Box::new(ReadOnly::new(&DRIVER, source, contents)))
}

impl Contents for Cloop {
    fn len(&self) -> u64 {
        self.header.virtual_size()
    }

    /// The block that contains the offset.
    fn run(&self, _: &SizedStorage, offset: u64, _: u64) -> Result<GuestRun> {
        let len = u64::from(self.header.block_size);
        let index = offset / len;
        let guest = index * len;
        let (host, end) = self
            .table
            .block(index)
            .ok_or_else(|| Error::new(ErrorKind::Internal, "A read passes the end of the table"))?;
        let unit = EncodedUnit {
            guest,
            len,
            host,
            encoded: end - host,
            packing: Packing::Zlib,
        };
        Ok(GuestRun {
            held: Held::Unit(unit),
            end: guest + len,
        })
    }
}
