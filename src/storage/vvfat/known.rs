//! The last state that the disk and the directory agreed on.

use std::collections::BTreeMap;
use std::ops::Range;

use bstr::BString;

use super::layout::Layout;
use super::tree::{Mark, ROOT};

/// Files and directories by path; parents come before their contents.
pub(super) type Known = BTreeMap<BString, KnownFile>;

/// A file or directory that is both on the disk and in the directory.
#[derive(Clone, Debug)]
pub(super) struct KnownFile {
    pub(super) is_directory: bool,
    /// That of the file in the directory.
    pub(super) mark: Mark,
    /// That of the file on the disk.
    pub(super) size: u32,
    pub(super) runs: Vec<Range<u32>>,
    /// Its node number, if it was there when the disk was opened.
    pub(super) number: Option<u32>,
}

/// The agreed state when the disk is opened.
pub(super) fn known(layout: &Layout) -> Known {
    let tree = &layout.tree;
    let numbers = ROOT + 1..tree.nodes.len() as u32;
    let files = numbers.map(|number| {
        let node = tree.node(number);
        let end = node.cluster + tree.clusters(number) as u32;
        let run = node.cluster..end;
        let path: BString = bstr::join("/", tree.path(number)).into();
        let file = KnownFile {
            is_directory: node.is_directory,
            mark: node.mark,
            size: if node.is_directory { 0 } else { node.size },
            runs: Some(run)
                .filter(|run| !run.is_empty())
                .into_iter()
                .collect(),
            number: Some(number),
        };
        (path, file)
    });
    files.collect()
}
