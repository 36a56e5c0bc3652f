//! `throttle`: the requests of a node under the limits of a group.

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::filter::{FilterContext, FilterDriver};
use crate::format::ChildSpec;
use crate::job::JobControl;
use crate::options::{OptionKind, OptionSpec};
use crate::storage::forward::forward;
use crate::storage::{Compress, HostFile, Storage, ZeroFlags};
use crate::throttle::ThrottleGroup;

/// The filter.
pub static DRIVER: FilterDriver = FilterDriver {
    name: "throttle",
    children: &[ChildSpec::FILE],
    shows: Some("file"),
    contents: None,
    holds_file: false,
    passes_compressed: true,
    keeps_writers_out: false,
    open_options: &[OptionSpec {
        name: "throttle-group",
        kind: OptionKind::Str,
        help: "ID of the throttle group",
        default: None,
        allowed: &[],
    }],
    weak_options: &[],
    events: &[],
    open,
    file_names: None,
    file_name: None,
};

fn open(mut context: FilterContext<'_>) -> Result<Arc<dyn Storage>> {
    let group = context
        .options
        .str("throttle-group")
        .ok_or_else(|| Error::invalid("Please specify a throttle group"))?;
    Ok(Arc::new(Throttled {
        group: context.objects.throttle_group(group)?,
        inner: context.take("file")?.storage,
        control: context.control.clone(),
    }))
}

/// A storage whose requests wait for their turn.
#[derive(Debug)]
struct Throttled {
    inner: Arc<dyn Storage>,
    group: Arc<ThrottleGroup>,
    control: Arc<JobControl>,
}

impl Throttled {
    fn admit(&self, write: bool, bytes: u64) -> Result<()> {
        self.group.admit(write, bytes, &self.control)
    }
}

impl Storage for Throttled {
    forward!(
        inner: name, identity, read_only, len, set_len, sync, extent, limits, allocated_size, lock,
    );

    fn driver(&self) -> &'static str {
        DRIVER.name
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.admit(false, buf.len() as u64)?;
        self.inner.read_at(buf, offset)
    }

    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        self.admit(false, bufs.iter().map(|buf| buf.len() as u64).sum())?;
        self.inner.read_vectored_at(bufs, offset)
    }

    fn try_read(&self, _: &mut [IoSliceMut<'_>], _: u64) -> Result<bool> {
        // It may have to wait.
        Ok(false)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.admit(true, buf.len() as u64)?;
        self.inner.write_at(buf, offset)
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        self.admit(true, bufs.iter().map(|buf| buf.len() as u64).sum())?;
        self.inner.write_vectored_at(bufs, offset)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.admit(true, len)?;
        self.inner.write_zeroes(offset, len, flags)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.admit(true, len)?;
        self.inner.discard(offset, len)
    }

    fn compressor(&self) -> Option<&dyn Compress> {
        self.inner.compressor().map(|_| self as _)
    }

    fn host(&self) -> Option<&dyn HostFile> {
        // Calls on the descriptor would bypass the limits.
        None
    }
}

/// Compressed writes are counted by their length before compression.
impl Compress for Throttled {
    fn encode_unit(&self) -> u32 {
        self.inner.compressor().map_or(1, Compress::encode_unit)
    }

    fn is_required(&self) -> bool {
        let compressor = self.inner.compressor();
        compressor.is_some_and(Compress::is_required)
    }

    fn is_ordered(&self) -> bool {
        let compressor = self.inner.compressor();
        compressor.is_some_and(Compress::is_ordered)
    }

    fn write_compressed(&self, buf: &[u8], offset: u64) -> Result<()> {
        let compressor = self.inner.compressor();
        let compressor = compressor.ok_or_else(Error::no_compression)?;
        self.admit(true, buf.len() as u64)?;
        compressor.write_compressed(buf, offset)
    }
}
