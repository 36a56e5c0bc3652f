//! Heads and bodies, split at every byte.

use std::time::Duration;

use super::super::body::Body;
use super::super::head::{ContentRange, Framing, Head};
use super::*;

#[test]
fn heads_are_taken_apart_at_every_cut_and_those_that_lie_are_refused() {
    let text = b"HTTP/1.1 206 P\r\nContent-Length: 5\r\ncontent-range: bytes 5-9/20\r\nETag: \"x\"\r\nRetry-After: 7\r\n\r\nhello";
    let (head, len) = Head::parse(text).unwrap().unwrap();
    assert_eq!(len, text.len() - 5);
    assert_eq!((head.status, head.framing), (206, Framing::Length(5)));
    let range = ContentRange {
        part: Some((5, 10)),
        whole: Some(20),
    };
    assert_eq!(head.range, Some(range));
    assert_eq!(head.retry_after, Some(Duration::from_secs(7)));
    assert!(head.keep);
    for end in 0..len {
        assert!(Head::parse(&text[..end]).unwrap().is_none(), "{end}");
    }
    for (lines, keep, framing) in [
        ("HTTP/1.0 200 A\r\n\r\n", false, Framing::Close),
        (
            "HTTP/1.0 200 A\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n",
            true,
            Framing::Length(1),
        ),
        (
            "HTTP/1.1 200 A\r\nConnection: close\r\nContent-Length: 1\r\n\r\n",
            false,
            Framing::Length(1),
        ),
        (
            "HTTP/1.1 200 A\r\nTransfer-Encoding: chunked\r\n\r\n",
            true,
            Framing::Chunked,
        ),
        ("HTTP/1.1 204 A\r\n\r\n", true, Framing::Length(0)),
    ] {
        let (head, _) = Head::parse(lines.as_bytes()).unwrap().unwrap();
        assert_eq!((head.keep, head.framing), (keep, framing), "{lines}");
    }
    for lines in [
        "220 ftp server\r\n",
        "HTTP/1.1 200 A\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 A\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 A\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 A\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 A\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 206 A\r\nContent-Range: bytes 5-4/9\r\n\r\n",
        "HTTP/1.1 206 A\r\nContent-Range: bytes 0-9/9\r\n\r\n",
        "HTTP/1.1 206 A\r\nContent-Range: lines 0-1/9\r\n\r\n",
        "HTTP/1.1 206 A\r\nContent-Range: bytes 0-18446744073709551615/*\r\n\r\n",
    ] {
        assert!(Head::parse(lines.as_bytes()).is_err(), "{lines}");
    }
    assert!(Head::parse(&b"HTTP/1.1 200 A\r\nx: ".repeat(5000)).is_err());
}

#[test]
fn chunks_are_joined_at_every_cut_and_broken_ones_are_refused() {
    fn read(text: &[u8], step: usize) -> Result<(Vec<u8>, bool)> {
        let mut body = Body::new(Framing::Chunked);
        let mut out = Vec::new();
        for mut piece in text.chunks(step) {
            while !piece.is_empty() && !body.has_ended() {
                let direct = (body.direct() as usize).min(piece.len());
                out.extend_from_slice(&piece[..direct]);
                body.took(direct as u64);
                piece = &piece[direct..];
                piece = &piece[body.skip(piece)?..];
            }
        }
        Ok((out, body.has_ended()))
    }
    let text = b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nT: x\r\n\r\n";
    for step in 1..=text.len() {
        assert_eq!(
            read(text, step).unwrap(),
            (b"hello!".to_vec(), true),
            "{step}"
        );
    }
    assert!(!read(&text[..text.len() - 1], 4).unwrap().1);
    for bad in [
        "\r\n",
        "x\r\n",
        "-1\r\n",
        "1\r\nab\r\n",
        "fffffffffffffffff\r\n",
    ] {
        assert!(read(bad.as_bytes(), 3).is_err(), "{bad}");
    }
    assert!(read(&[b'1'; 5000], 100).is_err());
    assert!(
        read(
            &[b"0\r\n".to_vec(), b"a: b\r\n".repeat(20_000)].concat(),
            999
        )
        .is_err()
    );
}
