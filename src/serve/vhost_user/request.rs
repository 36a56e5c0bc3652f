//! One request of a guest, which is untrusted.

use std::io::{IoSliceMut, Read, Write};
use std::time::Instant;

use virtio_queue::{DescriptorChain, Reader, Writer};
use vm_memory::{GuestMemoryBackend, GuestMemoryLoadGuard, GuestMemoryMmap, VolatileSlice};

use crate::error::{Error, ErrorKind, Result};
use crate::image::{Image, TryPlace, TryRead, WriteFlags};
use crate::log::Level;
use crate::memory;
use crate::serve::budget::Held;
use crate::serve::export::Export;
use crate::serve::shared::Shared;
use crate::storage::ZeroFlags;
use crate::sys::rw::{try_preadv_shared, zero_shared};

use super::layout::{HEAD, Head, ID, Kind, SECTOR, SEGMENT, SEGMENT_SECTORS, SEGMENTS, Segment};

/// The guest's memory as it was when the request was taken.
pub(super) type Memory = GuestMemoryLoadGuard<GuestMemoryMmap>;
/// The descriptors of a request.
pub(super) type Chain = DescriptorChain<Memory>;

/// Data is transferred in pieces of this size.
const PIECE: usize = 1 << 20;
/// Reads up to this length are carried out immediately if that does not block: handing one to another thread takes
/// longer than copying it.
const QUICK: usize = 256 << 10;
/// From this length on, copying takes longer than that.
const LONG: usize = 64 << 10;

const STATUS_OK: u8 = 0;
const STATUS_IOERR: u8 = 1;
const STATUS_UNSUPP: u8 = 2;

/// Carries out a request and writes its status; returns how many bytes of guest memory were written.
pub(super) fn carry_out(shared: &Shared, export: &Export, durable: bool, chain: &Chain) -> u32 {
    shared.counters.request();
    let answered = answer(shared, export, durable, chain);
    // A chain without space for the status gets none.
    answered.unwrap_or_else(|| {
        shared.counters.failure();
        0
    })
}

fn answer(shared: &Shared, export: &Export, durable: bool, chain: &Chain) -> Option<u32> {
    let memory = chain.memory();
    let mut writer: Writer<'_> = chain.clone().writer(memory).ok()?;
    let data = writer.available_bytes().checked_sub(1)?;
    let mut status = writer.split_at(data).ok()?;
    let done = chain
        .clone()
        .reader(memory)
        .map_err(|_| malformed())
        .and_then(|mut reader| {
            let mut request = Request {
                shared,
                export,
                durable,
                reader: &mut reader,
                writer: &mut writer,
            };
            request.run()
        });
    let code = match done {
        Ok(()) => STATUS_OK,
        Err(error) => {
            shared.counters.failure();
            failed(shared, export, error)
        }
    };
    status.write_all(&[code]).ok()?;
    u32::try_from(writer.bytes_written() + 1).ok()
}

/// What else the thread of a queue has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// More requests are waiting, and no other thread is working on one.
    Wait,
    /// Nothing, or other threads are already working on it.
    AtWork,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Straight {
    Done,
    Impossible,
}

/// Reads that do not block, among the requests that one thread takes from a queue.
pub(super) struct QuickReads<'a> {
    shared: &'a Shared,
    export: &'a Export,
    /// Memory for what is not read directly into guest memory, once it is needed.
    buffer: Option<Held>,
}

impl<'a> QuickReads<'a> {
    pub(super) fn new(shared: &'a Shared, export: &'a Export) -> Self {
        Self {
            shared,
            export,
            buffer: None,
        }
    }

