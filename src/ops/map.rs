//! `map`: where the guest bytes of a chain live.

use crate::error::Result;
use crate::image::Image;
use crate::job::Job;

/// One run of guest bytes with QEMU's flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// Guest offset in bytes.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// Layer of the chain.
    pub depth: u32,
    /// A layer of the chain holds the run.
    pub present: bool,
    /// The run reads as zeroes.
    pub zero: bool,
    /// The run has data in the host file.
    pub data: bool,
    /// The data is compressed.
    pub compressed: bool,
    /// Offset of the data in the file of that layer.
    pub offset: Option<u64>,
}

/// The report of `map`.
#[derive(Clone, Debug)]
pub struct MapReport {
    /// Runs in guest order, equal neighbours merged.
    pub entries: Vec<MapEntry>,
    /// File name of each layer, for the human form.
    pub files: Vec<String>,
}

/// Maps `len` bytes from `start`; None maps to the end.
///
/// # Errors
/// Of reading metadata.
pub fn map(image: &Image, start: u64, len: Option<u64>, job: &mut Job) -> Result<MapReport> {
    let _ = (image, start, len, job);
    todo!()
}

impl MapReport {
    /// The JSON that `qemu-img map --output=json` prints.
    pub fn json(&self) -> String {
        todo!()
    }

    /// The table that `qemu-img map` prints, and the error that ends it where an extent has no
    /// plain host bytes.
    pub fn text(&self) -> (String, Result<()>) {
        todo!()
    }
}
