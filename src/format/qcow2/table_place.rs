//! The place of a table in the file.

/// The place of a table of whole clusters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TablePlace {
    pub(super) offset: u64,
    pub(super) first: u64,
    pub(super) clusters: u64,
}
