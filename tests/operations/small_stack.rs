//! The longest chains on threads with small stacks: nothing may take stack for each of their images.

use std::sync::Arc;

use platter::job::{Job, JobControl};
use platter::ops::commit::{self, CommitRequest};
use platter::ops::create::{CreatePlan, CreateRequest};
use platter::ops::rebase::{self, RebaseRequest};
use platter::ops::{compare, info, map};
use platter::queue::{Buffer, Queue, QueueOptions, Request};
use platter::storage::{CacheMode, ZeroFlags};
use platter::{Image, Location, OpenOptions, OpenPolicy, Options};

use crate::common::Dir;

/// The images of a chain are at most so many.
const LONGEST: u32 = 200;
/// What musl gives to each thread, as little as any C library that is in use.
const STACK: usize = 128 << 10;

fn options(writable: bool) -> OpenOptions {
    OpenOptions {
        writable,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    }
}

/// Runs `work` on a stack of the least size; one that overflows ends the process with the name.
fn on_small_stack<R: Send>(name: &str, work: impl FnOnce() -> R + Send) -> R {
    on_stack(STACK, name, work)
}

fn on_stack<R: Send>(size: usize, name: &str, work: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(size)
            .spawn_scoped(scope, work);
        thread.unwrap().join().unwrap()
    })
}

/// Images in the chain of a format: half as many where each has to be made by itself, which takes its time.
fn images(format: &str) -> u32 {
    match format {
        "qcow2" | "qed" | "qcow" => LONGEST,
        _ => LONGEST / 2,
    }
}

fn name(n: u32, format: &str) -> String {
    format!("{n:03}.{format}")
}

/// Makes image `n` of a chain, over the one before.
fn link(dir: &Dir, n: u32, format: &str) {
    let options = if format == "vpc" { "force_size=on" } else { "" };
    let request = CreateRequest {
        location: Location::from_path(dir.path(&name(n, format))),
        format: format.to_owned(),
        size: (n == 0).then_some(1 << 20),
        options: Options::parse(options).unwrap_or_default(),
        backing_file: (n > 0).then(|| name(n - 1, format).into()),
        backing_format: (n > 0).then(|| format.to_owned()),
        backing_unsafe: false,
        exclusive: false,
        objects: Default::default(),
        policy: OpenPolicy::permissive(),
        storages: None,
    };
    let mut job = Job::new();
    let plan = CreatePlan::new(request, &mut job).expect(format);
    plan.run(&mut job).expect(format);
}

/// The chain of a format that knows the image below by its name alone: a copy of one link makes another.
fn copied_links(dir: &Dir, format: &str) {
    link(dir, 0, format);
    link(dir, 1, format);
    let link = std::fs::read(dir.path(&name(1, format))).unwrap();
    let below = name(0, format);
    let mut places = link.windows(below.len());
    let at = places.position(|bytes| bytes == below.as_bytes());
    let at = at.expect("the name of the backing file");
    for n in 2..images(format) {
        let mut copy = link.clone();
        copy[at..at + below.len()].copy_from_slice(name(n - 1, format).as_bytes());
        std::fs::write(dir.path(&name(n, format)), copy).unwrap();
    }
    (0..images(format)).for_each(|n| fill(dir, n, format));
}

/// Writes what image `n` of the chain holds, if anything.
fn fill(dir: &Dir, n: u32, format: &str) {
    let (part, value) = match images(format) - 1 - n {
        _ if n == 0 => (0, 9),
        above if above % 4 == 0 && (1..8).contains(&(above / 4)) => (above / 4, above as u8 / 4),
        _ => return,
    };
    let mut only = options(true);
    only.backing = false;
    let location = Location::from_path(dir.path(&name(n, format)));
    let image = Image::open(&location, &only).unwrap();
    let at = u64::from(part) * (128 << 10);
    image.write_at(&[value; 64 << 10], at).unwrap();
    image.close().unwrap();
}

/// A long chain; the first 64 KiB stand in the lowest, and every second further cluster of 64 KiB in
/// another image from the top.
fn chain(dir: &Dir, format: &str) -> Location {
    match format {
        "qcow2" | "qed" | "qcow" => copied_links(dir, format),
        // A parent that changes later is another one to these.
        _ => (0..images(format)).for_each(|n| {
            link(dir, n, format);
            fill(dir, n, format);
        }),
    }
    Location::from_path(dir.path(&name(images(format) - 1, format)))
}

/// What the chain holds.
fn model() -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    for part in 0..8 {
        let value = if part == 0 { 9 } else { part as u8 };
        bytes[part * (128 << 10)..][..64 << 10].fill(value);
    }
    bytes
}

#[test]
fn a_long_chain_of_each_format_is_used_on_a_small_stack() {
    // The others have no backing file, or none that they name.
    for format in ["qcow2", "vmdk", "vhdx", "vpc", "qed", "qcow"] {
        used_on_a_small_stack(format);
    }
}

