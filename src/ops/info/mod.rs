//! `info`: describes an image.

mod collect;
mod contents;
mod layer;
mod render;

use bstr::BString;

use crate::value::Value;

pub use collect::{info, info_of_open};
pub(super) use render::write_snapshots;

/// The report of `info` on an image or its chain.
#[derive(Clone, Debug)]
pub struct InfoReport {
    /// One per layer, top first; just one without the chain.
    pub layers: Vec<LayerInfo>,
    /// Whether the chain was requested: the JSON is an array then.
    pub chain: bool,
    /// What users should know besides the report.
    pub warnings: Vec<String>,
}

/// One image of the chain, with the keys of QEMU's `ImageInfo`.
#[derive(Clone, Debug, Default)]
pub struct LayerInfo {
    /// `filename`.
    pub filename: BString,
    /// `format`; the driver of the protocol if the node has no format.
    pub format: String,
    /// `virtual-size` in bytes.
    pub virtual_size: u64,
    /// `actual-size` in bytes.
    pub actual_size: Option<u64>,
    /// `cluster-size`.
    pub cluster_size: Option<u64>,
    /// `encrypted`.
    pub encrypted: bool,
    /// `dirty-flag`.
    pub dirty: Option<bool>,
    /// `backing-filename`.
    pub backing_filename: Option<BString>,
    /// `full-backing-filename`.
    pub full_backing_filename: Option<BString>,
    /// `backing-filename-format`.
    pub backing_format: Option<BString>,
    /// `snapshots`.
    pub snapshots: Vec<crate::format::SnapshotInfo>,
    /// The number of persistent bitmaps in it.
    pub bitmaps: u64,
    /// `type` of `format-specific`.
    pub specific_type: Option<&'static str>,
    /// `data` of `format-specific`.
    pub specific: Option<Value>,
    /// The contents of a disk that is an archive, or the like.
    pub contents: Vec<ContentInfo>,
    /// `children`, by name.
    pub children: Vec<(String, LayerInfo)>,
}

/// One item among several in a file: a member of an archive.
#[derive(Clone, Debug)]
pub struct ContentInfo {
    /// Its name in the file.
    pub name: BString,
    /// Its length in bytes.
    pub len: u64,
    /// The name that opens it.
    pub filename: BString,
}
