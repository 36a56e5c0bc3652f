//! Valid images with edits where their structures are, sealed again so that checksums do not end the run: opened,
//! read, inspected, repaired and written. The targets of single formats.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

use arbitrary::Arbitrary;
use platter::format::RepairMode;
use platter::ops::commit::{CommitRequest, commit_image};
use platter::ops::rebase::{RebaseRequest, rebase_image};
use platter::storage::{CacheMode, Preallocation, Storage};
use platter::{Image, Job, Location, OpenOptions, OpenPolicy, Result};

use crate::kit::sample::{SAMPLES, Sample, objects};
use crate::kit::shelf::{self, Access, FILES, Shelf};
use crate::kit::work::{Change, same};
use crate::sparse::{Pages, SparseStorage};
use crate::{check_image, inspect_file, look_at, policy};

const SECTOR: usize = 512;
/// The upper half of every word of guest data; the lower one counts sectors.
const DATA: u32 = 0x5aa5_0000;
/// Edits and changes of one run.
pub const MOST: usize = 12;
/// Larger disks are not compared as a whole.
const COMPARED: u64 = 16 << 20;

/// What a target knows of its format.
pub struct Kind {
    /// The driver.
    pub format: &'static str,
    /// Numbers are big-endian.
    pub big_endian: bool,
    /// Puts right the checksums of an edited file.
    pub seal: fn(&mut Pages),
    /// Images beyond the samples of the kit.
    pub more: fn() -> Vec<(Sample, Vec<Vec<u8>>)>,
}

/// A valid image.
struct Base {
    sample: Sample,
    files: Vec<Pages>,
    /// Places of words in the structures of the first two files.
    places: [Vec<u64>; 2],
}

/// One edit. Places count through those of the structures.
#[derive(Arbitrary, Debug)]
pub enum Edit {
    Word {
        at: u16,
        value: u32,
    },
    Wide {
        at: u16,
        value: u64,
    },
    /// A number becomes larger or smaller by a little, in units of a power of two.
    Add {
        at: u16,
        wide: bool,
        by: i8,
        shift: u8,
    },
    /// A number that stands elsewhere: pointers that meet.
    Copy {
        from: u16,
        to: u16,
        words: u8,
    },
    Bit {
        at: u16,
        bit: u8,
    },
    Bytes {
        at: u16,
        skip: u8,
        bytes: Vec<u8>,
    },
    /// The file ends here.
    Cut {
        sectors: u16,
        bytes: u8,
    },
    Grow {
        bytes: u32,
    },
}

/// One change of the guest.
#[derive(Arbitrary, Debug)]
enum Step {
    Write {
        at: u32,
        len: u32,
        byte: u8,
    },
    Zero {
        at: u32,
        len: u32,
        unmap: bool,
    },
    Discard {
        at: u32,
        len: u32,
    },
    /// A whole unit is written compressed.
    Compress {
        at: u32,
        byte: u8,
    },
    Resize {
        sectors: i16,
    },
    Flush,
    Reopen,
}

/// What becomes of the image and the one below it in the end.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Layers {
    Stay,
    Commit {
        keep: bool,
    },
    /// Everything is copied, and nothing is below any more.
    Rebase {
        compress: bool,
    },
}

/// What a run does.
#[derive(Arbitrary, Debug)]
pub struct Case {
    base: u8,
    /// Edits are of the second file, where there is one.
    second: bool,
    /// One in sixteen keeps its wrong checksums.
    unsealed: u8,
    edits: Vec<Edit>,
    steps: Vec<Step>,
    layers: Layers,
}

fn memory(files: &[Pages]) -> Vec<Arc<dyn Storage>> {
    let one = |(name, pages): (&&str, &Pages)| {
        Arc::new(SparseStorage::new(name, pages.clone())) as Arc<dyn Storage>
    };
    FILES.iter().zip(files).map(one).collect()
}

/// Guest data that tells itself from structures, each sector from the others.
pub fn data(first: u32, sectors: u32) -> Vec<u8> {
    let words = |n: u32| std::iter::repeat_n((DATA | n).to_le_bytes(), SECTOR / 4);
    (first..first + sectors).flat_map(words).flatten().collect()
}

