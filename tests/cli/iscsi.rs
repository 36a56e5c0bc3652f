//! Units of iSCSI targets, against tgt and the tools of libiscsi.

mod attention;
mod digests;
mod relay;
pub mod server;
mod units;

use std::cell::RefCell;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::beside::{Beside, here, peer_has, with_short_name};
use crate::common::{Dir, Ran, Random};
use crate::far_bases::{self, BASES, End, FarBases, When};
use crate::pair::{ours, words};
use crate::stopped::{IMAGES, Stopping, is_sound, prepare};
use server::{Server, tgtd_is_missing};

fn run(line: &str, dir: &Dir) -> Ran {
    ours(&words(line), dir.root())
}

#[track_caller]
fn ran(line: &str, dir: &Dir) -> Ran {
    let ran = run(line, dir);
    assert_eq!(ran.code, 0, "{line}: {ran:?}");
    ran
}

#[track_caller]
fn refused(line: &str, dir: &Dir, text: &str) -> Ran {
    let ran = run(line, dir);
    assert_eq!(ran.code, 1, "{line}: {ran:?}");
    assert!(ran.err.contains(text), "{line}: {ran:?}");
    assert_eq!(ran.err.lines().count(), 1, "{line}: {ran:?}");
    ran
}

/// A disk of 8 MiB with data and zeroes.
fn disk(dir: &Dir, name: &str) {
    let mut random = Random(7);
    let mut bytes = vec![0; 8 << 20];
    for piece in bytes.chunks_mut(256 << 10).step_by(3) {
        for word in piece.chunks_exact_mut(8) {
            word.copy_from_slice(&random.next().to_le_bytes());
        }
    }
    std::fs::write(dir.path(name), bytes).expect("a disk");
}

/// A file for a unit, full of other bytes.
fn unit(dir: &Dir, name: &str, len: usize) {
    std::fs::write(dir.path(name), vec![0xa5; len]).expect("a unit");
}

fn bytes(dir: &Dir, name: &str) -> Vec<u8> {
    std::fs::read(dir.path(name)).expect("a file")
}

/// Whether the machine has a device for RDMA.
fn has_rdma() -> bool {
    std::fs::read_dir("/sys/class/infiniband").is_ok_and(|mut devices| devices.next().is_some())
}

/// Both tools have the library look for a device, whichever way the transport is named, and one line says that there is none.
#[test]
fn without_rdma_the_line_says_that_there_is_no_transport() {
    if tgtd_is_missing() || has_rdma() {
        return;
    }
    let dir = Dir::new();
    let options = "transport=iser,portal=127.0.0.1:3260,target=iqn.x:t";
    let told = "Couldn't connect transport: Failed creating Event Channel";
    for (line, theirs) in [
        (
            "info iser://127.0.0.1:3260/iqn.x:t/0".to_owned(),
            "Couldn't connect transport",
        ),
        (
            format!("info --image-opts driver=iscsi,{options}"),
            "Couldn't connect transport",
        ),
        (
            format!("info --image-opts driver=iser,{options}"),
            "Couldn't connect transport",
        ),
        // Theirs wants the transport beside a driver that has no other.
        (
            "info --image-opts driver=iser,portal=127.0.0.1:3260,target=iqn.x:t".to_owned(),
            "Need all of transport",
        ),
    ] {
        refused(&line, &dir, told);
        if peer_has("iscsi") {
            let ran = dir.qemu_img(&words(&line));
            assert_eq!(ran.code, 1, "{line}: {ran:?}");
            assert!(ran.err.contains(theirs), "{line}: {ran:?}");
        }
    }
    for line in ["info iser:x", "info iser://h/t", "info iser://h/t/x"] {
        refused(line, &dir, "its form is iser://");
    }
}

