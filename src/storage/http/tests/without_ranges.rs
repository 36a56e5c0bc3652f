//! Servers that send the whole image or nothing.

use super::*;

#[test]
fn servers_without_ranges_are_refused_or_taken_whole() {
    for chunked in [false, true] {
        let server = Server::new(move |asked| match (chunked, asked.number) {
            // The first response that counts is cut off.
            (false, 1 | 2) => (whole()[..LEN / 2].to_vec(), false),
            (false, _) => (whole(), true),
            (true, _) => {
                let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                for piece in data(0..LEN).chunks(100_000) {
                    answer.extend(format!("{:x}\r\n", piece.len()).bytes());
                    answer.extend_from_slice(piece);
                    answer.extend(b"\r\n");
                }
                answer.extend(b"0\r\n\r\n");
                (answer, true)
            }
        });
        let found = error(server.open());
        assert_eq!(found.kind(), ErrorKind::Unsupported);
        assert_eq!(
            found.to_string(),
            "Server does not support 'range' (byte ranges)."
        );
        assert!(found.hints()[0].contains("'spool'"));
        let storage = server.open_with("spool=on", &Objects::new()).unwrap();
        check(&*storage, 0, LEN);
        check(&*storage, LEN - 5, 10);
    }
    let policy = OpenPolicy {
        max_spool_bytes: 1000,
        ..OpenPolicy::default()
    };
    let server = Server::new(|_| (whole(), true));
    let found = error(open(
        &server.url(),
        "spool=on",
        &Objects::new(),
        &policy,
        &Arc::default(),
    ));
    assert_eq!(found.kind(), ErrorKind::Limit);
    // It is not possible to tell whether the end was cut off.
    let server = Server::new(|_| (b"HTTP/1.0 200 OK\r\n\r\nhello".to_vec(), false));
    let found = error(server.open_with("spool=on", &Objects::new())).to_string();
    assert!(
        found.contains("a part could not be told from all"),
        "{found}"
    );
}

#[test]
fn servers_without_ranges_are_read_in_order_where_that_is_asked_for() {
    let none = Objects::new();
    // With `false`, the second response begins with other bytes, but is otherwise correct.
    for (same, cut) in [
        (true, LEN / 2),
        (false, LEN / 2),
        (true, 10),
        (true, LEN - 1),
    ] {
        let server = Server::new(move |asked| match asked.number {
            0 => (whole()[..cut + 40].to_vec(), false),
            1 if !same => {
                let mut answer = whole();
                let len = answer.len();
                answer[len - LEN + 1000] ^= 1;
                (answer, true)
            }
            _ => (whole(), true),
        });
        let storage = server.open_with("stream=on", &none).unwrap();
        assert_eq!(storage.len().unwrap(), LEN as u64);
        if !same {
            let found = error(storage.read_at(&mut vec![0; LEN], 0));
            assert!(
                found.to_string().ends_with("is not what it was before"),
                "{found}"
            );
            continue;
        }
        check(&*storage, 0, 512);
        std::thread::scope(|scope| {
            for at in (0..LEN).step_by(400_000) {
                let storage = &storage;
                scope.spawn(move || check(&**storage, at, 400_000));
            }
        });
        check(&*storage, LEN - 5, 10);
        assert_eq!(server.asked().len(), 2);
        assert!(!server.asked()[1].contains("Range:"));
    }
}

#[test]
fn what_went_by_long_ago_is_an_error_with_a_remedy() {
    let len = 70 << 20;
    let server = Server::new(move |_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n");
        ([head.as_bytes(), &vec![7; len]].concat(), true)
    });
    let storage = server.open_with("stream=on", &Objects::new()).unwrap();
    let mut buf = [0; 100];
    storage.read_at(&mut buf, len as u64 - 100).unwrap();
    assert_eq!(buf, [7; 100]);
    // The first 16 MiB are kept, and the last 48 MiB.
    for (at, is_kept) in [(0, true), (16, false), (20, false), (23, true), (16, false)] {
        let read = storage.read_at(&mut buf, at << 20);
        assert_eq!(read.is_ok(), is_kept, "{at}");
        if let Err(found) = read {
            assert!(found.to_string().contains("went by already"), "{found}");
            assert!(found.hints()[0].contains("'spool'"));
        }
    }
    let found = error(server.open_with("stream=on,spool=on", &Objects::new()));
    assert_eq!(
        found.to_string(),
        "'spool' and 'stream' are mutually exclusive"
    );
    let server = Server::new(|_| {
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
        (text.as_bytes().to_vec(), true)
    });
    let found = error(server.open_with("stream=on", &Objects::new()));
    assert!(
        found.to_string().contains("does not tell how long"),
        "{found}"
    );
}
