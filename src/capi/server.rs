//! Servers, which offer images to NBD clients and to local programs.

use std::ffi::{CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::capi::boundary::{
    self, Handle, OutValue, Poison, call_out, call_ref, call_ref_out, check_flags,
};
use crate::capi::error::platter_error;
use crate::capi::export::{
    PLATTER_EXPORT_ALLOCATION_DEPTH, PLATTER_EXPORT_WRITE, platter_export, usable,
};
use crate::capi::secret::{self, platter_secrets};
use crate::capi::status::PLATTER_OK;
use crate::capi::text::{c_string, name, optional_name, optional_utf8, os, owned, utf8};
use crate::error::{Error, ErrorKind, Result};
use crate::net::Stream;
use crate::net::tls::Endpoint;
use crate::serve::{Limits, MountOptions, Others, Server, Tls, address_from_text};
use crate::storage::file;

/// Flag of `platter_server_mount()`: writes past the end of the image extend it.
pub const PLATTER_MOUNT_GROWABLE: u32 = 1;
/// Flag of `platter_server_mount()`: other users may use it too, as far as the permissions of the file allow. It is an
/// error if the system does not let this user give them access.
pub const PLATTER_MOUNT_OTHERS: u32 = 2;
/// Flag of `platter_server_mount()`: as `PLATTER_MOUNT_OTHERS` if the system allows that, otherwise as without it.
pub const PLATTER_MOUNT_OTHERS_IF_ALLOWED: u32 = 4;

/// A server that offers images to clients of the NBD protocol, such as QEMU, libnbd, nbdkit and the kernel. Its work is
/// done by threads of the library, which block all signals: one for each client, and a few more that all of them share.
#[derive(Debug)]
pub struct platter_server {
    poison: Poison,
    server: Server,
    /// Where it listens; only ever appended to, so that the strings lent out stay in place.
    addresses: Mutex<Vec<CString>>,
}

impl Handle for platter_server {
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// Default of `clients` in the limits of a server.
pub const PLATTER_SERVER_CLIENTS_DEFAULT: u64 = 256;
/// Default of `memory` in the limits of a server.
pub const PLATTER_SERVER_MEMORY_DEFAULT: u64 = 268_435_456;
/// Default of `handshake_ms` in the limits of a server.
pub const PLATTER_SERVER_HANDSHAKE_MS_DEFAULT: u64 = 10_000;
/// Default of `stall_ms` in the limits of a server.
pub const PLATTER_SERVER_STALL_MS_DEFAULT: u64 = 60_000;

/// The limits on what a server spends on its clients. `platter_server_limits_defaults()` fills them in; the caller owns
/// the structure.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct platter_server_limits {
    /// Maximum number of concurrent clients; further ones wait until one leaves.
    pub clients: u64,
    /// Maximum number of bytes in transit between clients and images, over all clients.
    pub memory: u64,
    /// Timeout for the handshake in milliseconds; 0 for no limit.
    pub handshake_ms: u64,
    /// How many milliseconds a client that is to be disconnected, because the server is drained, its export is removed,
    /// or it has ended its requests, may go without accepting any of the replies that wait for it. 0 is the default.
    pub stall_ms: u64,
    /// 0.
    pub reserved: [u64; 4],
}

impl OutValue for platter_server_limits {
    fn empty() -> Self {
        Self::default()
    }
}

/// What a server has done so far. The caller owns it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct platter_server_statistics {
    /// Clients that are connected.
    pub clients: u64,
    /// Clients that have ever been connected.
    pub accepted: u64,
    /// Requests received.
    pub requests: u64,
    /// Requests answered with an error.
    pub failures: u64,
    /// Bytes that clients asked to read.
    pub bytes_read: u64,
    /// Bytes that clients sent to be written.
    pub bytes_written: u64,
    /// Bytes in transit now.
    pub memory: u64,
    /// Maximum number of bytes in transit so far.
    pub most_memory: u64,
    /// 0.
    pub reserved: [u64; 8],
}

