//! How hard compression tries: `-o compression_level` and `rebase --compression-level`.

use crate::common::Dir;
use crate::pair::ours;

/// Text that compresses better the harder one tries.
fn text(len: usize) -> Vec<u8> {
    let words = [
        "disk", "image", "cluster", "table", "the", "of", "a", "guest", "header", "zero",
    ];
    let mut state = 7u32;
    let mut text = Vec::new();
    while text.len() < len {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.extend_from_slice(words[(state >> 24) as usize % words.len()].as_bytes());
        text.push(b' ');
    }
    text.truncate(len);
    text
}

fn run(dir: &Dir, line: &str) -> crate::common::Ran {
    let words: Vec<&str> = line.split(' ').collect();
    ours(&words, dir.root())
}

fn done(dir: &Dir, line: &str) {
    let ran = run(dir, line);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{line}: {ran:?}");
}

fn len(dir: &Dir, name: &str) -> u64 {
    std::fs::metadata(dir.path(name)).expect("an image").len()
}

/// Small clusters of programs, which repeat little.
#[test]
fn small_clusters_are_no_larger_than_theirs() {
    let dir = Dir::new();
    let program = std::fs::read("/bin/bash").expect("a program");
    std::fs::write(dir.path("raw"), &program[..program.len() / 512 * 512]).expect("a file");
    for (format, options) in [
        ("qcow2", "-o cluster_size=4k"),
        ("qcow2", "-o cluster_size=8k"),
        ("qcow2", "-o cluster_size=16k"),
        ("qcow", ""),
    ] {
        let line = |out: &str| {
            let line = format!("convert -f raw -c -O {format} {options} raw {out}");
            line.replace("  ", " ")
        };
        done(&dir, &line("ours"));
        let words = line("theirs");
        // Theirs ends with 1 for qcow, although the image is complete.
        dir.qemu_img(&words.split(' ').collect::<Vec<_>>());
        let (ours, theirs) = (len(&dir, "ours"), len(&dir, "theirs"));
        // Ours ends with a whole sector or cluster.
        let theirs = theirs.next_multiple_of(if format == "qcow" { 512 } else { 16 << 10 });
        assert!(ours <= theirs, "{format} {options}: {ours} > {theirs}");
    }
}

#[test]
fn a_higher_level_makes_smaller_images_that_the_peer_reads() {
    let dir = Dir::new();
    std::fs::write(dir.path("raw"), text(2 << 20)).expect("a file");
    for (format, options, levels) in [
        ("qcow2", "", ["1", "2", "12"]),
        ("qcow2", "compression_type=zstd,", ["-50", "3", "22"]),
        ("vmdk", "subformat=streamOptimized,", ["1", "5", "12"]),
    ] {
        let mut sizes = Vec::new();
        for level in levels {
            done(
                &dir,
                &format!("convert -c -O {format} -o {options}compression_level={level} raw x"),
            );
            let theirs = dir.qemu_img(&["compare", "-f", "raw", "-F", format, "raw", "x"]);
            assert_eq!(theirs.code, 0, "{format} {level}: {theirs:?}");
            sizes.push(len(&dir, "x"));
        }
        assert!(
            sizes[0] > sizes[1] && sizes[1] > sizes[2],
            "{format} {options}: {sizes:?}"
        );
        // The level in the middle is the default.
        let options = options.trim_end_matches(',');
        let option = if options.is_empty() {
            String::new()
        } else {
            format!("-o {options} ")
        };
        done(&dir, &format!("convert -c -O {format} {option}raw x"));
        assert_eq!(len(&dir, "x"), sizes[1], "{format} {options}");
    }
}

