//! Attributes of files: no copy-on-write, extent size hint, type and size.

use std::fs::Metadata;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use super::check;

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct FsXattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

// From linux/fs.h.
const FS_IOC_FSGETXATTR: libc::Ioctl = libc::_IOR::<FsXattr>('X' as u32, 31);
const FS_IOC_FSSETXATTR: libc::Ioctl = libc::_IOW::<FsXattr>('X' as u32, 32);
const FS_XFLAG_EXTSIZE: u32 = 0x800;
const FS_NOCOW_FL: libc::c_int = 0x0080_0000;
const _: () = assert!(size_of::<FsXattr>() == 28);

fn get(fd: BorrowedFd<'_>) -> io::Result<FsXattr> {
    let mut attr = FsXattr::default();
    // SAFETY: the request writes one fsxattr, which lives through the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FSGETXATTR, &raw mut attr) })?;
    Ok(attr)
}

/// The extent size hint in bytes; None if there is none.
pub(crate) fn extent_size_hint(fd: BorrowedFd<'_>) -> Option<u32> {
    let attr = get(fd).ok()?;
    (attr.xflags & FS_XFLAG_EXTSIZE != 0).then_some(attr.extsize)
}

/// Asks the file system to allocate in units of `bytes`.
pub(crate) fn set_extent_size_hint(fd: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    let mut attr = get(fd)?;
    attr.xflags |= FS_XFLAG_EXTSIZE;
    attr.extsize = bytes;
    // SAFETY: the request reads one fsxattr, which lives through the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FSSETXATTR, &raw const attr) }).map(drop)
}

/// Turns copy-on-write off for an empty file.
pub(crate) fn set_nocow(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut flags: libc::c_int = 0;
    // SAFETY: the request writes one int, which lives through the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) })?;
    flags |= FS_NOCOW_FL;
    // SAFETY: the request reads one int, which lives through the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags) }).map(drop)
}

/// File systems whose files the kernel generates when they are read: from linux/magic.h.
const MADE_UP: [u32; 22] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0x6265_6570, // configfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup 2
    0xf97c_ff8c, // selinux
    0x4341_5d53, // smack
    0x5a3c_69f0, // apparmor
    0xcafe_4a11, // bpf
    0xde5e_81e4, // efivarfs
    0x6165_676c, // pstore
    0x4249_4e4d, // binfmt_misc
    0x6e73_6673, // nsfs
    0x5049_4446, // pidfs
    0x5049_5045, // pipefs
    0x534f_434b, // sockfs
    0x0904_1934, // anonymous inodes
    0x6573_5543, // fusectl
    0x0765_5821, // resctrl
];

/// The type of the file system that an open file is on.
fn file_system(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the call fills the struct, which lives through it, where it succeeds.
    check(unsafe { libc::fstatfs(fd.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: filled by the call above. The magic numbers have 32 bits; where the field is signed and
    // of that width, the cast keeps them.
    Ok(unsafe { stat.assume_init() }.f_type as u32)
}

/// Whether the file is on ext4, or a file system of its family.
pub(crate) fn is_ext4(fd: BorrowedFd<'_>) -> bool {
    file_system(fd).is_ok_and(|kind| kind == libc::EXT4_SUPER_MAGIC as u32)
}

/// Whether nothing is stored in the file: the kernel generates it, as in procfs and sysfs.
pub(crate) fn is_made_up(fd: BorrowedFd<'_>) -> io::Result<bool> {
    file_system(fd).map(|kind| MADE_UP.contains(&kind))
}

/// The result of `fstat` for an open file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    /// Type and permission bits.
    pub(crate) mode: libc::mode_t,
    /// Length in bytes.
    pub(crate) len: u64,
    /// Bytes occupied.
    pub(crate) allocated: u64,
    /// Device and inode: the file's identity.
    pub(crate) identity: (u64, u64),
    /// The device that a device node refers to.
    pub(crate) device: u64,
}

impl From<&Metadata> for Stat {
    fn from(meta: &Metadata) -> Self {
        Self {
            mode: meta.mode(),
            len: meta.len(),
            allocated: meta.blocks().saturating_mul(512),
            identity: (meta.dev(), meta.ino()),
            device: meta.rdev(),
        }
    }
}

/// `fstat(2)`.
pub(crate) fn stat(fd: BorrowedFd<'_>) -> io::Result<Stat> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the call fills one stat, which lives through it.
    check(unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: zeroed is a valid stat, and the call filled it.
    let stat = unsafe { stat.assume_init() };
    Ok(Stat {
        mode: stat.st_mode,
        len: u64::try_from(stat.st_size).unwrap_or(0),
        allocated: u64::try_from(stat.st_blocks)
            .unwrap_or(0)
            .saturating_mul(512),
        identity: (stat.st_dev, stat.st_ino),
        device: stat.st_rdev,
    })
}
