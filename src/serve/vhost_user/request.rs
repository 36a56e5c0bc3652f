//! One request of a guest, which may say anything.

use std::io::{Read, Write};

use virtio_queue::{DescriptorChain, Reader, Writer};
use vm_memory::{GuestMemoryLoadGuard, GuestMemoryMmap};

use crate::error::{Error, ErrorKind, Result};
use crate::image::{Image, WriteFlags};
use crate::log::Level;
use crate::serve::export::Export;
use crate::serve::shared::Shared;
use crate::storage::ZeroFlags;

use super::layout::{HEAD, Head, ID, Kind, SECTOR, SEGMENT, SEGMENT_SECTORS, SEGMENTS, Segment};

/// Memory of the guest as it was when the request was taken.
pub(super) type Memory = GuestMemoryLoadGuard<GuestMemoryMmap>;
/// The pieces of a request.
pub(super) type Chain = DescriptorChain<Memory>;

/// Data is carried in pieces of this size.
const PIECE: usize = 1 << 20;

const STATUS_OK: u8 = 0;
const STATUS_IOERR: u8 = 1;
const STATUS_UNSUPP: u8 = 2;

/// Carries a request out and writes its status; returns how many bytes of the guest were written.
pub(super) fn carry_out(shared: &Shared, export: &Export, durable: bool, chain: &Chain) -> u32 {
    shared.counters.request();
    let answered = answer(shared, export, durable, chain);
    // Nobody can be told of a chain that has no place for the status.
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

struct Request<'a, 'm> {
    shared: &'a Shared,
    export: &'a Export,
    /// What is written is durable before the answer.
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

    /// The place in the export, where the range lies in the device.
    fn range(&self, sector: u64, len: u64) -> Result<u64> {
        let at = sector.checked_mul(SECTOR).ok_or_else(malformed)?;
        let end = at.checked_add(len).ok_or_else(malformed)?;
        let device = self.export.len() / SECTOR * SECTOR;
        match end <= device && len.is_multiple_of(SECTOR) {
            true => Ok(at),
            false => Err(malformed()),
        }
    }

    fn read(&mut self, sector: u64) -> Result<()> {
        let mut left = self.writer.available_bytes();
        let mut at = self.range(sector, left as u64)?;
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
        let mut at = self.range(sector, left as u64)?;
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

    /// Changes ranges of the device; all are checked before the first is changed.
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
            *range = (self.range(segment.sector, len)?, len, segment.flags);
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