#[test]
fn units_are_read_by_every_command() {
    if tgtd_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    ran("convert -f raw -O qcow2 a.raw q.qcow2", &dir);
    ran("resize -f qcow2 q.qcow2 16M", &dir);
    std::fs::copy(dir.path("q.qcow2"), dir.path("unit")).expect("a unit");
    let file = std::fs::OpenOptions::new()
        .append(true)
        .open(dir.path("unit"));
    file.and_then(|file| file.set_len(12 << 20))
        .expect("its length");
    let server = Server::new(&dir);
    server.unit(1, "a.raw", None, "");
    server.unit(2, "unit", None, "");
    server.unit(3, "a.raw", None, "readonly=1");
    let (raw, image) = (server.url(1), server.url(2));
    let info = ran(&format!("info {raw}"), &dir).out;
    assert!(
        info.starts_with(&format!(
            "image: {raw}\nfile format: raw\nvirtual size: 8 MiB"
        )),
        "{info}"
    );
    for url in [&raw, &server.url(3)] {
        ran(&format!("convert -f raw -O raw {url} b.raw"), &dir);
        assert!(bytes(&dir, "b.raw") == bytes(&dir, "a.raw"));
    }
    ran(&format!("compare -f raw -F raw a.raw {raw}"), &dir);
    ran(&format!("compare -f qcow2 -F qcow2 q.qcow2 {image}"), &dir);
    for line in [
        "check U",
        "map --output=json U",
        "measure -O qcow2 U",
        "snapshot -l U",
    ] {
        ran(&line.replace('U', &image), &dir);
    }
    let options = format!(
        "driver=iscsi,transport=tcp,portal=127.0.0.1:{},target=iqn.2025-01.test:1,lun=1",
        server.port
    );
    let info = ran(&format!("info --image-opts {options}"), &dir).out;
    assert!(
        info.starts_with(&format!("image: {raw}\nfile format: iscsi\n")),
        "{info}"
    );
    let json = format!(
        "json:{{\"driver\":\"iscsi\",\"transport\":\"tcp\",\"portal\":\"127.0.0.1:{}\",\"target\":\"iqn.2025-01.test:1\",\"lun\":1}}",
        server.port
    );
    ran(&format!("compare -f raw a.raw {json}"), &dir);
    ran(
        &format!("dd -f raw -O raw bs=1000 count=777 skip=3 if={raw} of=e.raw"),
        &dir,
    );
    assert!(bytes(&dir, "e.raw")[..774_000] == bytes(&dir, "a.raw")[3000..777_000]);
}

#[test]
fn both_tools_tell_the_same_and_read_what_the_other_wrote() {
    if tgtd_is_missing() || !peer_has("iscsi") {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let images = ["r", "q", "traw", "oraw", "tqcow2", "oqcow2"];
    for name in &images[2..] {
        let len = if name.ends_with("raw") { 8 } else { 9 };
        unit(&dir, name, len << 20);
    }
    std::fs::copy(dir.path("a.raw"), dir.path("r")).expect("a unit");
    ran("convert -f raw -O qcow2 a.raw q", &dir);
    let server = Server::new(&dir);
    for (number, name) in (1..).zip(images) {
        server.unit(number, name, None, "thin_provisioning=1");
    }
    let target = |name: &str| {
        let place = (1..).zip(images).find(|(_, image)| *image == name);
        place.expect("a unit").0
    };
    let options = |name: &str| {
        format!(
            "driver=iscsi,transport=tcp,portal=127.0.0.1:{},target=iqn.2025-01.test:{},lun=1",
            server.port,
            target(name)
        )
    };
    let beside = Beside {
        dir: &dir,
        command: &|program, args| here(dir.root(), &[], program, args),
        name: &|name| server.url(target(name)),
        options: &options,
        // Ours has a short name for a unit.
        renamed: &|text| {
            let order = ["lun", "portal", "driver", "transport", "target"];
            images.iter().fold(text, |text, name| {
                with_short_name(text, &options(name), &order, &server.url(target(name)))
            })
        },
    };
    beside.tells();
    beside.crosses("-n");
    beside.same(&[
        "create -f raw U/traw 8M",
        "create -f qcow2 U/tqcow2 8M",
        "info U/tqcow2",
    ]);
}

#[test]
fn what_cannot_be_opened_is_told_in_one_line() {
    if tgtd_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let server = Server::new(&dir);
    server.unit(1, "a.raw", None, "readonly=1");
    let url = server.url(1);
    let ours = |name: &str, text: &str| drop(refused(&format!("info {name}"), &dir, text));
    ours(
        &url.replace("test:1/1", "test:1/7"),
        "The target has no such unit",
    );
    ours(&server.url(9), "iSCSI: Failed to connect to '127.0.0.1:");
    ours(
        "iscsi://127.0.0.1:1/iqn.x/1",
        "iSCSI: Failed to connect to '127.0.0.1:1'",
    );
    ours(
        "iscsi://127.0.0.1/iqn.x",
        "Failed to parse URL : iscsi://127.0.0.1/iqn.x",
    );
    ours(
        &format!("{url}?bogus=1"),
        "Unsupported parameter 'bogus' in URI",
    );
    for line in [
        "create -f qcow2 U 1M",
        "convert -n -f raw -O raw a.raw U",
        "resize -f raw U 9M",
    ] {
        refused(
            &line.replace('U', &url),
            &dir,
            "Cannot open a write protected LUN as read-write",
        );
    }
    // One that is no target: it says nothing that makes sense, or goes away.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let thread = std::thread::spawn(move || {
        for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0xff; 4096], &[]] {
            let (mut stream, _) = listener.accept().expect("a client");
            let _ = std::io::Write::write_all(&mut stream, answer);
        }
    });
    let begun = Instant::now();
    for _ in 0..3 {
        ours(
            &format!("iscsi://127.0.0.1:{port}/iqn.x/1"),
            "iSCSI: Failed to connect to '127.0.0.1:",
        );
    }
    assert!(begun.elapsed() < Duration::from_secs(15));
    thread.join().expect("the end of it");
}

