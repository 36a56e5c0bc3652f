//! `commit`: moves what layers of a chain hold down into one of the images below.

use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;

use bstr::{BStr, BString, ByteSlice};

use crate::crew::Load;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::extent::ExtentKind;
use crate::image::{Image, OpenOptions, location_id};
use crate::job::Job;
use crate::location::Location;
use crate::memory::IoBuf;
use crate::ops::create::{modified, parent_of};
use crate::ops::error_text::with_reason;
use crate::ops::forecast::{self, Forecast, Run};
use crate::ops::workers::{Pace, in_pieces};
use crate::size::round_up_sector;
use crate::storage::{Preallocation, ZeroFlags};
use crate::zero::data_runs;

/// Minimum number of guest bytes that a thread takes at a time: whole clusters of the base.
const PIECE: u64 = 16 << 20;
/// Maximum number of bytes that a thread reads at once.
const BUFFER: u64 = 2 << 20;
/// Shortest run of zeroes within data that is skipped if the base reads as zeroes anyway.
const SKIP: usize = 16 << 10;

/// What to commit, and into which image.
#[derive(Clone, Debug)]
pub struct CommitRequest {
    /// The overlay.
    pub location: Location,
    /// How the overlay and its chain are opened; the overlay and the base are opened for writing.
    pub options: OpenOptions,
    /// The name of the image in the chain that receives the data; None for the one right below. With a name, the
    /// overlay is kept.
    pub base: Option<BString>,
    /// Leave the overlay unchanged afterwards instead of emptying it.
    pub keep: bool,
}

/// Opens the overlay, copies what the layers above the base hold into the base, makes that durable, and then empties
/// the overlay unless it is to be kept. A base that is smaller than the overlay grows first. Whatever fails, and
/// whenever it is cancelled, the overlay still reads as before.
///
/// # Errors
/// If opening fails; [`ErrorKind::Invalid`] without a backing file or with a name that is not in the chain; if I/O
/// fails, beginning with `Block job failed`.
pub fn commit(request: &CommitRequest, job: &mut Job) -> Result<()> {
    let opened = Image::open(&request.location, &opening(request, job))?;
    for warning in opened.warnings() {
        job.warn(warning.clone());
    }
    commit_image(opened, request, job)
}

/// As [`commit`], for an overlay that is already open, with its chain and for writing; it is closed, even if this
/// fails. The options of `request` are those with which its base is opened again.
///
/// # Errors
/// As [`commit`]; [`ErrorKind::ReadOnly`], [`ErrorKind::Invalid`] if its backing file was not opened.
pub fn commit_image(opened: Image, request: &CommitRequest, job: &mut Job) -> Result<()> {
    let options = opening(request, job);
    // The overlay is behind the filter. It keeps its data, because the filter does not learn that it is emptied.
    let behind = opened.shown_through().filter(|_| opened.is_filter());
    let top = behind.unwrap_or(&opened);
    opened.check_changeable(false)?;
    top.check_changeable(true)?;
    let keep = request.keep || request.base.is_some() || behind.is_some();
    let (parent, depth) = above_base(top, request)?;
    if let Some(base) = parent.backing() {
        base.check_apart(top.layers().take(depth as usize))?;
    }
    let base = parent.open_backing_writable(&options)?;
    let recorded = parent.format().parent();
    if depth > 1 && recorded.is_some_and(|parent| parent.expected.is_some()) {
        // The intermediate layers would no longer recognise their parent.
        return Err(Error::unsupported(format!(
            "'{}' is known to the layer above it by what it holds; commit one layer after the other",
            base.filename()
        )));
    }
    for layer in
        std::iter::successors(top.backing(), |layer| layer.backing()).take(depth as usize - 1)
    {
        layer.hide_from_readers()?;
    }
    if depth == 1 {
        name_again(top, &base)?;
    }
    let copied = copy_down((&opened, top), &base, depth, job);
    let copied = copied.inspect_err(|_| base.abandon_writes());
    let (mut parent, file) = (parent_of(&base), base.storage().clone());
    copied.and_then(|()| base.close()).map_err(|error| {
        if error.kind() == ErrorKind::Cancelled {
            error
        } else {
            with_reason("Block job failed".to_owned(), error)
        }
    })?;
    // Closing the base wrote the last change to its file.
    parent.modified = modified(&*file);
    drop(file);
    // Writing to the base may have given it a new identity for its overlay.
    if depth == 1
        && parent.id.is_some()
        && let Some(overlay) = top.format().backing_change()
    {
        top.begin_change()
            .and_then(|_under_way| overlay.note_parent(&parent))
            .context(|| format!("Could not change '{}'", top.filename()))?;
    }
    // The base is durable and closed: nothing is lost if the overlay drops its own copy.
    if !keep && let Some(overlay) = top.format().backing_change() {
        top.begin_change()
            .and_then(|_under_way| overlay.make_empty())
            .context(|| format!("Could not empty '{}'", top.filename()))?;
    }
    opened.close()?;
    job.finish()
}

fn opening(request: &CommitRequest, job: &Job) -> OpenOptions {
    OpenOptions {
        writable: true,
        backing: true,
        metadata_only: false,
        for_check: false,
        may_unmap: true,
        ..request.options.within(job)
    }
}

/// Lets the base change its identity, if its format has one, and records that in the overlay: from then on both read
/// correctly, however the commit ends.
fn name_again(top: &Image, base: &Image) -> Result<()> {
    if base.format().parent_id().is_none() {
        return Ok(());
    }
    if let Some(writer) = base.format().writer() {
        base.begin_change()
            .and_then(|_under_way| writer.prepare())
            .context(|| format!("Could not change '{}'", base.filename()))?;
    }
    match top.format().backing_change() {
        Some(overlay) => top
            .begin_change()
            .and_then(|_under_way| overlay.note_parent(&parent_of(base)))
            .context(|| format!("Could not change '{}'", top.filename())),
        None => Ok(()),
    }
}

