//! Streams of VMDK that go by as through a pipe, with edits of headers, tables, markers and grains, in pieces of any
//! length. What is read to its end is what the same file holds that is opened.
#![no_main]

use std::sync::{Arc, OnceLock};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use platter::format::vmdk::DRIVER;
use platter::storage::Storage;
use platter::{Image, Location, OpenOptions, Result};
use platter_fuzz::by_hand::stream;
use platter_fuzz::kit::sample::SAMPLES;
use platter_fuzz::kit::shelf::{self, Access, Shelf};
use platter_fuzz::policy;
use platter_fuzz::sparse::{Pages, SparseStorage};
use platter_fuzz::structures::{Edit, MOST, data, places};

/// Of a longer disk nothing but the zeroes is given out.
const READ: u64 = 4 << 20;

/// Shorter pieces take long and find nothing more.
const LEAST: u64 = 500;

/// What a run does.
#[derive(Arbitrary, Debug)]
struct Case {
    base: u8,
    edits: Vec<Edit>,
    /// Bytes of the guest that are asked for together.
    piece: u16,
    /// Zeroes are left out where that can be, not read.
    passes: bool,
}

/// A whole stream, and where its structures stand.
struct Base {
    file: Pages,
    places: Vec<u64>,
}

fn bases() -> Vec<Base> {
    let mut guest = vec![0; 200 << 10];
    for (at, sectors) in [(0, 3), (200, 200)] {
        let bytes = data(at, sectors);
        guest[at as usize * 512..][..bytes.len()].copy_from_slice(&bytes);
    }
    let streams = SAMPLES.iter().filter(|it| it.name == "vmdk stream");
    let made = streams.map(|sample| {
        let files = shelf::created(sample);
        let image = shelf::open(sample, &files, Access::Write).expect("the new image opens");
        // Grains of a stream are written once, as wholes.
        image.write_at(&data(0, 256), 0).expect("a write");
        image.write_at(&data(2048, 128), 1 << 20).expect("a write");
        image.close().expect("a close");
        shelf::bytes(&files).swap_remove(0)
    });
    let by_hand = [stream(&guest, false), stream(&guest, true)];
    let base = |file: Vec<u8>| Base {
        places: places(&file),
        file: Pages::of(&file),
    };
    made.chain(by_hand).map(base).collect()
}

/// The guest of a stream that was read to its end, as far as it is short.
fn pass(file: &Pages, case: &Case) -> Result<Option<Vec<u8>>> {
    let mut at = 0;
    let mut next = |buf: &mut [u8]| {
        let len = (file.len() - at).min(buf.len() as u64) as usize;
        file.read(&mut buf[..len], at);
        at += len as u64;
        Ok(len)
    };
    let open = DRIVER.read_in_order.expect("streams are read in order");
    let mut image = open(&policy(), &mut next)?;
    let len = image.virtual_size();
    let mut guest = vec![0; len.min(READ) as usize];
    let mut done = 0;
    while done < len {
        let zeroes = image.zeroes(&mut next)?;
        assert!(zeroes <= len - done, "{zeroes} zeroes at {done} of {len}");
        if zeroes > 0 && (case.passes || done >= READ) {
            image.pass(zeroes);
            done += zeroes;
            continue;
        }
        let mut unused = [0; 4096];
        let end = (done + LEAST + u64::from(case.piece)).min(guest.len() as u64);
        let buf = match guest.get_mut(done as usize..end as usize) {
            Some(buf) if !buf.is_empty() => buf,
            _ => &mut unused[..(len - done).min(4096) as usize],
        };
        image.read(buf, &mut next)?;
        done += buf.len() as u64;
    }
    image.end(&mut next)?;
    Ok((len <= READ).then_some(guest))
}

/// The guest of the same bytes as a file.
fn whole(file: Pages) -> Result<Vec<u8>> {
    let storage: Arc<dyn Storage> = Arc::new(SparseStorage::new("image", file));
    let options = OpenOptions {
        policy: policy(),
        storages: Some(Arc::new(Shelf(vec![storage]))),
        ..OpenOptions::default()
    };
    let location = Location::from_image_opts("driver=vmdk,file.filename=image")?;
    shelf::contents(&Image::open(&location, &options)?)
}

fuzz_target!(|case: Case| {
    static BASES: OnceLock<Vec<Base>> = OnceLock::new();
    let bases = BASES.get_or_init(bases);
    let base = &bases[usize::from(case.base) % bases.len()];
    let mut file = base.file.clone();
    for edit in case.edits.iter().take(MOST) {
        edit.apply(false, &base.places, &mut file);
    }
    let passed = pass(&file, &case);
    if case.edits.is_empty() {
        passed.as_ref().expect("a whole stream");
    }
    if let Ok(Some(guest)) = passed
        && let Ok(held) = whole(file)
    {
        assert!(held == guest, "the pipe and the file hold other bytes");
    }
});
