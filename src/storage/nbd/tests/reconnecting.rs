//! Lost connections, and what is repeated on the next one.

use super::*;

#[test]
fn a_cancel_ends_the_wait_for_a_server_that_stalls_and_later_requests_connect_again() {
    static STALLED: AtomicUsize = AtomicUsize::new(0);
    let fake = Fake::new(vec![
        (Offer::default(), |peer| {
            while peer.request().is_some() {
                STALLED.fetch_add(1, Ordering::SeqCst);
            }
        }),
        (Offer::default(), serve),
    ]);
    let control = Arc::new(JobControl::default());
    let storage = fake.open("", &control).unwrap();
    let other = fake.opened();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let one = scope.spawn(|| storage.read_at(&mut [0; 512], 0));
        let two = scope.spawn(|| storage.read_at(&mut [0; 512], 512));
        while STALLED.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
        control.cancel();
        for thread in [one, two] {
            let error = thread.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Cancelled);
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(5));
    // The other job goes on.
    let mut buf = [0; 512];
    other.read_at(&mut buf, 1024).unwrap();
    assert_eq!(buf.to_vec(), content(1024, 512));
    drop((storage, other));
    fake.end();
}

#[test]
fn requests_outlive_a_lost_connection_where_a_delay_allows_it() {
    fn three(peer: &mut Peer) {
        for _ in 0..3 {
            let (request, _) = peer.request().unwrap();
            let data = content(request.offset, request.len);
            peer.data(&request, request.offset, true, &data);
        }
        peer.request();
    }
    let fake = Fake::new(vec![
        (Offer::default(), three),
        (Offer::default(), three),
        (Offer::default(), serve),
    ]);
    let storage = fake.open(",reconnect-delay=20", &Arc::default()).unwrap();
    for step in 0..9 {
        let mut buf = [0; 4096];
        storage.read_at(&mut buf, step * 4096).unwrap();
        assert_eq!(buf.to_vec(), content(step * 4096, 4096));
    }
    storage.sync(Durability::Synced).unwrap();
    drop(storage);
    fake.end();
}

#[test]
fn an_export_that_is_another_after_a_reconnection_is_refused() {
    let other = Offer {
        size: SIZE * 2,
        ..Offer::default()
    };
    let fake = Fake::new(vec![
        (Offer::default(), |peer| drop(peer.request())),
        (other, serve),
        (other, serve),
        (other, serve),
    ]);
    let storage = fake.open(",reconnect-delay=1", &Arc::default()).unwrap();
    let error = broken(
        storage.read_at(&mut [0; 512], 0),
        "is not what it was before",
    );
    assert_eq!(error.errno(), libc::ESTALE);
}

#[test]
fn what_was_written_and_not_flushed_is_written_again_before_anything_else() {
    let fake = Fake::new(vec![
        (Offer::default(), |peer| {
            done(peer, Command::WRITE, 4096, &[9; 512]);
            done(peer, Command::FLUSH, 0, &[]);
            done(peer, Command::WRITE, 0, &[1; 1024]);
            done(peer, Command::WRITE, 512, &[2; 512]);
            done(peer, Command::WRITE_ZEROES, 0, &[]);
            peer.request();
        }),
        // The connection is lost again in the middle of the replay.
        (Offer::default(), |peer| {
            done(peer, Command::WRITE_ZEROES, 0, &[]);
            peer.request();
        }),
        // Only the newest version of each byte is sent.
        (Offer::default(), |peer| {
            done(peer, Command::WRITE_ZEROES, 0, &[]);
            done(peer, Command::WRITE, 512, &[2; 512]);
            serve(peer);
        }),
    ]);
    let storage = fake.open(",reconnect-delay=20", &Arc::default()).unwrap();
    storage.write_at(&[9; 512], 4096).unwrap();
    storage.sync(Durability::Synced).unwrap();
    storage.write_at(&[1; 1024], 0).unwrap();
    storage.write_at(&[2; 512], 512).unwrap();
    storage.write_zeroes(0, 512, ZeroFlags::empty()).unwrap();
    let mut buf = [0; 512];
    storage.read_at(&mut buf, 8192).unwrap();
    assert_eq!(buf.to_vec(), content(8192, 512));
    storage.sync(Durability::Synced).unwrap();
    drop(storage);
    fake.end();
}

