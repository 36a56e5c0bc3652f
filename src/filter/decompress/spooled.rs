//! A compressed file that is unpacked from its beginning on and kept in a temporary file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bstr::{BStr, BString};
use parking_lot::Mutex;

use super::DRIVER;
use super::spool::Spool;
use crate::codec::container::Unpacker;
use crate::error::{Error, Result, ResultExt};
use crate::extent::StorageExtent;
use crate::job::JobControl;
use crate::policy::OpenPolicy;
use crate::storage::forward::{forward, read_only};
use crate::storage::{Limits, Storage};

#[derive(Debug)]
pub(super) struct Spooled {
    file: Arc<dyn Storage>,
    spool: Spool,
    /// How many bytes are in the spool.
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
    /// What comes next was refused, and is not read again.
    Failed(Error),
}

impl Spooled {
    /// What `unpacker` gives of the file.
    ///
    /// # Errors
    /// Of making the temporary file.
    pub(super) fn new(
        file: Arc<dyn Storage>,
        unpacker: Unpacker,
        policy: &OpenPolicy,
        control: &Arc<JobControl>,
    ) -> Result<Self> {
        let shown = BString::from(format!("temporary file for '{}'", file.name()));
        let spool = Spool::new(file.name(), shown, policy)?;
        Ok(Self::over((file, spool), 0, unpacker, control))
    }

    /// What `unpacker` gives of a stream of that name, behind the bytes of `head`.
    ///
    /// # Errors
    /// Of making and writing the temporary file.
    pub(super) fn of_stream(
        name: &BStr,
        unpacker: Unpacker,
        head: &[u8],
        policy: &OpenPolicy,
        control: &Arc<JobControl>,
    ) -> Result<Self> {
        let spool = Spool::new(name, name.to_owned(), policy)?;
        spool.begin(head)?;
        // There is no other file.
        let file = spool.file().clone();
        Ok(Self::over(
            (file, spool),
            head.len() as u64,
            unpacker,
            control,
        ))
    }

    fn over(
        (file, spool): (Arc<dyn Storage>, Spool),
        ready: u64,
        unpacker: Unpacker,
        control: &Arc<JobControl>,
    ) -> Self {
        Self {
            spool,
            file,
            ready: AtomicU64::new(ready),
            filling: Mutex::new(Filling::Going(Box::new(unpacker))),
            control: control.clone(),
        }
    }

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
                Filling::Failed(error) => return Err(error.again()),
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
                    *filling = Filling::Failed(error.again());
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
}

impl Spooled {
    fn refused(&self) -> Error {
        super::refused(self.name())
    }
}

impl Storage for Spooled {
    forward!(file: name, identity, allocated_size, lock);
    read_only!(refused, made);

    fn driver(&self) -> &'static str {
        DRIVER.name
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

    fn len(&self) -> Result<u64> {
        self.fill(u64::MAX)
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
}
