//! Exports of NBD servers, against QEMU's tool and the servers of others.

mod faults;
mod list;
mod one_connection;
mod prefetch;
mod requests;
mod scripted;
pub mod server;
mod tls;

use std::io::Write;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Dir, Ran, Random};
use crate::pair::{ours, ours_command, without_advice, words};
use server::{Server, nbdkit_is_missing};

fn run(line: &str, dir: &Dir) -> Ran {
    ours(&words(line), dir.root())
}

#[track_caller]
fn ran(line: &str, dir: &Dir) -> Ran {
    let ran = run(line, dir);
    assert_eq!(ran.code, 0, "{line}: {ran:?}");
    ran
}

/// Runs a command line with both tools, which must say the same.
#[track_caller]
fn same(line: &str, dir: &Dir) -> Ran {
    let theirs = dir.qemu_img(&words(line));
    let ours = run(line, dir);
    let plain = |text: &str| text.replace("qemu-img", "platter-img");
    assert_eq!(plain(&theirs.out), plain(&ours.out), "{line}");
    let said = without_advice(&plain(&ours.err));
    assert_eq!(plain(&theirs.err), said, "{line}");
    assert_eq!(theirs.code, ours.code, "{line}");
    ours
}

/// A disk of 8 MiB with data and holes.
fn disk(dir: &Dir, name: &str) {
    let mut random = Random(7);
    let mut bytes = vec![0; 8 << 20];
    for piece in bytes.chunks_mut(256 << 10).step_by(3) {
        for word in piece.chunks_exact_mut(8) {
            word.copy_from_slice(&random.next().to_le_bytes());
        }
    }
    std::fs::write(dir.path(name), bytes).unwrap();
    let ran = crate::common::run_in(dir.root(), "fallocate", &["-d", name]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

fn bytes(dir: &Dir, name: &str) -> Vec<u8> {
    std::fs::read(dir.path(name)).unwrap()
}

#[test]
fn names_and_reports_are_those_of_the_peer() {
    let dir = Dir::new();
    dir.qemu_img_ok(&words("create -q -f qcow2 a.qcow2 8M"));
    let server = Server::qemu_nbd(&dir, "s", &["-f", "qcow2", "-x", "e", "-e", "8", "a.qcow2"]);
    let socket = server.socket();
    for name in [
        format!("nbd+unix:///e?socket={socket}"),
        format!("nbd:unix:{socket}:exportname=e"),
    ] {
        for command in [
            "info",
            "info --output=json",
            "map --output=json",
            "check",
            "measure -O qcow2",
        ] {
            same(&format!("{command} {name}"), &dir);
        }
    }
    for options in [
        "driver=nbd,server.type=unix,server.path=S,export=e",
        "driver=nbd,path=S,export=e,reconnect-delay=1",
        "driver=raw,offset=512,file.driver=nbd,file.path=S,file.export=e",
        "driver=nbd,path=S,export=e,host=h",
        "driver=nbd,path=S,export=e,bogus=1",
        "driver=nbd,export=e",
        "driver=nbd,server.path=S,export=e",
        "driver=nbd,server.type=unix,server.path=S,path=S",
        "driver=nbd,server.type=inet,server.host=h",
        "driver=nbd,server.type=x",
    ] {
        let options = options.replace('S', &socket);
        same(&format!("info --image-opts {options}"), &dir);
    }
}

#[test]
fn what_cannot_be_opened_is_told_in_the_peers_words() {
    let dir = Dir::new();
    dir.qemu_img_ok(&words("create -q -f raw a.raw 1M"));
    let server = Server::qemu_nbd(&dir, "s", &["-f", "raw", "-x", "e", "-e", "8", "a.raw"]);
    let socket = server.socket();
    for name in [
        "nbd:",
        "nbd://",
        "nbd:x",
        "nbd:a:b",
        "nbd://h:x/",
        "nbd://h:70000/",
        "nbd+foo://",
        "nbd://127.0.0.1:1/x",
        "nbd:127.0.0.1:1",
        "nbd://[::1]:1/x",
        "nbd:unix:none.sock",
        "nbd+unix:///e?socket=none.sock",
        "nbd+unix://h/e?socket=none.sock",
        "nbd+unix:///e?socket=none.sock&x=1",
    ] {
        same(&format!("info {name}"), &dir);
    }
    same(&format!("info nbd+unix:///other?socket={socket}"), &dir);
}

/// A server that says the same on every connection and then nothing.
fn says(dir: &Dir, bytes: Vec<u8>) -> impl Drop {
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    struct Ends(Arc<AtomicBool>, std::path::PathBuf);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
            let _ = UnixStream::connect(&self.1);
        }
    }
    let path = dir.path("says.sock");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let ends = Ends(Arc::default(), path);
    let ended = ends.0.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            if ended.load(Ordering::SeqCst) {
                return;
            }
            // The client may have had enough.
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    ends
}

