//! An image as a block device of virtual machines: front ends connect to a socket, one at a time.

mod device;
mod layout;
mod request;

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;
use socket2::SockRef;
use vhost::vhost_user::Listener;
use vhost_user_backend::{ShutdownHandle, VhostUserDaemon};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

use crate::crew;
use crate::error::{Error, Result, ResultExt};
use crate::log::Level;
use crate::printable::printable_bytes;
use crate::serve::door::Door;
use crate::serve::export::Export;
use crate::serve::server::{Server, spawn};
use crate::serve::shared::Shared;

use device::Device;

/// Maximum number of queues of a device.
const MOST_QUEUES: u16 = 64;

impl Server {
    /// Offers an export as a block device for virtual machines, whose front ends connect to the socket `path` and speak
    /// the vhost-user protocol, one at a time; each counts as a client. An existing socket is replaced.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for no queues, or more than 64, and if the server has been stopped; if a system
    /// call fails.
    pub fn listen_vhost_user(&self, export: Export, path: &Path, queues: u16) -> Result<()> {
        if !(1..=MOST_QUEUES).contains(&queues) {
            return Err(Error::invalid(format!(
                "A device has 1 to {MOST_QUEUES} queues, not {queues}"
            )));
        }
        let workers = crew::serving(export.image().requests_in_flight(), u32::MAX);
        self.shared.workers.allow(workers);
        let context = || {
            let shown = printable_bytes(path.as_os_str().as_bytes());
            format!("Failed to bind socket to {shown}")
        };
        let (listener, file) = bind(path)
            .map_err(|error| Error::io(&error))
            .context(context)?;
        let own = listener.try_clone().map_err(|error| Error::io(&error))?;
        let socket = Arc::new(Socket {
            shared: self.shared.clone(),
            export: Arc::new(export),
            queues: usize::from(queues),
            file: Mutex::new(Some(file)),
            listener,
            present: Mutex::default(),
            thread: Mutex::default(),
        });
        let serving = socket.clone();
        let thread = spawn("serve-vhost", 128 << 10, move || serving.run(own))?;
        *socket.thread.lock() = Some(thread);
        self.keep(Box::new(socket))
    }
}

fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    let path = path.to_owned();
    let identity = identity(&path);
    Ok((listener, SocketFile { path, identity }))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// The file of a socket; removed on drop, unless it has been replaced by another one.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // Nobody is left to report an error to.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A connected front end.
struct Present {
    device: Arc<Device>,
    connection: ShutdownHandle,
}

/// The socket that front ends connect to.
struct Socket {
    shared: Arc<Shared>,
    export: Arc<Export>,
    queues: usize,
    file: Mutex<Option<SocketFile>>,
    listener: UnixListener,
    present: Mutex<Option<Present>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Socket {
    /// Serves one front end after another.
    fn run(&self, listener: UnixListener) {
        let mut listener = Listener::from(listener);
        while !self.shared.offer.is_ending() {
            if let Err(error) = self.serve(&mut listener) {
                if self.shared.offer.is_ending() {
                    return;
                }
                let error = error.context("A virtual machine could not be served");
                self.shared.note(Level::Warning, error);
                if !self.listens() {
                    return;
                }
            }
        }
    }

    /// Whether the socket still accepts front ends.
    fn listens(&self) -> bool {
        SockRef::from(&self.listener)
            .is_listener()
            .is_ok_and(|listens| listens)
    }

    /// Waits for a front end and serves it until it leaves.
    fn serve(&self, listener: &mut Listener) -> Result<()> {
        let other =
            |error: vhost_user_backend::Error| Error::os(libc::EIO).context(error.to_string());
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let device = Device::new(
            self.shared.clone(),
            self.export.clone(),
            self.queues,
            memory.clone(),
        );
        let device = Arc::new(device.map_err(|error| Error::io(&error))?);
        let name = "serve-guest".to_owned();
        let mut daemon = VhostUserDaemon::new(name, device.clone(), memory).map_err(other)?;
        let ending = Ending(device.clone());
        let (event, number) = device.end_event();
        for queue in daemon.get_epoll_handlers() {
            queue
                .register_listener(event, EventSet::IN, number)
                .map_err(|error| Error::io(&error))?;
        }
        daemon.start(listener).map_err(other)?;
        let Some(connection) = daemon.shutdown_handle() else {
            return Ok(());
        };
        let id = self.shared.enter(None);
        *self.present.lock() = Some(Present {
            device: device.clone(),
            connection: connection.clone(),
        });
        if id.is_err() || self.shared.offer.is_ending() {
            connection.shutdown();
        }
        // How a front end disconnects is its own affair.
        let _ = daemon.wait();
        *self.present.lock() = None;
        drop(ending);
        device.rest(None);
        drop(daemon);
        drop(device);
        id.map(|id| self.shared.leave(id))
    }
}

/// Ends the threads of a device, however its service ends.
struct Ending(Arc<Device>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Door for Arc<Socket> {
    fn end(&self, gently: Option<Option<Instant>>) {
        let Some(thread) = self.thread.lock().take() else {
            return;
        };
        // A thread that is blocked in it gets an error.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        let device = {
            let present = self.present.lock();
            present.as_ref().map(|present| present.device.clone())
        };
        if let (Some(deadline), Some(device)) = (gently, device) {
            device.rest(deadline);
        }
        if let Some(present) = self.present.lock().as_ref() {
            present.connection.shutdown();
        }
        // A panic in it is a bug that its clients have already noticed.
        let _ = thread.join();
        *self.file.lock() = None;
    }
}
