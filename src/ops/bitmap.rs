//! `bitmap`: the persistent dirty bitmaps of an image.

use std::fmt;
use std::io;
use std::ops::Range;

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::format::{BitmapInfo, Bitmaps, Features};
use crate::image::Image;
use crate::job::JobControl;
use crate::memory;
use crate::ops::map::MAX_RUNS;
use crate::ops::render::human;
use crate::ops::render::json::{self, Members};
use crate::printable::write_name;
use crate::value::{Map, Value};

/// A change to one bitmap.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// Creates it, empty and recording; with granularity None, the format's default applies.
    Add(Option<u64>),
    /// Removes it, even if it is inconsistent.
    Remove,
    /// Clears all bits.
    Clear,
    /// Makes it record what is written from now on.
    Enable,
    /// Makes it stop recording.
    Disable,
    /// Adds the bits of the bitmap with that name, from another image or the same one.
    Merge(Option<&'a Image>, &'a BStr),
}

impl Change<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "add",
            Self::Remove => "remove",
            Self::Clear => "clear",
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Merge(..) => "merge",
        }
    }
}

/// Changes the bitmap `name` of an image that is open for writing.
///
/// # Errors
/// `Operation … on bitmap … failed: …`: [`ErrorKind::NotFound`], [`ErrorKind::Exists`], [`ErrorKind::Corrupt`] for an
/// inconsistent bitmap, [`ErrorKind::Unsupported`] if the format has no bitmaps, [`ErrorKind::Limit`], or if I/O fails;
/// nothing has changed then.
pub fn change(image: &Image, name: impl AsRef<[u8]>, change: &Change<'_>) -> Result<()> {
    change_under(&JobControl::default(), image, name, change)
}

/// As [`change`]; `control` can end it, and nothing has changed then.
///
/// # Errors
/// As [`change`], and [`ErrorKind::Cancelled`].
pub fn change_under(
    control: &JobControl,
    image: &Image,
    name: impl AsRef<[u8]>,
    change: &Change<'_>,
) -> Result<()> {
    let name = BStr::new(&name);
    control
        .check()
        .and_then(|()| apply(image, name, change, control))
        .context(|| format!("Operation {} on bitmap {name} failed", change.name()))
}

fn apply(image: &Image, name: &BStr, change: &Change<'_>, control: &JobControl) -> Result<()> {
    let Some(bitmaps) = image.bitmaps() else {
        return Err(unsupported(image, name, change));
    };
    let _under_way = image.begin_change()?;
    match change {
        Change::Add(granularity) => bitmaps.add(name, *granularity, control),
        Change::Remove => bitmaps.remove(name, control),
        Change::Clear => bitmaps.clear(name, control),
        Change::Enable => bitmaps.set_enabled(name, true, control),
        Change::Disable => bitmaps.set_enabled(name, false, control),
        Change::Merge(other, from) => {
            known(bitmaps, name)?;
            let source = other
                .unwrap_or(image)
                .bitmaps()
                .ok_or_else(|| Error::no_such_bitmap(from))?;
            merge(bitmaps, name, source, from, control)
        }
    }
}

/// Adds the bits of a bitmap to another one.
///
/// # Errors
/// [`ErrorKind::Invalid`] if the images differ in size, or an error of the bitmaps.
fn merge(
    bitmaps: &dyn Bitmaps,
    name: &BStr,
    source: &dyn Bitmaps,
    from: &BStr,
    control: &JobControl,
) -> Result<()> {
    known(source, from)?;
    check_sizes(bitmaps.covered(), source.covered())?;
    let mut ranges = |mark: &mut dyn FnMut(u64, u64)| hand_over(source, from, control, mark);
    bitmaps.mark(name, &mut ranges, control)
}

/// Refuses to merge between images that differ in size.
pub(super) fn check_sizes(target: u64, source: u64) -> Result<()> {
    if target == source {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Bitmaps are of different sizes (destination size is {target}, source size is {source}) \
         and can't be merged"
    )))
}

/// Creates a bitmap like one of another image, with the same bits; `control` can end that while they are read.
///
/// # Errors
/// As [`change`], and [`ErrorKind::Cancelled`].
pub(super) fn copy(
    target: &dyn Bitmaps,
    source: &dyn Bitmaps,
    bitmap: &BitmapInfo,
    control: &JobControl,
) -> Result<()> {
    let name = bitmap.name.as_bstr();
    let covered = target.covered();
    let mut unread = false;
    target
        .add_filled(
            name,
            bitmap.granularity,
            bitmap.enabled,
            &mut |mark| {
                let read = check_sizes(covered, source.covered())
                    .and_then(|()| hand_over(source, name, control, mark));
                unread = read.is_err();
                read
            },
            control,
        )
        .context(|| {
            let what = if unread { "populate" } else { "create" };
            format!("Failed to {what} bitmap {name}")
        })
}

/// Passes the dirty ranges of a bitmap to `mark`.
fn hand_over(
    bitmaps: &dyn Bitmaps,
    name: &BStr,
    control: &JobControl,
    mark: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    bitmaps.visit_dirty(name, 0..bitmaps.covered(), control, &mut |offset, len| {
        mark(offset, len);
        Ok(())
    })
}

fn known(bitmaps: &dyn Bitmaps, name: &BStr) -> Result<BitmapInfo> {
    let list = bitmaps.list()?;
    list.into_iter()
        .find(|bitmap| bitmap.name == name)
        .ok_or_else(|| Error::no_such_bitmap(name))
}

