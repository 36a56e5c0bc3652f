//! A small format for tests: clusters of 4 KiB in memory, in any state.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::Result;
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::format::{
    Below, FileRole, Format, FormatFile, FormatInfo, FormatWrite, IoGuard, Lineage, ParentId,
    ParentRef, raw,
};
use crate::image::changes::Changes;
use crate::image::detect_zeroes::DetectZeroes;
use crate::image::status::Sparse;
use crate::image::unit_lock::UnitLock;
use crate::image::{Backing, Image, Settings};
use crate::location::Location;
use crate::newest::Newest;
use crate::storage::memory::MemoryStorage;
use crate::storage::testing::GatheringStorage;
use crate::storage::{CacheMode, Durability, Storage, ZeroFlags};

pub(in crate::image) const CLUSTER: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::image) enum State {
    Unallocated,
    Zero,
    Data,
    Encoded,
}

#[derive(Debug)]
pub(in crate::image) struct Fake {
    storage: Arc<dyn Storage>,
    states: Mutex<Vec<State>>,
    len: u64,
    unit: u32,
    read_only: bool,
    parent: Option<ParentRef>,
    id: Option<ParentId>,
    pub(in crate::image) closes: Arc<AtomicU64>,
    /// Total bytes of all runs that were looked up, as a measure of the time taken.
    pub(in crate::image) looked_up: Arc<AtomicU64>,
}

impl Fake {
    /// Cluster `i` of the file holds the byte `fill + i` throughout; encoded ones are inverted.
    pub(in crate::image) fn new(len: u64, states: &[State], fill: u8) -> Self {
        let mut bytes = Vec::new();
        for (i, state) in states.iter().enumerate() {
            let byte = fill.wrapping_add(i as u8);
            let byte = if *state == State::Encoded {
                !byte
            } else {
                byte
            };
            bytes.extend(std::iter::repeat_n(byte, CLUSTER as usize));
        }
        Self {
            storage: Arc::new(MemoryStorage::with_bytes("fake", bytes)),
            states: Mutex::new(states.to_vec()),
            len,
            unit: 1,
            read_only: false,
            parent: None,
            id: None,
            closes: Arc::default(),
            looked_up: Arc::default(),
        }
    }

    /// All I/O must come in units of this many bytes; anything else fails.
    pub(in crate::image) fn with_unit(mut self, unit: u32) -> Self {
        self.unit = unit;
        self
    }

    /// Uses a storage that prefers many requests at once.
    pub(in crate::image) fn on_many(mut self) -> Self {
        self.storage = Arc::new(GatheringStorage::new(self.storage, 8));
        self
    }

    /// Names a parent.
    pub(in crate::image) fn with_parent(mut self, parent: ParentRef) -> Self {
        self.parent = Some(parent);
        self
    }

    /// Has an identity as a parent of others.
    pub(in crate::image) fn with_id(mut self, id: ParentId) -> Self {
        self.id = Some(id);
        self
    }

    /// Does not support writing.
    pub(in crate::image) fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    pub(in crate::image) fn image(self, backing: Option<Arc<Image>>) -> Image {
        Image {
            children: Newest::new(Vec::new()),
            more_files: None,
            closed_files: Vec::new(),
            location: Location::from_path("fake"),
            filename: "fake".into(),
            base: "fake".into(),
            tree: crate::value::Map::new(),
            format_name: "fake",
            driver: &raw::DRIVER,
            storage: self.storage.clone(),
            format: Box::new(self),
            current: None,
            backing: backing.map_or(Backing::None, Backing::Open),
            below: None,
            named_by_image: false,
            node_name: None,
            warnings: Vec::new(),
            writable: true,
            settings: Settings {
                cache: CacheMode::Writeback,
                ignore_discard: false,
                detect_zeroes: DetectZeroes::Off,
                max_len: u64::MAX,
                force_share: false,
                deny_writers: false,
                for_check: false,
            },
            units: UnitLock::default(),
            changes: Changes::default(),
            sparse: Sparse::default(),
            closed: Default::default(),
        }
    }

    fn aligned(&self, offset: u64, len: u64) {
        let unit = u64::from(self.unit);
        let end = offset + len;
        assert!(
            offset.is_multiple_of(unit) && (end.is_multiple_of(unit) || end == self.len),
            "unaligned request at {offset}, {len} bytes"
        );
    }

