//! `rebase`: changes the backing file of an overlay.

use std::ops::Range;

use bstr::{BString, ByteSlice};

use crate::crew::Load;
use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Extent, ExtentKind};
use crate::format::{BackingRef, Compress, NewParent};
use crate::image::{Image, Nodes, OpenOptions};
use crate::job::Job;
use crate::location::Location;
use crate::memory::IoBuf;
use crate::ops::compare::side::Side;
use crate::ops::create::parent_of;
use crate::ops::error_text::with_reason;
use crate::ops::forecast::{self, Forecast, Run};
use crate::ops::known;
use crate::ops::workers::{Pace, in_pieces};
use crate::options::Options;
use crate::storage::{CacheMode, ZeroFlags};
use crate::zero::is_zero;

/// Minimum number of guest bytes that a thread takes at a time.
const PIECE: u64 = 16 << 20;
/// Bytes that a thread reads at once from either chain, unless the unit of compression is larger.
const BUFFER: u64 = 2 << 20;

/// What to rebase, and onto which backing file.
#[derive(Clone, Debug)]
pub struct RebaseRequest {
    /// The overlay.
    pub location: Location,
    /// How the overlay and its chain are opened; the overlay is opened for writing.
    pub options: OpenOptions,
    /// The new backing file, as the overlay is to record it; None for no backing file.
    pub backing: Option<BString>,
    /// The format of the new backing file, which is recorded.
    pub backing_format: Option<String>,
    /// The cache mode of the new backing file.
    pub backing_cache: CacheMode,
    /// Open the new backing file without locks that exclude others.
    pub share_backing: bool,
    /// Change only the name: no backing file is opened, and the guest may see different data.
    pub name_only: bool,
    /// Compress what is copied.
    pub compress: bool,
}

/// Opens the overlay, copies into it what its present backing chain shows and the new one does not, makes that durable,
/// and then changes the name of the backing file. Whatever fails, and whenever it is cancelled, the overlay still reads
/// as before.
///
/// # Errors
/// If opening fails; [`ErrorKind::Unsupported`] if the format has no backing files; if I/O fails.
pub fn rebase(request: &RebaseRequest, job: &mut Job) -> Result<()> {
    let nodes = request.options.nodes.clone().unwrap_or_default();
    let options = OpenOptions {
        nodes: Some(nodes.clone()),
        writable: true,
        backing: !request.name_only,
        metadata_only: false,
        for_check: false,
        force_share: false,
        ..request.options.within(job)
    };
    let opened = Image::open(&request.location, &options)?;
    for warning in opened.warnings() {
        job.warn(warning.clone());
    }
    rebase_opened(opened, nodes, request, job)
}

/// As [`rebase`], for an overlay that is already open for writing, with its chain if its data matters; it is closed,
/// even if this fails. The options of `request` are those with which the new backing file is opened.
///
/// # Errors
/// As [`rebase`]; [`ErrorKind::ReadOnly`], [`ErrorKind::Invalid`] if the backing file was not opened.
pub fn rebase_image(opened: Image, request: &RebaseRequest, job: &mut Job) -> Result<()> {
    let nodes = request.options.nodes.clone().unwrap_or_default();
    rebase_opened(opened, nodes, request, job)
}