/// A reply to an option.
fn reply(option: u32, code: u32, data: &[u8]) -> Vec<u8> {
    let len = data.len() as u32;
    let fields = [option, code, len].map(u32::to_be_bytes).concat();
    [&0x0003_e889_0455_65a9_u64.to_be_bytes()[..], &fields, data].concat()
}

#[test]
fn what_a_server_says_in_the_handshake_is_told_in_the_peers_words() {
    const ERROR: u32 = 1 << 31;
    let dir = Dir::new();
    let fixed = b"NBDMAGICIHAVEOPT\0\x03".to_vec();
    let with = |replies: &[Vec<u8>]| [std::slice::from_ref(&fixed), replies].concat().concat();
    // Neither extended headers nor structured replies.
    let simple = [reply(11, ERROR | 1, b""), reply(8, ERROR | 1, b"")];
    let after = |last: Vec<u8>| with(&[&simple[..], &[last]].concat());
    let mut cases = vec![
        (b"".to_vec(), "closed at once"),
        (b"NBDMAG".to_vec(), "closed within the greeting"),
        (
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec(),
            "another protocol",
        ),
        ([&b"NBDMAGIC"[..], &[b'X'; 20]].concat(), "another magic"),
        (fixed.clone(), "closed after the greeting"),
        (with(&[vec![b'Z'; 60]]), "no reply"),
        (with(&[reply(99, 1, b"")]), "a reply to an unknown option"),
        (with(&[reply(8, 1, b"")]), "a reply to another option"),
        (with(&simple[..1]), "closed between options"),
        (
            with(&[reply(11, ERROR | 6, b"words"), reply(8, ERROR | 7, b"")]),
            "closed after strange refusals",
        ),
        (
            with(&[simple[0].clone(), reply(8, 77, b"")]),
            "a strange reply",
        ),
        (
            with(&[
                simple[0].clone(),
                reply(8, 1, b""),
                reply(10, 4, b"\0\0\0\x01other"),
                reply(10, 1, b""),
            ]),
            "another context",
        ),
        (after(reply(7, 1, b"")), "no size"),
        (
            after(reply(7, ERROR | 2, b"go away")[..10].to_vec()),
            "half a reply",
        ),
    ];
    for code in [2, 3, 4, 5, 6, 7, 8, 9, 99] {
        cases.push((after(reply(7, ERROR | code, b"some words")), "a refusal"));
        cases.push((
            after(reply(7, ERROR | code, b"")),
            "a refusal without words",
        ));
    }
    for (bytes, what) in cases {
        let _server = says(&dir, bytes);
        let ran = same("info nbd+unix:///e?socket=says.sock", &dir);
        assert_eq!(ran.code, 1, "{what}: {ran:?}");
    }
}

