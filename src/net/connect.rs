//! Outgoing connections.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::address::{Address, unix};
use super::resolve::resolve;
use super::socket::is_socket;
use super::stream::Stream;
use super::wait::Wait;
use crate::error::{Error, Result};
use crate::sys::fd;
use crate::sys::stream::Ready;

/// Delay before the next attempt to connect to a local socket whose queue is full.
const FULL: Duration = Duration::from_millis(10);

/// Connects. All addresses of a name are tried in turn, each with its share of the time.
///
/// # Errors
/// `Failed to connect to 'X': …`, `address resolution failed for X: …`; if the wait ends.
pub fn connect(address: &Address, wait: Wait<'_>) -> Result<Stream> {
    let failed = |error: Error| {
        // A cancellation needs no context.
        match wait.check() {
            Err(over) if over.kind() == crate::ErrorKind::Cancelled => over,
            _ => error.context(format!("Failed to connect to '{address}'")),
        }
    };
    let socket = match address {
        Address::Inet { host, port, family } => {
            let found = resolve(host, port, *family, false, wait)?;
            inet(&found, wait).map_err(failed)?
        }
        Address::Unix { path, names } => {
            let name = unix(path, *names)?;
            to(Domain::UNIX, &name, wait).map_err(failed)?
        }
        Address::Vsock { cid, port } => {
            let name = SockAddr::vsock(*cid, *port);
            to(Domain::VSOCK, &name, wait).map_err(failed)?
        }
        Address::Descriptor(number) => inherited(*number)?,
    };
    Stream::new(socket, address.clone())
}

/// Duplicates a socket that this process has open.
pub(super) fn inherited(number: std::os::fd::RawFd) -> Result<OwnedFd> {
    let socket = fd::duplicate_number(number).ok();
    let is_one = |socket: &OwnedFd| is_socket(socket.as_fd()).unwrap_or(false);
    socket
        .filter(is_one)
        .ok_or_else(|| Error::invalid(format!("File descriptor '{number}' is not a socket")))
}

/// Creates a non-blocking socket.
pub(super) fn socket(domain: Domain) -> Result<Socket> {
    let made = Socket::new(domain, Type::STREAM.nonblocking(), None)
        .and_then(|socket| fd::keep(socket.into()));
    made.map(Socket::from).map_err(|error| Error::io(&error))
}

fn inet(addresses: &[SocketAddr], wait: Wait<'_>) -> Result<OwnedFd> {
    let mut failed = Error::os(libc::EADDRNOTAVAIL);
    for (index, address) in addresses.iter().enumerate() {
        let share = wait.share(addresses.len() - index);
        match to(Domain::for_address(*address), &(*address).into(), share) {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = error,
        }
        wait.check()?;
    }
    Err(failed)
}

fn to(domain: Domain, address: &SockAddr, wait: Wait<'_>) -> Result<OwnedFd> {
    let socket = socket(domain)?;
    loop {
        wait.check()?;
        let Err(error) = socket.connect(address) else {
            break;
        };
        match error.raw_os_error() {
            Some(libc::EINPROGRESS) => {
                finish(&socket, socket.as_fd(), wait)?;
                break;
            }
            // A local socket whose queue is full.
            Some(libc::EAGAIN) => wait.nap(FULL)?,
            Some(libc::EINTR) => {}
            _ => return Err(Error::io(&error)),
        }
    }
    if domain == Domain::IPV4 || domain == Domain::IPV6 {
        // A port that nobody listens on may be assigned to the very socket that connects to it.
        let own = socket.local_addr().map_err(|error| Error::io(&error))?;
        if own.as_socket() == address.as_socket() {
            return Err(Error::os(libc::ECONNREFUSED));
        }
        // Requests are small and wait for their replies.
        socket
            .set_tcp_nodelay(true)
            .map_err(|error| Error::io(&error))?;
    }
    Ok(socket.into())
}

fn finish(socket: &Socket, fd: BorrowedFd<'_>, wait: Wait<'_>) -> Result<()> {
    wait.ready(fd, Ready::Write)?;
    let error = socket.take_error().map_err(|error| Error::io(&error))?;
    error.map_or(Ok(()), |error| Err(Error::io(&error)))
}
