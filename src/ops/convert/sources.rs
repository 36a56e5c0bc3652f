//! The images to read from, concatenated into one range of guest bytes.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::extent::ExtentKind;
use crate::image::{Image, ReadsAs};
use crate::ops::create::KeptFiles;
use crate::ops::error_text;
use crate::storage::ReadRange;

use super::checksum::Checksum;
use super::request::ConvertRequest;
use super::runs::{Run, RunKind};
use super::stream_source::{Fetched, StreamSource, Zeroes};
use super::window::{Window, grown_for_product, output_len};

/// The granularity at which unreadable bytes are located and salvaged.
const SECTOR: usize = 512;

/// The part of the source's chain that the target's backing file replaces.
#[derive(Clone, Copy, Debug)]
pub(super) struct BackedBelow {
    /// Layers at this depth and deeper are not copied.
    pub depth: u32,
    /// The length of the target's backing file: beyond it everything is copied.
    pub end: u64,
}

/// The sources in order.
pub(super) struct Sources {
    parts: Vec<Part>,
    /// The end of the bytes of the parts: from there on everything is zero.
    data_end: u64,
    /// None for a stream whose length is not known before it ends.
    len: Option<u64>,
    stream: Option<StreamSource>,
    backed: Option<BackedBelow>,
    salvage: Option<Mutex<Vec<String>>>,
    /// The checksum of the guest's bytes, if requested.
    checksum: Option<Arc<Checksum>>,
    /// The checksum of the compressed bytes that they come from, if those are read once and in order.
    container: Option<Arc<Checksum>>,
}

struct Part {
    start: u64,
    /// Where the part begins in the image.
    skip: u64,
    len: u64,
    image: Arc<Image>,
}

impl Sources {
    /// Concatenates `images`, of each only the window; with `salvage`, unreadable sectors become zeroes and a warning.
    pub fn new(images: Vec<Arc<Image>>, window: &Window, salvage: bool) -> Result<Self> {
        let mut end = 0u64;
        let mut parts = Vec::with_capacity(images.len());
        for image in images {
            let (skip, len) = window_of(&image, window)?;
            let start = end;
            end = end
                .checked_add(len)
                .filter(|end| *end <= i64::MAX as u64)
                .ok_or_else(|| Error::invalid("The sources are too large together"))?;
            if len > 0 {
                parts.push(Part {
                    start,
                    skip,
                    len,
                    image,
                });
            }
        }
        Ok(Self {
            parts,
            data_end: end,
            len: Some(output_len(end, window)?),
            stream: None,
            backed: None,
            salvage: salvage.then(Mutex::default),
            checksum: None,
            container: None,
        })
    }

    /// A single source that is read in order.
    pub fn from_stream(stream: StreamSource) -> Result<Self> {
        Ok(Self {
            parts: Vec::new(),
            data_end: 0,
            len: stream.output_len()?,
            container: stream.container_checksum(),
            stream: Some(stream),
            backed: None,
            salvage: None,
            checksum: None,
        })
    }

    /// Total number of guest bytes of all sources, if it is known already.
    pub fn known_len(&self) -> Option<u64> {
        self.len
    }

    /// The message about the size of the output, if the product has changed it by more than a little.
    pub fn grown_for_product(&self, window: &Window) -> Option<String> {
        let data = match &self.stream {
            Some(stream) => stream.known_data()?,
            None => self.data_end,
        };
        grown_for_product(data, self.len?, window)
    }

    /// Whether the bytes arrive in order, with nothing known about them in advance.
    pub fn is_stream(&self) -> bool {
        self.stream.is_some()
    }

    /// For a stream: reads on. Called in guest order, one call at a time.
    pub fn fetch(&self, offset: u64, len: u64, zeroes: Zeroes) -> Result<Fetched> {
        match &self.stream {
            Some(stream) => stream.fetch(offset, len, zeroes),
            None => Ok(Fetched::Positional),
        }
    }

    /// After everything was copied: fails if a stream holds more. Returns the length.
    pub fn finish(&self) -> Result<u64> {
        match &self.stream {
            Some(stream) => stream.finish(),
            None => Ok(self.len.unwrap_or(0)),
        }
    }

