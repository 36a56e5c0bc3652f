//! A connection that a C library has, shared by all threads that have requests.
//!
//! Such libraries are not made for several threads, so that one thread has the connection to itself. The others
//! hand it requests, wake it by an eventfd, and wait for all of their replies at once.

use std::collections::{HashMap, VecDeque};
use std::ffi::c_int;
use std::os::fd::{AsFd, RawFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::crew;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{JobControl, without_signals};
use crate::storage::batch::{Batch, Broken, LOOK};
use crate::sys::event::Event;
use crate::sys::stream::{poll_or_wake, quietly};

/// Requests that the library has at once.
const MOST: usize = 128;
/// The longest time that the thread sleeps; libraries keep no time by themselves.
const SLEEP: Duration = Duration::from_secs(1);
/// How long it sleeps when the library waits for nothing at the moment.
const REST: Duration = Duration::from_millis(100);
/// How long the server is given to hear that the connection is ended.
const FAREWELL: Duration = Duration::from_secs(2);

/// A connection in a library. Nothing of it blocks.
pub(super) trait Engine: Send + 'static {
    /// What is asked of the server.
    type Request: Send + 'static;
    /// What it says.
    type Reply: Send + 'static;

    /// Gives a request to the library; [`Engine::replies`] names it by its token.
    ///
    /// # Errors
    /// The connection is no longer usable.
    fn submit(&mut self, token: u64, request: Self::Request) -> Result<()>;

    /// What is waited on, and for what; no events where that is nothing at the moment.
    fn events(&self) -> (RawFd, c_int);

    /// Sends and receives what is possible without waiting.
    ///
    /// # Errors
    /// The connection is lost.
    fn serve(&mut self, ready: c_int) -> Result<()>;

    /// What has come since the last call.
    fn replies(&mut self) -> Vec<(u64, Self::Reply)>;

    /// Called each second or so; `under_way` requests have no reply yet.
    ///
    /// # Errors
    /// The connection is to be given up.
    fn tick(&mut self, under_way: usize) -> Result<()>;

    /// Begins to close the connection, which is served until [`Engine::is_over`]. False where the server is to be
    /// told nothing.
    fn part(&mut self) -> bool;

    /// Whether the server has heard that the connection is closed.
    fn is_over(&mut self) -> bool;
}

/// Serves a connection on this thread until `done` has something to say.
///
/// # Errors
/// Of `done`, of the connection, or where `check` ends the wait.
pub(super) fn serve_until<E: Engine, T>(
    engine: &mut E,
    mut check: impl FnMut() -> Result<()>,
    mut done: impl FnMut(&mut E) -> Result<Option<T>>,
) -> Result<T> {
    let never = Event::new().map_err(|error| Error::io(&error))?;
    loop {
        if let Some(done) = done(engine)? {
            return Ok(done);
        }
        check()?;
        let (fd, events) = engine.events();
        let fd = if events == 0 { -1 } else { fd };
        let ready = poll_or_wake(fd, events, never.as_fd(), LOOK);
        let ready = ready.map_err(|error| Error::io(&error))?;
        quietly(|| engine.serve(ready))?;
    }
}

/// A connection that takes requests; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Link<E: Engine> {
    shared: Arc<Shared<E>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared<E: Engine> {
    state: Mutex<State<E>>,
    /// The thread has ended.
    ended: Condvar,
    /// Wakes the thread.
    wake: Event,
}

struct State<E: Engine> {
    queue: VecDeque<Job<E>>,
    broken: Option<Broken>,
    /// The connection no longer has users.
    stop: bool,
    gone: bool,
}

impl<E: Engine> std::fmt::Debug for State<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("queued", &self.queue.len())
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

/// A request on its way.
struct Job<E: Engine> {
    request: E::Request,
    waiter: Waiter<E>,
}

/// The thread that waits for a reply.
struct Waiter<E: Engine> {
    batch: Arc<Batch<E::Reply>>,
    index: usize,
}

