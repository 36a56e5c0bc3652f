//! Incoming connections.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bstr::BStr;
use socket2::{Domain, SockAddr, SockRef, Socket};

use super::address::{Address, Family, Names, unix};
use super::connect::{inherited, socket};
use super::resolve::resolve;
use super::stream::Stream;
use super::wait::Wait;
use crate::error::{Error, Result};
use crate::sys::fd;
use crate::sys::stream::Ready;

/// Delay before the next attempt to accept a connection for lack of descriptors or memory.
const SCARCE: Duration = Duration::from_millis(50);

/// Listening sockets: several if a name has several addresses.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<Socket>,
    /// No more connections are accepted: a shut-down local socket would not report it.
    is_shut: AtomicBool,
    /// The file of a local socket, which is removed with it.
    _file: Option<SocketFile>,
}

impl Listener {
    /// Listens on an address; up to `backlog` connections wait to be accepted. An existing local socket is replaced,
    /// whether in use or not; another kind of file is not. Port 0 selects a free one.
    ///
    /// # Errors
    /// If a system call fails.
    pub fn bind(address: &Address, backlog: u32, wait: Wait<'_>) -> Result<Self> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        let mut file = None;
        let sockets = match address {
            Address::Inet { host, port, family } => inet(host, port, *family, backlog, wait)?,
            Address::Unix { path, names } => {
                let name = unix(path, *names)?;
                if *names == Names::Path {
                    remove_socket(path.as_ref())?;
                }
                let failed =
                    |error: Error| error.context(format!("Failed to bind socket to {path}"));
                let socket = bound(Domain::UNIX, &name, backlog, |_| Ok(())).map_err(failed)?;
                if *names == Names::Path {
                    file = SocketFile::of(path.as_ref());
                }
                vec![socket]
            }
            Address::Vsock { cid, port } => {
                let name = SockAddr::vsock(*cid, *port);
                let socket = bound(Domain::VSOCK, &name, backlog, |_| Ok(()));
                vec![socket.map_err(|error| {
                    error.context(format!("Failed to bind socket to {address}"))
                })?]
            }
            Address::Descriptor(number) => return Self::from_sockets(vec![inherited(*number)?]),
        };
        Ok(Self {
            sockets,
            is_shut: AtomicBool::new(false),
            _file: file,
        })
    }

    /// Takes over sockets that somebody else has bound and that are listening.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if one of them is not listening; if a system call fails.
    pub fn from_sockets(sockets: Vec<OwnedFd>) -> Result<Self> {
        let io = |error: std::io::Error| Error::io(&error);
        let mut kept = Vec::with_capacity(sockets.len());
        for socket in sockets {
            let socket = Socket::from(fd::keep(socket).map_err(io)?);
            if !socket.is_listener().unwrap_or(false) {
                return Err(Error::invalid(
                    "The descriptor is not a socket that takes connections",
                ));
            }
            socket.set_nonblocking(true).map_err(io)?;
            kept.push(socket);
        }
        Ok(Self {
            sockets: kept,
            is_shut: AtomicBool::new(false),
            _file: None,
        })
    }

    /// The addresses listened on, with the port numbers that the system chose.
    ///
    /// # Errors
    /// If a system call fails.
    pub fn addresses(&self) -> Result<Vec<Address>> {
        let io = |error: std::io::Error| Error::io(&error);
        let address = |socket: &Socket| Ok(Address::of(&socket.local_addr().map_err(io)?));
        self.sockets.iter().map(address).collect()
    }

