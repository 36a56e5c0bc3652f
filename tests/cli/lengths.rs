//! How long files are: images end with a whole cluster, compressed ones and LUKS volumes with a whole sector.

use std::os::unix::fs::MetadataExt;

use crate::common::{Dir, Random};
use crate::pair::{Loose, Pair, ours, words};

fn run(dir: &Dir, line: &str) {
    let ran = ours(&words(line), dir.root());
    assert_eq!(ran.code, 0, "{line}: {ran:?}");
}

fn len(dir: &Dir, name: &str) -> u64 {
    std::fs::metadata(dir.path(name)).unwrap().len()
}

#[track_caller]
fn ends_with_a_cluster(dir: &Dir, line: &str, cluster: u64) {
    run(dir, line);
    let len = len(dir, "i.qcow2");
    assert!(len.is_multiple_of(cluster), "{line}: {len} bytes");
    let image = "driver=qcow2,file.filename=i.qcow2";
    let secret = match line.contains("encrypt") {
        true => ",encrypt.key-secret=s",
        false => "",
    };
    dir.qemu_img_ok(&words(&format!(
        "check --object secret,id=s,data=x --image-opts {image}{secret}"
    )));
}

#[test]
fn new_qcow2_images_end_with_a_whole_cluster() {
    let dir = Dir::new();
    let contents: Vec<u8> = (0..300_000u32).map(|i| (i >> 8) as u8).collect();
    std::fs::write(dir.path("r.raw"), contents).unwrap();
    for (options, cluster) in [
        ("compat=1.1", 64 << 10),
        ("compat=0.10", 64 << 10),
        ("cluster_size=512", 512),
        ("cluster_size=2M", 2 << 20),
        ("extended_l2=on", 64 << 10),
        ("preallocation=metadata", 64 << 10),
        ("data_file=d.raw", 64 << 10),
    ] {
        for line in [
            format!("create -f qcow2 -o {options} i.qcow2 1000000"),
            format!("convert -f raw -O qcow2 -o {options} r.raw i.qcow2"),
        ] {
            ends_with_a_cluster(&dir, &line, cluster);
        }
    }
    for line in [
        "create -f qcow2 i.qcow2 0",
        "dd -f raw -O qcow2 if=r.raw of=i.qcow2 bs=1000",
    ] {
        ends_with_a_cluster(&dir, line, 64 << 10);
    }
    let secret = "--object secret,id=s,data=x";
    let encrypt = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    for line in [
        format!("create {secret} -f qcow2 -o {encrypt} i.qcow2 1M"),
        format!("convert {secret} -f raw -O qcow2 -o {encrypt} r.raw i.qcow2"),
    ] {
        ends_with_a_cluster(&dir, &line, 64 << 10);
    }
}

#[test]
fn converted_images_of_other_formats_end_with_a_whole_sector() {
    let dir = Dir::new();
    let contents: Vec<u8> = (0..300_032u32)
        .map(|i| (i.wrapping_mul(i) >> 9) as u8)
        .collect();
    std::fs::write(dir.path("r.raw"), contents).unwrap();
    for options in [
        "-O qcow",
        "-c -O qcow",
        "-O qed",
        "-O parallels",
        "-O vdi",
        "-O vhdx",
        "-O vpc",
        "-O vpc -o subformat=fixed",
        "-O vmdk",
        "-O vmdk -o subformat=streamOptimized",
    ] {
        run(&dir, &format!("convert -f raw {options} r.raw i"));
        let len = len(&dir, "i");
        assert!(len.is_multiple_of(512), "{options}: {len} bytes");
    }
}

#[test]
fn a_source_that_ends_within_a_sector_loses_none_of_it() {
    let dir = Dir::new();
    let contents: Vec<u8> = (0..(1u32 << 20) - 1).map(|i| (i % 251) as u8 + 1).collect();
    std::fs::write(dir.path("r.raw"), &contents).unwrap();
    for format in [
        "raw",
        "qcow2",
        "qcow",
        "qed",
        "parallels",
        "vdi",
        "vhdx",
        "vpc",
        "vmdk",
    ] {
        run(&dir, &format!("convert -f raw -O {format} r.raw i"));
        dir.qemu_img_ok(&["convert", "-f", format, "-O", "raw", "i", "back.raw"]);
        let back = std::fs::read(dir.path("back.raw")).unwrap();
        // A disk of VHD ends where a cylinder does.
        assert!(
            format == "vpc" || back.len() == 1 << 20,
            "{format}: {}",
            back.len()
        );
        let (kept, more) = back.split_at(contents.len());
        assert!(kept == contents, "{format}");
        assert!(
            !more.is_empty() && more.iter().all(|byte| *byte == 0),
            "{format}"
        );
    }
}

