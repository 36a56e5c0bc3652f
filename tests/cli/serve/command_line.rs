//! The drop-in for qemu-nbd: the same words and exit codes.

use super::{as_qemu_nbd, done, images, libnbd};
use crate::common::{Dir, run_in};

#[test]
fn wrong_arguments_are_refused_in_qemus_words() {
    let dir = Dir::new();
    images(&dir);
    let ours = as_qemu_nbd(&dir);
    let ours = ours.to_str().expect("a path");
    let socket = dir.str("x.sock");
    for line in [
        "a b",
        "-f raw nofile",
        "-f qcow2 a.raw",
        "-k",
        "--zz",
        "-P 1 a.raw",
        "-k rel.sock -f raw a.raw",
        "-e x -f raw a.raw",
        "-e -1 -f raw a.raw",
        "-o x -f raw a.raw",
        "-o 9M -f raw a.raw",
        "-o -1 -f raw a.raw",
        "-o 99999999 -f raw -k SOCKET a.raw",
        "--cache=bad -f raw a.raw",
        "--aio=bad -f raw a.raw",
        "--aio=threads --aio=threads -f raw a.raw",
        "--discard=bad -f raw a.raw",
        "--discard=unmap --discard=unmap -f raw a.raw",
        "--detect-zeroes=bad -f raw a.raw",
        "--detect-zeroes=unmap -f raw a.raw",
        "-n --cache=none -f raw a.raw",
        "--handshake-limit=x -f raw a.raw",
        "-B nope -k SOCKET -f qcow2 b.qcow2",
        "-l nope -k SOCKET -f qcow2 b.qcow2",
        "-l snapshot.bad=1 -k SOCKET -f qcow2 b.qcow2",
        "--image-opts -f raw driver=raw,file.filename=a.raw",
        "--pid-file=/nodir/x -k SOCKET -f raw a.raw",
        "--tls-authz=z -f raw a.raw",
        "--fork -f raw nofile",
    ] {
        let line = line.replace("SOCKET", &socket);
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if !words.contains(&"-k") {
            // Not the port that others may have.
            words.splice(0..0, ["-k", &socket]);
        }
        let theirs = run_in(dir.root(), "qemu-nbd", &words);
        let mine = run_in(dir.root(), ours, &words);
        // Some messages begin with the path of the program as it was called.
        let shown = mine.err.replace(ours, "qemu-nbd");
        assert_eq!((shown, mine.code), (theirs.err, theirs.code), "{line}");
    }
}

#[test]
fn it_takes_the_socket_of_a_service_manager() {
    if !libnbd() {
        return;
    }
    let dir = Dir::new();
    images(&dir);
    let ours = as_qemu_nbd(&dir);
    let ours = ours.to_str().expect("a path");
    let args = [
        "--size", "--", "[", ours, "-r", "-f", "qcow2", "c.qcow2", "]",
    ];
    assert_eq!(done(&dir, "nbdinfo", &args).trim(), "25165824");
    let copy = [
        "--", "[", ours, "-r", "-e", "4", "-f", "qcow2", "c.qcow2", "]", "copy.raw",
    ];
    done(&dir, "nbdcopy", &copy);
    super::same_file(&dir.path("copy.raw"), &dir.path("a.raw"));
}

#[test]
fn it_goes_to_the_background_and_ends_with_its_client() {
    if !libnbd() {
        return;
    }
    let dir = Dir::new();
    images(&dir);
    let ours = as_qemu_nbd(&dir);
    let ours = ours.to_str().expect("a path");
    let (socket, pid) = (dir.str("f.sock"), dir.path("f.pid"));
    let args = [
        "--fork",
        "-k",
        &socket,
        "--pid-file",
        "f.pid",
        "-f",
        "raw",
        "a.raw",
    ];
    done(&dir, ours, &args);
    let number = std::fs::read_to_string(&pid).expect("the number of the process");
    let process = std::path::PathBuf::from(format!("/proc/{}", number.trim()));
    assert!(process.exists());
    let uri = format!("nbd+unix:///?socket={socket}");
    assert_eq!(done(&dir, "nbdinfo", &["--size", &uri]).trim(), "25165824");
    super::until("the server to end", || {
        let state = std::fs::read_to_string(process.join("stat"));
        state.map_or(true, |state| state.contains(") Z "))
    });
    assert!(!dir.path("f.sock").exists());
}

#[test]
fn what_takes_the_kernels_device_says_so() {
    let dir = Dir::new();
    images(&dir);
    let ours = as_qemu_nbd(&dir);
    for args in [
        &["-c", "/dev/nbd0", "-f", "raw", "a.raw"][..],
        &["-d", "/dev/nbd0"],
    ] {
        let ran = run_in(dir.root(), ours.to_str().expect("a path"), args);
        assert_eq!(ran.code, 1);
        assert!(ran.err.contains("not supported"), "{ran:?}");
    }
}
