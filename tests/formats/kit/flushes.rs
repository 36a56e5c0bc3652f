//! Flushes that come while another one is under way.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use platter::Image;
use platter::storage::Storage;
use platter::storage::testing::{Event, Gate, Gated, GatedStorage, Log};

use super::sample::{Sample, only, samples};
use super::shelf::{self, Access, FILES};

/// Long enough for a flush that does not wait to end.
const A_WHILE: Duration = Duration::from_millis(30);

/// What a flush tells of must be on disk when it returns, whoever brings it there.
#[test]
fn a_flush_waits_for_metadata_that_another_one_is_writing() {
    let waited = samples().filter(|sample| waits(sample)).count();
    let all = samples().count();
    assert!(only().is_some() || waited > all / 3, "{waited} of {all}");
}

/// Whether the first flush of the sample writes anything.
fn waits(sample: &Sample) -> bool {
    let gate = Arc::new(Gate::default());
    let files = shelf::created(sample);
    let image = behind(&gate, Gated::Writes, sample, &files);
    image.write_at(&[1; 4096], 0).expect("a write");
    gate.close();
    let (first, first_ends) = flushing(&image);
    if !is_held(&gate, &first_ends) {
        // There was nothing to write.
        return false;
    }
    let (second, second_ends) = flushing(&image);
    let early = second_ends.recv_timeout(A_WHILE);
    gate.open();
    assert_eq!(early, Err(RecvTimeoutError::Timeout), "{}", sample.name);
    first.join().expect("the first flush");
    second.join().expect("the second flush");
    true
}

/// A file that is made longer for what was reserved must not lose what others write behind that meanwhile.
#[test]
fn a_flush_that_lengthens_the_file_spares_what_is_written_meanwhile() {
    let held = samples().filter(|sample| lengthens(sample));
    let held: Vec<_> = held.map(|sample| sample.name).collect();
    let expected = held.contains(&"qcow") && held.contains(&"vmdk");
    assert!(only().is_some() || expected, "{held:?}");
}

/// Whether the first flush of the sample makes a file longer.
fn lengthens(sample: &Sample) -> bool {
    let gate = Arc::new(Gate::default());
    let files = shelf::created(sample);
    let image = behind(&gate, Gated::Lengths, sample, &files);
    image.write_at(&[1; 512], 0).expect("a write");
    gate.close();
    let (flush, flush_ends) = flushing(&image);
    if !is_held(&gate, &flush_ends) {
        return false;
    }
    // Far enough away to need a place of its own.
    let at = sample.size / 2 / 4096 * 4096;
    let (written, write_ends) = channel();
    let write = {
        let image = image.clone();
        thread::spawn(move || {
            image.write_at(&[2; 512], at).expect("another write");
            let _ = written.send(());
        })
    };
    // It may have to wait for the other.
    let _ = write_ends.recv_timeout(A_WHILE);
    gate.open();
    flush.join().expect("the flush");
    write.join().expect("the write");
    let image = Arc::into_inner(image).expect("the threads have ended");
    image.close().expect("a close");
    let image = shelf::open(sample, &files, Access::Read).expect("it opens again");
    for (byte, at) in [(1, 0), (2, at)] {
        let mut found = [0; 512];
        image.read_at(&mut found, at).expect("a read");
        assert!(
            found == [byte; 512],
            "{}: what was written at {at} is lost",
            sample.name
        );
    }
    true
}

/// What was freed waits for readers, and a flush may find nothing else to write: what was written in place before it is
/// durable all the same.
#[test]
fn a_flush_syncs_while_freed_places_wait_for_a_reader() {
    let frees = samples()
        .filter(|sample| frees_under_a_reader(sample))
        .count();
    assert!(only().is_some() || frees > 3, "{frees}");
}

/// Whether a discard of the sample changes anything in its files.
fn frees_under_a_reader(sample: &Sample) -> bool {
    let log = Log::new();
    let created = shelf::bytes(&shelf::created(sample));
    let files = FILES.iter().zip(created);
    let files: Vec<_> = files
        .map(|(name, bytes)| log.file(*name, bytes) as Arc<dyn Storage>)
        .collect();
    let image = shelf::open(sample, &files, Access::Write).expect("it opens");
    let half = sample.size / 2 / 4096 * 4096;
    image
        .write_at(&vec![1; sample.size as usize], 0)
        .expect("a write");
    image.flush().expect("a flush");
    let reader = image.format().begin_io();
    let before = log.count();
    if image.discard(0, half).is_err() {
        return false;
    }
    image.flush().expect("a flush");
    let frees = log.count() > before;
    image.write_at(&[2; 4096], half).expect("a write in place");
    image.flush().expect("a flush");
    let records = log.records();
    for (file, name) in FILES.iter().enumerate() {
        let mut of_file = records.iter().filter(|record| record.file == file);
        let last = of_file.next_back().map(|record| &record.event);
        let is_durable = matches!(last, None | Some(Event::Sync));
        assert!(is_durable, "{}: {name}", sample.name);
    }
    drop(reader);
    frees
}

/// The sample, of whose files calls of that kind pass the gate.
fn behind(
    gate: &Arc<Gate>,
    which: Gated,
    sample: &Sample,
    files: &[Arc<dyn Storage>],
) -> Arc<Image> {
    let gated = files.iter().map(|file| {
        Arc::new(GatedStorage::new(file.clone(), gate.clone(), which)) as Arc<dyn Storage>
    });
    let gated: Vec<_> = gated.collect();
    Arc::new(shelf::open(sample, &gated, Access::Write).expect("it opens"))
}

/// Waits until the gate holds a call; false, and the gate is open, where the other thread ends before.
fn is_held(gate: &Gate, ends: &Receiver<()>) -> bool {
    while gate.waiting() == 0 {
        if ends.recv_timeout(Duration::from_millis(1)) != Err(RecvTimeoutError::Timeout) {
            gate.open();
            return false;
        }
    }
    true
}

/// A flush by another thread, and what tells that it has ended.
fn flushing(image: &Arc<Image>) -> (thread::JoinHandle<()>, Receiver<()>) {
    let (ended, ends) = channel();
    let image = image.clone();
    let thread = thread::spawn(move || {
        image.flush().expect("a flush");
        // Nobody may listen any more.
        let _ = ended.send(());
    });
    (thread, ends)
}
