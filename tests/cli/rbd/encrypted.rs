//! Images of the library's encryption, beside QEMU's tool: each reads what the other has made and written.

use std::path::Path;

use super::cluster::{ceph_is_missing, fresh, shared};
use super::{bytes, disk_of, ran, run};
use crate::beside::peer_has;
use crate::build;
use crate::common::{self, Dir};
use crate::pair::words;

/// Runs a tool that makes an encrypted image, with keys that cost its readers little.
#[track_caller]
pub fn created(program: &Path, line: &str, dir: &Dir) {
    let preload = format!("LD_PRELOAD={}", build::cheap_keys().display());
    let program = program.to_str().expect("UTF-8");
    let args = [&[preload.as_str(), program], &words(line)[..]].concat();
    let ran = common::run_in(dir.root(), "env", &args);
    assert_eq!(ran.code, 0, "{line}: {ran:?}");
}

#[test]
fn encrypted_images_of_each_tool_are_read_by_the_other() {
    if ceph_is_missing() || !peer_has("rbd") {
        return;
    }
    let (dir, cluster) = (Dir::new(), shared());
    let len = (2 << 20) + 4096;
    let disk = disk_of(len, &dir, "a.raw");
    let conf = cluster.conf();
    let secret = "--object secret,id=s,data=sesame";
    let raw = "driver=raw,file.filename=a.raw";
    for (format, cipher) in [("luks", ",encrypt.cipher-alg=aes-128"), ("luks2", "")] {
        let [own, their] = [fresh(), fresh()];
        let encrypt = format!("encrypt.format={format},encrypt.key-secret=s");
        let options =
            |image: &str| format!("driver=rbd,pool=rbd,image={image},conf={conf},{encrypt}");
        // Theirs counts the header too, which is of up to 16 MiB.
        let create = |image: &str, len: usize| {
            let name = cluster.name(image);
            format!("create {secret} -q -f raw -o {encrypt}{cipher} {name} {len}")
        };
        let fill = |image: &str| {
            let target = options(image);
            format!("convert {secret} -n --image-opts {raw} --target-image-opts {target}")
        };
        created(build::tool(), &create(&own, len), &dir);
        let line = create(&their, len + (16 << 20));
        created(Path::new("qemu-img"), &line, &dir);
        // Each fills what the other has made.
        dir.qemu_img_ok(&words(&fill(&own)));
        ran(&fill(&their), &dir);
        for image in [&own, &their] {
            let what = format!("{format}, {image}");
            let read = format!(
                "convert {secret} --image-opts {} -O raw b.raw",
                options(image)
            );
            ran(&read, &dir);
            let here = bytes(&dir, "b.raw");
            assert!(here[..len] == disk, "{what}");
            dir.qemu_img_ok(&words(&read.replace("b.raw", "c.raw")));
            assert!(bytes(&dir, "c.raw") == here, "{what}");
            // What Ceph's own tool has is neither.
            let there = super::exported(cluster, &dir, image);
            assert!(there.starts_with(b"LUKS\xba\xbe"), "{what}");
            assert!(
                !there.windows(32).any(|piece| piece == &disk[..32]),
                "{what}"
            );
        }
        // The other format, and the wrong passphrase, are refused by both in the same words.
        let other = if format == "luks" { "luks2" } else { "luks" };
        let other = options(&own).replace(
            &format!("encrypt.format={format},"),
            &format!("encrypt.format={other},"),
        );
        for line in [
            format!("info {secret} --image-opts {other}"),
            format!(
                "info --object secret,id=s,data=wrong --image-opts {}",
                options(&own)
            ),
        ] {
            let here = run(&line, &dir);
            let there = dir.qemu_img(&words(&line));
            assert_eq!((here.code, there.code), (1, 1), "{here:?} {there:?}");
            assert_eq!(here.err, there.err, "{line}");
        }
    }
}
