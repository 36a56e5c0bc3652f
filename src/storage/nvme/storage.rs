//! A namespace as a storage.

use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bstr::{BStr, BString, ByteSlice};
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::extent::StorageExtent;
use crate::job::JobControl;
use crate::storage::align::{Parts, in_pieces};
use crate::storage::blocks::{Blocks, buffer};
use crate::storage::driver::{OpenContext, StorageOpen};
use crate::storage::modes::{CacheMode, Durability, LockRequest, Preallocation, ZeroFlags};
use crate::storage::remote_file::given_options;
use crate::storage::{HostFile, Identity, Limits, Storage};

use super::command::{Command, MAX_BLOCKS, Namespace, deallocation};
use super::controller::{self, Controller};
use super::options::{OPTIONS, Settings, parse_file_name};
use super::queue::Data;

/// Maximum number of callers' requests in flight.
const IN_FLIGHT: u32 = 16;
/// Number of zero bytes to write at once.
const ZEROES: u64 = 1 << 20;
/// Maximum length of a deallocation, in blocks.
const MAX_DEALLOCATION: u64 = 1 << 24;
/// What namespaces are called in messages about resizing.
const KIND: &str = "NVMe namespaces";

/// A namespace of a controller.
#[derive(Debug)]
pub(super) struct NvmeStorage {
    name: BString,
    number: u32,
    controller: Arc<Controller>,
    control: Arc<JobControl>,
    namespace: Namespace,
    writable: bool,
    cache: CacheMode,
    /// The controller has said that it cannot write zeroes after all.
    no_zeroes: AtomicBool,
    /// A flush has failed: earlier writes may be lost for good.
    lost: AtomicBool,
}

fn settings_of(context: &OpenContext<'_>) -> Result<Settings> {
    let (_, values) = given_options(&context.target, context.options, OPTIONS, parse_file_name)?;
    Settings::of(&values)
}

/// Visits the identity of the namespace that would be opened.
pub(super) fn stands_on(context: &OpenContext<'_>, visit: &mut dyn FnMut(Identity)) {
    if let Ok(settings) = settings_of(context) {
        visit(Identity::Remote(settings.name()));
    }
}

/// Opens a namespace.
pub(super) fn open(context: &OpenContext<'_>) -> Result<Arc<dyn Storage>> {
    let settings = settings_of(context)?;
    let controller = controller::at(&settings.device, context.control)?;
    of_controller(controller, &settings, context.how, context.control)
}

pub(super) fn of_controller(
    controller: Arc<Controller>,
    settings: &Settings,
    how: StorageOpen,
    control: &Arc<JobControl>,
) -> Result<Arc<dyn Storage>> {
    let namespace = controller.namespace(settings.namespace, control)?;
    if how.writable && namespace.protected {
        return Err(
            Error::new(ErrorKind::ReadOnly, "The namespace is write protected")
                .with_errno(libc::EACCES),
        );
    }
    Ok(Arc::new(NvmeStorage {
        name: settings.name(),
        number: settings.namespace,
        controller,
        control: control.clone(),
        namespace,
        writable: how.writable,
        cache: how.cache,
        no_zeroes: AtomicBool::new(false),
        lost: AtomicBool::new(false),
    }))
}

impl NvmeStorage {
    /// The first block of a range, and the number of blocks.
    fn blocks(&self, offset: u64, len: u64) -> (u64, u64) {
        (offset / self.block(), len / self.block())
    }

    /// Maximum data length of a command: a whole number of blocks.
    fn most(&self) -> usize {
        let block = self.block();
        let most = self.controller.most().min(MAX_BLOCKS * block);
        // Every controller accepts a single block.
        usize::try_from((most - most % block).max(block)).unwrap_or(usize::MAX)
    }

    fn check_kept(&self) -> Result<()> {
        match self.lost.load(Ordering::Acquire) {
            true => Err(Error::os(libc::EIO)
                .with_message("What was written earlier is lost")
                .of_file(self.name())),
            false => Ok(()),
        }
    }

    fn flush(&self) -> Result<()> {
        self.check_kept()?;
        if !self.controller.about.cached {
            return Ok(());
        }
        let command = Command::flush(self.number);
        let done = self.controller.carry_out(&self.control, command, &[]);
        let done = done.and_then(|end| end.check());
        if done.is_err() {
            self.lost.store(true, Ordering::Release);
        }
        done.of_file(self.name())
    }

    fn is_written_through(&self) -> bool {
        self.cache.write_through() && self.controller.about.cached
    }

    /// Zeroes whole blocks with the command for that; false if it is not supported.
    fn zero_whole(&self, range: (u64, u64), may_unmap: bool) -> Result<bool> {
        let unmap = may_unmap && self.namespace.zeroes_deallocate;
        let mut refused = false;
        in_pieces(range, MAX_BLOCKS * self.block(), |at, len| {
            if refused {
                return Ok(());
            }
            let (first, count) = self.blocks(at, len);
            let command = Command::write_zeroes(self.number, first, count, unmap);
            let end = self.controller.carry_out(&self.control, command, &[]);
            let end = end.of_file(self.name())?;
            refused = end.is_refusal();
            match refused {
                true => Ok(()),
                false => end.check().of_file(self.name()),
            }
        })?;
        if refused {
            self.no_zeroes.store(true, Ordering::Relaxed);
        }
        Ok(!refused)
    }

