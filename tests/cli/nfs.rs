//! Files of NFS servers, against Ganesha and the tools of libnfs.

pub mod server;
mod silent;
mod users;
mod versions;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::beside::{Beside, peer_has};
use crate::common::{Dir, Ran, Random};
use crate::far_bases::{self, BASES, End, FarBases, When};
use crate::pair::words;
use crate::stopped::{IMAGES, Stopping, is_sound, prepare};
use server::{Server, ganesha_is_missing};

#[track_caller]
fn ran(server: &Server, dir: &Dir, line: &str) -> Ran {
    let ran = server.run(dir, line);
    assert_eq!(ran.code, 0, "{line}: {ran:?}");
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

fn bytes(dir: &Dir, name: &str) -> Vec<u8> {
    std::fs::read(dir.path(name)).expect("a file")
}

#[test]
fn every_command_works_over_both_versions() {
    if ganesha_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let server = Server::new(&dir);
    let root = dir.root().display().to_string();
    for version in [3, 4] {
        let url = |name: &str| match version {
            3 => format!("nfs://127.0.0.1{root}/exp/{name}"),
            _ => format!("nfs://127.0.0.1/exp/{name}?version=4"),
        };
        let ran = |line: String| ran(&server, &dir, &line);
        // Names of their own: the server does not see at once what is removed behind its back.
        let raw = format!("b{version}.raw");
        let (raw, raw_there) = (url(&raw), format!("exp/{raw}"));
        ran(format!("convert -f raw -O raw a.raw {raw}"));
        assert!(bytes(&dir, &raw_there) == bytes(&dir, "a.raw"));
        ran(format!("convert -f raw -O raw {raw} c.raw"));
        assert!(bytes(&dir, "c.raw") == bytes(&dir, "a.raw"));
        let cat = server.command(&dir, "nfs-cat", &[&raw]).output();
        assert!(cat.expect("nfs-cat").stdout == bytes(&dir, "a.raw"));
        let mut image = String::new();
        for (number, options) in ["", "-c ", "-W ", "-t writethrough "].iter().enumerate() {
            image = format!("d{version}{number}.qcow2");
            ran(format!(
                "convert {options}-f raw -O qcow2 a.raw {}",
                url(&image)
            ));
            ran(format!("compare -f raw -F qcow2 a.raw exp/{image}"));
            ran(format!("compare -f raw a.raw {}", url(&image)));
        }
        for line in [
            "check U",
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
            ran(line.replace('U', &url(&image)));
        }
        ran(format!("check exp/{image}"));
        ran(format!("create -f raw {raw} 1M"));
        assert!(bytes(&dir, &raw_there) == vec![0; 1 << 20]);
        ran(format!("resize -f raw {raw} 2M"));
        assert_eq!(bytes(&dir, &raw_there).len(), 2 << 20);
        // An overlay here of an image there.
        let _ = std::fs::remove_file(dir.path("over"));
        ran(format!(
            "create -q -f qcow2 -b {} -F qcow2 over",
            url(&image)
        ));
        ran("bench -c 10 -w -f qcow2 over".to_owned());
        ran("commit over".to_owned());
        ran(format!("check exp/{image}"));
        let info = ran(format!("info {}", url(&image))).out;
        assert!(
            info.starts_with(&format!("image: {}\n", url(&image))),
            "{info}"
        );
    }
}

#[test]
fn both_tools_tell_the_same_and_read_what_the_other_wrote() {
    if ganesha_is_missing() || !peer_has("nfs") {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let server = Server::new(&dir);
    let root = dir.root().display().to_string();
    let beside = Beside {
        dir: &dir,
        command: &|program, args| server.command(&dir, program, args),
        name: &|name| format!("nfs://127.0.0.1{root}/exp/{name}"),
        options: &|name| {
            format!("driver=nfs,server.type=inet,server.host=127.0.0.1,path={root}/exp/{name}")
        },
        renamed: &|text| text,
    };
    std::fs::copy(dir.path("a.raw"), dir.path("exp/r")).expect("an image");
    dir.qemu_img_ok(&words("convert -f raw -O qcow2 a.raw exp/q"));
    beside.tells();
    beside.crosses("");
    beside.same(&[
        "info U/r?bogus=1",
        "info U/r?uid=x",
        "info U/r?readahead=99999999&pagecache=99999999",
        "info nfs://127.0.0.1",
        "info nfs:///x/y",
        "info nfs:x",
        "info --image-opts driver=nfs",
        "create -f raw U/new 1M",
        "create -f qcow2 U/new2 1M",
        "resize -f raw U/new 2M",
        "info U/new",
    ]);
}

#[test]
fn what_cannot_be_had_is_told_in_one_line() {
    if ganesha_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let server = Server::new(&dir);
    let root = dir.root().display().to_string();
    let exp = format!("nfs://127.0.0.1{root}/exp");
    let refused = |line: &str, text: &str| {
        let ran = server.run(&dir, line);
        assert!(ran.code == 1 && ran.err.contains(text), "{line}: {ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{line}: {ran:?}");
    };
    refused(
        &format!("info {exp}/none"),
        "Failed to open file 'none': No such file or directory",
    );
    refused(
        &format!("info nfs://127.0.0.1{root}/other/x"),
        "Failed to mount nfs share",
    );
    refused(
        &format!("info {exp}/x?nfsport=1&mountport=1"),
        "Failed to mount nfs share",
    );
    refused(
        &format!("info {exp}/x?bogus=1"),
        "Unknown NFS parameter name: bogus",
    );
    refused("info nfs://127.0.0.1", "missing file path in URI");
    // What was made is removed again.
    let line = format!("convert -f qcow2 -O raw a.raw {exp}/new.raw");
    let ran = server.run(&dir, &line);
    assert!(
        ran.code == 1 && !dir.path("exp/new.raw").exists(),
        "{ran:?}"
    );
}

#[test]
fn reads_go_on_when_the_server_is_started_anew_and_writes_that_may_be_lost_do_not() {
    if ganesha_is_missing() {
        return;
    }
    let dir = Dir::new();
    let server = Server::new(&dir);
    let file = std::fs::File::create(dir.path("exp/a.raw")).expect("a file");
    file.set_len(128 << 20).expect("its length");
    let url = format!("nfs://127.0.0.1{}/exp", dir.root().display());
    let deadline = Instant::now() + Duration::from_secs(60);
    let begun = |line: &str, grows: &str| {
        let child = server
            .tool(&dir, line)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("the tool");
        while std::fs::metadata(dir.path(grows)).map_or(0, |meta| meta.len()) == 0 {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        server.kill();
        let done = child.wait_with_output().expect("its end");
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        (done.status.code(), text)
    };
    // Slow enough to be met in the middle.
    let line = format!("convert -f raw -O raw -r 50M {url}/a.raw out.raw");
    let (code, text) = begun(&line, "out.raw");
    assert_eq!(code, Some(0), "{text}");
    std::fs::write(dir.path("b.raw"), vec![7; 128 << 20]).expect("a disk");
    let line = format!("convert -f raw -O raw -r 50M b.raw {url}/new.raw");
    let (code, text) = begun(&line, "exp/new.raw");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("since the last flush may be lost"), "{text}");
}

#[test]
fn a_server_that_stops_or_is_killed_in_any_command_harms_nothing() {
    if ganesha_is_missing() {
        return;
    }
    let dir = Dir::new();
    prepare(&dir);
    let server = Server::new(&dir);
    let url = format!("nfs://127.0.0.1{}/exp", dir.root().display());
    let place = |number: usize| dir.str(&format!("exp/i{number}"));
    for number in 0..IMAGES {
        std::fs::copy(dir.path("b.qcow2"), place(number)).expect("an image");
    }
    let far = Stopping {
        image: &|number| format!("{url}/i{number}"),
        free: Some(&|number| format!("{url}/new{number}")),
        tool: &|line| server.tool(&dir, line),
        signal: &|signal| server.signal(signal),
    };
    far.ends_by_a_signal();
    (0..IMAGES).for_each(|number| is_sound(&dir, &place(number)));
    far.goes_on();
    (0..IMAGES).for_each(|number| is_sound(&dir, &place(number)));
    far.ends_when_it_is_killed();
    (0..IMAGES).for_each(|number| is_sound(&dir, &place(number)));
}

#[test]
fn overlays_of_files_survive_a_server_that_ends_or_stops_in_the_middle() {
    if ganesha_is_missing() {
        return;
    }
    let dir = Dir::new();
    far_bases::prepare(&dir);
    let server = RefCell::new(Some(Server::new(&dir)));
    for name in BASES {
        std::fs::copy(dir.path("base"), dir.path(&format!("exp/{name}"))).expect("a base");
    }
    let with = |what: &dyn Fn(&Server)| what(server.borrow().as_ref().expect("a server"));
    let far = FarBases {
        dir: &dir,
        name: &|name| format!("nfs://127.0.0.1{}/exp/{name}", dir.root().display()),
        options: &|name| {
            format!(
                "file.file.driver=nfs,file.file.server.type=inet,\
                 file.file.server.host=127.0.0.1,file.file.path={}/exp/{name}",
                dir.root().display()
            )
        },
        command: &|program, args| {
            let server = server.borrow();
            server
                .as_ref()
                .expect("a server")
                .command(&dir, program, args)
        },
        fetch: &|name, to| {
            std::fs::copy(dir.path(&format!("exp/{name}")), to).expect("a copy");
        },
    };
    far.ends_by_a_deadline(&[When::First, When::InTheMiddle], |stop| {
        with(&|server| server.signal(if stop { "-STOP" } else { "-CONT" }));
    });
    // One that is killed is started anew.
    far.meets(End::Returns, || with(&Server::kill), || {});
    far.meets(
        End::Gone,
        || drop(server.take()),
        || drop(server.replace(Some(Server::new(&dir)))),
    );
}