/// Clusters of 4 KiB, each of which ends where the next begins; text is too even to tell the levels apart.
#[test]
fn levels_hold_for_qcow_too() {
    let dir = Dir::new();
    let program = std::fs::read("/bin/bash").expect("a program");
    std::fs::write(dir.path("raw"), &program[..1 << 20]).expect("a file");
    let mut sizes = Vec::new();
    for level in ["1", "6", "12"] {
        let line = format!("convert -f raw -c -O qcow -o compression_level={level} raw x");
        done(&dir, &line);
        let theirs = dir.qemu_img(&["compare", "-f", "raw", "-F", "qcow", "raw", "x"]);
        assert_eq!(theirs.code, 0, "{level}: {theirs:?}");
        sizes.push(len(&dir, "x"));
    }
    assert!(sizes.is_sorted_by(|low, high| low > high), "{sizes:?}");
    std::fs::remove_file(dir.path("x")).expect("a file");
    // What is not compressed may say how hard, as with qcow2; that level is one all the same.
    for format in ["qcow", "qcow2"] {
        for compress in ["-c ", ""] {
            for level in ["0", "13", "-1"] {
                let options = format!("-O {format} -o compression_level={level}");
                let ran = run(&dir, &format!("convert -f raw {compress}{options} raw x"));
                let refused = format!("level {level} is none of deflate: its levels are 1 to 12");
                assert!(
                    ran.code == 1 && ran.err.contains(&refused),
                    "{options}: {ran:?}"
                );
                assert!(!dir.path("x").exists(), "{options}");
            }
        }
        done(&dir, &format!("convert -f raw -O {format} raw plain"));
        let plain = len(&dir, "plain");
        for level in ["1", "12"] {
            let options = format!("-O {format} -o compression_level={level}");
            done(&dir, &format!("convert -f raw {options} raw plain"));
            assert_eq!(len(&dir, "plain"), plain, "{options}");
        }
    }
}

#[test]
fn the_level_is_one_of_the_compression() {
    let dir = Dir::new();
    std::fs::write(dir.path("raw"), text(64 << 10)).expect("a file");
    for (options, refused) in [
        (
            "compression_level=13",
            "level 13 is none of deflate: its levels are 1 to 12",
        ),
        ("compression_level=0", "level 0 is none of deflate"),
        (
            "compression_type=zstd,compression_level=23",
            "level 23 is none of zstd: its levels are -131072 to 22",
        ),
        ("compression_level=x", "expects a number"),
    ] {
        let ran = run(&dir, &format!("convert -c -O qcow2 -o {options} raw x"));
        assert!(
            ran.code == 1 && ran.err.contains(refused),
            "{options}: {ran:?}"
        );
        assert!(!dir.path("x").exists());
    }
    let ran = run(&dir, "convert -O vmdk -o compression_level=3 raw x");
    assert!(
        ran.code == 1 && ran.err.contains("streamOptimized"),
        "{ran:?}"
    );
    let ran = run(&dir, "create -f qcow2 -o compression_level=9 x 1M");
    assert!(ran.out.contains("compression_level=9"), "{ran:?}");
    let ran = run(&dir, "create -f qcow2 -o help");
    assert!(
        ran.out
            .contains("Further options:\n  compression_level=<num>"),
        "{ran:?}"
    );
}

#[test]
fn rebase_compresses_as_hard_as_it_is_told() {
    let dir = Dir::new();
    std::fs::write(dir.path("base"), text(2 << 20)).expect("a file");
    let mut sizes = Vec::new();
    for level in ["1", "12"] {
        done(&dir, "create -q -f qcow2 -b base -F raw top");
        done(
            &dir,
            &format!("rebase -c --compression-level {level} -f qcow2 -b  top"),
        );
        let theirs = dir.qemu_img(&["compare", "-f", "raw", "-F", "qcow2", "base", "top"]);
        assert_eq!(theirs.code, 0, "{theirs:?}");
        sizes.push(len(&dir, "top"));
    }
    assert!(sizes[0] > sizes[1], "{sizes:?}");
    done(&dir, "create -q -f qcow2 -b base -F raw top");
    let ran = run(&dir, "rebase -c --compression-level 22 -f qcow2 -b  top");
    assert!(
        ran.code == 1 && ran.err.contains("its levels are 1 to 12"),
        "{ran:?}"
    );
    let ran = run(&dir, "rebase --compression-level 2 -f qcow2 -b  top");
    assert!(ran.code == 1 && ran.err.contains("goes with -c"), "{ran:?}");
}
