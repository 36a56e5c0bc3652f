//! What a server is asked to bring near.

use std::path::Path;

use platter::job::JobControl;
use platter::{Image, Location, OpenOptions, OpenPolicy};

use super::server::{Server, nbdkit_is_missing};
use crate::common::Dir;
use crate::serve::Served;

const PIECE: u64 = 256 << 10;

fn prefetch(uri: &str, offset: u64, len: u64) {
    let options = OpenOptions {
        format: Some("raw".to_owned()),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let image = Image::open(&Location::parse(uri).unwrap(), &options).unwrap();
    let control = JobControl::default();
    image.prefetch(offset, len, &control).unwrap();
    image.close().unwrap();
}

/// The ranges that were asked for, as far as the log goes, without those that are told to have ended.
fn asked(log: &Path, command: &str) -> Vec<(u64, u64)> {
    let text = std::fs::read_to_string(log).unwrap();
    let number = |line: &str, key: &str| {
        let (_, rest) = line.split_once(key)?;
        let digits = rest.split(' ').next()?.trim_start_matches("0x");
        u64::from_str_radix(digits, 16).ok()
    };
    let command = format!(" {command} id=");
    let lines = text.lines().filter(|line| line.contains(&command));
    let mut all: Vec<_> = lines
        .filter_map(|line| Some((number(line, " offset=")?, number(line, " count=")?)))
        .collect();
    all.sort_unstable();
    all
}

#[test]
fn a_server_is_asked_to_bring_the_data_near_and_not_the_holes() {
    if nbdkit_is_missing() {
        return;
    }
    let dir = Dir::new();
    super::disk(&dir, "a.raw");
    let log = dir.path("log");
    let args = ["--filter=log", "file", "a.raw"].map(str::to_owned);
    let args = [&args[..], &[format!("logfile={}", log.display())]].concat();
    let server = Server::nbdkit(&dir, "s", &args);
    let uri = format!("nbd+unix:///?socket={}", server.socket());
    let data: Vec<_> = (0..32)
        .step_by(3)
        .map(|piece| (piece * PIECE, PIECE))
        .collect();
    prefetch(&uri, 0, 8 << 20);
    assert_eq!(asked(&log, "Cache"), data);
    // What a client asks our server for is passed on.
    let served = Served::ours(&dir, &["-f", "raw", &uri]);
    std::fs::write(&log, "").unwrap();
    prefetch(&served.uri(""), 3 * PIECE, 1 << 20);
    served.end();
    assert_eq!(asked(&log, "Cache"), data[1..3]);
    assert!(asked(&log, "Read").iter().all(|(_, len)| *len < PIECE));
}

#[test]
fn what_a_server_does_not_bring_near_is_read() {
    if nbdkit_is_missing() {
        return;
    }
    let dir = Dir::new();
    super::disk(&dir, "a.raw");
    let log = dir.path("log");
    let args = ["--filter=log", "--filter=nocache", "file", "a.raw"].map(str::to_owned);
    let none = [
        format!("logfile={}", log.display()),
        "cachemode=none".to_owned(),
    ];
    let server = Server::nbdkit(&dir, "s", &[&args[..], &none].concat());
    let uri = format!("nbd+unix:///?socket={}", server.socket());
    prefetch(&uri, 6 * PIECE, PIECE);
    assert_eq!(asked(&log, "Cache"), []);
    assert!(asked(&log, "Read").contains(&(6 * PIECE, PIECE)));
}
