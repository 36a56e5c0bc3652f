//! Images cross between Platter and QEMU's tools.

use platter::ops::create::{CreatePlan, CreateRequest};
use platter::{Image, Job, Location, OpenOptions, OpenPolicy, Options};

use super::sample::{PASSPHRASE, Sample, objects, samples};
use super::shelf;
use super::work::{Change, same};
use crate::common::Dir;
use crate::random::Random;

/// A directory with the backing file of the sample.
pub fn directory(sample: &Sample) -> Dir {
    let dir = Dir::new();
    std::fs::write(dir.path("base"), shelf::base(sample)).expect("the backing file");
    dir
}

/// Makes the image of the sample in its directory.
pub fn create(dir: &Dir, sample: &Sample) {
    let request = CreateRequest {
        location: Location::from_path(dir.path("image")),
        format: sample.format.to_owned(),
        size: Some(sample.size),
        options: match sample.options(&dir.str("data")).as_str() {
            "" => Options::new(),
            options => Options::parse(options).expect("options"),
        },
        backing_file: sample.overlay.then(|| "base".into()),
        backing_format: sample.overlay.then(|| sample.base_format.to_owned()),
        backing_unsafe: false,
        exclusive: false,
        objects: objects(),
        policy: OpenPolicy::permissive(),
        storages: None,
    };
    let mut job = Job::new();
    CreatePlan::new(request, &mut job)
        .and_then(|plan| plan.run(&mut job))
        .unwrap_or_else(|error| panic!("{}: {error}", sample.name));
}

/// What opens it; a parent that it has no name for is beside it.
pub fn image_opts(dir: &Dir, sample: &Sample) -> String {
    let options = sample.image_opts(&dir.str("image"));
    options.replace("filename=base", &format!("filename={}", dir.str("base")))
}

pub fn open(dir: &Dir, sample: &Sample, writable: bool) -> Image {
    let options = OpenOptions {
        writable,
        objects: objects(),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let location = Location::from_image_opts(&image_opts(dir, sample));
    Image::open(&location.expect("a location"), &options)
        .unwrap_or_else(|error| panic!("{}: {error}", sample.name))
}

/// The object that holds the secret, for QEMU's tools.
fn object() -> [String; 2] {
    let object = format!("secret,id=s,data={PASSPHRASE}");
    ["--object".to_owned(), object]
}

fn qemu_img(dir: &Dir, sample: &Sample, command: &str, args: &[&str]) -> String {
    let mut line = vec![command.to_owned()];
    if sample.encrypted() {
        line.extend(object());
    }
    line.extend(args.iter().map(|arg| (*arg).to_owned()));
    let ran = dir.qemu_img(&line);
    assert_eq!(ran.code, 0, "{}: {line:?}: {ran:?}", sample.name);
    ran.out
}

/// QEMU's verdict on the image, and what it reads from it.
fn judge(dir: &Dir, sample: &Sample, model: &[u8]) {
    let image = sample.image_opts("image");
    let ran = {
        let mut line = vec!["check".to_owned()];
        if sample.encrypted() {
            line.extend(object());
        }
        line.extend(["--image-opts".to_owned(), image.clone()]);
        dir.qemu_img(&line)
    };
    // 63: the format has no check.
    assert!([0, 63].contains(&ran.code), "{}: {ran:?}", sample.name);
    qemu_img(
        dir,
        sample,
        "convert",
        &["--image-opts", "-O", "raw", &image, "read.raw"],
    );
    let read = std::fs::read(dir.path("read.raw")).expect("what QEMU read");
    same(sample.name, &read, model);
}

#[test]
fn qemu_reads_what_was_written_here() {
    for sample in samples().filter(|sample| sample.known_to_peer) {
        let dir = directory(sample);
        create(&dir, sample);
        let mut model = shelf::empty(sample);
        let image = open(&dir, sample, true);
        if !sample.zeroes_when_new {
            shelf::wipe(&image);
        }
        image.close().expect("a close");
        judge(&dir, sample, &model);
        let image = open(&dir, sample, true);
        let mut random = Random(sample.size ^ sample.name.len() as u64);
        for _ in 0..60 {
            let change = Change::pick(&mut random, sample.size);
            change.apply(&image).expect("a change");
            let noted = change.note(&image, &mut model, |at| shelf::base_byte(sample, at));
            noted.expect("a read");
        }
        image.close().expect("a close");
        judge(&dir, sample, &model);
    }
}

#[test]
fn what_qemu_wrote_is_read_here_and_written_on() {
    let written = |sample: &&Sample| sample.known_to_peer && !sample.is_stream;
    for sample in samples().filter(written) {
        let dir = directory(sample);
        let options = sample.options_of_peer(&dir.str("data"));
        let size = sample.size.to_string();
        let mut args = vec!["-q", "-f", sample.format];
        if !options.is_empty() {
            args.extend(["-o", &options]);
        }
        if sample.overlay {
            args.extend(["-b", "base", "-F", sample.base_format]);
        }
        args.extend(["image", &size]);
        qemu_img(&dir, sample, "create", &args);
        let mut model = shelf::empty(sample);
        let mut line = Vec::new();
        if sample.encrypted() {
            line.extend(object());
        }
        for (pattern, offset, len) in [
            (0x11u8, 0usize, 100 << 10),
            (0x22, (1 << 20) + 512, 3 * 512),
            (0x33, 2 << 20, 64 << 10),
            (0x44, sample.size as usize - 512, 512),
        ] {
            line.push("-c".to_owned());
            line.push(format!("write -P {pattern} {offset} {len}"));
            model[offset..offset + len].fill(pattern);
        }
        line.push("-c".to_owned());
        line.push("write -z 32k 32k".to_owned());
        model[32 << 10..64 << 10].fill(0);
        line.extend(["--image-opts".to_owned(), sample.image_opts("image")]);
        if !sample.zeroes_when_new {
            let image = open(&dir, sample, true);
            shelf::wipe(&image);
            image.close().expect("a close");
        }
        let ran = crate::common::run_in(dir.root(), "qemu-io", &line);
        assert_eq!(ran.code, 0, "{}: {ran:?}", sample.name);

        let image = open(&dir, sample, true);
        same(
            sample.name,
            &shelf::contents(&image).expect("a read"),
            &model,
        );
        let bytes = vec![0x77; 150_000];
        image.write_at(&bytes, 40_000).expect("a write");
        model[40_000..190_000].fill(0x77);
        image.close().expect("a close");
        judge(&dir, sample, &model);
    }
}
