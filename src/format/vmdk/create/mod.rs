//! New images.

mod bulk;
mod layout;
mod plan;
mod spec;
mod stream;
mod tables;

pub(super) use bulk::make_part;
pub(super) use plan::plan;
pub(super) use spec::{OPTIONS, SUMMARY, measure, outline};
