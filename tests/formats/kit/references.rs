//! Inspection lists every file that an image names.

use platter::OpenOptions;
use platter::ops::inspect::inspect_storage;

use super::sample::samples;
use super::shelf::{self, Access, FILES};

#[test]
fn inspection_lists_every_file_that_is_named() {
    for sample in samples() {
        let files = shelf::created(sample);
        let options = OpenOptions {
            format: Some(sample.format.to_owned()),
            ..OpenOptions::default()
        };
        let report = inspect_storage(files[0].clone(), &options).expect("memory can be read");
        let mut names: Vec<_> = report.references.iter().map(|r| r.name_text()).collect();
        if sample.opening.starts_with("backing.") {
            // It knows its parent by the identity alone.
            let at = names.iter().position(|name| name.starts_with('{'));
            names[at.expect("a parent")] = FILES[2].to_owned();
        }
        names.sort();
        let mut expected = Vec::new();
        if sample.overlay {
            expected.push(FILES[2].to_owned());
        }
        if sample.has_data_file() {
            expected.push(sample.second.unwrap_or(FILES[1]).to_owned());
        }
        expected.sort();
        assert_eq!(names, expected, "{}", sample.name);
        assert_eq!(report.encrypted, sample.encrypted(), "{}", sample.name);
        let image = shelf::open(sample, &files, Access::Read).expect("it opens");
        let size = report.virtual_size;
        assert!(
            size.is_none_or(|size| size == image.len()),
            "{}: {size:?}",
            sample.name
        );
    }
}
