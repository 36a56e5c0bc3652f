//! `map`: where the guest bytes of a chain live.

use std::fmt::Write;

use crate::error::{Error, Result, ResultExt};
use crate::extent::StorageSlot;
use crate::image::{Image, Status};
use crate::job::Job;

/// One run of guest bytes with QEMU's flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// Guest offset in bytes.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// Layer of the chain.
    pub depth: u32,
    /// A layer of the chain holds the run.
    pub present: bool,
    /// The run reads as zeroes.
    pub zero: bool,
    /// The run has data in the host file.
    pub data: bool,
    /// Nobody knows what the run reads as, for the backing file that may hold it is not open; the
    /// JSON has no key for that.
    pub unknown: bool,
    /// The data is compressed.
    pub compressed: bool,
    /// Offset of the data in the file of that layer.
    pub offset: Option<u64>,
}

impl MapEntry {
    /// The run of that status at `start`.
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
        }
    }
}

/// The report of `map`.
#[derive(Clone, Debug)]
pub struct MapReport {
    /// Runs in guest order, equal neighbours merged.
    pub entries: Vec<MapEntry>,
    /// Name of the file that holds the data of each layer, for the human form.
    pub files: Vec<String>,
}

/// Maps `len` bytes from `start`; None maps to the end.
///
/// # Errors
/// Of reading metadata.
pub fn map(image: &Image, start: u64, len: Option<u64>, job: &mut Job) -> Result<MapReport> {
    let end = len.map_or(image.len(), |len| {
        start.saturating_add(len).min(image.len())
    });
    let mut report = MapReport {
        entries: Vec::new(),
        files: files(image),
    };
    let failed = || "Could not read file metadata".to_owned();
    let mut statuses = image.statuses();
    job.control().set_total(end.saturating_sub(start));
    let mut at = start;
    while at < end {
        let status = statuses.at(at, end - at).context(failed)?;
        report.push(at, &status);
        at = at.saturating_add(status.len);
        job.control().advance(status.len);
        job.tick()?;
    }
    if report.entries.is_empty() {
        report.entries.push(MapEntry {
            start,
            length: 0,
            depth: 0,
            present: false,
            zero: false,
            data: false,
            unknown: false,
            compressed: false,
            offset: None,
        });
    }
    job.finish()?;
    Ok(report)
}

/// The file that holds the data of each layer: the external data file where there is one.
fn files(image: &Image) -> Vec<String> {
    let mut names = Vec::new();
    let mut layer = Some(image);
    while let Some(current) = layer {
        let holder = current
            .format()
            .storage(StorageSlot::DATA)
            .unwrap_or_else(|_| current.storage());
        names.push(holder.name().to_owned());
        layer = current.backing().map(AsRef::as_ref);
    }
    names
}

impl MapReport {
    /// Adds the run, as part of the last one where it continues it.
    fn push(&mut self, start: u64, status: &Status) {
        match self.entries.last_mut() {
            Some(last) if last.status().continues_with(status) => {
                last.length = last.length.saturating_add(status.len);
            }
            _ => self.entries.push(MapEntry::new(start, status)),
        }
    }

    /// The JSON that `qemu-img map --output=json` prints.
    pub fn json(&self) -> String {
        let mut out = String::with_capacity(self.entries.len().saturating_mul(140));
        out.push('[');
        for (i, entry) in self.entries.iter().enumerate() {
            if i > 0 {
                out.push_str(",\n");
            }
            // Writing to a String cannot fail.
            let _ = write!(
                out,
                "{{ \"start\": {}, \"length\": {}, \"depth\": {}, \"present\": {}, \
                 \"zero\": {}, \"data\": {}, \"compressed\": {}",
                entry.start,
                entry.length,
                entry.depth,
                entry.present,
                entry.zero,
                entry.data,
                entry.compressed
            );
            if let Some(offset) = entry.offset {
                let _ = write!(out, ", \"offset\": {offset}");
            }
            out.push('}');
        }
        out.push_str("]\n");
        out
    }

    /// The table that `qemu-img map` prints, and the error that ends it where an extent has no
    /// plain host bytes or is not known.
    pub fn text(&self) -> (String, Result<()>) {
        let mut out = String::new();
        row(&mut out, "Offset", "Length", "Mapped to", "File");
        let shown = |entry: &&MapEntry| entry.unknown || (entry.data && !entry.zero);
        for entry in self.entries.iter().filter(shown) {
            if entry.unknown {
                let text = "What the image reads as is not known without its backing file.";
                return (out, Err(Error::unsupported(text)));
            }
            let Some(offset) = entry.offset else {
                return (
                    out,
                    Err(Error::unsupported(
                        "File contains external, encrypted or compressed clusters.",
                    )),
                );
            };
            let file = usize::try_from(entry.depth)
                .ok()
                .and_then(|depth| self.files.get(depth))
                .map_or("", String::as_str);
            row(
                &mut out,
                &hex(entry.start),
                &hex(entry.length),
                &hex(offset),
                file,
            );
        }
        (out, Ok(()))
    }
}

fn row(out: &mut String, start: &str, length: &str, mapped: &str, file: &str) {
    let _ = writeln!(out, "{start:<16}{length:<16}{mapped:<16}{file}");
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
        }
    }

    fn report(runs: &[Status]) -> MapReport {
        let mut report = MapReport {
            entries: Vec::new(),
            files: vec!["a.raw".into()],
        };
        let mut at = 0;
        for run in runs {
            report.push(at, run);
            at += run.len;
        }
        report
    }

    #[test]
    fn neighbours_with_contiguous_offsets_merge() {
        let report = report(&[
            status(512, Some(0)),
            status(512, Some(512)),
            status(512, Some(4096)),
        ]);
        assert_eq!(
            report.json(),
            "[{ \"start\": 0, \"length\": 1024, \"depth\": 0, \"present\": true, \"zero\": false, \
             \"data\": true, \"compressed\": false, \"offset\": 0},\n\
             { \"start\": 1024, \"length\": 512, \"depth\": 0, \"present\": true, \"zero\": false, \
             \"data\": true, \"compressed\": false, \"offset\": 4096}]\n"
        );
        let (text, result) = report.text();
        assert_eq!(
            text,
            "Offset          Length          Mapped to       File\n\
             0               0x400           0               a.raw\n\
             0x400           0x200           0x1000          a.raw\n"
        );
        result.unwrap();
    }

    #[test]
    fn the_table_ends_at_data_that_has_no_place() {
        let report = report(&[status(512, Some(0)), status(512, None)]);
        let (text, result) = report.text();
        assert!(text.ends_with("a.raw\n"));
        assert_eq!(
            result.unwrap_err().to_string(),
            "File contains external, encrypted or compressed clusters."
        );
    }
}
