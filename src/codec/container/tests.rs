//! Compressed files of every kind, complete, truncated and damaged.

use std::io::{Cursor, Read, Write};

use liblzma::stream::{Check, Stream};
use lz4_flex::frame::{BlockMode, BlockSize, FrameInfo};
use proptest::prelude::*;

use super::*;
use crate::error::{ErrorKind, Result};
use crate::policy::OpenPolicy;

fn packed(kind: Container, bytes: &[u8]) -> Vec<u8> {
    match kind {
        Container::Xz => packers::xz(Stream::new_easy_encoder(1, Check::Crc64), bytes),
        Container::Gzip => packers::gzip(bytes),
        Container::Bzip2 => packers::bzip2(bytes),
        Container::Zstd => packers::zstd(bytes, false),
        Container::Lz4 => packers::lz4(FrameInfo::new().content_checksum(true), bytes),
    }
}

fn unpacked_within(bytes: &[u8], kind: Option<Container>, policy: &OpenPolicy) -> Result<Vec<u8>> {
    let mut cursor = Cursor::new(bytes.to_vec());
    let source: Source = Box::new(move |buf| Ok(cursor.read(buf).expect("memory")));
    let mut unpacker = Unpacker::new(source, kind, policy)?;
    let mut all = Vec::new();
    let mut buf = [0; 5000];
    loop {
        let len = unpacker.read(&mut buf)?;
        all.extend_from_slice(&buf[..len]);
        if len < buf.len() {
            return Ok(all);
        }
    }
}

fn unpacked(bytes: &[u8], kind: Option<Container>) -> Result<Vec<u8>> {
    unpacked_within(bytes, kind, &OpenPolicy::default())
}

fn text(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| b"the quick brown fox "[(i * i / 7) % 20])
        .collect()
}

#[test]
fn every_kind_is_recognised_and_unpacked() {
    for kind in Container::ALL {
        for len in [0, 1, 4999, 5000, 300_000] {
            let bytes = packed(kind, &text(len));
            assert_eq!(Container::recognise(&bytes), Some(kind), "{len}");
            assert!(unpacked(&bytes, None).expect("a whole file") == text(len));
            assert!(unpacked(&bytes, Some(kind)).expect("a whole file") == text(len));
        }
        assert_eq!(Container::by_name(kind.name()), Some(kind));
    }
    assert_eq!(Container::recognise(b""), None);
    assert_eq!(Container::recognise(b"BZh9 and text"), None);
    let error = unpacked(b"no such thing", None).expect_err("text");
    assert!(error.to_string().contains("xz"), "{error}");
}

#[test]
fn members_that_follow_each_other_are_one_file() {
    for kind in Container::ALL {
        let mut bytes = packed(kind, &text(6000));
        bytes.extend(packed(kind, b"more"));
        let whole = unpacked(&bytes, None).expect("two members");
        assert!(whole == [text(6000), b"more".to_vec()].concat(), "{kind:?}");
    }
}

#[test]
fn what_stands_behind_is_taken_as_by_the_tools() {
    for kind in Container::ALL {
        let mut bytes = packed(kind, b"bytes");
        bytes.extend_from_slice(&[0; 16]);
        let padded = unpacked(&bytes, None);
        bytes.extend_from_slice(b"garbage");
        let followed = unpacked(&bytes, None);
        match kind {
            Container::Gzip | Container::Bzip2 => {
                assert_eq!(followed.expect("a member"), b"bytes");
                assert_eq!(padded.expect("a member"), b"bytes");
            }
            Container::Xz => assert_eq!(padded.expect("a padded stream"), b"bytes"),
            Container::Zstd | Container::Lz4 => assert!(padded.is_err()),
        }
        if !matches!(kind, Container::Gzip | Container::Bzip2) {
            let error = unpacked(&bytes, None).expect_err("garbage");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        }
    }
}

#[test]
fn what_says_its_length_is_believed_without_unpacking() {
    let len_of = |kind, bytes: &[u8]| {
        known_len(kind, &read_from(bytes), bytes.len() as u64, 1 << 20).expect("memory")
    };
    let mut bytes = packed(Container::Xz, &text(300_000));
    assert_eq!(len_of(Container::Xz, &bytes), Some(300_000));
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend(packed(Container::Xz, b"more"));
    assert_eq!(len_of(Container::Xz, &bytes), Some(300_004));
    let mut bytes = Vec::new();
    for len in [100, 300, 300_000] {
        bytes.extend(zstd::bulk::compress(&text(len), 1).expect("memory"));
    }
    assert_eq!(len_of(Container::Zstd, &bytes), Some(300_400));
    // What is written as a stream does not record its length.
    assert_eq!(
        len_of(Container::Zstd, &packed(Container::Zstd, b"x")),
        None
    );
    for kind in [Container::Xz, Container::Zstd] {
        let bytes = zstd::bulk::compress(&text(5000), 1).expect("memory");
        let bytes = if kind == Container::Xz {
            packed(kind, &text(5000))
        } else {
            bytes
        };
        for len in 0..bytes.len() {
            let found = len_of(kind, &bytes[..len]);
            assert!(found.is_none() || len == 0, "{kind:?} {len}");
        }
    }
}

