//! The filter `throttle` and its groups.

use crate::pair::{Loose, Pair, ours};

const GROUP: &str = "throttle-group,id=g,limits.bps-total=1000000000";
const ABOVE: &str = "json:{'driver':'throttle','throttle-group':'g','file':{'driver':'qcow2','file':{'driver':'file','filename':'a.qcow2'}}}";
const BELOW: &str = "json:{'driver':'qcow2','file':{'driver':'throttle','throttle-group':'g','file':{'driver':'file','filename':'a.qcow2'}}}";

fn images() -> Pair {
    let pair = Pair::with(&["create -f qcow2 a.qcow2 1M", "create -f raw a.raw 1M"]);
    pair.qemu_io("qcow2", "a.qcow2", &["write -P 7 64k 128k"]);
    pair.qemu_io("raw", "a.raw", &["write -P 7 64k 128k"]);
    pair
}

#[test]
fn it_stands_above_and_below_formats() {
    let pair = images();
    // What changes the image comes last: files need not have the same length then.
    for line in [
        "info @",
        "info --output=json @",
        "map @",
        "map --output=json @",
        "check @",
        "snapshot -l @",
        "measure -O qcow2 @",
        "convert -O raw @ out.raw",
        "compare @ a.raw",
        "amend -o compat=0.10 @",
        "bitmap --add @ b",
        "snapshot -c s @",
        "snapshot -a s @",
        "resize -q @ +1M",
        "snapshot -d s @",
    ] {
        for name in [ABOVE, BELOW] {
            if line.starts_with("bitmap") || line.starts_with("amend") && name == BELOW {
                continue;
            }
            let (command, rest) = line.split_once(' ').expect("a command");
            let mut args = vec![command, "--object", GROUP];
            args.extend(
                rest.split(' ')
                    .map(|word| if word == "@" { name } else { word }),
            );
            pair.same_args(&args, Loose::DiskSize);
        }
    }
    let content = |dir: &crate::common::Dir| {
        dir.qemu_img_ok(&["check", "a.qcow2"]);
        dir.qemu_img_ok(&["convert", "-O", "raw", "a.qcow2", "last.raw"]);
        std::fs::read(dir.root().join("last.raw")).expect("a file")
    };
    let bytes = content(pair.ours());
    assert_eq!(bytes.len(), 3 << 20);
    assert_eq!(bytes, content(pair.theirs()));
}

#[test]
fn what_is_wrong_is_refused_alike() {
    let pair = images();
    for name in [
        "json:{'driver':'throttle','file':{'driver':'file','filename':'a.raw'}}",
        "json:{'driver':'throttle','throttle-group':'h','file':{'driver':'file','filename':'a.raw'}}",
        "json:{'driver':'throttle','throttle-group':'g'}",
        "json:{'driver':'throttle','throttle-group':'g','foo':1,'file':{'driver':'file','filename':'a.raw'}}",
        "json:{'driver':'throttle','throttle-group':'g','file':{'driver':'file','filename':'nope'}}",
        "json:{'driver':'throttle','throttle-group':'g','file':{'driver':'file','filename':'a.raw'}}",
    ] {
        pair.same_args(&["info", "--object", GROUP, name], Loose::Exact);
    }
    pair.same_args(
        &["info", "--object", GROUP, "-f", "throttle", "a.raw"],
        Loose::Exact,
    );
    pair.same("info throttle:a.raw");
}

#[test]
fn requests_wait_for_their_turn() {
    let pair = images();
    pair.qemu("create -f qcow2 -o cluster_size=4k c.qcow2 1M");
    let writes: Vec<String> = (0..64).map(|at| format!("write {}k 4k", 8 * at)).collect();
    let writes: Vec<&str> = writes.iter().map(String::as_str).collect();
    pair.qemu_io("qcow2", "c.qcow2", &writes);
    let name = BELOW.replace("a.qcow2", "c.qcow2");
    let group = "throttle-group,id=g,limits.iops-read=200";
    let began = std::time::Instant::now();
    let ran = ours(
        &["convert", "--object", group, "-O", "raw", &name, "x.raw"],
        pair.ours().root(),
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    // Each cluster is read by itself, and a tenth of a second is free.
    let took = began.elapsed();
    assert!(took.as_millis() >= 200, "{took:?}");
}
