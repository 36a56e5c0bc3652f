//! An export as a storage.

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, Result, ResultExt};
use crate::extent::StorageExtent;
use crate::job::JobControl;
use crate::memory::{self, IoBuf};
use crate::nbd::export::BlockSizes;
use crate::nbd::flags::{CommandFlags, StateFlags, TransmissionFlags};
use crate::nbd::limits::{PORTABLE_PAYLOAD, UNLIMITED_BLOCK};
use crate::nbd::reply::Headers;
use crate::nbd::request::Command;
use crate::net::Address;
use crate::net::address::Names;
use crate::options::Values;
use crate::storage::align::{Parts, around, in_pieces};
use crate::storage::driver::{OpenContext, StorageTarget};
use crate::storage::exports::ExportInfo;
use crate::storage::modes::{CacheMode, Durability, LockRequest, Preallocation, ZeroFlags};
use crate::storage::recent;
use crate::storage::status::Run;
use crate::storage::{HostFile, Identity, Limits, Prefetch, ReadRange, Storage};
use crate::value::{Map, Value};

use super::connection::MAX_OPS;
use super::op::{Op, Payload, Sink};
use super::options::{OPTIONS, Settings, file_name, parse_file_name};
use super::shared::Shared;

/// Maximum number of requests in flight; each holds a buffer of the caller. As many as servers process over the usual
/// number of connections, within the memory of an operation.
const IN_FLIGHT: u32 = 32;
/// Maximum number of zero bytes to send at once.
const ZEROES: usize = 1 << 20;
/// Maximum length of a trim, and of a request for zeroes if the server sets no limit.
const MAX_TRIM: u64 = 1 << 30;
/// Minimum block size for a server that reports none: any server accepts it.
const SECTOR: u32 = 512;

/// What exports are called in messages about resizing.
const KIND: &str = "NBD nodes";

/// An export.
#[derive(Debug)]
pub(super) struct NbdStorage {
    name: BString,
    identity: Identity,
    shared: Arc<Shared>,
    control: Arc<JobControl>,
    writable: bool,
    cache: CacheMode,
    sizes: BlockSizes,
    /// The server has said that it cannot write zeroes after all.
    no_zeroes: AtomicBool,
    /// The server has said that it cannot prefetch after all.
    no_cache: AtomicBool,
}

/// Opens an export.
pub(super) fn open(context: &OpenContext<'_>) -> Result<Arc<dyn Storage>> {
    let (settings, given) = settings_of(context)?;
    context.check_server(&settings.address)?;
    let how = context.how;
    NbdStorage::open(&settings, &given, how.writable, how.cache, context.control)
        .map(|storage| Arc::new(storage) as _)
}

/// Visits the identity of the export that would be opened.
pub(super) fn stands_on(context: &OpenContext<'_>, visit: &mut dyn FnMut(Identity)) {
    if let Ok((settings, _)) = settings_of(context) {
        visit(identity(&settings));
    }
}

/// Lists the exports of the server, whichever of them the context names.
pub(super) fn exports(context: &OpenContext<'_>) -> Result<Vec<ExportInfo>> {
    let (settings, _) = settings_of(context)?;
    super::pool::list(&settings, context.control)
}

/// The settings, and the options that they come from.
fn settings_of(context: &OpenContext<'_>) -> Result<(Settings, Map<String, Value>)> {
    let named = match &context.target {
        StorageTarget::Uri(uri) => Some(uri.to_owned().to_owned()),
        StorageTarget::Path(path) => Some(BString::from(std::os::unix::ffi::OsStrExt::as_bytes(
            path.as_os_str(),
        ))),
        StorageTarget::Unnamed => context.options.name("filename").map(BStr::to_owned),
    };
    let mut values = context.options.clone();
    let mut given: Map<String, Value> = tree_of(&values);
    if let Some(name) = named {
        let parsed = parse_file_name(name.as_bstr())?;
        let says_server =
            |key: &str| key.starts_with("server.") || ["path", "host", "port"].contains(&key);
        if given.keys().any(|key| says_server(key)) {
            return Err(Error::invalid(
                "The name of the export and options describe the server: only one of them may",
            ));
        }
        for (key, value) in parsed {
            given.entry(key).or_insert(value);
        }
        values = Values::check(&crate::location::tree::flatten(&given), OPTIONS)?;
    }
    Ok((Settings::of(&values, context.objects)?, given))
}

