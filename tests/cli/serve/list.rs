//! The list of what a server exports, as the drop-in for qemu-nbd prints it.

use super::{Served, as_qemu_nbd, images};
use crate::common::{Dir, Ran, run_in};
use crate::tls::certificates;

/// What both tools print; they must say the same.
fn same(dir: &Dir, line: &[&str]) -> Ran {
    let path = as_qemu_nbd(dir);
    let path = path.to_str().expect("a path");
    let theirs = run_in(dir.root(), "qemu-nbd", line);
    let ours = run_in(dir.root(), path, line);
    let shown = ours.err.replace(path, "qemu-nbd");
    assert_eq!(
        (&ours.out, shown, ours.code),
        (&theirs.out, theirs.err, theirs.code),
        "{line:?}"
    );
    ours
}

#[test]
fn lists_are_those_of_qemus_tool() {
    let dir = Dir::new();
    images(&dir);
    for args in [
        &["-f", "qcow2", "-x", "a b", "-D", "words", "-A", "b.qcow2"][..],
        &["-r", "-f", "raw", "a.raw"],
    ] {
        for ours in [true, false] {
            let served = match ours {
                true => Served::ours(&dir, args),
                false => Served::theirs(&dir, args),
            };
            let socket = served.socket.to_str().expect("a path");
            let ran = same(&dir, &["--list", "-k", socket]);
            assert_eq!(ran.code, 0, "{ran:?}");
            served.end();
        }
    }
}

#[test]
fn options_that_do_not_go_with_a_list_are_refused_in_qemus_words() {
    let dir = Dir::new();
    let socket = dir.str("none.sock");
    for line in [
        "",
        "a.raw",
        "-x a",
        "-D a",
        "-A",
        "-B a",
        "-f raw",
        "-l a",
        "-n",
        "--cache=none",
        "--aio=threads",
        "--discard=ignore",
        "-o 0",
        "-o 1",
        "-o 1 a.raw",
        "-r -s -v -e 3 -t --handshake-limit=3 --detect-zeroes=on --pid-file=/nodir/x",
        "--fork",
        "--fork a.raw",
        "--fork -x a",
        "--fork --tls-hostname=a",
        "--image-opts",
        "--image-opts -f raw",
        "--detect-zeroes=unmap",
        "--tls-authz=x",
        "--tls-authz=x a.raw",
        "--tls-hostname=a",
        "--tls-creds=x",
        "--tls-creds=x a.raw",
        "--tls-creds=x --tls-authz=x",
        "--tls-creds=x --tls-hostname=x",
    ] {
        let words = ["-L", "-k", &socket]
            .into_iter()
            .chain(line.split_whitespace());
        let ran = same(&dir, &words.collect::<Vec<_>>());
        assert_eq!(ran.code, 1, "{line}");
    }
    same(&dir, &["-L", "-k", "relative"]);
    same(&dir, &["-L", "-b", "127.0.0.1", "-p", "1"]);
    same(&dir, &["-L", "-b", "::1", "-p", "1"]);
    same(&dir, &["--tls-hostname=a", "-k", &socket, "a.raw"]);
    same(
        &dir,
        &["--tls-creds=x", "--tls-hostname=a", "-k", &socket, "a.raw"],
    );
}

#[test]
fn servers_that_want_tls_list_what_they_have_under_it_alone() {
    let Some(made) = certificates() else {
        return;
    };
    let dir = Dir::new();
    images(&dir);
    let files = made.path();
    std::fs::copy(files.join("ca.pem"), files.join("ca-cert.pem")).expect("a copy");
    let own = format!("tls-creds-x509,dir={}", files.display());
    let server = format!("{own},id=t,endpoint=server");
    let args = [
        "-f",
        "raw",
        "--object",
        &server,
        "--tls-creds",
        "t",
        "a.raw",
    ];
    let served = Served::ours(&dir, &args);
    let socket = served.socket.to_str().expect("a path");
    let client = format!("{own},id=c,endpoint=client");
    let line = [
        "-L",
        "-k",
        socket,
        "--object",
        &client,
        "--tls-creds",
        "c",
        "--tls-hostname",
        "localhost",
    ];
    assert_eq!(same(&dir, &line).code, 0);
    assert_eq!(same(&dir, &["-L", "-k", socket]).code, 1);
    served.end();
}