fn rebase_opened(
    opened: Image,
    nodes: Nodes,
    request: &RebaseRequest,
    job: &mut Job,
) -> Result<()> {
    // The overlay is behind the filter: it has the backing file to change, and the layers to examine.
    let top = opened.behind_filter().unwrap_or(&opened);
    opened.check_changeable(false)?;
    top.check_changeable(!request.name_only)?;
    if let Some(name) = &request.backing_format
        && !known::is_known(name)
    {
        return Err(Error::invalid(format!("Invalid format name: '{name}'")));
    }
    if request.compress && opened.compressor().is_none() {
        return Err(Error::no_compression());
    }
    let new = open_new(top, nodes.apart(), request, job)?;
    if let Some(new) = &new {
        top.check_apart(new.layers())?;
    } else if let Some(name) = &request.backing {
        let named = BackingRef::to_record(name.clone(), request.backing_format.as_deref());
        top.check_apart_named(&named, &request.options.within(job))?;
    }
    let shown = request.backing.clone().unwrap_or_default();
    let change = format!("Could not change the backing file to '{shown}'");
    let Some(backing) = top.format().backing_change() else {
        return Err(with_reason(change, Error::os(libc::ENOTSUP)));
    };
    let named = match (&request.backing, &request.backing_format) {
        (None, _) => None,
        (Some(_), None) => {
            return Err(Error::invalid("backing format must be specified").context(change));
        }
        (Some(name), format) => Some(BackingRef::to_record(name.clone(), format.as_deref())),
    };
    let parent = match &new {
        Some(new) => Some(parent_of(new)),
        None => parent_by_name(top, request, job)?,
    };
    // What cannot be recorded is detected before anything is copied.
    if let Err(error) = backing.check_backing(named.as_ref(), parent.as_ref()) {
        return Err(with_reason(change, error));
    }
    let id = parent.and_then(|parent| parent.id);
    if let (Some(new), Some(id), Some(named)) = (&new, id, &named) {
        top.check_search(new, id, named.name.as_bstr(), &request.options.policy)
            .map_err(|error| with_reason(change.clone(), error))?;
    }
    job.tick()?;
    if !request.name_only {
        let rebaser = Rebaser::new((&opened, top), new.as_ref(), request.compress);
        in_pieces(
            rebaser.forecast(),
            PIECE.next_multiple_of(rebaser.buffer),
            rebaser.load(new.as_ref()),
            job,
            Buffers::default,
            |range, buffers, pace| rebaser.piece(range, buffers, pace),
        )
        .and_then(|()| opened.flush())
        .map_err(|error| {
            error.context_if_bare(|| format!("Could not rebase '{}'", top.filename()))
        })?;
    }
    top.begin_change()
        .and_then(|_under_way| backing.set_backing(named.as_ref(), parent.as_ref()))
        .map_err(|error| with_reason(change, error))?;
    opened.close()?;
    job.finish()
}

/// What is known of a new backing file whose data does not matter, if the format records that and the file exists. One
/// that cannot be examined is not treated as missing: what is recorded about the old parent would then be attributed to
/// another file.
fn parent_by_name(top: &Image, request: &RebaseRequest, job: &Job) -> Result<Option<NewParent>> {
    let Some(name) = &request.backing else {
        return Ok(None);
    };
    if top.format().parent_id().is_none() {
        return Ok(None);
    }
    let options = OpenOptions {
        format: request.backing_format.clone(),
        driver_options: Options::new(),
        writable: false,
        metadata_only: true,
        force_share: true,
        nodes: None,
        for_check: false,
        deny_writers: false,
        ..request.options.within(job)
    };
    let Ok(location) = Location::parse_name(top.name_beside(name)) else {
        return Ok(None);
    };
    match Image::open(&location, &options) {
        Ok(image) => Ok(Some(parent_of(&image))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(not_opened(name, error)),
    }
}

/// The error of a new backing file that could not be opened.
fn not_opened(name: &BString, error: Error) -> Error {
    let message = format!("Could not open new backing file '{name}'");
    if error.cause().is_some() {
        // Replaces "Could not open '…'".
        error.with_message(message)
    } else {
        error.context(message)
    }
}

/// The new backing chain, if there is to be one and its data matters.
fn open_new(
    top: &Image,
    nodes: Nodes,
    request: &RebaseRequest,
    job: &Job,
) -> Result<Option<Image>> {
    let Some(name) = request.backing.as_ref().filter(|_| !request.name_only) else {
        return Ok(None);
    };
    let options = OpenOptions {
        format: request.backing_format.clone(),
        driver_options: Options::new(),
        writable: false,
        backing: true,
        metadata_only: false,
        for_check: false,
        deny_writers: false,
        cache: request.backing_cache,
        force_share: request.share_backing,
        nodes: Some(nodes),
        ..request.options.within(job)
    };
    let opened = Location::parse_name(top.name_beside(name))
        .and_then(|location| Image::open(&location, &options));
    opened.map(Some).map_err(|error| not_opened(name, error))
}

#[derive(Default)]
struct Buffers {
    old: IoBuf,
    new: IoBuf,
}

/// One backing chain; without one, zeroes.
struct Chain<'a> {
    image: Option<&'a Image>,
    side: Side<'a>,
}