/// The layer right above the base, and the depth of the base.
fn above_base<'a>(top: &'a Image, request: &CommitRequest) -> Result<(&'a Image, u32)> {
    let Some(name) = &request.base else {
        return match top.backing() {
            Some(_) => Ok((top, 1)),
            None => Err(Error::invalid("Image does not have a backing file")),
        };
    };
    // First by the names as the layers record or resolve them; only then as seen from here.
    for is_meant in [is_called, is_same_file] {
        let mut parent = top;
        let mut depth = 1;
        while let Some(base) = parent.backing() {
            if is_meant(parent, base, name.as_bstr()) {
                return Ok((parent, depth));
            }
            parent = base;
            depth += 1;
        }
    }
    let message = format!(
        "Did not find '{name}' in the backing chain of '{}'",
        request.location.display()
    );
    Err(Error::new(ErrorKind::NotFound, message))
}

/// Whether `name` denotes `base` as its parent records or would resolve it, or as it was opened.
fn is_called(parent: &Image, base: &Image, name: &BStr) -> bool {
    let named = parent.backing_file();
    base.filename() == name
        || named.is_some_and(|n| n.name == name || n.full_name == name)
        || is_file(base, &parent.name_beside(name))
}

/// Whether `name`, relative to the current directory, denotes the file of `base`.
fn is_same_file(_: &Image, base: &Image, name: &BStr) -> bool {
    is_file(base, OsStr::from_bytes(name))
}

fn is_file(base: &Image, name: &OsStr) -> bool {
    let location = Location::parse(name).ok();
    let id = location.and_then(|location| location_id(&location));
    id.is_some() && id == base.identity()
}

fn copy_down(
    (shown, top): (&Image, &Image),
    base: &Image,
    depth: u32,
    job: &mut Job,
) -> Result<()> {
    let len = top.len();
    if base.len() < len {
        let grown = round_up_sector(len).ok_or_else(|| Error::os(libc::EFBIG))?;
        base.lengthen_under(job.control(), grown, Preallocation::Off)?;
    }
    let copier = Copier {
        shown,
        top,
        base,
        depth,
    };
    let estimate = forecast::held_by(forecast::layers(top).take(depth as usize));
    let forecast = Forecast::new(len, estimate, |at| {
        let (held, len) = copier.held(at, len - at)?;
        let moved = if held == Held::Data { len } else { 0 };
        Ok(Run { len, moved })
    });
    let cluster = base.format().cluster_size().unwrap_or(1);
    in_pieces(
        forecast,
        PIECE.next_multiple_of(u64::from(cluster.max(1))),
        Load {
            in_flight: top.requests_in_flight(),
            computes: false,
            bytes: BUFFER,
        },
        job,
        IoBuf::new,
        |range, buf, pace| copier.piece(range, buf, pace),
    )?;
    base.flush()
}

/// What the layers above the base hold for a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Data,
    Zero,
    Nothing,
}

struct Copier<'a> {
    /// What is read: the overlay, or the filter above it, which is involved in every request.
    shown: &'a Image,
    top: &'a Image,
    base: &'a Image,
    depth: u32,
}

impl Copier<'_> {
    fn piece(&self, range: Range<u64>, buf: &mut IoBuf, pace: &mut Pace<'_>) -> Result<()> {
        if self.shown.is_filter() {
            self.shown.status(range.start, range.end - range.start)?;
        }
        let mut data = range.start..range.start;
        let mut at = range.start;
        while at < range.end {
            let (held, len) = self.held(at, range.end - at)?;
            let end = at + len;
            if held == Held::Data && data.end == at {
                data.end = end;
            } else {
                self.copy(&data, buf, pace)?;
                data = if held == Held::Data {
                    at..end
                } else {
                    end..end
                };
            }
            if held == Held::Zero && !self.base.is_known_zero(at, len)? {
                self.base.write_zeroes(at, len, ZeroFlags::MAY_UNMAP)?;
            }
            at = end;
        }
        self.copy(&data, buf, pace)
    }

    /// What the layers above the base hold at `offset`, and for how many bytes.
    fn held(&self, offset: u64, len: u64) -> Result<(Held, u64)> {
        let found = self.top.map_upper(offset, len, self.depth)?;
        let held = match found.extent.kind {
            ExtentKind::Zero { .. } => Held::Zero,
            ExtentKind::Data { .. } | ExtentKind::Encoded { .. } => Held::Data,
            ExtentKind::Unallocated { .. } if found.depth + 1 == self.depth => Held::Nothing,
            // Past the end of an intermediate layer there are zeroes, whatever the base holds.
            ExtentKind::Unallocated { .. } => Held::Zero,
        };
        Ok((held, found.extent.len))
    }

    fn copy(&self, data: &Range<u64>, buf: &mut IoBuf, pace: &mut Pace<'_>) -> Result<()> {
        let mut at = data.start;
        while at < data.end {
            let len = (data.end - at).min(BUFFER);
            pace.before(len)?;
            let part = buf.room(len as usize)?;
            self.shown.read_at(part, at)?;
            self.write(part, at)?;
            pace.after(len)?;
            at += len;
        }
        Ok(())
    }

    /// Writes to the base what it does not hold: zeroes in the data that it reads as anyway are skipped.
    fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        if !self.base.is_known_zero(at, bytes.len() as u64)? {
            return self.base.write_at(bytes, at);
        }
        for run in data_runs(bytes, SKIP) {
            if let Some(part) = bytes.get(run.clone()) {
                self.base.write_at(part, at + run.start as u64)?;
            }
        }
        Ok(())
    }
}