/// Places of the words of sectors that hold anything else.
pub fn places(bytes: &[u8]) -> Vec<u64> {
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_le_bytes);
    let structure = |sector: &[u8]| {
        let mut words = sector.chunks(4).map(word);
        words.any(|word| word != 0 && word & 0xffff_0000 != DATA)
    };
    let sectors = bytes.chunks(SECTOR).enumerate();
    let held = sectors.filter(|(_, sector)| structure(sector));
    let words = |n: usize| (0..SECTOR as u64 / 4).map(move |word| (n * SECTOR) as u64 + word * 4);
    held.flat_map(|(n, _)| words(n)).collect()
}

impl Base {
    fn new(sample: Sample, files: &[Vec<u8>]) -> Self {
        let of = |n: usize| files.get(n).map(|bytes| places(bytes)).unwrap_or_default();
        Self {
            sample,
            places: [of(0), of(1)],
            files: files.iter().map(|bytes| Pages::of(bytes)).collect(),
        }
    }

    /// A sample with data in it, closed or as a crash would leave it.
    fn filled(sample: &Sample, closed: bool) -> Self {
        let files = shelf::created(sample);
        let image = shelf::open(sample, &files, Access::Write).expect("the new image opens");
        for (at, sectors) in [(0, 3), (2000, 200), (4096, 8)] {
            let bytes = data(at, sectors);
            let at = u64::from(at) * SECTOR as u64;
            image.write_at(&bytes, at).expect("a write");
        }
        let _ = image.discard(1 << 20, 1 << 20);
        image.flush().expect("a flush");
        let open = shelf::bytes(&files);
        image.close().expect("a close");
        match closed {
            true => Self::new(*sample, &shelf::bytes(&files)),
            false => Self::new(*sample, &open),
        }
    }

    fn all(kind: &Kind) -> Vec<Self> {
        let samples = SAMPLES.iter().filter(|it| it.format == kind.format);
        let filled = samples.flat_map(|it| [true, false].map(|closed| Self::filled(it, closed)));
        let more = (kind.more)().into_iter();
        filled
            .chain(more.map(|(sample, files)| Self::new(sample, &files)))
            .collect()
    }

    fn open(&self, files: &[Arc<dyn Storage>], access: Access) -> Result<Image> {
        Image::open(&self.location(access)?, &self.options(files, access))
    }

    fn location(&self, access: Access) -> Result<Location> {
        Location::from_image_opts(&match access {
            Access::Read => self.sample.reading_opts(FILES[0]),
            _ => self.sample.image_opts(FILES[0]),
        })
    }

    fn options(&self, files: &[Arc<dyn Storage>], access: Access) -> OpenOptions {
        OpenOptions {
            writable: access != Access::Read,
            for_check: access == Access::Check,
            objects: objects(),
            policy: OpenPolicy {
                implicit_files: OpenPolicy::permissive().implicit_files,
                ..policy()
            },
            storages: Some(Arc::new(Shelf(files.to_vec()))),
            ..OpenOptions::default()
        }
    }

    /// Closes an image after what is to become of its layers; whether all of that was done.
    fn end(&self, files: &[Arc<dyn Storage>], image: Image, layers: Layers) -> bool {
        // An image that is told what is below cannot be told that nothing is.
        let may_change = self.sample.overlay
            && image.len() <= COMPARED
            && !self.sample.opening.contains("backing");
        let options = self.options(files, Access::Write);
        let Ok(location) = self.location(Access::Write) else {
            return false;
        };
        let done = match layers {
            Layers::Commit { keep } if may_change => {
                let request = CommitRequest {
                    location,
                    options,
                    base: None,
                    keep,
                };
                commit_image(image, &request, &mut Job::new())
            }
            Layers::Rebase { compress } if may_change => {
                let request = RebaseRequest {
                    location,
                    options,
                    backing: None,
                    backing_format: None,
                    backing_cache: CacheMode::Writeback,
                    share_backing: false,
                    name_only: false,
                    compress,
                };
                rebase_image(image, &request, &mut Job::new())
            }
            _ => return image.close().is_ok(),
        };
        // One that failed shows what it did, and was not closed in peace.
        done.is_ok()
    }
}