    /// Requests a checksum of all bytes.
    pub fn set_checksum(&mut self, checksum: Arc<Checksum>) {
        self.checksum = Some(checksum);
    }

    /// The checksum that is being computed.
    pub fn checksum(&self) -> Option<&Checksum> {
        self.checksum.as_deref()
    }

    /// Sets the checksum of the compressed bytes, too.
    pub fn set_container_checksum(&mut self, container: Option<Arc<Checksum>>) {
        self.container = container;
    }

    /// The checksum of the compressed bytes, which are read in order.
    pub fn container_checksum(&self) -> Option<Arc<Checksum>> {
        self.container.clone()
    }

    /// Leaves out what the target's backing file holds.
    pub fn set_backed(&mut self, backed: BackedBelow) {
        self.backed = Some(backed);
    }

    /// The files being read, which the conversion must not change.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub fn kept(&self, request: &ConvertRequest) -> Result<KeptFiles> {
        let reason = request.wording.source;
        let mut kept = KeptFiles::default();
        for part in &self.parts {
            kept.add(reason, &part.image)?;
        }
        if let Some((id, name)) = self.stream.as_ref().and_then(StreamSource::file) {
            kept.add_file(reason, id, name);
        }
        Ok(kept)
    }

    /// The images, with every layer of their chains.
    pub fn layers(&self) -> impl Iterator<Item = &Image> {
        self.parts.iter().flat_map(|part| {
            std::iter::successors(Some(&*part.image), |image| {
                image.backing().map(|backing| &**backing)
            })
        })
    }

    /// Number of requests that their files prefer to have in flight.
    pub fn in_flight(&self) -> u32 {
        let images = self.parts.iter().map(|part| &*part.image);
        images.map(Image::requests_in_flight).max().unwrap_or(1)
    }

    /// Warnings from salvaging since the last call.
    pub fn take_warnings(&self) -> Vec<String> {
        match &self.salvage {
            Some(warnings) => std::mem::take(&mut *warnings.lock()),
            None => Vec::new(),
        }
    }

    fn part_at(&self, offset: u64) -> Result<(&Part, u64)> {
        let after = self.parts.partition_point(|part| part.start <= offset);
        after
            .checked_sub(1)
            .and_then(|at| self.parts.get(at))
            .map(|part| (part, offset - part.start))
            .filter(|(part, relative)| *relative < part.len)
            .ok_or_else(|| {
                Error::new(
                    crate::ErrorKind::Internal,
                    format!("Offset {offset} is outside the sources"),
                )
            })
    }

    /// The first run at `offset`, at most `len` bytes.
    pub fn map(&self, offset: u64, len: u64) -> Result<Run<'_>> {
        if let Some(stream) = &self.stream {
            return Ok(stream.map(offset, len));
        }
        if offset >= self.data_end {
            return Ok(Run {
                len,
                kind: RunKind::Zero,
            });
        }
        let (part, relative) = self.part_at(offset)?;
        let len = len.min(part.len - relative);
        let found = match part.image.map(part.skip + relative, len) {
            Ok(found) => found,
            // Reading determines, sector by sector, what can be salvaged.
            Err(_) if self.salvage.is_some() => {
                return Ok(Run {
                    len: len.min(64 << 10),
                    kind: RunKind::Data { plain: None },
                });
            }
            Err(error) => {
                return Err(error.context(format!(
                    "error while reading block status at offset {offset}"
                )));
            }
        };
        let len = found.extent.len.min(len);
        if let Some(backed) = self.backed
            && found.depth >= backed.depth
            && offset < backed.end
        {
            return Ok(Run {
                len: len.min(backed.end - offset),
                kind: RunKind::Backed,
            });
        }
        let kind = match (found.reads_as(), found.extent.kind) {
            (ReadsAs::Zero, _) => RunKind::Zero,
            (ReadsAs::Data, ExtentKind::Data { slot, host_offset }) => RunKind::Data {
                plain: Some((found.layer.format().storage(slot)?, host_offset)),
            },
            // For unknown contents, reading reports the reason.
            (ReadsAs::Data | ReadsAs::Unknown, _) => RunKind::Data { plain: None },
        };
        Ok(Run { len, kind })
    }

    /// Fills each buffer with the guest bytes at its offset.
    pub fn read_many(&self, ranges: &mut [ReadRange<'_>]) -> Result<()> {
        if ranges.len() > 1 && self.read_together(ranges) {
            return Ok(());
        }
        for (offset, buf) in ranges {
            self.read(buf, *offset)?;
        }
        Ok(())
    }

    /// Reads all ranges with one request; false if they must be read one by one, if only to learn which one fails.
    fn read_together(&self, ranges: &mut [ReadRange<'_>]) -> bool {
        let [(first, _), ..] = ranges else {
            return true;
        };
        if self.stream.is_some() || *first >= self.data_end {
            return false;
        }
        let Ok((part, _)) = self.part_at(*first) else {
            return false;
        };
        let mut inside = Vec::with_capacity(ranges.len());
        for (offset, buf) in ranges {
            let relative = offset.checked_sub(part.start);
            let end = relative.and_then(|relative| relative.checked_add(buf.len() as u64));
            match relative.zip(end) {
                Some((relative, end)) if end <= part.len => {
                    inside.push((part.skip + relative, &mut **buf));
                }
                _ => return false,
            }
        }
        part.image.read_many_at(&mut inside).is_ok()
    }

    /// Fills `buf` with the guest bytes at `offset`.
    pub fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if let Some(stream) = &self.stream {
            return stream.take(buf, offset);
        }
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            if at >= self.data_end {
                buf[done..].fill(0);
                break;
            }
            let (part, relative) = self.part_at(at)?;
            let room = part.len - relative;
            let relative = part.skip + relative;
            let take = usize::try_from(room).map_or(buf.len() - done, |n| n.min(buf.len() - done));
            let piece = &mut buf[done..done + take];
            if let Err(error) = part.image.read_at(piece, relative) {
                match &self.salvage {
                    Some(warnings) => salvage(&part.image, piece, relative, at, warnings),
                    None => {
                        let bad = first_bad_sector(&part.image, piece, relative);
                        return Err(error_text::with_reason(
                            format!("error while reading at byte {}", at + bad),
                            error,
                        ));
                    }
                }
            }
            done += take;
        }
        Ok(())
    }
}

