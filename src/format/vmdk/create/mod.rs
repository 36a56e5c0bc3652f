//! New images.

mod bulk;
mod layout;
mod measure;
mod plan;
mod spec;
mod stream;
mod tables;

pub(super) use bulk::make_part;
pub(super) use measure::measure;
pub(super) use plan::plan;
pub(super) use spec::{OPTIONS, SUMMARY, outline};