impl OutValue for platter_server_statistics {
    fn empty() -> Self {
        Self::default()
    }
}

/// An export of a server. The caller owns it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct platter_offered {
    /// Its size in bytes.
    pub size: u64,
    /// Its offset in the image.
    pub offset: u64,
    /// Clients that have selected it.
    pub clients: u64,
    /// Dirty bitmaps that clients may read.
    pub bitmaps: u64,
    /// Bits of `PLATTER_EXPORT_*`.
    pub flags: u32,
    /// 0.
    pub reserved: [u32; 7],
}

impl OutValue for platter_offered {
    fn empty() -> Self {
        Self::default()
    }
}

/// Fills in the default limits of a server: 256 clients, 256 MiB, ten seconds for the handshake, a minute for a client
/// that accepts nothing. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_server_limits_defaults(
    out: Option<&mut MaybeUninit<platter_server_limits>>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        let limits = Limits::default();
        let handshake = limits.handshake.map_or(0, |time| time.as_millis());
        Ok(platter_server_limits {
            clients: limits.clients as u64,
            memory: limits.memory,
            handshake_ms: u64::try_from(handshake).unwrap_or(u64::MAX),
            stall_ms: u64::try_from(limits.stall.as_millis()).unwrap_or(u64::MAX),
            ..platter_server_limits::default()
        })
    })
}

/// Creates a server, as yet without exports and sockets. `limits` may be NULL for the defaults; it is copied. `flags`
/// must be 0. `*out` belongs to the caller, who frees it with `platter_server_free()`.
///
/// Statuses: INVALID, OS. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_server_new(
    out: Option<&mut MaybeUninit<*mut platter_server>>,
    limits: Option<&platter_server_limits>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        let limits = limits.map(self::limits).transpose()?;
        Ok(Box::into_raw(Box::new(platter_server {
            poison: Poison::default(),
            server: Server::new(limits.unwrap_or_default())?,
            addresses: Mutex::default(),
        })))
    })
}

fn limits(from: &platter_server_limits) -> Result<Limits> {
    if from.reserved != [0; 4] {
        return Err(Error::invalid(
            "Parameter 'limits' has reserved members that are not 0",
        ));
    }
    let stall = match from.stall_ms {
        0 => Limits::default().stall,
        // Adding the timeout to a time must not overflow.
        some => Duration::from_millis(some.min(u64::from(u32::MAX))),
    };
    Ok(Limits {
        stall,
        clients: usize::try_from(from.clients).unwrap_or(usize::MAX),
        memory: from.memory,
        handshake: (from.handshake_ms > 0).then(|| Duration::from_millis(from.handshake_ms)),
    })
}

/// Starts offering an export. The description is copied; the server keeps the image alive until it is stopped. A
/// program that uses the image in the meantime sees what clients write, and clients see what it writes. `flags` must be
/// 0.
///
/// Statuses: EXISTS where there is one of that name, INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_server_add_export(
    server: Option<&platter_server>,
    export: Option<&platter_export>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref(server, "server", err, |server| {
        check_flags(flags, 0)?;
        server.server.add_export(usable(export)?)
    })
}

/// Stops offering the export `name` (NULL or the empty string is the one without a name): new requests of its clients
/// are refused, and those in progress are carried out and answered, for which this waits up to `timeout_ms`
/// milliseconds (-1 waits forever, except for clients that accept nothing for as long as the limits allow: `stall_ms`);
/// then its clients are disconnected and the image is released, as by `platter_server_stop()`. Other exports are not
/// affected. `flags` must be 0.
///
/// Statuses: NOT_FOUND where there is none of that name, INVALID. Threads: any. Since 0.1.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_server_remove_export(
    server: Option<&platter_server>,
    name: *const c_char,
    timeout_ms: i64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref(server, "server", err, |server| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let name = unsafe { optional_name(name) }.unwrap_or_default();
        server.server.remove_export(name, deadline(timeout_ms))
    })
}

