//! `map`: where the guest bytes of a chain are stored.

use std::fmt;
use std::io;

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageSlot;
use crate::image::{Image, Status};
use crate::job::Job;
use crate::memory;
use crate::ops::render::{human, json};
use crate::printable::write_name;

/// One run of guest bytes with QEMU's flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// Guest offset in bytes.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// Layer of the chain.
    pub depth: u32,
    /// Whether a layer of the chain holds the run.
    pub present: bool,
    /// Whether the run reads as zeroes.
    pub zero: bool,
    /// Whether the run has data in the host file.
    pub data: bool,
    /// Whether the contents of the run are unknown, because the backing file that may hold it is not open; the JSON has
    /// no key for that.
    pub unknown: bool,
    /// Whether the data is compressed.
    pub compressed: bool,
    /// Offset of the data in the file of that layer.
    pub offset: Option<u64>,
    /// Which of the layer's files that is, if it has several.
    pub slot: StorageSlot,
}

impl MapEntry {
    /// The run with that status at `start`.
    pub fn new(start: u64, status: &Status) -> Self {
        Self {
            start,
            length: status.len,
            depth: status.depth,
            present: status.present,
            zero: status.zero,
            data: status.data,
            unknown: status.unknown,
            compressed: status.compressed,
            offset: status.offset,
            slot: status.slot,
        }
    }

    fn empty(start: u64) -> Self {
        Self {
            start,
            length: 0,
            depth: 0,
            present: false,
            zero: false,
            data: false,
            unknown: false,
            compressed: false,
            offset: None,
            slot: StorageSlot::MAIN,
        }
    }

    fn status(&self) -> Status {
        Status {
            len: self.length,
            depth: self.depth,
            present: self.present,
            zero: self.zero,
            data: self.data,
            unknown: self.unknown,
            compressed: self.compressed,
            offset: self.offset,
            slot: self.slot,
        }
    }
}

/// Maximum number of runs in a report: a few hundred bytes of an image can produce any number of them.
pub const MAX_RUNS: usize = 1 << 20;
/// Clusters that are looked up between two checks of the job.
const STEP_CLUSTERS: u64 = 1 << 20;

/// The report of `map`.
#[derive(Clone, Debug)]
pub struct MapReport {
    /// Runs in guest order, equal neighbours merged.
    pub entries: Vec<MapEntry>,
    /// The files that hold the data of each layer, for the human form.
    pub files: Vec<LayerFiles<BString>>,
}

/// The names of the files that hold the data of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerFiles<T> {
    data: T,
    /// Those of the extents, by slot in ascending order.
    extents: Vec<(StorageSlot, T)>,
}

impl<T> LayerFiles<T> {
    /// The file for a slot.
    pub fn of(&self, slot: StorageSlot) -> &T {
        let found = self.extents.binary_search_by_key(&slot, |(slot, _)| *slot);
        let found = found.ok().and_then(|at| self.extents.get(at));
        found.map_or(&self.data, |(_, name)| name)
    }

    /// The same with names of another type.
    pub fn map<U>(self, mut change: impl FnMut(T) -> U) -> LayerFiles<U> {
        LayerFiles {
            data: change(self.data),
            extents: self
                .extents
                .into_iter()
                .map(|(slot, name)| (slot, change(name)))
                .collect(),
        }
    }
}

/// Maps `len` bytes from `start`; None maps to the end.
///
/// # Errors
/// If reading metadata fails; [`ErrorKind::Limit`] if there are more than [`MAX_RUNS`] runs.
pub fn map(image: &Image, start: u64, len: Option<u64>, job: &mut Job) -> Result<MapReport> {
    let mut report = MapReport {
        entries: Vec::new(),
        files: files(image)?,
    };
    visit(image, start, len, job, &mut |entry| {
        if report.entries.len() == MAX_RUNS {
            return Err(too_many(image));
        }
        memory::push(&mut report.entries, *entry)
    })?;
    Ok(report)
}

