//! Tests of images over a format made for testing, and over raw.

pub(in crate::image) mod fake;

use std::io::{IoSlice, IoSliceMut};
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::*;
use crate::ErrorKind;
use crate::extent::ExtentKind;
use crate::format::Below;
use crate::storage::ZeroFlags;
use crate::storage::memory::MemoryStorage;
use fake::{CLUSTER, Fake, State};

const U: State = State::Unallocated;
const Z: State = State::Zero;
const D: State = State::Data;
const E: State = State::Encoded;

fn chain() -> Image {
    chain_of(|layer| layer)
}

fn chain_of(change: impl Fn(Fake) -> Fake) -> Image {
    // The lowest layer is shorter than the middle one and ends inside a cluster.
    let base = Fake::new(2 * CLUSTER + 512, &[D, U, D], 0x10);
    let base = change(base).image(None);
    let middle = change(Fake::new(4 * CLUSTER, &[U, U, U, E], 0x20)).image(Some(base.into()));
    change(Fake::new(6 * CLUSTER, &[U, Z, U, U, U, D], 0x40)).image(Some(middle.into()))
}

/// The expected contents of the chain, by construction.
fn expected() -> Vec<u8> {
    let mut bytes = vec![0; 6 * CLUSTER as usize];
    let c = CLUSTER as usize;
    bytes[..c].fill(0x10);
    bytes[2 * c..2 * c + 512].fill(0x12);
    bytes[3 * c..4 * c].fill(0x23);
    bytes[5 * c..].fill(0x45);
    bytes
}

