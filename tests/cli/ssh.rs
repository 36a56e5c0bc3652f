//! Files of SSH servers, against OpenSSH's server and QEMU's tool.

mod passwords;
pub mod server;

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::beside::{Beside, here, peer_has};
use crate::common::{Dir, Ran};
use crate::pair::{ours, words};
use crate::site::disk;
use server::{Agent, Server, key, sshd_is_missing};

fn run(line: &str, dir: &Dir) -> Ran {
    ours(&words(line), dir.root())
}

#[track_caller]
fn ran(line: &str, dir: &Dir) -> Ran {
    let ran = run(line, dir);
    assert_eq!(ran.code, 0, "{line}: {ran:?}");
    ran
}

fn bytes(dir: &Dir, name: &str) -> Vec<u8> {
    std::fs::read(dir.path(name)).expect("a file")
}

/// The hash of the server's key.
pub fn fingerprint(dir: &Dir, sum: &str) -> String {
    let line = format!("awk '{{print $2}}' host.pub | base64 -d | {sum} | cut -d' ' -f1");
    let ran = crate::common::run_in(dir.root(), "sh", &["-c", &line]);
    ran.out.trim().to_owned()
}

#[test]
fn every_command_works_both_ways() {
    if sshd_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let server = Server::new(&dir);
    let url = |name: &str| server.url(name);
    ran(
        &format!("convert -f raw -O raw a.raw {}", url("b.raw")),
        &dir,
    );
    assert!(bytes(&dir, "b.raw") == bytes(&dir, "a.raw"));
    ran(
        &format!("convert -f raw -O raw {} c.raw", url("a.raw")),
        &dir,
    );
    assert!(bytes(&dir, "c.raw") == bytes(&dir, "a.raw"));
    for options in ["", "-c ", "-W "] {
        let _ = std::fs::remove_file(dir.path("d.qcow2"));
        ran(
            &format!("convert {options}-f raw -O qcow2 a.raw {}", url("d.qcow2")),
            &dir,
        );
        let theirs = dir.qemu_img(&words("compare a.raw d.qcow2"));
        assert_eq!(theirs.code, 0, "{options}: {theirs:?}");
        ran(&format!("compare -f raw a.raw {}", url("d.qcow2")), &dir);
        ran(&format!("check {}", url("d.qcow2")), &dir);
    }
    for line in [
        "map --output=json U",
        "measure -O qcow2 U",
        "snapshot -c s U",
        "snapshot -l U",
        "resize U 9M",
        "resize --shrink U 8M",
        "rebase -u -b '' U",
        "amend -o lazy_refcounts=on U",
        "bench -c 10 -w -f qcow2 U",
        "bitmap --add U b",
        "snapshot -d s U",
        "check U",
    ] {
        ran(&line.replace('U', &url("d.qcow2")), &dir);
    }
    let checked = dir.qemu_img(&words("check d.qcow2"));
    assert_eq!(checked.code, 0, "{checked:?}");
    ran(&format!("create -f raw {} 1M", url("b.raw")), &dir);
    assert!(bytes(&dir, "b.raw") == vec![0; 1 << 20]);
    ran(&format!("resize -f raw {} 2M", url("b.raw")), &dir);
    ran(
        &format!(
            "dd -f raw -O raw bs=1M count=2 if={} of=e.raw",
            url("a.raw")
        ),
        &dir,
    );
    assert!(bytes(&dir, "e.raw") == bytes(&dir, "a.raw")[..2 << 20]);
    // An overlay here of an image there.
    let base = url("d.qcow2");
    ran(
        &format!("create -q -f qcow2 -b {base} -F qcow2 over.qcow2"),
        &dir,
    );
    ran("bench -c 10 -w -f qcow2 over.qcow2", &dir);
    ran("commit over.qcow2", &dir);
    assert_eq!(dir.qemu_img(&words("check d.qcow2")).code, 0);
    assert!(!ran("info d.qcow2", &dir).out.contains("host_key_check"));
}

