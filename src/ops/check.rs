//! `check`: the consistency of an image's metadata.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use bstr::BString;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{Check, CheckReport, RepairMode, RepairRefused};
use crate::image::Image;
use crate::job::Job;
use crate::ops::render::json;
use crate::value::{Map, Value};

/// The report of `check` on an image.
#[derive(Clone, Debug)]
pub struct CheckOutcome {
    /// `filename`.
    pub filename: BString,
    /// `format`.
    pub format: String,
    /// The counts.
    pub report: CheckReport,
}

/// Checks `image`, opened with `for_check`; each finding is a note of `job`.
///
/// The findings describe one state of the image: if another thread changes its metadata in the meantime, the check
/// fails. Writes that only replace guest bytes in place change no metadata. While an image is being repaired, all
/// changes by other threads wait.
///
/// After a repair the image is checked once more: the report then holds what was repaired and what the second check
/// found. See [`CheckOutcome::refusal`] for a repair that was not carried out.
///
/// # Errors
/// [`ErrorKind::Busy`] if the image was changed in the meantime, [`ErrorKind::Unsupported`] if the format has no check,
/// or when it cannot be done.
pub fn check(image: &Image, repair: RepairMode, job: &mut Job) -> Result<CheckOutcome> {
    if repair != RepairMode::Report {
        return check_held(image, repair, job);
    }
    let checker = checker_of(image, repair)?;
    let watch = image.watch_changes(job.control()).map_err(failed)?;
    let unchanged = watch.unchanged();
    job.need(Some(unchanged.clone()));
    let outcome = run(image, checker, repair, job);
    job.need(None);
    match outcome {
        Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
        _ if !unchanged.holds() => Err(image.changed_meanwhile().context("Check failed")),
        outcome => outcome,
    }
}

/// As [`check`], but changes by other threads wait until it has ended. This thread must not make any in a callback of
/// `job`: that is [`ErrorKind::Busy`].
///
/// # Errors
/// As [`check`].
pub fn check_held(image: &Image, repair: RepairMode, job: &mut Job) -> Result<CheckOutcome> {
    let checker = checker_of(image, repair)?;
    let repairs = repair != RepairMode::Report;
    let _hold = image.hold_changes(repairs, job.control()).map_err(failed)?;
    run(image, checker, repair, job)
}

fn checker_of(image: &Image, repair: RepairMode) -> Result<&dyn Check> {
    let Some(checker) = image.format().checker() else {
        return Err(Error::unsupported(
            "This image format does not support checks",
        ));
    };
    if repair > checker.repairs() {
        return Err(Error::unsupported(
            "This image format does not support repairs",
        ));
    }
    Ok(checker)
}

fn failed(error: Error) -> Error {
    if error.kind() == ErrorKind::Cancelled {
        error
    } else {
        error.context("Check failed")
    }
}

/// Checks an image whose cached data has been written out.
fn run(
    image: &Image,
    checker: &dyn Check,
    repair: RepairMode,
    job: &mut Job,
) -> Result<CheckOutcome> {
    let mut report = checker.check(repair, job).map_err(failed)?;
    if report.corruptions_fixed > 0 || report.leaks_fixed > 0 {
        let again = checker.check(RepairMode::Report, job).map_err(failed)?;
        report = CheckReport {
            corruptions_fixed: report.corruptions_fixed,
            leaks_fixed: report.leaks_fixed,
            ..again
        };
    }
    job.finish()?;
    Ok(CheckOutcome {
        filename: image.location().text().as_bytes().into(),
        format: image.format().driver().to_owned(),
        report,
    })
}

impl CheckOutcome {
    /// Why the requested repair was not carried out: nothing was changed then, and the report says what is wrong.
    pub fn refusal(&self) -> Option<Error> {
        let why = match self.report.repair_refused? {
            RepairRefused::Refcounts => {
                "has wrong refcounts, so that leaked clusters cannot be told from used ones"
            }
            RepairRefused::References => {
                "has other damage, which may have meant what looks like leaks: they were kept"
            }
        };
        Some(Error::corrupt(format!(
            "Check failed: '{}' {why}; repair all of it, not the leaks alone",
            self.filename
        )))
    }

    /// The JSON that `qemu-img check --output=json` prints.
    pub fn json(&self) -> String {
        let report = &self.report;
        let mut map = Map::new();
        let positive = |map: &mut Map<String, Value>, key: &str, n: u64| {
            if n > 0 {
                map.insert(key.to_owned(), n.into());
            }
        };
        positive(
            &mut map,
            "image-end-offset",
            report.image_end_offset.unwrap_or(0),
        );
        positive(&mut map, "compressed-clusters", report.compressed_clusters);
        positive(
            &mut map,
            "total-clusters",
            report.total_clusters.unwrap_or(0),
        );
        positive(&mut map, "corruptions", report.corruptions);
        positive(&mut map, "corruptions-fixed", report.corruptions_fixed);
        map.insert("check-errors".to_owned(), report.check_errors.into());
        positive(&mut map, "leaks", report.leaks);
        positive(&mut map, "leaks-fixed", report.leaks_fixed);
        positive(&mut map, "allocated-clusters", report.allocated_clusters);
        map.insert("filename".to_owned(), self.filename.clone().into());
        map.insert("format".to_owned(), self.format.clone().into());
        positive(&mut map, "fragmented-clusters", report.fragmented_clusters);
        json::pretty(&Value::Object(map))
    }