    /// Carries out a request as [`carry_out`] does; None if it may block, fails, or is better done by another thread:
    /// it still has to be carried out then.
    pub(super) fn read(&mut self, chain: &Chain, others: Others) -> Option<u32> {
        let memory = chain.memory();
        let mut reader: Reader<'_> = chain.clone().reader(memory).ok()?;
        let mut head = [0; HEAD];
        reader.read_exact(&mut head).ok()?;
        let head = Head::from_bytes(head);
        if head.kind != Some(Kind::In) {
            return None;
        }
        let mut writer: Writer<'_> = chain.clone().writer(memory).ok()?;
        let len = writer.available_bytes().checked_sub(1)?;
        if len > QUICK {
            return None;
        }
        let at = checked_place(self.export, head.sector, len as u64).ok()?;
        let place = self.export.place(at);
        let mut status = writer.split_at(len).ok()?;
        let straight = self.export.with(|image| {
            image.try_place(place, len as u64, |place| match place {
                TryPlace::Zero => {
                    zero_shared(&writable(chain, len)?);
                    Some(Straight::Done)
                }
                TryPlace::File(..) if len >= LONG && others == Others::Wait => None,
                TryPlace::File(file, at) => {
                    let read = try_preadv_shared(file, &writable(chain, len)?, at);
                    (read.ok()? == len).then_some(Straight::Done)
                }
                TryPlace::Elsewhere => Some(Straight::Impossible),
            })
        });
        if straight.ok()?? == Straight::Impossible {
            self.copy(place, len, &mut writer)?;
        }
        status.write_all(&[STATUS_OK]).ok()?;
        self.shared.counters.request();
        self.shared.counters.read(len as u64);
        u32::try_from(len + 1).ok()
    }

    /// Releases its memory: a thread that holds some must not wait for more.
    pub(super) fn release(&mut self) {
        self.buffer = None;
    }

    fn copy(&mut self, place: u64, len: usize, writer: &mut Writer<'_>) -> Option<()> {
        if self.buffer.is_none() {
            let taken = self.shared.budget.take(QUICK, Instant::now());
            self.buffer = taken.ok()?;
        }
        let data = self.buffer.as_mut()?.buffer_mut().get_mut(..len)?;
        let read = self
            .export
            .with(|image| image.try_read(&mut [IoSliceMut::new(data)], place, 0));
        if !matches!(read, Ok(TryRead::Done)) {
            return None;
        }
        writer.write_all(data).ok()
    }
}

/// The first `len` bytes that the device may write.
fn writable(chain: &Chain, len: usize) -> Option<Vec<VolatileSlice<'_>>> {
    let (mut slices, mut left) = (Vec::new(), len);
    for piece in chain.clone().writable() {
        let count = left.min(piece.len() as usize);
        for part in chain.memory().get_slices(piece.addr(), count) {
            memory::push(&mut slices, part.ok()?).ok()?;
        }
        left -= count;
    }
    (left == 0).then_some(slices)
}

fn failed(shared: &Shared, export: &Export, error: Error) -> u8 {
    match error.kind() {
        ErrorKind::Unsupported => STATUS_UNSUPP,
        // The guest's own fault.
        ErrorKind::Invalid => STATUS_IOERR,
        _ => {
            let message = format!(
                "A request of a guest to '{}' failed",
                export.image().filename()
            );
            shared.note(Level::Error, error.context(message));
            STATUS_IOERR
        }
    }
}

fn malformed() -> Error {
    Error::invalid("A request of the guest is malformed")
}

/// The offset in the export, if the range lies within the device.
fn checked_place(export: &Export, sector: u64, len: u64) -> Result<u64> {
    let at = sector.checked_mul(SECTOR).ok_or_else(malformed)?;
    let end = at.checked_add(len).ok_or_else(malformed)?;
    let device = export.len() / SECTOR * SECTOR;
    match end <= device && len.is_multiple_of(SECTOR) {
        true => Ok(at),
        false => Err(malformed()),
    }
}

struct Request<'a, 'm> {
    shared: &'a Shared,
    export: &'a Export,
    /// Whether writes must be durable before they are completed.
    durable: bool,
    reader: &'a mut Reader<'m>,
    writer: &'a mut Writer<'m>,
}