#[test]
fn qcow2_images_that_grow_in_use_end_with_a_whole_cluster() {
    let dir = Dir::new();
    let contents: Vec<u8> = (0..300_000u32).map(|i| (i >> 8) as u8).collect();
    std::fs::write(dir.path("r.raw"), &contents).unwrap();
    for line in [
        "snapshot -c s i.qcow2",
        "bitmap --add i.qcow2 b",
        "convert -n -f raw -O qcow2 r.raw i.qcow2",
        "bench -w -c 3 -d 1 -t none -f qcow2 i.qcow2",
        "resize i.qcow2 5T",
        "amend -o refcount_bits=64 i.qcow2",
    ] {
        dir.qemu_img_ok(&["create", "-f", "qcow2", "i.qcow2", "1M"]);
        ends_with_a_cluster(&dir, line, 64 << 10);
    }
    std::fs::write(dir.path("empty.raw"), []).unwrap();
    dir.qemu_img_ok(&words("create -f qcow2 -b r.raw -F raw i.qcow2"));
    ends_with_a_cluster(&dir, "rebase -c -F raw -b empty.raw i.qcow2", 512);
}

/// What a program looks like, the same for every build of this one.
fn program(len: usize) -> Vec<u8> {
    let path = std::env::var_os("PATH").unwrap();
    let peer = std::env::split_paths(&path)
        .map(|dir| dir.join("qemu-img"))
        .find(|path| path.exists());
    let bytes = std::fs::read(peer.expect("qemu-img")).unwrap();
    bytes.into_iter().cycle().take(len).collect()
}

#[test]
fn compressed_qcow2_images_are_no_longer_than_the_peers() {
    let pair = Pair::new();
    // A program, text, zeroes and noise.
    let program = program(137 * (64 << 10));
    let text = std::fs::read("CHANGELOG.md").unwrap();
    let mut noise = Random(1);
    let mut mixed = Vec::new();
    for (block, code) in program.chunks_exact(64 << 10).take(137).enumerate() {
        match block % 7 {
            0 | 1 => mixed.extend(code),
            2..=4 => mixed.extend(text.iter().cycle().skip(block << 14).take(64 << 10)),
            5 => mixed.resize(mixed.len() + (64 << 10), 0),
            _ => mixed.extend((0..64 << 10).map(|_| noise.next() as u8)),
        }
    }
    mixed.truncate(mixed.len() - 1536);
    pair.file("mixed", &mixed);
    pair.file("little", &mixed[..70_000]);
    pair.file("noise", &mixed[6 << 16..7 << 16]);
    for source in ["mixed", "little", "noise"] {
        for cluster in ["512", "4k", "16k", "64k", "512k", "2M"] {
            for kind in ["zlib", "zstd"] {
                let options = format!("cluster_size={cluster},compression_type={kind}");
                let line = format!("convert -c -f raw -O qcow2 -o {options} {source} i.qcow2");
                pair.same(&line);
                let lens = [pair.ours(), pair.theirs()].map(|dir| len(dir, "i.qcow2"));
                assert!(lens[0] <= lens[1], "{line}: {lens:?}");
                assert!(lens[0].is_multiple_of(512), "{line}: {lens:?}");
                let dir = pair.ours();
                dir.qemu_img_ok(&words("check i.qcow2"));
                dir.qemu_img_ok(&words(&format!("compare -f raw -F qcow2 {source} i.qcow2")));
                // What is written behind such an end is whole.
                run(dir, "snapshot -c s i.qcow2");
                run(dir, "bench -w -c 2 -d 1 -t none -f qcow2 i.qcow2");
                run(dir, "snapshot -a s i.qcow2");
                dir.qemu_img_ok(&words("check i.qcow2"));
                dir.qemu_img_ok(&words(&format!("compare -f raw -F qcow2 {source} i.qcow2")));
            }
        }
    }
}

#[test]
fn compressed_units_written_in_place_end_with_a_whole_sector() {
    let pair = Pair::new();
    pair.file("r.raw", &program(6_000_128));
    pair.file("empty.raw", &[]);
    for kind in ["zlib", "zstd"] {
        let options = format!("cluster_size=2M,compression_type={kind}");
        for (create, line) in [
            (
                format!("create -f qcow2 -o {options} i.qcow2 6000128"),
                "convert -c -n -f raw -O qcow2 r.raw i.qcow2",
            ),
            (
                format!("create -f qcow2 -b r.raw -F raw -o {options} i.qcow2"),
                "rebase -c -F raw -b empty.raw i.qcow2",
            ),
        ] {
            pair.qemu(&create);
            pair.same(line);
            let lens = [pair.ours(), pair.theirs()].map(|dir| len(dir, "i.qcow2"));
            assert!(lens[0].is_multiple_of(512), "{line}: {lens:?}");
            assert!(lens[0] <= lens[1].next_multiple_of(512), "{line}: {lens:?}");
            let dir = pair.ours();
            dir.qemu_img_ok(&words("check i.qcow2"));
            dir.qemu_img_ok(&words("compare -f raw -F qcow2 r.raw i.qcow2"));
        }
    }
}

