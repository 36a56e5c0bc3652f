//! Images of Ceph clusters, against Ceph's own tool.

mod access;
pub mod cluster;
mod encrypted;
mod namespaces;

use std::cell::RefCell;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use crate::beside::{Beside, here, peer_has};
use crate::build::tool;
use crate::common::{Dir, Ran, Random};
use crate::far_bases::{self, BASES, End, FarBases, When};
use crate::pair::{ours, ours_command, words};
use crate::remote_faults::end_of;
use crate::serve::Served;
use crate::stopped::{IMAGES, Stopping, is_sound, prepare};
use cluster::{Cluster, ceph_is_missing, fresh, shared};

fn run(line: &str, dir: &Dir) -> Ran {
    ours(&words(line), dir.root())
}

#[track_caller]
fn ran(line: &str, dir: &Dir) -> Ran {
    let ran = run(line, dir);
    assert_eq!(ran.code, 0, "{line}: {ran:?}");
    ran
}

/// A disk with data and zeroes, whose length is no multiple of an object.
fn disk(dir: &Dir, name: &str) -> Vec<u8> {
    disk_of((34 << 20) + 4096, dir, name)
}

fn disk_of(len: usize, dir: &Dir, name: &str) -> Vec<u8> {
    let mut random = Random(7);
    let mut bytes = vec![0; len];
    for piece in bytes.chunks_mut(1 << 20).step_by(13) {
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

/// What Ceph's own tool reads of an image.
#[track_caller]
fn exported(cluster: &Cluster, dir: &Dir, image: &str) -> Vec<u8> {
    let _ = std::fs::remove_file(dir.path("exported"));
    let to = dir.str("exported");
    cluster.rbd(&format!("export --no-progress rbd/{image} {to}"));
    bytes(dir, "exported")
}

#[test]
fn images_that_ceph_imported_are_read_by_every_command() {
    if ceph_is_missing() {
        return;
    }
    let (dir, cluster, image) = (Dir::new(), shared(), fresh());
    let disk = disk(&dir, "a.raw");
    cluster.rbd(&format!(
        "import --no-progress {} rbd/{image}",
        dir.str("a.raw")
    ));
    let name = cluster.name(&image);
    let info = ran(&format!("info {name}"), &dir).out;
    for line in [
        "file format: raw\nvirtual size: 34 MiB (35655680 bytes)\n",
        "cluster_size: 4194304\n",
        "    protocol type: rbd\n    file length: 34 MiB",
    ] {
        assert!(info.contains(line), "{info}");
    }
    ran(&format!("compare -f raw -F raw a.raw {name}"), &dir);
    ran(&format!("convert -f raw -O raw {name} b.raw"), &dir);
    assert!(bytes(&dir, "b.raw") == disk);
    ran(
        &format!("dd -f raw -O raw bs=1M count=2 if={name} of=c.raw"),
        &dir,
    );
    assert!(bytes(&dir, "c.raw") == disk[..2 << 20]);
    let map = ran(&format!("map --output=json -f raw {name}"), &dir).out;
    assert!(
        map.contains("\"start\": 4194304, \"length\": 8388608, \"depth\": 0, \"present\": true, \"zero\": true"),
        "{map}"
    );
    let measured = ran(&format!("measure -f raw -O qcow2 {name}"), &dir).out;
    assert!(measured.contains("required size: "), "{measured}");
    // An overlay here of an image there.
    ran(
        &format!("create -q -f qcow2 -b {name} -F raw over.qcow2"),
        &dir,
    );
    ran("bench -c 10 -w -f qcow2 over.qcow2", &dir);
    ran("commit over.qcow2", &dir);
    let after = exported(cluster, &dir, &image);
    assert!(after[1 << 20..] == disk[1 << 20..] && after.len() == disk.len());
}

#[test]
fn both_tools_tell_the_same_and_read_what_the_other_wrote() {
    if ceph_is_missing() || !peer_has("rbd") {
        return;
    }
    let (dir, cluster, image) = (Dir::new(), shared(), fresh());
    disk_of((6 << 20) + 4096, &dir, "a.raw");
    let own = |name: &str| format!("{name}-{image}");
    let conf = cluster.conf();
    let beside = Beside {
        dir: &dir,
        command: &|program, args| here(dir.root(), &[], program, args),
        name: &|name| cluster.name(&own(name)),
        options: &|name| format!("driver=rbd,pool=rbd,image={},conf={conf}", own(name)),
        // A column of maps, which has the short name here.
        renamed: &|text| {
            let image = own("q");
            let node = format!(
                "   json:{{\"pool\": \"rbd\", \"image\": \"{image}\", \"conf\": \"{conf}\", \"driver\": \"rbd\", \"namespace\": \"\"}}"
            );
            text.replace(&node, &format!("   rbd:rbd/{image}"))
        },
    };
    beside.crosses("");
    for (name, made) in [("r", "traw"), ("q", "tqcow2")] {
        let (from, to) = (own(made), own(name));
        cluster.rbd(&format!("cp --no-progress rbd/{from} rbd/{to}"));
    }
    beside.tells();
    beside.same(&[
        "info U/none",
        "create -f raw U/r 1M",
        "resize -f raw U/r 8M",
        "info U/r",
        "info --image-opts driver=rbd,pool=p",
    ]);
}

#[test]
fn images_are_made_and_written() {
    if ceph_is_missing() {
        return;
    }
    let (dir, cluster, image) = (Dir::new(), shared(), fresh());
    let disk = disk(&dir, "a.raw");
    let name = cluster.name(&image);
    ran(&format!("convert -f raw -O raw a.raw {name}"), &dir);
    assert!(exported(cluster, &dir, &image) == disk);
    // One that is there is left alone.
    let again = run(&format!("convert -f raw -O raw a.raw {name}"), &dir);
    assert_eq!(again.code, 1);
    assert!(
        again.err.contains("error rbd create: File exists"),
        "{again:?}"
    );
    assert!(exported(cluster, &dir, &image) == disk);
    ran(&format!("convert -n -f raw -O raw a.raw {name}"), &dir);
    ran(&format!("resize -f raw {name} 40M"), &dir);
    let mut longer = disk.clone();
    longer.resize(40 << 20, 0);
    assert!(exported(cluster, &dir, &image) == longer);
    let refused = run(&format!("resize -f raw {name} 1M"), &dir);
    assert!(
        refused.code == 1 && refused.err.contains("--shrink"),
        "{refused:?}"
    );
    ran(&format!("resize --shrink -f raw {name} 1000000"), &dir);
    ran(&format!("resize -f raw {name} 8M"), &dir);
    let mut shorter = disk[..1_000_000].to_vec();
    shorter.resize(8 << 20, 0);
    assert!(exported(cluster, &dir, &image) == shorter);
    let small = fresh();
    let made = ran(
        &format!(
            "create -f raw -o cluster_size=64k {} 1M",
            cluster.name(&small)
        ),
        &dir,
    );
    assert!(
        made.out.contains("fmt=raw size=1048576 cluster_size=65536"),
        "{made:?}"
    );
    assert!(
        cluster.rbd(&format!("info {small}")).contains("order 16"),
        "{small}"
    );
    for (size, text) in [
        ("1000", "obj size needs to be power of 2"),
        ("2k", "obj size too small"),
    ] {
        let name = cluster.name(&fresh());
        let failed = run(
            &format!("create -f raw -o cluster_size={size} {name} 1M"),
            &dir,
        );
        assert!(failed.code == 1 && failed.err.contains(text), "{failed:?}");
    }
}

#[test]
fn formats_grow_and_end_where_they_end() {
    if ceph_is_missing() {
        return;
    }
    let (dir, cluster) = (Dir::new(), shared());
    disk(&dir, "a.raw");
    for options in [
        "-O qcow2",
        "-c -O qcow2",
        "-W -O qcow2",
        "-O vhdx",
        "-O vdi",
    ] {
        let image = fresh();
        let name = cluster.name(&image);
        ran(&format!("convert -f raw {options} a.raw {name}"), &dir);
        ran(&format!("compare -f raw a.raw {name}"), &dir);
        ran(&format!("check {name}"), &dir);
        let file = exported(cluster, &dir, &image);
        assert!(file.len() < 40 << 20, "{options}: {}", file.len());
        std::fs::write(dir.path("b.img"), file).expect("a file");
        let format = options.rsplit(' ').next().expect("a format");
        let theirs = dir.qemu_img(&words(&format!("compare -f raw -F {format} a.raw b.img")));
        assert_eq!(theirs.code, 0, "{options}: {theirs:?}");
    }
    let name = cluster.name(&fresh());
    ran(
        &format!("create -q -f qcow2 -o cluster_size=128k {name} 8M"),
        &dir,
    );
    for line in [
        "snapshot -c s U",
        "snapshot -l U",
        "resize U 9M",
        "resize --shrink U 8M",
        "amend -o lazy_refcounts=on U",
        "bench -c 10 -w -f qcow2 U",
        "bitmap --add U b",
        "rebase -u -b '' U",
        "snapshot -d s U",
        "check U",
    ] {
        ran(&line.replace('U', &name), &dir);
    }
    let info = ran(&format!("info {name}"), &dir).out;
    assert!(info.contains("cluster_size: 131072\n"), "{info}");
    assert!(info.contains("    cluster_size: 4194304\n"), "{info}");
}

#[test]
fn snapshots_are_listed_and_read() {
    if ceph_is_missing() {
        return;
    }
    let (dir, cluster, image) = (Dir::new(), shared(), fresh());
    let disk = disk(&dir, "a.raw");
    let name = cluster.name(&image);
    ran(&format!("convert -f raw -O raw a.raw {name}"), &dir);
    cluster.rbd(&format!("snap create --no-progress rbd/{image}@one"));
    ran(&format!("bench -c 10 -w -f raw {name}"), &dir);
    let info = ran(&format!("info {name}"), &dir).out;
    let listed =
        "ID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT\n";
    assert!(
        info.contains(&format!("Snapshot list:\n{listed}one     one ")),
        "{info}"
    );
    let of = cluster.name(&format!("{image}@one"));
    ran(&format!("compare -f raw -F raw a.raw {of}"), &dir);
    ran(&format!("convert -f raw -O raw {of} b.raw"), &dir);
    assert!(bytes(&dir, "b.raw") == disk);
    for line in [
        format!("resize -f raw {of} 50M"),
        format!("bench -w -f raw {of}"),
        format!("create -f raw {of} 1M"),
    ] {
        let refused = run(&line, &dir);
        assert_eq!(refused.code, 1, "{line}");
        assert!(
            refused.err.contains("rbd snapshots are read-only"),
            "{refused:?}"
        );
    }
    let none = run(
        &format!("info {}", cluster.name(&format!("{image}@two"))),
        &dir,
    );
    assert!(
        none.code == 1 && none.err.contains("No such file"),
        "{none:?}"
    );
}

#[test]
fn snapshots_are_made_gone_back_to_and_dropped() {
    if ceph_is_missing() {
        return;
    }
    let (dir, cluster, image) = (Dir::new(), shared(), fresh());
    let disk = disk(&dir, "a.raw");
    let name = cluster.name(&image);
    ran(&format!("convert -f raw -O raw a.raw {name}"), &dir);
    let snapshot = |words: &str| run(&format!("snapshot -f raw {words} {name}"), &dir);
    let done = |words: &str| {
        let done = snapshot(words);
        assert_eq!(done.code, 0, "{words}: {done:?}");
        done.out
    };
    let refused = |words: &str, text: &str| {
        let refused = snapshot(words);
        let expected = format!("qemu-img: {text}\n");
        assert_eq!((refused.code, refused.err), (1, expected), "{words}");
    };
    assert_eq!(done("-l"), "");
    done("-c one");
    assert!(
        cluster
            .rbd(&format!("snap ls rbd/{image}"))
            .contains(" one ")
    );
    let listed = done("-l");
    assert!(listed.contains("\none     one             "), "{listed}");
    refused("-c one", "Could not create snapshot 'one': File exists");
    // Other bytes, and another length.
    ran(&format!("bench -c 10 -w --pattern=7 -f raw {name}"), &dir);
    ran(&format!("resize -q -f raw {name} 50M"), &dir);
    done("-c two");
    done("-a one");
    assert!(exported(cluster, &dir, &image) == disk);
    done("-a two");
    assert_eq!(exported(cluster, &dir, &image).len(), 50 << 20);
    refused(
        "-a none",
        "Could not apply snapshot 'none': Failed to load snapshot: No such file or directory",
    );
    refused(
        "-d none",
        "Could not delete snapshot 'none': snapshot not found",
    );
    cluster.rbd(&format!("snap protect rbd/{image}@one"));
    refused(
        "-d one",
        "Could not delete snapshot 'one': Failed to remove the snapshot: Device or resource busy",
    );
    cluster.rbd(&format!("snap unprotect rbd/{image}@one"));
    done("-d one");
    done("-d two");
    assert_eq!(done("-l"), "");
}

#[test]
fn what_a_guest_gives_back_is_given_back_to_the_cluster() {
    if ceph_is_missing() {
        return;
    }
    let (dir, cluster, image) = (Dir::new(), shared(), fresh());
    std::fs::write(dir.path("a.raw"), vec![7; 16 << 20]).expect("a disk");
    let name = cluster.name(&image);
    ran(&format!("convert -f raw -O raw a.raw {name}"), &dir);
    let served = Served::ours(&dir, &["-f", "raw", "--discard=unmap", &name]);
    let discard = ["-f", "raw", "-c", "discard 4M 8M", &served.uri("")];
    let done = crate::common::run_in(dir.root(), "qemu-io", &discard);
    assert_eq!(done.code, 0, "{done:?}");
    served.end();
    let map = ran(&format!("map --output=json -f raw {name}"), &dir).out;
    assert!(
        map.contains("\"start\": 4194304, \"length\": 8388608, \"depth\": 0, \"present\": true, \"zero\": true"),
        "{map}"
    );
}

#[test]
fn names_are_shown_as_the_peer_shows_them() {
    if ceph_is_missing() {
        return;
    }
    let (dir, cluster, image) = (Dir::new(), shared(), fresh());
    let (name, conf) = (cluster.name(&image), cluster.conf());
    ran(&format!("create -q -f raw {name} 1M"), &dir);
    let shown = |name: &str| {
        let ran = ran(&format!("info --output=json {name}"), &dir);
        ran.out.replace("\\\"", "'")
    };
    let info = shown(&name);
    let file = format!(
        "{{'pool': 'rbd', 'image': '{image}', 'conf': '{conf}', 'driver': 'rbd', 'namespace': ''}}"
    );
    for line in [
        format!("\"filename\": \"json:{{'driver': 'raw', 'file': {file}}}\""),
        format!("\"filename\": \"json:{file}\""),
        "\"dirty-flag\": false".to_owned(),
    ] {
        assert!(info.contains(&line), "{info}");
    }
    // With a user and a key, which is not shown.
    let key = cluster.key("client.img");
    let user = format!("rbd:rbd/{image}:id=img:key={key}:conf={conf}");
    let info = shown(&user);
    let file = format!(
        "{{'pool': 'rbd', 'image': '{image}', 'conf': '{conf}', 'driver': 'rbd', 'namespace': '', 'user': 'img'}}"
    );
    assert!(info.contains(&file) && !info.contains(&key), "{info}");
    let options = format!("driver=rbd,pool=rbd,image={image},conf={conf},user=img");
    let file = format!(
        "{{'pool': 'rbd', 'image': '{image}', 'conf': '{conf}', 'driver': 'rbd', 'user': 'img'}}"
    );
    let secret = format!("--object secret,id=k,data={key}");
    let info = shown(&format!("{secret} --image-opts {options},key-secret=k"));
    assert!(info.contains(&format!("json:{file}")), "{info}");
    let wrong = run(
        &format!(
            "info {}",
            user.replace(&key, "AQBAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAA==")
        ),
        &dir,
    );
    let expected = format!(
        "qemu-img: Could not open 'rbd:rbd/{image}:id=img:key=:conf={conf}': error connecting: Permission denied\n"
    );
    assert_eq!((wrong.code, wrong.err), (1, expected));
    for (name, text) in [
        (
            format!("rbd:rbd/none:conf={conf}"),
            "error reading header from none: No such file or directory",
        ),
        (
            format!("rbd:none/x:conf={conf}"),
            "error opening pool none: No such file or directory",
        ),
        (
            format!("rbd:rbd/n/x:conf={conf}"),
            "namespace 'n' does not exist",
        ),
        (
            format!("rbd:rbd/x:conf={conf}:foo=bar"),
            "invalid conf option foo: No such file or directory",
        ),
        (
            "rbd:rbd/x:conf=/none".to_owned(),
            "error reading conf file /none: No such file or directory",
        ),
        ("rbd:x".to_owned(), "Pool name is required"),
    ] {
        let failed = run(&format!("info {name}"), &dir);
        let expected = format!("qemu-img: Could not open '{name}': {text}\n");
        assert_eq!((failed.code, failed.err), (1, expected));
    }
}

#[test]
fn zeroes_are_zeroes_and_discards_harm_nothing() {
    if ceph_is_missing() {
        return;
    }
    let (dir, cluster, image) = (Dir::new(), shared(), fresh());
    let mut disk = disk(&dir, "a.raw");
    disk.fill(0xa5);
    std::fs::write(dir.path("a.raw"), &disk).expect("a disk");
    let name = cluster.name(&image);
    ran(&format!("convert -f raw -O raw a.raw {name}"), &dir);
    // Zeroes that begin and end within objects, over data.
    let zeroed = (3 << 20) + 512..(22 << 20) + 1024;
    disk[zeroed.clone()].fill(0);
    std::fs::write(dir.path("b.raw"), &disk).expect("a disk");
    ran(
        &format!("create -q -f qcow2 -b {name} -F raw over.qcow2"),
        &dir,
    );
    ran("rebase -f qcow2 -u -b '' over.qcow2", &dir);
    ran("convert -f raw -O qcow2 b.raw b.qcow2", &dir);
    ran(&format!("convert -n -f qcow2 -O raw b.qcow2 {name}"), &dir);
    assert!(exported(cluster, &dir, &image) == disk);
    // The objects within are gone.
    let map = ran(&format!("map --output=json -f raw {name}"), &dir).out;
    assert!(map.contains("\"start\": 4194304, \"length\": 16777216, \"depth\": 0, \"present\": true, \"zero\": true"), "{map}");
}

#[test]
fn encrypted_images_are_made_and_read() {
    if ceph_is_missing() {
        return;
    }
    let (dir, cluster) = (Dir::new(), shared());
    let disk = disk_of((2 << 20) + 4096, &dir, "a.raw");
    let conf = cluster.conf();
    std::fs::write(dir.path("pass"), "sesame").expect("a passphrase");
    let secret = "--object secret,id=s,data=sesame";
    for format in ["luks", "luks2"] {
        let image = fresh();
        let name = cluster.name(&image);
        let encrypt = format!("encrypt.format={format},encrypt.key-secret=s");
        let create = format!("create {secret} -q -f raw -o {encrypt} {name} 2101248");
        encrypted::created(tool(), &create, &dir);
        let options = format!("driver=rbd,pool=rbd,image={image},conf={conf},{encrypt}");
        let line =
            format!("{secret} -n --image-opts driver=raw,file.filename=a.raw --target-image-opts");
        ran(&format!("convert {line} {options}"), &dir);
        ran(
            &format!("convert {secret} --image-opts {options} -O raw b.raw"),
            &dir,
        );
        assert!(bytes(&dir, "b.raw") == disk);
        // By our own LUKS, which needs no help of the cluster.
        if format == "luks" {
            let file = exported(cluster, &dir, &image);
            assert!(!file.windows(16).any(|piece| piece == &disk[..16]));
            let options = "driver=luks,key-secret=s,file.filename=exported";
            ran(
                &format!("compare {secret} --image-opts {options} driver=raw,file.filename=a.raw"),
                &dir,
            );
        }
        let info = ran(&format!("info -f raw {name}"), &dir).out;
        assert!(
            info.contains(&format!("encryption format: {format}\n")),
            "{info}"
        );
        ran(&format!("resize {secret} --image-opts {options} 40M"), &dir);
        let info = ran(&format!("info {secret} --image-opts {options}"), &dir).out;
        assert!(
            info.contains("virtual size: 40 MiB (41943040 bytes)"),
            "{info}"
        );
        let wrong = run(
            &format!("info --object secret,id=s,data=x --image-opts {options}"),
            &dir,
        );
        assert!(
            wrong.code == 1
                && wrong
                    .err
                    .contains("encryption load fail: Operation not permitted"),
            "{wrong:?}"
        );
    }
    let name = cluster.name(&fresh());
    let failed = run(
        &format!("create -f raw -o encrypt.format=luks {name} 64M"),
        &dir,
    );
    assert!(
        failed.code == 1 && failed.err.contains("'encrypt.key-secret' is missing"),
        "{failed:?}"
    );
}

/// Images for each command, all the same.
fn import_images(cluster: &Cluster, dir: &Dir) {
    prepare(dir);
    let b = dir.str("b.qcow2");
    for number in 0..IMAGES {
        cluster.rbd(&format!("import --no-progress {b} rbd/s{number}"));
    }
}

#[track_caller]
fn are_sound(cluster: &Cluster, dir: &Dir) {
    for number in 0..IMAGES {
        exported(cluster, dir, &format!("s{number}"));
        is_sound(dir, "exported");
    }
}

/// A signal ends each command while the store is stopped, and when it goes on all is done.
fn every_command_ends(cluster: &Cluster) {
    let dir = Dir::new();
    import_images(cluster, &dir);
    let far = Stopping {
        image: &|number| cluster.name(&format!("s{number}")),
        free: None,
        tool: &|line| ours_command(&words(line), dir.root()),
        signal: &|signal| cluster.signal_store(signal),
    };
    far.ends_by_a_signal();
    far.goes_on();
    are_sound(cluster, &dir);
}

/// Overlays survive a store, and a monitor, that stops or is killed.
fn overlays_survive(cluster: &RefCell<Cluster>) {
    let dir = Dir::new();
    far_bases::prepare(&dir);
    let base = dir.str("base");
    for name in BASES {
        let line = format!("import --no-progress {base} rbd/{name}");
        cluster.borrow().rbd(&line);
    }
    let options = |name: &str, conf: &str| {
        format!(
            "file.file.driver=rbd,file.file.pool=rbd,file.file.image={name},file.file.conf={conf}"
        )
    };
    let waiting = FarBases {
        dir: &dir,
        name: &|name| cluster.borrow().name(name),
        options: &|name| options(name, &cluster.borrow().conf()),
        command: &|program, args| here(dir.root(), &[], program, args),
        fetch: &|name, to| {
            let line = format!("export --no-progress rbd/{name} {}", to.display());
            cluster.borrow().rbd(&line);
        },
    };
    let signal = |stop| if stop { "-STOP" } else { "-CONT" };
    waiting.ends_by_a_deadline(&[When::First, When::InTheMiddle], |stop| {
        cluster.borrow().signal_store(signal(stop));
    });
    // Once all is open, the monitor is not asked any more.
    waiting.ends_by_a_deadline(&[When::First], |stop| {
        cluster.borrow().signal_monitor(signal(stop));
    });
    let kill = || cluster.borrow().signal_store("-KILL");
    let start = || cluster.borrow_mut().start_store_again();
    waiting.meets(
        End::Returns,
        || {
            kill();
            start();
        },
        || {},
    );
    // With times after which the library gives up.
    let mut text = std::fs::read_to_string(cluster.borrow().conf()).expect("the settings");
    text.push_str("[client]\nrados_osd_op_timeout = 1\nclient_mount_timeout = 2\n");
    std::fs::write(dir.path("late.conf"), text).expect("settings");
    let late = dir.str("late.conf");
    let giving_up = FarBases {
        name: &|name| format!("rbd:rbd/{name}:conf={late}"),
        options: &|name| options(name, &late),
        ..waiting
    };
    giving_up.meets(End::Gone, kill, start);
}

#[test]
fn a_store_that_is_killed_in_any_command_harms_nothing_and_is_waited_for() {
    if ceph_is_missing() {
        return;
    }
    let dir = Dir::new();
    let cluster = RefCell::new(Cluster::on_disk());
    import_images(&cluster.borrow(), &dir);
    let killed = |signal: &str| match signal {
        "-CONT" => cluster.borrow_mut().start_store_again(),
        _ => cluster.borrow().signal_store("-KILL"),
    };
    let waiting = Stopping {
        image: &|number| cluster.borrow().name(&format!("s{number}")),
        free: Some(&|number| cluster.borrow().name(&format!("new{number}"))),
        tool: &|line| ours_command(&words(line), dir.root()),
        signal: &killed,
    };
    waiting.goes_on_from_where_it_was();
    are_sound(&cluster.borrow(), &dir);
    let late = |name: String| format!("{name}:rados_osd_op_timeout=1:client_mount_timeout=2");
    let giving_up = Stopping {
        image: &|number| late(cluster.borrow().name(&format!("s{number}"))),
        free: Some(&|number| late(cluster.borrow().name(&format!("other{number}")))),
        ..waiting
    };
    assert!(giving_up.ends_when_it_is_killed() > 0);
    killed("-CONT");
    are_sound(&cluster.borrow(), &dir);
    overlays_survive(&cluster);
}

#[test]
fn a_cluster_that_is_killed_as_a_whole_is_left() {
    if ceph_is_missing() {
        return;
    }
    let (dir, cluster) = (Dir::new(), Cluster::new());
    import_images(&cluster, &dir);
    let start = |number: usize| {
        let name = cluster.name(&format!("s{number}"));
        let times = "rados_osd_op_timeout=2:client_mount_timeout=2:rados_mon_op_timeout=2";
        let line = match number % 3 {
            0 => format!("snapshot -c s {name}:{times}"),
            1 => format!("resize -q -f qcow2 {name}:{times} 900M"),
            _ => format!("convert -n -f raw -O qcow2 -r 2M a.raw {name}:{times}"),
        };
        let err = std::fs::File::create(dir.path(&format!("err{number}"))).expect("a file");
        let child = ours_command(&words(&line), dir.root()).stderr(err).spawn();
        (line, child.expect("the tool"))
    };
    let children: Vec<_> = (0..IMAGES).map(start).collect();
    std::thread::sleep(Duration::from_millis(300));
    cluster.kill();
    let mut failed = 0;
    for (number, (line, mut child)) in children.into_iter().enumerate() {
        let status = end_of(&mut child, &line);
        let text = std::fs::read_to_string(dir.path(&format!("err{number}"))).expect("the errors");
        // What was done before has succeeded.
        if !status.success() {
            assert_eq!(status.code(), Some(1), "{line}: {text}");
            assert_eq!(text.matches("qemu-img: ").count(), 1, "{line}: {text}");
            failed += 1;
        }
    }
    assert!(failed > 0, "all had ended before");
}

/// An image is listed before the call that makes it is answered, and may be all that comes of it.
fn is_told_of_what_stays(text: &str) -> bool {
    ["is left behind", "may have been made"]
        .iter()
        .any(|told| text.contains(told))
}

#[test]
fn a_store_that_stops_is_not_waited_for_without_end() {
    if ceph_is_missing() {
        return;
    }
    let (dir, cluster) = (Dir::new(), Cluster::new());
    disk(&dir, "a.raw");
    let name = format!(
        "{}:rados_osd_op_timeout=1:client_mount_timeout=2",
        cluster.name("i")
    );
    ran(&format!("convert -f raw -O raw a.raw {name}"), &dir);
    cluster.signal_store("-STOP");
    let other = name.replace("/i:", "/j:");
    for line in [
        format!("info {name}"),
        format!("map -f raw {name}"),
        format!("compare -f raw -F raw a.raw {name}"),
        format!("convert -f raw -O raw {name} b.raw"),
        format!("convert -f raw -O raw a.raw {other}"),
        format!("resize -f raw {name} 50M"),
    ] {
        let started = Instant::now();
        let failed = run(&line, &dir);
        assert_eq!(
            failed.code,
            if line.starts_with("compare") { 2 } else { 1 },
            "{failed:?}"
        );
        assert!(failed.err.contains("timed out"), "{line}: {failed:?}");
        assert!(started.elapsed() < Duration::from_secs(20), "{line}");
    }
    cluster.signal_store("-CONT");
    ran(&format!("compare -f raw -F raw a.raw {name}"), &dir);
    every_command_ends(&cluster);
    // In the middle of a transfer, both ways.
    let deadline = Instant::now() + Duration::from_secs(60);
    let out = || std::fs::metadata(dir.path("out.raw")).is_ok_and(|meta| meta.len() > 0);
    let made = || cluster.rbd("ls rbd").lines().any(|image| image == "new");
    let new = name.replace("/i:", "/new:");
    for (from, to, begun) in [
        (name.as_str(), "out.raw", &out as &dyn Fn() -> bool),
        ("a.raw", new.as_str(), &made),
    ] {
        // So slow that the end does not come before the store stops, however late that is noticed.
        let mut words = vec!["convert", "-f", "raw", "-O", "raw", "-r", "256k"];
        words.extend([from, to]);
        let child = std::process::Command::new(crate::build::tool())
            .args(words)
            .current_dir(dir.root())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("the tool");
        while !begun() {
            assert!(Instant::now() < deadline, "nothing has come");
            std::thread::sleep(Duration::from_millis(5));
        }
        cluster.signal_store("-STOP");
        let ended = child.wait_with_output().expect("its end");
        cluster.signal_store("-CONT");
        let text = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.code() == Some(1), "{text}");
        assert!(text.contains("timed out"), "{text}");
        assert_eq!(is_told_of_what_stays(&text), to == new, "{text}");
    }
    // Who ends the tool does not wait for a store that does not answer, and learns of what stays there.
    let (mut gone, name_of_left) = (false, cluster.name("left"));
    let is_made = || cluster.rbd("ls rbd").lines().any(|image| image == "left");
    // It has a second for the removal, which a busy machine may not give it.
    for stops in [false, false, false, false, true] {
        if gone && !stops {
            continue;
        }
        let line = format!("convert -f raw -O raw -r 256k a.raw {name_of_left}");
        let child = ours_command(&words(&line), dir.root())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("the tool");
        let late = Instant::now() + Duration::from_secs(60);
        while !is_made() {
            assert!(Instant::now() < late, "nothing is made");
        }
        if stops {
            cluster.signal_store("-STOP");
        }
        let told = std::process::Command::new("kill")
            .arg(child.id().to_string())
            .status();
        assert!(told.expect("kill").success());
        let ended = child.wait_with_output().expect("its end");
        cluster.signal_store("-CONT");
        let text = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.signal(), Some(15), "{text}");
        let (told, stays) = (is_told_of_what_stays(&text), is_made());
        assert!(told || !(stops || stays), "{text}");
        gone |= !told && !stays;
        if stays {
            cluster.remove("left");
        }
    }
    assert!(gone, "what was made is removed where that can be");
    cluster.signal_store("-KILL");
    let failed = run(&format!("compare -f raw -F raw a.raw {name}"), &dir);
    assert!(
        failed.code == 2 && failed.err.contains("timed out"),
        "{failed:?}"
    );
}