#[test]
fn names_are_shown_as_the_peer_shows_them() {
    if sshd_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let server = Server::new(&dir);
    let (root, port) = (dir.root().display(), server.port);
    let shown = format!("ssh://root@127.0.0.1:{port}{root}/a.raw");
    let info = ran(&format!("info {}", server.url("a.raw")), &dir).out;
    assert!(
        info.starts_with(&format!(
            "image: {shown}?host_key_check=no\nfile format: raw\n"
        )),
        "{info}"
    );
    assert!(
        info.contains("    protocol type: ssh\n    file length: 8 MiB"),
        "{info}"
    );
    assert!(!info.contains("identity"), "{info}");
    let options = format!(
        "driver=ssh,server.host=127.0.0.1,server.port={port},path={root}/a.raw,user=root,host-key-check.mode=none,identity={root}/id"
    );
    let info = ran(&format!("info --image-opts {options}"), &dir).out;
    assert!(
        info.starts_with(&format!("image: {shown}\nfile format: ssh\n")),
        "{info}"
    );
    let json = format!(
        "json:{{\"driver\":\"ssh\",\"server\":{{\"host\":\"127.0.0.1\",\"port\":\"{port}\"}},\"path\":\"{root}/a.raw\",\"user\":\"root\",\"host-key-check\":{{\"mode\":\"none\"}},\"identity\":\"{root}/id\"}}"
    );
    let info = ran(&format!("info {json}"), &dir).out;
    assert!(info.starts_with(&format!("image: {shown}\n")), "{info}");
    // The peer opens by the same names, with an agent.
    let agent = format!(
        "eval $(ssh-agent -a {root}/agent) >/dev/null; ssh-add -q id; qemu-img info {shown}?host_key_check=no; RC=$?; ssh-agent -k >/dev/null; exit $RC"
    );
    let theirs = crate::common::run_in(dir.root(), "sh", &["-c", &agent]);
    // Debian has its driver in a package of its own; `make check` counts it where that is not there.
    if theirs.err.contains("Unable to load module ssh") {
        return eprintln!("SKIPPED: QEMU's tool has no ssh here");
    }
    assert_eq!(theirs.code, 0, "{theirs:?}");
    let ours = ran(&format!("info {}", server.url("a.raw")), &dir);
    assert_eq!(theirs.out, ours.out);
}