#[test]
fn an_image_that_is_not_changed_keeps_its_length() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-f", "qcow2", "i.qcow2", "1M"]);
    let before = len(&dir, "i.qcow2");
    assert!(!before.is_multiple_of(512), "{before}");
    run(&dir, "check -r all i.qcow2");
    run(&dir, "resize i.qcow2 1M");
    assert_eq!(len(&dir, "i.qcow2"), before);
}

#[test]
fn a_bitmap_takes_a_few_kibibytes_whatever_the_cluster_size() {
    let dir = Dir::new();
    dir.qemu_img_ok(&words("create -f qcow2 -o cluster_size=2M i.qcow2 1G"));
    let allocated = || std::fs::metadata(dir.path("i.qcow2")).unwrap().blocks() * 512;
    let before = allocated();
    for bitmap in 0..8 {
        run(&dir, &format!("bitmap --add i.qcow2 b{bitmap}"));
    }
    let taken = allocated() - before;
    assert!(taken < 512 << 10, "{taken} bytes");
    dir.qemu_img_ok(&["check", "i.qcow2"]);
}

#[test]
fn a_luks_volume_that_ends_within_a_sector_is_rounded_up() {
    let pair = Pair::new();
    let secret = "--object secret,id=s,data=x";
    let create = format!("create {secret} -f luks -o key-secret=s,iter-time=10 l 1000001");
    pair.theirs().qemu_img_ok(&words(&create));
    let bytes = std::fs::read(pair.theirs().path("l")).unwrap();
    assert!(!bytes.len().is_multiple_of(512));
    // Noise up to the end of the file, so that the last sector shows what is decrypted.
    let mut noise = bytes.clone();
    for (i, byte) in noise.iter_mut().enumerate().skip(bytes.len() - 700) {
        *byte = (i * 31) as u8;
    }
    pair.file("l", &noise);
    let opts = "driver=luks,key-secret=s,file.filename=l";
    for line in [
        "info l".to_owned(),
        format!("info {secret} --image-opts {opts}"),
        format!("measure {secret} -O raw --image-opts {opts}"),
        format!("map --output=json {secret} --image-opts {opts}"),
    ] {
        pair.same_but(&line, Loose::DiskSize);
    }
    for dir in [pair.ours(), pair.theirs()] {
        let line = format!("convert {secret} --image-opts {opts} -O raw plain.raw");
        if std::ptr::eq(dir, pair.ours()) {
            run(dir, &line);
        } else {
            dir.qemu_img_ok(&words(&line));
        }
    }
    let plain = |dir: &Dir| std::fs::read(dir.path("plain.raw")).unwrap();
    assert_eq!(plain(pair.ours()).len(), 1_000_448);
    assert!(plain(pair.ours()) == plain(pair.theirs()));
}

#[test]
fn a_shrunk_image_gives_back_refcount_blocks_and_the_end_of_its_file() {
    let pair = Pair::new();
    for options in [
        "compat=1.1",
        "compat=0.10",
        "cluster_size=512",
        "cluster_size=4k,refcount_bits=64",
        "cluster_size=4k,lazy_refcounts=on",
        "extended_l2=on",
    ] {
        for line in ["resize --shrink i.qcow2 1M", "amend -o size=1M i.qcow2"] {
            pair.qemu(&format!("create -f qcow2 -o {options} i.qcow2 16M"));
            pair.qemu_io("qcow2", "i.qcow2", &["write -P 7 0 12M"]);
            pair.same(line);
            let lens = [pair.ours(), pair.theirs()].map(|dir| len(dir, "i.qcow2"));
            assert!(lens[0] <= lens[1], "{options}: {line}: {lens:?}");
            pair.same_but("check i.qcow2", Loose::DiskSize);
            // What is freed is used again, and nothing of what was given up comes back.
            run(pair.ours(), "resize i.qcow2 16M");
            pair.ours().qemu_io(
                "qcow2",
                "i.qcow2",
                &["read -P 7 0 1M", "read -P 0 1M 15M", "write -P 8 0 16M"],
            );
            pair.ours().qemu_img_ok(&["check", "i.qcow2"]);
        }
    }
}

#[test]
fn a_shrunk_image_keeps_what_its_snapshots_hold() {
    let pair = Pair::with(&["create -f qcow2 -o cluster_size=4k i.qcow2 32M"]);
    pair.qemu_io("qcow2", "i.qcow2", &["write -P 7 0 32M"]);
    pair.qemu("snapshot -c s i.qcow2");
    pair.same("resize --shrink i.qcow2 1M");
    pair.same("check i.qcow2");
    pair.same("snapshot -a s i.qcow2");
    for dir in [pair.ours(), pair.theirs()] {
        dir.qemu_io("qcow2", "i.qcow2", &["read -P 7 0 32M"]);
        dir.qemu_img_ok(&["check", "i.qcow2"]);
    }
}
