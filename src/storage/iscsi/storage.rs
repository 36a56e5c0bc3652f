//! A logical unit as a storage.

use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bstr::{BStr, BString, ByteSlice};
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::extent::StorageExtent;
use crate::job::JobControl;
use crate::memory::{self, IoBuf, Payload};
use crate::net::Address;
use crate::storage::align::{Parts, in_pieces};
use crate::storage::batch::Broken;
use crate::storage::blocks::{Blocks, buffer};
use crate::storage::driver::OpenContext;
use crate::storage::modes::{CacheMode, Durability, LockRequest, Preallocation, ZeroFlags};
use crate::storage::remote_file::{Lasting, Renew, given_options};
use crate::storage::status::Run;
use crate::storage::{
    HostFile, Identity, Limits, ReadRange, Storage, StorageDetails, StorageReport, StoredImage,
};
use crate::sys::libiscsi::Command;

use super::device::{Device, carry_out, is_unknown};
use super::options::{OPTIONS, Settings, file_name, parse_file_name};
use super::scsi::{self, Reply};
use super::session::{Connection, connect};
use super::shared::Unit;

/// Maximum number of callers' requests in flight; each holds a buffer of the caller.
const IN_FLIGHT: u32 = 16;
/// Maximum data length of one command: one long command is cheaper for the server than several short ones.
const PIECE: u64 = 1 << 20;
/// Maximum total data length of the commands of one call in flight.
const BATCH: u64 = 8 << 20;
/// Number of zero bytes to write at once.
const ZEROES: u64 = 1 << 20;
/// Maximum length of a WRITE SAME, which keeps a unit busy for as long as it writes.
const MAX_SAME: u64 = 32 << 20;
/// Maximum length of a command that unmaps blocks.
const MAX_UNMAP: u64 = 1 << 30;
/// Maximum number of blocks of a 10-byte command.
const MAX_SHORT: u64 = u16::MAX as u64;
/// What units are called in messages about resizing.
const KIND: &str = "iSCSI devices";

/// A unit of a target.
pub(super) struct IscsiStorage {
    driver: &'static str,
    name: BString,
    identity: Identity,
    settings: Settings,
    control: Arc<JobControl>,
    writable: bool,
    cache: CacheMode,
    device: Device,
    /// Length in bytes; a unit can grow.
    len: AtomicU64,
    /// Why the unit is no longer the one that was opened, once it is not; held while the unit is checked.
    replaced: Mutex<Option<Broken>>,
    unit: Arc<Unit>,
    /// Changes made over it may still be in a cache of the unit.
    connection: Lasting<Connection>,
    /// The unit has said that it does not support the command after all.
    no_same: AtomicBool,
    no_status: AtomicBool,
}

impl std::fmt::Debug for IscsiStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IscsiStorage")
            .field("name", &self.name)
            .field("writable", &self.writable)
            .finish_non_exhaustive()
    }
}

/// The settings from the options and the name of a target together, and the name to show.
fn settings_of(scheme: &str, context: &OpenContext<'_>) -> Result<(Settings, BString)> {
    let (given, values) = given_options(&context.target, context.options, OPTIONS, |name| {
        parse_file_name(scheme, name)
    })?;
    let settings = Settings::of(scheme, &values, context.objects)?;
    let name = file_name(scheme, &given).unwrap_or_else(|| settings.place());
    Ok((settings, name))
}

/// Visits the identity of the unit that would be opened.
pub(super) fn stands_on(scheme: &str, context: &OpenContext<'_>, visit: &mut dyn FnMut(Identity)) {
    if let Ok((settings, _)) = settings_of(scheme, context) {
        visit(Identity::Remote(settings.place()));
    }
}

/// Opens a unit.
pub(super) fn open(scheme: &'static str, context: &OpenContext<'_>) -> Result<Arc<dyn Storage>> {
    let (mut settings, name) = settings_of(scheme, context)?;
    settings.policy = context.policy_of_servers();
    context.check_server(&Address::inet(settings.host.clone(), settings.port))?;
    let connection = connect(&settings, context.control)?;
    let device = Device::of(&connection, context.control).map_err(|error| match error.kind() {
        ErrorKind::Cancelled => error,
        _ => error.context(format!("iSCSI: Failed to open unit {}", settings.lun)),
    })?;
    let writable = context.how.writable;
    if writable && device.read_only {
        return Err(Error::new(
            ErrorKind::ReadOnly,
            "Cannot open a write protected LUN as read-write",
        )
        .with_errno(libc::EACCES));
    }
    let place = settings.place();
    Ok(Arc::new(IscsiStorage {
        driver: scheme,
        name,
        identity: Identity::Remote(place.clone()),
        settings,
        control: context.control.clone(),
        writable,
        cache: context.how.cache,
        len: AtomicU64::new(device.len()),
        replaced: Mutex::default(),
        device,
        unit: Unit::at(place),
        connection: Lasting::new(connection),
        no_same: AtomicBool::new(false),
        no_status: AtomicBool::new(false),
    }))
}