impl Edit {
    /// Edits a file that has structures at these places.
    pub fn apply(&self, big_endian: bool, places: &[u64], file: &mut Pages) {
        let place = |at: u16| match places.len() {
            0 => 0,
            count => places[usize::from(at) % count],
        };
        let turned = |bytes: &mut [u8]| {
            if big_endian {
                bytes.reverse();
            }
        };
        match self {
            Self::Word { at, value } => {
                let mut bytes = value.to_le_bytes();
                turned(&mut bytes);
                file.put(&bytes, place(*at));
            }
            Self::Wide { at, value } => {
                let mut bytes = value.to_le_bytes();
                turned(&mut bytes);
                file.put(&bytes, place(*at));
            }
            Self::Add {
                at,
                wide,
                by,
                shift,
            } => {
                let mut bytes = [0; 8];
                let len = if *wide { 8 } else { 4 };
                file.read(&mut bytes[..len], place(*at));
                turned(&mut bytes[..len]);
                let by = (i64::from(*by) as u64) << (shift % 64);
                let mut sum = u64::from_le_bytes(bytes).wrapping_add(by).to_le_bytes();
                turned(&mut sum[..len]);
                file.put(&sum[..len], place(*at));
            }
            Self::Copy { from, to, words } => {
                let mut bytes = [0; 64];
                let len = (usize::from(*words) % 16 + 1) * 4;
                file.read(&mut bytes[..len], place(*from));
                file.put(&bytes[..len], place(*to));
            }
            Self::Bit { at, bit } => {
                let mut bytes = file.get::<4>(place(*at));
                bytes[usize::from(bit / 8 % 4)] ^= 1 << (bit % 8);
                file.put(&bytes, place(*at));
            }
            Self::Bytes { at, skip, bytes } => file.put(bytes, place(*at) + u64::from(*skip)),
            Self::Cut { sectors, bytes } => {
                let len = u64::from(*sectors) * SECTOR as u64 + u64::from(*bytes);
                if len < file.len() {
                    file.set_len(len);
                }
            }
            Self::Grow { bytes } => file.set_len(file.len() + u64::from(*bytes)),
        }
    }
}

/// The guest bytes of an image, as far as its history is certain.
struct Guest<'a> {
    base: &'a Base,
    model: Option<Vec<u8>>,
}

impl Guest<'_> {
    /// An open image; how it ends is not known yet.
    fn new<'a>(base: &'a Base, image: &Image) -> Guest<'a> {
        let mut model = vec![0; image.len().min(COMPARED) as usize];
        let whole = image.len() <= COMPARED && image.read_at(&mut model, 0).is_ok();
        Guest {
            base,
            model: whole.then_some(model),
        }
    }

    /// Carries out a change; where that fails it is not certain any more what is there.
    fn change(&mut self, image: &Image, change: &Change) {
        let done = change.apply(image);
        let Some(model) = &mut self.model else {
            return;
        };
        let sample = &self.base.sample;
        let noted =
            done.and_then(|()| change.note(image, model, |at| shelf::base_byte(sample, at)));
        if noted.is_err() {
            self.model = None;
        }
    }

    /// Writes the unit at an offset compressed.
    fn compress(&mut self, image: &Image, at: u64, byte: u8) {
        let Some(compressor) = image.compressor() else {
            return;
        };
        let unit = u64::from(compressor.encode_unit());
        let start = at - at % unit.max(1);
        let end = (start + unit).min(image.len());
        if unit == 0 || end - start > COMPARED {
            return;
        }
        // Some of it does not compress.
        let byte_at = |at: u64| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8;
        let bytes: Vec<u8> = (start..end)
            .map(|at| if at % 512 < 32 { byte_at(at) } else { byte })
            .collect();
        let done = compressor.write_compressed(&bytes, start);
        let range = start as usize..end as usize;
        match self.model.as_mut().and_then(|model| model.get_mut(range)) {
            Some(model) if done.is_ok() => model.copy_from_slice(&bytes),
            _ => self.model = None,
        }
    }

    fn resize(&mut self, image: &Image, sectors: i16) {
        let by = i64::from(sectors) * self.base.sample.sector as i64;
        let Some(len) = image.len().checked_add_signed(by) else {
            return;
        };
        if image.resize(len, Preallocation::Off).is_err() {
            return;
        }
        match &mut self.model {
            Some(model) if len <= COMPARED => model.resize(len as usize, 0),
            model => *model = None,
        }
    }

    fn step(&mut self, image: &Image, step: &Step) {
        let len = image.len();
        let range = |at: u32, count: u32| {
            // Of a large disk also the end.
            let from = if at % 2 == 0 {
                0
            } else {
                len.saturating_sub(COMPARED)
            };
            let start = from + u64::from(at) % (len - from).clamp(1, COMPARED);
            start..(start + 1 + u64::from(count) % (32 << 10)).min(len)
        };
        if len == 0 && !matches!(step, Step::Resize { .. }) {
            return;
        }
        match *step {
            Step::Write { at, len, byte } => {
                let range = range(at, len);
                let bytes = vec![byte; (range.end - range.start) as usize];
                self.change(image, &Change::Write(range.start, bytes));
            }
            Step::Zero { at, len, unmap } => {
                self.change(image, &Change::Zero(range(at, len), unmap));
            }
            Step::Discard { at, len } => self.change(image, &Change::Discard(range(at, len))),
            Step::Compress { at, byte } => self.compress(image, range(at, 0).start, byte),
            Step::Resize { sectors } => self.resize(image, sectors),
            Step::Flush | Step::Reopen => {
                if image.flush().is_err() {
                    self.model = None;
                }
            }
        }
    }

    /// The image holds what the guest has written.
    fn compare(&self, image: &Image) {
        if let Some(model) = &self.model {
            assert_eq!(image.len(), model.len() as u64, "the length");
            let bytes = shelf::contents(image).expect("a read");
            if bytes != *model {
                same("the disk", &bytes, model);
            }
        }
    }
}

