//! A new image is as long as it was measured to be.

use platter::ops::convert::{ConvertRequest, convert};
use platter::ops::create::TargetFormat;
use platter::ops::measure::{MeasureSource, measure};
use platter::{Image, Job, Location, OpenOptions, OpenPolicy, Options};

use super::sample::{objects, samples};
use crate::common::Dir;

#[test]
fn what_was_measured_is_what_is_written() {
    for sample in samples() {
        let format = TargetFormat::find(sample.format).expect("a format");
        let dir = Dir::new();
        let mut source = vec![0; sample.size as usize];
        source[100_000..900_000].fill(1);
        source[2 << 20..(2 << 20) + 5000].fill(2);
        std::fs::write(dir.path("source"), &source).expect("a source");
        let location = Location::from_path(dir.path("source"));
        let source_options = OpenOptions {
            format: Some("raw".to_owned()),
            policy: OpenPolicy::permissive(),
            ..OpenOptions::default()
        };
        let image = Image::open(&location, &source_options).expect("the source opens");
        let options = match sample.options(&dir.str("data")).as_str() {
            "" => Options::new(),
            options => Options::parse(options).expect("options"),
        };
        let mut job = Job::new();
        let measured = measure(MeasureSource::Image(&image), format, &options, &mut job)
            .unwrap_or_else(|error| panic!("{}: {error}", sample.name));
        drop(image);

        let mut request = ConvertRequest::new(location, Location::from_path(dir.path("image")));
        request.source.options = source_options;
        request.target.format = Some(sample.format.to_owned());
        request.target.options = options;
        request.target.policy = OpenPolicy::permissive();
        request.target.objects = objects();
        // Everything is data: how zeroes are found is the conversion's affair.
        request.tuning.sparse_size = Some(0);
        convert(&request, &mut Job::new())
            .unwrap_or_else(|error| panic!("{}: {error}", sample.name));
        let required = measured.0.required;
        // A descriptor counts in sectors, a data file in whole clusters.
        let unit = match sample.options.contains("data_file") {
            true => 64 << 10,
            false => 512,
        };
        let len: u64 = std::fs::read_dir(dir.root())
            .expect("the directory")
            .map(|entry| entry.expect("a file"))
            .filter(|entry| entry.file_name() != "source")
            .map(|entry| entry.metadata().expect("its length").len())
            .map(|len| len.next_multiple_of(unit))
            .sum();
        assert!(required <= measured.0.fully_allocated, "{}", sample.name);
        match sample.is_stream {
            // How far it shrinks is not known before.
            true => assert!(len <= required, "{}: {len} of {required}", sample.name),
            false => assert_eq!(len, required, "{}", sample.name),
        }
    }
}