    /// Accepts the next connection. If the process lacks descriptors or memory for it, it stays in the kernel's queue
    /// until there are some.
    ///
    /// # Errors
    /// If the wait or a system call fails: with the errno `EINVAL` after a shutdown.
    pub fn accept(&self, wait: Wait<'_>) -> Result<Stream> {
        let fds: Vec<BorrowedFd<'_>> = self.sockets.iter().map(AsFd::as_fd).collect();
        loop {
            let index = wait.any_ready(&fds, Ready::Read)?;
            let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            match self.sockets[index].accept4(flags) {
                Ok((socket, peer)) => {
                    if peer.is_ipv4() || peer.is_ipv6() {
                        // Fails if the peer has already gone.
                        let _ = socket.set_tcp_nodelay(true);
                    }
                    return Stream::new(socket.into(), Address::of(&peer));
                }
                Err(_) if self.is_shut.load(Ordering::Acquire) => {
                    return Err(Error::os(libc::EINVAL));
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => {
                        wait.nap(SCARCE)?;
                    }
                    Some(
                        libc::EAGAIN
                        | libc::EINTR
                        | libc::ECONNABORTED
                        | libc::EPROTO
                        | libc::EPERM
                        | libc::ENETDOWN
                        | libc::EHOSTDOWN
                        | libc::EHOSTUNREACH
                        | libc::ENETUNREACH,
                    ) => {}
                    _ => return Err(Error::io(&error)),
                },
            }
        }
    }

    /// Accepts no more connections: a thread that is waiting for one returns at once. May be called from any thread.
    pub fn shutdown(&self) {
        self.is_shut.store(true, Ordering::Release);
        for socket in &self.sockets {
            // Fails only if it was done before.
            let _ = SockRef::from(socket).shutdown(std::net::Shutdown::Both);
        }
    }
}

fn bound(
    domain: Domain,
    address: &SockAddr,
    backlog: i32,
    prepare: impl FnOnce(&Socket) -> std::io::Result<()>,
) -> Result<Socket> {
    let socket = socket(domain)?;
    let bind = || {
        prepare(&socket)?;
        socket.bind(address)?;
        socket.listen(backlog)
    };
    bind().map_err(|error| Error::io(&error))?;
    Ok(socket)
}

fn inet(
    host: &str,
    port: &str,
    family: Family,
    backlog: i32,
    wait: Wait<'_>,
) -> Result<Vec<Socket>> {
    let addresses = resolve(host, port, family, true, wait)?;
    let both = addresses.iter().any(|one| one.is_ipv4()) || family == Family::V6;
    let mut sockets: Vec<Socket> = Vec::new();
    let mut failed = Error::os(libc::EADDRNOTAVAIL);
    // The port that the system chose for the first address is used for all.
    let mut chosen = None;
    for mut address in addresses {
        if let Some(port) = chosen.filter(|_| address.port() == 0) {
            address.set_port(port);
        }
        let prepare = |socket: &Socket| {
            socket.set_reuse_address(true)?;
            if address.is_ipv6() {
                socket.set_only_v6(both)?;
            }
            Ok(())
        };
        match bound(
            Domain::for_address(address),
            &address.into(),
            backlog,
            prepare,
        ) {
            Ok(socket) => {
                let own = socket.local_addr().ok().and_then(|own| own.as_socket());
                chosen = chosen.or(own.map(|own| own.port()));
                sockets.push(socket);
            }
            // A machine that lacks one of the versions.
            Err(error) if matches!(error.errno(), libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL) => {
                failed = error;
            }
            Err(error) => return Err(not_bound(host, port, error)),
        }
    }
    if sockets.is_empty() {
        return Err(not_bound(host, port, failed));
    }
    Ok(sockets)
}

fn not_bound(host: &str, port: &str, error: Error) -> Error {
    error.context(format!("Failed to bind socket to {host}:{port}"))
}

/// Removes an existing socket; any other kind of file is left alone.
fn remove_socket(path: &BStr) -> Result<()> {
    let name = Path::new(std::ffi::OsStr::from_bytes(path));
    match std::fs::symlink_metadata(name) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(name)
            .map_err(|error| Error::io(&error).context(format!("Failed to unlink socket {path}"))),
        Ok(_) => Err(Error::os(libc::EADDRINUSE).context(format!(
            "Failed to bind socket to {path}: a file that is not a socket is there"
        ))),
        Err(_) => Ok(()),
    }
}

/// The file of a local socket; removed on drop, unless it has been replaced by another one.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &BStr) -> Option<Self> {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        // Absolute, because the process may change its working directory.
        let path = std::path::absolute(path).ok()?;
        let identity = identity(&path)?;
        Some(Self { path, identity })
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path) == Some(self.identity) {
            // Nobody is left to report an error to.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests;
