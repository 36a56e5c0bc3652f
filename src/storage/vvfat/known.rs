//! What the disk and the directory agreed on last.

use std::collections::BTreeMap;
use std::ops::Range;

use bstr::BString;

use super::layout::Layout;
use super::tree::{Mark, ROOT};

/// Files and directories by their paths; parents come before what they hold.
pub(super) type Known = BTreeMap<BString, KnownFile>;

/// A file or directory that is on the disk and in the directory.
#[derive(Clone, Debug)]
pub(super) struct KnownFile {
    pub(super) is_directory: bool,
    /// Of a file in the directory.
    pub(super) mark: Mark,
    /// Of a file on the disk.
    pub(super) size: u32,
    pub(super) runs: Vec<Range<u32>>,
    /// Its number, where the disk was opened with it.
    pub(super) number: Option<u32>,
}

/// What they agree on when the disk is opened.
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
