//! Any bytes as a client of the server: options and requests on an image in memory. Afterwards another client is
//! served, and what the first one could not write is as it was.
#![no_main]

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use platter::net::Stream;
use platter::serve::{Export, ExportOptions, Limits, Server};
use platter::storage::Storage;
use platter::storage::memory::MemoryStorage;
use platter::{Image, OpenOptions};
use platter_fuzz::policy;

const LEN: usize = 96 << 10;

fn export(name: &str, writable: bool) -> Export {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::with_bytes("disk", vec![7; LEN]));
    let options = OpenOptions {
        format: Some("raw".into()),
        writable,
        policy: policy(),
        ..OpenOptions::default()
    };
    let image = Image::open_storage(storage, &options).unwrap();
    let options = ExportOptions {
        name: name.into(),
        writable,
        allocation_depth: true,
        ..ExportOptions::default()
    };
    Export::new(Arc::new(image), options).unwrap()
}

/// Sends `bytes`, and gives what comes until the server has ended the connection: the end of it.
fn talk(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let (near, far) = UnixStream::pair().unwrap();
    server
        .serve(Stream::from_socket(far.into()).unwrap())
        .unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A server that has ended the connection takes no more.
            let _ = (&near).write_all(bytes);
            let _ = near.shutdown(Shutdown::Write);
        });
        let mut last = Vec::new();
        let mut part = vec![0; 64 << 10];
        loop {
            match (&near).read(&mut part) {
                Ok(len @ 1..) => {
                    last.extend_from_slice(&part[..len]);
                    last.drain(..last.len().saturating_sub(64));
                }
                // The engine's clock.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return last,
            }
        }
    })
}

fuzz_target!(|data: &[u8]| {
    let limits = Limits {
        memory: 8 << 20,
        ..Limits::default()
    };
    let server = Server::new(limits).unwrap();
    server.add_export(export("", true)).unwrap();
    server.add_export(export("ro", false)).unwrap();
    // What every client says first, and what leads to requests.
    let begin: &[u8] = match data.first() {
        Some(0..128) => b"\0\0\0\x03",
        Some(128..192) => b"\0\0\0\x03IHAVEOPT\0\0\0\x08\0\0\0\0IHAVEOPT\0\0\0\x01\0\0\0\0",
        Some(192..) => b"\0\0\0\x03IHAVEOPT\0\0\0\x0b\0\0\0\0IHAVEOPT\0\0\0\x01\0\0\0\0",
        None => b"",
    };
    talk(
        &server,
        &[begin, data.get(1..).unwrap_or_default()].concat(),
    );
    let good = b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x02ro\x25\x60\x95\x13\0\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\0\0\0\0\0\0\0\0\x04";
    let answer = talk(&server, good);
    assert!(answer.ends_with(&[7; 4]), "{answer:?}");
    server.stop();
    assert_eq!(server.statistics().memory, 0);
});
