//! What a directory contained when the disk was opened, in a compact form: about a hundred bytes per file, plus its
//! name.

use std::ops::Range;

use bstr::{BStr, BString, ByteSlice};

use super::disk::entry::{self, Entry, LEN, ShortName};
use super::disk::{FIRST_CLUSTER, long_name};
use crate::sys::directory::Status;

/// A file or directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    /// Offset and length of its name.
    pub(super) name: (u32, u16),
    pub(super) short: ShortName,
    pub(super) is_directory: bool,
    pub(super) read_only: bool,
    /// Number of entries that it takes in the parent directory.
    pub(super) slots: u8,
    /// The first of them.
    pub(super) slot: u32,
    /// The parent directory; the root is its own parent.
    pub(super) parent: u32,
    /// The first of its children, and their number.
    pub(super) children: (u32, u32),
    /// Size on the disk in bytes; for a directory, that of its entries.
    pub(super) size: u32,
    /// The first cluster; if it has none, that of the next node.
    pub(super) cluster: u32,
    /// Shows whether it has changed.
    pub(super) mark: Mark,
}

/// Attributes that change with the contents of a file.
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

/// All files and directories; the children of a directory are contiguous and sorted by name.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) names: Vec<u8>,
    /// The volume label.
    pub(super) label: Option<ShortName>,
    /// Whether the root directory is stored in clusters.
    pub(super) root_in_clusters: bool,
    pub(super) cluster_bytes: u64,
}

impl Tree {
    /// A node by its number, which must be valid.
    pub(super) fn node(&self, number: u32) -> &Node {
        &self.nodes[number as usize]
    }

    pub(super) fn name(&self, number: u32) -> &BStr {
        let (at, len) = self.node(number).name;
        self.names[at as usize..at as usize + usize::from(len)].as_bstr()
    }

    /// The names on the path from the root to a node.
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

    /// The same path as one name, prefixed by that of the directory.
    pub(super) fn shown(&self, directory: &BStr, number: u32) -> BString {
        let mut shown = directory.to_owned();
        for name in self.path(number) {
            shown.push(b'/');
            shown.extend_from_slice(name);
        }
        shown
    }

    /// Number of clusters that a node takes.
    pub(super) fn clusters(&self, number: u32) -> u64 {
        self.clusters_of(self.node(number), number == ROOT, self.cluster_bytes)
    }

    fn clusters_of(&self, node: &Node, is_root: bool, cluster_bytes: u64) -> u64 {
        let clusters = u64::from(node.size).div_ceil(cluster_bytes);
        match (node.is_directory, is_root && !self.root_in_clusters) {
            (_, true) => 0,
            // Even an empty directory has one.
            (true, false) => clusters.max(1),
            (false, false) => clusters,
        }
    }

    /// Total number of clusters, if they have this size.
    pub(super) fn clusters_in_all(&self, cluster_bytes: u64) -> u64 {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .map(|(number, node)| self.clusters_of(node, number == 0, cluster_bytes))
            .sum()
    }

    /// Assigns consecutive clusters to all nodes; returns the first free one.
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

    /// The node that a cluster belongs to, and the node's clusters.
    pub(super) fn owner(&self, cluster: u32) -> Option<(u32, Range<u32>)> {
        let behind = self.nodes.partition_point(|node| node.cluster <= cluster);
        let number = u32::try_from(behind).ok()?.checked_sub(1)?;
        let first = self.node(number).cluster;
        let end = first + self.clusters(number) as u32;
        (cluster < end).then_some((number, first..end))
    }

    /// The entry of a node in its parent directory.
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

    /// Entry `slot` in the listing of a directory.
    pub(super) fn listed(&self, directory: u32, slot: u32) -> [u8; LEN] {
        let of = |name, number: u32, attributes| {
            let is_above = number == ROOT && directory != ROOT;
            Entry {
                name,
                attributes,
                // The root is denoted by 0, wherever it is located.
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