/// The error of a change to an image that cannot have bitmaps.
fn unsupported(image: &Image, name: &BStr, change: &Change<'_>) -> Error {
    let file = image.storage().name();
    let driver = image.driver();
    match change {
        Change::Add(_) if name.is_empty() => Error::invalid("Bitmap name cannot be empty"),
        Change::Add(_) if driver.can(Features::BITMAPS) => Error::unsupported(format!(
            "Can't make bitmap '{name}' persistent in '{file}': Cannot store dirty bitmaps in \
                 {} v2 files",
            driver.name
        )),
        Change::Add(_) => Error::unsupported(format!(
            "Can't store persistent bitmaps to '{file}': Operation not supported"
        )),
        _ => Error::no_such_bitmap(name),
    }
}

/// The bitmaps of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitmapReport {
    /// In the order of the image's directory.
    pub bitmaps: Vec<BitmapInfo>,
}

impl BitmapReport {
    /// The list as it appears in `info --output=json`.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn json(&self) -> Result<String> {
        json::text(|out| self.write_json(out))
    }

    /// Writes [`BitmapReport::json`] without the newline, in pieces.
    ///
    /// # Errors
    /// If the writer fails.
    pub fn write_json<W: fmt::Write + ?Sized>(&self, out: &mut W) -> fmt::Result {
        json::write_list(out, &self.bitmaps, 0, |out, bitmap, depth| {
            let flags = [(bitmap.inconsistent, "in-use"), (bitmap.enabled, "auto")];
            let flags = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name);
            let object = Map::from_iter([
                ("flags".to_owned(), flags.collect::<Value>()),
                ("name".to_owned(), bitmap.name.as_bstr().into()),
                ("granularity".to_owned(), bitmap.granularity.into()),
            ]);
            json::write_value(out, &Value::Object(object), depth)
        })
    }

    /// One line per bitmap: name, granularity, and state.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn text(&self) -> Result<BString> {
        human::text(|out| self.write_text(out))
    }

    /// Writes [`BitmapReport::text`], in pieces.
    ///
    /// # Errors
    /// If the writer fails.
    pub fn write_text<W: io::Write + ?Sized>(&self, out: &mut W) -> io::Result<()> {
        for bitmap in &self.bitmaps {
            let state = match (bitmap.inconsistent, bitmap.enabled) {
                (true, _) => "inconsistent",
                (false, true) => "enabled",
                (false, false) => "disabled",
            };
            write_name(out, &bitmap.name)?;
            writeln!(out, " {} {state}", bitmap.granularity)?;
        }
        Ok(())
    }
}

/// Lists the bitmaps; none for a format without them.
///
/// # Errors
/// If reading the directory fails.
pub fn list(image: &Image) -> Result<BitmapReport> {
    let bitmaps = image.bitmaps().map(Bitmaps::list);
    Ok(BitmapReport {
        bitmaps: bitmaps.transpose()?.unwrap_or_default(),
    })
}

/// The dirty guest bytes of a bitmap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirtyReport {
    /// Offsets and lengths, in order; adjacent ranges are merged.
    pub ranges: Vec<(u64, u64)>,
}

impl DirtyReport {
    /// A list of objects with `start` and `length`.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn json(&self) -> Result<String> {
        json::text(|out| self.write_json(out))
    }

    /// Writes [`DirtyReport::json`] without the newline, in pieces.
    ///
    /// # Errors
    /// If the writer fails.
    pub fn write_json<W: fmt::Write + ?Sized>(&self, out: &mut W) -> fmt::Result {
        json::write_list(out, &self.ranges, 0, |out, (start, length), depth| {
            let mut object = Members::begin(out, depth)?;
            object.value("start", &(*start).into())?;
            object.value("length", &(*length).into())?;
            object.end()
        })
    }

    /// One line per range: offset and length.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn text(&self) -> Result<BString> {
        human::text(|out| self.write_text(out))
    }

    /// Writes [`DirtyReport::text`], in pieces.
    ///
    /// # Errors
    /// If the writer fails.
    pub fn write_text<W: io::Write + ?Sized>(&self, out: &mut W) -> io::Result<()> {
        let mut ranges = self.ranges.iter();
        ranges.try_for_each(|(start, length)| writeln!(out, "{start:#x} {length:#x}"))
    }
}

/// The dirty guest bytes of a bitmap within `range`.
///
/// # Errors
/// [`ErrorKind::Limit`] if there are more than [`MAX_RUNS`] runs, [`ErrorKind::NotFound`], [`ErrorKind::Corrupt`] for
/// an inconsistent bitmap, or if reading it fails.
pub fn dirty(image: &Image, name: impl AsRef<[u8]>, range: Range<u64>) -> Result<DirtyReport> {
    dirty_under(&JobControl::default(), image, name, range)
}

/// As [`dirty`]; `control` can end it.
///
/// # Errors
/// As [`dirty`], and [`ErrorKind::Cancelled`].
pub fn dirty_under(
    control: &JobControl,
    image: &Image,
    name: impl AsRef<[u8]>,
    range: Range<u64>,
) -> Result<DirtyReport> {
    let name = BStr::new(&name);
    let bitmaps = image.bitmaps().ok_or_else(|| Error::no_such_bitmap(name))?;
    let mut ranges = Vec::new();
    bitmaps.visit_dirty(name, range, control, &mut |offset, len| {
        if ranges.len() == MAX_RUNS {
            let text = format!(
                "Bitmap '{name}' has more than {MAX_RUNS} dirty runs; ask for a shorter range"
            );
            return Err(Error::new(ErrorKind::Limit, text));
        }
        memory::push(&mut ranges, (offset, len))
    })?;
    Ok(DirtyReport { ranges })
}
