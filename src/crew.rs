//! How many threads work at once: used by every thread pool.

use parking_lot::{Condvar, Mutex};

/// Maximum memory for all buffers of one operation together.
pub(crate) const MEMORY: u64 = 36 << 20;

/// Maximum number of threads that compute: more would share caches and memory for no gain.
const MAX_COMPUTING: usize = 16;

/// Maximum number of threads of one operation or queue.
const MAX_THREADS: usize = 64;

/// Minimum number of requests of a queue that can wait at once, even for storages that claim to answer from memory:
/// whether they do is known only afterwards.
const MIN_SERVED: u32 = 16;

/// What an operation requires of its threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Number of requests that the storages prefer to have in flight; 1 if they answer from memory.
    pub in_flight: u32,
    /// Whether there is much to compute between the requests.
    pub computes: bool,
    /// Bytes of buffers that each thread needs.
    pub bytes: u64,
}

impl Load {
    /// How many threads to use. Threads that wait for a storage use no processor, so they are counted separately from
    /// those that compute; if there is little to compute, the same threads do both.
    pub(crate) fn threads(&self) -> usize {
        let waiting = match self.in_flight {
            0 | 1 => 0,
            many => many as usize,
        };
        let wanted = match self.computes {
            true => processors() + waiting,
            false => processors().max(waiting),
        };
        let affordable = usize::try_from(MEMORY / self.bytes.max(1)).unwrap_or(usize::MAX);
        wanted.min(affordable).clamp(1, MAX_THREADS)
    }
}

/// How many threads serve a queue of this depth.
pub(crate) fn serving(in_flight: u32, depth: u32) -> usize {
    (depth.min(in_flight.max(MIN_SERVED)) as usize).clamp(1, MAX_THREADS)
}

/// The stack size of a thread. Set explicitly, because otherwise the environment would determine it (`RUST_MIN_STACK`).
const STACK: usize = 2 << 20;

/// A thread of the library: every one is created with this builder, with all signals blocked, and is named so that a
/// panic can be recognised as one of the library's.
pub(crate) fn thread(name: &str) -> std::thread::Builder {
    std::thread::Builder::new()
        .name(format!("platter-{name}"))
        .stack_size(STACK)
}

/// How many threads may compute at once.
pub(crate) fn processors() -> usize {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    all.min(MAX_COMPUTING)
}

/// Admits as many threads as there are processors: the others block instead of taking turns on the processors.
#[derive(Debug)]
pub(crate) struct Computing {
    free: Mutex<usize>,
    left: Condvar,
}

/// A slot among the threads that compute.
#[derive(Debug)]
pub(crate) struct Place<'a>(&'a Computing);

impl Computing {
    /// For this many threads; None if all of them may compute at once.
    pub(crate) fn among(threads: usize) -> Option<Self> {
        let places = processors();
        (threads > places).then(|| Self {
            free: Mutex::new(places),
            left: Condvar::new(),
        })
    }

    /// Waits for a slot.
    pub(crate) fn enter(&self) -> Place<'_> {
        let mut free = self.free.lock();
        while *free == 0 {
            self.left.wait(&mut free);
        }
        *free -= 1;
        Place(self)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise the environment affects its stack, a signal may be handled on it, or a panic is printed to standard
    /// error.
    #[test]
    fn threads_are_made_by_this_module_alone() {
        fn look(directory: &std::path::Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let name = path.to_string_lossy().into_owned();
                if path.is_dir() {
                    if !name.ends_with("/tests") && !name.ends_with("/testing") {
                        look(&path, found);
                    }
                    continue;
                }
                if name.ends_with("/tests.rs") || name.ends_with("src/crew.rs") {
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                for line in code.lines().map(str::trim_start) {
                    let makes = ["thread::Builder::new", "thread::spawn", "scope.spawn("];
                    if !line.starts_with("//") && makes.iter().any(|make| line.contains(make)) {
                        found.push(format!("{name}: {line}"));
                    }
                }
            }
        }
        let mut found = Vec::new();
        look(
            &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
            &mut found,
        );
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn waiting_and_computing_threads_are_counted_apart_within_the_memory() {
        let threads = |in_flight, computes, bytes| {
            Load {
                in_flight,
                computes,
                bytes,
            }
            .threads()
        };
        let processors = processors();
        assert_eq!(threads(1, false, 1 << 20), processors);
        assert_eq!(threads(1, true, 1 << 20), processors);
        assert_eq!(threads(20, false, 1 << 20), 20);
        assert_eq!(threads(10, true, 1 << 20), 10 + processors);
        assert_eq!(threads(u32::MAX, true, 1), MAX_THREADS);
        assert_eq!(threads(20, false, 12 << 20), 3);
        assert_eq!(threads(20, false, u64::MAX), 1);
        assert_eq!(
            (serving(1, 4), serving(1, 99), serving(32, 99)),
            (4, 16, 32)
        );
    }

    #[test]
    fn no_more_threads_compute_than_there_are_processors() {
        let threads = processors() + 3;
        assert!(Computing::among(processors()).is_none());
        let gate = Computing::among(threads).unwrap();
        let inside = Mutex::new((0, 0));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _place = gate.enter();
                        let mut counts = inside.lock();
                        counts.0 += 1;
                        counts.1 = counts.1.max(counts.0);
                        drop(counts);
                        std::thread::yield_now();
                        inside.lock().0 -= 1;
                    }
                });
            }
        });
        let (now, most) = inside.into_inner();
        assert_eq!(now, 0);
        assert!((1..=processors()).contains(&most));
    }
}
