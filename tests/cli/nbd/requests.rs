//! What goes over the wire besides the bytes: flags of requests, and the number of connections.

use super::server::{Server, nbdkit_is_missing};
use super::{disk, ran};
use crate::common::Dir;

/// What nbdkit's log has of a conversion into a new server with these filters and their parameters.
fn log_of(dir: &Dir, name: &str, filters: &[&str], convert: &str, options: &str) -> Vec<String> {
    let log = dir.path(&format!("{name}.log"));
    let parameter = format!("logfile={}", log.display());
    let is_filter = |word: &&&str| word.starts_with("--");
    let args: Vec<_> = ["--filter=log"]
        .iter()
        .chain(filters.iter().filter(is_filter))
        .chain(&["memory", "8M", &parameter])
        .chain(filters.iter().filter(|word| !is_filter(word)))
        .map(|word| (*word).to_owned())
        .collect();
    let server = Server::nbdkit(dir, name, &args);
    let target = format!(
        "driver=raw,file.driver=nbd,file.server.type=unix,file.server.path={}{options}",
        server.socket()
    );
    ran(
        &format!("convert -n -f raw --target-image-opts {convert} a.raw {target}"),
        dir,
    );
    drop(server);
    let text = std::fs::read_to_string(log).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn changes_are_durable_one_by_one_only_where_the_cache_mode_wants_it() {
    if nbdkit_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    for (mode, fua) in [
        ("writeback", "0"),
        ("none", "0"),
        ("unsafe", "0"),
        ("writethrough", "1"),
        ("directsync", "1"),
    ] {
        let log = log_of(&dir, mode, &[], &format!("-t {mode}"), "");
        for command in ["Write", "Zero"] {
            let asked = format!(" {command} id=");
            let mut flags: Vec<_> = log
                .iter()
                .filter(|line| line.contains(&asked))
                .filter_map(|line| Some(line.split_once(" fua=")?.1.get(..1)?.to_owned()))
                .collect();
            assert!(!flags.is_empty(), "{mode}: no {command}");
            flags.dedup();
            assert_eq!(flags, [fua], "{mode}: {command}");
        }
        let flushes = log.iter().any(|line| line.contains(" Flush id="));
        assert_eq!(flushes, mode != "unsafe", "{mode}");
    }
}

#[test]
fn as_many_connections_are_made_as_the_server_and_the_caller_allow() {
    if nbdkit_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let delay = "--filter=delay";
    let wait = "wdelay=50ms";
    let one = [
        "--filter=multi-conn",
        delay,
        wait,
        "multi-conn-mode=disable",
    ];
    for (name, filters, options, least, most) in [
        ("default", &[delay, wait][..], "", 2, 4),
        ("three", &[delay, wait][..], ",file.connections=3", 2, 3),
        ("caller", &[delay, wait][..], ",file.connections=1", 1, 1),
        ("server", &one[..], ",file.connections=8", 1, 1),
    ] {
        let log = log_of(&dir, name, filters, "-m 8", options);
        let made = log.iter().filter(|line| line.contains(" Connect export="));
        let made = made.count();
        assert!((least..=most).contains(&made), "{name}: {made}");
    }
}