/// Opens, closes and changes; `certain` says that the image was found to be clean, so that nothing may be
/// lost in it.
fn write(
    base: &Base,
    files: &[Arc<dyn Storage>],
    (steps, layers): (&[Step], Layers),
    certain: bool,
) {
    let Ok(mut image) = base.open(files, Access::Write) else {
        return;
    };
    let mut guest = Guest::new(base, &image);
    if !certain {
        guest.model = None;
    }
    for step in steps.iter().take(MOST) {
        guest.step(&image, step);
        if matches!(step, Step::Reopen) {
            if image.close().is_err() {
                return;
            }
            image = match base.open(files, Access::Write) {
                Ok(image) => image,
                Err(error) => {
                    assert!(guest.model.is_none(), "it does not open again: {error}");
                    return;
                }
            };
        }
    }
    guest.compare(&image);
    if !base.end(files, image, layers) || guest.model.is_none() {
        return;
    }
    let image = base.open(files, Access::Check).expect("it opens again");
    guest.compare(&image);
    let code = check_image(&image, RepairMode::Report);
    // The place of a compressed cluster cannot be used again where nothing counts what names it.
    let packs = steps
        .iter()
        .any(|step| matches!(step, Step::Compress { .. }));
    let wastes = packs && image.driver().name == "qcow";
    let fine = matches!(code, None | Some(0)) || wastes && code == Some(3);
    assert!(fine, "it is not clean: {code:?}");
}

/// A target: a format and its images, which are made once.
pub struct Target {
    kind: Kind,
    bases: OnceLock<Vec<Base>>,
}

impl Target {
    /// One of a format.
    pub const fn new(kind: Kind) -> Self {
        Self {
            kind,
            bases: OnceLock::new(),
        }
    }

    /// One run.
    pub fn run(&self, case: &Case) {
        let bases = self.bases.get_or_init(|| Base::all(&self.kind));
        let base = &bases[usize::from(case.base) % bases.len()];
        let mut pages = base.files.clone();
        let which = usize::from(case.second && !base.places[1].is_empty());
        for edit in case.edits.iter().take(MOST) {
            edit.apply(self.kind.big_endian, &base.places[which], &mut pages[which]);
        }
        if case.unsealed % 16 != 1 {
            (self.kind.seal)(&mut pages[which]);
        }
        if let Ok(image) = base.open(&memory(&pages), Access::Read) {
            look_at(&image);
        }
        inspect_file(memory(&pages).swap_remove(0), Some(self.kind.format));
        let changes = (case.steps.as_slice(), case.layers);
        write(base, &memory(&pages), changes, false);
        let files = memory(&pages);
        let Ok(image) = base.open(&files, Access::Check) else {
            return;
        };
        let code = check_image(&image, RepairMode::All);
        if image.close().is_err() || code != Some(0) {
            return;
        }
        let image = base
            .open(&files, Access::Check)
            .expect("what was repaired opens");
        let code = check_image(&image, RepairMode::Report);
        assert_eq!(code, Some(0), "what was repaired is clean");
        drop(image);
        write(base, &files, changes, true);
    }
}