/// Returns the name of the export at `index`, counted from 0 in the order of their names, as a string of the caller,
/// who frees it with `platter_free()`. `flags` must be 0.
///
/// Statuses: NOT_FOUND past the last one, OS where there is no memory, INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_server_export_name(
    out: Option<&mut MaybeUninit<*mut c_char>>,
    server: Option<&platter_server>,
    index: usize,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, server, "server", err, |server| {
        check_flags(flags, 0)?;
        let name = server.server.exports().into_iter().nth(index);
        let name = name.ok_or_else(|| {
            let message = format!("There is no export with the index {index}");
            Error::new(ErrorKind::NotFound, message)
        })?;
        owned(&c_string(name))
    })
}

/// Returns how the export `name` is offered and how many clients use it; NULL or the empty string is the one without a
/// name. `flags` must be 0.
///
/// Statuses: NOT_FOUND where there is none of that name, INVALID. Threads: any. Since 0.1.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_server_get_export(
    out: Option<&mut MaybeUninit<platter_offered>>,
    server: Option<&platter_server>,
    name: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, server, "server", err, |server| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let name = unsafe { optional_name(name) }.unwrap_or_default();
        let offered = server.server.export(name)?;
        let bit = |is, bit| if is { bit } else { 0 };
        Ok(platter_offered {
            size: offered.len,
            offset: offered.options.offset,
            clients: offered.clients,
            bitmaps: offered.options.bitmaps.len() as u64,
            flags: bit(offered.options.writable, PLATTER_EXPORT_WRITE)
                | bit(
                    offered.options.allocation_depth,
                    PLATTER_EXPORT_ALLOCATION_DEPTH,
                ),
            ..platter_offered::default()
        })
    })
}

/// The time at which a timeout in milliseconds expires; None if the timeout is negative.
fn deadline(timeout_ms: i64) -> Option<Instant> {
    let time = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
    time.and_then(|time| Instant::now().checked_add(time))
}

/// Requires clients to start TLS before anything else, with the credentials that `secrets` (NULL stands for none) has
/// under the ID `credentials`, which must be those of a server; `authorization` is the ID of the object there that
/// determines which clients are admitted, or NULL for all that the credentials admit. May be called once, before
/// clients connect. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
///
/// # Safety
/// `credentials` and `authorization` are NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_server_set_tls(
    server: Option<&platter_server>,
    secrets: Option<&platter_secrets>,
    credentials: *const c_char,
    authorization: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref(server, "server", err, |server| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let credentials = unsafe { utf8(credentials, "credentials")? };
        // SAFETY: by the contract of this function.
        let authorization = unsafe { optional_utf8(authorization, "authorization")? };
        let objects = secret::copied(secrets)?;
        server.server.set_tls(Tls {
            credentials: objects.tls(credentials, Endpoint::Server)?,
            authorization: authorization
                .map(|id| objects.authorization(id))
                .transpose()?,
        })
    })
}

/// Accepts clients at `address` from now on, on a thread of its own: `unix:PATH`, `inet:HOST:PORT` (an IPv6 address in
/// brackets; an empty host is every address of this machine, port 0 is one that is free), `vsock:CID:PORT`, or
/// `fd:NUMBER`, a socket that is already listening and is duplicated. An existing socket file is replaced, and removed
/// when the server ends. May be called for several addresses. `platter_server_address()` returns what was bound.
/// `flags` must be 0.
///
/// Statuses: INVALID, OS. Threads: any. Since 0.1.
///
/// # Safety
/// `address` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_server_listen(
    server: Option<&platter_server>,
    address: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref(server, "server", err, |server| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let text = unsafe { name(address, "address")? };
        let bound = server.server.listen(&address_from_text(text)?)?;
        let bound = bound.iter().map(|address| c_string(address.to_string()));
        server.addresses.lock().extend(bound);
        Ok(())
    })
}

