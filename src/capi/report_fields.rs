//! The values of an entry of a report, by the keys of the JSON.

use bstr::{BString, ByteSlice};

use crate::format::inspect::{Finding, Reference};
use crate::format::{BitmapInfo, Objection, SnapshotInfo};
use crate::ops::bench::BenchReport;
use crate::ops::check::CheckOutcome;
use crate::ops::compare::{CompareReport, Comparison};
use crate::ops::convert::ConvertReport;
use crate::ops::exports::{self, ExportsReport};
use crate::ops::inspect::InspectReport;
use crate::ops::map::MapEntry;
use crate::ops::measure::MeasureReport;
use crate::value::{Map, Value};

/// Collects the members that are present.
pub(super) struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn into_inner(self) -> Vec<(&'static str, Value)> {
        self.0
    }

    pub(super) fn add(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.0.push((key, value.into()));
        self
    }

    pub(super) fn maybe<T: Into<Value>>(mut self, key: &'static str, value: Option<T>) -> Self {
        self.0.extend(value.map(|value| (key, value.into())));
        self
    }
}

pub(super) fn entry_fields(entry: &MapEntry) -> Vec<(&'static str, Value)> {
    Fields::new()
        .add("start", entry.start)
        .add("length", entry.length)
        .add("depth", entry.depth)
        .add("present", entry.present)
        .add("zero", entry.zero)
        .add("data", entry.data)
        .add("compressed", entry.compressed)
        .add("unknown", entry.unknown)
        .maybe("offset", entry.offset)
        .0
}

/// Nanoseconds per second.
const NANO: u64 = 1_000_000_000;

pub(super) fn snapshot_fields(snapshot: &SnapshotInfo) -> Vec<(&'static str, Value)> {
    Fields::new()
        .add("id", snapshot.id.as_bstr())
        .add("name", snapshot.name.as_bstr())
        .add("vm-state-size", snapshot.vm_state_size)
        .add("date-sec", snapshot.date_sec)
        .add("date-nsec", snapshot.date_nsec)
        .add("vm-clock-sec", snapshot.vm_clock_nsec / NANO)
        .add("vm-clock-nsec", snapshot.vm_clock_nsec % NANO)
        .maybe("icount", snapshot.icount)
        .maybe("virtual-size", snapshot.disk_size)
        .0
}

/// The file, its guards, the names in it, the objections of the profile.
pub(super) fn inspect_fields(report: &InspectReport, index: usize) -> Map<String, Value> {
    let Some(index) = index.checked_sub(1) else {
        let mut file = report.fields();
        file.insert("signatures".into(), report.signatures.join(",").into());
        file.insert("passed".into(), report.passed().into());
        file.insert("guard-count".into(), report.requirements.len().into());
        file.insert("reference-count".into(), report.references.len().into());
        if let Some((profile, objections)) = &report.profile {
            file.insert("profile".into(), profile.name.into());
            file.insert("objection-count".into(), objections.len().into());
        }
        return file;
    };
    let requirements = report.requirements.iter().map(Finding::fields);
    let names = report.references.iter().map(Reference::fields);
    let objections = report.objections().iter().map(Objection::fields);
    requirements
        .chain(names)
        .chain(objections)
        .nth(index)
        .unwrap_or_default()
}

/// The members of an export; lists become strings with one line per item.
pub(super) fn export_fields(report: &ExportsReport, index: usize) -> Map<String, Value> {
    let mut fields = report.exports.get(index).map(exports::fields);
    for (_, value) in fields.iter_mut().flatten() {
        if let Value::Array(items) = value {
            let names = items.iter().filter_map(Value::as_name);
            *value = BString::from(bstr::join("\n", names)).into();
        }
    }
    fields.unwrap_or_default()
}

pub(super) fn bitmap_fields(bitmap: &BitmapInfo) -> Vec<(&'static str, Value)> {
    Fields::new()
        .add("name", bitmap.name.as_bstr())
        .add("granularity", bitmap.granularity)
        .add("enabled", bitmap.enabled)
        .add("inconsistent", bitmap.inconsistent)
        .0
}

pub(super) fn dirty_fields(range: &(u64, u64)) -> Vec<(&'static str, Value)> {
    Fields::new().add("start", range.0).add("length", range.1).0
}

pub(super) fn check_fields(outcome: &CheckOutcome) -> Vec<(&'static str, Value)> {
    let report = &outcome.report;
    Fields::new()
        .add("filename", outcome.filename.as_bstr())
        .add("format", outcome.format.as_str())
        .add("check-errors", report.check_errors)
        .add("corruptions", report.corruptions)
        .add("leaks", report.leaks)
        .add("corruptions-fixed", report.corruptions_fixed)
        .add("leaks-fixed", report.leaks_fixed)
        .maybe("image-end-offset", report.image_end_offset)
        .maybe("total-clusters", report.total_clusters)
        .add("allocated-clusters", report.allocated_clusters)
        .add("fragmented-clusters", report.fragmented_clusters)
        .add("compressed-clusters", report.compressed_clusters)
        .0
}

pub(super) fn compare_fields(report: &CompareReport) -> Vec<(&'static str, Value)> {
    let (identical, reason, offset) = match report.result {
        Comparison::Identical => (true, None, None),
        Comparison::ContentMismatch(offset) => (false, Some("content"), Some(offset)),
        Comparison::StatusMismatch(offset) => (false, Some("status"), Some(offset)),
        Comparison::SizeMismatch => (false, Some("size"), None),
    };
    Fields::new()
        .add("identical", identical)
        .maybe("reason", reason)
        .maybe("offset", offset)
        .add("size-mismatch", report.size_mismatch)
        .0
}

pub(super) fn convert_fields(report: &ConvertReport) -> Vec<(&'static str, Value)> {
    Fields::new()
        .add("virtual-size", report.virtual_size)
        .add("data-bytes", report.data_bytes)
        .add("offloaded-bytes", report.offloaded_bytes)
        .add("zero-bytes", report.zero_bytes)
        .add("backed-bytes", report.backed_bytes)
        .add("compressed-units", report.compressed_units)
        .add("compressed-bytes", report.compressed_bytes)
        .maybe("sha256", report.checksum.map(|sum| sum.to_string()))
        .maybe(
            "container-sha256",
            report.container_checksum.map(|sum| sum.to_string()),
        )
        .0
}

pub(super) fn measure_fields(report: &MeasureReport) -> Vec<(&'static str, Value)> {
    Fields::new()
        .maybe("bitmaps", report.0.bitmaps)
        .add("required", report.0.required)
        .add("fully-allocated", report.0.fully_allocated)
        .0
}

pub(super) fn bench_fields(report: &BenchReport) -> Vec<(&'static str, Value)> {
    Fields::new()
        .add("requests", report.requests)
        .add("flushes", report.flushes)
        .add("bytes", report.bytes)
        .add("seconds", report.time.as_secs_f64())
        .add("requests-per-second", report.rate())
        .0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_a_snapshot_is_told_as_the_json_does() {
        let snapshot = SnapshotInfo {
            id: "1".into(),
            name: "one".into(),
            vm_state_size: 0,
            date_sec: 0,
            date_nsec: 0,
            vm_clock_nsec: 5_250_000_000,
            icount: None,
            disk_size: None,
        };
        let fields: Map<String, Value> = snapshot_fields(&snapshot)
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        assert_eq!(fields["vm-clock-sec"], Value::from(5_u64));
        assert_eq!(fields["vm-clock-nsec"], Value::from(250_000_000_u64));
    }
}
