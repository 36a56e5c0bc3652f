//! The contents of a report.

use bstr::BString;

use crate::error::Error;
use crate::ops::bench::BenchReport;
use crate::ops::bitmap::{BitmapReport, DirtyReport};
use crate::ops::check::CheckOutcome;
use crate::ops::compare::CompareReport;
use crate::ops::convert::ConvertReport;
use crate::ops::exports::ExportsReport;
use crate::ops::info::InfoReport;
use crate::ops::inspect::InspectReport;
use crate::ops::map::MapReport;
use crate::ops::measure::MeasureReport;
use crate::ops::snapshot::SnapshotReport;

/// The report of each operation.
#[derive(Debug)]
pub(super) enum Content {
    Info(InfoReport),
    Check(CheckOutcome),
    Map(MapReport),
    Compare(CompareReport),
    Convert(ConvertReport),
    Measure(MeasureReport),
    Snapshots(SnapshotReport),
    Inspect(InspectReport),
    Bench(BenchReport),
    Bitmaps(BitmapReport),
    Dirty(DirtyReport),
    Exports(ExportsReport),
    Create {
        summary: BString,
    },
    /// An image was changed; its virtual size if the operation reports that.
    Done {
        virtual_size: Option<u64>,
    },
}

impl Content {
    /// Why the work counts as failed although it has a report.
    pub(super) fn failure(&self) -> Option<Error> {
        match self {
            Self::Check(outcome) => outcome.refusal(),
            _ => None,
        }
    }
}
