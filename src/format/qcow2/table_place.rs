//! Where tables stand in the file.

/// Where a table of whole clusters stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TablePlace {
    pub(super) offset: u64,
    pub(super) first: u64,
    pub(super) clusters: u64,
}
