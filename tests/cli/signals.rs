//! Signals during a conversion: it ends cleanly, reports, or leaves nothing that looks complete.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::Dir;
use crate::pair::{ours, words};

/// A source whose conversion takes a while at the rate that the tests ask for.
fn source() -> Dir {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "a.raw", "64M"]);
    dir.qemu_io("raw", "a.raw", &["write -P 1 0 64M"]);
    dir
}

/// The tool, which dies by signals even where the test itself was started with some ignored.
fn ours_command(args: &[&str], directory: &Path) -> Command {
    let mut command = Command::new("env");
    command
        .args(words(
            "--default-signal=INT,TERM,HUP,USR1 -u POSIXLY_CORRECT LC_ALL=C",
        ))
        .arg(crate::build::tool())
        .args(args)
        .current_dir(directory)
        .stdin(Stdio::null());
    command
}

/// Waits until `path` exists and holds something, or the child ended.
fn wait_for(path: &Path, child: &mut Child) {
    loop {
        if path.metadata().is_ok_and(|m| m.len() > 0) {
            return;
        }
        let ended = child.try_wait().expect("to look at the child");
        assert!(ended.is_none(), "it ended too early: {ended:?}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn kill(child: &Child, signal: &str) {
    let ran = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status()
        .expect("kill");
    assert!(ran.success());
}

const SLOW: [&str; 5] = ["convert", "-r", "4M", "-f", "raw"];

#[test]
fn a_signal_removes_the_target_and_ends_the_process() {
    for (signal, number) in [("-INT", 2), ("-TERM", 15), ("-HUP", 1)] {
        for (format, target) in [("raw", "out.raw"), ("qcow2", "out.qcow2")] {
            let dir = source();
            let args = [&SLOW[..], &["-O", format, "a.raw", target]].concat();
            let mut child = ours_command(&args, dir.root()).spawn().expect("the tool");
            wait_for(&dir.path(target), &mut child);
            kill(&child, signal);
            let status = child.wait().expect("its end");
            assert_eq!(status.signal(), Some(number), "{signal}");
            assert!(!dir.path(target).exists(), "{signal} leaves {target}");
        }
    }
}

#[test]
fn sigkill_leaves_nothing_that_opens_as_a_complete_image() {
    let dir = source();
    for options in [
        &["-O", "qcow2"][..],
        &["-c", "-O", "qcow2"],
        &["-O", "qcow2", "-o", "preallocation=metadata"],
    ] {
        let args = [&SLOW[..], options, &["a.raw", "out.qcow2"]].concat();
        let mut child = ours_command(&args, dir.root()).spawn().expect("the tool");
        wait_for(&dir.path("out.qcow2"), &mut child);
        kill(&child, "-KILL");
        child.wait().expect("its end");
        for args in [
            &["check", "-f", "qcow2", "out.qcow2"][..],
            &["info", "-f", "qcow2", "out.qcow2"],
            &["map", "-f", "qcow2", "out.qcow2"],
        ] {
            let theirs = dir.qemu_img(args);
            assert_ne!(theirs.code, 0, "{options:?}: {theirs:?}");
            let ran = ours(args, dir.root());
            assert_ne!(ran.code, 0, "{options:?}: {ran:?}");
        }
        std::fs::remove_file(dir.path("out.qcow2")).expect("to remove the rest");
    }
}

#[test]
fn an_existing_target_is_kept() {
    let dir = source();
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "out.qcow2", "64M"]);
    let args = [&SLOW[..], &["-n", "-O", "qcow2", "a.raw", "out.qcow2"]].concat();
    let mut child = ours_command(&args, dir.root()).spawn().expect("the tool");
    wait_for(&dir.path("out.qcow2"), &mut child);
    // Not before the copy has begun.
    while dir.path("out.qcow2").metadata().expect("the target").len() < 1 << 20 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    kill(&child, "-INT");
    assert_eq!(child.wait().expect("its end").signal(), Some(2));
    // It holds a part of the data, and is consistent.
    let check = dir.qemu_img(&["check", "out.qcow2"]);
    assert_eq!(check.code, 0, "{check:?}");
}