impl<'a> Chain<'a> {
    fn new(image: Option<&'a Image>) -> Self {
        Self {
            image,
            side: Side::new(image),
        }
    }

    fn read(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let Some(image) = self.image else {
            buf.fill(0);
            return Ok(());
        };
        let held = usize::try_from(image.len().saturating_sub(at)).unwrap_or(usize::MAX);
        let (held, beyond) = buf.split_at_mut(held.min(buf.len()));
        beyond.fill(0);
        if held.is_empty() {
            return Ok(());
        }
        image.read_at(held, at)
    }
}

/// Where the run at `at` ends, and whether both chains are known to read the same there.
fn step(old: &mut Side<'_>, new: &mut Side<'_>, at: u64, limit: u64) -> Result<(u64, bool)> {
    old.look_up(at, limit)?;
    new.look_up(at, limit)?;
    let place = old.place_at(at);
    let same_place = !old.zero() && place.is_some() && place == new.place_at(at);
    let same = same_place || (old.zero() && new.zero());
    Ok((old.end().min(new.end()).min(limit), same))
}

struct Rebaser<'a> {
    /// What is written to: the overlay, or the filter above it, which is involved in every request.
    shown: &'a Image,
    top: &'a Image,
    old: Chain<'a>,
    new: Chain<'a>,
    compressor: Option<&'a dyn Compress>,
    /// Number of bytes that are compared and copied together.
    unit: u64,
    /// Maximum number of bytes read at once, a multiple of the unit.
    buffer: u64,
}

impl<'a> Rebaser<'a> {
    fn new((shown, top): (&'a Image, &'a Image), new: Option<&'a Image>, compress: bool) -> Self {
        let format = top.format();
        let compressor = shown.compressor().filter(|_| compress);
        let unit = match compressor {
            Some(compressor) => u64::from(compressor.encode_unit()).max(512),
            // Larger units are written in parts, one after the other.
            None => u64::from(format.layer_unit().unwrap_or(65536)).clamp(512, BUFFER),
        };
        Self {
            shown,
            top,
            old: Chain::new(top.backing().map(AsRef::as_ref)),
            new: Chain::new(new),
            compressor,
            unit,
            buffer: BUFFER.next_multiple_of(unit),
        }
    }

    fn load(&self, new: Option<&Image>) -> Load {
        let top = self.top.requests_in_flight();
        Load {
            in_flight: new.map_or(top, |new| top.max(new.requests_in_flight())),
            computes: self.compressor.is_some(),
            bytes: 2 * self.buffer,
        }
    }

    /// What the overlay holds, even if it has no backing file yet.
    fn held(&self, at: u64, len: u64) -> Result<Extent> {
        match self.top.format().backing_change() {
            Some(backing) => backing.map_held(at, len),
            None => self.top.format().map(at, len),
        }
    }

    /// Counts what is compared, and copied if it differs.
    fn forecast(&self) -> Forecast<impl FnMut(u64) -> Result<Run>> {
        let chains = [&self.old, &self.new]
            .into_iter()
            .filter_map(|chain| chain.image);
        let estimate = forecast::held_by(chains.flat_map(forecast::layers));
        let len = self.top.len();
        let (mut old, mut new) = (self.old.side.clone(), self.new.side.clone());
        let mut shown = 0..0;
        Forecast::new(len, estimate, move |at| {
            if at >= shown.end {
                let extent = self.held(at, len - at)?;
                let end = at + extent.len.min(len - at);
                if !matches!(extent.kind, ExtentKind::Unallocated { .. }) {
                    return Ok(Run {
                        len: end - at,
                        moved: 0,
                    });
                }
                shown = at..end;
            }
            let (end, same) = step(&mut old, &mut new, at, shown.end)?;
            let len = end - at;
            let moved = if same { 0 } else { len };
            Ok(Run { len, moved })
        })
    }

