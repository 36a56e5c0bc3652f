use std::io::IoSliceMut;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::image::Image;
use crate::job::JobControl;
use crate::storage::forward::forward;
use crate::storage::testing::GatheringStorage;
use crate::storage::{CacheMode, MemoryStorage, Storage, ZeroFlags};
use crate::{ErrorKind, OpenOptions, OpenPolicy};

fn raw(bytes: Vec<u8>) -> Image {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::with_bytes("memory", bytes));
    let options = OpenOptions {
        format: Some("raw".into()),
        writable: true,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    Image::open_storage(storage, &options).unwrap()
}

fn queue(image: Image) -> Queue {
    Queue::new(Arc::new(image), QueueOptions::default()).unwrap()
}

fn readable(queue: &Queue) -> bool {
    queue.event.wait(Some(Instant::now())).unwrap()
}

fn read(len: usize, offset: u64) -> Request {
    Request::Read {
        buffer: vec![0xee; len].into(),
        offset,
    }
}

#[test]
fn as_many_requests_run_as_the_storage_likes() {
    let memory = Arc::new(MemoryStorage::with_bytes("memory", vec![7; 64 << 10]));
    let storage = Arc::new(GatheringStorage::new(memory, 24));
    let options = OpenOptions {
        format: Some("raw".into()),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let image = Image::open_storage(storage.clone(), &options).unwrap();
    storage.arm();
    let mut queue = queue(image);
    for n in 0..64 {
        queue.submit(n, read(512, n * 512), true);
    }
    assert_eq!(queue.wait(64, None).unwrap(), 64);
    while let Some(done) = queue.pop() {
        assert_eq!(done.result.unwrap(), 512);
    }
    assert_eq!(storage.most(), 24);
}

/// A server that does not reply: its reads only end with the work.
#[derive(Debug)]
struct Silent {
    inner: MemoryStorage,
    asked: Event,
}

impl Storage for Silent {
    forward!(
        inner: name, driver, identity, read_only, write_at, write_zeroes, discard, len, set_len, sync, extent,
        allocated_size, limits, lock, host
    );

    fn read_at(&self, _: &mut [u8], _: u64) -> Result<()> {
        self.asked.signal();
        JobControl::default().sleep(Duration::from_secs(60))
    }

    fn read_vectored_at(&self, _: &mut [IoSliceMut<'_>], _: u64) -> Result<()> {
        self.read_at(&mut [], 0)
    }

    fn try_read(&self, _: &mut [IoSliceMut<'_>], _: u64) -> Result<bool> {
        Ok(false)
    }
}

#[test]
fn requests_that_wait_for_a_server_end_with_the_work_of_who_submits_them() {
    let storage = Arc::new(Silent {
        inner: MemoryStorage::with_bytes("memory", vec![0; 4096]),
        asked: Event::new().unwrap(),
    });
    let options = OpenOptions {
        format: Some("raw".into()),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let image = Image::open_storage(storage.clone(), &options).unwrap();
    let mut queue = queue(image);
    let job = Arc::new(JobControl::default());
    let working = job.work_here();
    queue.submit(1, read(512, 0), false);
    drop(working);
    assert!(storage.asked.wait(None).unwrap());
    job.cancel();
    assert_eq!(queue.wait(1, None).unwrap(), 1);
    let error = queue.pop().unwrap().result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[test]
fn a_queue_may_move_to_another_thread() {
    fn sent<T: Send>() {}
    sent::<Queue>();
}

#[test]
fn what_is_in_memory_completes_at_once_and_shows() {
    let mut queue = queue(raw((0..4096u32).map(|i| i as u8).collect()));
    assert!(!readable(&queue));
    queue.submit(7, read(3, 300), false);
    queue.submit(8, read(0, 4096), false);
    assert!(queue.pool.is_none() && readable(&queue));
    assert_eq!(queue.wait(0, None).unwrap(), 2);
    let done = queue.pop().unwrap();
    assert_eq!((done.token, done.result.unwrap()), (7, 3));
    assert_eq!(done.buffer.unwrap().into_bytes().unwrap(), [44, 45, 46]);
    assert!(readable(&queue));
    assert_eq!(queue.pop().unwrap().result.unwrap(), 0);
    assert!(!readable(&queue) && queue.pop().is_none());
    let write = Request::Write {
        buffer: vec![vec![1], vec![2, 3]].into(),
        offset: 300,
        durable: false,
    };
    queue.submit(9, write, false);
    queue.submit(10, read(3, 300), false);
    assert!(queue.pool.is_none());
    assert_eq!(queue.pop().unwrap().result.unwrap(), 3);
    let bytes = queue.pop().unwrap().buffer.unwrap().into_bytes();
    assert_eq!(bytes.unwrap(), [1, 2, 3]);
}

#[test]
fn errors_are_completions() {
    let mut queue = queue(raw(vec![0; 4096]));
    queue.submit(1, read(2, 4095), false);
    let discard = Request::Discard {
        offset: u64::MAX,
        len: 2,
        durable: true,
    };
    queue.submit(2, discard, false);
    queue.fail(3, Error::invalid("so"));
    assert_eq!(queue.wait(9, None).unwrap(), 3);
    for _ in 0..3 {
        let done = queue.pop().unwrap();
        assert_eq!(done.result.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(queue.outstanding(), 0);
    assert_eq!(queue.wait(1, None).unwrap(), 0);
}

#[test]
fn a_depth_out_of_range_is_refused() {
    for depth in [0, MAX_DEPTH + 1] {
        let options = QueueOptions {
            depth,
            ..QueueOptions::default()
        };
        let refused = Queue::new(Arc::new(raw(vec![0; 512])), options);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[test]
fn more_than_the_depth_wait_their_turn() {
    let options = QueueOptions {
        depth: 1,
        ..QueueOptions::default()
    };
    let mut queue = Queue::new(Arc::new(raw(vec![0; 1 << 20])), options).unwrap();
    for token in 0..100 {
        queue.submit(token, Request::Flush, false);
    }
    assert_eq!(queue.pool.as_ref().unwrap().threads(), 1);
    assert_eq!(queue.wait(100, None).unwrap(), 100);
    for token in 0..100 {
        assert_eq!(queue.pop().unwrap().token, token);
    }
}

#[test]
fn dropping_a_queue_drops_what_has_not_begun_and_waits_for_the_rest() {
    let image = Arc::new(raw(vec![0; 1 << 20]));
    let mut queue = Queue::new(image.clone(), QueueOptions::default()).unwrap();
    for token in 0..200 {
        let write = Request::Write {
            buffer: vec![1; 1 << 20].into(),
            offset: 0,
            durable: true,
        };
        queue.submit(token, write, false);
    }
    drop(queue);
    assert_eq!(Arc::strong_count(&image), 1);
}

#[derive(Debug)]
struct Panics {
    image: Image,
    seen: AtomicBool,
}

impl QueueTarget for Panics {
    fn image(&self) -> &Image {
        let thread = std::thread::current();
        assert!(thread.name() != Some("platter-queue-1"), "of a test");
        &self.image
    }

    fn panicked(&self) {
        self.seen.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_panic_on_a_thread_is_a_completion() {
    let target = Arc::new(Panics {
        image: raw(vec![0; 512]),
        seen: AtomicBool::new(false),
    });
    let mut queue = Queue::new(target.clone(), QueueOptions::default()).unwrap();
    queue.submit(1, Request::Flush, false);
    assert_eq!(queue.wait(1, None).unwrap(), 1);
    let error = queue.pop().unwrap().result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(target.seen.load(Ordering::SeqCst));
}

fn file_queue(image: &std::path::Path, format: &str, cache: CacheMode) -> Queue {
    let options = OpenOptions {
        format: Some(format.into()),
        writable: true,
        cache,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let location = crate::Location::from_path(image);
    queue(Image::open(&location, &options).unwrap())
}

/// Asserts that all requests went to the kernel, if it takes requests at all.
fn assert_by_kernel(queue: &Queue) {
    match queue.kernel {
        LazyRing::Ring(_) => assert!(queue.pool.is_none()),
        LazyRing::None => assert!(queue.pool.is_some()),
        LazyRing::Unknown => panic!("nobody asked the kernel"),
    }
}

fn direct_write(offset: u64) -> Request {
    Request::Write {
        buffer: Buffer::aligned(8192, 7).unwrap(),
        offset,
        durable: false,
    }
}

fn all_end(queue: &mut Queue, count: usize) {
    assert_eq!(queue.wait(count, None).unwrap(), count);
    while let Some(done) = queue.pop() {
        done.result.unwrap();
    }
}

#[test]
fn what_is_one_call_on_a_file_goes_to_the_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("i");
    std::fs::write(&path, vec![5; 1 << 20]).unwrap();
    let mut queue = file_queue(&path, "raw", CacheMode::None);
    let buffer = Buffer::aligned(8192, 0).unwrap();
    queue.submit(0, Request::Read { buffer, offset: 0 }, false);
    queue.submit(1, direct_write(8192), true);
    let zeroes = |offset, flags| Request::WriteZeroes {
        offset,
        len: 10_000,
        flags,
        durable: false,
    };
    queue.submit(2, zeroes(100_000, ZeroFlags::empty()), true);
    queue.submit(3, zeroes(200_000, ZeroFlags::MAY_UNMAP), true);
    let discard = Request::Discard {
        offset: 300_000,
        len: 10_000,
        durable: false,
    };
    queue.submit(4, discard, true);
    all_end(&mut queue, 5);
    queue.submit(5, Request::Flush, false);
    all_end(&mut queue, 1);
    assert_by_kernel(&queue);
    // Requests that only a direct call can complete.
    queue.submit(6, direct_write((1 << 20) - 100), false);
    assert!(queue.wait(1, None).unwrap() == 1 && queue.pop().unwrap().result.is_err());
    queue.submit(7, direct_write(100), false);
    all_end(&mut queue, 1);
    assert!(queue.pool.is_some());
    drop(queue);
    let mut expected = vec![5; 1 << 20];
    expected[100..8292].fill(7);
    expected[8292..16384].fill(7);
    for start in [100_000, 200_000, 300_000] {
        expected[start..start + 10_000].fill(0);
    }
    assert!(std::fs::read(&path).unwrap() == expected);
}

#[test]
fn a_flush_of_what_needs_none_completes_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("i");
    std::fs::write(&path, vec![5; 1 << 16]).unwrap();
    let mut queue = file_queue(&path, "raw", CacheMode::Unsafe);
    queue.submit(0, Request::Flush, false);
    assert!(queue.pop().unwrap().result.is_ok() && queue.pool.is_none());
}