/// As [`map`], but passes on one run after the other, however many there are, up to one that cannot be looked up. An
/// empty range is one empty run.
///
/// # Errors
/// If reading metadata fails, or the error of `each`, which ends the map.
pub fn visit(
    image: &Image,
    start: u64,
    len: Option<u64>,
    job: &mut Job,
    each: &mut dyn FnMut(&MapEntry) -> Result<()>,
) -> Result<()> {
    let end = len.map_or(image.len(), |len| {
        start.saturating_add(len).min(image.len())
    });
    let step = image.format().cluster_size();
    let step = step.map_or(u64::MAX, |cluster| u64::from(cluster) * STEP_CLUSTERS);
    let mut run = MapEntry::empty(start);
    let mut statuses = image.statuses();
    job.control().set_total(end.saturating_sub(start));
    let mut at = start;
    while at < end {
        let status = match statuses.at(at, step.min(end - at)) {
            Ok(status) => status,
            Err(error) => {
                if at > start {
                    each(&run)?;
                }
                return Err(error.context("Could not read file metadata"));
            }
        };
        if at > start && run.status().continues_with(&status) {
            run.length = run.length.saturating_add(status.len);
        } else {
            if at > start {
                each(&run)?;
            }
            run = MapEntry::new(at, &status);
        }
        at = at.saturating_add(status.len);
        job.control().advance(status.len);
        job.tick()?;
    }
    each(&run)?;
    job.finish()
}

fn too_many(image: &Image) -> Error {
    Error::new(
        ErrorKind::Limit,
        format!(
            "'{}' has more than {MAX_RUNS} runs; map it in parts, or take the runs one by one",
            image.filename()
        ),
    )
}

/// The files that hold the data of each layer: its extents, the external data file, or otherwise its own.
///
/// # Errors
/// If there is no memory for their names.
pub fn files(image: &Image) -> Result<Vec<LayerFiles<BString>>> {
    let mut names = Vec::new();
    for layer in image.layers() {
        match layer.shown_through().filter(|_| layer.is_filter()) {
            Some(shown) => names.extend(files(shown)?),
            None => names.push(LayerFiles {
                data: layer.data_file_name(),
                extents: layer.extent_names()?,
            }),
        }
    }
    Ok(names)
}

impl MapReport {
    /// The JSON that `qemu-img map --output=json` prints.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn json(&self) -> Result<String> {
        json::text(|out| self.write_json(out))
    }

    /// Writes [`MapReport::json`] without the newline, in pieces.
    ///
    /// # Errors
    /// If the writer fails.
    pub fn write_json<W: fmt::Write + ?Sized>(&self, out: &mut W) -> fmt::Result {
        out.write_char('[')?;
        for (i, entry) in self.entries.iter().enumerate() {
            if i > 0 {
                out.write_str(",\n")?;
            }
            entry.write_json(out)?;
        }
        out.write_char(']')
    }

    /// The table that `qemu-img map` prints, up to where it ends according to [`MapReport::text_end`].
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn text(&self) -> Result<BString> {
        human::text(|out| self.write_text(out))
    }

    /// Writes [`MapReport::text`], in pieces.
    ///
    /// # Errors
    /// If the writer fails.
    pub fn write_text<W: io::Write + ?Sized>(&self, out: &mut W) -> io::Result<()> {
        row(out, "Offset", "Length", "Mapped to", BStr::new("File"))?;
        for entry in &self.entries {
            let offset = match entry.place() {
                Ok(None) => continue,
                Ok(Some(offset)) => offset,
                Err(_) => break,
            };
            let file = usize::try_from(entry.depth)
                .ok()
                .and_then(|depth| self.files.get(depth))
                .map_or(BStr::new(""), |files| files.of(entry.slot).as_bstr());
            let (start, length) = (hex(entry.start), hex(entry.length));
            row(out, &start, &length, &hex(offset), file)?;
        }
        Ok(())
    }

    /// How the table ends.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if a run has no plain host bytes or is unknown, which ends the table.
    pub fn text_end(&self) -> Result<()> {
        let mut places = self.entries.iter().map(MapEntry::place);
        places.try_for_each(|place| place.map(drop))
    }
}

