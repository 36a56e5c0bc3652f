//! Images whose files are storages of the test: in memory, logging or failing.

use std::path::Path;
use std::sync::Arc;

use platter::ops::create::{CreatePlan, CreateRequest};
use platter::storage::memory::MemoryStorage;
use platter::storage::{CacheMode, NamedStorages, Storage, StorageOpen};
use platter::{Image, Job, Location, OpenOptions, OpenPolicy, Options, Result};

use super::sample::{Sample, objects};

/// The names of the files of a sample: the image, its data file, its backing file.
pub const FILES: [&str; 3] = ["image", "data", "base"];

/// Storages under the names of [`FILES`].
#[derive(Debug)]
pub struct Shelf(pub Vec<Arc<dyn Storage>>);

impl NamedStorages for Shelf {
    fn find(&self, name: &Path, _: &StorageOpen) -> Option<Result<Arc<dyn Storage>>> {
        let known = FILES.iter().position(|known| Path::new(known) == name);
        // Extents are named after the image.
        let extent = name.to_str().is_some_and(|name| name.starts_with("image-"));
        let at = known.or(extent.then_some(1))?;
        Some(Ok(self.0.get(at)?.clone()))
    }
}

/// The byte below an overlay at an offset; the backing file is shorter than the image.
pub fn base_byte(sample: &Sample, offset: u64) -> u8 {
    if sample.overlay && offset < base_len(sample) {
        (offset / 512 % 251) as u8 + 1
    } else {
        0
    }
}

fn base_len(sample: &Sample) -> u64 {
    sample.size / 2 / 512 * 512
}

/// The bytes below an overlay; zeroes for any other.
fn below(sample: &Sample) -> Vec<u8> {
    let mut bytes = vec![0; base_len(sample) as usize];
    for (n, sector) in (0..).zip(bytes.chunks_mut(512)) {
        sector.fill(base_byte(sample, n * 512));
    }
    bytes
}

/// The guest bytes of an empty image.
pub fn empty(sample: &Sample) -> Vec<u8> {
    let mut bytes = below(sample);
    bytes.resize(sample.size as usize, 0);
    bytes
}

/// The file that is the backing file.
pub fn base(sample: &Sample) -> Vec<u8> {
    let bytes = below(sample);
    if sample.base_format == "raw" {
        return bytes;
    }
    let plain = Sample {
        overlay: false,
        options: "",
        opening: "",
        second: None,
        size: base_len(sample),
        ..*sample
    };
    let files = memory(&[Vec::new(), Vec::new(), Vec::new()]);
    create(&plain, &files).expect("a backing file");
    let image = open(&plain, &files, Access::Write).expect("the backing file opens");
    image.write_at(&bytes, 0).expect("a write");
    image.close().expect("a close");
    self::bytes(&files).swap_remove(0)
}

/// No file in memory becomes longer.
const MOST: u64 = 512 << 20;

/// Memory with these bytes for each file.
pub fn memory(files: &[Vec<u8>]) -> Vec<Arc<dyn Storage>> {
    let one = |(name, bytes): (&&str, &Vec<u8>)| {
        let memory = MemoryStorage::with_bytes(*name, bytes.clone());
        Arc::new(memory.limited_to(MOST)) as Arc<dyn Storage>
    };
    FILES.iter().zip(files).map(one).collect()
}

/// The bytes of each file.
pub fn bytes(files: &[Arc<dyn Storage>]) -> Vec<Vec<u8>> {
    let one = |file: &Arc<dyn Storage>| {
        let mut bytes = vec![0; file.len().expect("a length") as usize];
        file.read_at(&mut bytes, 0).expect("a read");
        bytes
    };
    files.iter().map(one).collect()
}

/// The files of a sample before it is created.
pub fn nothing(sample: &Sample) -> Vec<Arc<dyn Storage>> {
    memory(&[Vec::new(), Vec::new(), base(sample)])
}

/// Creates the sample in these files.
pub fn create(sample: &Sample, files: &[Arc<dyn Storage>]) -> Result<()> {
    let options = sample.options(FILES[1]);
    let request = CreateRequest {
        location: Location::from_path(FILES[0]),
        format: sample.format.to_owned(),
        size: Some(sample.size),
        options: match options.as_str() {
            "" => Options::new(),
            options => Options::parse(options)?,
        },
        backing_file: sample.overlay.then(|| FILES[2].into()),
        backing_format: sample.overlay.then(|| sample.base_format.to_owned()),
        backing_unsafe: false,
        exclusive: false,
        objects: objects(),
        policy: OpenPolicy::permissive(),
        storages: Some(Arc::new(Shelf(files.to_vec()))),
    };
    let mut job = Job::new();
    CreatePlan::new(request, &mut job)?.run(&mut job)
}

/// A new image of the sample in memory, whose guest bytes are those of [`empty`].
pub fn created(sample: &Sample) -> Vec<Arc<dyn Storage>> {
    let files = nothing(sample);
    create(sample, &files).unwrap_or_else(|error| panic!("{}: {error}", sample.name));
    if !sample.zeroes_when_new {
        let image = open(sample, &files, Access::Write).expect("the new image opens");
        wipe(&image);
        image.close().expect("a close");
    }
    files
}

/// Writes zeroes everywhere.
pub fn wipe(image: &Image) {
    let zeroes = vec![0; image.len() as usize];
    image.write_at(&zeroes, 0).expect("a write");
}

/// How an image is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read.
    Read,
    /// To read and write.
    Write,
    /// To check.
    Check,
    /// To check and repair.
    Repair,
}

/// Opens the sample in these files.
pub fn open(sample: &Sample, files: &[Arc<dyn Storage>], access: Access) -> Result<Image> {
    let options = OpenOptions {
        writable: matches!(access, Access::Write | Access::Repair),
        for_check: matches!(access, Access::Check | Access::Repair),
        cache: CacheMode::Writeback,
        objects: objects(),
        policy: OpenPolicy::permissive(),
        storages: Some(Arc::new(Shelf(files.to_vec()))),
        ..OpenOptions::default()
    };
    let image = match access {
        Access::Write | Access::Repair => sample.image_opts(FILES[0]),
        Access::Read | Access::Check => sample.reading_opts(FILES[0]),
    };
    Image::open(&Location::from_image_opts(&image)?, &options)
}

/// All guest bytes.
pub fn contents(image: &Image) -> Result<Vec<u8>> {
    let mut bytes = vec![0; image.len() as usize];
    image.read_at(&mut bytes, 0)?;
    Ok(bytes)
}