/// Where the window of an image begins, and its length.
fn window_of(image: &Image, window: &Window) -> Result<(u64, u64)> {
    let len = match window.input_size {
        Some(size) if size > image.len() => {
            return Err(Error::invalid(format!(
                "'{}' holds {} bytes, fewer than the {size} that are to be read",
                image.filename(),
                image.len()
            )));
        }
        Some(size) => size,
        None => image.len(),
    };
    let left = len.checked_sub(window.skip).ok_or_else(|| {
        Error::invalid("cannot skip to specified offset").context(image.location().display())
    })?;
    Ok((
        window.skip,
        window.limit.map_or(left, |limit| limit.min(left)),
    ))
}

/// Where in the range the first unreadable sector begins; 0 if all can be read this time.
fn first_bad_sector(image: &Image, buf: &mut [u8], offset: u64) -> u64 {
    let mut at = 0;
    for step in [64 << 10, 4 << 10, SECTOR] {
        while at < buf.len() {
            let end = (at + step).min(buf.len());
            if image
                .read_at(&mut buf[at..end], offset + at as u64)
                .is_err()
            {
                break;
            }
            at = end;
        }
    }
    if at < buf.len() { at as u64 } else { 0 }
}

/// Reads sector by sector; what cannot be read becomes zeroes and a warning.
fn salvage(image: &Image, buf: &mut [u8], offset: u64, shown: u64, warnings: &Mutex<Vec<String>>) {
    for (n, sector) in buf.chunks_mut(SECTOR).enumerate() {
        let skip = (n * SECTOR) as u64;
        if let Err(error) = image.read_at(sector, offset + skip) {
            sector.fill(0);
            let reason = Error::os(error.errno());
            warnings.lock().push(format!(
                "error while reading offset {}: {reason}",
                shown + skip
            ));
        }
    }
}
