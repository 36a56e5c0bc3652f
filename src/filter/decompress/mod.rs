//! `decompress`: what a compressed file holds, which may be an image of any format.
//!
//! It is unpacked as far as it is asked for, from the beginning on, into a temporary file without a name.

mod spool;

use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::codec::container::{Container, Unpacker};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::extent::StorageExtent;
use crate::filter::{FilterContext, FilterDriver};
use crate::format::ChildSpec;
use crate::job::JobControl;
use crate::options::{OptionKind, OptionSpec};
use crate::policy::OpenPolicy;
use crate::storage::forward::forward;
use crate::storage::{Durability, HostFile, Limits, Preallocation, Storage, ZeroFlags};

use spool::Spool;

/// The line of the registry.
pub static DRIVER: FilterDriver = FilterDriver {
    name: "decompress",
    children: &[ChildSpec::FILE],
    shows: None,
    contents: None,
    holds_file: true,
    passes_compressed: false,
    open_options: &[OptionSpec {
        name: TYPE,
        kind: OptionKind::Str,
        help: "what the file is compressed with; 'auto' looks at its beginning",
        default: Some(AUTO),
        allowed: &[AUTO, "bzip2", "gzip", "lz4", "xz", "zstd"],
    }],
    weak_options: &[],
    open,
    parse_file_name: None,
    file_name: None,
};

/// The option that names the compression.
pub const TYPE: &str = "type";

/// The compression is the one that the beginning of the file shows.
const AUTO: &str = "auto";

/// The kind of a compressed file by the value of the option; None for `auto`.
///
/// # Errors
/// [`ErrorKind::Invalid`] for a name of no kind.
pub fn kind_named(name: &str) -> Result<Option<Container>> {
    match Container::by_name(name) {
        None if name != AUTO => Err(Error::invalid(format!(
            "Unknown compression '{name}'; it is one of {}",
            DRIVER.open_options[0].allowed.join(", ")
        ))),
        kind => Ok(kind),
    }
}

/// Reads a compressed file from its first byte to its last; `seen` is shown its bytes in their order.
///
/// # Errors
/// As [`Unpacker::new`], with the name of the file.
pub fn unpacker(
    file: &Arc<dyn Storage>,
    kind: Option<Container>,
    policy: &OpenPolicy,
    control: &Arc<JobControl>,
    seen: impl Fn(&[u8]) + Send + 'static,
) -> Result<Unpacker> {
    let (file, control) = (file.clone(), control.clone());
    let name = file.name().to_owned();
    let end = file.len()?;
    let mut at = 0;
    let source = move |buf: &mut [u8]| {
        control.checkpoint()?;
        let len = usize::try_from(end - at).map_or(buf.len(), |left| left.min(buf.len()));
        let part = buf.get_mut(..len).unwrap_or_default();
        file.read_at(part, at)?;
        seen(part);
        at += len as u64;
        Ok(len)
    };
    Unpacker::new(Box::new(source), kind, policy).context(|| format!("'{name}'"))
}

#[derive(Debug)]
struct Decompressed {
    file: Arc<dyn Storage>,
    spool: Spool,
    /// So many bytes are in the spool.
    ready: AtomicU64,
    filling: Mutex<Filling>,
    control: Arc<JobControl>,
}

/// How far the spool has come.
#[derive(Debug)]
enum Filling {
    /// There may be more.
    Going(Box<Unpacker>),
    /// All bytes are there.
    Done,
    /// What comes next was refused, and is not looked at again.
    Failed(ErrorKind, String),
}

fn open(mut context: FilterContext<'_>) -> Result<Arc<dyn Storage>> {
    let file = context.take(ChildSpec::FILE.name)?.storage;
    if context.writable {
        let text = format!("'{}': what is compressed can only be read", file.name());
        return Err(Error::new(ErrorKind::ReadOnly, text));
    }
    let kind = kind_named(context.options.str(TYPE).unwrap_or(AUTO))?;
    let unpacker = unpacker(&file, kind, context.policy, context.control, |_| ())?;
    Ok(Arc::new(Decompressed {
        spool: Spool::new(file.name(), context.policy)?,
        file,
        ready: AtomicU64::new(0),
        filling: Mutex::new(Filling::Going(Box::new(unpacker))),
        control: context.control.clone(),
    }))
}

impl Decompressed {
    /// Unpacks up to this offset, or to the end; gives how many bytes there are so far.
    fn fill(&self, end: u64) -> Result<u64> {
        let ready = self.ready.load(Ordering::Acquire);
        if ready >= end {
            return Ok(ready);
        }
        let mut filling = self.filling.lock();
        loop {
            let ready = self.ready.load(Ordering::Acquire);
            if ready >= end {
                return Ok(ready);
            }
            let unpacker = match &mut *filling {
                Filling::Going(unpacker) => unpacker,
                Filling::Done => return Ok(ready),
                Filling::Failed(kind, text) => return Err(Error::new(*kind, &**text)),
            };
            self.control.checkpoint()?;
            let taken = self.spool.take(ready, unpacker);
            match taken.context(|| format!("'{}'", self.file.name())) {
                Ok((len, ended)) => {
                    self.ready.store(ready + len, Ordering::Release);
                    if ended {
                        *filling = Filling::Done;
                    }
                }
                Err(error) => {
                    // The decoder has gone on; what it would give now belongs elsewhere.
                    *filling = Filling::Failed(error.kind(), error.to_string());
                    return Err(error);
                }
            }
        }
    }

    /// How many bytes of a range are those of the file, and not past its end.
    fn inside(&self, offset: u64, len: u64) -> Result<u64> {
        let ready = self.fill(offset.saturating_add(len))?;
        Ok(ready.saturating_sub(offset).min(len))
    }

    fn refused(&self) -> Error {
        let text = format!("'{}': what is compressed can only be read", self.name());
        Error::new(ErrorKind::ReadOnly, text)
    }
}

impl Storage for Decompressed {
    forward!(file: name, identity, allocated_size, lock);

    fn driver(&self) -> &'static str {
        DRIVER.name
    }

    fn read_only(&self) -> bool {
        true
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let inside = self.inside(offset, buf.len() as u64)?;
        let (inside, outside) = buf.split_at_mut(inside as usize);
        outside.fill(0);
        match inside.is_empty() {
            true => Ok(()),
            false => self.spool.read(inside, offset),
        }
    }

    fn try_read(&self, _: &mut [IoSliceMut<'_>], _: u64) -> Result<bool> {
        Ok(false)
    }

    fn write_at(&self, _: &[u8], _: u64) -> Result<()> {
        Err(self.refused())
    }

    fn write_zeroes(&self, _: u64, _: u64, _: ZeroFlags) -> Result<()> {
        Err(self.refused())
    }

    fn discard(&self, _: u64, _: u64) -> Result<()> {
        Err(self.refused())
    }

    fn len(&self) -> Result<u64> {
        self.fill(u64::MAX)
    }

    fn set_len(&self, _: u64, _: Preallocation) -> Result<()> {
        Err(self.refused())
    }

    fn sync(&self, _: Durability) -> Result<()> {
        Ok(())
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        match self.inside(offset, len)? {
            0 => Ok(StorageExtent {
                len,
                zero: true,
                allocated: false,
            }),
            inside => self.spool.extent(offset, inside),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            fixed_len: true,
            ..Limits::default()
        }
    }

    fn specific_info(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    fn host(&self) -> Option<&dyn HostFile> {
        // Its bytes stand nowhere on the host.
        None
    }
}

#[cfg(test)]
mod tests;