#[test]
fn an_ignored_signal_stays_ignored() {
    let dir = source();
    let line = "trap '' HUP; exec \"$0\" convert -r 32M a.raw out.raw";
    let mut child = Command::new("sh")
        .args(["-c", line])
        .arg(crate::build::tool())
        .current_dir(dir.root())
        .spawn()
        .expect("a shell");
    wait_for(&dir.path("out.raw"), &mut child);
    kill(&child, "-HUP");
    assert!(child.wait().expect("its end").success());
    assert_eq!(dir.qemu_img(&["compare", "a.raw", "out.raw"]).code, 0);
}

#[test]
fn sigusr1_prints_the_progress_once() {
    let dir = source();
    for options in [&["-q"][..], &[]] {
        let args = [
            &["convert", "-r", "32M"][..],
            options,
            &["a.raw", "out.raw"],
        ]
        .concat();
        let mut child = ours_command(&args, dir.root())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the tool");
        wait_for(&dir.path("out.raw"), &mut child);
        kill(&child, "-USR1");
        kill(&child, "-USR1");
        let output = child.wait_with_output().expect("its end");
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{err}");
        assert!(output.stdout.is_empty());
        assert!(matches!(err.lines().count(), 1 | 2), "{err:?}");
        assert!(is_progress(&err), "{err:?}");
        std::fs::remove_file(dir.path("out.raw")).expect("the target");
    }
}

/// Whether the text is nothing but lines of progress.
fn is_progress(err: &str) -> bool {
    err.lines().all(|line| {
        let number = line.strip_prefix("    (");
        let number = number.and_then(|rest| rest.strip_suffix("/100%)"));
        number.is_some_and(|number| number.parse::<f64>().is_ok())
    })
}

#[test]
fn sigusr1_prints_the_progress_of_a_commit() {
    let dir = source();
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "base.qcow2", "64M"]);
    let overlay = words("create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2");
    dir.qemu_img_ok(&overlay);
    dir.qemu_io("qcow2", "top.qcow2", &["write -P 3 0 64M"]);
    let empty = dir.path("base.qcow2").metadata().expect("the base").len();
    let mut child = ours_command(&words("commit -d -r 32M top.qcow2"), dir.root())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool");
    while dir.path("base.qcow2").metadata().expect("the base").len() <= empty {
        let ended = child.try_wait().expect("to look at the child");
        assert!(ended.is_none(), "it ended too early: {ended:?}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    kill(&child, "-USR1");
    let output = child.wait_with_output().expect("its end");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    assert_eq!(output.stdout, b"Image committed.\n");
    assert!(!err.is_empty() && is_progress(&err), "{err:?}");
}

#[test]
fn every_long_command_lives_through_sigusr1() {
    let dir = source();
    for line in [
        "create -q -f qcow2 base.qcow2 64M",
        "create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2",
        "convert -O qcow2 a.raw a.qcow2",
    ] {
        dir.qemu_img_ok(&words(line));
    }
    for line in [
        "amend -o refcount_bits=64 a.qcow2",
        "rebase -b a.raw -F raw top.qcow2",
        "compare a.raw a.qcow2",
        "check a.qcow2",
        "commit top.qcow2",
        "bench -c 20000 -f raw a.raw",
        "dd bs=1M if=a.raw of=b.raw",
        "convert -c -O qcow2 a.raw c.qcow2",
        "measure -O qcow2 a.raw",
        "map a.qcow2",
    ] {
        // The signal must not strike `env`, nor the tool before it has run at all.
        let mut child = Command::new("env")
            .args(["--ignore-signal=USR1", "LC_ALL=C"])
            .arg(crate::build::tool())
            .args(words(line))
            .current_dir(dir.root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the tool");
        let running = format!("/proc/{}/exe", child.id());
        while child.try_wait().expect("to look at the child").is_none() {
            if std::fs::read_link(&running).is_ok_and(|exe| exe == crate::build::tool()) {
                kill(&child, "-USR1");
            }
        }
        let output = child.wait_with_output().expect("its end");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {:?} {err}", output.status);
        assert!(is_progress(&err), "{line}: {err:?}");
    }
}

#[test]
fn sigusr1_is_harmless_elsewhere() {
    let dir = source();
    let args = ["convert", "-p", "-r", "32M", "a.raw", "out.raw"];
    let mut child = ours_command(&args, dir.root())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool");
    wait_for(&dir.path("out.raw"), &mut child);
    kill(&child, "-USR1");
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success());
    assert!(output.stderr.is_empty());
}

/// Files whose keys take minutes to derive; and plain ones.
fn slow_volumes() -> Dir {
    let dir = Dir::new();
    for line in [
        "create -q -f raw a.raw 1M",
        "create -q --object secret,id=s,data=x -f luks -o key-secret=s,iter-time=10 l.luks 1M",
        "create -q --object secret,id=s,data=x -f luks -o key-secret=s,iter-time=10 k.luks 1M",
        "create -q -f qcow2 -F luks -b l.luks -u top.qcow2 1M",
        "create -q -f qcow2 -F raw -b a.raw over.qcow2 1M",
    ] {
        dir.qemu_img_ok(&words(line));
    }
    // The iterations of the first key slot, 2^28.
    let file = std::fs::File::options()
        .write(true)
        .open(dir.path("l.luks"));
    let file = file.expect("the volume");
    std::os::unix::fs::FileExt::write_all_at(&file, &[0x10, 0, 0, 0], 212).expect("to patch");
    dir
}

/// Whether the process computes: it has used a tenth of a second of a processor.
fn computes(child: &Child) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.filter_map(|n| n.parse::<u64>().ok()).sum::<u64>() >= 10
}

