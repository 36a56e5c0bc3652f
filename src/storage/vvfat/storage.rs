//! The open disk.

use std::fs::OpenOptions;
use std::io::IoSliceMut;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bstr::{BStr, BString, ByteSlice};
use parking_lot::{Mutex, RwLock};

use super::carry::Plan;
use super::disk::FatType;
use super::files::Files;
use super::known::{self, Known};
use super::layout::Layout;
use super::overlay::{BLOCK, Overlay};
use super::scan::scan;
use super::settings::Settings;
use super::written::read_volume;
use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageExtent;
use crate::storage::details::StorageReport;
use crate::storage::driver::OpenContext;
use crate::storage::ending::Ending;
use crate::storage::{
    Durability, HostFile, Identity, Limits, LockRequest, Permissions, Preallocation, Storage,
    ZeroFlags,
};
use crate::sys::directory::{self, Hold};
use crate::sys::{attr, fd};

/// A directory presented as a disk.
#[derive(Debug)]
pub(super) struct VvfatStorage {
    name: BString,
    layout: Layout,
    files: Files,
    warnings: Vec<String>,
    /// Present if writes are carried over to the directory.
    writing: Option<Writing>,
}

/// Written data, and how far it has been carried over to the directory.
#[derive(Debug)]
struct Writing {
    /// Locked for each request: writes may change parts of blocks, and the disk must not change while it is read as a
    /// file system.
    overlay: RwLock<Overlay>,
    /// `None` until a first attempt to carry something over.
    known: Mutex<Option<Known>>,
    /// An operation that wrote data has failed: nothing more is carried over.
    given_up: AtomicBool,
    /// Only some of the changes have reached the directory.
    broken: AtomicBool,
    max_bytes: u64,
}