    fn piece(&self, range: Range<u64>, buffers: &mut Buffers, pace: &mut Pace<'_>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let extent = self.held(at, range.end - at)?;
            let end = at + extent.len.min(range.end - at);
            if let ExtentKind::Unallocated { .. } = extent.kind {
                self.shown_through(at..end, buffers, pace)?;
            }
            at = end;
        }
        Ok(())
    }

    /// Copies the differences within a run that the overlay does not hold.
    fn shown_through(
        &self,
        run: Range<u64>,
        buffers: &mut Buffers,
        pace: &mut Pace<'_>,
    ) -> Result<()> {
        let (mut old, mut new) = (self.old.side.clone(), self.new.side.clone());
        let mut differs = run.start..run.start;
        let mut at = run.start;
        while at < run.end {
            let (mut end, same) = step(&mut old, &mut new, at, run.end)?;
            if !same {
                let start = (at - at % self.unit).max(run.start);
                end = end.next_multiple_of(self.unit).min(run.end);
                if start > differs.end {
                    self.compare(differs, buffers, pace)?;
                    differs = start..end;
                } else {
                    differs.end = end;
                }
            }
            at = end;
        }
        self.compare(differs, buffers, pace)
    }

    /// Reads a range from both chains and copies the units that differ.
    fn compare(&self, range: Range<u64>, buffers: &mut Buffers, pace: &mut Pace<'_>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at - at % self.buffer + self.buffer);
            pace.before(end - at)?;
            let len = (end - at) as usize;
            self.old.read(buffers.old.room(len)?, at)?;
            self.new.read(buffers.new.room(len)?, at)?;
            self.copy_units(&buffers.old, &buffers.new, at)?;
            pace.after(end - at)?;
            at = end;
        }
        Ok(())
    }

    fn copy_units(&self, old: &[u8], new: &[u8], offset: u64) -> Result<()> {
        let part = |bytes: Range<u64>| {
            let (start, end) = (
                (bytes.start - offset) as usize,
                (bytes.end - offset) as usize,
            );
            (
                old.get(start..end).unwrap_or_default(),
                new.get(start..end).unwrap_or_default(),
            )
        };
        let end = offset + old.len() as u64;
        // Units of data that are written in one request.
        let mut data = offset..offset;
        let mut at = offset;
        while at < end {
            let next = end.min(at - at % self.unit + self.unit);
            let (bytes, others) = part(at..next);
            let alone = bytes == others || self.compressor.is_some() || is_zero(bytes);
            if alone || data.end != at {
                self.write(part(data.clone()).0, data.start)?;
                data = next..next;
            }
            if !alone {
                data = if data.start == next { at } else { data.start }..next;
            } else if bytes != others {
                self.write_one(bytes, at)?;
            }
            at = next;
        }
        self.write(part(data.clone()).0, data.start)
    }

    /// Writes one unit: compressed, as zeroes, or plain.
    fn write_one(&self, bytes: &[u8], at: u64) -> Result<()> {
        let len = bytes.len() as u64;
        if let Some(compressor) = self.compressor {
            let unit = u64::from(compressor.encode_unit());
            let whole = len == unit || at + len == self.top.len();
            if at.is_multiple_of(unit) && whole && len <= unit {
                return compressor.write_compressed(bytes, at);
            }
        }
        if !is_zero(bytes) {
            return self.write(bytes, at);
        }
        self.shown.write_zeroes(at, len, ZeroFlags::MAY_UNMAP)?;
        if self.is_held(at, len)? {
            return Ok(());
        }
        // The range reads as zeroes now, but would not on the new backing file.
        self.write(bytes, at)?;
        if self.is_held(at, len)? {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Internal,
            format!("Zeroes at offset {at} could not be stored"),
        ))
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.shown.write_at(bytes, at)
    }

    /// Whether the overlay itself holds the whole range.
    fn is_held(&self, at: u64, len: u64) -> Result<bool> {
        let end = at + len;
        let mut at = at;
        while at < end {
            let extent = self.held(at, end - at)?;
            if let ExtentKind::Unallocated { .. } = extent.kind {
                return Ok(false);
            }
            at += extent.len;
        }
        Ok(true)
    }
}