#[test]
fn every_command_hears_a_signal_while_it_derives_keys() {
    let slow = "driver=luks,key-secret=s,file.filename=l.luks";
    let good = "driver=luks,key-secret=s,file.filename=k.luks";
    let new = "-f luks -o key-secret=s,iter-time=60000 new.luks 1M";
    let lines = [
        format!("convert --image-opts {slow} -O raw new.raw"),
        format!("convert -n -f raw --target-image-opts a.raw {slow}"),
        "convert -f raw -O luks -o key-secret=s,iter-time=60000 a.raw new.luks".to_owned(),
        format!("create {new}"),
        "create -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=60000 \
         new.qcow2 1M"
            .to_owned(),
        format!("dd --image-opts if={slow} of=new.raw"),
        format!("compare --image-opts {slow} {good}"),
        format!("info --image-opts {slow}"),
        format!("map --image-opts {slow}"),
        format!("check --image-opts {slow}"),
        format!("measure -O qcow2 --image-opts {slow}"),
        format!("resize --image-opts {slow} 2M"),
        format!("amend --image-opts {slow} -o state=inactive,old-secret=s"),
        format!("amend --image-opts {good} -o state=active,new-secret=s,iter-time=60000"),
        format!(
            "commit --image-opts driver=qcow2,file.filename=top.qcow2,backing.{}",
            backing(slow)
        ),
        "rebase -u -b a.raw -F raw --image-opts driver=qcow2,file.driver=luks,file.key-secret=s,\
         file.file.filename=l.luks"
            .to_owned(),
    ];
    let dir = slow_volumes();
    let before = std::fs::read(dir.path("k.luks")).expect("the volume");
    for (line, signal) in lines.iter().zip(["-TERM", "-INT", "-HUP"].iter().cycle()) {
        if line.starts_with("info") {
            // It needs no key.
            continue;
        }
        let mut args = words(line);
        args.splice(1..1, ["--object", "secret,id=s,data=x"]);
        let mut child = ours_command(&args, dir.root())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the tool");
        while !computes(&child) {
            let ended = child.try_wait().expect("to look at the child");
            assert!(ended.is_none(), "{line} ended too early: {ended:?}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let begin = std::time::Instant::now();
        kill(&child, signal);
        let status = child.wait().expect("its end");
        // On an idle machine it takes milliseconds.
        assert!(begin.elapsed().as_secs() < 10, "{line}");
        let number = match *signal {
            "-TERM" => 15,
            "-INT" => 2,
            _ => 1,
        };
        assert_eq!(status.signal(), Some(number), "{line}");
        for name in ["new.raw", "new.luks", "new.qcow2"] {
            assert!(!dir.path(name).exists(), "{line} leaves {name}");
        }
    }
    assert_eq!(
        std::fs::read(dir.path("k.luks")).expect("the volume"),
        before
    );
}

/// The options of an image, as those of another one's child.
fn backing(options: &str) -> String {
    options.replace(',', ",backing.")
}

/// Runs the line, which is stopped as soon as `begun` says so; returns by which signal it ended, if by one.
fn stopped(dir: &Dir, line: &str, signal: &str, begun: impl Fn(&Child) -> bool) -> Option<i32> {
    let mut child = ours_command(&words(line), dir.root())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the tool");
    while !begun(&child) && child.try_wait().expect("to look at the child").is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let begin = std::time::Instant::now();
    if child.try_wait().expect("to look at the child").is_none() {
        kill(&child, signal);
    }
    let status = child.wait().expect("its end");
    // On an idle machine it takes milliseconds.
    assert!(begin.elapsed().as_secs() < 10, "{line}");
    assert!(
        status.signal().is_some() || status.success(),
        "{line}: {status}"
    );
    status.signal()
}

/// Where a file has been made.
fn is_there(path: &Path) -> bool {
    path.exists()
}

#[test]
fn a_signal_while_an_image_is_preallocated_leaves_no_file() {
    let dir = source();
    let signals = ["-INT", "-TERM", "-HUP"];
    for (line, name, files) in [
        (
            "create -f qcow2 -o cluster_size=512,preallocation=metadata",
            "new.qcow2",
            &["new.qcow2"][..],
        ),
        (
            "create -f qcow2 -o cluster_size=512,preallocation=falloc",
            "new.qcow2",
            &["new.qcow2"],
        ),
        (
            "create -f qcow2 -o preallocation=full",
            "new.qcow2",
            &["new.qcow2"],
        ),
        (
            "create -f raw -o preallocation=full",
            "new.raw",
            &["new.raw"],
        ),
        (
            "create -f qcow2 -o data_file=data,preallocation=full",
            "new.qcow2",
            &["new.qcow2", "data"],
        ),
    ] {
        let mut ended = 0;
        for (n, signal) in signals.iter().enumerate() {
            let line = format!("{line} {name} 768M");
            let by = stopped(&dir, &line, signal, |child| {
                files.iter().all(|name| is_there(&dir.path(name))) && (n == 0 || computes(child))
            });
            ended += usize::from(by.is_some());
            for name in files {
                assert_eq!(
                    dir.path(name).exists(),
                    by.is_none(),
                    "{line}, {signal}: {name}"
                );
                let _ = std::fs::remove_file(dir.path(name));
            }
        }
        // A fast machine may be through before the later signals come.
        assert!(ended > 0, "{line}");
    }
}

#[test]
fn a_signal_while_snapshots_or_the_size_change_leaves_a_whole_image() {
    let dir = Dir::new();
    let create = "create -q -f qcow2 -o cluster_size=512,preallocation=metadata image 64M";
    dir.qemu_img_ok(&words(create));
    dir.qemu_io("qcow2", "image", &["write -P 1 0 1M", "write -P 2 50M 1M"]);
    dir.qemu_img_ok(&words("snapshot -c one image"));
    dir.qemu_io("qcow2", "image", &["write -P 3 64k 64k"]);
    let pristine = std::fs::read(dir.path("image")).expect("the image");
    let contents = |name: &str| {
        let line = match name {
            "" => "convert -O raw image out.raw",
            _ => "convert -l one -O raw image out.raw",
        };
        dir.qemu_img_ok(&words(line));
        std::fs::read(dir.path("out.raw")).expect("the contents")
    };
    let (now, one) = (contents(""), contents("one"));
    for (line, signal) in [
        ("snapshot -c two image", "-INT"),
        ("snapshot -a one image", "-TERM"),
        ("snapshot -d one image", "-HUP"),
        ("resize -q --shrink image 32M", "-INT"),
    ] {
        for wait in [0, 20] {
            std::fs::write(dir.path("image"), &pristine).expect("the image");
            let begin = std::time::Instant::now();
            stopped(&dir, line, signal, |_| begin.elapsed().as_millis() >= wait);
            // Whoever opens it for writing counts references anew where that was left undone.
            dir.qemu_io("qcow2", "image", &["flush"]);
            let check = dir.qemu_img(&["check", "image"]);
            assert!(matches!(check.code, 0 | 3), "{line}, {wait}: {check:?}");
            let seen = contents("");
            let whole = seen == now || seen == one || seen[..] == now[..32 << 20];
            assert!(whole, "{line}, {wait}");
            // QEMU shows no more of a snapshot than the image has.
            if line.starts_with("snapshot -c") || line.starts_with("snapshot -a") {
                assert!(contents("one") == one, "{line}, {wait}");
            }
        }
    }
}
