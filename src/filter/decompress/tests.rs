//! The filter over files in memory.

use std::io::Write;

use super::*;
use crate::filter::{ChildImage, FilterChild, NamedNodes};
use crate::object::Objects;
use crate::options::{Options, Values};
use crate::storage::MemoryStorage;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

struct NoNodes;

impl NamedNodes for NoNodes {
    fn image(&self, node_name: &str) -> Result<Option<Arc<dyn ChildImage>>> {
        Err(Error::invalid(format!("No node '{node_name}'")))
    }
}

fn filter(bytes: Vec<u8>, writable: bool, policy: &OpenPolicy) -> Result<Arc<dyn Storage>> {
    let file: Arc<dyn Storage> = Arc::new(MemoryStorage::with_bytes("disk.gz", bytes));
    let values = Values::check(&Options::new(), DRIVER.open_options)?;
    open(FilterContext {
        children: vec![FilterChild {
            name: ChildSpec::FILE.name.to_owned(),
            storage: file,
            image: None,
            may_compress: false,
        }],
        writable,
        options: &values,
        nodes: &NoNodes,
        objects: &Objects::default(),
        policy,
        control: &Arc::default(),
    })
}

fn disk() -> Vec<u8> {
    let mut disk = vec![0; 5 << 20];
    for (n, byte) in disk[1 << 20..][..70_000].iter_mut().enumerate() {
        *byte = n as u8;
    }
    disk[5 << 19] = 7;
    disk
}

#[test]
fn any_range_is_read_in_any_order_and_zeroes_are_holes() {
    let disk = disk();
    let filter = filter(gzip(&disk), false, &OpenPolicy::default()).expect("a filter");
    let mut buf = vec![1; 100_000];
    for offset in [3 << 20, 0, (5 << 19) - 5, 1 << 20, (5 << 20) - 10, 6 << 20] {
        filter.read_at(&mut buf, offset as u64).expect("a read");
        let mut expected = disk.get(offset..).unwrap_or_default().to_vec();
        expected.resize(100_000.max(expected.len()), 0);
        assert!(buf == expected[..100_000], "{offset}");
    }
    assert_eq!(filter.len().expect("a length"), disk.len() as u64);
    let first = filter.extent(0, 5 << 20).expect("an extent");
    assert!(first.zero && first.len == 1 << 20, "{first:?}");
    assert!(filter.read_only() && filter.write_at(&[1], 0).is_err());
}

#[test]
fn it_is_never_open_for_writing_and_keeps_to_the_policy() {
    let error = filter(gzip(b""), true, &OpenPolicy::default()).expect_err("for writing");
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    let error = filter(b"text".to_vec(), false, &OpenPolicy::default()).expect_err("no gzip");
    assert!(error.to_string().starts_with("'disk.gz': "), "{error}");
    let policy = OpenPolicy {
        max_spool_bytes: 100_000,
        ..OpenPolicy::default()
    };
    let filter = filter(gzip(&disk()), false, &policy).expect("a filter");
    let error = filter.len().expect_err("more than the policy allows");
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(error.to_string().contains("(100000 bytes)"), "{error}");
    assert!(!error.hints().is_empty());
    let mut buf = [1; 10];
    filter.read_at(&mut buf, 0).expect("what came before");
    // It stays so, and nothing that comes later is taken for what was refused.
    for _ in 0..2 {
        let error = filter.len().expect_err("more than the policy allows");
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert!(filter.read_at(&mut buf, (1 << 20) + 70_000).is_err());
    }
}

#[test]
fn parts_are_read_in_any_order_by_many_and_zeroes_are_holes() {
    let disk = disk();
    let mut bytes = Vec::new();
    for part in disk.chunks(700_000) {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
        encoder.write_all(part).expect("memory");
        bytes.extend(encoder.finish().expect("memory"));
    }
    // Hardly room for one part beside another, and none for a temporary file.
    let policy = OpenPolicy {
        max_decoder_bytes: 6 << 20,
        max_spool_bytes: 0,
        ..OpenPolicy::default()
    };
    let filter = filter(bytes, false, &policy).expect("a filter");
    assert_eq!(filter.len().expect("a length"), disk.len() as u64);
    let read = |from: usize, step: usize| {
        let mut buf = vec![1; step];
        for offset in (from..6 << 20).step_by(step) {
            filter.read_at(&mut buf, offset as u64).expect("a read");
            let mut expected = disk.get(offset..).unwrap_or_default().to_vec();
            expected.resize(step.max(expected.len()), 0);
            assert!(buf == expected[..step], "{offset}");
        }
    };
    std::thread::scope(|scope| {
        for (from, step) in [
            (0, 100_000),
            (1 << 20, 1_000_000),
            (3 << 20, 70_001),
            (0, 2 << 20),
        ] {
            scope.spawn(move || read(from, step));
        }
    });
    let mut at = 0;
    while at < 5 << 20 {
        let found = filter.extent(at, (5 << 20) - at).expect("an extent");
        let range = &disk[at as usize..][..found.len as usize];
        assert_eq!(found.zero, range.iter().all(|byte| *byte == 0), "{at}");
        at += found.len;
    }
    assert!(filter.extent(5 << 20, 10).expect("an extent").zero);
    assert!(filter.read_only() && filter.write_at(&[1], 0).is_err());
}
