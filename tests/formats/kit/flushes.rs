//! Flushes that come while another one is under way.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use platter::Image;
use platter::storage::Storage;
use platter::storage::testing::{Gate, GatedStorage};

use super::sample::{SAMPLES, Sample};
use super::shelf::{self, Access};

/// Long enough for a flush that does not wait to end.
const A_WHILE: Duration = Duration::from_millis(30);

/// What a flush tells of must be on disk when it returns, whoever brings it there.
#[test]
fn a_flush_waits_for_metadata_that_another_one_is_writing() {
    let waited = SAMPLES.iter().filter(|sample| waits(sample)).count();
    assert!(waited > SAMPLES.len() / 3, "{waited} of {}", SAMPLES.len());
}

/// Whether the first flush of the sample writes anything.
fn waits(sample: &Sample) -> bool {
    let gate = Arc::new(Gate::default());
    let files = shelf::created(sample);
    let gated = files.iter().map(|file| {
        let gated = GatedStorage::new(file.clone(), gate.clone());
        Arc::new(gated) as Arc<dyn Storage>
    });
    let gated: Vec<_> = gated.collect();
    let image = shelf::open(sample, &gated, Access::Write).expect("it opens");
    let image = Arc::new(image);
    image.write_at(&[1; 4096], 0).expect("a write");
    gate.close();
    let (first, first_ends) = flushing(&image);
    while gate.waiting() == 0 {
        if first_ends.recv_timeout(Duration::from_millis(1)) != Err(RecvTimeoutError::Timeout) {
            // There was nothing to write.
            gate.open();
            return false;
        }
    }
    let (second, second_ends) = flushing(&image);
    let early = second_ends.recv_timeout(A_WHILE);
    gate.open();
    assert_eq!(early, Err(RecvTimeoutError::Timeout), "{}", sample.name);
    first.join().expect("the first flush");
    second.join().expect("the second flush");
    true
}

/// A flush by another thread, and what tells that it has ended.
fn flushing(image: &Arc<Image>) -> (thread::JoinHandle<()>, std::sync::mpsc::Receiver<()>) {
    let (ended, ends) = channel();
    let image = image.clone();
    let thread = thread::spawn(move || {
        image.flush().expect("a flush");
        // Nobody may listen any more.
        let _ = ended.send(());
    });
    (thread, ends)
}