#[test]
fn exports_are_targets_as_they_are() {
    let dir = Dir::new();
    disk(&dir, "a.raw");
    dir.qemu_img_ok(&words("create -q -f raw b.raw 8M"));
    dir.qemu_img_ok(&words("create -q -f raw large.raw 9M"));
    dir.qemu_img_ok(&words("create -q -f raw small.raw 7M"));
    let server = Server::qemu_nbd(&dir, "s", &["-f", "raw", "-e", "8", "b.raw"]);
    let url = server.url("");
    for line in [
        "create -f raw U 8M",
        "create -f raw U 4M",
        "create -f raw U 9M",
        "create -f raw U",
        "create -f raw -o preallocation=full U 8M",
        "create -f raw -o help U",
        "create -f raw nbd://127.0.0.1:1/ 1M",
        "resize -f raw U 8M",
        "resize -f raw U 9M",
        "resize -f raw --shrink U 4M",
        "convert -f raw -O raw large.raw U",
        "convert -f raw -n -O raw large.raw U",
        "convert -f raw -O raw small.raw U",
        "convert -f raw -n -O raw a.raw U",
        "compare -f raw -F raw a.raw U",
        "dd -f raw -O raw bs=1M if=a.raw of=U",
        "dd -f raw -O raw bs=1M if=U of=c.raw",
    ] {
        same(&line.replace('U', &url), &dir);
    }
    for line in [
        "create -f qcow2 U 1M",
        "convert -f raw -c -O qcow2 a.raw U",
        "check U",
        "compare -F raw U a.raw",
    ] {
        let line = line.replace('U', &url);
        ran(&line, &dir);
        if line.starts_with("ch") {
            same(&line, &dir);
        }
    }
    drop(server);
    assert!(bytes(&dir, "b.raw").starts_with(b"QFI\xfb"));
    let server = Server::qemu_nbd(&dir, "r", &["-r", "-f", "raw", "-e", "8", "b.raw"]);
    let url = server.url("");
    for line in [
        "create -f raw U 1M",
        "convert -f raw -n -O raw small.raw U",
        "resize -f raw U 1M",
    ] {
        same(&line.replace('U', &url), &dir);
    }
}

#[test]
fn every_kind_of_server_gives_the_bytes_and_takes_them() {
    if nbdkit_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let kinds: [(&str, &[&str]); 7] = [
        ("plain", &[]),
        ("simple replies", &["--no-sr"]),
        ("newstyle that is not fixed", &["--mask-handshake=0"]),
        ("oldstyle", &["-o"]),
        (
            "late",
            &["--filter=delay", "delay-read=2ms", "delay-extents=2ms"],
        ),
        (
            "no zeroes and no trim",
            &["--filter=nozero", "--filter=noextents"],
        ),
        (
            "large and small blocks",
            &[
                "--filter=blocksize-policy",
                "blocksize-minimum=4096",
                "blocksize-maximum=64K",
                "blocksize-error-policy=error",
            ],
        ),
    ];
    for (n, (kind, args)) in kinds.into_iter().enumerate() {
        let target = format!("t{n}.raw");
        std::fs::write(dir.path(&target), vec![0xaa; 8 << 20]).unwrap();
        let (filters, settings): (Vec<&str>, Vec<&str>) =
            args.iter().partition(|arg| arg.starts_with('-'));
        let with = |file: &str| {
            let file = file.to_owned();
            let plugin = ["file".to_owned(), file];
            let parts = filters.iter().map(ToString::to_string).chain(plugin);
            let parts = parts.chain(settings.iter().map(ToString::to_string));
            parts.collect::<Vec<_>>()
        };
        let source = Server::nbdkit(&dir, &format!("s{n}"), &with("a.raw"));
        let sink = Server::nbdkit(&dir, &format!("t{n}"), &with(&target));
        ran(
            &format!("convert -f raw -O raw {} out.raw", source.url("")),
            &dir,
        );
        assert!(bytes(&dir, "out.raw") == bytes(&dir, "a.raw"), "{kind}");
        ran(
            &format!("compare -f raw -F raw a.raw {}", source.url("")),
            &dir,
        );
        // nbdkit offers in the oldstyle what it then refuses: QEMU's tools cannot write there either.
        let writes = kind != "oldstyle";
        if writes {
            ran(
                &format!("convert -f raw -n -O raw a.raw {}", sink.url("")),
                &dir,
            );
        }
        ran(
            &format!(
                "dd -f raw -O raw bs=999 count=3 if={} of=d.raw",
                source.url("")
            ),
            &dir,
        );
        let copied = &bytes(&dir, "d.raw")[..2997];
        assert!(copied == &bytes(&dir, "a.raw")[..2997], "{kind}");
        drop((source, sink));
        assert!(
            !writes || bytes(&dir, &target) == bytes(&dir, "a.raw"),
            "{kind}"
        );
    }
}

