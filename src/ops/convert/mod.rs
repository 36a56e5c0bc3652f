//! `convert`: copies the guest bytes of one or more images into another.

use crate::error::Result;
use crate::image::OpenOptions;
use crate::job::Job;
use crate::location::Location;
use crate::options::Options;
use crate::policy::OpenPolicy;
use crate::secret::Secrets;
use crate::storage::CacheMode;

/// What to convert, and how.
#[derive(Clone, Debug)]
pub struct ConvertRequest {
    /// The sources, concatenated in this order.
    pub sources: Vec<Location>,
    /// How each source is opened.
    pub source_options: OpenOptions,
    /// The target.
    pub target: Location,
    /// `-O`: the target's format; None with `target_exists` probes.
    pub target_format: Option<String>,
    /// `-o`: creation options.
    pub target_options: Options,
    /// `-t`. The default for convert is [`CacheMode::Unsafe`].
    pub target_cache: CacheMode,
    /// `-n`: write into an existing image.
    pub target_exists: bool,
    /// `--target-is-zero`: the existing target reads as zeroes.
    pub target_is_zero: bool,
    /// `-B`: the target's backing file; source data that it holds already is not copied.
    pub backing_file: Option<String>,
    /// `-F`.
    pub backing_format: Option<String>,
    /// `-c`.
    pub compress: bool,
    /// `-S`: runs of zeroes of at least this many bytes stay sparse; 0 allocates everything.
    pub sparse_size: Option<u32>,
    /// `-m`: parallel work; None chooses by the machine.
    pub parallel: Option<u32>,
    /// `-W`: the host order of clusters need not follow the guest order.
    pub out_of_order: bool,
    /// `-C`: copy inside the host where possible (tried anyway; kept for those who set it).
    pub copy_range: bool,
    /// `--salvage`: unreadable parts become zeroes, with a warning each.
    pub salvage: bool,
    /// `-l`: an internal snapshot of the source.
    pub snapshot: Option<String>,
    /// The secrets that target options name by ID.
    pub secrets: Secrets,
    /// What opening the target and its backing file may do.
    pub policy: OpenPolicy,
}

impl ConvertRequest {
    /// From `source` to `target` with every default of `qemu-img convert`.
    pub fn new(source: Location, target: Location) -> Self {
        Self {
            sources: vec![source],
            source_options: OpenOptions {
                deny_writers: true,
                ..OpenOptions::default()
            },
            target,
            target_format: None,
            target_options: Options::new(),
            target_cache: CacheMode::Unsafe,
            target_exists: false,
            target_is_zero: false,
            backing_file: None,
            backing_format: None,
            compress: false,
            sparse_size: None,
            parallel: None,
            out_of_order: false,
            copy_range: false,
            salvage: false,
            snapshot: None,
            secrets: Secrets::default(),
            policy: OpenPolicy::default(),
        }
    }
}

/// What a conversion did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConvertReport {
    /// Guest bytes of the target.
    pub virtual_size: u64,
    /// Guest bytes written as data.
    pub data_bytes: u64,
    /// Guest bytes copied inside the host, by sharing blocks or by the kernel.
    pub offloaded_bytes: u64,
    /// Guest bytes that stay sparse or are marked as zeroes.
    pub zero_bytes: u64,
    /// Guest bytes that the target's backing file holds already.
    pub backed_bytes: u64,
    /// Compressed units, and the bytes that they take.
    pub compressed_units: u64,
    /// Bytes of the compressed units.
    pub compressed_bytes: u64,
}

/// Runs the conversion. A target that it created is removed when it fails or is cancelled.
///
/// # Errors
/// One line that names the file.
pub fn convert(request: &ConvertRequest, job: &mut Job) -> Result<ConvertReport> {
    let _ = (request, job);
    todo!()
}
