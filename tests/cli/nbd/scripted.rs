//! A server of one export in memory to which something happens at a request that the test chooses.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::common::Dir;

/// What happens to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not reply any more.
    Stall,
    /// From now on its replies come late and in pieces.
    Slow,
    /// It ends, and whoever comes afterwards is sent away.
    Gone,
    /// It is started anew, without what was not flushed.
    Restart,
    /// It says something that is no reply, and ends the connection.
    Garbage,
    /// It refuses this request with an I/O error.
    Error,
}

/// The export and what has happened.
#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// As of the last flush.
    durable: Vec<u8>,
    requests: usize,
    fault: Option<(usize, Fault)>,
    struck: bool,
    /// Nothing is replied to.
    stalled: bool,
    slow: bool,
    gone: bool,
    streams: Vec<UnixStream>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The server; it goes on for as long as the test process.
pub struct Scripted {
    shared: Arc<Shared>,
    socket: String,
}

impl Scripted {
    pub fn new(dir: &Dir) -> Self {
        let socket = dir.str("scripted.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let shared = Arc::<Shared>::default();
        let own = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = own.clone();
                std::thread::spawn(move || {
                    let _ = shared.serve(stream);
                });
            }
        });
        Self { shared, socket }
    }

    pub fn socket(&self) -> &str {
        &self.socket
    }

    /// From now on it has these bytes, and the fault comes at a request counted from here.
    pub fn begin(&self, bytes: &[u8], fault: Option<(usize, Fault)>) {
        let mut state = self.shared.lock();
        state.end_all();
        *state = State {
            bytes: bytes.to_vec(),
            durable: bytes.to_vec(),
            fault,
            ..State::default()
        };
        self.shared.changed.notify_all();
    }

    /// How many requests there were.
    pub fn requests(&self) -> usize {
        self.shared.lock().requests
    }

    /// What was flushed.
    pub fn durable(&self) -> Vec<u8> {
        self.shared.lock().durable.clone()
    }

    /// Waits until the fault has come, for some time; whether it has.
    pub fn has_struck(&self) -> bool {
        let state = self.shared.lock();
        let step = Duration::from_millis(10);
        let waited = self.shared.changed.wait_timeout(state, step);
        waited.expect("the state").0.struck
    }
}

impl State {
    fn end_all(&mut self) {
        for stream in self.streams.drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn number<const N: usize>(stream: &mut UnixStream) -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes[8 - N..])?;
    Ok(u64::from_be_bytes(bytes))
}

const SIMPLE: u32 = 0x6744_6698;
const CHUNK: u32 = 0x668e_33ef;
/// How long a slow server waits before each piece of a reply.
const LATE: Duration = Duration::from_millis(1);
/// Flags, flush, trim, zeroes, several connections.
const FLAGS: u16 = 1 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 8;
/// The context of block status.
const CONTEXT: &[u8] = b"\0\0\0\x01base:allocation";

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the state")
    }

    fn serve(&self, mut stream: UnixStream) -> std::io::Result<()> {
        {
            let mut state = self.lock();
            if state.gone {
                return Ok(());
            }
            state.streams.push(stream.try_clone()?);
        }
        let size = self.lock().bytes.len() as u64;
        stream.write_all(b"NBDMAGICIHAVEOPT\0\x03")?;
        number::<4>(&mut stream)?;
        while !self.option(&mut stream, size)? {}
        while self.request(&mut stream)? {}
        Ok(())
    }

    /// Replies to an option; whether it was the last.
    fn option(&self, stream: &mut UnixStream, size: u64) -> std::io::Result<bool> {
        number::<8>(stream)?;
        let option = number::<4>(stream)? as u32;
        let len = number::<4>(stream)?;
        std::io::copy(&mut Read::by_ref(stream).take(len), &mut std::io::sink())?;
        let mut all = Vec::new();
        let mut reply = |code: u32, data: &[u8]| all.extend(super::reply(option, code, data));
        match option {
            8 => reply(1, b""),
            10 => {
                reply(4, CONTEXT);
                reply(1, b"");
            }
            7 => {
                let info = [&[0, 0], &size.to_be_bytes()[..], &FLAGS.to_be_bytes()].concat();
                reply(3, &info);
                reply(1, b"");
            }
            _ => reply(1 << 31 | 1, b""),
        }
        stream.write_all(&all)?;
        Ok(option == 7)
    }

    /// Carries out a request; whether another one may follow.
    fn request(&self, stream: &mut UnixStream) -> std::io::Result<bool> {
        number::<6>(stream)?;
        let command = number::<2>(stream)?;
        let cookie = number::<8>(stream)?.to_be_bytes();
        let start = number::<8>(stream)? as usize;
        let len = number::<4>(stream)? as usize;
        let mut data = vec![0; if command == 1 { len } else { 0 }];
        stream.read_exact(&mut data)?;
        if command == 2 {
            return Ok(false);
        }
        let simple = |error: u32| {
            let head = [SIMPLE, error].map(u32::to_be_bytes).concat();
            [head, cookie.to_vec()].concat()
        };
        let mut state = self.lock();
        state.requests += 1;
        let due = state.fault.filter(|(at, _)| *at == state.requests);
        if let Some((_, fault)) = due {
            state.struck = true;
            self.changed.notify_all();
            match fault {
                Fault::Stall => state.stalled = true,
                Fault::Slow => state.slow = true,
                Fault::Gone => {
                    state.gone = true;
                    state.end_all();
                    return Ok(false);
                }
                Fault::Restart => {
                    state.bytes = state.durable.clone();
                    state.end_all();
                    return Ok(false);
                }
                Fault::Garbage => {
                    stream.write_all(&[0xa5; 64])?;
                    return Ok(false);
                }
                Fault::Error => {
                    stream.write_all(&simple(5))?;
                    return Ok(true);
                }
            }
        }
        if state.stalled {
            // The client hangs up, or the next case ends it.
            drop(state);
            std::io::copy(stream, &mut std::io::sink())?;
            return Ok(false);
        }
        let chunk = |kind: u16, payload: &[u8]| {
            let len = (payload.len() as u32).to_be_bytes();
            let kind = [1_u16, kind].map(u16::to_be_bytes).concat();
            [&CHUNK.to_be_bytes()[..], &kind, &cookie, &len, payload].concat()
        };
        let end = start + len;
        let reply = match command {
            0 => {
                let offset = (start as u64).to_be_bytes();
                chunk(1, &[&offset, &state.bytes[start..end]].concat())
            }
            7 => chunk(5, &[1, len as u32, 0].map(u32::to_be_bytes).concat()),
            1 => {
                state.bytes[start..end].copy_from_slice(&data);
                simple(0)
            }
            3 => {
                state.durable = state.bytes.clone();
                simple(0)
            }
            4 | 6 => {
                state.bytes[start..end].fill(0);
                simple(0)
            }
            _ => simple(22),
        };
        let slow = state.slow;
        drop(state);
        let step = if slow {
            reply.len() / 3 + 1
        } else {
            reply.len()
        };
        for piece in reply.chunks(step) {
            if slow {
                std::thread::sleep(LATE);
            }
            stream.write_all(piece)?;
        }
        Ok(true)
    }
}
