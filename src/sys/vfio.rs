//! PCI devices that vfio-pci makes available to programs.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use super::{SharedMemory, check, fd, rw};

// From linux/vfio.h.
const GET_API_VERSION: libc::Ioctl = request(0);
const CHECK_EXTENSION: libc::Ioctl = request(1);
const SET_IOMMU: libc::Ioctl = request(2);
const GROUP_GET_STATUS: libc::Ioctl = request(3);
const GROUP_SET_CONTAINER: libc::Ioctl = request(4);
const GROUP_GET_DEVICE_FD: libc::Ioctl = request(6);
const DEVICE_GET_REGION_INFO: libc::Ioctl = request(8);
const IOMMU_MAP_DMA: libc::Ioctl = request(13);

const API_VERSION: libc::c_int = 0;
const TYPE1_IOMMU: libc::c_ulong = 1;
const GROUP_VIABLE: u32 = 1;
const REGION_READ_WRITE: u32 = 1 | 2;
const DMA_READ_WRITE: u32 = 1 | 2;
const REGISTERS: u32 = 0;
const CONFIGURATION: u32 = 7;

// Offsets and bits in the configuration space.
const COMMAND: u64 = 4;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_MASTER: u16 = 1 << 2;
const COMMAND_NO_INTERRUPT: u16 = 1 << 10;

/// Address at which a device sees the memory: lower addresses are unused, since 0 looks like a null pointer.
pub(crate) const SEEN_AT: u64 = 1 << 20;
/// On x86 this is the address range of interrupt messages, so no memory can be mapped there.
const LAST: u64 = 0xfee0_0000;

const fn request(number: u32) -> libc::Ioctl {
    libc::_IO(b';' as u32, 100 + number)
}

#[repr(C)]
#[derive(Default)]
struct GroupStatus {
    size: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct RegionInfo {
    size_of_this: u32,
    flags: u32,
    index: u32,
    capability: u32,
    size: u64,
    offset: u64,
}

#[repr(C)]
#[derive(Default)]
struct MapDma {
    size_of_this: u32,
    flags: u32,
    address: u64,
    seen_at: u64,
    size: u64,
}

/// The registers of a device, as a range of its descriptor.
#[derive(Debug)]
struct Region {
    offset: u64,
    size: u64,
}

/// A device, its registers, and the memory that it may access.
#[derive(Debug)]
pub(crate) struct Device {
    registers: Region,
    // Closed in this order: the device stops before it loses its memory.
    device: OwnedFd,
    _group: OwnedFd,
    _container: OwnedFd,
    memory: SharedMemory,
}

/// What failed, and why.
pub(crate) type Failure = (String, io::Error);

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
    let what = what.into();
    move |error| (what, error)
}

fn unfit(what: impl Into<String>) -> Failure {
    (what.into(), io::Error::from_raw_os_error(libc::ENODEV))
}

fn open(path: &str) -> Result<OwnedFd, Failure> {
    let mut how = OpenOptions::new();
    how.read(true).write(true);
    fd::open(Path::new(path), &how).map_err(failed(format!("Failed to open {path}")))
}

/// A request whose argument is a number, or that has none.
fn plain(fd: &OwnedFd, request: libc::Ioctl, argument: libc::c_ulong) -> io::Result<libc::c_int> {
    // SAFETY: the requests issued this way take no pointer.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) })
}

/// A request on a structure that begins with its own size.
fn on<T>(fd: &OwnedFd, request: libc::Ioctl, structure: &mut T) -> io::Result<()> {
    // SAFETY: the structure is the one for the request, and contains its own length.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request, std::ptr::from_mut(structure)) }).map(drop)
}

const fn len_of<T>() -> u32 {
    std::mem::size_of::<T>() as u32
}

