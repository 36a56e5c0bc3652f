//! Files in volumes of GlusterFS, against its server; the bytes as a mount by FUSE and the brick itself have them.

pub mod server;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::beside::{Beside, peer_has, with_short_name};
use crate::common::{Dir, Ran, Random};
use crate::far_bases::{self, BASES, End, FarBases, When};
use crate::stopped::{IMAGES, Stopping, is_sound, prepare};
use server::{HOST, Server, gluster_is_missing};

#[track_caller]
fn ran(server: &Server, dir: &Dir, line: &str) -> Ran {
    let ran = server.run(dir, line);
    assert_eq!(ran.code, 0, "{line}: {ran:?}");
    ran
}

/// A disk of 8 MiB with data and zeroes.
fn disk(dir: &Dir, name: &str) -> Vec<u8> {
    let mut random = Random(7);
    let mut bytes = vec![0; 8 << 20];
    for piece in bytes.chunks_mut(256 << 10).step_by(3) {
        for word in piece.chunks_exact_mut(8) {
            word.copy_from_slice(&random.next().to_le_bytes());
        }
    }
    std::fs::write(dir.path(name), &bytes).expect("a disk");
    bytes
}

fn bytes(dir: &Dir, name: &str) -> Vec<u8> {
    std::fs::read(dir.path(name)).expect("a file")
}