#[test]
fn frames_that_say_nothing_are_passed_over() {
    for kind in [Container::Zstd, Container::Lz4] {
        let mut bytes = [
            &0x184d_2a53_u32.to_le_bytes()[..],
            &3_u32.to_le_bytes(),
            b"abc",
        ]
        .concat();
        bytes.extend(packed(kind, b"bytes"));
        assert_eq!(Container::recognise(&bytes), Some(kind));
        assert_eq!(unpacked(&bytes, None).expect("a frame"), b"bytes");
    }
}

#[test]
fn what_is_cut_anywhere_is_damaged() {
    for kind in Container::ALL {
        let bytes = packed(kind, &text(3000));
        for len in 0..bytes.len() {
            let error = unpacked(&bytes[..len], Some(kind));
            let error = error.expect_err("a part of a file");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{kind:?} {len}: {error}");
            assert!(
                error.offset().is_some_and(|at| at <= len as u64),
                "{error:?}"
            );
        }
    }
}

#[test]
fn a_changed_byte_is_noticed() {
    for kind in Container::ALL {
        let bytes = packed(kind, &text(3000));
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            // Some bits do not affect the data: the time of gzip.
            if let Ok(unpacked) = unpacked(&bytes, Some(kind)) {
                assert!(
                    unpacked == text(3000) || unpacked.is_empty(),
                    "{kind:?} {at}"
                );
            }
        }
    }
}

#[test]
fn the_policy_bounds_memory_and_growth() {
    let policy = OpenPolicy {
        max_decoder_bytes: 1 << 20,
        ..OpenPolicy::default()
    };
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 9);
    encoder.write_all(b"bytes").expect("memory");
    let xz = encoder.finish().expect("memory");
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("memory");
    encoder.window_log(24).expect("an option");
    // More than is unpacked at once, without a window.
    encoder.write_all(&[0; 300_000]).expect("memory");
    let zstd = encoder.finish().expect("memory");
    for bytes in [xz, zstd] {
        let error = unpacked_within(&bytes, None, &policy).expect_err("a large window");
        assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
        assert!(unpacked(&bytes, None).is_ok());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..20_000), zeroes in 0usize..50_000) {
        let bytes = [bytes, vec![0; zeroes]].concat();
        for kind in Container::ALL {
            prop_assert!(unpacked(&packed(kind, &bytes), None).expect("a whole file") == bytes);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for kind in Container::ALL {
            let _ = unpacked(&bytes, Some(kind));
            let mut known = packed(kind, b"");
            known.truncate(12);
            known.extend_from_slice(&bytes);
            let _ = unpacked(&known, Some(kind));
        }
    }
}

fn read_from(bytes: &[u8]) -> impl Fn(&mut [u8], u64) -> Result<()> + '_ {
    |buf, at| {
        let from = bytes.get(at as usize..).unwrap_or_default();
        let len = from.len().min(buf.len());
        buf.fill(0);
        buf[..len].copy_from_slice(&from[..len]);
        Ok(())
    }
}

fn index_within(bytes: &[u8], policy: &OpenPolicy) -> Result<Option<Index>> {
    let kind = Container::recognise(bytes).expect("a kind");
    Index::of(kind, &read_from(bytes), bytes.len() as u64, policy)
}

/// The contents of the parts, each unpacked separately, the last one first.
fn by_parts(bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    let Some(index) = index_within(bytes, &OpenPolicy::default())? else {
        return Ok(None);
    };
    let mut all = vec![0; index.plain_len() as usize];
    let mut out = crate::memory::IoBuf::new();
    for part in (0..index.parts()).rev() {
        index.unpack(part, &read_from(bytes), &mut out)?;
        let (at, len) = index.range_of(part).expect("a part");
        assert_eq!((out.len() as u64, index.part_at(at)), (len, Some(part)));
        assert_eq!(index.part_at(at + len - 1), Some(part));
        all[at as usize..][..out.len()].copy_from_slice(&out);
    }
    assert_eq!(index.part_at(index.plain_len()), None);
    Ok(Some(all))
}

