//! What to convert, and the combinations of options that make no sense.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, Result};
use crate::image::OpenOptions;
use crate::location::Location;
use crate::options::Options;
use crate::policy::OpenPolicy;
use crate::secret::Secrets;
use crate::storage::stream::{Direction, Stream};
use crate::storage::{CacheMode, NamedStorages};
use crate::sys::fd;

use super::window::Window;

/// A descriptor that is read or written in order, from its position on.
#[derive(Clone, Debug)]
pub struct NamedFd {
    /// The descriptor.
    pub fd: Arc<OwnedFd>,
    /// What stands for it in messages.
    pub name: String,
}

impl NamedFd {
    /// The stream over a duplicate, for bytes that go in this direction.
    pub(super) fn stream(&self, direction: Direction) -> Result<Stream> {
        let fd = fd::duplicate(self.fd.as_fd()).map_err(|error| Error::io(&error))?;
        Stream::from_fd(fd, self.name.as_str(), direction)
    }
}

/// What to convert, and how.
#[derive(Clone, Debug)]
pub struct ConvertRequest {
    /// The sources, concatenated in this order.
    pub sources: Vec<Location>,
    /// How each source is opened.
    pub source_options: OpenOptions,
    /// Read this descriptor, from its position on and in order, instead of any source.
    pub source_fd: Option<NamedFd>,
    /// What of the input is copied.
    pub window: Window,
    /// The target.
    pub target: Location,
    /// Write raw bytes to this descriptor, in order, instead of to the target.
    pub target_fd: Option<NamedFd>,
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
    pub backing_file: Option<BString>,
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
    /// `--bitmaps`: copy the persistent dirty bitmaps of the only source.
    pub bitmaps: bool,
    /// `--skip-broken-bitmaps`: leave inconsistent ones out, with a warning each.
    pub skip_broken_bitmaps: bool,
    /// `-l`: an internal snapshot of the source.
    pub snapshot: Option<BString>,
    /// The secrets that target options name by ID.
    pub secrets: Secrets,
    /// What opening the target and its backing file may do.
    pub policy: OpenPolicy,
    /// Storages under names of the caller's own, asked for the target and what it names before the
    /// protocols.
    pub storages: Option<Arc<dyn NamedStorages>>,
    /// `dd` runs this: it has words of its own for some errors, and reads character devices.
    pub for_dd: bool,
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
            source_fd: None,
            window: Window::default(),
            target,
            target_fd: None,
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
            bitmaps: false,
            skip_broken_bitmaps: false,
            snapshot: None,
            secrets: Secrets::default(),
            policy: OpenPolicy::default(),
            storages: None,
            for_dd: false,
        }
    }
}

/// The largest `-S`.
const MAX_SPARSE: u32 = 16 << 20;

/// The default of `-S`.
pub(super) const DEFAULT_SPARSE: u32 = 4096;

/// The most workers.
pub(super) const MAX_PARALLEL: u32 = 16;

impl ConvertRequest {
    /// Refuses combinations that make no sense, before any file is touched.
    pub(super) fn validate(&self) -> Result<()> {
        if self
            .sparse_size
            .is_some_and(|size| size % 512 != 0 || size > MAX_SPARSE)
        {
            return Err(Error::invalid(format!(
                "Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to {MAX_SPARSE}. Select 0 to disable sparse detection (fully allocates output)."
            )));
        }
        if self
            .parallel
            .is_some_and(|n| !(1..=MAX_PARALLEL).contains(&n))
        {
            return Err(Error::invalid(format!(
                "Invalid number of coroutines specified. Must be between 1 and {MAX_PARALLEL}."
            )));
        }
        let refusals = [
            (
                self.sources.is_empty() && self.source_fd.is_none(),
                "Must specify image file name",
            ),
            (
                self.copy_range && self.compress,
                "Cannot enable copy offloading when -c is used",
            ),
            (
                self.copy_range && self.sparse_size.is_some(),
                "Cannot enable copy offloading when -S is used",
            ),
            (
                self.copy_range && self.salvage,
                "Cannot use copy offloading in salvaging mode",
            ),
            (
                self.target_exists && !self.target_options.is_empty(),
                "-o has no effect when skipping image creation",
            ),
            (
                self.target_is_zero && !self.target_exists,
                "--target-is-zero requires use of -n flag",
            ),
            (
                self.backing_name().is_some() && self.sources.len() > 1,
                "Having a backing file for the target makes no sense when concatenating multiple input images",
            ),
            (
                self.snapshot.is_some() && self.sources.len() > 1,
                "No support for concatenating multiple snapshot",
            ),
            (
                self.skip_broken_bitmaps && !self.bitmaps,
                "Use of --skip-broken-bitmaps requires --bitmaps",
            ),
            (
                self.bitmaps && self.sources.len() > 1,
                "Copying bitmaps only possible with single source",
            ),
        ];
        match refusals.iter().find(|(refused, _)| *refused) {
            Some((_, text)) => Err(Error::invalid(*text)),
            None => Ok(()),
        }
    }

    /// `-B`, else `-o backing_file=`.
    pub(super) fn backing_name(&self) -> Option<&BStr> {
        self.backing_file
            .as_ref()
            .map(|name| name.as_bstr())
            .or_else(|| self.target_options.get("backing_file"))
    }

    /// `-F`, else `-o backing_fmt=`.
    pub(super) fn backing_format(&self) -> Option<String> {
        let option = || self.target_options.get("backing_fmt");
        self.backing_format
            .clone()
            .or_else(|| Some(option()?.to_str_lossy().into_owned()))
    }

    /// Runs of zeroes of at least this many bytes stay sparse; 0 for none.
    pub(super) fn sparse(&self) -> u64 {
        u64::from(self.sparse_size.unwrap_or(DEFAULT_SPARSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut ConvertRequest)) -> String {
        let mut request = ConvertRequest::new(Location::from_path("a"), Location::from_path("b"));
        request.validate().unwrap();
        change(&mut request);
        request.validate().unwrap_err().to_string()
    }

    #[test]
    fn combinations_without_sense_are_refused() {
        assert!(refused(|r| r.parallel = Some(17)).contains("between 1 and 16"));
        assert!(
            refused(|r| r.sparse_size = Some(513)).contains("multiples of 512 up to 16777216.")
        );
        assert!(refused(|r| r.target_is_zero = true).starts_with("--target-is-zero"));
        assert!(
            refused(|r| {
                r.copy_range = true;
                r.compress = true;
            })
            .ends_with("when -c is used")
        );
        assert!(
            refused(|r| {
                r.sources.push(Location::from_path("c"));
                r.backing_file = Some("d".into());
            })
            .contains("concatenating")
        );
    }
}