impl<E: Engine> Link<E> {
    /// Over a connection that is being made.
    ///
    /// # Errors
    /// Where there are no threads or descriptors left.
    pub(super) fn new(name: &str, engine: E) -> Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                broken: None,
                stop: false,
                gone: false,
            }),
            ended: Condvar::new(),
            wake: Event::new().map_err(|error| Error::io(&error))?,
        });
        let own = shared.clone();
        let thread = crew::thread(name);
        let thread = without_signals(|| thread.spawn(move || run(&own, engine)))
            .map_err(|error| Error::io(&error))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Whether the connection has ended by itself.
    pub(super) fn is_lost(&self) -> bool {
        self.shared.state.lock().broken.is_some()
    }

    /// Sends the requests and gives their replies, in the same order.
    ///
    /// # Errors
    /// The connection has ended, or `control` ended the wait; some of the requests may have been carried out.
    pub(super) fn run(
        &self,
        requests: Vec<E::Request>,
        control: &JobControl,
    ) -> Result<Vec<E::Reply>> {
        control.check()?;
        self.start(requests)?.wait(control)
    }

    /// Sends the requests; the replies can be waited for.
    ///
    /// # Errors
    /// The connection has ended.
    pub(super) fn start(&self, requests: Vec<E::Request>) -> Result<Arc<Batch<E::Reply>>> {
        let batch = Batch::new(requests.len());
        let mut state = self.shared.state.lock();
        if let Some(broken) = &state.broken {
            return Err(broken.error());
        }
        for (index, request) in requests.into_iter().enumerate() {
            let batch = batch.clone();
            let waiter = Waiter { batch, index };
            state.queue.push_back(Job { request, waiter });
        }
        drop(state);
        self.shared.wake.signal();
        Ok(batch)
    }
}

impl<E: Engine> Drop for Link<E> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.stop = true;
        self.shared.wake.signal();
        // A process that ends while the library is at work would take its memory away from under it. A library that
        // blocks after all is waited for no longer than a server.
        let end = Instant::now() + 2 * FAREWELL;
        while !state.gone && !self.shared.ended.wait_until(&mut state, end).timed_out() {}
        let gone = state.gone;
        drop(state);
        if let Some(thread) = self.thread.take().filter(|_| gone) {
            // Its panic was printed already.
            let _ = thread.join();
        }
    }
}

/// The life of a connection.
fn run<E: Engine>(shared: &Shared<E>, mut engine: E) {
    let mut waiting = HashMap::new();
    let ended = serve(shared, &mut engine, &mut waiting);
    let error = ended.err().unwrap_or_else(|| {
        Error::new(ErrorKind::Os, "The connection was ended").with_errno(libc::EPIPE)
    });
    let broken = Broken::of(&error);
    let mut state = shared.state.lock();
    state.broken = Some(broken.clone());
    let queue = std::mem::take(&mut state.queue);
    drop(state);
    // What has come is handed on.
    deliver(&mut engine, &mut waiting);
    drop(engine);
    for waiter in queue
        .into_iter()
        .map(|job| job.waiter)
        .chain(waiting.into_values())
    {
        waiter.batch.fail(&broken);
    }
    shared.state.lock().gone = true;
    shared.ended.notify_all();
}

fn deliver<E: Engine>(engine: &mut E, waiting: &mut HashMap<u64, Waiter<E>>) {
    for (token, reply) in engine.replies() {
        if let Some(Waiter { batch, index }) = waiting.remove(&token) {
            batch.put(index, reply);
        }
    }
}

fn serve<E: Engine>(
    shared: &Shared<E>,
    engine: &mut E,
    waiting: &mut HashMap<u64, Waiter<E>>,
) -> Result<()> {
    let mut tokens = 0;
    let mut looked = Instant::now();
    let mut parting = None;
    let mut told = false;
    loop {
        shared.wake.clear();
        let stop = take_up(shared, engine, waiting, &mut tokens)?;
        if stop {
            let end = *parting.get_or_insert_with(|| Instant::now() + FAREWELL);
            let mut left = waiting.values();
            // What was given up is not waited for.
            if Instant::now() >= end || left.any(|waiter| waiter.batch.is_abandoned()) {
                return Ok(());
            }
            if waiting.is_empty() && !told {
                told = engine.part();
                if !told {
                    return Ok(());
                }
            }
            if told && engine.is_over() {
                return Ok(());
            }
        }
        let (fd, events) = engine.events();
        let (fd, sleep) = if events == 0 {
            (-1, REST)
        } else {
            (fd, if stop { REST } else { SLEEP })
        };
        let ready = poll_or_wake(fd, events, shared.wake.as_fd(), sleep);
        engine.serve(ready.map_err(|error| Error::io(&error))?)?;
        deliver(engine, waiting);
        if looked.elapsed() >= SLEEP {
            looked = Instant::now();
            engine.tick(waiting.len())?;
        }
    }
}

/// Takes up requests; true where the connection is to end.
fn take_up<E: Engine>(
    shared: &Shared<E>,
    engine: &mut E,
    waiting: &mut HashMap<u64, Waiter<E>>,
    tokens: &mut u64,
) -> Result<bool> {
    loop {
        let mut state = shared.state.lock();
        if state.stop {
            // No thread waits for what is left.
            state.queue.clear();
            return Ok(true);
        }
        if waiting.len() >= MOST {
            return Ok(false);
        }
        let Some(Job { request, waiter }) = state.queue.pop_front() else {
            return Ok(false);
        };
        drop(state);
        if waiter.batch.is_abandoned() {
            continue;
        }
        *tokens += 1;
        waiting.insert(*tokens, waiter);
        engine.submit(*tokens, request)?;
    }
}
