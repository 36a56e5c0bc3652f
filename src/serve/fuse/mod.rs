//! An image as a file on this machine: mounting and unmounting.

mod file;
mod mounts;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fuser::{Config, MountOption, Session, SessionACL, SessionUnmounter};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::crew;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::log::Level;
use crate::printable::printable_bytes;
use crate::serve::door::Door;
use crate::serve::export::Export;
use crate::serve::server::{Server, spawn};
use crate::serve::shared::Shared;
use crate::sys;

use file::{Gate, ImageFile};
use mounts::{Device, Mounts};

/// How long threads may take to notice that a mount is gone, if its connection could not be aborted.
const FAREWELL: Duration = Duration::from_secs(1);

/// Who may use a mount besides the user who created it, subject to the permissions of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Others {
    /// Nobody.
    #[default]
    Off,
    /// Others, if the system allows this user to admit them.
    Auto,
    /// Others; the mount fails if the system does not allow this user to admit them.
    On,
}

/// How an image is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// Writes past the end grow the image.
    pub growable: bool,
    /// Who else may use it.
    pub others: Others,
}

impl Server {
    /// Offers an export as a file on this machine: it is mounted over the file `mountpoint` until the server stops or
    /// somebody unmounts it. It counts as one client.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a mount point that is not a file, and for a growable mount unless the whole image is
    /// offered for writing; [`ErrorKind::Unsupported`] if the image cannot grow or the system has no FUSE; if a system
    /// call fails.
    pub fn mount(&self, export: Export, mountpoint: &Path, options: MountOptions) -> Result<()> {
        if options.growable {
            check_growable(&export)?;
        }
        let shown = printable_bytes(mountpoint.as_os_str().as_bytes());
        let mountpoint =
            check_mountpoint(mountpoint).context(|| format!("Could not mount at '{shown}'"))?;
        let owner = sys::mount::user();
        let threads = crew::serving(export.image().requests_in_flight(), u32::MAX);
        let gate = Arc::new(RwLock::new(Some(export)));
        let file = || {
            let (shared, gate) = (self.shared.clone(), gate.clone());
            ImageFile::new(shared, gate, shown.clone(), options.growable, owner)
        };
        let id = self.shared.enter(None)?;
        let begun = begin(file, &mountpoint, threads, options.others, &gate)
            .context(|| format!("Could not mount at '{shown}'"))
            .and_then(|(mut session, device)| {
                let mount = Arc::new(Mount {
                    shared: self.shared.clone(),
                    id,
                    gate,
                    device,
                    unmounter: Mutex::new(session.unmount_callable()),
                    ended: Mutex::new(false),
                    changed: Condvar::new(),
                });
                let own = mount.clone();
                spawn("serve-mount", 128 << 10, move || own.serve(session))?;
                Ok(mount)
            });
        match begun {
            Ok(mount) => self.keep(Box::new(mount)),
            Err(error) => {
                self.shared.leave(id);
                Err(error)
            }
        }
    }
}

fn check_growable(export: &Export) -> Result<()> {
    let options = export.options();
    if !options.writable || options.offset > 0 || options.len.is_some() {
        return Err(Error::invalid(
            "Only what is offered for writing as a whole can be growable",
        ));
    }
    let writer = export.image().format().writer();
    match writer.and_then(|writer| writer.resizer()) {
        Some(_) => Ok(()),
        None => Err(Error::no_resize()),
    }
}

/// The canonical path of the mount point.
fn check_mountpoint(path: &Path) -> Result<PathBuf> {
    let found = fs::metadata(path).map_err(|error| {
        let stale = error.raw_os_error() == Some(libc::ENOTCONN);
        let error = Error::io(&error);
        match stale {
            true => error.with_hint(format!(
                "A server that did not end as it should left its mount there; remove it by: fusermount3 -u '{}'",
                printable_bytes(path.as_os_str().as_bytes())
            )),
            false => error,
        }
    })?;
    if !found.is_file() {
        return Err(Error::invalid("The mount point is not a regular file")
            .with_hint("The image is one file: an empty one can be made for it to lie over"));
    }
    // A user who may not read it may not mount over it.
    File::open(path).map_err(|error| Error::io(&error))?;
    fs::canonicalize(path).map_err(|error| Error::io(&error))
}

/// Checks that this user may use FUSE.
fn check_device() -> Result<()> {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let Err(error) = opened else { return Ok(()) };
    match error.kind() {
        io::ErrorKind::NotFound => Err(Error::new(
            ErrorKind::Unsupported,
            "This system has no FUSE: there is no /dev/fuse",
        )
        .with_hint("The kernel's module for it is loaded by: modprobe fuse")),
        io::ErrorKind::PermissionDenied => {
            Err(Error::io(&error).context("This user may not use FUSE: /dev/fuse"))
        }
        _ => Err(Error::io(&error).context("/dev/fuse")),
    }
}

