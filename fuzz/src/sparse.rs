//! A file in memory of which pages of zeroes take nothing, and copies of which share what is the same: so
//! that each run has its own, however long it is.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::sync::{Arc, RwLock};

use bstr::{BStr, BString, ByteSlice};
use platter::extent::StorageExtent;
use platter::storage::{
    Durability, HostFile, Identity, Limits, LockRequest, Preallocation, Storage, ZeroFlags,
};
use platter::{Error, ErrorKind, Result};

const PAGE: u64 = 4096;
/// Pages of one file; beyond them the disk is full.
const MOST_PAGES: usize = 16 << 10;
/// What no file system of this world is longer than.
const MOST_BYTES: u64 = 1 << 43;

type Page = [u8; PAGE as usize];

/// The bytes of a file.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Pages {
    /// Those of a whole file.
    pub fn of(bytes: &[u8]) -> Self {
        let mut pages = Self::default();
        pages.len = bytes.len() as u64;
        for (n, chunk) in bytes.chunks(PAGE as usize).enumerate() {
            if chunk.iter().any(|byte| *byte != 0) {
                let mut page = [0; PAGE as usize];
                page[..chunk.len()].copy_from_slice(chunk);
                pages.pages.insert(n as u64, Arc::new(page));
            }
        }
        pages
    }

    /// The length.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Another length; what comes to it is zero.
    pub fn set_len(&mut self, len: u64) {
        self.pages.split_off(&len.div_ceil(PAGE));
        let within = (len % PAGE) as usize;
        if within > 0 && len < self.len {
            if let Some(page) = self.pages.get_mut(&(len / PAGE)) {
                Arc::make_mut(page)[within..].fill(0);
            }
        }
        self.len = len;
    }

    /// Reads; behind the end are zeroes.
    pub fn read(&self, buf: &mut [u8], offset: u64) {
        buf.fill(0);
        let mut done = 0;
        while done < buf.len() {
            let at = offset.saturating_add(done as u64);
            if at >= self.len {
                break;
            }
            let within = (at % PAGE) as usize;
            let part = (buf.len() - done).min(PAGE as usize - within);
            if let Some(page) = self.pages.get(&(at / PAGE)) {
                buf[done..done + part].copy_from_slice(&page[within..within + part]);
            }
            done += part;
        }
    }

    /// Some bytes.
    pub fn get<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.read(&mut bytes, offset);
        bytes
    }

    /// Writes within the length.
    pub fn put(&mut self, bytes: &[u8], offset: u64) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset.saturating_add(done as u64);
            if at >= self.len {
                break;
            }
            let within = (at % PAGE) as usize;
            let room = (self.len - at).min(PAGE - at % PAGE);
            let part = (bytes.len() - done).min(room as usize);
            let page = self
                .pages
                .entry(at / PAGE)
                .or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(page)[within..within + part].copy_from_slice(&bytes[done..done + part]);
            done += part;
        }
    }

    fn zero(&mut self, offset: u64, end: u64) {
        let mut at = offset;
        while at < end {
            let next = (at / PAGE + 1) * PAGE;
            if at % PAGE == 0 && next <= end {
                self.pages.remove(&(at / PAGE));
                // What follows has no pages before the next one that is there.
                at = match self.pages.range(at / PAGE..).next() {
                    Some((n, _)) => (n * PAGE).max(next),
                    None => end,
                };
            } else if let Some(page) = self.pages.get_mut(&(at / PAGE)) {
                let from = (at % PAGE) as usize;
                let to = from + (next.min(end) - at) as usize;
                Arc::make_mut(page)[from..to].fill(0);
                at = next;
            } else {
                at = next;
            }
        }
    }
}

/// A storage of [`Pages`].
#[derive(Debug)]
pub struct SparseStorage {
    name: BString,
    identity: Identity,
    pages: RwLock<Pages>,
}

impl SparseStorage {
    /// One with these bytes.
    pub fn new(name: &str, pages: Pages) -> Self {
        Self {
            name: name.into(),
            identity: Identity::own(),
            pages: RwLock::new(pages),
        }
    }

    /// Changes what lies before `end`, which the file grows to.
    fn change(&self, end: u64, change: impl FnOnce(&mut Pages)) -> Result<()> {
        let mut pages = self.pages.write().expect("no writer has panicked");
        if end > MOST_BYTES {
            return Err(Error::os(libc::EFBIG));
        }
        if pages.pages.len() > MOST_PAGES {
            return Err(Error::os(libc::ENOSPC));
        }
        if end > pages.len {
            pages.set_len(end);
        }
        change(&mut pages);
        Ok(())
    }
}

fn end_of(offset: u64, len: u64) -> u64 {
    offset.saturating_add(len)
}

impl Storage for SparseStorage {
    fn name(&self) -> &BStr {
        self.name.as_bstr()
    }

    fn driver(&self) -> &'static str {
        "memory"
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.identity.clone())
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let pages = self.pages.read().expect("no writer has panicked");
        pages.read(buf, offset);
        Ok(())
    }

    fn try_read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<bool> {
        self.read_vectored_at(bufs, offset).map(|()| true)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let end = match buf {
            [] => return Ok(()),
            _ => end_of(offset, buf.len() as u64),
        };
        self.change(end, |pages| pages.put(buf, offset))
    }

    fn len(&self) -> Result<u64> {
        Ok(self.pages.read().expect("no writer has panicked").len)
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        if preallocation == Preallocation::Metadata {
            return Err(Error::new(ErrorKind::Unsupported, "no metadata"));
        }
        self.change(len, |pages| pages.set_len(len))
    }

    fn write_zeroes(&self, offset: u64, len: u64, _: ZeroFlags) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let end = end_of(offset, len);
        self.change(end, |pages| pages.zero(offset, end))
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let mut pages = self.pages.write().expect("no writer has panicked");
        let end = end_of(offset, len).min(pages.len);
        pages.zero(offset, end);
        Ok(())
    }

    fn sync(&self, _: Durability) -> Result<()> {
        Ok(())
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        let pages = self.pages.read().expect("no writer has panicked");
        let first = offset / PAGE;
        let there = |n: &u64| *n < pages.len.div_ceil(PAGE) && pages.pages.contains_key(n);
        let held = there(&first);
        let end = match held {
            true => (first..).find(|n| !there(n)),
            false => pages.pages.range(first..).next().map(|(n, _)| *n),
        };
        Ok(StorageExtent {
            len: end.map_or(len, |n| (n * PAGE - offset).min(len)),
            zero: !held,
            allocated: held,
        })
    }

    fn limits(&self) -> Limits {
        Limits {
            grown_is_zero: true,
            writes_to_memory: true,
            ..Limits::default()
        }
    }

    fn allocated_size(&self) -> Option<u64> {
        let pages = self.pages.read().expect("no writer has panicked");
        Some(pages.pages.len() as u64 * PAGE)
    }

    fn lock(&self, _: LockRequest) -> Result<()> {
        Ok(())
    }

    fn host(&self) -> Option<&dyn HostFile> {
        None
    }
}