impl Device {
    /// Opens the device at a bus address such as `0000:01:00.0`, and gives it access to `memory` bytes.
    pub(crate) fn open(address: &str, memory: usize) -> Result<Self, Failure> {
        let container = open("/dev/vfio/vfio")?;
        let version = plain(&container, GET_API_VERSION, 0).map_err(failed("VFIO"))?;
        let type1 = plain(&container, CHECK_EXTENSION, TYPE1_IOMMU).map_err(failed("VFIO"))?;
        if version != API_VERSION || type1 == 0 {
            return Err(unfit("This kernel has another VFIO"));
        }
        let link = format!("/sys/bus/pci/devices/{address}/iommu_group");
        let group = std::fs::read_link(&link).map_err(failed(format!(
            "Failed to find the IOMMU group of {address}"
        )))?;
        let number = group.file_name().unwrap_or_default().to_string_lossy();
        let path = format!("/dev/vfio/{number}");
        let group = open(&path)?;
        let mut status = GroupStatus {
            size: len_of::<GroupStatus>(),
            flags: 0,
        };
        on(&group, GROUP_GET_STATUS, &mut status).map_err(failed(&path))?;
        if status.flags & GROUP_VIABLE == 0 {
            return Err(unfit(format!(
                "The IOMMU group {number} of {address} has devices that are not bound to vfio-pci"
            )));
        }
        let mut its = container.as_raw_fd();
        on(&group, GROUP_SET_CONTAINER, &mut its).map_err(failed(&path))?;
        plain(&container, SET_IOMMU, TYPE1_IOMMU).map_err(failed("The IOMMU cannot be used"))?;
        let memory = reachable(&container, memory)
            .map_err(failed("The device cannot be given memory (ulimit -l)"))?;
        let device =
            device(&group, address).map_err(failed(format!("Failed to take {address}")))?;
        let region = |index| region(&device, index).map_err(failed(address));
        let (registers, configuration) = (region(REGISTERS)?, region(CONFIGURATION)?);
        let this = Self {
            registers,
            device,
            _group: group,
            _container: container,
            memory,
        };
        this.enable(&configuration).map_err(failed(address))?;
        Ok(this)
    }

    /// Enables the device's memory access and access to its registers, and disables interrupts.
    fn enable(&self, configuration: &Region) -> io::Result<()> {
        let at = configuration.offset + COMMAND;
        let mut command = [0; 2];
        rw::read_full(self.device.as_fd(), &mut command, at)?;
        let wanted = COMMAND_MEMORY | COMMAND_MASTER | COMMAND_NO_INTERRUPT;
        let command = u16::from_le_bytes(command) | wanted;
        rw::write_full(self.device.as_fd(), &command.to_le_bytes(), at)
    }

    pub(crate) fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    fn register(&self, at: u64) -> io::Result<u64> {
        match at.is_multiple_of(4) && at < self.registers.size.saturating_sub(3) {
            true => Ok(self.registers.offset + at),
            false => Err(io::Error::from_raw_os_error(libc::ENXIO)),
        }
    }

    /// Reads the register at an offset that is a multiple of four.
    pub(crate) fn read(&self, at: u64) -> io::Result<u32> {
        let mut word = [0; 4];
        match rw::read_full(self.device.as_fd(), &mut word, self.register(at)?)? {
            4 => Ok(u32::from_le_bytes(word)),
            _ => Err(io::Error::from_raw_os_error(libc::EIO)),
        }
    }

    /// Writes the register at an offset that is a multiple of four. The device sees earlier writes to memory first.
    pub(crate) fn write(&self, at: u64, value: u32) -> io::Result<()> {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        rw::write_full(
            self.device.as_fd(),
            &value.to_le_bytes(),
            self.register(at)?,
        )
    }
}

/// Memory that devices in the container see at [`SEEN_AT`].
fn reachable(container: &OwnedFd, len: usize) -> io::Result<SharedMemory> {
    let memory = SharedMemory::new(len)?;
    let size = memory.len() as u64;
    if size > LAST - SEEN_AT {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut map = MapDma {
        size_of_this: len_of::<MapDma>(),
        flags: DMA_READ_WRITE,
        address: memory.address(),
        seen_at: SEEN_AT,
        size,
    };
    on(container, IOMMU_MAP_DMA, &mut map)?;
    Ok(memory)
}

fn device(group: &OwnedFd, address: &str) -> io::Result<OwnedFd> {
    let name = std::ffi::CString::new(address)?;
    // SAFETY: the request reads a string, which lives through the call.
    let number =
        check(unsafe { libc::ioctl(group.as_raw_fd(), GROUP_GET_DEVICE_FD, name.as_ptr()) })?;
    // SAFETY: the descriptor is new and owned by nothing else.
    fd::keep(unsafe { OwnedFd::from_raw_fd(number) })
}

fn region(device: &OwnedFd, index: u32) -> io::Result<Region> {
    let mut info = RegionInfo {
        size_of_this: len_of::<RegionInfo>(),
        index,
        ..RegionInfo::default()
    };
    on(device, DEVICE_GET_REGION_INFO, &mut info)?;
    let end = info.offset.checked_add(info.size);
    if info.flags & REGION_READ_WRITE != REGION_READ_WRITE || end.is_none() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    Ok(Region {
        offset: info.offset,
        size: info.size,
    })
}
