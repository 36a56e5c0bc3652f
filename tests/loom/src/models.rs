//! The models: what must hold whatever the threads' order.

use super::cache::{Cache, Class};
use crate::inflight::InFlight;
use crate::limbo::{Freed, Limbo};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering};

/// Every interleaving with so many preemptions at most.
fn model(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(f);
}

const FREED: Freed = Freed {
    cluster: 1,
    punch: false,
};

/// A reader that found a cluster in the tables keeps it until it is done: it is not handed out.
#[test]
fn limbo_keeps_what_a_reader_may_use() {
    model(3, || {
        let limbo = Arc::new(Limbo::default());
        let linked = Arc::new(AtomicBool::new(true));
        let reused = Arc::new(AtomicBool::new(false));
        let reader = {
            let (limbo, linked, reused) = (limbo.clone(), linked.clone(), reused.clone());
            loom::thread::spawn(move || {
                let _held = limbo.enter();
                if linked.load(Ordering::Acquire) {
                    assert!(!reused.load(Ordering::Acquire), "reused under a reader");
                }
            })
        };
        linked.store(false, Ordering::Release);
        limbo.queue([FREED]);
        limbo.unlinked(limbo.take_fresh());
        for _ in 0..2 {
            if !limbo.drained().is_empty() {
                reused.store(true, Ordering::Release);
            }
        }
        reader.join().unwrap();
        // Nobody is left: within two rounds everything comes out.
        if !reused.load(Ordering::Acquire) {
            assert_eq!(limbo.drained(), [FREED]);
        }
        assert_eq!(limbo.waiting(), 0);
    });
}

/// A reader that began to enter before the epoch moved on counts for the epoch after it.
#[test]
fn limbo_counts_a_late_reader() {
    model(4, || {
        let limbo = Arc::new(Limbo::default());
        let linked = Arc::new(AtomicBool::new(true));
        let reused = Arc::new(AtomicBool::new(false));
        let reader = {
            let (limbo, linked, reused) = (limbo.clone(), linked.clone(), reused.clone());
            loom::thread::spawn(move || {
                let _held = limbo.enter();
                if linked.load(Ordering::Acquire) {
                    assert!(!reused.load(Ordering::Acquire), "reused under a reader");
                }
            })
        };
        limbo.queue([Freed {
            cluster: 7,
            ..FREED
        }]);
        limbo.unlinked(limbo.take_fresh());
        let _ = limbo.drained();
        linked.store(false, Ordering::Release);
        limbo.queue([FREED]);
        limbo.unlinked(limbo.take_fresh());
        if limbo.drained().contains(&FREED) {
            reused.store(true, Ordering::Release);
        }
        reader.join().unwrap();
    });
}

/// After the wait nobody is left who began before it.
#[test]
fn limbo_waits_for_users() {
    model(3, || {
        let limbo = Arc::new(Limbo::default());
        let old = Arc::new(AtomicBool::new(true));
        let gone = Arc::new(AtomicBool::new(false));
        let reader = {
            let (limbo, old, gone) = (limbo.clone(), old.clone(), gone.clone());
            loom::thread::spawn(move || {
                let _held = limbo.enter();
                if old.load(Ordering::Acquire) {
                    assert!(!gone.load(Ordering::Acquire), "taken from under a reader");
                }
            })
        };
        old.store(false, Ordering::Release);
        limbo.wait_for_users();
        gone.store(true, Ordering::Release);
        reader.join().unwrap();
    });
}

fn load(value: u64) -> impl Fn(&mut [u8]) -> crate::error::Result<()> {
    move |bytes| {
        for chunk in bytes.chunks_exact_mut(8) {
            chunk.copy_from_slice(&value.to_be_bytes());
        }
        Ok(())
    }
}

/// A reader of two words sees both of a change, or none of it.
#[test]
fn cache_readers_see_whole_changes() {
    model(2, || {
        let cache = Arc::new(Cache::new(16, 0));
        let slice = cache.get(Class::L2, 0, load(1)).unwrap();
        let writer = {
            let (cache, slice) = (cache.clone(), slice.clone());
            loom::thread::spawn(move || {
                cache.modify(&slice, |words| {
                    words[0].store(2, Ordering::Relaxed);
                    words[1].store(2, Ordering::Relaxed);
                });
            })
        };
        let (a, b) = slice.read(|words| {
            (
                words[0].load(Ordering::Relaxed),
                words[1].load(Ordering::Relaxed),
            )
        });
        assert_eq!(a, b);
        writer.join().unwrap();
    });
}

/// A change is either in what is taken for writing, or the slice is still dirty.
#[test]
fn cache_loses_no_change() {
    model(3, || {
        let cache = Arc::new(Cache::new(8, 0));
        let slice = cache.get(Class::L2, 0, load(0)).unwrap();
        let writer = {
            let (cache, slice) = (cache.clone(), slice.clone());
            loom::thread::spawn(move || {
                for n in 1..=2 {
                    cache.modify(&slice, |words| words[0].store(n, Ordering::Relaxed));
                }
            })
        };
        let mut disk = 0u64;
        let mut write = |cache: &Cache| {
            for taken in cache.take_dirty(Class::L2).unwrap() {
                disk = u64::from_be_bytes(taken.bytes[..8].try_into().unwrap());
            }
        };
        write(&cache);
        writer.join().unwrap();
        write(&cache);
        assert_eq!(disk, 2);
        assert_eq!(cache.dirty_bytes(), 0);
    });
}

/// Two threads that look up the same slice get the same one, loaded once.
#[test]
fn cache_loads_a_slice_once() {
    model(3, || {
        let cache = Arc::new(Cache::new(8, 0));
        let loads = Arc::new(AtomicUsize::default());
        let get = {
            let (cache, loads) = (cache.clone(), loads.clone());
            move || {
                let slice = cache.get(Class::L2, 0, |bytes| {
                    loads.fetch_add(1, Ordering::Relaxed);
                    load(5)(bytes)
                });
                slice.unwrap()
            }
        };
        let other = loom::thread::spawn(get.clone());
        let mine = get();
        let theirs = other.join().unwrap();
        assert!(Arc::ptr_eq(&mine, &theirs));
        assert_eq!(loads.load(Ordering::Relaxed), 1);
        assert_eq!(mine.read(|words| words[0].load(Ordering::Relaxed)), 5);
    });
}

/// Overlapping ranges are never held at once, and no one waits for ever.
#[test]
fn inflight_ranges_exclude_each_other() {
    model(2, || {
        let table = Arc::new(InFlight::default());
        let holders = Arc::new(AtomicUsize::default());
        let threads: Vec<_> = [0..2, 1..3]
            .into_iter()
            .map(|range| {
                let (table, holders) = (table.clone(), holders.clone());
                loom::thread::spawn(move || {
                    let _held = table.reserve(range);
                    assert_eq!(holders.fetch_add(1, Ordering::Relaxed), 0);
                    loom::thread::yield_now();
                    holders.fetch_sub(1, Ordering::Relaxed);
                })
            })
            .collect();
        drop(table.reserve(2..4));
        for thread in threads {
            thread.join().unwrap();
        }
    });
}
