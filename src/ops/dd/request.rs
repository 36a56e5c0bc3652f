//! What `dd` copies, in its own units.

use std::sync::Arc;

use bstr::BString;

use crate::driver_names::{is_known, unknown_format};
use crate::error::{Error, Result};
use crate::format::registry;
use crate::image::OpenOptions;
use crate::location::Location;
use crate::object::Objects;
use crate::ops::convert::{ConvertRequest, NamedFd, Window, Wording};
use crate::ops::create::Reason;
use crate::policy::OpenPolicy;
use crate::size::check_image_size;
use crate::storage::{CacheMode, NamedStorages};

/// Maximum block size.
const MAX_BLOCK_SIZE: u64 = i32::MAX as u64;

/// Its users speak of inputs and outputs.
const WORDING: Wording = Wording {
    creating: |_| "error while creating output image".to_owned(),
    unknown_format: |format| match is_known(format) {
        true => unknown_format(format),
        // The message does not say which.
        false => Error::invalid("Unknown file format"),
    },
    size: "that of the input or of the output",
    source: Reason::Input,
    names_target: false,
};

/// Where bytes come from or go to.
#[derive(Clone, Debug)]
pub enum DdEnd {
    /// An image, or the path of a pipe or device that is accessed sequentially.
    Location(Location),
    /// A descriptor that is accessed sequentially, from its current position on. Plain bytes.
    Fd(NamedFd),
}

/// What to copy, and how.
#[derive(Clone, Debug)]
pub struct DdRequest {
    /// `if=`
    pub input: DdEnd,
    /// How an input that is an image is opened.
    pub input_options: OpenOptions,
    /// `-l`: an internal snapshot of the input.
    pub snapshot: Option<BString>,
    /// `of=`
    pub output: DdEnd,
    /// `-O`
    pub output_format: String,
    /// How the page cache is used for the output.
    pub output_cache: CacheMode,
    /// `-n`: write into an existing image.
    pub output_exists: bool,
    /// Overwrite nothing: an existing file is refused.
    pub output_exclusive: bool,
    /// `bs=`: bytes per block.
    pub block_size: u64,
    /// `count=`: maximum number of blocks to copy.
    pub count: Option<u64>,
    /// `skip=`: number of blocks at the beginning of the input to leave out.
    pub skip: u64,
    /// `isize=`: the size of the input in bytes. A stream must hold this much.
    pub input_size: Option<u64>,
    /// `osize=`: the size of the output in bytes; what the input does not fill reads as zeroes.
    pub output_size: Option<u64>,
    /// The secrets and other objects that options name by ID.
    pub objects: Objects,
    /// What opening an existing output may do.
    pub policy: OpenPolicy,
    /// Storages under the caller's own names, consulted before the protocols for the output and what it names.
    pub storages: Option<Arc<dyn NamedStorages>>,
}

impl DdRequest {
    /// A copy from `input` to `output` with all defaults of `qemu-img dd`.
    pub fn new(input: DdEnd, output: DdEnd) -> Self {
        Self {
            input,
            input_options: OpenOptions::default(),
            snapshot: None,
            output,
            output_format: registry::plain().name.to_owned(),
            output_cache: CacheMode::Writeback,
            output_exists: false,
            output_exclusive: false,
            block_size: 512,
            count: None,
            skip: 0,
            input_size: None,
            output_size: None,
            objects: Objects::default(),
            policy: OpenPolicy::default(),
            storages: None,
        }
    }

    /// The conversion that does the copying.
    pub(super) fn conversion(&self) -> Result<ConvertRequest> {
        check_block_size(self.block_size)?;
        for size in [self.input_size, self.output_size].into_iter().flatten() {
            check_image_size(size)?;
        }
        let (source, source_fd) = parts(&self.input);
        let (target, target_fd) = parts(&self.output);
        let mut request = ConvertRequest::new(source, target);
        request.wording = &WORDING;
        request.target.fd = target_fd;
        request.target.format = Some(self.output_format.clone());
        request.target.cache = self.output_cache;
        request.target.exists = self.output_exists;
        request.target.exclusive = self.output_exclusive;
        request.target.objects = self.objects.clone();
        request.target.policy = self.policy.clone();
        request.target.storages.clone_from(&self.storages);
        request.source.fd = source_fd;
        request.source.devices = true;
        request.source.options = self.input_options.clone();
        request.source.snapshot.clone_from(&self.snapshot);
        request.source.window = Window {
            // An offset beyond every possible image is beyond this one, too.
            skip: self.skip.saturating_mul(self.block_size),
            limit: self
                .count
                .map(|count| count.saturating_mul(self.block_size)),
            input_size: self.input_size,
            output_size: self.output_size,
            product: None,
        };
        Ok(request)
    }
}

/// Checks a block size.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for a size out of range.
pub(crate) fn check_block_size(bytes: u64) -> Result<()> {
    if (1..=MAX_BLOCK_SIZE).contains(&bytes) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Blocks of {bytes} bytes are not between 1 and {MAX_BLOCK_SIZE}"
    )))
}

fn parts(end: &DdEnd) -> (Location, Option<NamedFd>) {
    match end {
        DdEnd::Location(location) => (location.clone(), None),
        DdEnd::Fd(fd) => (Location::from_path(&fd.name), Some(fd.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_become_bytes_and_never_wrap() {
        let end = || DdEnd::Location(Location::from_path("x"));
        let mut request = DdRequest::new(end(), end());
        request.block_size = 1 << 20;
        request.skip = 3;
        request.count = Some(u64::MAX);
        let window = request.conversion().unwrap().source.window;
        assert_eq!((window.skip, window.limit), (3 << 20, Some(u64::MAX)));
        for wrong in [0, MAX_BLOCK_SIZE + 1] {
            request.block_size = wrong;
            let error = request.conversion().unwrap_err().to_string();
            assert!(error.ends_with("between 1 and 2147483647"), "{error}");
        }
        request.block_size = 512;
        request.input_size = Some(u64::MAX);
        assert!(request.conversion().is_err());
    }
}