/// Blocks, and an empty one at the end.
fn bgzf(bytes: &[u8]) -> Vec<u8> {
    let blocks = bytes.chunks(0xff00).chain([&[][..]]);
    blocks.flat_map(packers::bgzf_block).collect()
}

/// Makes one block of two: the header of the first gives the length of both.
fn joined(blocks: &[&[u8]]) -> Vec<u8> {
    let mut all = blocks.concat();
    let len = (all.len() as u16 - 1).to_le_bytes();
    all[16..18].copy_from_slice(&len);
    all
}

#[test]
fn a_block_of_gzip_that_says_too_long_a_length_hides_nothing() {
    let block = packers::bgzf_block;
    let (one, other, empty) = (block(b"one text"), block(b"another!"), bgzf(b""));
    let cases: [&[&[u8]]; 6] = [
        &[&one, &one],
        &[&one, &other],
        &[&one, b"junk"],
        &[&one, &[0; 8]],
        &[&empty, &empty[..28]],
        &[&empty[..28], &[0; 9]],
    ];
    for blocks in cases {
        let bytes = [&joined(blocks)[..], &other, &empty].concat();
        let mut tool = flate2::bufread::MultiGzDecoder::new(&bytes[..]);
        let mut wanted = Vec::new();
        // Data that is not a member is ignored, along with everything after it.
        let _ = tool.read_to_end(&mut wanted);
        let read = unpacked(&bytes, None).expect("what its tool reads");
        assert!(read == wanted, "{blocks:?}: {read:?}");
        match by_parts(&bytes) {
            Ok(Some(read)) => assert!(read == wanted, "{blocks:?}: {read:?}"),
            Ok(None) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}"),
        }
    }
    // The bytes of the trailer also occur in the data.
    for len in [1, 300] {
        let stored = flate2::Compression::none();
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), stored);
        encoder.write_all(&vec![0; len]).expect("memory");
        let mut bytes = bgzf(b"");
        bytes.truncate(18);
        bytes.extend(encoder.finish().expect("memory"));
        bytes.extend(libdeflater::crc32(&vec![0; len]).to_le_bytes());
        bytes.extend((len as u32).to_le_bytes());
        let bytes = joined(&[&bytes]);
        assert!(
            by_parts(&bytes)
                .expect("a block")
                .is_some_and(|read| read == vec![0; len])
        );
    }
}

fn lz4_frame(bytes: &[u8]) -> Vec<u8> {
    let info = FrameInfo::new().content_size(Some(bytes.len() as u64));
    packers::lz4(info.content_checksum(true), bytes)
}

/// Files that record which part of them holds what, each with three parts of this length.
fn with_parts(len: usize) -> Vec<(&'static str, Vec<u8>)> {
    let text = text(3 * len);
    let parts: Vec<&[u8]> = text.chunks(len).collect();
    let joined =
        |pack: &dyn Fn(&[u8]) -> Vec<u8>| parts.iter().flat_map(|part| pack(part)).collect();
    let mut padded: Vec<u8> = joined(&|part| packed(Container::Xz, part));
    padded.extend([0; 8]);
    vec![
        ("xz", padded),
        ("zstd", joined(&|part| packers::zstd(part, true))),
        (
            "seekable zstd",
            packers::seekable_zstd(parts.iter().copied()),
        ),
        ("bgzf", bgzf(&text)),
        ("lz4", joined(&lz4_frame)),
    ]
}

#[test]
fn parts_by_themselves_hold_what_the_whole_holds() {
    for len in [1, 700, 900_000] {
        for (name, bytes) in with_parts(len) {
            let all = by_parts(&bytes).expect("whole parts");
            assert!(all.expect("an index") == text(3 * len), "{name} {len}");
            assert!(unpacked(&bytes, None).expect("a whole file") == text(3 * len));
            let kind = Container::recognise(&bytes).expect("a kind");
            let known = known_len(kind, &read_from(&bytes), bytes.len() as u64, 1 << 20);
            assert_eq!(known.expect("memory"), Some(3 * len as u64), "{name}");
        }
    }
    // Garbage after gzip members is ignored; after others it is not.
    for (name, mut bytes) in with_parts(700) {
        bytes.extend(b"garbage");
        let all = by_parts(&bytes).expect("whole parts");
        assert_eq!(all.is_some(), name == "bgzf", "{name}");
    }
    // Files that record nothing have no index.
    for kind in [
        Container::Gzip,
        Container::Bzip2,
        Container::Zstd,
        Container::Lz4,
    ] {
        assert!(
            by_parts(&packed(kind, &text(700)))
                .expect("memory")
                .is_none()
        );
    }
}