impl Renew for IscsiStorage {
    type Connection = Connection;

    fn shown(&self) -> &BStr {
        self.name.as_bstr()
    }

    fn control(&self) -> &JobControl {
        &self.control
    }

    fn is_lost(&self, connection: &Connection) -> bool {
        connection.is_lost()
    }

    fn may_renew(&self, _lost: &Connection) -> bool {
        true
    }

    fn renew(&self) -> Result<Connection> {
        connect(&self.settings, &self.control)
    }

    fn accept(&self, _lost: &Connection, fresh: &Connection) -> Result<()> {
        self.look(fresh, None)
    }
}

impl IscsiStorage {
    /// Maximum data length of a command: a whole number of blocks.
    fn most(&self) -> u64 {
        let block = self.block();
        let told = match self.device.limits.transfer {
            0 => u64::MAX,
            blocks => u64::from(blocks).saturating_mul(block),
        };
        let short = match self.device.rom {
            true => MAX_SHORT * block,
            false => u64::MAX,
        };
        told.min(short).min(PIECE.max(block))
    }

    fn blocks(&self, offset: u64, len: u64) -> scsi::Blocks {
        scsi::Blocks {
            first: offset / self.block(),
            // The number of blocks of a command always fits in 32 bits.
            count: u32::try_from(len / self.block()).unwrap_or(u32::MAX),
        }
    }

    /// Carries out commands. A unit that reports UNIT ATTENTION is checked before anything is sent to it again.
    fn carry_out(
        &self,
        connection: &Connection,
        commands: Vec<Command>,
    ) -> Result<Vec<(IoBuf, usize)>> {
        if let Some(replaced) = &*self.control.lock(&self.replaced)? {
            return Err(replaced.error());
        }
        carry_out(connection, commands, &self.control, |code| {
            self.look(connection, Some(code))
        })
    }

    /// Checks that the unit is still the one that was opened, and updates its length; `said` is the code it reported.
    fn look(&self, connection: &Connection, said: Option<u16>) -> Result<()> {
        let mut replaced = self.control.lock(&self.replaced)?;
        if let Some(replaced) = &*replaced {
            return Err(replaced.error());
        }
        let now = Device::of(connection, &self.control)?;
        let has_another = said.is_some_and(|code| self.device.may_have_another(code));
        if has_another || !self.device.is_same(&now, self.size()) {
            let text = format!("The unit of '{}' is not what it was before", self.name);
            let error = Error::new(ErrorKind::Os, text).with_errno(libc::ESTALE);
            *replaced = Some(Broken::of(&error));
            return Err(error);
        }
        self.unit.status.forget(0, u64::MAX);
        self.len.store(now.len(), Ordering::Release);
        Ok(())
    }