    fn write_zero_data(&self, range: (u64, u64)) -> Result<()> {
        let most = ZEROES.max(self.block());
        let zeroes = buffer(most.min(range.1 - range.0))?;
        in_pieces(range, most, |at, len| {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            self.write_whole(zeroes.get(..len).unwrap_or_default(), at)
        })
    }
}

impl Blocks for NvmeStorage {
    fn block(&self) -> u64 {
        u64::from(self.namespace.block)
    }

    fn size(&self) -> u64 {
        self.namespace.len()
    }

    fn partial(&self) -> &Mutex<()> {
        &self.controller.partial
    }

    fn read_whole(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let most = self.most();
        let pieces = buf.chunks_mut(most).enumerate().map(|(number, part)| {
            let at = offset + (number * most) as u64;
            let (first, count) = self.blocks(at, part.len() as u64);
            let command = Command::read(self.number, first, count);
            (command, Data::Read(part))
        });
        self.controller.transfer(&self.control, pieces)
    }

    fn write_whole(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.check_kept()?;
        let (most, through) = (self.most(), self.is_written_through());
        let pieces = buf.chunks(most).enumerate().map(|(number, part)| {
            let at = offset + (number * most) as u64;
            let (first, count) = self.blocks(at, part.len() as u64);
            let command = Command::write(self.number, first, count, through);
            (command, Data::Write(part))
        });
        self.controller.transfer(&self.control, pieces)
    }
}

impl Storage for NvmeStorage {
    fn name(&self) -> &BStr {
        self.name.as_bstr()
    }

    fn driver(&self) -> &'static str {
        super::DRIVER.name
    }

    fn identity(&self) -> Option<Identity> {
        Some(Identity::Remote(self.name.clone()))
    }

    fn read_only(&self) -> bool {
        !self.writable
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.read_bytes(buf, offset).of_file(self.name())
    }

    fn try_read(&self, _bufs: &mut [IoSliceMut<'_>], _offset: u64) -> Result<bool> {
        // A read always has to wait for the controller.
        Ok(false)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.write_bytes(buf, offset).of_file(self.name())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.size())
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        self.check_write(0, 0)?;
        if preallocation != Preallocation::Off {
            return Err(Error::no_preallocation(preallocation.name()));
        }
        match len == self.size() {
            true => Ok(()),
            false => Err(Error::unsupported(format!("Cannot resize {KIND}"))),
        }
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        let end = self.check_write(offset, len)?;
        self.check_kept()?;
        let offered = self.controller.about.zeroes && !self.no_zeroes.load(Ordering::Relaxed);
        let parts = Parts::of(offset, end, self.block(), self.size());
        let no_fallback = flags.contains(ZeroFlags::NO_FALLBACK);
        let slow_only = || Error::unsupported("The namespace writes zeroes no faster than data");
        if no_fallback && (!offered || parts.edges().next().is_some()) {
            return Err(slow_only());
        }
        let may_unmap = flags.contains(ZeroFlags::MAY_UNMAP);
        let range = parts.middle;
        if range.0 < range.1 && !(offered && self.zero_whole(range, may_unmap)?) {
            if no_fallback {
                return Err(slow_only());
            }
            self.write_zero_data(range)?;
        }
        for edge in parts.edges() {
            self.change_partial(edge, &mut |bytes| bytes.fill(0))?;
        }
        match self.is_written_through() {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let end = self.check_write(offset, len)?;
        if !self.controller.about.deallocates {
            return Err(Error::no_discard());
        }
        // Partial blocks are left alone.
        let parts = Parts::of(offset, end, self.block(), self.size());
        in_pieces(parts.middle, MAX_DEALLOCATION * self.block(), |at, len| {
            let (first, count) = self.blocks(at, len);
            // At most MAX_DEALLOCATION.
            let range = deallocation(first, count as u32);
            let command = Command::deallocate(self.number);
            let end = self.controller.carry_out(&self.control, command, &range);
            end.and_then(|end| end.check()).of_file(self.name())
        })
    }

    fn sync(&self, durability: Durability) -> Result<()> {
        if durability != Durability::Synced || !self.writable {
            return self.check_kept();
        }
        self.flush()
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        let inside = self.inside(offset, len);
        Ok(StorageExtent {
            len: if inside > 0 { inside } else { len },
            zero: inside == 0,
            allocated: inside > 0,
        })
    }

    fn limits(&self) -> Limits {
        Limits {
            request_alignment: self.namespace.block,
            fixed_len: true,
            fixed_kind: KIND,
            in_flight: IN_FLIGHT,
            ..Limits::default()
        }
    }

    fn allocated_size(&self) -> Option<u64> {
        None
    }

    fn lock(&self, _request: LockRequest) -> Result<()> {
        // The kernel lets only one process at a time use a controller.
        Ok(())
    }

    fn host(&self) -> Option<&dyn HostFile> {
        None
    }
}