/// Converts checked options back to the form in which they were given.
fn tree_of(values: &Values) -> Map<String, Value> {
    use crate::options::OptionValue;
    values
        .iter()
        .map(|(key, value)| {
            let value = match value {
                OptionValue::Str(text) => Value::from(text.as_str()),
                OptionValue::Name(name) => Value::String(name.clone()),
                OptionValue::Num(number) => Value::from(*number),
                OptionValue::Bool(flag) => Value::from(*flag),
            };
            (key.to_owned(), value)
        })
        .collect()
}

/// Identifies the export regardless of how the server is named, as far as that can be known.
fn identity(settings: &Settings) -> Identity {
    let place = match &settings.address {
        Address::Inet { host, port, .. } => {
            format!("nbd://{}:{port}", host.to_ascii_lowercase()).into()
        }
        Address::Unix { path, names } => {
            let real = match names {
                Names::Path => path
                    .to_path()
                    .ok()
                    .and_then(|path| path.canonicalize().ok()),
                Names::Abstract | Names::AbstractPadded => None,
            };
            match real {
                Some(real) => BString::from(
                    [b"nbd+unix:".as_slice(), real.as_os_str().as_encoded_bytes()].concat(),
                ),
                None => BString::from([b"nbd+abstract:".as_slice(), path].concat()),
            }
        }
        other => format!("nbd:{other:?}").into(),
    };
    Identity::Remote([place.as_slice(), b"/", &settings.export].concat().into())
}

impl NbdStorage {
    pub(super) fn open(
        settings: &Settings,
        given: &Map<String, Value>,
        writable: bool,
        cache: CacheMode,
        control: &Arc<JobControl>,
    ) -> Result<Self> {
        let name = file_name(given).unwrap_or_else(|| format!("nbd:{}", settings.address).into());
        let shared = Shared::open(settings, &name, control)?;
        let export = shared.pool.export;
        if writable && export.flags.contains(TransmissionFlags::READ_ONLY) {
            return Err(Error::os(libc::EACCES).context("Could not open image"));
        }
        let default = match export.size.is_multiple_of(u64::from(SECTOR)) {
            true => SECTOR,
            false => 1,
        };
        let sizes = export.sizes.unwrap_or(BlockSizes {
            minimum: default,
            preferred: 4096,
            maximum: PORTABLE_PAYLOAD,
        });
        Ok(Self {
            name,
            identity: identity(settings),
            shared,
            control: control.clone(),
            writable,
            cache,
            sizes,
            no_zeroes: AtomicBool::new(false),
            no_cache: AtomicBool::new(false),
        })
    }

    fn can(&self, what: TransmissionFlags) -> bool {
        self.shared.pool.export.flags.contains(what)
    }

    fn run(&self, ops: &mut [Op<'_, '_>]) -> Result<()> {
        self.shared
            .pool
            .run(ops, &self.control)
            .of_file(self.name())
    }

    fn size(&self) -> u64 {
        self.shared.pool.export.size
    }

    fn block(&self) -> u64 {
        u64::from(self.sizes.minimum)
    }

    /// Maximum payload of a request: a whole number of blocks.
    fn most(&self) -> u64 {
        let most = self.sizes.maximum.min(PORTABLE_PAYLOAD);
        u64::from(most - most % self.sizes.minimum).max(self.block())
    }

    fn is_whole(&self, offset: u64, len: u64) -> bool {
        let end = offset.saturating_add(len);
        let block = self.block();
        offset.is_multiple_of(block) && (end.is_multiple_of(block) || end == self.size())
    }

    /// How many of `len` bytes from `offset` on are within the export.
    fn inside(&self, offset: u64, len: u64) -> u64 {
        len.min(self.size().saturating_sub(offset))
    }

    /// Refuses a change that is not possible; returns the end of its range.
    fn check_write(&self, offset: u64, len: u64) -> Result<u64> {
        if !self.writable {
            return Err(Error::open_read_only(&self.name));
        }
        match offset.checked_add(len) {
            Some(end) if end <= self.size() => Ok(end),
            _ => Err(Error::os(libc::ENOSPC)),
        }
    }

    /// Reads whole blocks within the export.
    fn read_whole(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let most = usize::try_from(self.most()).unwrap_or(usize::MAX);
        if buf.is_empty() {
            return Ok(());
        }
        if buf.len() <= most {
            return self.run(&mut [read(offset, buf)]);
        }
        let mut at = offset;
        for batch in buf.chunks_mut(most.saturating_mul(MAX_OPS)) {
            let mut ops: Vec<_> = Vec::with_capacity(MAX_OPS);
            for part in batch.chunks_mut(most) {
                let len = part.len() as u64;
                ops.push(read(at, part));
                at += len;
            }
            self.run(&mut ops)?;
        }
        Ok(())
    }

