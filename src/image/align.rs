//! Guest I/O that does not match the alignment of the format: whole units are read, patched and written.

use crate::error::Result;
use crate::format::{Format, Immediate};
use crate::image::Image;
use crate::memory::{self, IoBuf};
use crate::storage::ZeroFlags;

/// Maximum number of bytes in memory for one step of a bounced request.
const STEP: u64 = 1 << 20;

/// The whole units around a range, limited to the end of the disk; None if the range is aligned.
fn around(format: &dyn Format, offset: u64, len: u64) -> Option<(u64, u64)> {
    let unit = u64::from(format.request_alignment().max(1));
    let end = offset + len;
    let whole = |at: u64| at.is_multiple_of(unit) || at == format.len();
    if whole(offset) && whole(end) {
        return None;
    }
    let start = offset - offset % unit;
    let end = end.checked_next_multiple_of(unit).unwrap_or(u64::MAX);
    Some((start, end.min(format.len()) - start))
}

/// Reads bytes that the format encodes.
pub(super) fn read_encoded(format: &dyn Format, buf: &mut [u8], offset: u64) -> Result<()> {
    let read = |units: &mut [u8], at: u64| format.read_encoded(units, at).map(|()| true);
    read_units(format, buf, offset, read).map(drop)
}

/// As [`read_encoded`], unless that would block; if false, the contents of the buffer are undefined.
pub(super) fn try_read_encoded(
    format: &dyn Format,
    immediate: &dyn Immediate,
    buf: &mut [u8],
    offset: u64,
    may_decode: bool,
) -> Result<bool> {
    let read = |units: &mut [u8], at: u64| immediate.try_read_encoded(units, at, may_decode);
    read_units(format, buf, offset, read)
}

/// Fills `buf` by reading whole units; returns false as soon as `read` does.
fn read_units(
    format: &dyn Format,
    buf: &mut [u8],
    offset: u64,
    read: impl Fn(&mut [u8], u64) -> Result<bool>,
) -> Result<bool> {
    if around(format, offset, buf.len() as u64).is_none() {
        return read(buf, offset);
    }
    let mut done = 0;
    let mut bounce = IoBuf::new();
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = offset + done as u64;
        let part = rest.len().min(STEP as usize);
        let (start, len) = around(format, at, part as u64).unwrap_or((at, part as u64));
        bounce.room(len as usize)?;
        if !read(&mut bounce, start)? {
            return Ok(false);
        }
        let skip = (at - start) as usize;
        for (to, from) in rest.iter_mut().zip(bounce.iter().skip(skip)).take(part) {
            *to = *from;
        }
        done += part;
    }
    Ok(true)
}

/// Writes any range.
pub(super) fn write(image: &Image, buf: &[u8], offset: u64) -> Result<()> {
    let (format, writer) = (&*image.format, image.writer()?);
    if format.request_alignment() <= 1 {
        return writer.write(buf, offset, image);
    }
    if around(format, offset, buf.len() as u64).is_none() {
        let _shared = image.units.whole();
        return writer.write(buf, offset, image);
    }
    let _alone = image.units.parts();
    for (i, part) in buf.chunks(STEP as usize).enumerate() {
        let at = offset + i as u64 * STEP;
        patch(image, at, part.len() as u64, |bytes| {
            bytes.copy_from_slice(part);
        })?;
    }
    Ok(())
}

/// Zeroes any range.
pub(super) fn write_zeroes(image: &Image, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
    let (format, writer) = (&*image.format, image.writer()?);
    if format.request_alignment() <= 1 {
        return writer.write_zeroes(offset, len, flags, image);
    }
    if around(format, offset, len).is_none() {
        let _shared = image.units.whole();
        return writer.write_zeroes(offset, len, flags, image);
    }
    let _alone = image.units.parts();
    let unit = u64::from(format.request_alignment());
    let end = offset + len;
    let first = offset.next_multiple_of(unit).min(end);
    let last = (end - end % unit).max(first);
    if offset < first {
        patch(image, offset, first - offset, |bytes| bytes.fill(0))?;
    }
    if first < last {
        writer.write_zeroes(first, last - first, flags, image)?;
    }
    if last < end {
        patch(image, last, end - last, |bytes| bytes.fill(0))?;
    }
    Ok(())
}

/// Reads the units around a range, changes the range and writes them back.
fn patch(image: &Image, offset: u64, len: u64, change: impl FnOnce(&mut [u8])) -> Result<()> {
    let (start, whole) = around(&*image.format, offset, len).unwrap_or((offset, len));
    let mut bytes = memory::zeroed(whole as usize)?;
    image.read_layer(&mut bytes, start)?;
    let skip = (offset - start) as usize;
    if let Some(part) = bytes.get_mut(skip..skip + len as usize) {
        change(part);
    }
    image.writer()?.write(&bytes, start, image)
}