impl Request<'_, '_> {
    fn run(&mut self) -> Result<()> {
        let mut head = [0; HEAD];
        self.reader.read_exact(&mut head).map_err(|_| malformed())?;
        let head = Head::from_bytes(head);
        let unknown = || Error::unsupported("A request of the guest is not known");
        let kind = head.kind.ok_or_else(unknown)?;
        let changes = matches!(kind, Kind::Out | Kind::Discard | Kind::WriteZeroes);
        if changes && !self.export.writable() {
            return Err(Error::invalid("The device can only be read"));
        }
        match kind {
            Kind::In => self.read(head.sector),
            Kind::Out => self.write(head.sector),
            Kind::Flush => self.export.with(Image::flush),
            Kind::GetId => self.name(),
            Kind::Discard => self.change(0, |image, at, len, _| image.discard(at, len)),
            Kind::WriteZeroes => self.change(Segment::UNMAP, |image, at, len, flags| {
                let mut zero = ZeroFlags::empty();
                zero.set(ZeroFlags::MAY_UNMAP, flags & Segment::UNMAP != 0);
                image.write_zeroes(at, len, zero)
            }),
        }
    }

    fn read(&mut self, sector: u64) -> Result<()> {
        let mut left = self.writer.available_bytes();
        let mut at = checked_place(self.export, sector, left as u64)?;
        self.shared.counters.read(left as u64);
        while left > 0 {
            let len = left.min(PIECE);
            let mut held = self.shared.buffer(len)?;
            let place = self.export.place(at);
            self.export
                .with(|image| image.read_at(held.buffer_mut(), place))?;
            self.writer
                .write_all(held.buffer())
                .map_err(|_| malformed())?;
            at += len as u64;
            left -= len;
        }
        Ok(())
    }

    fn write(&mut self, sector: u64) -> Result<()> {
        let mut left = self.reader.available_bytes();
        let mut at = checked_place(self.export, sector, left as u64)?;
        self.shared.counters.written(left as u64);
        while left > 0 {
            let len = left.min(PIECE);
            let mut held = self.shared.buffer(len)?;
            self.reader
                .read_exact(held.buffer_mut())
                .map_err(|_| malformed())?;
            let place = self.export.place(at);
            self.export
                .with(|image| image.write_at(held.buffer(), place))?;
            at += len as u64;
            left -= len;
        }
        self.sync_if_durable()
    }

    /// Changes ranges of the device; all are checked before the first one is changed.
    fn change(
        &mut self,
        known: u32,
        change: impl Fn(&Image, u64, u64, u32) -> Result<()>,
    ) -> Result<()> {
        let len = self.reader.available_bytes();
        let count = len / SEGMENT;
        if count == 0 || !len.is_multiple_of(SEGMENT) || count > SEGMENTS as usize {
            return Err(malformed());
        }
        let mut ranges = [(0, 0, 0); SEGMENTS as usize];
        for range in ranges.iter_mut().take(count) {
            let mut bytes = [0; SEGMENT];
            self.reader
                .read_exact(&mut bytes)
                .map_err(|_| malformed())?;
            let segment = Segment::from_bytes(bytes);
            if segment.flags & !known != 0 {
                return Err(Error::unsupported("A flag of a request is not known"));
            }
            if segment.sectors > SEGMENT_SECTORS {
                return Err(malformed());
            }
            let len = u64::from(segment.sectors) * SECTOR;
            *range = (
                checked_place(self.export, segment.sector, len)?,
                len,
                segment.flags,
            );
        }
        for (at, len, flags) in ranges.into_iter().take(count) {
            let place = self.export.place(at);
            self.export.with(|image| change(image, place, len, flags))?;
        }
        self.sync_if_durable()
    }

    fn sync_if_durable(&self) -> Result<()> {
        match self.durable {
            true => self
                .export
                .with(|image| image.change(WriteFlags::FUA, |_| Ok(()))),
            false => Ok(()),
        }
    }

    fn name(&mut self) -> Result<()> {
        let mut id = [0; ID];
        for (place, byte) in id.iter_mut().zip(self.export.name().iter()) {
            *place = *byte;
        }
        let len = self.writer.available_bytes().min(ID);
        let id = id.get(..len).unwrap_or_default();
        self.writer.write_all(id).map_err(|_| malformed())
    }
}
