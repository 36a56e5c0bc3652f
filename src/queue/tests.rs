use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::storage::{MemoryStorage, Storage};
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

impl Target for Panics {
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