    /// Writes whole blocks within the export.
    fn write_whole(&self, buf: &[u8], offset: u64) -> Result<()> {
        let most = usize::try_from(self.most()).unwrap_or(usize::MAX);
        if buf.is_empty() {
            return Ok(());
        }
        if buf.len() <= most {
            return self.change(&mut [self.write(offset, buf)]);
        }
        let batch = most.saturating_mul(MAX_OPS);
        let batch = batch
            .min(self.shared.pool.most_bytes() / most * most)
            .max(most);
        let mut at = offset;
        for batch in buf.chunks(batch) {
            let mut ops: Vec<_> = Vec::with_capacity(MAX_OPS);
            for part in batch.chunks(most) {
                ops.push(self.write(at, part));
                at += part.len() as u64;
            }
            self.change(&mut ops)?;
        }
        Ok(())
    }

    fn write<'a, 'b>(&self, offset: u64, buf: &'a [u8]) -> Op<'a, 'b> {
        Op::new(Command::WRITE, offset, buf.len() as u64).payload(Payload::One(buf))
    }

    /// Sends requests that modify the export, and makes them durable if the cache mode is write-through.
    fn change(&self, ops: &mut [Op<'_, '_>]) -> Result<()> {
        let through = self.cache.write_through();
        let fua = through && self.can(TransmissionFlags::SEND_FUA);
        if fua {
            for op in ops.iter_mut() {
                op.flags |= CommandFlags::FUA;
            }
        }
        let forget = |ops: &[Op<'_, '_>]| {
            for op in ops {
                self.shared.status.forget(op.offset, op.len);
            }
        };
        forget(ops);
        let done = self.shared.pool.change(ops, fua, &self.control);
        forget(ops);
        done.of_file(self.name())?;
        match through && !fua {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&self) -> Result<()> {
        self.shared.pool.flush(&self.control).of_file(self.name())
    }

    /// Modifies part of a block, by applying `change` to its bytes.
    fn change_partial(
        &self,
        (start, end): (u64, u64),
        change: impl FnOnce(&mut [u8]),
    ) -> Result<()> {
        let _alone = self.shared.partial.lock();
        let (from, to) = around(start, end, self.block(), self.size());
        let mut block = buffer(to - from)?;
        self.read_whole(&mut block, from)?;
        let at = usize::try_from(start - from).unwrap_or(usize::MAX);
        let len = usize::try_from(end - start).unwrap_or(usize::MAX);
        if let Some(part) = block.get_mut(at..).and_then(|rest| rest.get_mut(..len)) {
            change(part);
        }
        self.write_whole(&block, from)
    }

    /// Writes zeroes as data.
    fn write_zero_data(&self, range: (u64, u64)) -> Result<()> {
        let most = self.most().min(ZEROES as u64);
        let zeroes = buffer(most.min(range.1 - range.0))?;
        in_pieces(range, most, |at, len| {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            self.write_whole(zeroes.get(..len).unwrap_or_default(), at)
        })
    }

    /// Zeroes whole blocks; false if the server cannot.
    fn zero_whole(&self, range: (u64, u64), flags: CommandFlags) -> Result<bool> {
        let most = match self.sizes.maximum {
            UNLIMITED_BLOCK => MAX_TRIM,
            _ => self.most(),
        };
        let done = in_pieces(range, most, |at, len| {
            self.change(&mut [Op::new(Command::WRITE_ZEROES, at, len).flags(flags)])
        });
        match done {
            Err(error) if error.errno() == libc::ENOTSUP => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Queries the server for the run at `offset`; None if the server does not know it.
    fn ask_status(&self, offset: u64, len: u64) -> Result<Option<Run<StateFlags>>> {
        let _asking = self.shared.status.asking.lock();
        if let Some(run) = self.shared.status.find(offset) {
            return Ok(Some(run));
        }
        let start = offset - offset % self.block();
        let left = self.size() - start;
        let wanted = (offset - start).saturating_add(len);
        let wanted = wanted.checked_next_multiple_of(self.block());
        let left = recent::stride(wanted.unwrap_or(left), left);
        let len = match self.shared.pool.export.headers {
            Headers::Extended => left,
            _ => left.min(u64::from(u32::MAX) - u64::from(u32::MAX) % self.block()),
        };
        let asked = self.shared.status.now();
        let mut extents = Vec::new();
        let op = Op::new(Command::BLOCK_STATUS, start, len).sink(Sink::Status(&mut extents));
        match self.run(&mut [op]) {
            Ok(()) => {}
            // The server is not required to know the status of this range.
            Err(error) if matches!(error.errno(), libc::ENOTSUP | libc::EINVAL) => return Ok(None),
            Err(error) => return Err(error),
        }
        let known = StateFlags::HOLE | StateFlags::ZERO;
        let states = extents.iter().map(|extent| {
            let state = StateFlags::from_bits_retain(extent.flags) & known;
            (extent.len, state)
        });
        let first = self.shared.status.keep(asked, start, self.size(), states);
        Ok(first.filter(|run| run.end > offset))
    }
}

fn read<'a>(offset: u64, buf: &'a mut [u8]) -> Op<'a, 'a> {
    Op::new(Command::READ, offset, buf.len() as u64).sink(Sink::One(buf))
}

fn buffer(len: u64) -> Result<IoBuf> {
    memory::zeroed(usize::try_from(len).map_err(|_| Error::os(libc::ENOMEM))?)
}

impl Storage for NbdStorage {
    fn name(&self) -> &BStr {
        self.name.as_bstr()
    }

    fn driver(&self) -> &'static str {
        super::DRIVER.name
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.identity.clone())
    }

