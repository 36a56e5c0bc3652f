//! Conversion into new images of geometries that no built-in format has, against an array of bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::bulk_sink::BulkSink;
use super::offload::Offload;
use super::report::Counters;
use super::request::ConvertRequest;
use super::run::run;
use super::sizes::{CopySizes, Writers, crew_for};
use super::sources::Sources;
use super::window::Window;
use crate::codec::{Compression, Decoder, Encoder, Method};
use crate::error::{Error, Result};
use crate::extent::StorageSlot;
use crate::format::{Bulk, InitialContent, Reserved};
use crate::image::{Image, OpenOptions};
use crate::job::Job;
use crate::location::Location;
use crate::memory::IoBuf;
use crate::policy::OpenPolicy;
use crate::storage::file::{self, FileOpen};
use crate::storage::memory::MemoryStorage;
use crate::storage::testing::GatheringStorage;
use crate::storage::{Durability, Storage, ZeroFlags};

/// An image of blocks that are allocated in the order of first use, each after a gap, in parts of a fixed number of
/// guest bytes.
#[derive(Debug)]
struct Blocks {
    parts: Vec<Arc<dyn Storage>>,
    part: u64,
    block: u64,
    gap: u64,
    zero_unit: u32,
    encode_unit: Option<u32>,
    len: u64,
    state: Mutex<State>,
    longest_write: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    next_guest: u64,
    ends: BTreeMap<u64, u64>,
    blocks: BTreeMap<u64, u64>,
    /// Reserved zero units.
    reserved: BTreeSet<u64>,
    encoded: BTreeMap<u64, (u64, u32)>,
}

impl Blocks {
    fn new(block: u64, gap: u64, part: u64, len: u64) -> Self {
        let parts = (0..len.div_ceil(part))
            .map(|n| Arc::new(MemoryStorage::new(format!("part{n}"))) as _)
            .collect();
        Self {
            parts,
            part,
            block,
            gap,
            zero_unit: 4096,
            encode_unit: None,
            len,
            state: Mutex::default(),
            longest_write: AtomicU64::new(0),
        }
    }

    fn check_order(&self, state: &mut State, guest: u64, len: u64) {
        let unit = u64::from(self.zero_unit);
        let end = guest + len;
        assert!(guest >= state.next_guest && len > 0 && end <= self.len);
        assert!(guest.is_multiple_of(unit) && (end.is_multiple_of(unit) || end == self.len));
        state.next_guest = end;
    }

    /// What the finished image reads as.
    fn read(&self, buf: &mut [u8], guest: u64) {
        let state = self.state.lock();
        let unit = u64::from(self.zero_unit);
        for (n, part) in buf.chunks_mut(self.zero_unit as usize).enumerate() {
            let at = guest + n as u64 * unit;
            let coded = self.encode_unit.map_or(unit, u64::from);
            if let Some((host, len)) = state.encoded.get(&(at / coded * coded)) {
                let mut packed = vec![0; *len as usize];
                self.parts[0].read_at(&mut packed, *host).unwrap();
                let (marker, packed) = packed.split_at(8);
                assert_eq!(marker, (at / coded * coded).to_le_bytes());
                let mut plain = vec![0; coded as usize];
                Decoder::new()
                    .decode(Method::Deflate, packed, &mut plain)
                    .unwrap();
                let from = (at % coded) as usize;
                part.copy_from_slice(&plain[from..from + part.len()]);
            } else if state.reserved.contains(&(at / unit)) {
                let host = state.blocks[&(at / self.block)] + at % self.block;
                let storage = &self.parts[(at / self.part) as usize];
                storage.read_at(part, host).unwrap();
            } else {
                part.fill(0);
            }
        }
    }
}

