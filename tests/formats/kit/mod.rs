//! What every format promises, whatever its options: a new format adds its samples to the table in
//! `sample.rs`, and a folder beside this one for its odd cases.

mod checked_open;
mod crash;
mod faults;
mod flushes;
pub mod given;
mod grows_only;
pub mod hostile;
mod lengths;
mod live_check;
mod measure;
mod model;
mod parallel;
mod peer;
mod read_only;
mod references;
mod round_trip;
pub mod sample;
pub mod shelf;
mod smaller;
mod status;
mod undo;
pub mod work;

use platter::format::{Features, registry};

use given::GIVEN;
use sample::SAMPLES;
use shelf::Access;

/// What drivers say that their images can do is neither more nor less than what open images have.
#[test]
fn drivers_know_what_their_images_can_do() {
    for driver in registry::drivers() {
        let mut found = Features::empty();
        for sample in SAMPLES.iter().filter(|it| it.format == driver.name) {
            let files = shelf::created(sample);
            let image = shelf::open(sample, &files, Access::Write).expect("the new image opens");
            let features = image.format().features();
            assert!(driver.can(features), "{}: {features:?}", sample.name);
            found |= features;
        }
        for given in GIVEN.iter().filter(|it| it.format == driver.name) {
            let image = read_only::open(given, &given.make().1, false).expect("it opens");
            found |= image.format().features();
        }
        let of_drivers = Features::CREATE | Features::MEASURE | Features::ENCRYPT;
        assert_eq!(found, driver.features() - of_drivers, "{}", driver.name);
    }
}

#[test]
fn every_format_has_samples() {
    for driver in registry::drivers() {
        // Where none can be made, tests make some.
        let is_there = match driver.create {
            Some(_) => SAMPLES.iter().any(|sample| sample.format == driver.name),
            // The kit has its images in memory: those that are directories have tests of their own.
            None if driver
                .children
                .iter()
                .any(|child| child.in_directory.is_some()) =>
            {
                true
            }
            None => GIVEN.iter().any(|given| given.format == driver.name),
        };
        assert!(is_there, "{} has no sample", driver.name);
    }
}

/// Options that no sample can have: those of every image, and what puts the bytes elsewhere.
const APART: [&str; 4] = ["size", "backing_file", "backing_fmt", "detached-header"];

#[test]
fn every_option_of_creation_is_in_a_sample() {
    for driver in registry::drivers() {
        let samples = SAMPLES.iter().filter(|it| it.format == driver.name);
        let given: Vec<&str> = samples
            .flat_map(|sample| sample.options.split(','))
            .filter_map(|option| option.split('=').next())
            .collect();
        for option in driver.create_options {
            let is_given = given.contains(&option.name) || APART.contains(&option.name);
            assert!(is_given, "no sample of {} has {}", driver.name, option.name);
        }
    }
}