/// Serves a client that is already connected, on a thread of its own: `input` and `output` are one socket, or two
/// descriptors such as the standard streams. Both are duplicated. `flags` must be 0.
///
/// Statuses: INVALID, OS. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_server_serve_fds(
    server: Option<&platter_server>,
    input: c_int,
    output: c_int,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref(server, "server", err, |server| {
        check_flags(flags, 0)?;
        if input < 0 || output < 0 {
            return Err(Error::invalid("A descriptor is negative"));
        }
        let stream = match input == output {
            true => Stream::from_socket(file::duplicate(input)?)?,
            false => Stream::from_two(
                file::duplicate(input)?,
                file::duplicate(output)?,
                "a pair of descriptors",
            )?,
        };
        server.server.serve(stream)
    })
}

/// Offers an export as a local file, by FUSE: it is mounted over the file `mountpoint`, whatever that contains, until
/// the server ends or somebody unmounts it. It counts as one client, which leaves when it is unmounted. The name of the
/// export is not used; the image is kept alive as by `platter_server_add_export()`. `flags` are bits of
/// `PLATTER_MOUNT_*`. With `PLATTER_MOUNT_GROWABLE`, nothing else may use the image in the meantime, as with
/// `platter_resize_job_new()`. The file belongs to the user who runs the program; unless a flag allows others, only
/// this user may use it. May be called several times.
///
/// Statuses: INVALID for a mount point that is no file, and where what is growable is not all of an image that is
/// offered for writing; UNSUPPORTED where the image cannot grow or the system has no FUSE; OS. Threads: any.
/// Since 0.1.
///
/// # Safety
/// `mountpoint` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_server_mount(
    server: Option<&platter_server>,
    export: Option<&platter_export>,
    mountpoint: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref(server, "server", err, |server| {
        let both = PLATTER_MOUNT_OTHERS | PLATTER_MOUNT_OTHERS_IF_ALLOWED;
        check_flags(flags, PLATTER_MOUNT_GROWABLE | both)?;
        let others = match flags & both {
            0 => Others::Off,
            PLATTER_MOUNT_OTHERS => Others::On,
            PLATTER_MOUNT_OTHERS_IF_ALLOWED => Others::Auto,
            _ => {
                return Err(Error::invalid(
                    "Only one of the flags for others can be given",
                ));
            }
        };
        let options = MountOptions {
            growable: flags & PLATTER_MOUNT_GROWABLE != 0,
            others,
        };
        let export = usable(export)?;
        // SAFETY: by the contract of this function.
        let mountpoint = unsafe { os(mountpoint, "mountpoint")? };
        server.server.mount(export, mountpoint.as_ref(), options)
    })
}

/// Offers an export as a virtio block device for virtual machines: their front ends, which speak vhost-user, connect to
/// the local socket `path`, one at a time, and each counts as a client. An existing socket is replaced, and removed
/// when the server ends. The device has `queues` queues, 1 to 64, and the first 20 bytes of the name of the export as
/// its serial number. A partial sector of less than 512 bytes at the end of the export is not offered. The front end
/// shares the memory of its machine and must be trusted; the machine need not be. `flags` must be 0.
///
/// Statuses: INVALID, OS. Threads: any. Since 0.1.
///
/// # Safety
/// `path` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_server_listen_vhost_user(
    server: Option<&platter_server>,
    export: Option<&platter_export>,
    path: *const c_char,
    queues: u32,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref(server, "server", err, |server| {
        check_flags(flags, 0)?;
        let export = usable(export)?;
        // SAFETY: by the contract of this function.
        let path = unsafe { os(path, "path")? };
        let queues = u16::try_from(queues).unwrap_or(u16::MAX);
        server
            .server
            .listen_vhost_user(export, path.as_ref(), queues)
    })
}