/// Opens the disk that the options describe.
///
/// # Errors
/// [`ErrorKind::Invalid`] for options that do not describe one; errors of reading the directory.
pub(super) fn open(context: &OpenContext<'_>) -> Result<Arc<dyn Storage>> {
    let settings = Settings::of(context.options)?;
    match (settings.writable, context.how.writable) {
        (true, false) => {
            return Err(Error::invalid(
                "Unable to set VVFAT to 'rw' when drive is read-only",
            ));
        }
        (false, true) => return Err(Error::read_only_image()),
        (true, true) | (false, false) => {}
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
    let writing = match settings.writable {
        false => None,
        true => Some(Writing {
            overlay: Overlay::new(shown, layout.len, context.policy.max_spool_bytes)?.into(),
            known: Mutex::default(),
            given_up: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            max_bytes: context.policy.max_table_bytes,
        }),
    };
    Ok(Arc::new(VvfatStorage {
        name: shown.to_owned(),
        files: Files::new(root, shown.to_owned()),
        layout,
        writing,
        warnings: scanned.left_out.warning().into_iter().collect(),
    }))
}

impl VvfatStorage {
    fn writing(&self) -> Result<&Writing> {
        self.writing
            .as_ref()
            .ok_or_else(|| Error::open_read_only(&self.name))
    }

    fn check_range(&self, offset: u64, len: u64) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.layout.len => Ok(()),
            _ => Err(Error::os(libc::ENOSPC)),
        }
    }

    /// Reads written data from the overlay, and the rest from the directory.
    fn read_over(&self, overlay: &Overlay, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let end = at.saturating_add(rest.len() as u64);
            let (written, run_end) = overlay.run(at, end);
            let (piece, behind) = rest.split_at_mut((run_end - at) as usize);
            match written {
                true => overlay.read(piece, at)?,
                false => self.layout.read(&self.files, piece, at)?,
            }
            at = run_end;
            rest = behind;
        }
        Ok(())
    }

    fn put(&self, overlay: &mut Overlay, buf: &[u8], offset: u64) -> Result<()> {
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let within = at % BLOCK;
            let whole = rest.len() as u64 / BLOCK * BLOCK;
            let len = match within == 0 && whole > 0 {
                true => whole,
                false => (BLOCK - within).min(rest.len() as u64),
            };
            let (piece, behind) = rest.split_at(len as usize);
            if len % BLOCK == 0 {
                overlay.put(piece, at, true)?;
            } else {
                let mut block = [0; BLOCK as usize];
                self.read_over(overlay, &mut block, at - within)?;
                let from = within as usize;
                block[from..from + piece.len()].copy_from_slice(piece);
                overlay.put(&block, at - within, true)?;
            }
            at += len;
            rest = behind;
        }
        Ok(())
    }

    /// Carries over what has been written since the last time.
    ///
    /// # Errors
    /// Where the disk does not hold a consistent file system, or the directory has changed in the meantime: nothing has
    /// been changed then. Errors of changing the directory: some of the changes may have been made by then.
    fn carry_over(&self, writing: &Writing, durable: bool) -> Result<()> {
        let mut overlay = writing.overlay.write();
        if overlay.fresh.is_empty() || writing.given_up.load(Ordering::Acquire) {
            return Ok(());
        }
        if writing.broken.load(Ordering::Acquire) {
            return Err(self.in_part());
        }
        let mut known = writing.known.lock();
        let agreed = known.take().unwrap_or_else(|| known::known(&self.layout));
        let changed = self.change(&mut overlay, writing, &agreed, durable);
        match changed {
            Ok(now) => {
                overlay.fresh.clear();
                *known = Some(now);
                Ok(())
            }
            Err(error) => {
                *known = Some(agreed);
                Err(error)
            }
        }
    }

    fn change(
        &self,
        overlay: &mut Overlay,
        writing: &Writing,
        agreed: &Known,
        durable: bool,
    ) -> Result<Known> {
        let seen = &*overlay;
        let read = |buf: &mut [u8], offset: u64| self.read_over(seen, buf, offset);
        let (volume, found) = read_volume(&read, self.layout.len, writing.max_bytes)?;
        let plan = Plan::new(&self.files, agreed, volume, &found, &seen.fresh, &read)?;
        let staged = plan.stage(&read, durable)?;
        plan.keep_old(&self.layout, overlay)?;
        plan.apply(&staged, durable).map_err(|error| {
            writing.broken.store(true, Ordering::Release);
            error.context(self.in_part().message())
        })
    }

    fn in_part(&self) -> Error {
        Error::os(libc::EIO).with_message(format!(
            "Only a part of the changes reached the directory '{}'",
            self.name
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

    fn read_only(&self) -> bool {
        self.writing.is_none()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match &self.writing {
            None => self.layout.read(&self.files, buf, offset),
            Some(writing) => {
                // Data past the end reads as zeroes, and is never in the overlay.
                let within = self.layout.len.saturating_sub(offset).min(buf.len() as u64);
                let (buf, behind) = buf.split_at_mut(within as usize);
                behind.fill(0);
                self.read_over(&writing.overlay.read(), buf, offset)
            }
        }
    }

    fn try_read(&self, _bufs: &mut [IoSliceMut<'_>], _offset: u64) -> Result<bool> {
        // A file may have to be opened.
        Ok(false)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let writing = self.writing()?;
        self.check_range(offset, buf.len() as u64)?;
        self.put(&mut writing.overlay.write(), buf, offset)
    }

    fn len(&self) -> Result<u64> {
        Ok(self.layout.len)
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        self.writing()?;
        match len == self.layout.len && preallocation == Preallocation::Off {
            true => Ok(()),
            false => Err(Error::no_resize()),
        }
    }

    fn write_zeroes(&self, offset: u64, len: u64, _flags: ZeroFlags) -> Result<()> {
        let writing = self.writing()?;
        self.check_range(offset, len)?;
        let overlay = &mut *writing.overlay.write();
        let end = offset + len;
        let whole = offset.next_multiple_of(BLOCK)..end / BLOCK * BLOCK;
        let zeroes = [0; BLOCK as usize];
        if whole.is_empty() {
            // Affects parts of at most two blocks.
            let first = (offset.next_multiple_of(BLOCK).min(end) - offset) as usize;
            self.put(overlay, &zeroes[..first], offset)?;
            let rest = len as usize - first;
            return self.put(overlay, &zeroes[..rest], offset + first as u64);
        }
        self.put(overlay, &zeroes[..(whole.start - offset) as usize], offset)?;
        overlay.put_zeroes(whole.start, whole.end - whole.start)?;
        self.put(overlay, &zeroes[..(end - whole.end) as usize], whole.end)
    }

    fn discard(&self, _offset: u64, _len: u64) -> Result<()> {
        self.writing()?;
        Err(Error::no_discard())
    }

    /// Also carries over what was written; if that is not possible now, a later sync tries again.
    fn sync(&self, durability: Durability) -> Result<()> {
        match &self.writing {
            None => Ok(()),
            Some(writing) => self.carry_over(writing, durability == Durability::Synced),
        }
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        let mut len = len;
        if let Some(writing) = &self.writing
            && offset < self.layout.len
        {
            let overlay = writing.overlay.read();
            let (written, end) =
                overlay.run(offset, self.layout.len.min(offset.saturating_add(len)));
            len = end - offset;
            if written {
                return overlay.extent(offset, len);
            }
        }
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
            // Some file systems have no locks.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn host(&self) -> Option<&dyn HostFile> {
        None
    }

    fn report(&self) -> Option<&dyn StorageReport> {
        Some(self)
    }

    fn ending(&self) -> Option<&dyn Ending> {
        Some(self)
    }
}

impl Ending for VvfatStorage {
    fn finish(&self) -> Result<()> {
        // Written data is carried over by a sync.
        Ok(())
    }

    fn abandon(&self) {
        if let Some(writing) = &self.writing {
            writing.given_up.store(true, Ordering::Release);
        }
    }
}

impl StorageReport for VvfatStorage {
    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }
}