#[test]
fn overlays_stand_on_exports_and_are_committed_to_them() {
    let dir = Dir::new();
    disk(&dir, "a.raw");
    // One client at a time: the tool must do with one connection.
    let server = Server::qemu_nbd(&dir, "s", &["-f", "raw", "a.raw"]);
    let url = server.url("");
    ran(&format!("create -f qcow2 -b {url} -F raw o.qcow2"), &dir);
    dir.qemu_io("qcow2", "o.qcow2", &["write -P 9 1M 300k"]);
    same("info --backing-chain o.qcow2", &dir);
    same("map --output=json o.qcow2", &dir);
    ran("convert -O raw o.qcow2 whole.raw", &dir);
    ran("commit o.qcow2", &dir);
    dir.qemu_img_ok(&words("create -q -f qcow2 b.qcow2 8M"));
    ran("rebase -b b.qcow2 -F qcow2 o.qcow2", &dir);
    dir.qemu_img_ok(&words("compare -f qcow2 -F raw o.qcow2 whole.raw"));
    drop(server);
    assert!(bytes(&dir, "a.raw") == bytes(&dir, "whole.raw"));
}

#[test]
fn an_image_on_a_server_leads_to_no_file_of_the_working_directory() {
    let dir = Dir::new();
    dir.qemu_img_ok(&words("create -q -f raw secret.raw 4M"));
    dir.qemu_img_ok(&words("create -q -f qcow2 -b secret.raw -F raw o.qcow2"));
    let server = Server::qemu_nbd(&dir, "s", &["-r", "-f", "raw", "-e", "8", "o.qcow2"]);
    let out = run(&format!("convert -O raw {} out.raw", server.url("")), &dir);
    assert_eq!(out.code, 1);
    let says = "Cannot generate a base directory for NBD nodes";
    assert!(out.err.contains(says), "{out:?}");
}

#[test]
fn bitmaps_and_depths_are_shown_as_block_status() {
    let dir = Dir::new();
    for line in [
        "create -q -f qcow2 a.qcow2 4M",
        "bitmap --add -g 65536 a.qcow2 b0",
    ] {
        dir.qemu_img_ok(&words(line));
    }
    dir.qemu_io("qcow2", "a.qcow2", &["write 1M 128k"]);
    let args = [
        "-r", "-f", "qcow2", "-B", "b0", "-A", "-x", "e", "-e", "8", "a.qcow2",
    ];
    let server = Server::qemu_nbd(&dir, "s", &args);
    for context in [
        "qemu:dirty-bitmap:b0",
        "qemu:allocation-depth",
        "base:allocation",
    ] {
        let socket = server.socket();
        let line = format!(
            "map --output=json --image-opts driver=nbd,path={socket},export=e,x-dirty-bitmap={context}"
        );
        same(&line, &dir);
    }
}

#[test]
fn a_server_that_is_late_is_waited_for_and_one_that_comes_back_is_used_again() {
    if nbdkit_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let socket = dir.str("s.sock");
    let options = format!(
        "driver=raw,file.driver=nbd,file.path={socket},file.open-timeout=20,file.reconnect-delay=20"
    );
    let slow = [
        "--filter=delay".to_owned(),
        "file".to_owned(),
        "a.raw".to_owned(),
        "delay-read=100ms".to_owned(),
    ];
    let late = ours_command(&["info", "--image-opts", &options], dir.root())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server::nbdkit(&dir, "s", &slow);
    let status = late.wait_with_output().unwrap().status;
    assert!(status.success());
    let args = ["convert", "--image-opts", "-O", "raw", &options, "out.raw"];
    let mut copy = ours_command(&args, dir.root()).spawn().unwrap();
    // In the middle of the work: as soon as something was written.
    let deadline = Instant::now() + Duration::from_secs(20);
    let written = || std::fs::metadata(dir.path("out.raw")).is_ok_and(|meta| meta.len() > 0);
    while !written() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    drop(server);
    let _server = Server::nbdkit(&dir, "s", &["file".to_owned(), "a.raw".to_owned()]);
    assert!(copy.wait().unwrap().success());
    assert!(bytes(&dir, "out.raw") == bytes(&dir, "a.raw"));
}