#[test]
fn a_server_that_does_not_take_again_what_it_had_is_not_used() {
    let fake = Fake::new(vec![
        (Offer::default(), |peer| {
            done(peer, Command::WRITE, 0, &[1; 512]);
            peer.request();
        }),
        (Offer::default(), |peer| {
            let (request, _) = peer.request().unwrap();
            peer.simple(&request, 28, b"");
            assert!(peer.request().is_none());
        }),
        (Offer::default(), |peer| {
            done(peer, Command::WRITE, 0, &[1; 512]);
            serve(peer);
        }),
    ]);
    let storage = fake.open(",reconnect-delay=20", &Arc::default()).unwrap();
    storage.write_at(&[1; 512], 0).unwrap();
    let error = broken(storage.read_at(&mut [0; 512], 4096), "No space left");
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    storage.read_at(&mut [0; 512], 4096).unwrap();
    storage.sync(Durability::Synced).unwrap();
    drop(storage);
    fake.end();
}

#[test]
fn a_flush_makes_room_for_more_than_is_kept() {
    let offer = Offer {
        size: 1 << 30,
        ..Offer::default()
    };
    let fake = Fake::one(offer, |peer| {
        let mut unflushed = 0;
        while let Some((request, data)) = peer.request() {
            unflushed = match request.command {
                Command::FLUSH => 0,
                _ => unflushed + data.len(),
            };
            assert!(unflushed <= 64 << 20);
            peer.simple(&request, 0, b"");
        }
    });
    let storage = fake.open(",reconnect-delay=20", &Arc::default()).unwrap();
    storage.write_at(&vec![1; 100 << 20], 0).unwrap();
    drop(storage);
    fake.end();
}

#[test]
fn a_request_that_ends_every_connection_is_given_up() {
    let fake = Fake::new(vec![(Offer::default(), |peer| drop(peer.request())); 200]);
    let storage = fake.open(",reconnect-delay=1", &Arc::default()).unwrap();
    broken(storage.read_at(&mut [0; 512], 0), "Unexpected end-of-file");
}

#[test]
fn a_server_that_is_silent_is_left_and_another_takes_its_place() {
    fn stalls(peer: &mut Peer) {
        while peer.request().is_some() {}
    }
    let fake = Fake::new(vec![(Offer::default(), stalls), (Offer::default(), serve)]);
    let storage = fake
        .open(",timeout=1,reconnect-delay=20", &Arc::default())
        .unwrap();
    let mut buf = [0; 4096];
    storage.read_at(&mut buf, 8192).unwrap();
    assert_eq!(buf.to_vec(), content(8192, 4096));
    drop(storage);
    fake.end();

    let fake = Fake::one(Offer::default(), stalls);
    let storage = fake.open(",timeout=1", &Arc::default()).unwrap();
    let error = broken(
        storage.read_at(&mut [0; 512], 0),
        "There was no answer for 1 seconds",
    );
    assert_eq!(error.errno(), libc::ETIMEDOUT);
    drop(storage);
    fake.end();
}

#[test]
fn a_server_that_is_silent_from_the_beginning_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut given = Options::new();
    let text = format!("path={},timeout=1", path.display());
    given.parse_into(&text).unwrap();
    let values = Values::check(&given, OPTIONS).unwrap();
    let settings = Settings::of(&values, &Objects::new()).unwrap();
    let opened = pool::Pool::open(&settings, BString::from("x"), &JobControl::default());
    assert_eq!(opened.unwrap_err().errno(), libc::ETIMEDOUT);
    drop(listener);
}