impl Bulk for Blocks {
    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        Ok(&self.parts[usize::from(slot.0)])
    }

    fn data_storages(&self) -> Vec<&Arc<dyn Storage>> {
        self.parts.iter().collect()
    }

    fn takes_raw_writes(&self) -> bool {
        true
    }

    fn write_data(
        &self,
        (slot, host): (StorageSlot, u64),
        _guest_offset: u64,
        bufs: &[IoSlice<'_>],
    ) -> Result<()> {
        let len = bufs.iter().map(|buf| buf.len() as u64).sum();
        self.longest_write.fetch_max(len, Ordering::Relaxed);
        self.storage(slot)?.write_vectored_at(bufs, host)
    }

    fn write_zero_data(
        &self,
        (slot, host): (StorageSlot, u64),
        _guest_offset: u64,
        len: u64,
    ) -> Result<()> {
        self.storage(slot)?
            .write_zeroes(host, len, ZeroFlags::empty())
    }

    fn encode_unit(&self) -> Option<u32> {
        self.encode_unit
    }

    fn zero_unit(&self) -> u32 {
        self.zero_unit
    }

    fn alignment(&self) -> u64 {
        512
    }

    fn initial_content(&self) -> InitialContent {
        InitialContent {
            unreserved_is_zero: true,
            unwritten_is_zero: true,
        }
    }

    fn encode(
        &self,
        scratch: &mut Encoder,
        guest_offset: u64,
        unit: &[u8],
        out: &mut IoBuf,
    ) -> Result<bool> {
        let mut padded = unit.to_vec();
        padded.resize(self.encode_unit.unwrap() as usize, 0);
        let mut packed = IoBuf::new();
        let shrunk = scratch.encode(
            Compression::new(Method::Deflate),
            &padded,
            padded.len(),
            &mut packed,
        )?;
        out.clear();
        if shrunk {
            out.extend_from_slice(&guest_offset.to_le_bytes())?;
            out.extend_from_slice(&packed)?;
        }
        Ok(shrunk)
    }

    fn reserve(&self, guest: u64, len: u64) -> Result<Reserved> {
        let state = &mut *self.state.lock();
        let border = |unit: u64| (guest / unit + 1) * unit;
        let end = (guest + len).min(border(self.block)).min(border(self.part));
        self.check_order(state, guest, end - guest);
        let part = guest / self.part;
        let next = state.ends.entry(part).or_default();
        let host = *state.blocks.entry(guest / self.block).or_insert_with(|| {
            let host = *next + self.gap;
            *next = host + self.block;
            host
        });
        let unit = u64::from(self.zero_unit);
        state.reserved.extend(guest / unit..end.div_ceil(unit));
        Ok(Reserved {
            slot: StorageSlot(u16::try_from(part).unwrap()),
            offset: host + guest % self.block,
            len: end - guest,
        })
    }

    fn reserve_encoded(&self, guest: u64, encoded_len: u32) -> Result<(StorageSlot, u64)> {
        let state = &mut *self.state.lock();
        let unit = u64::from(self.encode_unit.unwrap());
        self.check_order(state, guest, unit.min(self.len - guest));
        let next = state.ends.entry(0).or_default();
        let host = *next;
        *next += u64::from(encoded_len);
        state.encoded.insert(guest, (host, encoded_len));
        Ok((StorageSlot(0), host))
    }

    fn reserve_zero(&self, _guest_offset: u64, _len: u64) -> Result<()> {
        Err(Error::unsupported("Nothing lies below"))
    }

    fn finish(&self, _durability: Durability) -> Result<()> {
        Ok(())
    }
}

fn sparse_file(path: &Path) -> Arc<dyn Storage> {
    std::fs::File::create(path).unwrap();
    let options = FileOpen {
        writable: true,
        ..FileOpen::default()
    };
    Arc::new(file::open(path, &options).unwrap())
}

/// Data and zeroes in runs of many lengths.
fn model(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut state = 1u32;
    let mut at = 0;
    while at < len {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let run = 512 << (state >> 28);
        let end = (at + run as usize).min(len);
        if state & 0x80_0000 != 0 {
            for (n, byte) in bytes[at..end].iter_mut().enumerate() {
                *byte = (at as u8) | (1 + (n as u8) / 7);
            }
        }
        at = end;
    }
    bytes
}

