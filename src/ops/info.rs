//! `info`: what an image is.

use serde_json::Value;

use crate::error::Result;
use crate::image::OpenOptions;
use crate::location::Location;

/// The report of `info` on an image or its chain.
#[derive(Clone, Debug)]
pub struct InfoReport {
    /// One per layer, top first; one alone without the chain.
    pub layers: Vec<LayerInfo>,
    /// Whether the chain was asked for: the JSON is an array then.
    pub chain: bool,
}

/// One image of the chain, with the keys of QEMU's `ImageInfo`.
#[derive(Clone, Debug)]
pub struct LayerInfo {
    /// `filename`.
    pub filename: String,
    /// `format`.
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
    pub backing_filename: Option<String>,
    /// `full-backing-filename`.
    pub full_backing_filename: Option<String>,
    /// `backing-filename-format`.
    pub backing_format: Option<String>,
    /// `snapshots`.
    pub snapshots: Vec<crate::format::SnapshotInfo>,
    /// `format-specific`.
    pub specific: Option<Value>,
    /// `children`, by name.
    pub children: Vec<(String, LayerInfo)>,
}

/// Collects the report. Opens no data file; opens backing files only for `chain`.
///
/// # Errors
/// As opening the image.
pub fn info(location: &Location, options: &OpenOptions, chain: bool) -> Result<InfoReport> {
    let _ = (location, options, chain);
    todo!()
}

impl InfoReport {
    /// The JSON that `qemu-img info --output=json` prints, with its final newline.
    pub fn json(&self) -> String {
        todo!()
    }

    /// The text that `qemu-img info` prints.
    pub fn text(&self) -> String {
        todo!()
    }
}
