//! More than a gigabyte, from and to our server and through our client, against the tool of libnbd.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::{Served, done, libnbd};
use crate::common::{Dir, Random};

/// No multiple of anything but a sector, and past what fits 30 bits.
const LEN: u64 = (1 << 30) + 12_345 * 512;

#[test]
fn a_gigabyte_and_more_is_the_same_both_ways() {
    if !libnbd() {
        return;
    }
    let dir = Dir::new();
    if crate::common::run_in(dir.root(), "sh", &["-c", "command -v nbdkit"]).code != 0 {
        eprintln!("SKIPPED: nbdkit is not installed");
        return;
    }
    let source = File::create(dir.path("a.raw")).expect("a file");
    source.set_len(LEN).expect("its length");
    let mut random = Random(3);
    for number in 0..40 {
        let mut piece = vec![0; 700_001];
        for word in piece.chunks_mut(8) {
            let bytes = random.next().to_le_bytes();
            word.copy_from_slice(&bytes[..word.len()]);
        }
        let at = match number {
            0 => 0,
            1 => LEN - 700_001,
            _ => random.below(LEN - 700_001),
        };
        source.write_all_at(&piece, at).expect("a piece");
    }
    drop(source);
    for target in ["sent.raw", "taken.raw"] {
        let file = File::create(dir.path(target)).expect("a file");
        file.set_len(LEN).expect("its length");
    }

    // Our client.
    let tool = crate::build::tool().to_string_lossy().into_owned();
    for (file, command) in [
        ("a.raw", "convert -f raw -O raw \"$uri\" got.raw"),
        ("a.raw", "compare -f raw -F raw a.raw \"$uri\""),
        ("sent.raw", "convert -n -f raw -O raw a.raw \"$uri\""),
    ] {
        let run = format!("'{tool}' {command}");
        done(&dir, "nbdkit", &["-U", "-", "file", file, "--run", &run]);
    }
    // Our server.
    let served = Served::ours(&dir, &["-f", "raw", "-r", "a.raw"]);
    done(&dir, "nbdcopy", &[&served.uri(""), "given.raw"]);
    served.end();
    let served = Served::ours(&dir, &["-f", "raw", "-w", "taken.raw"]);
    done(&dir, "nbdcopy", &["--flush", "a.raw", &served.uri("")]);
    // Both of ours.
    let uri = served.uri("");
    done(
        &dir,
        &tool,
        &["compare", "-f", "raw", "-F", "raw", &uri, "a.raw"],
    );
    served.end();
    for copy in ["got.raw", "sent.raw", "given.raw", "taken.raw"] {
        done(&dir, "cmp", &["a.raw", copy]);
    }
}