#[test]
fn units_are_written_as_devices_are() {
    if tgtd_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let len = 16 << 20;
    for name in ["plain", "thin", "large"] {
        unit(&dir, name, len);
    }
    let server = Server::new(&dir);
    server.unit(1, "plain", None, "");
    server.unit(2, "thin", None, "thin_provisioning=1");
    server.unit(3, "large", Some(4096), "");
    for (target, file) in [(1, "plain"), (2, "thin"), (3, "large")] {
        let url = server.url(target);
        for options in ["", "-W ", "-t writethrough "] {
            ran(&format!("convert {options}-f raw -O raw a.raw {url}"), &dir);
            assert!(
                bytes(&dir, file)[..8 << 20] == bytes(&dir, "a.raw"),
                "{file}"
            );
        }
        assert!(
            bytes(&dir, file)[8 << 20..]
                .iter()
                .all(|byte| *byte == 0xa5)
        );
        ran(&format!("convert -f raw -O qcow2 a.raw {url}"), &dir);
        ran(&format!("compare -f raw -F qcow2 a.raw {url}"), &dir);
        // The bytes that are there, by way of no network.
        ran(&format!("compare -f raw -F qcow2 a.raw {file}"), &dir);
        for line in [
            "snapshot -c s U",
            "resize U 9M",
            "resize --shrink U 8M",
            "rebase -u -b '' U",
            "amend -o lazy_refcounts=on U",
            "bench -c 10 -w -f qcow2 U",
            "bitmap --add U b",
            "snapshot -d s U",
            "check U",
        ] {
            ran(&line.replace('U', &url), &dir);
        }
        ran(&format!("check {file}"), &dir);
        ran(
            &format!("create -q -f qcow2 -b {url} -F qcow2 over{target}"),
            &dir,
        );
        ran(&format!("bench -c 10 -w -f qcow2 over{target}"), &dir);
        ran(&format!("commit over{target}"), &dir);
        ran(&format!("check {file}"), &dir);
        // Parts of blocks.
        ran(
            &format!("dd -f raw -O raw bs=1000 count=7 if=a.raw of=part{target}"),
            &dir,
        );
        ran(
            &format!("convert -n -f raw -O raw part{target} {url}"),
            &dir,
        );
        assert!(bytes(&dir, file)[..7000] == bytes(&dir, "a.raw")[..7000]);
        refused(
            &format!("resize -f raw {url} 32M"),
            &dir,
            "Cannot resize iSCSI devices",
        );
        let large = run(&format!("create -f raw {url} 17M"), &dir);
        assert!(
            large.code == 1 && large.err.contains("Cannot grow iSCSI devices"),
            "{large:?}"
        );
    }
}

#[test]
fn thin_units_tell_what_is_there_and_take_back_what_is_not() {
    if tgtd_is_missing() {
        return;
    }
    let dir = Dir::new();
    let file = std::fs::File::create(dir.path("thin")).expect("a file");
    file.set_len(64 << 20).expect("its length");
    std::os::unix::fs::FileExt::write_all_at(&file, &[7; 1 << 20], 8 << 20).expect("data");
    let server = Server::new(&dir);
    server.unit(1, "thin", None, "thin_provisioning=1");
    let url = server.url(1);
    let map = ran(&format!("map --output=json -f raw {url}"), &dir).out;
    let data = r#"{ "start": 8388608, "length": 1048576, "depth": 0, "present": true, "zero": false, "data": true"#;
    assert!(map.contains(data), "{map}");
    let hole = r#""zero": true, "data": false"#;
    assert_eq!(map.matches(hole).count(), 2, "{map}");
    // Zeroes give room back.
    ran("create -f raw zero 64M", &dir);
    ran(&format!("convert -n -S 4k -f raw -O raw zero {url}"), &dir);
    let room = |name: &str| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(dir.path(name)).expect("a file").blocks() * 512
    };
    assert_eq!(room("thin"), 0);
}