#[test]
fn both_tools_tell_the_same_and_read_what_the_other_wrote() {
    if sshd_is_missing() || !peer_has("ssh") {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let server = Server::new(&dir);
    let (root, port) = (dir.root().display(), server.port);
    let agent = Agent::new(&dir);
    let beside = Beside {
        dir: &dir,
        command: &|program, args| {
            here(
                dir.root(),
                &[("SSH_AUTH_SOCK", &agent.socket)],
                program,
                args,
            )
        },
        name: &|name| server.url_with(name, "host_key_check=no"),
        options: &|name| {
            format!(
                "driver=ssh,server.host=127.0.0.1,server.port={port},path={root}/{name},user=root,host-key-check.mode=none"
            )
        },
        renamed: &|text| text,
    };
    std::fs::copy(dir.path("a.raw"), dir.path("r")).expect("an image");
    dir.qemu_img_ok(&words("convert -f raw -O qcow2 a.raw q"));
    beside.tells();
    beside.crosses("");
    beside.same(&[
        "create -f raw U/new 1M",
        "create -f qcow2 U/new2 1M",
        "info U/new2",
        "resize -f raw U/new 2M",
        "info U/new",
        "info --image-opts driver=ssh",
        "info ssh://127.0.0.1:1/x",
        "info ssh:///x",
    ]);
}

#[test]
fn what_cannot_be_opened_is_told_in_one_line() {
    if sshd_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let server = Server::new(&dir);
    for (name, text) in [
        (server.url("none"), "failed to open remote file"),
        (server.url("none"), "SFTP server: No such file"),
        (server.url(""), "Is a directory"),
        (
            "ssh://root@127.0.0.1:1/x?host_key_check=no".to_owned(),
            "Failed to connect to '127.0.0.1:1': Connection refused",
        ),
        (
            server.url_with("a.raw", "bogus=1"),
            "Unsupported parameter 'bogus' in URI",
        ),
    ] {
        let ran = run(&format!("info {name}"), &dir);
        assert_eq!(ran.code, 1, "{name}: {ran:?}");
        assert!(ran.err.contains(text), "{name}: {ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
    }
    let ran = run(&format!("create -f raw {} 1M", server.url("none/x")), &dir);
    assert!(ran.code == 1 && ran.err.contains("No such file"), "{ran:?}");
    // What was made is removed again, what was there stays.
    let ran = run(
        &format!("convert -f qcow2 -O raw a.raw {}", server.url("new.raw")),
        &dir,
    );
    assert!(ran.code == 1 && !dir.path("new.raw").exists(), "{ran:?}");
}

#[test]
fn hosts_and_users_prove_who_they_are() {
    if sshd_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let server = Server::new(&dir);
    let root = dir.root().display().to_string();
    let (id, port) = (format!("identity={root}/id"), server.port);
    let known = |line: String| std::fs::write(dir.path("known"), line).expect("known hosts");
    let public = |name: &str| {
        let text = std::fs::read_to_string(dir.path(name)).expect("a public key");
        text.split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let by = |query: &str| run(&format!("info {}", server.url_with("a.raw", query)), &dir);
    let refused = |query: &str, text: &str| {
        let ran = by(query);
        assert!(ran.code == 1 && ran.err.contains(text), "{query}: {ran:?}");
    };
    for (name, sum) in [
        ("md5", "md5sum"),
        ("sha1", "sha1sum"),
        ("sha256", "sha256sum"),
    ] {
        let hash = fingerprint(&dir, sum);
        assert_eq!(
            by(&format!("host_key_check={name}:{hash}&{id}")).code,
            0,
            "{name}"
        );
        assert_eq!(
            by(&format!(
                "host_key_check={name}:{}&{id}",
                hash.to_uppercase()
            ))
            .code,
            0
        );
    }
    let hash = fingerprint(&dir, "md5sum");
    refused(
        &format!("host_key_check=md5:00&{id}"),
        &format!(
            "remote host ssh-ed25519 key fingerprint 'md5:{hash}' does not match host_key_check 'md5:00'"
        ),
    );
    let file = format!("known-hosts={root}/known&{id}");
    known(format!("[127.0.0.1]:{port} {}\n", public("host.pub")));
    assert_eq!(by(&file).code, 0);
    known(format!("[127.0.0.1]:{port} {}\n", public("stranger.pub")));
    refused(
        &file,
        "does not match the one in known_hosts; this may be a possible attack",
    );
    key(&dir, "ec", "ecdsa", "");
    known(format!("[127.0.0.1]:{port} {}\n", public("ec.pub")));
    refused(
        &file,
        "host key for this server not found, another type exists",
    );
    known(String::new());
    refused(&file, "no host key was found in known_hosts");
    refused(&file, "The server has an ssh-ed25519 key");

    refused(
        &format!("host_key_check=no&identity={root}/stranger"),
        "failed to authenticate as 'root'",
    );
    refused(
        &format!("host_key_check=no&identity={root}/a.raw"),
        "cannot be read",
    );
    refused(
        &format!("host_key_check=no&identity={root}/locked"),
        "cannot be read",
    );
    let locked = server.url_with(
        "a.raw",
        &format!("host_key_check=no&identity={root}/locked&identity-secret=s"),
    );
    std::fs::write(dir.path("phrase"), "open sesame").expect("a secret");
    let opened = ran(
        &format!("info --object secret,id=s,file=phrase {locked}"),
        &dir,
    );
    assert!(!opened.out.contains("sesame"));
    let wrong = run(&format!("info --object secret,id=s,data=x {locked}"), &dir);
    assert!(
        wrong.code == 1 && wrong.err.contains("its passphrase is another one"),
        "{wrong:?}"
    );
    let password = server.url_with("a.raw", "host_key_check=no&password-secret=s");
    let wrong = run(
        &format!("info --object secret,id=s,data=hunter2 {password}"),
        &dir,
    );
    assert!(
        wrong.code == 1 && wrong.err.contains("using the password"),
        "{wrong:?}"
    );
    assert!(!wrong.err.contains("hunter2"), "{wrong:?}");
}

#[test]
fn a_server_that_is_no_server_of_files_is_left_in_time() {
    if sshd_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    for (program, text) in [
        ("/bin/echo hello", "The server"),
        ("/bin/true", "The server ended the connection"),
        (
            "/bin/cat",
            "The server does not answer as an SFTP server does",
        ),
        ("/usr/bin/head -c 100000 /dev/urandom", "The server"),
    ] {
        let server = Server::with(&dir, program);
        let begun = Instant::now();
        let ran = run(&format!("info {}", server.url("a.raw")), &dir);
        assert!(
            ran.code == 1 && ran.err.contains(text),
            "{program}: {ran:?}"
        );
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn a_server_without_fsync_is_told_once() {
    if sshd_is_missing() {
        return;
    }
    let dir = Dir::new();
    let server = Server::with(&dir, "internal-sftp -P fsync");
    let made = ran(
        &format!("create -q -f qcow2 {} 1M", server.url("a.qcow2")),
        &dir,
    );
    let count = made.err.matches("does not support fsync").count();
    assert!(count <= 1, "{made:?}");
    let opened = ran(&format!("resize {} 2M", server.url("a.qcow2")), &dir);
    assert!(
        opened
            .err
            .contains("ssh server 127.0.0.1 does not support fsync"),
        "{opened:?}"
    );
}

/// Ends the processes of the server that have connections; the one that listens stays.
fn kill_connections(server: &Server, dir: &Dir) {
    let line = format!("ss -Htnp state established '( sport = :{} )'", server.port);
    let found = crate::common::run_in(dir.root(), "sh", &["-c", &line]).out;
    let pids = found
        .split("pid=")
        .skip(1)
        .filter_map(|part| part.split(',').next());
    for pid in pids {
        let _ = Command::new("kill").args(["-9", pid]).status();
    }
}

/// Waits until a file holds something.
fn wait_for_data(dir: &Dir, name: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    // What is to be filled is emptied first.
    while !std::fs::metadata(dir.path(name)).is_ok_and(|meta| meta.blocks() > 0) {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_write_ends_with_an_error_when_the_server_is_killed() {
    if sshd_is_missing() {
        return;
    }
    let dir = Dir::new();
    std::fs::write(dir.path("a.raw"), vec![7; 64 << 20]).expect("a file");
    let mut server = Server::new(&dir);
    // The connection alone, and then the server too.
    for whole in [false, true] {
        let line = format!(
            "convert -f raw -O raw -r 8M a.raw {}",
            server.url("out.raw")
        );
        let child = crate::pair::ours_command(&words(&line), dir.root())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the tool");
        wait_for_data(&dir, "out.raw");
        if whole {
            server.end();
        }
        kill_connections(&server, &dir);
        let begun = Instant::now();
        let out = child.wait_with_output().expect("its end");
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{text}");
        assert!(begun.elapsed() < Duration::from_secs(30));
        // What stays is told beside the error.
        let lines = 1 + usize::from(whole);
        assert_eq!(text.trim_end().lines().count(), lines, "{text}");
        // Where a server is left, what was made is removed.
        assert_eq!(dir.path("out.raw").exists(), whole, "{text}");
    }
}

#[test]
fn a_file_that_was_to_be_filled_is_empty_after_a_cancel() {
    if sshd_is_missing() {
        return;
    }
    let dir = Dir::new();
    std::fs::write(dir.path("a.raw"), vec![7; 64 << 20]).expect("a file");
    std::fs::File::create(dir.path("out.raw")).expect("a file");
    let server = Server::new(&dir);
    let line = format!(
        "convert -f raw -O raw -r 8M a.raw {}",
        server.url("out.raw")
    );
    let mut child = crate::pair::ours_command(&words(&line), dir.root())
        .spawn()
        .expect("the tool");
    wait_for_data(&dir, "out.raw");
    let pid = child.id().to_string();
    let _ = Command::new("kill").args(["-TERM", &pid]).status();
    let status = child.wait().expect("its end");
    assert!(!status.success(), "{status:?}");
    assert_eq!(bytes(&dir, "out.raw").len(), 0);
}

#[test]
fn a_read_goes_on_when_the_connection_is_killed() {
    if sshd_is_missing() {
        return;
    }
    let dir = Dir::new();
    let file = std::fs::File::create(dir.path("a.raw")).expect("a file");
    file.set_len(256 << 20).expect("its length");
    let server = Server::new(&dir);
    // Slow enough to be met in the middle.
    let line = format!(
        "convert -f raw -O raw -r 100M {} out.raw",
        server.url("a.raw")
    );
    let args = words(&line);
    let mut child = crate::pair::ours_command(&args, dir.root())
        .spawn()
        .expect("the tool");
    let deadline = Instant::now() + Duration::from_secs(30);
    while std::fs::metadata(dir.path("out.raw")).map_or(0, |meta| meta.len()) == 0 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_connections(&server, &dir);
    let status = child.wait().expect("its end");
    assert!(status.success(), "{status:?}");
    assert_eq!(
        std::fs::metadata(dir.path("out.raw"))
            .expect("a file")
            .len(),
        256 << 20
    );
}

#[test]
fn no_connection_is_left_when_an_image_is_closed_or_refused() {
    if sshd_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let server = Server::new(&dir);
    let root = dir.root().display();
    let options = platter::OpenOptions {
        format: Some("raw".to_owned()),
        policy: platter::OpenPolicy::permissive(),
        ..platter::OpenOptions::default()
    };
    for (query, is_good) in [
        ("host_key_check=no", true),
        ("host_key_check=md5:00", false),
    ] {
        let url = server.url_with("a.raw", &format!("{query}&identity={root}/id"));
        let location = platter::Location::parse(&url).expect("a name");
        for _ in 0..3 {
            let opened = platter::Image::open(&location, &options);
            assert_eq!(opened.is_ok(), is_good, "{opened:?}");
        }
        // Those of this end that are still open.
        let states = "state established state close-wait";
        let line = format!("ss -Htn {states} '( dport = :{} )'", server.port);
        let ran = crate::common::run_in(dir.root(), "sh", &["-c", &line]);
        assert_eq!((ran.code, ran.out.trim()), (0, ""), "{query}");
    }
}
