//! Compressed files with edits of their structures, read through their index and in one pass: where both ways read all,
//! they read the same. Without an edit that is what went in.
#![no_main]

use std::sync::{Arc, OnceLock};

use arbitrary::Arbitrary;
use libdeflater::crc32;
use libfuzzer_sys::fuzz_target;
use liblzma::stream::{Check, MtStreamBuilder, Stream};
use lz4_flex::frame::{BlockMode, BlockSize, FrameInfo};
use platter::storage::Storage;
use platter::{Image, Location, OpenOptions, OpenPolicy, Result};
use platter_fuzz::edits::{Edit, MOST};
use platter_fuzz::kit::shelf::Shelf;
use platter_fuzz::packers::{self, bgzf_block, bzip2, gzip, seekable_zstd, xz, zstd};
use platter_fuzz::sparse::{Pages, SparseStorage};
use platter_fuzz::{inspect_file, look_at, policy};
use twox_hash::XxHash32;

/// Bytes that a file holds: whole sectors, as a disk has.
const LEN: usize = 120 << 9;
/// Bytes of a part.
const PART: usize = 20_000;

/// The kind of a file, and what writes one.
type Packer = (&'static str, fn(&[u8]) -> Vec<u8>);

const PACKERS: [Packer; 11] = [
    ("xz", |bytes| {
        let mut several = MtStreamBuilder::new();
        several.threads(1).preset(0).block_size(PART as u64);
        xz(several.check(Check::Crc32).encoder(), bytes)
    }),
    ("xz", |bytes| {
        each(bytes, |part| {
            let mut stream = xz(Stream::new_easy_encoder(0, Check::Sha256), part);
            stream.extend([0; 8]);
            stream
        })
    }),
    ("xz", |bytes| {
        xz(Stream::new_easy_encoder(0, Check::None), bytes)
    }),
    ("zstd", |bytes| each(bytes, |part| zstd(part, true))),
    ("zstd", |bytes| each(bytes, |part| zstd(part, false))),
    ("zstd", |bytes| seekable_zstd(bytes.chunks(PART))),
    ("gzip", |bytes| each(bytes, bgzf_block)),
    ("gzip", |bytes| each(bytes, gzip)),
    ("lz4", |bytes| {
        each(bytes, |part| {
            let info = FrameInfo::new().content_size(Some(part.len() as u64));
            lz4(info.block_checksums(true), part)
        })
    }),
    ("lz4", |bytes| {
        let info = FrameInfo::new().content_checksum(true);
        lz4(info.block_mode(BlockMode::Linked), bytes)
    }),
    ("bzip2", |bytes| each(bytes, bzip2)),
];

fn each(bytes: &[u8], pack: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    bytes.chunks(PART).flat_map(pack).collect()
}

fn lz4(info: FrameInfo, bytes: &[u8]) -> Vec<u8> {
    packers::lz4(info.block_size(BlockSize::Max64KB), bytes)
}

#[derive(Arbitrary, Debug)]
struct Case {
    packer: u8,
    /// One in sixteen keeps its wrong checksums.
    unsealed: u8,
    /// What is done with the file.
    work: u8,
    edits: Vec<Edit>,
}

/// Text of few words, and zeroes.
fn disk() -> Vec<u8> {
    let mut disk: Vec<u8> = (0..LEN)
        .map(|at| b"a disk that has few words "[at * at / 11 % 26])
        .collect();
    disk[30_000..45_000].fill(0);
    disk
}

fn bytes(file: &Pages, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    file.read(&mut bytes, at);
    bytes
}

/// Puts the checksums of the structures right of all streams of xz whose lengths add up.
fn seal_xz(file: &mut Pages) {
    let mut end = file.len();
    for _ in 0..8 {
        while end > 4 && bytes(file, end - 4, 4) == [0; 4] {
            end -= 4;
        }
        let Some(footer_at) = end.checked_sub(12) else {
            return;
        };
        let words = u32::from_le_bytes(file.get(footer_at + 4));
        let size = (u64::from(words) + 1) * 4;
        let Some(index_at) = footer_at.checked_sub(size).filter(|_| size < 4096) else {
            return;
        };
        let index = bytes(file, index_at, size as usize - 4);
        file.put(&crc32(&index).to_le_bytes(), footer_at - 4);
        let described = bytes(file, footer_at + 4, 6);
        file.put(&crc32(&described).to_le_bytes(), footer_at);
        let Some(packed) = blocks(&index) else {
            return;
        };
        let Some(first) = index_at.checked_sub(packed.iter().sum()) else {
            return;
        };
        let mut at = first;
        for len in packed {
            let [words]: [u8; 1] = file.get(at);
            let header = bytes(file, at, usize::from(words) * 4);
            file.put(&crc32(&header).to_le_bytes(), at + header.len() as u64);
            at += len;
        }
        let Some(start) = first.checked_sub(12) else {
            return;
        };
        let flags = bytes(file, start + 6, 2);
        file.put(&crc32(&flags).to_le_bytes(), start + 8);
        end = start;
    }
}

/// The bytes that each block takes by the index.
fn blocks(index: &[u8]) -> Option<Vec<u64>> {
    let mut rest = index.get(1..)?;
    let mut number = || {
        let mut number = 0u64;
        for shift in (0..63).step_by(7) {
            let (byte, left) = rest.split_first()?;
            rest = left;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    };
    let count = number()?.min(16);
    (0..count)
        .map(|_| {
            let unpadded = number()?;
            number()?;
            unpadded
                .checked_next_multiple_of(4)
                .filter(|len| *len < 1 << 32)
        })
        .collect()
}

/// Puts the checksum of the header of the first frame of lz4 right.
fn seal_lz4(file: &mut Pages) {
    let [flags]: [u8; 1] = file.get(4);
    let len = if flags & 8 == 0 { 2 } else { 10 };
    let sum = XxHash32::oneshot(0, &bytes(file, 4, len));
    file.put(&sum.to_le_bytes()[1..2], 4 + len as u64);
}

/// What is unpacked at once is no more than the fuzzer allows.
fn little_memory() -> OpenPolicy {
    OpenPolicy {
        max_decoder_bytes: 16 << 20,
        ..policy()
    }
}

fn open(kind: &str, file: &Arc<dyn Storage>, policy: OpenPolicy) -> Result<Image> {
    let options = OpenOptions {
        policy,
        storages: Some(Arc::new(Shelf(vec![file.clone()]))),
        ..OpenOptions::default()
    };
    let names = format!("driver=raw,file.driver=decompress,file.type={kind}");
    let location = Location::from_image_opts(&format!("{names},file.file.filename=image"))?;
    Image::open(&location, &options)
}

fn contents(image: &Image) -> Result<Vec<u8>> {
    // What the policy lets it hold, of a file that is no longer than this.
    let len = image.len().min(1 << 20);
    let mut bytes = vec![0; len as usize];
    image.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

fuzz_target!(|case: Case| {
    static MADE: [OnceLock<Pages>; PACKERS.len()] = [const { OnceLock::new() }; PACKERS.len()];
    let which = usize::from(case.packer) % PACKERS.len();
    let (kind, pack) = PACKERS[which];
    let mut pages = MADE[which]
        .get_or_init(|| Pages::of(&pack(&disk())))
        .clone();
    for edit in case.edits.iter().take(MOST) {
        edit.apply(&mut pages);
    }
    if case.unsealed % 16 != 1 {
        match kind {
            "xz" => seal_xz(&mut pages),
            "lz4" => seal_lz4(&mut pages),
            _ => {}
        }
    }
    let file: Arc<dyn Storage> = Arc::new(SparseStorage::new("image", pages));
    match case.work % 8 {
        0 => {
            if let Ok(image) = open(kind, &file, little_memory()) {
                look_at(&image);
            }
        }
        1 => inspect_file(file, None),
        _ => {
            let by_index = open(kind, &file, little_memory()).and_then(|image| contents(&image));
            // No room for an index.
            let one_pass = OpenPolicy {
                max_table_bytes: 0,
                ..little_memory()
            };
            let in_one_pass = open(kind, &file, one_pass).and_then(|image| contents(&image));
            if case.edits.is_empty() {
                for read in [by_index, in_one_pass] {
                    let read = read.unwrap_or_else(|error| panic!("{kind} {which}: {error}"));
                    assert!(read == disk(), "{kind} {which}");
                }
            } else if let (Ok(by_index), Ok(in_one_pass)) = (by_index, in_one_pass) {
                assert!(by_index == in_one_pass, "{kind} {which}");
            }
        }
    }
});
