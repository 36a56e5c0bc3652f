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
mod work;

use platter::format::registry;

use sample::SAMPLES;

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
