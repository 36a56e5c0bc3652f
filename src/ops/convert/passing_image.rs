//! An image whose file arrives in order.

use std::sync::Arc;

use crate::error::{Error, Result, ResultExt};
use crate::format::{ReadInOrder, ReadInOrderFn};
use crate::job::JobControl;
use crate::memory::IoBuf;
use crate::policy::OpenPolicy;
use crate::storage::stream::Stream;

/// An image that is read as it passes.
pub(super) struct PassingImage {
    reader: Box<dyn ReadInOrder>,
    file: File,
    /// Guest bytes delivered so far.
    given: u64,
}

/// The rest of the file.
struct File {
    /// The part of its beginning that was read to recognise it.
    head: IoBuf,
    used: usize,
    stream: Stream,
    control: Arc<JobControl>,
}

impl File {
    fn next(&mut self, buf: &mut [u8]) -> Result<usize> {
        let head = self.head.get(self.used..).unwrap_or_default();
        let len = head.len().min(buf.len());
        let (first, rest) = buf.split_at_mut(len);
        first.copy_from_slice(head.get(..len).unwrap_or_default());
        self.used += len;
        let got = self.stream.read(rest, &|| self.control.checkpoint())?;
        Ok(len + got)
    }

    fn named<T>(&self, done: Result<T>) -> Result<T> {
        done.context(|| format!("'{}'", self.stream.name()))
    }
}

impl PassingImage {
    /// Reads the beginning of an image, of which `head` was already read.
    ///
    /// # Errors
    /// If it is not an image, or one that cannot be read in order; if the policy refuses it; if reading fails.
    pub(super) fn open(
        open: ReadInOrderFn,
        (stream, head): (Stream, IoBuf),
        policy: &OpenPolicy,
        control: &Arc<JobControl>,
    ) -> Result<Self> {
        let mut file = File {
            head,
            used: 0,
            stream,
            control: control.clone(),
        };
        let opened = open(policy, &mut |buf| file.next(buf)).and_then(|reader| {
            policy.check_virtual_size(reader.virtual_size())?;
            Ok(reader)
        });
        Ok(Self {
            reader: file.named(opened)?,
            file,
            given: 0,
        })
    }

    /// The size of the guest disk in bytes.
    pub(super) fn virtual_size(&self) -> u64 {
        self.reader.virtual_size()
    }

    /// How many zeroes come next; see [`ReadInOrder::zeroes`].
    pub(super) fn zeroes(&mut self) -> Result<u64> {
        let zeroes = self.reader.zeroes(&mut |buf| self.file.next(buf));
        self.file.named(zeroes)
    }

    /// Skips this many of them.
    pub(super) fn pass(&mut self, len: u64) {
        self.reader.pass(len);
        self.given += len;
    }

    /// Fills `buf`; fewer bytes only at the end of the guest disk.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let left = self.virtual_size().saturating_sub(self.given);
        let len = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let buf = buf
            .get_mut(..len)
            .ok_or_else(|| Error::invalid("A part is longer than the whole"))?;
        let read = self.reader.read(buf, &mut |buf| self.file.next(buf));
        self.file.named(read)?;
        self.given += len as u64;
        Ok(len)
    }

    /// Reads to the end of the file, which must be complete.
    pub(super) fn end(&mut self) -> Result<()> {
        let ended = self.reader.end(&mut |buf| self.file.next(buf));
        self.file.named(ended)
    }
}
