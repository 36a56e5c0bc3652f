//! Loop devices, and what backs them.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

/// The major number of all loop devices.
const LOOP_MAJOR: libc::c_uint = 7;
/// From linux/loop.h.
const LOOP_GET_STATUS64: libc::Ioctl = 0x4c05;

/// As defined in linux/loop.h.
#[repr(C)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// What backs a loop device, starting at its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// A file, by the device of its file system and its inode number there.
    File(u64, u64),
    /// Another block device.
    Device(u64),
}

/// Whether a block device is a loop device.
pub(crate) fn is_loop(device: u64) -> bool {
    libc::major(device) == LOOP_MAJOR
}

/// What backs an open loop device; None unless the two begin at the same byte.
pub(crate) fn shown(fd: BorrowedFd<'_>) -> io::Result<Option<Shown>> {
    let mut info = MaybeUninit::<LoopInfo64>::zeroed();
    // SAFETY: the request writes one such structure, which lives through the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), LOOP_GET_STATUS64, info.as_mut_ptr()) })?;
    // SAFETY: it is all numbers, and was zeroed before it was written.
    let info = unsafe { info.assume_init() };
    Ok((info.offset == 0).then_some(match info.rdevice {
        0 => Shown::File(info.device, info.inode),
        device => Shown::Device(device),
    }))
}
