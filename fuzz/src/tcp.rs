//! Servers on the loopback interface for one run.

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use platter::{Image, Location, OpenOptions, OpenPolicy};

/// How long a server waits for a client that may be slow.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long it does where something was wrong, so that the client may be waiting for it.
pub const SHORT: Duration = Duration::from_millis(20);

/// Waits no longer than [`SHORT`] from now on.
pub fn lose_patience(stream: &TcpStream) {
    let _ = stream.set_read_timeout(Some(SHORT));
    let _ = stream.set_write_timeout(Some(SHORT));
}

/// Lets `serve` have every connection, each in a thread, while `client` runs, which gets the port.
pub fn with_server(serve: impl Fn(TcpStream) + Sync, client: impl FnOnce(u16)) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let _ = stream.set_read_timeout(Some(PATIENCE));
                let _ = stream.set_write_timeout(Some(PATIENCE));
                scope.spawn(|| serve(stream));
            }
        });
        client(port);
        stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", port));
    });
}

/// Opens what a server has as a plain disk, and reads it; `check` gets what each read has given.
pub fn read_from(
    node: &str,
    reads: &[(u32, u16)],
    check: impl Fn(u64, Result<Vec<u8>, platter::Error>),
) {
    let location = Location::from_image_opts(node).expect("a location");
    let options = OpenOptions {
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let image = match Image::open(&location, &options) {
        Ok(image) => image,
        Err(error) => return check(u64::MAX, Err(error)),
    };
    for (at, len) in reads.iter().take(12) {
        let offset = u64::from(*at) % image.len().max(1);
        let most = image.len().saturating_sub(offset);
        let mut buf =
            vec![0xa4; usize::from(*len).min(usize::try_from(most).unwrap_or(usize::MAX))];
        let done = image.read_at(&mut buf, offset);
        check(offset, done.map(|()| buf));
    }
}

/// What a file holds.
pub fn bytes(from: u64, until: u64) -> Vec<u8> {
    let byte = |at: u64| (at ^ (at / 512).wrapping_mul(31)) as u8 | 1;
    (from..until).map(byte).collect()
}