    /// Reads ranges of whole blocks within the unit, several at once.
    fn read_ranges(&self, ranges: &mut [ReadRange<'_>]) -> Result<()> {
        let most = usize::try_from(self.most()).unwrap_or(usize::MAX);
        let mut pieces: Vec<(u64, &mut [u8])> = Vec::new();
        for (offset, buf) in ranges {
            let mut at = *offset;
            for part in buf.chunks_mut(most) {
                let len = part.len() as u64;
                pieces.push((at, part));
                at += len;
            }
        }
        let at_once = usize::try_from(BATCH / most.max(1) as u64).unwrap_or(1);
        for batch in pieces.chunks_mut(at_once.clamp(1, 64)) {
            self.connection.run(self, |connection| {
                let mut commands = Vec::with_capacity(batch.len());
                for (at, part) in batch.iter() {
                    let blocks = self.blocks(*at, part.len() as u64);
                    let data = memory::zeroed(part.len())?;
                    commands.push(scsi::read(blocks, self.device.rom, data));
                }
                let results = self.carry_out(connection, commands)?;
                for ((at, part), (data, missing)) in batch.iter_mut().zip(results) {
                    if missing > 0 || data.len() != part.len() {
                        return Err(Error::new(
                            ErrorKind::Os,
                            format!("The unit gives less than was asked for at offset {at}"),
                        )
                        .with_errno(libc::EIO));
                    }
                    part.copy_from_slice(&data);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Carries out commands that modify a range, and makes them durable if the cache mode is write-through. `durable`
    /// means that they are durable by themselves.
    fn change(
        &self,
        (offset, len): (u64, u64),
        durable: bool,
        mut commands: impl FnMut() -> Result<Vec<Command>>,
    ) -> Result<()> {
        self.connection.check().of_file(self.name())?;
        self.unit.status.forget(offset, len);
        let change = |connection: &Connection| {
            let commands = commands()?;
            self.carry_out(connection, commands).map(|_| ())
        };
        let done = match self.device.cached && !durable {
            true => self.connection.change(self, change),
            false => self.connection.run(self, change),
        };
        self.unit.status.forget(offset, len);
        done?;
        match self.cache.write_through() && !durable {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&self) -> Result<()> {
        self.connection.flush(self, |connection| {
            match self.carry_out(connection, vec![scsi::synchronize_cache()]) {
                // A unit without the command has nothing to flush.
                Err(error) if error.os_errno() == Some(libc::ENOTSUP) => Ok(()),
                other => other.map(|_| ()),
            }
        })
    }

    /// Writes zeroes as data.
    fn write_zero_data(&self, range: (u64, u64)) -> Result<()> {
        let most = ZEROES.max(self.block());
        let zeroes = buffer(most.min(range.1 - range.0))?;
        in_pieces(range, most, |at, len| {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            self.write_whole(zeroes.get(..len).unwrap_or_default(), at)
        })
    }

    /// Maximum length of a command that has its own limit of `blocks`, where 0 means none.
    fn at_most(&self, blocks: u32, most: u64) -> u64 {
        let told = match blocks {
            0 => u64::MAX,
            blocks => u64::from(blocks).saturating_mul(self.block()),
        };
        told.min(most.max(self.block()))
    }

    /// Whether WRITE SAME can zero blocks by unmapping them.
    fn unmaps_to_zero(&self) -> bool {
        self.device.unmap_same && self.device.capacity.zero
    }

    /// Zeroes whole blocks with WRITE SAME; false if the unit does not support it.
    fn zero_whole(&self, range: (u64, u64), may_unmap: bool) -> Result<bool> {
        let most = match may_unmap {
            true => MAX_UNMAP,
            false => MAX_SAME,
        };
        let most = self.at_most(self.device.limits.same, most);
        let done = in_pieces(range, most, |at, len| {
            self.change((at, len), false, || {
                let block = buffer(self.block())?;
                Ok(vec![scsi::write_same(
                    self.blocks(at, len),
                    may_unmap,
                    block,
                )])
            })
        });
        match done {
            Err(error) if is_unknown(&error) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Queries the unit for the run at `offset`; None if it does not report it.
    fn ask_status(&self, offset: u64) -> Result<Option<Run<bool>>> {
        let _asking = self.unit.status.asking.lock();
        if let Some(run) = self.unit.status.find(offset) {
            return Ok(Some(run));
        }
        let block = self.block();
        let first = offset / block;
        let asked = self.unit.status.now();
        let done = self.connection.run(self, |connection| {
            let mut reply = self.carry_out(connection, vec![scsi::get_lba_status(first)?])?;
            let (data, missing) = reply.pop().unwrap_or_default();
            let len = data.len().saturating_sub(missing);
            Reply(data.get(..len).unwrap_or_default()).runs(first)
        });
        let runs = match done {
            Err(error) if is_unknown(&error) => {
                self.no_status.store(true, Ordering::Relaxed);
                return Ok(None);
            }
            other => other?,
        };
        let states = runs
            .into_iter()
            .map(|(count, mapped)| (count.saturating_mul(block), mapped));
        let status = &self.unit.status;
        let found = status.keep(asked, first * block, self.size(), states);
        Ok(found.filter(|run| run.end > offset))
    }
}

impl Blocks for IscsiStorage {
    fn block(&self) -> u64 {
        u64::from(self.device.capacity.block)
    }

    fn size(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn partial(&self) -> &Mutex<()> {
        &self.unit.partial
    }

    fn read_whole(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.read_ranges(&mut [(offset, buf)])
    }

    fn write_whole(&self, buf: &[u8], offset: u64) -> Result<()> {
        let through = self.cache.write_through() && self.device.through;
        let most = usize::try_from(self.most()).unwrap_or(usize::MAX);
        let batch = usize::try_from(BATCH).unwrap_or(usize::MAX).max(most) / most * most;
        let mut start = offset;
        for batch in buf.chunks(batch) {
            self.change((start, batch.len() as u64), through, || {
                let mut at = start;
                let mut commands = Vec::with_capacity(batch.len().div_ceil(most));
                for part in batch.chunks(most) {
                    let blocks = self.blocks(at, part.len() as u64);
                    commands.push(scsi::write(blocks, through, Payload::of(part)?));
                    at += part.len() as u64;
                }
                Ok(commands)
            })?;
            start += batch.len() as u64;
        }
        Ok(())
    }
}

impl StorageReport for IscsiStorage {
    fn details(&self) -> Result<StorageDetails> {
        Ok(StorageDetails {
            image: Some(StoredImage::default()),
            specific: Vec::new(),
        })
    }
}

impl Storage for IscsiStorage {
    fn report(&self) -> Option<&dyn StorageReport> {
        Some(self)
    }

    fn name(&self) -> &BStr {
        self.name.as_bstr()
    }

    fn driver(&self) -> &'static str {
        self.driver
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.identity.clone())
    }

    fn read_only(&self) -> bool {
        !self.writable
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.read_bytes(buf, offset)
    }

    fn read_many_at(&self, ranges: &mut [ReadRange<'_>]) -> Result<()> {
        let size = self.size();
        let whole = |(offset, buf): &ReadRange<'_>| {
            let len = buf.len() as u64;
            self.is_whole(*offset, len) && offset.saturating_add(len) <= size
        };
        if ranges.iter().all(whole) {
            return self.read_ranges(ranges);
        }
        for (offset, buf) in ranges {
            self.read_at(buf, *offset)?;
        }
        Ok(())
    }

    fn try_read(&self, _bufs: &mut [IoSliceMut<'_>], _offset: u64) -> Result<bool> {
        // A read always has to wait for the unit.
        Ok(false)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.write_bytes(buf, offset)
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
        let may_unmap = flags.contains(ZeroFlags::MAY_UNMAP) && self.unmaps_to_zero();
        let offered = !self.no_same.load(Ordering::Relaxed);
        let parts = Parts::of(offset, end, self.block(), self.size());
        let no_fallback = flags.contains(ZeroFlags::NO_FALLBACK);
        let slow_only = || Error::unsupported("The unit writes zeroes no faster than data");
        if no_fallback && (!offered || !may_unmap || parts.edges().next().is_some()) {
            return Err(slow_only());
        }
        let range = parts.middle;
        if range.0 < range.1 && !(offered && self.zero_whole(range, may_unmap)?) {
            self.no_same.store(true, Ordering::Relaxed);
            if no_fallback {
                return Err(slow_only());
            }
            self.write_zero_data(range)?;
        }
        for edge in parts.edges() {
            self.change_partial(edge, &mut |bytes| bytes.fill(0))?;
        }
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let end = self.check_write(offset, len)?;
        if !self.device.unmap {
            return Err(Error::no_discard());
        }
        // Partial blocks are left alone.
        let parts = Parts::of(offset, end, self.block(), self.size());
        let most = self.at_most(self.device.limits.unmap, MAX_UNMAP);
        in_pieces(parts.middle, most, |at, len| {
            self.change((at, len), false, || {
                Ok(vec![scsi::unmap(self.blocks(at, len))?])
            })
        })
    }

    fn sync(&self, durability: Durability) -> Result<()> {
        if durability != Durability::Synced || !self.writable {
            // What the unit has acknowledged survives this process.
            return Ok(());
        }
        self.connection.sync(|| self.flush()).of_file(self.name())
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        if offset >= self.size() {
            return Ok(StorageExtent {
                len,
                zero: true,
                allocated: false,
            });
        }
        let unknown = StorageExtent {
            len: self.inside(offset, len),
            zero: false,
            allocated: true,
        };
        if !self.device.capacity.thin || self.no_status.load(Ordering::Relaxed) {
            return Ok(unknown);
        }
        let run = match self.unit.status.find(offset) {
            Some(run) => Some(run),
            None => self.ask_status(offset)?,
        };
        Ok(run.map_or(unknown, |run| StorageExtent {
            len: len.min(run.end - offset),
            zero: !run.state && self.device.capacity.zero,
            allocated: run.state,
        }))
    }

    fn limits(&self) -> Limits {
        Limits {
            request_alignment: self.device.capacity.block,
            fixed_len: true,
            fixed_kind: KIND,
            in_flight: IN_FLIGHT,
            remembers_extents: true,
            ..Limits::default()
        }
    }

    fn allocated_size(&self) -> Option<u64> {
        None
    }

    fn lock(&self, _request: LockRequest) -> Result<()> {
        // The protocol has no locks that images use: locking is up to the target.
        Ok(())
    }

    fn host(&self) -> Option<&dyn HostFile> {
        None
    }
}
