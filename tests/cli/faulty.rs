//! What stands between the tool and a good server, and fails at a byte that the test names.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What happens when so many bytes of the server went by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// All connections end. The next ones get these bytes and their end, as many of them as are named; those that
    /// follow lead to the server again.
    Says(&'static [u8], usize),
    /// All connections end, and so do those that follow when as many bytes went by again.
    EndsEach,
    /// All connections end, and no further one can be made.
    Gone,
    /// Nothing comes any more, and no connection ends.
    Silent,
    /// Of the rest, a byte comes now and then.
    Slow,
    /// All connections end, and the next ones lead to another port.
    Elsewhere(u16),
}

/// Between two bytes of a slow server, and between two looks at what may have ended.
const NAP: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct State {
    fault: Fault,
    at: u64,
    /// Bytes of the server that went by.
    came: u64,
    happened: bool,
    stopped: bool,
    open: Vec<TcpStream>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    upstream: u16,
    /// Ports for data that the server names in its replies lead through here too.
    is_ftp: bool,
}

/// A port that leads to the port of a server.
#[derive(Debug)]
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts bytes of the server, and says how many of them go by before the fault happens.
    fn count(&self, len: usize) -> usize {
        let mut state = self.state();
        let is_due = !state.happened && state.fault != Fault::None;
        let left = usize::try_from(state.at.saturating_sub(state.came)).unwrap_or(usize::MAX);
        let passes = if is_due { len.min(left) } else { len };
        state.came += passes as u64;
        passes
    }

    /// The fault happens, where it is due.
    fn happen(&self) {
        let mut state = self.state();
        if state.happened || state.fault == Fault::None || state.came < state.at {
            return;
        }
        state.happened = true;
        if !matches!(state.fault, Fault::Silent | Fault::Slow) {
            for stream in state.open.drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        if state.fault == Fault::EndsEach {
            (state.came, state.happened) = (0, false);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// What a new connection gets: None where it leads nowhere.
    fn next(&self) -> Option<Result<u16, &'static [u8]>> {
        let mut state = self.state();
        if !state.happened {
            return Some(Ok(self.upstream));
        }
        match &mut state.fault {
            Fault::Says(_, 0) | Fault::Slow | Fault::EndsEach | Fault::None => {
                Some(Ok(self.upstream))
            }
            Fault::Says(bytes, times) => {
                *times = times.saturating_sub(1);
                Some(Err(bytes))
            }
            Fault::Elsewhere(port) => Some(Ok(*port)),
            Fault::Gone | Fault::Silent => None,
        }
    }

    fn is_over(&self) -> bool {
        let state = self.state();
        state.stopped || (state.happened && state.fault == Fault::Gone)
    }

    fn is_slow(&self) -> bool {
        let state = self.state();
        state.happened && state.fault == Fault::Slow
    }

    fn is_silent(&self) -> bool {
        let state = self.state();
        state.happened && state.fault == Fault::Silent
    }

    fn hold(&self, stream: &TcpStream) {
        if let Ok(stream) = stream.try_clone() {
            self.state().open.push(stream);
        }
    }
}

impl Proxy {
    /// One before that port, without a fault.
    pub fn new(upstream: u16, is_ftp: bool) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                fault: Fault::None,
                at: 0,
                came: 0,
                happened: false,
                stopped: false,
                open: Vec::new(),
            }),
            changed: Condvar::new(),
            upstream,
            is_ftp,
        });
        let port = listen(&shared, upstream, true);
        Self { port, shared }
    }

    /// From now on the fault is to happen when so many more bytes went by.
    pub fn arm(&self, fault: Fault, at: u64) {
        let mut state = self.shared.state();
        (state.fault, state.at) = (fault, at);
        (state.came, state.happened) = (0, false);
    }

    /// How many bytes went by.
    pub fn came(&self) -> u64 {
        self.shared.state().came
    }

    /// Waits until the fault happens; false where `ended` says that it will not.
    pub fn wait(&self, mut ended: impl FnMut() -> bool) -> bool {
        let mut state = self.shared.state();
        while !state.happened {
            if ended() {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(state, NAP);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.stopped = true;
        for stream in state.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Listens for connections to that port of the server; `speaks` says whether they are those of the protocol, not
/// those with data alone.
fn listen(shared: &Arc<Shared>, to: u16, speaks: bool) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("its port").port();
    let shared = shared.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if shared.is_over() {
                break;
            }
            let Ok(stream) = stream else { continue };
            shared.hold(&stream);
            let shared = shared.clone();
            std::thread::spawn(move || connection(&shared, stream, to, speaks));
            if !speaks {
                break;
            }
        }
    });
    port
}

fn connection(shared: &Arc<Shared>, mut client: TcpStream, to: u16, speaks: bool) {
    let to = match (shared.next(), speaks) {
        (None, _) => return,
        (Some(Ok(port)), true) => port,
        (Some(_), false) => to,
        (Some(Err(bytes)), true) => {
            let _ = client.write_all(bytes);
            let _ = client.shutdown(Shutdown::Write);
            // What is not read before the end would take back what was said.
            let _ = std::io::copy(&mut client, &mut std::io::sink());
            return;
        }
    };
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else {
        return;
    };
    shared.hold(&server);
    // The fault may be due before the first byte.
    shared.happen();
    let up = (client.try_clone(), server.try_clone());
    std::thread::spawn(move || {
        if let (Ok(mut client), Ok(mut server)) = up {
            let _ = std::io::copy(&mut client, &mut server);
            let _ = server.shutdown(Shutdown::Write);
        }
    });
    let _ = match shared.is_ftp && speaks {
        true => replies(shared, &server, &mut client),
        false => bytes(shared, server, &mut client),
    };
    if !shared.is_silent() {
        let _ = client.shutdown(Shutdown::Both);
    }
}

fn bytes(shared: &Shared, mut server: impl Read, client: &mut TcpStream) -> std::io::Result<()> {
    let mut buf = [0; 16 << 10];
    loop {
        match server.read(&mut buf)? {
            0 => return Ok(()),
            n => pass(shared, &buf[..n], client)?,
        }
    }
}

/// The replies of an FTP server, which name ports for data.
fn replies(
    shared: &Arc<Shared>,
    server: &TcpStream,
    client: &mut TcpStream,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(server);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        let named = text
            .split_once("(|||")
            .and_then(|(_, rest)| rest.split_once('|'));
        if let Some(port) = named.and_then(|(port, _)| port.parse().ok()) {
            let own = listen(shared, port, false);
            line = text
                .replace(&port.to_string(), &own.to_string())
                .into_bytes();
        }
        pass(shared, &line, client)?;
        line.clear();
    }
    Ok(())
}

fn pass(shared: &Shared, mut bytes: &[u8], client: &mut TcpStream) -> std::io::Result<()> {
    // The client of a silent server still sends, and waits.
    while !bytes.is_empty() && !shared.is_silent() {
        let mut n = shared.count(bytes.len());
        if shared.is_slow() {
            std::thread::sleep(NAP);
            n = 1;
        }
        client.write_all(&bytes[..n])?;
        bytes = &bytes[n..];
        shared.happen();
    }
    Ok(())
}