#[test]
fn reads_go_through_the_chain_and_past_short_files() {
    let image = chain();
    let mut bytes = vec![0xff; image.len() as usize];
    image.read_at(&mut bytes, 0).unwrap();
    assert!(bytes == expected());
    let mut part = vec![0xff; 5000];
    for offset in [0, 1, 4095, 8192, 8703, 8704, 12000, 19576] {
        image.read_at(&mut part, offset).unwrap();
        assert!(part == expected()[offset as usize..][..5000], "{offset}");
    }
    image.read_at(&mut [], image.len()).unwrap();
    for (len, offset) in [(1, image.len()), (2, image.len() - 1), (1, u64::MAX)] {
        let error = image.read_at(&mut vec![0; len], offset).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn vectored_reads_equal_plain_ones() {
    let image = chain();
    for (offset, cuts) in [
        (0u64, [100, 4000, 9000]),
        (20480, [1, 2, 3]),
        (8190, [1, 0, 600]),
    ] {
        let mut bufs: Vec<Vec<u8>> = cuts.iter().map(|n| vec![0xee; *n]).collect();
        let mut slices: Vec<_> = bufs.iter_mut().map(|b| IoSliceMut::new(b)).collect();
        image.read_vectored_at(&mut slices, offset).unwrap();
        let all = bufs.concat();
        assert!(all == expected()[offset as usize..][..all.len()]);
    }
}

#[test]
fn ranges_that_are_read_together_equal_those_read_alone() {
    for image in [chain(), chain_of(Fake::on_many)] {
        let mut whole = vec![0xff; image.len() as usize];
        image.read_at(&mut whole, 0).unwrap();
        assert!(whole == expected());
        let places = [
            (0, 5000),
            (8190, 20),
            (12000, 9000),
            (20480, 4096),
            (4000, 0),
        ];
        let mut bufs: Vec<_> = places.map(|(_, len)| vec![0xee; len]).into();
        let mut ranges: Vec<_> = places
            .iter()
            .zip(&mut bufs)
            .map(|(at, buf)| (at.0, &mut **buf))
            .collect();
        image.read_many_at(&mut ranges).unwrap();
        for ((offset, len), buf) in places.iter().zip(&bufs) {
            assert!(buf == &expected()[*offset as usize..][..*len], "{offset}");
        }
        let (mut inside, mut outside) = ([0; 4], [0; 4]);
        let ranges = &mut [(0, &mut inside[..]), (image.len() - 3, &mut outside[..])];
        let error = image.read_many_at(ranges).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn map_names_the_layer_that_decides() {
    let image = chain();
    let mut runs = Vec::new();
    let mut at = 0;
    while at < image.len() {
        let run = image.map(at, image.len() - at).unwrap();
        let kind = match run.extent.kind {
            ExtentKind::Data { .. } => 'D',
            ExtentKind::Zero { .. } => 'Z',
            ExtentKind::Unallocated { .. } => 'U',
            ExtentKind::Encoded { .. } => 'E',
        };
        runs.push((at, run.extent.len, run.depth, kind));
        at += run.extent.len;
    }
    assert_eq!(
        runs,
        [
            (0, 4096, 2, 'D'),
            (4096, 4096, 0, 'Z'),
            (8192, 512, 2, 'D'),
            (8704, 3584, 1, 'U'),
            (12288, 4096, 1, 'E'),
            (16384, 4096, 0, 'U'),
            (20480, 4096, 0, 'D'),
        ]
    );
    assert!(image.map(0, 0).is_err());
    assert!(image.map(image.len(), 1).is_err());
    assert!(image.is_known_zero(4096, 4096).unwrap());
    assert!(image.is_known_zero(8704, 3584).unwrap());
    assert!(!image.is_known_zero(8703, 2).unwrap());
    assert!(image.is_known_zero(16384, 4096).unwrap());
}

#[test]
fn going_through_a_chain_takes_time_in_proportion_to_its_length() {
    const CLUSTERS: u64 = 4096;
    let looked_up = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let layer = |states: &[State], below: Option<Image>| {
        let mut fake = Fake::new(CLUSTERS * CLUSTER, states, 1);
        fake.looked_up = looked_up.clone();
        fake.image(below.map(Arc::new))
    };
    let mixed: Vec<State> = (0..CLUSTERS).map(|n| [D, Z][n as usize % 2]).collect();
    let mut image = layer(&mixed, None);
    for _ in 0..5 {
        image = layer(&vec![U; CLUSTERS as usize], Some(image));
    }
    let mut at = 0;
    while at < image.len() {
        let run = image.map(at, image.len() - at).unwrap();
        assert_eq!((run.extent.len, run.depth), (CLUSTER, 5));
        at += run.extent.len;
    }
    let most = 6 * image.len() * (super::map::FIRST_QUESTION / CLUSTER);
    assert!(looked_up.load(Ordering::Relaxed) <= most);

    // A run that is long in every layer is returned as one.
    let mut image = layer(&vec![Z; CLUSTERS as usize], None);
    for _ in 0..5 {
        image = layer(&vec![U; CLUSTERS as usize], Some(image));
    }
    looked_up.store(0, Ordering::Relaxed);
    let run = image.map(512, image.len() - 512).unwrap();
    assert_eq!((run.extent.len, run.depth), (image.len() - 512, 5));
    assert!(looked_up.load(Ordering::Relaxed) <= 6 * image.len());
    // What none of the upper layers contains is unallocated in the last of them.
    let run = image.map_upper(512, image.len() - 512, 3).unwrap();
    assert_eq!((run.extent.len, run.depth), (image.len() - 512, 2));
    assert!(matches!(run.extent.kind, ExtentKind::Unallocated { .. }));
}

#[test]
fn writes_copy_what_lies_below() {
    let image = chain();
    let mut model = expected();
    for (offset, len, byte) in [(10, 20, 1u8), (8000, 9000, 2), (24570, 6, 3), (4096, 1, 4)] {
        image.write_at(&vec![byte; len], offset).unwrap();
        model[offset as usize..][..len].fill(byte);
    }
    image.write_zeroes(100, 5000, ZeroFlags::MAY_UNMAP).unwrap();
    model[100..5100].fill(0);
    let bufs = [
        IoSlice::new(&[7; 5]),
        IoSlice::new(&[]),
        IoSlice::new(&[8; 4097]),
    ];
    image.write_vectored_at(&bufs, 12000).unwrap();
    model[12000..12005].fill(7);
    model[12005..16102].fill(8);
    image.flush().unwrap();
    let mut bytes = vec![0; model.len()];
    image.read_at(&mut bytes, 0).unwrap();
    assert!(bytes == model);
    // The layers below are unchanged.
    let base = image.backing().unwrap().backing().unwrap();
    let mut bytes = vec![0; 512];
    base.read_at(&mut bytes, 8192).unwrap();
    assert_eq!(bytes, [0x12; 512]);
    assert!(image.write_at(&[1], image.len()).is_err());
}

#[test]
fn below_knows_zeroes_without_reading() {
    let image = chain();
    assert!(!image.is_zero_below(0, 1).unwrap());
    assert!(image.is_zero_below(CLUSTER, CLUSTER).unwrap());
    assert!(image.is_zero_below(4 * CLUSTER, 2 * CLUSTER).unwrap());
    let mut bytes = vec![9; 1024];
    image.read_below(&mut bytes, 4 * CLUSTER - 512).unwrap();
    assert!(bytes[..512] == [0x23; 512] && bytes[512..] == [0; 512]);
}

#[test]
fn a_closed_backing_file_is_never_taken_for_zeroes() {
    let mut image = Fake::new(2 * CLUSTER, &[D, U], 1).image(None);
    image.backing = Backing::Closed;
    let mut bytes = [0; 16];
    image.read_at(&mut bytes, 0).unwrap();
    let error = image.read_at(&mut bytes, CLUSTER).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(image.write_at(&[1], CLUSTER).is_err());
    assert!(!image.is_known_zero(CLUSTER, 16).unwrap());
    assert!(!image.is_zero_below(CLUSTER, 16).unwrap());
}

#[test]
fn a_read_only_image_refuses_every_change() {
    let mut image = chain();
    image.writable = false;
    let errors = [
        image.write_at(&[1], 0).unwrap_err(),
        image.write_zeroes(0, 1, ZeroFlags::empty()).unwrap_err(),
        image.discard(0, CLUSTER).unwrap_err(),
        image
            .write_vectored_at(&[IoSlice::new(&[1])], 0)
            .unwrap_err(),
    ];
    assert!(errors.iter().all(|e| e.kind() == ErrorKind::ReadOnly));
    image.flush().unwrap();
}

#[test]
fn a_format_that_only_reads_is_never_opened_for_writing() {
    let reader = || Fake::new(2 * CLUSTER, &[D, E], 0x10).read_only();
    let error = write::check_writer(&reader()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    assert_eq!(error.message(), "Image is read-only");
    write::check_writer(&Fake::new(CLUSTER, &[D], 0)).unwrap();

    let mut image = reader().image(None);
    image.writable = false;
    let mut bytes = [0; 2];
    image.read_at(&mut bytes, CLUSTER - 1).unwrap();
    assert_eq!(bytes, [0x10, 0x11]);
    assert!(image.compressor().is_none());
    image.flush().unwrap();
    // Even if it is wrongly marked as writable, nothing is lost silently.
    image.writable = true;
    let refused = [
        image.write_at(&[1], 0),
        image.write_zeroes(0, 1, ZeroFlags::empty()),
        image.discard(0, CLUSTER),
        image.resize(0, crate::storage::Preallocation::Off),
        image.flush(),
    ];
    for result in refused {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ReadOnly);
    }
    image.writable = false;
}

#[test]
fn close_and_drop_end_a_format_once() {
    let fake = Fake::new(CLUSTER, &[D], 1);
    let closes = fake.closes.clone();
    fake.image(None).close().unwrap();
    assert_eq!(closes.load(Ordering::Relaxed), 1);
    let fake = Fake::new(CLUSTER, &[D], 1);
    let closes = fake.closes.clone();
    drop(fake.image(None));
    assert_eq!(closes.load(Ordering::Relaxed), 1);
}

#[test]
fn an_image_serves_as_storage_and_ends_in_zeroes() {
    let storage = ImageStorage::new(chain());
    let mut bytes = vec![1; 8192];
    storage.read_at(&mut bytes, 5 * CLUSTER).unwrap();
    assert!(bytes[..4096] == [0x45; 4096] && bytes[4096..] == [0; 4096]);
    assert!(storage.extent(CLUSTER, 1).unwrap().zero);
    assert!(storage.extent(1 << 40, 5).unwrap().zero);
    storage.write_at(&[1, 2, 3], 0).unwrap();
    assert!(storage.write_at(&[1], 6 * CLUSTER).is_err());
    storage.discard(5 * CLUSTER, 1 << 40).unwrap();
}

#[test]
fn threads_read_and_write_one_image_with_units() {
    let image = Fake::new(8 * CLUSTER, &[U; 8], 0)
        .with_unit(512)
        .image(None);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let image = &image;
            // All threads share every unit; none may undo another's bytes.
            scope.spawn(move || {
                for unit in 0..64 {
                    let at = unit * 512 + thread * 128;
                    image.write_at(&[thread as u8 + 1; 128], at).unwrap();
                    let mut back = [0; 128];
                    image.read_at(&mut back, at).unwrap();
                    assert_eq!(back, [thread as u8 + 1; 128]);
                }
            });
        }
    });
    let mut bytes = vec![0; 8 * CLUSTER as usize];
    image.read_at(&mut bytes, 0).unwrap();
    for (i, byte) in bytes.iter().enumerate() {
        assert_eq!(u64::from(*byte), i as u64 % 512 / 128 + 1, "{i}");
    }
}

#[test]
fn raw_in_memory_opens_under_the_policy() {
    let storage = || Arc::new(MemoryStorage::with_bytes("mem", vec![7; 1024]));
    let image = Image::open_storage(storage(), &OpenOptions::default()).unwrap();
    assert_eq!(
        (image.len(), image.driver().name, image.filename()),
        (1024, "raw", BStr::new("mem"))
    );
    let writable = OpenOptions {
        writable: true,
        ..OpenOptions::default()
    };
    let error = Image::open_storage(storage(), &writable).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let named = OpenOptions {
        format: Some("raw".into()),
        ..writable.clone()
    };
    let image = Image::open_storage(storage(), &named).unwrap();
    image.write_at(b"QFI\xfb\0\0\0\x03", 0).unwrap();
    assert!(image.warnings().is_empty());
    let guessed = OpenOptions {
        policy: OpenPolicy::permissive(),
        ..writable
    };
    let image = Image::open_storage(storage(), &guessed).unwrap();
    assert!(image.warnings()[0].starts_with(
        "WARNING: Image format was not specified for 'mem' and probing guessed raw.\n         Auto"
    ));
    let error = image.write_at(b"QFI\xfb\0\0\0\x03", 0).unwrap_err();
    assert_eq!(error.errno(), libc::EPERM);
    for policy in [
        OpenPolicy {
            formats: vec!["qcow2".into()],
            ..OpenPolicy::default()
        },
        OpenPolicy {
            max_virtual_size: 512,
            ..OpenPolicy::default()
        },
    ] {
        let options = OpenOptions {
            policy,
            ..OpenOptions::default()
        };
        let error = Image::open_storage(storage(), &options).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Denied | ErrorKind::Limit));
    }
}