fn sources(path: &Path) -> Sources {
    let options = OpenOptions {
        format: Some("raw".to_owned()),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let image = Image::open(&Location::from_path(path), &options).unwrap();
    Sources::new(vec![image.into()], &Window::default(), false).unwrap()
}

/// Fills `target` from the file; returns the sizes used.
fn fill(target: &Blocks, path: &Path, change: impl FnOnce(&mut ConvertRequest)) -> CopySizes {
    fill_from(target, sources(path), change)
}

fn fill_from(
    target: &Blocks,
    sources: Sources,
    change: impl FnOnce(&mut ConvertRequest),
) -> CopySizes {
    let nowhere = || Location::from_path("none");
    let mut request = ConvertRequest::new(nowhere(), nowhere());
    change(&mut request);
    let offload = Offload::default();
    let sizes = CopySizes::for_new(&request, target, 0).reading_from(&sources);
    let sink = BulkSink {
        bulk: target,
        sources: &sources,
        offload: &offload,
        counters: &Counters::default(),
        below: None,
        unreserved_is_zero: true,
        unwritten_is_zero: target.initial_content().unwritten_is_zero,
    };
    let job = &mut Job::new();
    run(
        &request,
        &sources,
        &offload,
        &sink,
        sizes,
        Writers::Many,
        job,
    )
    .unwrap();
    sizes
}

#[test]
fn as_many_requests_are_in_flight_as_the_storages_like() {
    let bytes = model(24 << 20);
    let options = OpenOptions {
        format: Some("raw".to_owned()),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    for compress in [false, true] {
        let memory = Arc::new(MemoryStorage::with_bytes("source", bytes.clone()));
        let storage = Arc::new(GatheringStorage::new(memory, 12));
        let image = Image::open_storage(storage.clone(), &options).unwrap();
        let sources = Sources::new(vec![image.into()], &Window::default(), false).unwrap();
        storage.arm();
        let mut target = Blocks::new(64 << 10, 0, 1 << 40, bytes.len() as u64);
        target.encode_unit = Some(64 << 10);
        fill_from(&target, sources, |request| {
            request.target.compress = compress;
            request.tuning.sparse_size = Some(0);
        });
        assert!(storage.most() >= 12, "{} at once", storage.most());
        check(&target, &bytes);
    }
}

#[test]
fn the_parts_of_a_chunk_are_asked_for_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("source");
    let mut bytes = vec![0; 4 << 20];
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (n, part) in bytes.chunks_mut(64 << 10).enumerate().step_by(4) {
        part.fill(n as u8 + 1);
        file.write_all_at(part, n as u64 * (64 << 10)).unwrap();
    }
    let options = OpenOptions {
        format: Some("raw".to_owned()),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    for compress in [false, true] {
        let inner = Arc::new(file::open(&path, &FileOpen::default()).unwrap());
        let storage = Arc::new(GatheringStorage::new(inner, 2));
        let image = Image::open_storage(storage.clone(), &options).unwrap();
        let sources = Sources::new(vec![image.into()], &Window::default(), false).unwrap();
        let mut target = Blocks::new(64 << 10, 0, 1 << 40, bytes.len() as u64);
        target.encode_unit = Some(64 << 10);
        fill_from(&target, sources, |request| {
            request.target.compress = compress;
        });
        let chunk = if compress { 2 } else { 4 };
        assert_eq!(storage.together(), chunk);
        check(&target, &bytes);
    }
}

fn check(target: &Blocks, bytes: &[u8]) {
    let mut read = vec![0x5a; bytes.len()];
    target.read(&mut read, 0);
    let differs = read.iter().zip(bytes).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{target:?}");
}

#[test]
fn blocks_behind_gaps_and_parts_of_a_fixed_length_are_filled() {
    let bytes = model((9 << 20) + 512);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("source");
    std::fs::write(&path, &bytes).unwrap();
    let len = bytes.len() as u64;
    let one = 1 << 40;
    // A bitmap sector before each block of 2 MiB; parts; blocks that do not divide any chunk.
    let shapes = [
        (2 << 20, 512, one),
        (64 << 10, 0, 3 << 20),
        (12 << 10, 512, one),
    ];
    for (block, gap, part) in shapes {
        for (sparse, workers) in [(None, 1), (None, 5), (Some(0), 3), (Some(64 << 10), 4)] {
            let target = Blocks::new(block, gap, part, len);
            fill(&target, &path, |request| {
                request.tuning.sparse_size = sparse;
                request.tuning.parallel = Some(workers);
            });
            check(&target, &bytes);
        }
    }
}

#[test]
fn encoded_units_carry_their_guest_offset() {
    let bytes = model((5 << 20) + 512);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("source");
    std::fs::write(&path, &bytes).unwrap();
    for workers in [1, 4] {
        let mut target = Blocks::new(64 << 10, 512, 1 << 40, bytes.len() as u64);
        target.encode_unit = Some(64 << 10);
        fill(&target, &path, |request| {
            request.target.compress = true;
            request.tuning.parallel = Some(workers);
        });
        check(&target, &bytes);
        assert!(target.state.lock().encoded.len() > 10);
    }
}

#[test]
fn blocks_of_256_mib_take_no_more_memory_than_small_ones() {
    const LEN: u64 = (513 << 20) + 512;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("source");
    let source = std::fs::File::create(&path).unwrap();
    source.set_len(LEN).unwrap();
    let bytes = model(3 << 20);
    // The second run crosses the border between two blocks.
    for at in [0, 255 << 20, LEN - 512] {
        let len = bytes.len().min((LEN - at) as usize);
        source.write_all_at(&bytes[..len], at).unwrap();
    }
    let mut target = Blocks::new(256 << 20, 1 << 20, 1 << 40, LEN);
    target.parts = vec![sparse_file(&dir.path().join("target"))];
    let mut workers = 0;
    let sizes = fill(&target, &path, |request| {
        request.tuning.parallel = Some(4);
        let sizes = CopySizes::for_new(request, &target, 0);
        let (threads, buffers) = crew_for(request, &sizes);
        workers = threads;
        assert!(buffers * sizes.chunk <= 36 << 20, "{sizes:?}");
    });
    assert_eq!(workers, 4);
    assert!(target.longest_write.load(Ordering::Relaxed) <= sizes.chunk);
    let sources = sources(&path);
    let (mut expected, mut read) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for at in (0..LEN).step_by(1 << 20) {
        let len = (LEN - at).min(1 << 20) as usize;
        sources.read(&mut expected[..len], at).unwrap();
        target.read(&mut read[..len], at);
        assert!(read[..len] == expected[..len], "at {at}");
    }
}

#[test]
fn a_target_that_knows_nothing_else_is_compressed_unasked() {
    let asked = ConvertRequest::new(Location::from_path("a"), Location::from_path("b"));
    assert!(!asked.compressing(false).target.compress);
    assert!(asked.compressing(true).target.compress);
    let mut asked = asked;
    asked.target.compress = true;
    assert!(asked.compressing(false).target.compress);
}