#[test]
fn what_goes_wrong_at_the_server_is_told() {
    if nbdkit_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let failing = [
        "--filter=error",
        "file",
        "a.raw",
        "error-pread=EIO",
        "error-pread-rate=100%",
    ];
    let server = Server::nbdkit(&dir, "s", &failing.map(str::to_owned));
    let out = run(
        &format!("convert -f raw -O raw {} out.raw", server.url("")),
        &dir,
    );
    assert_eq!(out.code, 1);
    assert!(out.err.contains("Input/output error"), "{out:?}");
    assert!(!dir.path("out.raw").exists());
}

#[test]
fn what_a_server_tries_again_is_waited_for() {
    if nbdkit_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    std::fs::write(dir.path("t.raw"), vec![0xaa; 8 << 20]).expect("a disk");
    for line in [
        "convert -f raw -O raw U out.raw",
        "compare -f raw -F raw a.raw U",
        "map -f raw U",
        "convert -n -f raw -O raw a.raw U",
    ] {
        let file = match line.contains("-n") {
            true => "t.raw",
            false => "a.raw",
        };
        // Every request fails while there is the file; the server opens its own anew a second later.
        let fails = dir.str("fails");
        std::fs::write(&fails, "").expect("a file");
        let file_of_errors = format!("error-file={fails}");
        let args = [
            "--filter=retry",
            "--filter=error",
            "file",
            file,
            "error-rate=100%",
            &file_of_errors,
            "retries=60",
            "retry-delay=1",
            "retry-exponential=no",
        ];
        let log = dir.path("log");
        let messages = std::fs::File::create(&log).expect("a file").into();
        let server = Server::nbdkit_telling(&dir, "r", &args.map(str::to_owned), messages);
        let end = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // One has failed by now, unless the command has ended.
                let injected = || {
                    let log = std::fs::read_to_string(&log).unwrap_or_default();
                    log.contains("injecting") || end.load(Ordering::Acquire)
                };
                while !injected() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                std::fs::remove_file(&fails).expect("a removal");
            });
            let out = run(&line.replace('U', &server.url("")), &dir);
            end.store(true, Ordering::Release);
            assert_eq!((out.code, &*out.err), (0, ""), "{line}: {out:?}");
        });
        let log = std::fs::read_to_string(&log).expect("the log");
        assert!(log.contains("injecting"), "{line}: nothing failed");
    }
    for name in ["out.raw", "t.raw"] {
        assert!(bytes(&dir, name) == bytes(&dir, "a.raw"), "{name}");
    }
}

/// Runs a command, whose export is served by a late nbdkit; once the file of the server has changed, the server is
/// killed and another one takes its place.
#[track_caller]
fn with_a_restart(line: &str, file: &str, dir: &Dir) {
    let late = |delay: &str| {
        let mut args: Vec<_> = ["--filter=delay", "file", file].map(str::to_owned).into();
        for what in ["delay-write", "delay-zero", "delay-read"] {
            args.push(format!("{what}={delay}"));
        }
        args
    };
    let server = Server::nbdkit(dir, "restarted", &late("20ms"));
    let before = bytes(dir, file);
    let mut command = ours_command(&words(line), dir.root());
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while bytes(dir, file) == before && Instant::now() < deadline {
        if child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::yield_now();
    }
    drop(server);
    let _server = Server::nbdkit(dir, "restarted", &late("0ms"));
    assert!(child.wait().unwrap().success(), "{line}");
}

