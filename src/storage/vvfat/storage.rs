//! The open disk.

use std::fs::OpenOptions;
use std::io::IoSliceMut;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use bstr::{BStr, BString, ByteSlice};

use super::disk::FatType;
use super::files::Files;
use super::layout::Layout;
use super::scan::scan;
use super::settings::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageExtent;
use crate::storage::driver::OpenContext;
use crate::storage::{
    Durability, HostFile, Identity, Limits, LockRequest, Permissions, Preallocation, Storage,
    ZeroFlags,
};
use crate::sys::directory::{self, Hold};
use crate::sys::{attr, fd};

/// A directory as a disk.
#[derive(Debug)]
pub(super) struct VvfatStorage {
    name: BString,
    layout: Layout,
    files: Files,
    warnings: Vec<String>,
}

/// Opens the disk that the options describe.
///
/// # Errors
/// [`ErrorKind::Invalid`] for options that describe none; of looking at the directory.
pub(super) fn open(context: &OpenContext<'_>) -> Result<Arc<dyn Storage>> {
    let settings = Settings::of(context.options)?;
    match (settings.writable, context.how.writable) {
        (true, false) => {
            return Err(Error::invalid(
                "Unable to set VVFAT to 'rw' when drive is read-only",
            ));
        }
        (false, true) => return Err(Error::new(ErrorKind::ReadOnly, "Image is read-only")),
        (true, true) => {
            return Err(Error::unsupported(
                "Writes to a disk that is made of a directory are not carried over to the directory",
            ));
        }
        (false, false) => {}
    }
    let shown = BStr::new(settings.directory.as_os_str().as_bytes());
    let unread = |error: &std::io::Error| {
        Error::io(error).context(format!("Could not read directory {shown}"))
    };
    let mut how = OpenOptions::new();
    how.read(true).custom_flags(libc::O_DIRECTORY);
    let root = fd::open(&settings.directory, &how).map_err(|error| unread(&error))?;
    let made_up = attr::is_made_up(root.as_fd()).map_err(|error| unread(&error))?;
    if context.how.named_by_image && made_up {
        return Err(Error::new(
            ErrorKind::Denied,
            format!("'{shown}' is on a file system without files, and an image names it"),
        ));
    }
    let root_in_clusters = settings.fat == FatType::Fat32;
    let scanned = scan(
        &root,
        shown,
        settings.label,
        root_in_clusters,
        context.policy,
        context.control,
    )?;
    let layout = Layout::new(&settings, scanned.tree)?;
    Ok(Arc::new(VvfatStorage {
        name: shown.to_owned(),
        files: Files::new(root, shown.to_owned()),
        layout,
        warnings: scanned.left_out.warning().into_iter().collect(),
    }))
}

impl VvfatStorage {
    fn refuse<T>(&self) -> Result<T> {
        Err(Error::new(
            ErrorKind::ReadOnly,
            format!("'{}' is open read-only", self.name),
        ))
    }
}

impl Storage for VvfatStorage {
    fn name(&self) -> &BStr {
        self.name.as_bstr()
    }

    fn driver(&self) -> &'static str {
        super::DRIVER.name
    }

    fn identity(&self) -> Option<Identity> {
        let status = directory::stat(self.files.root.as_fd()).ok()?;
        let (device, inode) = status.identity;
        Some(Identity::File { device, inode })
    }

    fn visit_identities(&self, visit: &mut dyn FnMut(Identity)) {
        for node in &self.layout.tree.nodes {
            let (device, inode) = node.mark.identity;
            visit(Identity::File { device, inode });
        }
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn read_only(&self) -> bool {
        true
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.layout.read(&self.files, buf, offset)
    }

    fn try_read(&self, _bufs: &mut [IoSliceMut<'_>], _offset: u64) -> Result<bool> {
        // A file may have to be opened.
        Ok(false)
    }

    fn write_at(&self, _buf: &[u8], _offset: u64) -> Result<()> {
        self.refuse()
    }

    fn len(&self) -> Result<u64> {
        Ok(self.layout.len)
    }

    fn set_len(&self, _len: u64, _preallocation: Preallocation) -> Result<()> {
        self.refuse()
    }

    fn write_zeroes(&self, _offset: u64, _len: u64, _flags: ZeroFlags) -> Result<()> {
        self.refuse()
    }

    fn discard(&self, _offset: u64, _len: u64) -> Result<()> {
        self.refuse()
    }

    fn sync(&self, _durability: Durability) -> Result<()> {
        // Nothing was written.
        Ok(())
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        let (zero, len) = match offset < self.layout.len {
            true => self.layout.extent(offset, len),
            false => (true, len),
        };
        Ok(StorageExtent {
            len,
            zero,
            allocated: !zero,
        })
    }

    fn limits(&self) -> Limits {
        Limits {
            fixed_len: true,
            ..Limits::default()
        }
    }

    fn allocated_size(&self) -> Option<u64> {
        None
    }

    fn specific_info(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    fn lock(&self, request: LockRequest) -> Result<()> {
        let how = if request.uses.contains(Permissions::WRITE) {
            Hold::Alone
        } else if request.denies.contains(Permissions::WRITE) {
            Hold::Shared
        } else {
            Hold::Free
        };
        match directory::hold(self.files.root.as_fd(), how) {
            Err(error) if error.raw_os_error() == Some(libc::EWOULDBLOCK) => Err(Error::new(
                ErrorKind::Locked,
                format!("Failed to lock the directory '{}'", self.name),
            )
            .with_hint("Is another process using it as a disk?")),
            // File systems without locks.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn host(&self) -> Option<&dyn HostFile> {
        None
    }
}