#[test]
fn both_ends_prove_who_they_are_and_nobody_is_told_how() {
    if tgtd_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let server = Server::new(&dir);
    server.unit(1, "a.raw", None, "");
    server.adm("--mode account --op new --user joe --password s3cretlonger");
    server.adm("--mode account --op bind --tid 1 --user joe");
    let with = |login: &str, query: &str| format!("{}{query}", server.url_as(login, 1));
    let opened = ran(&format!("info {}", with("joe%s3cretlonger", "")), &dir);
    assert!(
        opened
            .out
            .starts_with(&format!("image: {}\n", with("joe", ""))),
        "{opened:?}"
    );
    std::fs::write(dir.path("own"), "s3cretlonger").expect("a secret");
    std::fs::write(dir.path("theirs"), "outgoingpass").expect("a secret");
    let secrets = "--object secret,id=own,file=own --object secret,id=theirs,file=theirs";
    let mutual = "&target-user=srv&target-password-secret=theirs";
    let by = |query: &str| format!("info {secrets} {}", with("joe", query));
    ran(&by("?password-secret=own"), &dir);
    let text = "iSCSI: Failed to connect to";
    for line in [
        format!("info {}", server.url(1)),
        format!("info {}", with("joe%wrongwrong12", "")),
        by("?password-secret=theirs"),
        by(&format!("?password-secret=own{mutual}")),
    ] {
        let ran = refused(&line, &dir, text);
        for word in ["s3cret", "outgoing", "wrongwrong"] {
            assert!(!ran.err.contains(word), "{ran:?}");
        }
    }
    server.adm("--mode account --op new --user srv --password outgoingpass");
    server.adm("--mode account --op bind --tid 1 --user srv --outgoing");
    ran(&by(&format!("?password-secret=own{mutual}")), &dir);
    let wrong = mutual.replace("=theirs", "=own");
    refused(&by(&format!("?password-secret=own{wrong}")), &dir, text);
    let options = format!(
        "driver=iscsi,portal=127.0.0.1:{},target=iqn.2025-01.test:1,lun=1,user=joe,password=s3cretlonger",
        server.port
    );
    let info = ran(&format!("info --image-opts {options}"), &dir).out;
    assert!(!info.contains("s3cret"), "{info}");
}

#[test]
fn reads_go_on_when_the_target_is_started_anew() {
    if tgtd_is_missing() {
        return;
    }
    let dir = Dir::new();
    let file = std::fs::File::create(dir.path("unit")).expect("a file");
    file.set_len(256 << 20).expect("its length");
    let mut server = Server::new(&dir);
    server.unit(1, "unit", None, "");
    // Slow enough to be met in the middle.
    let line = format!("convert -f raw -O raw -r 100M {} out.raw", server.url(1));
    let args = words(&line);
    let mut child = crate::pair::ours_command(&args, dir.root())
        .spawn()
        .expect("the tool");
    let deadline = Instant::now() + Duration::from_secs(30);
    while std::fs::metadata(dir.path("out.raw")).map_or(0, |meta| meta.len()) == 0 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    server.kill();
    let port = server.port;
    drop(server);
    let server = loop {
        let again = Server::at(&dir, port, deadline);
        if let Some(server) = again {
            break server;
        }
        assert!(Instant::now() < deadline);
    };
    server.unit(1, "unit", None, "");
    let status = child.wait().expect("its end");
    assert!(status.success(), "{status:?}");
}

#[test]
fn writes_that_may_be_lost_with_the_target_are_not_taken_for_done() {
    if tgtd_is_missing() {
        return;
    }
    let dir = Dir::new();
    let file = std::fs::File::create(dir.path("unit")).expect("a file");
    file.set_len(256 << 20).expect("its length");
    std::fs::write(dir.path("a.raw"), vec![7; 128 << 20]).expect("a disk");
    let mut server = Server::new(&dir);
    server.unit(1, "unit", None, "");
    let line = format!("convert -n -f raw -O raw -r 50M a.raw {}", server.url(1));
    let args = words(&line);
    let child = crate::pair::ours_command(&args, dir.root())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the tool");
    let deadline = Instant::now() + Duration::from_secs(30);
    let first = || {
        let mut byte = [0];
        let file = std::fs::File::open(dir.path("unit")).expect("the unit");
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, 4 << 20).expect("a byte");
        byte[0]
    };
    while first() == 0 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    server.kill();
    let done = child.wait_with_output().expect("its end");
    let text = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{text}");
    assert!(
        text.contains("since the last flush may be lost"),
        "{text} {done:?}"
    );
}