/// Returns the address at `index`, counted from 0, at which the server accepts clients, with the numbers that the
/// system chose: a path, `HOST:PORT` or `CID:PORT`. NULL past the last one, and for NULL. The string lives as long as
/// the server.
///
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_server_address(
    server: Option<&platter_server>,
    index: usize,
) -> *const c_char {
    boundary::get(std::ptr::null(), || {
        let addresses = server.map(|server| server.addresses.lock());
        let address = addresses.as_ref().and_then(|all| all.get(index));
        address.map_or(std::ptr::null(), |address| address.as_ptr())
    })
}

/// Returns an eventfd (non-blocking, close-on-exec) that is readable if clients have connected or left since the last
/// `platter_server_get_statistics()`, which resets it: do not read or write it. It belongs to the server and is closed
/// with it. `flags` must be 0.
///
/// Statuses: INVALID; `*out` is -1 then. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_server_fd(
    out: Option<&mut MaybeUninit<c_int>>,
    server: Option<&platter_server>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    // Not 0, which is a descriptor that somebody might close.
    let mut fd = MaybeUninit::new(-1);
    let place = out.is_some().then_some(&mut fd);
    let status = call_ref_out(place, server, "server", err, |server| {
        check_flags(flags, 0)?;
        Ok(server.server.event().as_raw_fd())
    });
    if let Some(out) = out {
        // SAFETY: initialised above, and left so by the call.
        let fd = unsafe { fd.assume_init() };
        out.write(if status == PLATTER_OK { fd } else { -1 });
    }
    status
}

/// Returns what the server has done so far. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_server_get_statistics(
    out: Option<&mut MaybeUninit<platter_server_statistics>>,
    server: Option<&platter_server>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, server, "server", err, |server| {
        check_flags(flags, 0)?;
        let now = server.server.statistics();
        Ok(platter_server_statistics {
            clients: now.clients,
            accepted: now.accepted,
            requests: now.requests,
            failures: now.failures,
            bytes_read: now.bytes_read,
            bytes_written: now.bytes_written,
            memory: now.memory,
            most_memory: now.most_memory,
            reserved: [0; 8],
        })
    })
}

/// Returns why most recently a request of a client failed, or a client was disconnected or could not be accepted, as a
/// separate error, which the caller frees with `platter_error_free()`. NULL if nothing went wrong, and for NULL.
///
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_server_last_error(server: Option<&platter_server>) -> *mut platter_error {
    boundary::get(std::ptr::null_mut(), || {
        let error = server.and_then(|server| server.server.last_error());
        error.map_or(std::ptr::null_mut(), |error| {
            Box::into_raw(Box::new(platter_error::new(&error)))
        })
    })
}

/// Shuts a server down gracefully and waits until that is done: no more clients are accepted, new requests are refused
/// as the protocol prescribes, and those in progress are carried out and answered. Clients are disconnected when they
/// have nothing in progress, when they accept none of their replies for as long as the limits allow (`stall_ms`), or
/// after `timeout_ms` milliseconds; a negative timeout means no limit. Afterwards the server is in the same state as
/// after `platter_server_stop()`. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_server_drain(
    server: Option<&platter_server>,
    timeout_ms: i64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref(server, "server", err, |server| {
        check_flags(flags, 0)?;
        server.server.drain(deadline(timeout_ms));
        Ok(())
    })
}

/// Stops a server and waits until that is done: its clients are disconnected at once, requests in progress are carried
/// out but not answered, and the images are released: `platter_image_close()` makes durable what was not flushed. The
/// server accepts nothing any more, and only its statistics are still useful. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_server_stop(
    server: Option<&platter_server>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref(server, "server", err, |server| {
        check_flags(flags, 0)?;
        server.server.stop();
        Ok(())
    })
}

/// Stops a server as `platter_server_stop()` does, and frees it. NULL does nothing.
///
/// Threads: one, once. Since 0.1.
///
/// # Safety
/// The server is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_server_free(server: *mut platter_server) {
    // SAFETY: the caller owns the server, which came from `platter_server_new`.
    unsafe { boundary::free(server) }
}
