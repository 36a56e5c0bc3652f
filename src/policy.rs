//! What opening an image may do: the policy is checked inside the parser, on the same open file.

mod host;
mod implicit;

use crate::driver_names::canonical;
use crate::error::{Error, ErrorKind, Result};

pub use host::HostRule;
pub use implicit::{AskFn, ImplicitAnswer, ImplicitFile, ImplicitFiles, ImplicitRole};

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

/// What opening an image may do and how many resources it may use.
#[derive(Clone, Debug)]
pub struct OpenPolicy {
    /// The formats allowed; empty allows all.
    pub formats: Vec<String>,
    /// The protocols that may be used, by driver name (`file`, `host_device`…); empty allows all. Not applied to what
    /// the caller has opened itself: descriptors, callbacks, storages.
    pub protocols: Vec<String>,
    /// When the format may be guessed.
    pub probing: Probing,
    /// Guess the format also from the last sector, if nothing is found at the beginning: a VHD of fixed size has only
    /// that. Off in both presets, because QEMU's tools do not look there: a guest that may write to the end of its
    /// plain disk can make it look like such an image. A file that is guessed to be a plain disk in this mode is not
    /// opened for writing.
    pub probe_footers: bool,
    /// Whether files that the image names may be opened.
    pub implicit_files: ImplicitFiles,
    /// Whether a backing file's name inside an image may be `json:{…}` or `protocol:…` rather than a plain file name,
    /// which the names of data files and extents always are. Whatever the policy, the target of a name inside an image
    /// must be a regular file or a block device, must not be part of procfs or the like, and must not be reached
    /// through the open descriptors of a process (`/dev/fd/N`).
    pub implicit_protocols: bool,
    /// The servers that names inside images may refer to, and to which the servers of such images may redirect; empty
    /// allows all, if the fields above allow such names. Sockets of this machine have no host: as soon as a server is
    /// listed here, they are refused.
    pub implicit_hosts: Vec<HostRule>,
    /// Maximum number of images in a chain.
    pub max_chain_depth: u32,
    /// Maximum virtual size, in bytes.
    pub max_virtual_size: u64,
    /// Maximum size of a table that is loaded at once (L1, refcount table…), in bytes.
    pub max_table_bytes: u64,
    /// Maximum memory for the metadata cache of one image, in bytes.
    pub max_cache_bytes: u64,
    /// Maximum number of bytes that one compressed unit (cluster, grain, chunk) may decode to.
    pub max_decompressed_bytes: u64,
    /// Maximum memory for decompressing a file that is compressed as a whole, in bytes: dictionaries, windows, and the
    /// working memory of all threads.
    pub max_decoder_bytes: u64,
    /// Maximum factor by which such a file may expand, applied from 1 GiB on.
    pub max_expansion: u64,
    /// Maximum bytes of a temporary file for the contents of a compressed file, not counting holes.
    pub max_spool_bytes: u64,
    /// Maximum number of key derivation iterations that a key slot may require.
    pub max_key_iterations: u64,
}

/// About ten times what two seconds of benchmarking yield on a fast machine.
const DEFAULT_KEY_ITERATIONS: u64 = 64_000_000;

/// More than the expansion of zeroes by any of the compressions except bzip2.
const DEFAULT_EXPANSION: u64 = 100_000;

/// An acceptable size for a temporary file.
const DEFAULT_SPOOL: u64 = 64 << 30;

/// Maximum depth of a chain under any policy: a deeper one is taken for a loop.
pub const DEFAULT_CHAIN_DEPTH: u32 = 200;

impl Default for OpenPolicy {
    fn default() -> Self {
        Self {
            formats: Vec::new(),
            protocols: Vec::new(),
            probing: Probing::ReadOnly,
            probe_footers: false,
            implicit_files: ImplicitFiles::Deny,
            implicit_protocols: false,
            implicit_hosts: Vec::new(),
            max_chain_depth: DEFAULT_CHAIN_DEPTH,
            max_virtual_size: i64::MAX as u64,
            max_table_bytes: 32 << 20,
            max_cache_bytes: 16 << 20,
            max_decompressed_bytes: 64 << 20,
            max_decoder_bytes: 256 << 20,
            max_expansion: DEFAULT_EXPANSION,
            max_spool_bytes: DEFAULT_SPOOL,
            max_key_iterations: DEFAULT_KEY_ITERATIONS,
        }
    }
}

impl OpenPolicy {
    /// The library's default: no implicit files, probing for read-only opens only.
    pub fn strict() -> Self {
        Self::default()
    }

    /// What the command-line tool allows: implicit files, protocols and probing.
    pub fn permissive() -> Self {
        Self {
            probing: Probing::Always,
            implicit_files: ImplicitFiles::Allow,
            implicit_protocols: true,
            max_expansion: u64::MAX,
            max_key_iterations: u64::MAX,
            ..Self::default()
        }
    }