    /// The text that `qemu-img check` prints.
    pub fn text(&self) -> String {
        let report = &self.report;
        let mut out = String::new();
        // Writing to a String cannot fail, so the results below are ignored.
        if report.corruptions_fixed > 0 || report.leaks_fixed > 0 {
            let _ = write!(
                out,
                "The following inconsistencies were found and repaired:\n\n    \
                 {} leaked clusters\n    {} corruptions\n\n\
                 Double checking the fixed image now...\n",
                report.leaks_fixed, report.corruptions_fixed
            );
        }
        if report.corruptions == 0 && report.leaks == 0 && report.check_errors == 0 {
            out.push_str("No errors were found on the image.\n");
        }
        if report.corruptions > 0 {
            let _ = write!(
                out,
                "\n{} errors were found on the image.\nData may be corrupted, or further writes \
                 to the image may corrupt it.\n",
                report.corruptions
            );
        }
        if report.leaks > 0 {
            let _ = write!(
                out,
                "\n{} leaked clusters were found on the image.\nThis means waste of disk space, \
                 but no harm to data.\n",
                report.leaks
            );
        }
        if report.check_errors > 0 {
            let _ = write!(
                out,
                "\n{} internal errors have occurred during the check.\n",
                report.check_errors
            );
        }
        let total = report.total_clusters.unwrap_or(0);
        let allocated = report.allocated_clusters;
        if total > 0 && allocated > 0 {
            let share = |part: u64, whole: u64| part as f64 * 100.0 / whole as f64;
            let _ = writeln!(
                out,
                "{allocated}/{total} = {:.2}% allocated, {:.2}% fragmented, {:.2}% compressed clusters",
                share(allocated, total),
                share(report.fragmented_clusters, allocated),
                share(report.compressed_clusters, allocated),
            );
        }
        if let Some(end @ 1..) = report.image_end_offset {
            let _ = writeln!(out, "Image end offset: {end}");
        }
        out
    }

    /// The exit code of `qemu-img check`: 0, 1 (the check is incomplete), 2 (corruptions) or 3 (leaks).
    pub fn exit_code(&self) -> i32 {
        match &self.report {
            r if r.check_errors > 0 => 1,
            r if r.repair_refused == Some(RepairRefused::Refcounts) => 1,
            r if r.corruptions > 0 => 2,
            r if r.leaks > 0 => 3,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(report: CheckReport) -> CheckOutcome {
        CheckOutcome {
            filename: "a.qcow2".into(),
            format: "qcow2".into(),
            report,
        }
    }

    #[test]
    fn zero_counts_are_left_out() {
        let clean = outcome(CheckReport {
            image_end_offset: Some(196_608),
            total_clusters: Some(0),
            ..CheckReport::default()
        });
        assert_eq!(
            clean.json(),
            "{\n    \"image-end-offset\": 196608,\n    \"check-errors\": 0,\n    \
             \"filename\": \"a.qcow2\",\n    \"format\": \"qcow2\"\n}\n"
        );
        assert_eq!(
            clean.text(),
            "No errors were found on the image.\nImage end offset: 196608\n"
        );
        assert_eq!(clean.exit_code(), 0);
    }

    #[test]
    fn leaks_and_corruptions_have_a_paragraph_each() {
        let bad = outcome(CheckReport {
            corruptions: 2,
            leaks: 3,
            image_end_offset: Some(1_376_256),
            total_clusters: Some(64),
            allocated_clusters: 13,
            fragmented_clusters: 2,
            ..CheckReport::default()
        });
        assert_eq!(
            bad.text(),
            "\n2 errors were found on the image.\nData may be corrupted, or further writes to the \
             image may corrupt it.\n\n3 leaked clusters were found on the image.\nThis means waste \
             of disk space, but no harm to data.\n13/64 = 20.31% allocated, 15.38% fragmented, \
             0.00% compressed clusters\nImage end offset: 1376256\n"
        );
        assert_eq!(bad.exit_code(), 2);
    }

    #[test]
    fn a_check_that_is_not_complete_says_so_whatever_else_it_found() {
        let bad = outcome(CheckReport {
            check_errors: 21,
            corruptions: 1,
            ..CheckReport::default()
        });
        assert_eq!(
            bad.text(),
            "\n1 errors were found on the image.\nData may be corrupted, or further writes to the \
             image may corrupt it.\n\n21 internal errors have occurred during the check.\n"
        );
        assert_eq!(bad.exit_code(), 1);
    }

    #[test]
    fn leaks_alone_have_their_own_exit_code() {
        let leaks = outcome(CheckReport {
            leaks: 1,
            ..CheckReport::default()
        });
        assert_eq!(leaks.exit_code(), 3);
    }
}