/// Targets of units that nothing has been written to, one for each command that makes an image.
const FREE: std::ops::Range<u32> = 100..102;

#[test]
fn a_target_that_stops_or_is_killed_in_any_command_harms_nothing() {
    if tgtd_is_missing() {
        return;
    }
    let dir = Dir::new();
    prepare(&dir);
    let server = Server::new(&dir);
    let place = |number: usize| dir.str(&format!("i{number}"));
    for number in 0..IMAGES {
        std::fs::copy(dir.path("b.qcow2"), place(number)).expect("an image");
        let unit = std::fs::OpenOptions::new().write(true).open(place(number));
        unit.and_then(|unit| unit.set_len(16 << 20))
            .expect("its length");
        server.unit(number as u32 + 1, &format!("i{number}"), None, "");
    }
    // Units of no image yet.
    for target in FREE {
        unit(&dir, &format!("u{target}"), 16 << 20);
        server.unit(target, &format!("u{target}"), None, "");
    }
    let far = Stopping {
        image: &|number| server.url(number as u32 + 1),
        free: Some(&|number| server.url(FREE.start + (number % FREE.len()) as u32)),
        tool: &|line| crate::pair::ours_command(&words(line), dir.root()),
        signal: &|signal| server.signal(signal),
    };
    far.ends_by_a_signal();
    (0..IMAGES).for_each(|number| is_sound(&dir, &place(number)));
    far.goes_on();
    (0..IMAGES).for_each(|number| is_sound(&dir, &place(number)));
    assert!(far.ends_when_it_is_killed() > 0);
    (0..IMAGES).for_each(|number| is_sound(&dir, &place(number)));
}

#[test]
fn overlays_of_units_survive_a_target_that_ends_or_stops_in_the_middle() {
    if tgtd_is_missing() {
        return;
    }
    let dir = Dir::new();
    far_bases::prepare(&dir);
    for name in BASES {
        let unit = format!("unit.{name}");
        std::fs::copy(dir.path("base"), dir.path(&unit)).expect("a unit");
        let unit = std::fs::OpenOptions::new()
            .write(true)
            .open(dir.path(&unit));
        unit.and_then(|unit| unit.set_len(far_bases::ROOM))
            .expect("its length");
    }
    let add = |server: &Server| {
        for (number, name) in (1..).zip(BASES) {
            server.unit(number, &format!("unit.{name}"), None, "");
        }
    };
    let server = RefCell::new(Server::new(&dir));
    add(&server.borrow());
    let kill = || server.borrow_mut().kill();
    let start = || {
        let (port, deadline) = (
            server.borrow().port,
            Instant::now() + Duration::from_secs(60),
        );
        let again = loop {
            if let Some(again) = Server::at(&dir, port, deadline) {
                break again;
            }
            assert!(Instant::now() < deadline, "the port is taken");
        };
        add(&again);
        server.replace(again);
    };
    let far = FarBases {
        dir: &dir,
        name: &|name| server.borrow().url(if name == BASES[0] { 1 } else { 2 }),
        options: &|name| {
            format!(
                "file.file.driver=iscsi,file.file.transport=tcp,file.file.portal=127.0.0.1:{},\
                 file.file.target=iqn.2025-01.test:{},file.file.lun=1",
                server.borrow().port,
                if name == BASES[0] { 1 } else { 2 }
            )
        },
        command: &|program, args| here(dir.root(), &[], program, args),
        fetch: &|name, to| {
            std::fs::copy(dir.path(&format!("unit.{name}")), to).expect("a copy");
        },
    };
    far.ends_by_a_deadline(&[When::First, When::InTheMiddle], |stop| {
        server.borrow().signal(if stop { "-STOP" } else { "-CONT" });
    });
    far.meets(
        End::Returns,
        || {
            kill();
            start();
        },
        || {},
    );
    far.meets(End::Gone, kill, start);
}
