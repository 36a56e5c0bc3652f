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
        "--fork --pid-file=/nodir/x -k SOCKET -f raw a.raw",
        "--selinux-label=x -b 127.0.0.1 -p 1 -f raw nofile",
        "--selinux-label=x -k rel.sock -f raw a.raw",
        "--selinux-label",
        "--selinux-label=x -k SOCKET -f raw nofile",
        "--tls-hostname=h -f raw a.raw",
        "--tls-hostname=h --tls-creds=t -f raw a.raw",
        "--tls-hostname=h --tls-creds=t -L -k SOCKET",
        "--tls-creds=t -f raw a.raw",
        "--tls-authz=z --tls-creds=t -f raw a.raw",
        "--tls-authz=z --tls-creds=t -L -k SOCKET",
        "-L a.raw",
        "-L -x n",
        "-L -o 1",
        "-L --fork",
        "-L -v -k SOCKET",
        "-L -b 127.0.0.1 -p 1",
        "-t -t -v -k /nodir/s -f raw a.raw",
        "-b 127.0.0.1 -p x -f raw a.raw",
        "-b nohost.invalid -p 1 -f raw a.raw",
        "-x LONG -k SOCKET -f raw a.raw",
        "-D LONG -k SOCKET -f raw a.raw",
        "-A -k SOCKET",
        "-r -f zzz -k SOCKET a.raw",
        "-s -l x -k SOCKET -f raw a.raw",
        "-s -f zzz -k SOCKET a.raw",
        "-s -f raw -k SOCKET nofile",
        "-l snapshot.id=1,snapshot.name=x -k SOCKET -f qcow2 b.qcow2",
        "--object secret,id=s -k SOCKET -f raw a.raw",
        "--object secret,data=s -k SOCKET -f raw a.raw",
        "-T nope -k SOCKET a b",
        "-B x -B y -k SOCKET -f qcow2 b.qcow2",
        "-n -n -f raw a.raw",
        "--cache=none --cache=none -f raw a.raw",
        "--aio=io_uring --cache=directsync -k SOCKET -f raw nofile",
        "--image-opts driver=raw,file.filename=nofile -k SOCKET",
        "--image-opts driver=nonsense -k SOCKET",
        "--detect-zeroes=unmap --discard=ignore -k SOCKET -f raw a.raw",
        "-k SOCKET nbd://127.0.0.1:1/",
        "-o 0x10 -B nope -k SOCKET -f qcow2 b.qcow2",
        "-o 08 -f raw a.raw",
        "-o 1k -f raw a.raw",
        "-e 08 -f raw a.raw",
        "-e 2147483648 -f raw a.raw",
        "-e 99999999999999999999 -f raw a.raw",
        "--handshake-limit=-1 -f raw a.raw",
        "--handshake-limit=4294967296 -f raw a.raw",
        "--handshake-limit= -f raw a.raw",
        "-d",
        "-d /nodir/nbd",
        "-d a b",
        "-c",
        "-c /nodir/nbd",
        "-c /nodir/nbd -f raw a.raw",
    ] {
        let line = line.replace("SOCKET", &socket);
        let line = line.replace("LONG", &"x".repeat(4097));
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if !words.contains(&"-k") && !words.contains(&"-p") {
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
    // Something that can be opened stands for the device.
    for args in [
        &["-c", "/dev/null", "-f", "raw", "a.raw"][..],
        &["-d", "/dev/null"],
    ] {
        let ran = run_in(dir.root(), ours.to_str().expect("a path"), args);
        assert_eq!(ran.code, 1);
        assert!(ran.err.contains("not supported"), "{ran:?}");
    }
}

#[test]
fn credentials_that_prove_nothing_are_refused_where_they_would_be_used() {
    let dir = Dir::new();
    images(&dir);
    let ours = as_qemu_nbd(&dir);
    let ours = ours.to_str().expect("a path");
    for (endpoint, more) in [("server", &["-f", "raw", "a.raw"][..]), ("client", &["-L"])] {
        let object = format!("tls-creds-anon,id=t,endpoint={endpoint}");
        let words = ["--object", &object, "--tls-creds", "t", "-k", "/nodir/s"];
        let ran = run_in(dir.root(), ours, &[&words[..], more].concat());
        assert_eq!(ran.code, 1);
        assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
        assert!(
            ran.err.contains("tls-creds-anon, which is not supported"),
            "{ran:?}"
        );
    }
}
