//! What opening an image may do: the policy is checked inside the parser, on the same open file.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;

/// When the format may be guessed from the contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Probing {
    /// Never: the caller names the format.
    Never,
    /// For read-only opens only. The library's default.
    #[default]
    ReadOnly,
    /// Always, as the command-line tool allows.
    Always,
}

/// Whether files that an image names (backing file, data file, extents) may be opened.
#[derive(Clone, Default)]
pub enum ImplicitFiles {
    /// None. The library's default.
    #[default]
    Deny,
    /// Any, as the command-line tool allows.
    Allow,
    /// Only files whose real path lies below one of these directories.
    Below(Vec<PathBuf>),
    /// Asks the callback for each file.
    Ask(Arc<dyn Fn(&ImplicitFile<'_>) -> Result<ImplicitAnswer> + Send + Sync>),
}

impl fmt::Debug for ImplicitFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deny => f.write_str("Deny"),
            Self::Allow => f.write_str("Allow"),
            Self::Below(directories) => f.debug_tuple("Below").field(directories).finish(),
            Self::Ask(_) => f.write_str("Ask(..)"),
        }
    }
}

/// The part that a file named inside an image plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImplicitRole {
    /// Holds what the overlay does not.
    Backing,
    /// Holds the guest data of a qcow2 image.
    DataFile,
    /// Holds a piece of the guest data.
    Extent,
}

/// A file that an image names, as shown to [`ImplicitFiles::Ask`].
#[derive(Debug)]
pub struct ImplicitFile<'a> {
    /// Its part.
    pub role: ImplicitRole,
    /// The name as it stands in the image.
    pub name: &'a str,
    /// The image that names it.
    pub named_by: &'a str,
    /// Whether it would be opened for writing.
    pub writable: bool,
}

/// The answer of [`ImplicitFiles::Ask`].
#[derive(Debug)]
pub enum ImplicitAnswer {
    /// Refuse.
    Deny,
    /// Open the file by its name.
    Open,
    /// Use this open file instead of the name.
    Fd(std::os::fd::OwnedFd),
}

/// What opening an image may do and how much it may take.
#[derive(Clone, Debug)]
pub struct OpenPolicy {
    /// The formats allowed; empty allows all.
    pub formats: Vec<String>,
    /// When the format may be guessed.
    pub probing: Probing,
    /// Whether files that the image names may be opened.
    pub implicit_files: ImplicitFiles,
    /// Whether a name inside an image may be `json:{…}` or `protocol:…` rather than a plain file name.
    pub implicit_protocols: bool,
    /// The largest number of images in a chain.
    pub max_chain_depth: u32,
    /// The largest virtual size, in bytes.
    pub max_virtual_size: u64,
    /// The largest table that is loaded at once (L1, refcount table…), in bytes.
    pub max_table_bytes: u64,
    /// The most memory for the metadata cache of one image, in bytes.
    pub max_cache_bytes: u64,
}

/// The deepest chain that any policy allows: beyond it a chain is taken for a loop.
pub const DEFAULT_CHAIN_DEPTH: u32 = 200;

impl Default for OpenPolicy {
    fn default() -> Self {
        Self {
            formats: Vec::new(),
            probing: Probing::ReadOnly,
            implicit_files: ImplicitFiles::Deny,
            implicit_protocols: false,
            max_chain_depth: DEFAULT_CHAIN_DEPTH,
            max_virtual_size: i64::MAX as u64,
            max_table_bytes: 32 << 20,
            max_cache_bytes: 16 << 20,
        }
    }
}

impl OpenPolicy {
    /// The library's default: no implicit files, probing for read-only opens alone.
    pub fn strict() -> Self {
        Self::default()
    }

    /// What the command-line tool allows: implicit files, protocols and probing.
    pub fn permissive() -> Self {
        Self {
            probing: Probing::Always,
            implicit_files: ImplicitFiles::Allow,
            implicit_protocols: true,
            ..Self::default()
        }
    }
}