    /// Whether an image of `format` may be opened.
    pub fn allows_format(&self, format: &str) -> bool {
        let mut formats = self.formats.iter();
        self.formats.is_empty() || formats.any(|allowed| canonical(allowed) == canonical(format))
    }

    /// Whether storages of `protocol` may be opened and created.
    pub fn allows_protocol(&self, protocol: &str) -> bool {
        self.protocols.is_empty() || self.protocols.iter().any(|allowed| allowed == protocol)
    }

    /// Whether the format of an image may be guessed from its contents.
    pub fn allows_probing(&self, writable: bool) -> bool {
        match self.probing {
            Probing::Never => false,
            Probing::ReadOnly => !writable,
            Probing::Always => true,
        }
    }

    /// Checks that the format of an image may be guessed.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`].
    pub fn check_probing(&self, writable: bool) -> Result<()> {
        match self.allows_probing(writable) {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Denied,
                "The open policy does not allow the format to be guessed; name the format",
            )),
        }
    }

    /// Checks the decoded size of one compressed unit of an image.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`].
    pub fn check_decompressed(&self, bytes: u64) -> Result<()> {
        if bytes <= self.max_decompressed_bytes {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Limit,
            format!(
                "Compressed data may decode to {bytes} bytes at once, more than the open policy allows ({})",
                self.max_decompressed_bytes
            ),
        ))
    }

    /// Checks the number of key derivation iterations that a key slot requires.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`].
    pub fn check_key_iterations(&self, iterations: u64) -> Result<()> {
        if iterations <= self.max_key_iterations {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Limit,
            format!(
                "A key takes {iterations} iterations to derive, more than the open policy allows ({})",
                self.max_key_iterations
            ),
        ))
    }

    /// Checks the virtual size of an image that exists or is to be created.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`].
    pub fn check_virtual_size(&self, bytes: u64) -> Result<()> {
        check_virtual_size(bytes, self.max_virtual_size)
    }

    /// Checks the format of an image that exists or is to be created.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`].
    pub fn check_format(&self, format: &str) -> Result<()> {
        if self.allows_format(format) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Denied,
            format!("The open policy does not allow the format '{format}'"),
        ))
    }

    /// Checks the protocol of a storage that is to be opened or created.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`].
    pub fn check_protocol(&self, protocol: &str) -> Result<()> {
        if self.allows_protocol(protocol) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Denied,
            format!("The open policy does not allow the protocol '{protocol}'"),
        ))
    }

    /// Checks the server that a name inside an image refers to; `host` is None if it has no host.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`].
    pub fn check_host(&self, host: Option<&str>, port: Option<u16>) -> Result<()> {
        let rules = &self.implicit_hosts;
        let allows = |host: &str| rules.iter().any(|rule| rule.allows(host, port));
        if rules.is_empty() || host.is_some_and(allows) {
            return Ok(());
        }
        let port = port.map_or(String::new(), |port| format!(":{port}"));
        let server = match host {
            Some(host) if host.contains(':') => format!("the server '[{host}]{port}'"),
            Some(host) => format!("the server '{host}{port}'"),
            None => "a socket of this machine".to_owned(),
        };
        Err(Error::new(
            ErrorKind::Denied,
            format!("The open policy does not allow images to name {server}"),
        ))
    }

    /// Checks the length of a table that is to be loaded.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`], naming the table.
    pub fn check_table(&self, name: &str, bytes: u64) -> Result<()> {
        if bytes <= self.max_table_bytes {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Limit,
            format!("{name} too large for the open policy"),
        ))
    }

    /// Maximum number of images in a chain: the policy's own limit, up to [`DEFAULT_CHAIN_DEPTH`].
    pub fn chain_limit(&self) -> u32 {
        self.max_chain_depth.min(DEFAULT_CHAIN_DEPTH)
    }
}

/// As [`OpenPolicy::check_virtual_size`], for a policy of which only the limit was retained.
///
/// # Errors
/// [`ErrorKind::Limit`].
pub(crate) fn check_virtual_size(bytes: u64, limit: u64) -> Result<()> {
    if bytes <= limit {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Limit,
        format!(
            "The virtual size of {bytes} bytes is larger than the open policy allows ({limit})"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_and_depth_have_limits() {
        let policy = OpenPolicy {
            formats: vec!["raw".into()],
            max_chain_depth: u32::MAX,
            ..OpenPolicy::default()
        };
        assert!(policy.allows_format("raw") && !policy.allows_format("qcow2"));
        assert!(OpenPolicy::default().allows_format("qcow2"));
        let policy = OpenPolicy {
            formats: vec!["vhd".into()],
            ..policy
        };
        assert!(policy.allows_format("vpc") && policy.allows_format("vhd"));
        let policy = OpenPolicy {
            protocols: vec!["file".into()],
            ..OpenPolicy::default()
        };
        policy.check_protocol("file").unwrap();
        let error = policy.check_protocol("nbd").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        OpenPolicy::strict().check_protocol("nbd").unwrap();
        assert_eq!(policy.chain_limit(), DEFAULT_CHAIN_DEPTH);
    }
}