#[test]
#[ignore = "theirs takes ten seconds for each image that it closes: make network"]
fn both_tools_tell_the_same_and_read_what_the_other_wrote() {
    if gluster_is_missing() || !peer_has("gluster") {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let server = Server::new(&dir);
    let options = |name: &str| {
        format!(
            "driver=gluster,volume=v,path={name},server.0.type=inet,server.0.host={HOST},server.0.port=24007"
        )
    };
    let beside = Beside {
        dir: &dir,
        command: &|program, args| server.command(&dir, program, args),
        name: &|name| format!("gluster://{HOST}/v/{name}"),
        options: &options,
        // Ours has a short name for what options stand for.
        renamed: &|text| {
            let order = [
                "server.0.host",
                "driver",
                "path",
                "server.0.type",
                "server.0.port",
                "volume",
            ];
            ["r", "q"].iter().fold(text, |text, name| {
                let short = format!("gluster://{HOST}:24007/v/{name}");
                with_short_name(text, &options(name), &order, &short)
            })
        },
    };
    beside.crosses("");
    for (name, made) in [("r", "traw"), ("q", "tqcow2")] {
        let mounted = |name: &str| server.seen(&dir.path("mounted").join(name));
        std::fs::copy(mounted(made), mounted(name)).expect("an image");
    }
    beside.tells();
    beside.same(&["create -f raw U/new 1M", "info U/new"]);
}

#[test]
fn every_command_works_over_every_kind_of_name() {
    if gluster_is_missing() {
        return;
    }
    let dir = Dir::new();
    let disk = disk(&dir, "a.raw");
    let server = Server::new(&dir);
    let ran = |line: &str| ran(&server, &dir, line);
    let url = |name: &str| format!("gluster://{HOST}/v/{name}");
    let raw = url("b.raw");
    ran(&format!("convert -f raw -O raw a.raw {raw}"));
    assert!(bytes(&dir, "brick/b.raw") == disk);
    let mounted = std::fs::read(server.seen(&dir.path("mounted/b.raw")));
    assert!(mounted.expect("a mounted file") == disk);
    // Holes are told, and lead to the same bytes.
    let map = ran(&format!("map --output=json -f raw {raw}")).out;
    assert!(
        map.contains("\"start\": 262144, \"length\": 524288, \"depth\": 0, \"present\": true, \"zero\": true, \"data\": false"),
        "{map}"
    );
    ran(&format!("convert -f raw -O raw {raw} c.raw"));
    assert!(bytes(&dir, "c.raw") == disk);
    // By every kind of name.
    let socket = server.seen("/run/glusterd.socket".as_ref());
    let socket = socket.display();
    let options = format!(
        "driver=raw,file.driver=gluster,file.volume=v,file.path=b.raw,file.debug=7,file.logfile=client.log,\
         file.server.0.type=inet,file.server.0.host={HOST},file.server.0.port=1,\
         file.server.1.type=unix,file.server.1.path={socket}"
    );
    let json = format!(
        "json:{{'driver':'raw','file':{{'driver':'gluster','volume':'v','path':'b.raw','server':[{{'type':'tcp','host':'{HOST}'}}]}}}}"
    );
    ran(&format!(
        "compare -f raw -F raw a.raw gluster+unix:///v/b.raw?socket={socket}"
    ));
    ran(&format!(
        "compare -f raw -F raw a.raw gluster+tcp://{HOST}:24007/v/b.raw"
    ));
    ran(&format!("compare -f raw a.raw {json}"));
    ran(&format!(
        "compare --image-opts driver=raw,file.filename=a.raw {options}"
    ));
    assert!(!bytes(&dir, "client.log").is_empty());
    let mut image = String::new();
    for (number, options) in ["-c ", "-W -t writethrough "].iter().enumerate() {
        image = format!("d{number}.qcow2");
        ran(&format!(
            "convert {options}-f raw -O qcow2 a.raw {}",
            url(&image)
        ));
        ran(&format!("compare -f raw -F qcow2 a.raw brick/{image}"));
        ran(&format!("compare -f raw a.raw {}", url(&image)));
    }
    for line in [
        "check U",
        "map --output=json U",
        "snapshot -c s U",
        "resize U 9M",
        "resize --shrink U 8M",
        "bench -c 10 -w -f qcow2 U",
        "bitmap --add U b",
        "snapshot -d s U",
        "check U",
    ] {
        ran(&line.replace('U', &url(&image)));
    }
    ran(&format!("check brick/{image}"));
    // Files that are there become shorter and longer, with and without their room.
    ran(&format!("create -q -f raw {raw} 1M"));
    assert!(bytes(&dir, "brick/b.raw") == vec![0; 1 << 20]);
    let room = || {
        std::os::unix::fs::MetadataExt::blocks(&dir.path("brick/b.raw").metadata().expect("a file"))
    };
    assert!(room() < 256, "{}", room());
    ran(&format!("resize -q -f raw --preallocation=falloc {raw} 2M"));
    assert!(room() >= 2048, "{}", room());
    ran(&format!("resize -q -f raw --preallocation=full {raw} 3M"));
    assert!(bytes(&dir, "brick/b.raw") == vec![0; 3 << 20] && room() >= 4096);
    ran(&format!(
        "create -q -f raw -o preallocation=falloc {} 1M",
        url("e.raw")
    ));
    // An overlay here of an image there.
    ran(&format!(
        "create -q -f qcow2 -b {} -F qcow2 over",
        url(&image)
    ));
    ran("bench -c 10 -w -f qcow2 over");
    ran("commit over");
    ran(&format!("check brick/{image}"));
    let info = ran(&format!("info {}", url(&image))).out;
    assert!(
        info.starts_with(&format!("image: {}\n", url(&image))),
        "{info}"
    );
    refuses_what_cannot_be(&server, &dir);
}

/// What cannot be had is told in one line.
fn refuses_what_cannot_be(server: &Server, dir: &Dir) {
    let url = |name: &str| format!("gluster://{HOST}/v/{name}");
    for (line, text) in [
        (format!("info {}", url("none")), "No such file or directory"),
        (
            format!("info gluster://{HOST}/w/x"),
            "Gluster connection for volume w, path x failed to connect",
        ),
        (
            format!("info gluster://{HOST}:1/v/x"),
            "Gluster connection for volume v, path x failed to connect",
        ),
        (format!("info gluster://{HOST}/v"), "invalid URI"),
        (
            format!("info gluster+rdma://{HOST}/v/x"),
            "Unknown protocol 'gluster+rdma'",
        ),
        (
            format!("create -f raw {} 1M", url("no/x")),
            "No such file or directory",
        ),
        (
            format!(
                "create -f raw -o preallocation=metadata {} 1M",
                url("m.raw")
            ),
            "preallocation",
        ),
    ] {
        let ran = server.run(dir, &line);
        assert!(ran.code == 1 && ran.err.contains(text), "{line}: {ran:?}");
    }
    assert!(!dir.path("brick/m.raw").exists());
    // What was made is removed again.
    let ran = server.run(
        dir,
        &format!("convert -f qcow2 -O raw a.raw {}", url("new.raw")),
    );
    assert!(
        ran.code == 1 && !dir.path("brick/new.raw").exists(),
        "{ran:?}"
    );
}

#[test]
fn a_brick_that_ends_or_stops_in_the_middle_is_no_wrong_byte_and_no_wait_without_end() {
    if gluster_is_missing() {
        return;
    }
    let dir = Dir::new();
    let server = Server::new(&dir);
    let url = |name: &str| format!("gluster://{HOST}/v/{name}");
    let deadline = Instant::now() + Duration::from_secs(120);
    std::fs::write(dir.path("b.raw"), vec![7; 16 << 20]).expect("a disk");
    ran(
        &server,
        &dir,
        &format!("convert -f raw -O raw b.raw {}", url("a.raw")),
    );
    // Slow enough to be met in the middle.
    let begun = |from: &str, to: &str, grows: &str| {
        let line = format!("convert -f raw -O raw -r 4M {from} {to}");
        let child = server.tool(&dir, &line).stderr(Stdio::piped()).spawn();
        while std::fs::metadata(dir.path(grows)).map_or(0, |meta| meta.len()) == 0 {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        child.expect("the tool")
    };
    // One that has stopped says nothing: a signal ends the wait.
    let child = begun(&url("a.raw"), "here.raw", "here.raw");
    server.signal_brick("-STOP");
    let ended = Command::new("kill").arg(child.id().to_string()).status();
    assert!(ended.expect("kill").success());
    let done = child.wait_with_output().expect("its end");
    server.signal_brick("-CONT");
    assert_ne!(done.status.code(), Some(0), "{done:?}");
    let child = begun("b.raw", &url("killed.raw"), "brick/killed.raw");
    server.signal_brick("-KILL");
    let done = child.wait_with_output().expect("its end");
    let text = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{text}");
    assert!(text.contains("not connected"), "{text}");
}

#[test]
fn a_brick_that_stops_or_is_killed_in_any_command_harms_nothing() {
    if gluster_is_missing() {
        return;
    }
    let dir = Dir::new();
    prepare(&dir);
    let server = Server::new(&dir);
    let url = |name: String| format!("gluster://{HOST}/v/{name}");
    let place = |number: usize| dir.str(&format!("brick/i{number}"));
    for number in 0..IMAGES {
        ran(
            &server,
            &dir,
            &format!(
                "convert -f raw -O raw b.qcow2 {}",
                url(format!("i{number}"))
            ),
        );
    }
    let far = Stopping {
        image: &|number| url(format!("i{number}")),
        free: Some(&|number| url(format!("new{number}"))),
        tool: &|line| server.tool(&dir, line),
        signal: &|signal| server.signal_brick(signal),
    };
    far.ends_by_a_signal();
    (0..IMAGES).for_each(|number| is_sound(&dir, &place(number)));
    far.goes_on();
    (0..IMAGES).for_each(|number| is_sound(&dir, &place(number)));
    assert!(far.ends_when_it_is_killed() > 0);
    (0..IMAGES).for_each(|number| is_sound(&dir, &place(number)));
}

#[test]
fn overlays_of_files_of_volumes_survive_a_brick_that_ends_or_stops_in_the_middle() {
    if gluster_is_missing() {
        return;
    }
    let dir = Dir::new();
    far_bases::prepare(&dir);
    let server = Server::new(&dir);
    let name = |name: &str| format!("gluster://{HOST}/v/{name}");
    for base in BASES {
        let line = format!("convert -f raw -O raw base {}", name(base));
        ran(&server, &dir, &line);
    }
    let far = FarBases {
        dir: &dir,
        name: &name,
        options: &|name| {
            format!(
                "file.file.driver=gluster,file.file.volume=v,file.file.path={name},\
                 file.file.server.0.type=inet,file.file.server.0.host={HOST},\
                 file.file.server.0.port=24007"
            )
        },
        command: &|program, args| server.command(&dir, program, args),
        fetch: &|name, to| {
            std::fs::copy(dir.path(&format!("brick/{name}")), to).expect("a copy");
        },
    };
    far.ends_by_a_deadline(&[When::First, When::InTheMiddle], |stop| {
        server.signal_brick(if stop { "-STOP" } else { "-CONT" });
    });
    let kill = || server.signal_brick("-KILL");
    let start = || server.start_brick_again(&dir);
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
