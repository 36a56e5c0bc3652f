//! A disk with holes that goes from qcow2 to another format and back: what comes back is what went, and the image
//! between is as long as it was measured to be.

use platter::extent::ExtentKind;
use platter::ops::convert::{ConvertRequest, convert};
use platter::ops::create::TargetFormat;
use platter::ops::measure::{MeasureSource, measure};
use platter::{Image, Job, Location, OpenOptions, OpenPolicy, Options};

use super::sample::{Sample, objects, samples};
use super::shelf::contents;
use super::work::same;
use crate::common::Dir;

fn opening() -> OpenOptions {
    OpenOptions {
        policy: OpenPolicy::permissive(),
        objects: objects(),
        ..OpenOptions::default()
    }
}

fn qcow2() -> OpenOptions {
    OpenOptions {
        format: Some("qcow2".to_owned()),
        ..opening()
    }
}

/// Nothing is below it.
fn of_sample(sample: &Sample, dir: &Dir) -> Location {
    let mut alone = *sample;
    if sample.opening.contains("backing") {
        alone.opening = "";
    }
    Location::from_image_opts(&alone.image_opts(&dir.str("image"))).expect("a location")
}

/// A conversion that is to succeed.
fn converted(
    sample: &Sample,
    (source, options): (Location, OpenOptions),
    (target, format, creation): (Location, &str, Options),
) {
    let mut request = ConvertRequest::new(source, target);
    request.source.options = options;
    request.target.format = Some(format.to_owned());
    request.target.options = creation;
    request.target.policy = OpenPolicy::permissive();
    request.target.objects = objects();
    convert(&request, &mut Job::new()).unwrap_or_else(|error| panic!("{}: {error}", sample.name));
}

/// Where an image holds data.
fn data(image: &Image) -> Vec<(u64, u64)> {
    let (mut runs, mut at) = (Vec::<(u64, u64)>::new(), 0);
    while at < image.len() {
        let run = image.map(at, image.len() - at).expect("a run");
        let end = at + run.extent.len;
        if matches!(run.extent.kind, ExtentKind::Data { .. }) {
            match runs.last_mut().filter(|(_, before)| *before == at) {
                Some((_, before)) => *before = end,
                None => runs.push((at, end)),
            }
        }
        at = end;
    }
    runs
}

#[test]
fn what_goes_to_another_format_comes_back_as_it_was() {
    for sample in samples() {
        let format = TargetFormat::find(sample.format).expect("a format");
        let dir = Dir::new();
        let mut disk = vec![0; sample.size as usize];
        // Whole clusters: how zeroes among the data are found is the conversion's affair.
        disk[128 << 10..896 << 10].fill(1);
        disk[2 << 20..(2 << 20) + (64 << 10)].fill(2);
        std::fs::write(dir.path("raw"), &disk).expect("a disk");
        let path = |name: &str| Location::from_path(dir.path(name));
        let raw = OpenOptions {
            format: Some("raw".to_owned()),
            ..opening()
        };
        let new = |name, options| (path(name), "qcow2", options);
        converted(sample, (path("raw"), raw), new("source", Options::new()));
        let image = Image::open(&path("source"), &qcow2()).expect("the source opens");
        let options = match sample.options(&dir.str("data")).as_str() {
            "" => Options::new(),
            options => Options::parse(options).expect("options"),
        };
        let source = MeasureSource::Image(&image);
        let measured = measure(source, format, &options, &mut Job::new());
        let measured = measured.unwrap_or_else(|error| panic!("{}: {error}", sample.name));
        let target = (path("image"), sample.format, options);
        converted(sample, (path("source"), qcow2()), target);
        let len: u64 = std::fs::read_dir(dir.root())
            .expect("the directory")
            .map(|entry| entry.expect("a file"))
            .filter(|entry| entry.file_name() != "source" && entry.file_name() != "raw")
            .map(|entry| entry.metadata().expect("its length").len())
            .map(|len| len.next_multiple_of(512))
            .sum();
        // A data file is as long as the disk, whatever it holds; of qcow2 all tables count, as with QEMU.
        let is_told = !sample.has_data_file() && sample.format != "qcow2";
        if is_told {
            let measured = measured.0;
            let required = measured.required;
            assert!(required <= measured.fully_allocated, "{}", sample.name);
            match sample.is_stream {
                // How far it shrinks is not known before.
                true => assert!(len <= required, "{}: {len} of {required}", sample.name),
                false => assert_eq!(len, required, "{}", sample.name),
            }
        }
        let back = new("back", Options::new());
        converted(sample, (of_sample(sample, &dir), opening()), back);
        let back = Image::open(&path("back"), &qcow2()).expect("what came back opens");
        let bytes = contents(&back).expect("a read");
        // A VHD may be longer, by its geometry.
        assert!(bytes.len() >= disk.len(), "{}", sample.name);
        same(sample.name, &bytes[..disk.len()], &disk);
        assert!(bytes[disk.len()..].iter().all(|byte| *byte == 0));
        assert_eq!(data(&back), data(&image), "{}", sample.name);
    }
}
