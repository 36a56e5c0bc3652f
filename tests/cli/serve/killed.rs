//! Our server, killed in the middle of whatever a client does: the client ends and says why, or goes on with the
//! server that comes next, and the image is whole.

use std::process::{Child, Command, Stdio};

use super::{Served, images, libnbd, until};
use crate::common::Dir;

/// Ours, so slow that it can be killed in the middle.
fn slow(dir: &Dir, format: &str, file: &str) -> Served {
    let opts = format!(
        "driver={format},file.driver=throttle,file.throttle-group=g,file.file.driver=file,file.file.filename={file}"
    );
    let group = "throttle-group,id=g,limits.bps-total=4194304";
    Served::ours(dir, &["--object", group, "--image-opts", &opts])
}

/// Bytes that a server has read and written.
fn moved(served: &Served) -> u64 {
    let path = format!("/proc/{}/io", served.child.id());
    let text = std::fs::read_to_string(path).expect("the I/O of the server");
    let lines = text.lines().filter(|line| {
        let name = line.split(':').next().unwrap_or_default();
        name == "rchar" || name == "wchar"
    });
    let numbers = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    numbers.sum()
}

fn start(dir: &Dir, words: &[&str]) -> Child {
    let (program, args) = words.split_first().expect("a program");
    let mut command = match *program {
        "ours" => Command::new(crate::build::tool()),
        other => Command::new(other),
    };
    command
        .args(args)
        .current_dir(dir.root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a client")
}

/// The end of a client: its exit code and what it said.
fn end(mut client: Child, words: &[&str]) -> (i32, String) {
    until(&format!("the end of {words:?}"), || {
        client.try_wait().expect("to look at the client").is_some()
    });
    let output = client.wait_with_output().expect("its end");
    // Some tell of errors where they tell of everything.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

/// Kills a server once it has moved a mebibyte for a client, which is still there then.
fn kill_in_the_middle(served: Served, client: &mut Child, words: &[&str]) {
    let begin = moved(&served);
    until("the server to work", || {
        let ended = client.try_wait().expect("to look at the client");
        assert!(ended.is_none(), "{words:?} was faster: {ended:?}");
        moved(&served) > begin + (1 << 20)
    });
    served.signal("-KILL");
    served.wait();
}

#[test]
fn clients_of_a_server_that_is_killed_say_so_and_end() {
    if !libnbd() {
        return;
    }
    let dir = Dir::new();
    images(&dir);
    for line in [
        "qemu-img convert -f raw -O raw URI out.raw",
        "qemu-img compare -f raw -F raw a.raw URI",
        "qemu-io -r -f raw -c read§0§24M URI",
        "nbdcopy URI null:",
        "ours convert -f raw -O raw URI out.raw",
        "ours compare -f raw -F raw a.raw URI",
        "ours dd -f raw -O raw if=URI of=out.raw bs=64k",
        "qemu-img convert -n -f raw -O raw a.raw URI",
        "qemu-io -f raw -c write§-P§5§0§24M URI",
        "nbdcopy a.raw URI",
        "ours convert -n -f raw -O raw a.raw URI",
    ] {
        std::fs::copy(dir.path("b.qcow2"), dir.path("k.qcow2")).expect("a copy");
        let served = slow(&dir, "qcow2", "k.qcow2");
        let line = line.replace("URI", &served.uri(""));
        let words: Vec<String> = line.split(' ').map(|word| word.replace('§', " ")).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut client = start(&dir, &words);
        kill_in_the_middle(served, &mut client, &words);
        let (code, text) = end(client, &words);
        assert!(code > 0 && !text.is_empty(), "{words:?}: {code} {text}");
        let check = dir.qemu_img(&["check", "-f", "qcow2", "k.qcow2"]);
        // What was reserved may be lost, but nothing is wrong.
        assert!(check.code == 0 || check.code == 3, "{words:?}: {check:?}");
    }
}

#[test]
fn clients_that_wait_for_a_server_that_is_killed_say_so_and_end() {
    if !libnbd() {
        return;
    }
    let dir = Dir::new();
    images(&dir);
    for line in [
        "qemu-img map -f raw URI",
        "qemu-img info -f raw URI",
        "nbdinfo URI",
        "ours map -f raw URI",
        "ours info -f raw URI",
    ] {
        let served = Served::ours(&dir, &["-f", "raw", "a.raw"]);
        served.signal("-STOP");
        let line = line.replace("URI", &served.uri(""));
        let words: Vec<&str> = line.split(' ').collect();
        let client = start(&dir, &words);
        let descriptors = format!("/proc/{}/fd", client.id());
        until("the client to connect", || {
            let open = std::fs::read_dir(&descriptors).expect("the descriptors");
            let mut names = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
            names.any(|name| name.to_string_lossy().starts_with("socket:"))
        });
        served.signal("-KILL");
        served.wait();
        let (code, text) = end(client, &words);
        assert!(code > 0 && !text.is_empty(), "{words:?}: {code} {text}");
    }
}

#[test]
fn our_client_goes_on_with_the_server_that_comes_next() {
    let dir = Dir::new();
    images(&dir);
    for line in [
        "ours convert -O raw --image-opts EXPORT out.raw",
        "ours compare --image-opts driver=raw,file.filename=a.raw EXPORT",
        "ours convert -n -f raw --target-image-opts a.raw EXPORT",
    ] {
        std::fs::copy(dir.path("b.qcow2"), dir.path("k.qcow2")).expect("a copy");
        if line.contains("-n") {
            dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "k.qcow2", "24M"]);
        }
        let served = slow(&dir, "qcow2", "k.qcow2");
        let export = format!(
            "driver=raw,file.driver=nbd,file.path={},file.reconnect-delay=60",
            served.socket.display()
        );
        let line = line.replace("EXPORT", &export);
        let words: Vec<&str> = line.split(' ').collect();
        let mut client = start(&dir, &words);
        kill_in_the_middle(served, &mut client, &words);
        let check = dir.qemu_img(&["check", "-f", "qcow2", "k.qcow2"]);
        assert!(check.code == 0 || check.code == 3, "{words:?}: {check:?}");
        let next = Served::ours(&dir, &["-f", "qcow2", "k.qcow2"]);
        let (code, text) = end(client, &words);
        assert_eq!(code, 0, "{words:?}: {text}");
        next.end();
        let same = [
            "compare", "-q", "-f", "raw", "-F", "qcow2", "a.raw", "k.qcow2",
        ];
        dir.qemu_img_ok(&same);
        if line.contains("out.raw") {
            super::same_file(&dir.path("a.raw"), &dir.path("out.raw"));
        }
    }
}
