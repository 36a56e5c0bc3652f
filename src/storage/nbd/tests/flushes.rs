//! Flushes succeed only if the server that received the writes still has them.

use std::sync::Barrier;
use std::sync::mpsc::{Sender, channel};

use super::super::connection::Connection;
use super::*;
use crate::net::Wait;

#[test]
fn a_flush_says_nothing_of_writes_that_another_server_had_taken() {
    let (tell, told) = channel();
    let (restart, restarted) = channel::<()>();
    let both = Mutex::new((tell, restarted));
    let restart = Mutex::new(restart);
    let server = at_once(Duration::ZERO, move |number, peer| {
        if number > 0 {
            // The restarted server, which does not have what the first one had.
            while let Some((request, _)) = peer.request() {
                peer.simple(&request, 0, b"");
                if request.command == Command::FLUSH {
                    let _ = restart.lock().send(());
                }
            }
            return;
        }
        let (tell, restarted) = &*both.lock();
        done(peer, Command::WRITE, 0, &[1; 512]);
        peer.request();
        tell.send(()).unwrap();
        // It dies with the read in flight, once it or the restarted server is flushed.
        peer.0
            .set_read_timeout(Some(Duration::from_millis(10)))
            .unwrap();
        while peer.request().is_none() && restarted.try_recv().is_err() {}
    });
    let storage = server.opened();
    storage.write_at(&[1; 512], 0).unwrap();
    std::thread::scope(|scope| {
        let read = scope.spawn(|| storage.read_at(&mut [0; 512], 4096));
        told.recv().unwrap();
        storage.sync(Durability::Synced).unwrap_err();
        read.join().unwrap().unwrap_err();
    });
    let error = storage.sync(Durability::Synced).unwrap_err();
    assert_eq!(error.errno(), libc::EIO);
}

#[test]
fn flushes_go_out_on_all_connections_before_the_first_reply() {
    let flushes = Barrier::new(2);
    let server = at_once(Duration::ZERO, move |_, peer| {
        while let Some((request, _)) = peer.request() {
            if request.command == Command::FLUSH {
                flushes.wait();
            }
            peer.simple(&request, 0, b"");
        }
    });
    let control = JobControl::default();
    let connect = || pool::establish(&server.settings(""), Wait::new(&control)).map(Arc::new);
    let connections = [connect().unwrap(), connect().unwrap()];
    for connection in &connections {
        connection.wrote(1);
    }
    let refused = AtomicBool::new(false);
    Connection::flush_all(&connections, &refused, &control).unwrap();
    assert!(!refused.into_inner());
    assert!(!connections.iter().any(|one| one.is_unflushed()));
}

#[test]
fn a_flush_fails_where_a_connection_with_writes_was_given_up() {
    static STALLED: Mutex<Option<Sender<()>>> = Mutex::new(None);
    let (tell, told) = channel();
    *STALLED.lock() = Some(tell);
    let fake = Fake::new(vec![
        (Offer::default(), |peer| {
            done(peer, Command::WRITE, 0, &[1; 512]);
            peer.request();
            STALLED.lock().take().unwrap().send(()).unwrap();
            assert!(peer.request().is_none());
        }),
        (Offer::default(), serve),
    ]);
    let control = Arc::new(JobControl::default());
    let (kept, given_up) = (fake.opened(), fake.open("", &control).unwrap());
    kept.write_at(&[1; 512], 0).unwrap();
    std::thread::scope(|scope| {
        let read = scope.spawn(|| given_up.read_at(&mut [0; 512], 0));
        told.recv().unwrap();
        control.cancel();
        let error = read.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    });
    kept.write_at(&[2; 512], 4096).unwrap();
    let error = broken(
        kept.sync(Durability::Synced),
        "lost after writes that were not flushed",
    );
    assert_eq!(error.errno(), libc::EIO);
    drop((kept, given_up));
    fake.end();
}