#[test]
fn an_index_keeps_to_the_policy() {
    let small = OpenPolicy {
        max_decoder_bytes: 1 << 20,
        ..OpenPolicy::default()
    };
    let no_table = OpenPolicy {
        max_table_bytes: 64,
        ..OpenPolicy::default()
    };
    for (name, bytes) in with_parts(900_000) {
        let is_bgzf = name == "bgzf";
        let found = index_within(&bytes, &small).expect("memory");
        assert_eq!(found.is_some(), is_bgzf, "{name}");
        assert!(
            index_within(&bytes, &no_table).expect("memory").is_none(),
            "{name}"
        );
    }
    // A table that claims more than there is.
    let mut bytes = packers::seekable_zstd([&text(5000)[..], &text(5000)]);
    let at = bytes.len() - 9;
    for count in [0, 1, 3, u32::MAX] {
        bytes[at..at + 4].copy_from_slice(&count.to_le_bytes());
        assert!(by_parts(&bytes).expect("memory").is_none(), "{count}");
    }
    let mut bytes = packers::seekable_zstd([&text(5000)[..], &text(5000)]);
    let at = bytes.len() - 9 - 12;
    for (plain, wrong) in [(0u32, false), (4999, true), (5001, true), (u32::MAX, false)] {
        bytes[at..at + 4].copy_from_slice(&plain.to_le_bytes());
        match by_parts(&bytes) {
            Ok(None) => assert!(!wrong, "{plain}"),
            Ok(Some(_)) => panic!("{plain} was believed"),
            Err(error) => assert!(wrong && error.kind() == ErrorKind::Corrupt, "{error}"),
        }
    }
}

/// Files of many blocks and members that do not record the lengths of their contents.
fn with_blocks(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut frames = Vec::new();
    for part in bytes.chunks(900_000) {
        let frame = packers::zstd(part, false);
        frames.extend(0x184d_2a50_u32.to_le_bytes());
        frames.extend(4_u32.to_le_bytes());
        frames.extend((frame.len() as u32).to_le_bytes());
        frames.extend(frame);
    }
    let lz4 = |sums: bool| {
        let info = FrameInfo::new()
            .block_size(BlockSize::Max64KB)
            .block_mode(BlockMode::Independent)
            .block_checksums(sums)
            .content_checksum(!sums);
        packers::lz4(info, bytes)
    };
    vec![
        ("zstd", frames),
        ("lz4", [lz4(true), lz4(false)].concat()),
        ("bzip2", packed(Container::Bzip2, bytes).repeat(2)),
    ]
}

/// Incompressible, well compressible, and a long run of one byte.
fn mixed() -> Vec<u8> {
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mut bytes: Vec<u8> = (0..400_000).map(|_| noise()).collect();
    bytes.extend(text(700_000));
    bytes.resize(8 << 20, 0);
    bytes.extend(text(300_000));
    bytes
}

#[test]
fn blocks_that_many_threads_unpack_keep_their_order() {
    let bytes = mixed();
    let little = OpenPolicy {
        max_decoder_bytes: 8 << 20,
        ..OpenPolicy::default()
    };
    for (name, packed) in with_blocks(&bytes) {
        let times = if name == "zstd" { 1 } else { 2 };
        for policy in [&OpenPolicy::default(), &little] {
            let whole = unpacked_within(&packed, None, policy).expect("a whole file");
            assert!(whole == bytes.repeat(times), "{name}");
        }
        for cut in [packed.len() - 1, packed.len() - 9, packed.len() / 3] {
            let error = unpacked(&packed[..cut], None).expect_err("a part of a file");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name} {cut}: {error}");
            assert!(
                error.offset().is_some_and(|at| at <= cut as u64),
                "{error:?}"
            );
        }
        for at in (50..packed.len()).step_by(packed.len() / 4) {
            let mut packed = packed.clone();
            packed[at] ^= 4;
            match unpacked(&packed, None) {
                Ok(whole) => assert!(whole == bytes.repeat(times), "{name} {at}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damaged_parts_never_hold_other_bytes_than_the_whole(
        which in 0usize..5,
        at in any::<proptest::sample::Index>(),
        with in 1u8..,
        cut in any::<proptest::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let (_, mut bytes) = with_parts(700).swap_remove(which);
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let (Some(_), Ok(whole)) = (Container::recognise(&bytes), unpacked(&bytes, None))
            && let Ok(Some(parts)) = by_parts(&bytes)
        {
            prop_assert!(parts == whole);
        }
    }
}