/// Mounts, and negotiates the settings with the kernel.
fn begin(
    file: impl Fn() -> ImageFile,
    mountpoint: &Path,
    threads: usize,
    others: Others,
    gate: &Gate,
) -> Result<(Session<ImageFile>, Option<Device>)> {
    check_device()?;
    let streams = standard_streams().map_err(|error| Error::io(&error))?;
    let writable = gate.read().as_ref().is_some_and(Export::writable);
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("platter".to_owned()),
        MountOption::DefaultPermissions,
        match writable {
            true => MountOption::RW,
            false => MountOption::RO,
        },
    ];
    config.n_threads = Some(threads);
    config.acl = match others {
        Others::Off => SessionACL::Owner,
        Others::Auto | Others::On => SessionACL::All,
    };
    let mut session = Session::new(file(), mountpoint, &config);
    if session.is_err() && others == Others::Auto {
        config.acl = SessionACL::Owner;
        session = Session::new(file(), mountpoint, &config);
    }
    drop(streams);
    let session = session.map_err(|error| refused(&error))?;
    let mounts = Mounts::now();
    Ok((
        session,
        mounts.ok().and_then(|mounts| mounts.at(mountpoint)),
    ))
}

/// Why a mount failed: the system's message in one line.
fn refused(error: &io::Error) -> Error {
    match error.raw_os_error() {
        // The mount was left to the helper, which cannot be run.
        Some(libc::ENOENT | libc::EACCES) => Error::io(error)
            .context("fusermount3, by which users other than root mount, could not be run")
            .with_hint("It comes with FUSE 3, and has to belong to root with the bit setuid"),
        Some(_) => Error::io(error).context("FUSE"),
        None => {
            let words = error.to_string();
            let line = words.lines().next().unwrap_or_default();
            Error::new(ErrorKind::Os, line.trim().to_owned())
        }
    }
}

/// Occupies those standard streams that are closed: the connection to the kernel must not become one of them.
fn standard_streams() -> io::Result<Vec<File>> {
    let mut taken = Vec::new();
    loop {
        let file = File::open("/dev/null")?;
        if file.as_raw_fd() > libc::STDERR_FILENO {
            return Ok(taken);
        }
        taken.push(file);
    }
}

/// An active mount.
#[derive(Debug)]
struct Mount {
    shared: Arc<Shared>,
    id: u64,
    gate: Arc<Gate>,
    /// None if it cannot be determined.
    device: Option<Device>,
    unmounter: Mutex<SessionUnmounter>,
    ended: Mutex<bool>,
    changed: Condvar,
}

impl Mount {
    /// Main function of the thread that waits for the threads that serve requests.
    fn serve(&self, session: Session<ImageFile>) {
        if let Err(error) = session.run() {
            let error = Error::io(&error).context("A mount ended");
            self.shared.note(Level::Error, error);
        }
        self.left();
    }

    /// Releases the image: no thread serves requests any more.
    fn left(&self) {
        *self.gate.write() = None;
        let mut ended = self.ended.lock();
        if !std::mem::replace(&mut *ended, true) {
            self.shared.leave(self.id);
        }
        drop(ended);
        self.changed.notify_all();
    }

    /// Unmounts if no file is open; what programs have mapped is written back.
    fn unmount_idle(&self) {
        if let Some(path) = self.place() {
            // Otherwise it is unmounted by force later.
            let _ = sys::mount::unmount(&path, false);
        }
    }

    /// Unmounts even if files are open, and aborts the connection, which ends the threads; false if that is not
    /// possible.
    fn cut(&self) -> bool {
        let forced = self
            .place()
            .is_some_and(|path| sys::mount::unmount(&path, true).is_ok());
        if forced {
            return true;
        }
        // A user who may not unmount has a helper that may.
        let _ = self.unmounter.lock().unmount();
        self.device.is_some_and(|device| {
            let switch = format!("/sys/fs/fuse/connections/{}/abort", device.minor);
            fs::write(switch, "1").is_ok()
        })
    }

    /// Where it is mounted, unless something else is mounted over it.
    fn place(&self) -> Option<PathBuf> {
        let mounts = Mounts::now().ok()?;
        mounts.place_of(self.device?).map(Path::to_owned)
    }

    /// Waits until the threads have finished; false if the deadline passes first.
    fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut ended = self.ended.lock();
        while !*ended {
            match deadline {
                None => self.changed.wait(&mut ended),
                Some(deadline) => {
                    if self.changed.wait_until(&mut ended, deadline).timed_out() {
                        return *ended;
                    }
                }
            }
        }
        true
    }
}

impl Door for Arc<Mount> {
    fn end(&self, gently: Option<Option<Instant>>) {
        if *self.ended.lock() {
            return;
        }
        if let Some(deadline) = gently {
            self.unmount_idle();
            let export = match deadline {
                Some(deadline) => self.gate.try_write_until(deadline),
                None => Some(self.gate.write()),
            };
            if let Some(mut export) = export {
                *export = None;
            }
        }
        let cut = self.cut();
        // Requests in progress are carried out.
        *self.gate.write() = None;
        let deadline = (!cut).then(|| Instant::now() + FAREWELL);
        if !self.wait(deadline) {
            // They wait for requests on files that are still open, and refuse each one.
            self.left();
        }
    }
}
