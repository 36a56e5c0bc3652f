//! An archive that is written in order. What precedes the disk contains its length and digest, so the disk is generated
//! twice: once to determine these, and once to be written.

use parking_lot::Mutex;

use crate::codec::Encoder;
use crate::crypto::Hasher;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{InOrder, TakeBytes};
use crate::memory::{self, IoBuf};

use super::front::{Front, HASH, Written, back_len};

/// An archive that is being written.
#[derive(Debug)]
pub(super) struct OvaInOrder {
    image: Box<dyn InOrder>,
    front: Front,
    capacity: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    hasher: Hasher,
    len: u64,
    populated: u64,
    /// The result of the first pass.
    first: Option<Written>,
}

impl OvaInOrder {
    pub(super) fn new(image: Box<dyn InOrder>, front: Front, capacity: u64) -> Self {
        Self {
            image,
            front,
            capacity,
            state: Mutex::new(State {
                hasher: HASH.hasher(),
                len: 0,
                populated: 0,
                first: None,
            }),
        }
    }
}

impl State {
    /// Counts bytes of the disk, and writes them in the second pass.
    fn disk_bytes(&mut self, bytes: &[u8], take: &mut TakeBytes<'_>) -> Result<()> {
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        match self.first {
            Some(_) => take(bytes),
            None => Ok(()),
        }
    }

    fn written(&mut self) -> Written {
        Written {
            len: std::mem::take(&mut self.len),
            populated: std::mem::take(&mut self.populated),
            digest: std::mem::replace(&mut self.hasher, HASH.hasher()).finish(),
        }
    }
}

impl InOrder for OvaInOrder {
    fn unit(&self) -> u32 {
        self.image.unit()
    }

    fn passes(&self) -> u32 {
        2
    }

    fn encode(
        &self,
        scratch: &mut Encoder,
        guest_offset: u64,
        unit: &[u8],
        out: &mut IoBuf,
    ) -> Result<()> {
        self.image.encode(scratch, guest_offset, unit, out)
    }

    fn begin(&self, take: &mut TakeBytes<'_>) -> Result<()> {
        let state = &mut *self.state.lock();
        if let Some(first) = &state.first {
            take(&self.front.bytes(first)?)?;
        }
        self.image.begin(&mut |bytes| state.disk_bytes(bytes, take))
    }

    fn push(&self, guest_offset: u64, encoded: &[u8], take: &mut TakeBytes<'_>) -> Result<()> {
        let state = &mut *self.state.lock();
        let left = self.capacity.saturating_sub(guest_offset);
        state.populated += u64::from(self.unit()).min(left);
        self.image.push(guest_offset, encoded, &mut |bytes| {
            state.disk_bytes(bytes, take)
        })
    }

    fn end(&self, take: &mut TakeBytes<'_>) -> Result<()> {
        let state = &mut *self.state.lock();
        self.image.end(&mut |bytes| state.disk_bytes(bytes, take))?;
        let written = state.written();
        match &state.first {
            None => {
                state.first = Some(written);
                Ok(())
            }
            Some(first) if *first == written => {
                take(&memory::zeroed(back_len(written.len)? as usize)?)
            }
            Some(_) => Err(Error::new(
                ErrorKind::Invalid,
                "The source changed while it was read: the archive that was begun is not whole",
            )),
        }
    }
}
