//! Logs as a machine that was running leaves them: many entries, some of them carried out, anywhere in the ring.

use std::sync::Arc;

use platter::Image;
use platter::storage::memory::MemoryStorage;

use crate::common::Dir;
use crate::common::vhdx::{HEADERS, LOG, seal, table};

use super::{contents, contents_by_peer, create, entry, open, open_replayed, options};

const RING: usize = 1 << 20;
const SECTOR: usize = 4096;
const BLOCK: usize = 1 << 20;
const GUID: [u8; 16] = [0x5a; 16];

/// What an entry of the log changes.
enum Change {
    Page(usize, Vec<u8>),
    Zero(usize, usize),
}

/// An entry as it stands in the log.
fn log_entry(sequence: u64, tail: usize, file_len: usize, changes: &[Change]) -> Vec<u8> {
    let mut bytes = vec![0; (64 + changes.len() * 32).next_multiple_of(SECTOR)];
    for (n, change) in changes.iter().enumerate() {
        let descriptor = &mut bytes[64 + n * 32..][..32];
        let offset = match change {
            Change::Page(offset, page) => {
                descriptor[..4].copy_from_slice(b"desc");
                descriptor[4..8].copy_from_slice(&page[SECTOR - 4..]);
                descriptor[8..16].copy_from_slice(&page[..8]);
                offset
            }
            Change::Zero(offset, len) => {
                descriptor[..4].copy_from_slice(b"zero");
                descriptor[8..16].copy_from_slice(&(*len as u64).to_le_bytes());
                offset
            }
        };
        descriptor[16..24].copy_from_slice(&(*offset as u64).to_le_bytes());
        descriptor[24..].copy_from_slice(&sequence.to_le_bytes());
    }
    for change in changes {
        if let Change::Page(_, page) = change {
            let mut sector = page.clone();
            sector[..4].copy_from_slice(b"data");
            sector[4..8].copy_from_slice(&((sequence >> 32) as u32).to_le_bytes());
            sector[SECTOR - 4..].copy_from_slice(&(sequence as u32).to_le_bytes());
            bytes.extend(sector);
        }
    }
    let len = bytes.len() as u32;
    bytes[..4].copy_from_slice(b"loge");
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..16].copy_from_slice(&(tail as u32).to_le_bytes());
    bytes[16..24].copy_from_slice(&sequence.to_le_bytes());
    bytes[24..28].copy_from_slice(&(changes.len() as u32).to_le_bytes());
    bytes[32..48].copy_from_slice(&GUID);
    for at in [48, 56] {
        bytes[at..at + 8].copy_from_slice(&(file_len as u64).to_le_bytes());
    }
    seal(&mut bytes);
    bytes
}

/// A disk whose table, and pieces of whose data, stand in the log alone.
struct Running {
    file: Vec<u8>,
    model: Vec<u8>,
    /// Changes of the entries that count, and one that has been carried out and must not be again.
    live: Vec<Vec<Change>>,
    done: Change,
}

impl Running {
    fn new(dir: &Dir) -> Self {
        create(dir, "a.vhdx", 8 << 20, "block_size=1M", None).expect("an image");
        let path = dir.path("a.vhdx");
        let empty = std::fs::read(&path).expect("the image");
        let at = table(&empty);
        let mut live = Vec::new();
        let mut model = vec![0; 8 << 20];
        for block in [3, 0, 6] {
            let bytes = vec![block as u8 + 1; BLOCK];
            let image = open(&path, true).expect("it opens");
            image
                .write_at(&bytes, (block * BLOCK) as u64)
                .expect("a write");
            image.close().expect("a close");
            model[block * BLOCK..][..BLOCK].copy_from_slice(&bytes);
            let file = std::fs::read(&path).expect("the image");
            live.push(vec![Change::Page(at, file[at..at + SECTOR].to_vec())]);
        }
        let mut file = std::fs::read(&path).expect("the image");
        let payload = |block| entry(&file, block) as usize & !(BLOCK - 1);
        let (third, first) = (payload(3), payload(0));
        // The second entry writes a page of data besides, and the last one removes two.
        let page: Vec<u8> = (0..SECTOR).map(|n| (n % 241) as u8).collect();
        model[3 * BLOCK + 5 * SECTOR..][..SECTOR].copy_from_slice(&page);
        live[1].push(Change::Page(third + 5 * SECTOR, page));
        model[9 * SECTOR..11 * SECTOR].fill(0);
        live[2].insert(0, Change::Zero(first + 9 * SECTOR, 2 * SECTOR));
        file[at..at + SECTOR].copy_from_slice(&empty[at..at + SECTOR]);
        for at in HEADERS {
            file[at + 48..at + 64].copy_from_slice(&GUID);
            seal(&mut file[at..at + SECTOR]);
        }
        let done = Change::Zero(third + 100 * SECTOR, 3 * SECTOR);
        Self {
            file,
            model,
            live,
            done,
        }
    }

