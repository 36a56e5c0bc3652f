//! Writing to a stream: each change of a grain appends a new one, even if it already has a place, and from then on the
//! table refers to the new one.

use std::cell::RefCell;

use crate::codec::Encoder;
use crate::error::Result;
use crate::format::Below;
use crate::memory::{self, IoBuf};
use crate::size::SECTOR;
use crate::storage::{Step, steps};

use super::encode::encode_grain;
use super::read::Kept;
use super::sparse::Grain;
use super::write::ExtentWriter;

thread_local! {
    /// The thread's compression state, and a buffer for a grain.
    static ENCODER: RefCell<(Encoder, IoBuf)> = RefCell::default();
}

impl ExtentWriter<'_> {
    /// Writes the beginning of `buf`, up to the end of the grain; returns the number of bytes.
    pub(super) fn append(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<u64> {
        let sparse = self.sparse;
        let number = offset / sparse.grain;
        let start = number * sparse.grain;
        let whole = sparse.len().saturating_sub(start).min(sparse.grain);
        let len = (start + whole - offset).min(buf.len() as u64);
        let data = buf.get(..len as usize).unwrap_or(buf);
        let _mine = self.hold(&(number..number + 1));
        let (index, entry) = sparse.indices(offset);
        let table = sparse.table_to_change(index)?;
        let merged;
        let unit = match len == whole {
            true => data,
            false => {
                let mut bytes = self.held(start, whole, below)?;
                let within = (offset - start) as usize;
                if let Some(place) = bytes.get_mut(within..within + data.len()) {
                    place.copy_from_slice(data);
                }
                merged = bytes;
                &merged
            }
        };
        let (mut encoder, mut out) = ENCODER.take();
        let stored = encode_grain(&mut encoder, self.image.compression, start, unit, &mut out)
            .and_then(|()| {
                let place = sparse.reserve_row(out.len() as u64)?;
                steps::announce(&*sparse.storage, Step::WriteCompressed);
                sparse.storage.write_at(&out, place)?;
                Ok(place)
            });
        ENCODER.set((encoder, out));
        table.set(entry, stored? / SECTOR);
        Ok(len)
    }

    /// Reads a grain as the guest sees it.
    fn held(&self, start: u64, len: u64, below: &dyn Below) -> Result<IoBuf> {
        let mut bytes = memory::zeroed(len as usize)?;
        match self.sparse.lookup(start)? {
            Grain::Zero => {}
            Grain::At(_) => {
                self.sparse
                    .read_compressed(Kept(&self.image.decoded), &mut bytes, start)?
            }
            Grain::Absent => {
                let guest = self.base + start;
                if !below.is_zero_below(guest, len)? {
                    steps::announce(&*self.sparse.storage, Step::CowRead);
                    below.read_below(&mut bytes, guest)?;
                }
            }
        }
        Ok(bytes)
    }
}