    fn read_only(&self) -> bool {
        !self.writable
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let len = self.inside(offset, buf.len() as u64);
        let (buf, past) = buf.split_at_mut(usize::try_from(len).unwrap_or(usize::MAX));
        past.fill(0);
        if buf.is_empty() {
            return Ok(());
        }
        if self.is_whole(offset, len) {
            return self.read_whole(buf, offset);
        }
        let end = offset + len;
        let parts = Parts::of(offset, end, self.block(), self.size());
        let mut rest = buf;
        for (start, end) in [parts.head, parts.middle, parts.tail] {
            let len = usize::try_from(end - start).unwrap_or(usize::MAX);
            let (now, then) = rest.split_at_mut(len);
            rest = then;
            if now.is_empty() {
                continue;
            }
            if self.is_whole(start, end - start) {
                self.read_whole(now, start)?;
                continue;
            }
            let (from, to) = around(start, end, self.block(), self.size());
            let mut block = buffer(to - from)?;
            self.read_whole(&mut block, from)?;
            let at = usize::try_from(start - from).unwrap_or(usize::MAX);
            now.copy_from_slice(&block[at..at + len]);
        }
        Ok(())
    }

    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        let len = bufs.iter().map(|buf| buf.len() as u64).sum::<u64>();
        let inside = self.inside(offset, len) == len;
        if inside && len > 0 && len <= self.most() && self.is_whole(offset, len) {
            return self.run(&mut [Op::new(Command::READ, offset, len).sink(Sink::Many(bufs))]);
        }
        let mut at = offset;
        for buf in bufs {
            self.read_at(buf, at)?;
            at = at.saturating_add(buf.len() as u64);
        }
        Ok(())
    }

    fn read_many_at(&self, ranges: &mut [ReadRange<'_>]) -> Result<()> {
        let mut ops = Vec::with_capacity(MAX_OPS.min(ranges.len()));
        for (offset, buf) in ranges {
            let len = buf.len() as u64;
            let inside = self.inside(*offset, len) == len;
            if !inside || len == 0 || len > self.most() || !self.is_whole(*offset, len) {
                self.read_at(buf, *offset)?;
                continue;
            }
            ops.push(read(*offset, buf));
            if ops.len() == MAX_OPS {
                self.run(&mut ops)?;
                ops.clear();
            }
        }
        match ops.is_empty() {
            true => Ok(()),
            false => self.run(&mut ops),
        }
    }

    fn try_read(&self, _bufs: &mut [IoSliceMut<'_>], _offset: u64) -> Result<bool> {
        // A read always has to wait for the server.
        Ok(false)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let len = buf.len() as u64;
        let end = self.check_write(offset, len)?;
        if self.is_whole(offset, len) {
            return self.write_whole(buf, offset);
        }
        let parts = Parts::of(offset, end, self.block(), self.size());
        let of = |(start, end): (u64, u64)| {
            let at = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
            buf.get(at(start)..at(end)).unwrap_or_default()
        };
        self.write_whole(of(parts.middle), parts.middle.0)?;
        for edge in parts.edges() {
            self.change_partial(edge, |bytes| bytes.copy_from_slice(of(edge)))?;
        }
        Ok(())
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        let len = bufs.iter().map(|buf| buf.len() as u64).sum::<u64>();
        self.check_write(offset, len)?;
        if len > 0 && len <= self.most() && self.is_whole(offset, len) {
            let op = Op::new(Command::WRITE, offset, len).payload(Payload::Many(bufs));
            return self.change(&mut [op]);
        }
        let mut at = offset;
        for buf in bufs {
            self.write_at(buf, at)?;
            at = at.saturating_add(buf.len() as u64);
        }
        Ok(())
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
        let no_fallback = flags.contains(ZeroFlags::NO_FALLBACK);
        let slow_only = || Error::unsupported("The server writes zeroes no faster than data");
        let fast = self.can(TransmissionFlags::SEND_FAST_ZERO);
        let offered = self.can(TransmissionFlags::SEND_WRITE_ZEROES)
            && !self.no_zeroes.load(Ordering::Relaxed);
        let parts = Parts::of(offset, end, self.block(), self.size());
        if no_fallback && (!offered || !fast || parts.edges().next().is_some()) {
            return Err(slow_only());
        }
        let (start, stop) = parts.middle;
        if start < stop {
            let mut how = CommandFlags::empty();
            how.set(CommandFlags::NO_HOLE, !flags.contains(ZeroFlags::MAY_UNMAP));
            how.set(CommandFlags::FAST_ZERO, no_fallback);
            let done = offered && self.zero_whole((start, stop), how)?;
            if !done && no_fallback {
                return Err(slow_only());
            }
            if !done {
                self.no_zeroes.store(true, Ordering::Relaxed);
                self.write_zero_data((start, stop))?;
            }
        }
        for edge in parts.edges() {
            self.change_partial(edge, |bytes| bytes.fill(0))?;
        }
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let end = self.check_write(offset, len)?;
        if !self.can(TransmissionFlags::SEND_TRIM) {
            return Err(Error::no_discard());
        }
        // Partial blocks are left alone.
        let parts = Parts::of(offset, end, self.block(), self.size());
        in_pieces(parts.middle, MAX_TRIM, |at, len| {
            self.change(&mut [Op::new(Command::TRIM, at, len)])
        })
    }

    fn sync(&self, durability: Durability) -> Result<()> {
        if durability != Durability::Synced || !self.writable {
            // What the server has acknowledged survives this process.
            return Ok(());
        }
        self.flush()
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
        if self.shared.pool.export.context.is_none() {
            return Ok(unknown);
        }
        let run = match self.shared.status.find(offset) {
            Some(run) => Some(run),
            None => self.ask_status(offset, len)?,
        };
        Ok(run.map_or(unknown, |run| StorageExtent {
            len: len.min(run.end - offset),
            zero: run.state.contains(StateFlags::ZERO),
            allocated: !run.state.contains(StateFlags::HOLE),
        }))
    }

    fn limits(&self) -> Limits {
        Limits {
            request_alignment: self.sizes.minimum,
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
        // The protocol has no locks: locking is up to the server.
        Ok(())
    }

    fn prefetcher(&self) -> Option<&dyn Prefetch> {
        let offered = self.can(TransmissionFlags::SEND_CACHE);
        (offered && !self.no_cache.load(Ordering::Relaxed)).then_some(self)
    }

    fn host(&self) -> Option<&dyn HostFile> {
        None
    }
}

impl Prefetch for NbdStorage {
    fn prefetch(&self, offset: u64, len: u64) -> Result<()> {
        let end = offset.saturating_add(self.inside(offset, len));
        if offset >= end {
            return Ok(());
        }
        let (start, end) = around(offset, end, self.block(), self.size());
        let mut ops = Vec::with_capacity(MAX_OPS);
        in_pieces((start, end), self.most(), |at, len| {
            ops.push(Op::new(Command::CACHE, at, len));
            if ops.len() < MAX_OPS && at + len < end {
                return Ok(());
            }
            let done = self.run(&mut ops);
            ops.clear();
            match done {
                // The data can still be read.
                Err(error) if error.errno() == libc::ENOTSUP => {
                    self.no_cache.store(true, Ordering::Relaxed);
                    Ok(())
                }
                done => done,
            }
        })
    }
}