#[test]
fn images_cross_threads() {
    fn check<T: Send + Sync>() {}
    check::<Image>();
    check::<ImageStorage>();
}

proptest! {
    #[test]
    fn any_write_equals_the_model(
        top in proptest::collection::vec(0..4usize, 5),
        base in proptest::collection::vec(0..4usize, 4),
        writes in proptest::collection::vec((0..5 * CLUSTER, 0..9000u64, any::<u8>()), 1..12),
        unit in prop_oneof![Just(1u32), Just(512)],
    ) {
        let states = |list: &[usize]| -> Vec<State> { list.iter().map(|i| [U, Z, D, E][*i]).collect() };
        let base = Fake::new(4 * CLUSTER - 100, &states(&base), 0x60).image(None);
        let image = Fake::new(5 * CLUSTER - 512, &states(&top), 0x80).with_unit(unit)
            .image(Some(base.into()));
        let mut model = vec![0; image.len() as usize];
        image.read_at(&mut model, 0).unwrap();
        for (offset, len, byte) in writes {
            let offset = offset.min(image.len());
            let len = len.min(image.len() - offset);
            if byte == 0 {
                image.write_zeroes(offset, len, ZeroFlags::empty()).unwrap();
            } else {
                image.write_at(&vec![byte; len as usize], offset).unwrap();
            }
            model[offset as usize..(offset + len) as usize].fill(byte);
        }
        let mut bytes = vec![0xaa; model.len()];
        image.read_at(&mut bytes, 0).unwrap();
        prop_assert!(bytes == model);
    }
}