    /// Turns a cluster into data, filling it from below if it is unallocated.
    fn take(&self, index: u64, below: &dyn Below) -> Result<()> {
        let mut states = self.states.lock();
        let state = &mut states[index as usize];
        let mut bytes = vec![0; CLUSTER as usize];
        match *state {
            State::Data => return Ok(()),
            State::Zero => {}
            State::Unallocated => below.read_below(&mut bytes, index * CLUSTER)?,
            State::Encoded => {
                self.storage.read_at(&mut bytes, index * CLUSTER)?;
                bytes.iter_mut().for_each(|b| *b = !*b);
            }
        }
        self.storage.write_at(&bytes, index * CLUSTER)?;
        *state = State::Data;
        Ok(())
    }
}

impl Format for Fake {
    fn driver(&self) -> &'static str {
        "fake"
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn cluster_size(&self) -> Option<u32> {
        Some(CLUSTER as u32)
    }

    fn request_alignment(&self) -> u32 {
        self.unit
    }

    fn map(&self, offset: u64, len: u64) -> Result<Extent> {
        let states = self.states.lock();
        let first = (offset / CLUSTER) as usize;
        let state = states[first];
        let run = states[first..].iter().take_while(|s| **s == state).count() as u64;
        let run = (first as u64 + run) * CLUSTER - offset;
        self.looked_up.fetch_add(run.min(len), Ordering::Relaxed);
        Ok(Extent {
            len: run.min(len),
            kind: match state {
                State::Unallocated => ExtentKind::Unallocated { host_offset: None },
                State::Zero => ExtentKind::ZEROES,
                State::Encoded => ExtentKind::Encoded { compressed: false },
                State::Data if self.unit > 1 => ExtentKind::Encoded { compressed: false },
                State::Data => ExtentKind::Data {
                    slot: StorageSlot::MAIN,
                    host_offset: offset,
                },
            },
        })
    }

    fn storage(&self, _slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        Ok(&self.storage)
    }

    fn visit_files<'a>(&'a self, visit: &mut dyn FnMut(FormatFile<'a>)) {
        visit(FormatFile::own(&self.storage));
    }

    fn closed_files(&self) -> Vec<(FileRole, bstr::BString)> {
        Vec::new()
    }

    fn read_encoded(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.aligned(offset, buf.len() as u64);
        self.storage.read_at(buf, offset)?;
        let states = self.states.lock();
        for (i, byte) in buf.iter_mut().enumerate() {
            if states[((offset + i as u64) / CLUSTER) as usize] == State::Encoded {
                *byte = !*byte;
            }
        }
        Ok(())
    }

    fn begin_io(&self) -> IoGuard<'_> {
        IoGuard::UNGUARDED
    }

    fn info(&self) -> Result<FormatInfo> {
        Ok(FormatInfo::default())
    }

    fn close(&self) -> Result<()> {
        self.closes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn lineage(&self) -> Option<&dyn Lineage> {
        Some(self)
    }

    fn writer(&self) -> Option<&dyn FormatWrite> {
        (!self.read_only).then_some(self)
    }
}

impl Lineage for Fake {
    fn parent(&self) -> Option<ParentRef> {
        self.parent.clone()
    }

    fn id(&self) -> Option<ParentId> {
        self.id
    }
}

impl FormatWrite for Fake {
    fn write(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<()> {
        self.aligned(offset, buf.len() as u64);
        for index in offset / CLUSTER..(offset + buf.len() as u64).div_ceil(CLUSTER) {
            self.take(index, below)?;
        }
        self.storage.write_at(buf, offset)
    }

    fn write_zeroes(&self, offset: u64, len: u64, _: ZeroFlags, below: &dyn Below) -> Result<()> {
        self.write(&vec![0; len as usize], offset, below)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let mut states = self.states.lock();
        for index in offset.div_ceil(CLUSTER)..(offset + len) / CLUSTER {
            states[index as usize] = State::Zero;
        }
        Ok(())
    }

    fn flush(&self, durability: Durability) -> Result<()> {
        self.storage.sync(durability)
    }
}