impl MapEntry {
    fn write_json<W: fmt::Write + ?Sized>(&self, out: &mut W) -> fmt::Result {
        write!(
            out,
            "{{ \"start\": {}, \"length\": {}, \"depth\": {}, \"present\": {}, \
             \"zero\": {}, \"data\": {}, \"compressed\": {}",
            self.start,
            self.length,
            self.depth,
            self.present,
            self.zero,
            self.data,
            self.compressed
        )?;
        if let Some(offset) = self.offset {
            write!(out, ", \"offset\": {offset}")?;
        }
        out.write_char('}')
    }

    /// The offset of its bytes, for the table; None for a run without a row.
    fn place(&self) -> Result<Option<u64>> {
        if self.unknown {
            return Err(Error::unsupported(
                "What the image reads as is not known without its backing file.",
            ));
        }
        if !self.data || self.zero {
            return Ok(None);
        }
        self.offset.map(Some).ok_or_else(|| {
            Error::unsupported("File contains external, encrypted or compressed clusters.")
        })
    }
}

fn row<W: io::Write + ?Sized>(
    out: &mut W,
    start: &str,
    length: &str,
    mapped: &str,
    file: &BStr,
) -> io::Result<()> {
    write!(out, "{start:<16}{length:<16}{mapped:<16}")?;
    write_name(out, file)?;
    out.write_all(b"\n")
}

/// `0x…`, but a plain `0`.
fn hex(n: u64) -> String {
    if n == 0 {
        "0".to_owned()
    } else {
        format!("{n:#x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(len: u64, offset: Option<u64>) -> Status {
        Status {
            len,
            depth: 0,
            present: true,
            zero: false,
            data: true,
            unknown: false,
            compressed: offset.is_none(),
            offset,
            slot: StorageSlot::MAIN,
        }
    }

    fn report(runs: &[Status]) -> MapReport {
        let mut at = 0;
        let entries = runs.iter().map(|run| {
            at += run.len;
            MapEntry::new(at - run.len, run)
        });
        MapReport {
            entries: entries.collect(),
            files: vec![LayerFiles {
                data: "a.raw".into(),
                extents: vec![(StorageSlot(2), "b.raw".into())],
            }],
        }
    }

    #[test]
    fn only_what_follows_in_the_file_continues_a_run() {
        let run = |len, offset| MapEntry::new(0, &status(len, offset)).status();
        assert!(run(512, Some(0)).continues_with(&status(512, Some(512))));
        assert!(!run(512, Some(0)).continues_with(&status(512, Some(4096))));
        assert!(!run(512, Some(0)).continues_with(&status(512, None)));
        assert!(run(512, None).continues_with(&status(512, None)));
        let elsewhere = Status {
            slot: StorageSlot(2),
            ..status(512, Some(512))
        };
        assert!(!run(512, Some(0)).continues_with(&elsewhere));
        let report = report(&[status(512, Some(0)), elsewhere]);
        assert!(
            report
                .text()
                .unwrap()
                .ends_with(b"0x200           0x200           0x200           b.raw\n")
        );
    }

    #[test]
    fn both_forms_of_a_report() {
        let report = report(&[status(1024, Some(0)), status(512, Some(4096))]);
        assert_eq!(
            report.json().unwrap(),
            "[{ \"start\": 0, \"length\": 1024, \"depth\": 0, \"present\": true, \"zero\": false, \
             \"data\": true, \"compressed\": false, \"offset\": 0},\n\
             { \"start\": 1024, \"length\": 512, \"depth\": 0, \"present\": true, \"zero\": false, \
             \"data\": true, \"compressed\": false, \"offset\": 4096}]\n"
        );
        assert_eq!(
            report.text().unwrap(),
            "Offset          Length          Mapped to       File\n\
             0               0x400           0               a.raw\n\
             0x400           0x200           0x1000          a.raw\n"
        );
        report.text_end().unwrap();
    }

    #[test]
    fn the_table_ends_at_data_that_has_no_place() {
        let report = report(&[status(512, Some(0)), status(512, None)]);
        assert!(report.text().unwrap().ends_with(b"a.raw\n"));
        assert_eq!(
            report.text_end().unwrap_err().to_string(),
            "File contains external, encrypted or compressed clusters."
        );
    }
}
