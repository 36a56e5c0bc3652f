//! Reading guest bytes that a file stores in separately encoded units.

use std::cell::RefCell;
use std::sync::Arc;

use crate::codec::{Packing, Unpacker};
use crate::error::{Error, ErrorKind, Result};
use crate::format::decoded::DecodedUnits;
use crate::memory::IoBuf;
use crate::storage::{Step, steps};

use super::sized_storage::SizedStorage;

/// The location of a unit, in the guest and in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EncodedUnit {
    /// Its first guest byte.
    pub(crate) guest: u64,
    /// Number of guest bytes, at most what the open policy allows for a unit.
    pub(crate) len: u64,
    /// The offset of its encoded bytes in the file.
    pub(crate) host: u64,
    /// The number of encoded bytes.
    pub(crate) encoded: u64,
    /// How they are encoded.
    pub(crate) packing: Packing,
}

/// Reads units and caches those of which only a part was requested.
#[derive(Debug, Default)]
pub(crate) struct UnitReader {
    decoded: DecodedUnits,
}

#[derive(Default)]
struct Tools {
    unpacker: Unpacker,
    input: IoBuf,
}

thread_local! {
    static TOOLS: RefCell<Tools> = RefCell::default();
}

impl UnitReader {
    /// Fills `buf` with the guest bytes at `offset`, which lie in the unit.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the unit does not decode to what it should contain.
    pub(crate) fn read(
        &self,
        source: &SizedStorage,
        unit: &EncodedUnit,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<()> {
        let bytes = if buf.len() as u64 == unit.len {
            match self.decoded.get_or_wait(unit.guest, unit.len) {
                Some(bytes) => bytes,
                None => return decode(source, unit, buf),
            }
        } else {
            self.unit(source, unit)?
        };
        let from = offset.saturating_sub(unit.guest) as usize;
        let part = bytes.get(from..from.saturating_add(buf.len()));
        let part =
            part.ok_or_else(|| Error::new(ErrorKind::Internal, "A read passes the end of a unit"))?;
        buf.copy_from_slice(part);
        Ok(())
    }

    /// A decoded unit, which is then cached.
    ///
    /// # Errors
    /// As [`UnitReader::read`].
    pub(super) fn unit(&self, source: &SizedStorage, unit: &EncodedUnit) -> Result<Arc<IoBuf>> {
        self.decoded.get_or_decode(unit.guest, unit.len, |plain| {
            decode(source, unit, plain.room(unit.len as usize)?)
        })
    }

    /// Allows this many bytes to be cached beyond the usual limit.
    pub(super) fn keep_more(&self, bytes: usize) {
        self.decoded.keep_more(bytes);
    }
}

/// Decodes a whole unit into `out`, which has the length of the unit.
///
/// # Errors
/// [`ErrorKind::Corrupt`] if it does not decode to what it should contain.
pub(crate) fn decode(source: &SizedStorage, unit: &EncodedUnit, out: &mut [u8]) -> Result<()> {
    // Check before allocating memory for data that does not exist.
    let end = unit.host.checked_add(unit.encoded);
    if end.is_none_or(|end| end > source.len) {
        return Err(damaged(source, unit, "the file ends before it does"));
    }
    // Incompressible data becomes slightly longer.
    if unit.encoded > unit.len.saturating_mul(2).saturating_add(65536) {
        return Err(damaged(source, unit, "it is far longer than its contents"));
    }
    // Taken while in use: the storage below may be an image with encoded units.
    let mut tools = TOOLS.take();
    let result = decode_with(&mut tools, source, unit, out);
    TOOLS.set(tools);
    result
}

fn decode_with(
    tools: &mut Tools,
    source: &SizedStorage,
    unit: &EncodedUnit,
    out: &mut [u8],
) -> Result<()> {
    let Tools { unpacker, input } = tools;
    steps::announce(&*source.storage, Step::ReadCompressed);
    let storage = &source.storage;
    storage.read_at(input.room(unit.encoded as usize)?, unit.host)?;
    let decoded = unpacker.unpack(unit.packing, input, out);
    decoded.map_err(|_| {
        let why = format!(
            "it does not decode as {} to {} bytes",
            unit.packing.name(),
            unit.len
        );
        damaged(source, unit, &why)
    })
}

fn damaged(source: &SizedStorage, unit: &EncodedUnit, why: &str) -> Error {
    let why = format!(
        "the compressed data of offset {} is damaged: {why}",
        unit.guest
    );
    source.damaged(&why).with_offset(unit.host)
}
