//! What every format promises, whatever its options: a new format adds its samples to the table in
//! `sample.rs`, and a folder beside this one for its odd cases.

mod crash;
mod faults;
mod hostile;
mod measure;
mod model;
mod parallel;
mod peer;
mod references;
mod sample;
mod shelf;
pub mod work;

use platter::format::{Features, registry};

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
        let of_drivers = Features::CREATE | Features::MEASURE | Features::ENCRYPT;
        assert_eq!(found, driver.features() - of_drivers, "{}", driver.name);
    }
}

#[test]
fn every_format_has_samples() {
    for driver in registry::drivers() {
        assert!(
            SAMPLES.iter().any(|sample| sample.format == driver.name),
            "{} has no sample",
            driver.name
        );
    }
}