#[test]
fn a_server_may_be_killed_in_the_middle_of_every_command_that_writes() {
    if nbdkit_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    std::fs::write(dir.path("t.raw"), vec![0xaa; 8 << 20]).unwrap();
    let export = |format: &str| {
        format!(
            "driver={format},file.driver=nbd,file.path={},file.reconnect-delay=30",
            dir.str("restarted.sock")
        )
    };
    let raw = export("raw");
    with_a_restart(
        &format!("convert -n -f raw --target-image-opts a.raw {raw}"),
        "t.raw",
        &dir,
    );
    assert!(bytes(&dir, "t.raw") == bytes(&dir, "a.raw"));
    // An image of the format on the export, of which each command changes something.
    dir.qemu_img_ok(&words("create -q -f qcow2 t.qcow2 8M"));
    let len = 16 << 20;
    std::fs::File::options()
        .write(true)
        .open(dir.path("t.qcow2"))
        .and_then(|file| file.set_len(len))
        .unwrap();
    let qcow2 = export("qcow2");
    for line in [
        "convert -n -f raw --target-image-opts a.raw T",
        "snapshot -c s --image-opts T",
        "bitmap --add --image-opts T b",
        "amend --image-opts -o lazy_refcounts=on T",
        "bitmap --remove --image-opts T b",
        "snapshot -a s --image-opts T",
    ] {
        with_a_restart(&line.replace('T', &qcow2), "t.qcow2", &dir);
        dir.qemu_img_ok(&words("check -q t.qcow2"));
        dir.qemu_img_ok(&words("compare -q -f raw -F qcow2 a.raw t.qcow2"));
    }
    dir.qemu_img_ok(&words("create -q -f qcow2 -b t.raw -F raw o.qcow2"));
    dir.qemu_io("qcow2", "o.qcow2", &["write -P 9 1M 3M"]);
    let below = format!("backing.{}", raw.replace(",file.", ",backing.file."));
    with_a_restart(
        &format!("commit --image-opts driver=qcow2,file.filename=o.qcow2,{below}"),
        "t.raw",
        &dir,
    );
    let committed = bytes(&dir, "t.raw");
    assert!(committed[1 << 20..4 << 20].iter().all(|byte| *byte == 9));
    assert!(committed[4 << 20..] == bytes(&dir, "a.raw")[4 << 20..]);
}

#[test]
fn other_servers_give_and_take_the_same_bytes() {
    let dir = Dir::new();
    disk(&dir, "a.raw");
    for (n, kind) in ["nbd-server", "qemu-storage-daemon"]
        .into_iter()
        .enumerate()
    {
        if server::is_missing(kind) {
            continue;
        }
        let file = format!("t{n}.raw");
        std::fs::write(dir.path(&file), vec![0xaa; 8 << 20]).unwrap();
        let server = match n {
            0 => Server::nbd_server(&dir, &file),
            _ => Server::qemu_storage_daemon(&dir, &file),
        };
        let url = server.url("e");
        for line in [
            "convert -f raw -n -O raw a.raw U",
            "compare -f raw -F raw a.raw U",
            "convert -f raw -O qcow2 U out.qcow2",
            "compare -f raw -F qcow2 U out.qcow2",
            "info -f raw U",
            "map -f raw U",
            "measure -f raw -O qcow2 U",
            "dd -f raw -O raw bs=64k count=3 skip=2 if=U of=d.raw",
            "bench -f raw -c 100 U",
        ] {
            ran(&line.replace('U', &url), &dir);
        }
        if !nbdkit_is_missing() {
            // That of libnbd sees what ours has written.
            let copied = crate::common::run_in(dir.root(), "nbdcopy", &[&url, "copy.raw"]);
            assert_eq!(copied.code, 0, "{copied:?}");
            assert!(bytes(&dir, "copy.raw") == bytes(&dir, "a.raw"), "{kind}");
        }
        for line in [
            "create -f qcow2 U 4M",
            "snapshot -c s U",
            "check U",
            "resize U 5M",
            "bitmap --add U b",
            "amend -o compat=1.1 U",
        ] {
            ran(&line.replace('U', &url), &dir);
        }
        drop(server);
        let check = format!("check -q -f qcow2 {file}");
        dir.qemu_img_ok(&words(&check));
    }
}
