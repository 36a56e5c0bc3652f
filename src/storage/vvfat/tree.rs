//! What a directory held when the disk was opened, in a form that is small: about a hundred bytes and its
//! name for each file.

use std::ops::Range;

use bstr::{BStr, BString, ByteSlice};

use super::disk::entry::{self, Entry, LEN, ShortName};
use super::disk::{FIRST_CLUSTER, long_name};
use crate::sys::directory::Status;

/// A file or directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    /// Where its name begins and how long it is.
    pub(super) name: (u32, u16),
    pub(super) short: ShortName,
    pub(super) is_directory: bool,
    pub(super) read_only: bool,
    /// Entries that it takes in the directory above.
    pub(super) slots: u8,
    /// The first of them.
    pub(super) slot: u32,
    /// The directory above; the root is its own.
    pub(super) parent: u32,
    /// The first of what it lists, and how many that are.
    pub(super) children: (u32, u32),
    /// Bytes on the disk, those of its entries for a directory.
    pub(super) size: u32,
    /// The first cluster; that of the next one where it has none.
    pub(super) cluster: u32,
    /// What tells whether it has changed.
    pub(super) mark: Mark,
}

/// What changes with the contents of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) identity: (u64, u64),
    pub(super) modified: (i64, u32),
    pub(super) len: u64,
}

impl From<&Status> for Mark {
    fn from(status: &Status) -> Self {
        Self {
            identity: status.identity,
            modified: status.modified,
            len: status.len,
        }
    }
}

/// The number of the root.
pub(super) const ROOT: u32 = 0;

/// All files and directories; what one directory lists stands together, in the order of its names.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) names: Vec<u8>,
    /// The volume label.
    pub(super) label: Option<ShortName>,
    /// The root directory has clusters.
    pub(super) root_in_clusters: bool,
    pub(super) cluster_bytes: u64,
}

impl Tree {
    /// A node by its number, which is that of one.
    pub(super) fn node(&self, number: u32) -> &Node {
        &self.nodes[number as usize]
    }

    pub(super) fn name(&self, number: u32) -> &BStr {
        let (at, len) = self.node(number).name;
        self.names[at as usize..at as usize + usize::from(len)].as_bstr()
    }

    /// The names that lead to a node, from the root.
    pub(super) fn path(&self, number: u32) -> Vec<&BStr> {
        let mut names = Vec::new();
        let mut number = number;
        while number != ROOT {
            names.push(self.name(number));
            number = self.node(number).parent;
        }
        names.reverse();
        names
    }

    /// The same as one name, beneath that of the directory.
    pub(super) fn shown(&self, directory: &BStr, number: u32) -> BString {
        let mut shown = directory.to_owned();
        for name in self.path(number) {
            shown.push(b'/');
            shown.extend_from_slice(name);
        }
        shown
    }

    /// Clusters that a node takes.
    pub(super) fn clusters(&self, number: u32) -> u64 {
        self.clusters_of(self.node(number), number == ROOT, self.cluster_bytes)
    }

    fn clusters_of(&self, node: &Node, is_root: bool, cluster_bytes: u64) -> u64 {
        let clusters = u64::from(node.size).div_ceil(cluster_bytes);
        match (node.is_directory, is_root && !self.root_in_clusters) {
            (_, true) => 0,
            // A directory has one even where it is empty.
            (true, false) => clusters.max(1),
            (false, false) => clusters,
        }
    }

    /// Clusters that everything takes, if they are that large.
    pub(super) fn clusters_in_all(&self, cluster_bytes: u64) -> u64 {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .map(|(number, node)| self.clusters_of(node, number == 0, cluster_bytes))
            .sum()
    }

    /// Gives everything its clusters, one behind the other; the first that is free behind them.
    pub(super) fn allocate(&mut self, cluster_bytes: u64) -> u32 {
        self.cluster_bytes = cluster_bytes;
        let mut next = u64::from(FIRST_CLUSTER);
        for number in 0..self.nodes.len() {
            let count = self.clusters_of(&self.nodes[number], number == 0, cluster_bytes);
            self.nodes[number].cluster = next as u32;
            next += count;
        }
        next as u32
    }

    /// The node to which a cluster belongs, and its clusters.
    pub(super) fn owner(&self, cluster: u32) -> Option<(u32, Range<u32>)> {
        let behind = self.nodes.partition_point(|node| node.cluster <= cluster);
        let number = u32::try_from(behind).ok()?.checked_sub(1)?;
        let first = self.node(number).cluster;
        let end = first + self.clusters(number) as u32;
        (cluster < end).then_some((number, first..end))
    }

    /// The entry of a node in the directory above.
    fn entry(&self, number: u32) -> Entry {
        let node = self.node(number);
        let attributes = match (node.is_directory, node.read_only) {
            (true, _) => entry::DIRECTORY,
            (false, true) => entry::ARCHIVE | entry::READ_ONLY,
            (false, false) => entry::ARCHIVE,
        };
        Entry {
            name: node.short,
            attributes,
            small: (false, false),
            modified: node.mark.modified.0,
            cluster: if self.clusters(number) == 0 {
                0
            } else {
                node.cluster
            },
            size: if node.is_directory { 0 } else { node.size },
        }
    }

    /// Entry `slot` of the listing of a directory.
    pub(super) fn listed(&self, directory: u32, slot: u32) -> [u8; LEN] {
        let of = |name, number: u32, attributes| {
            let is_above = number == ROOT && directory != ROOT;
            Entry {
                name,
                attributes,
                // The root is named by 0, wherever it is.
                cluster: if is_above || directory == ROOT {
                    0
                } else {
                    self.node(number).cluster
                },
                ..self.entry(number)
            }
            .to_bytes()
        };
        match (directory, &self.label, slot) {
            (ROOT, Some(label), 0) => return of(*label, ROOT, entry::VOLUME),
            (1.., _, 0) => return of(entry::DOT, directory, entry::DIRECTORY),
            (1.., _, 1) => {
                let above = self.node(directory).parent;
                return of(entry::DOT_DOT, above, entry::DIRECTORY);
            }
            _ => {}
        }
        let (first, count) = self.node(directory).children;
        let listed = &self.nodes[first as usize..(first + count) as usize];
        let behind = listed.partition_point(|node| node.slot <= slot);
        let Some(number) = behind.checked_sub(1).map(|at| first + at as u32) else {
            return [0; LEN];
        };
        let node = self.node(number);
        let within = slot - node.slot;
        if within + 1 > u32::from(node.slots) {
            return [0; LEN];
        }
        let left = u32::from(node.slots) - 1 - within;
        if left == 0 {
            return self.entry(number).to_bytes();
        }
        let name = self.name(number).to_str_lossy();
        let units: Vec<u16> = name.encode_utf16().collect();
        long_name::piece(&units, left as usize, long_name::checksum(&node.short))
    }
}