    /// The file with its log turned by `turn` bytes, after `done` entries that were carried out.
    fn turned(&self, turn: usize, done: usize) -> Vec<u8> {
        let mut file = self.file.clone();
        let len = file.len();
        let mut ring = vec![0xa5; RING];
        let mut at = turn;
        let mut put = |bytes: &[u8], at: &mut usize| {
            for sector in bytes.chunks(SECTOR) {
                ring[*at % RING..][..SECTOR].copy_from_slice(sector);
                *at += SECTOR;
            }
        };
        let mut sequence = (1 << 32) - 2;
        for _ in 0..done {
            let own = at % RING;
            let bytes = log_entry(sequence, own, len, std::slice::from_ref(&self.done));
            put(&bytes, &mut at);
            sequence += 1;
        }
        let tail = at % RING;
        for changes in &self.live {
            put(&log_entry(sequence, tail, len, changes), &mut at);
            sequence += 1;
        }
        assert!(at - turn <= RING, "the ring has no room for the entries");
        file[LOG..LOG + RING].copy_from_slice(&ring);
        file
    }

    /// How many entries that were carried out fill the ring.
    fn full(&self) -> usize {
        let sectors: usize = self
            .live
            .iter()
            .map(|changes| log_entry(1, 0, 0, changes).len() / SECTOR)
            .sum();
        RING / SECTOR - sectors
    }
}

#[test]
fn it_is_replayed_from_wherever_in_the_ring_it_begins() {
    let dir = Dir::new();
    let running = Running::new(&dir);
    for done in [0, 5, running.full()] {
        for turn in (0..RING).step_by(SECTOR) {
            let what = format!("{done} entries carried out, turned by {turn}");
            let file = running.turned(turn, done);
            if (turn / SECTOR).is_multiple_of(17) || turn + 8 * SECTOR > RING {
                std::fs::write(dir.path("a.vhdx"), &file).expect("the image");
                let image = open_replayed(&dir.path("a.vhdx")).expect(&what);
                assert!(contents(&image) == running.model, "{what}: in memory");
                drop(image);
                // QEMU's tools carry out once more what has been, which removes data here, and lose what stands before the
                // end of the ring when the rest stands at its beginning.
                if done == 0 && turn + 8 * SECTOR < RING {
                    let check = ["check", "-q", "-r", "all", "-f", "vhdx", "a.vhdx"];
                    let ran = dir.qemu_img(&check);
                    assert_eq!(ran.code, 0, "{what}: {ran:?}");
                    let theirs = contents_by_peer(&dir, "a.vhdx");
                    assert!(theirs == running.model, "{what}: by QEMU's tools");
                }
            }
            let storage = Arc::new(MemoryStorage::with_bytes("a.vhdx", file));
            let image = Image::open_storage(storage, &options(true)).expect(&what);
            assert!(contents(&image) == running.model, "{what}");
        }
    }
}

/// The last entries are damaged or missing where power failed: those before them count.
#[test]
fn an_entry_that_is_not_whole_ends_it() {
    let dir = Dir::new();
    let running = Running::new(&dir);
    let last = log_entry(1, 0, 0, running.live.last().expect("an entry")).len();
    let before: usize = running
        .live
        .iter()
        .map(|changes| log_entry(1, 0, 0, changes).len())
        .sum();
    // Without the last entry there is no table entry of block 6, and nothing is removed.
    let mut model = running.model.clone();
    model[6 * BLOCK..7 * BLOCK].fill(0);
    model[9 * SECTOR..11 * SECTOR].fill(1);
    for turn in [0, RING - 2 * SECTOR, RING - before + last, RING - before] {
        for damaged in (0..last).step_by(SECTOR) {
            let mut file = running.turned(turn, 0);
            let at = (turn + before - last + damaged) % RING;
            file[LOG + at + 100] ^= 0xff;
            let storage = Arc::new(MemoryStorage::with_bytes("a.vhdx", file));
            let image = Image::open_storage(storage, &options(true)).expect("it opens");
            let what = format!("turned by {turn}, sector {} is damaged", damaged / SECTOR);
            assert!(contents(&image) == model, "{what}");
        }
    }
}