fn used_on_a_small_stack(format: &str) {
    let dir = Dir::new();
    let location = chain(&dir, format);
    let model = model();
    let open = |writable| Image::open(&location, &options(writable)).unwrap();
    let image = on_small_stack("open", || open(false));
    on_small_stack("read", || {
        let mut all = vec![0xa5; model.len()];
        image.read_at(&mut all, 0).unwrap();
        assert!(all == model);
        let (head, tail) = all.split_at_mut(512);
        image.read_many_at(&mut [(0, head), (512, tail)]).unwrap();
        assert!(all == model);
    });
    on_small_stack("look up", || {
        assert_eq!(image.map(0, 1 << 20).unwrap().depth, images(format) - 1);
        assert_eq!(image.status(0, 1 << 20).unwrap().depth, images(format) - 1);
        let is_fine = !["vhdx", "vpc"].contains(&format);
        assert!(!is_fine || image.is_known_zero(64 << 10, 64 << 10).unwrap());
        assert!(!image.is_known_zero(0, 64 << 10).unwrap());
        let control = JobControl::default();
        image.prefetch(0, 1 << 20, &control).unwrap();
    });
    on_small_stack("report", || {
        let report = info::info(&location, &options(false), true).unwrap();
        assert!(report.text().unwrap().len() > 10_000);
        assert!(report.json().unwrap().len() > 10_000);
    });
    let image = Arc::new(image);
    on_small_stack("queue", || {
        let mut queue = Queue::new(image.clone(), QueueOptions::default()).unwrap();
        for (token, len) in [(0, 4096), (1, model.len())] {
            let buffer = Buffer::from(vec![0xa5; len]);
            let request = Request::Read { buffer, offset: 0 };
            queue.submit(token, request, false);
        }
        queue.wait(2, None).unwrap();
        while let Some(done) = queue.pop() {
            let len = done.result.unwrap() as usize;
            let shown = done.buffer.unwrap().into_vectors().concat();
            assert!(shown == model[..len]);
        }
    });
    on_small_stack("drop", move || drop(image));
    let image = on_small_stack("open to write", || open(true));
    on_small_stack("write", || {
        image.write_at(&[7; 512], 4096).unwrap();
        image
            .write_zeroes(900 << 10, 512, ZeroFlags::empty())
            .unwrap();
        image.discard(0, 64 << 10).unwrap();
        image.flush().unwrap();
    });
    on_small_stack("close", || image.close().unwrap());
}

#[test]
fn a_long_chain_is_changed_on_a_small_stack() {
    let dir = Dir::new();
    let location = chain(&dir, "qcow2");
    let model = model();
    let contents = || {
        let image = Image::open(&location, &options(false)).unwrap();
        let mut all = vec![0xa5; model.len()];
        image.read_at(&mut all, 0).unwrap();
        all
    };
    on_small_stack("compare", || {
        let image = Image::open(&location, &options(false)).unwrap();
        let report = compare::compare(&image, &image, false, &mut Job::new()).unwrap();
        assert!(compare::exit_code(&Ok(report)) == 0);
        let mapped = map::map(&image, 0, None, &mut Job::new()).unwrap();
        assert!(!mapped.entries.is_empty());
    });
    on_small_stack("rebase", || {
        let request = RebaseRequest {
            location: location.clone(),
            options: options(true),
            backing: Some("100.qcow2".into()),
            backing_format: Some("qcow2".to_owned()),
            backing_cache: CacheMode::Writeback,
            share_backing: false,
            name_only: false,
            compress: false,
        };
        rebase::rebase(&request, &mut Job::new()).unwrap();
    });
    assert!(contents() == model);
    on_small_stack("commit", || {
        let request = CommitRequest {
            location: location.clone(),
            options: options(true),
            base: Some(dir.str("000.qcow2").into()),
            keep: true,
        };
        commit::commit(&request, &mut Job::new()).unwrap();
    });
    assert!(contents() == model);
}

#[test]
fn nodes_in_nodes_are_opened_up_to_a_depth_that_a_stack_holds() {
    let dir = Dir::new();
    std::fs::write(dir.path("a.raw"), [5; 512]).unwrap();
    let file = format!(
        "{{\"driver\":\"file\",\"filename\":\"{}\"}}",
        dir.str("a.raw")
    );
    for (open, close) in [
        (r#"{"driver":"raw","file":"#, "}"),
        (r#"{"driver":"blkdebug","image":"#, "}"),
        (r#"{"driver":"preallocate","file":"#, "}"),
        (
            &format!(r#"{{"driver":"blkverify","raw":{file},"test":"#),
            "}",
        ),
        (
            r#"{"driver":"quorum","vote-threshold":1,"children":["#,
            "]}",
        ),
    ] {
        for depth in [1, 31, 33, 500, 1020, 5000] {
            let text = format!("json:{}{file}{}", open.repeat(depth), close.repeat(depth));
            // What Rust gives to each thread: builds without optimization take far more than others.
            on_stack(2 << 20, &format!("{depth} {open}"), || {
                let location = Location::parse(&text);
                let opened = location.and_then(|location| Image::open(&location, &options(false)));
                if depth < 32 {
                    let mut bytes = [0; 512];
                    opened.unwrap().read_at(&mut bytes, 0).unwrap();
                    assert_eq!(bytes, [5; 512]);
                } else {
                    opened.expect_err("too deep");
                }
            });
        }
    }
}
