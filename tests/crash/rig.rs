//! Opening and creating images over any storage, and the bytes below them.

use std::path::Path;
use std::sync::{Arc, Mutex};

use bstr::BStr;
use platter::error::{Error, Result};
use platter::format::{
    BackingRef, Below, Bulk, CheckReport, CreateParams, FilesBelow, Format, NewParent, OpenContext,
    Opener, PrepareContext, RepairMode, registry,
};
use platter::job::Message;
use platter::object::Objects;
use platter::options::Values;
use platter::policy::{ImplicitRole, OpenPolicy};
use platter::secret::Secret;
use platter::storage::memory::MemoryStorage;
use platter::storage::{Durability, NamedStorages, Storage, StorageOpen};
use platter::{Job, Options};

use crate::configs::Config;

/// A sector of the model.
pub const SECTOR: usize = 512;
/// The names of an image's own files: itself, and its data file or first extent if it has one.
pub const FILES: [&str; 2] = ["image", "data"];

/// The bytes below an overlay: each sector holds its own tag, up to this offset.
pub struct Base(pub u64);

/// The tag of a sector below an overlay.
pub fn base_tag(sector: usize) -> u64 {
    0xBA5E_0000_0000 + sector as u64
}

/// A sector full of a tag.
pub fn sector_of(tag: u64) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    for chunk in bytes.chunks_exact_mut(8) {
        chunk.copy_from_slice(&tag.to_le_bytes());
    }
    bytes
}

/// The tag that a sector is full of; None when it is torn.
pub fn tag_of(sector: &[u8]) -> Option<u64> {
    let tag = u64::from_le_bytes(sector[..8].try_into().unwrap());
    sector
        .chunks_exact(8)
        .all(|chunk| chunk == tag.to_le_bytes())
        .then_some(tag)
}

impl Below for Base {
    fn read_below(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let there = self.0.saturating_sub(offset).min(buf.len() as u64) as usize;
        let (mut rest, behind) = buf.split_at_mut(there);
        behind.fill(0);
        let mut at = offset as usize;
        while !rest.is_empty() {
            let (part, next) = rest.split_at_mut(rest.len().min(SECTOR - at % SECTOR));
            let mut tag = base_tag(at / SECTOR).to_le_bytes();
            tag.rotate_left(at % 8);
            for word in part.chunks_mut(8) {
                word.copy_from_slice(&tag[..word.len()]);
            }
            at += part.len();
            rest = next;
        }
        Ok(())
    }

    fn is_zero_below(&self, offset: u64, _len: u64) -> Result<bool> {
        Ok(offset >= self.0)
    }

    fn len_below(&self) -> u64 {
        self.0
    }
}

/// Storages by name.
#[derive(Debug)]
pub struct Shelf(pub Vec<(&'static str, Arc<dyn Storage>)>);

impl NamedStorages for Shelf {
    fn find(&self, name: &Path, _: &StorageOpen) -> Option<Result<Arc<dyn Storage>>> {
        // Extents are named after the image.
        let extent = name.to_str().is_some_and(|name| name.starts_with("image-"));
        let name = if extent { Path::new(FILES[1]) } else { name };
        let found = self.0.iter().find(|(known, _)| Path::new(known) == name);
        found.map(|(_, storage)| Ok(storage.clone()))
    }
}

/// Opens and creates the files that an image names.
struct Files<'a> {
    /// The image's own files, by the names of [`FILES`].
    files: &'a [Arc<dyn Storage>],
    policy: OpenPolicy,
}

impl Files<'_> {
    fn find(&self, name: &BStr) -> Result<Arc<dyn Storage>> {
        let known = FILES.iter().position(|file| *file == name);
        // Extents are named after the image.
        let at = known.or(name.starts_with(b"image-").then_some(1));
        let file = at.and_then(|at| self.files.get(at));
        file.cloned()
            .ok_or_else(|| Error::invalid(format!("'{name}' is not there")))
    }
}

impl Opener for Files<'_> {
    fn open_named(&self, _: ImplicitRole, name: &BStr, _: bool) -> Result<Arc<dyn Storage>> {
        self.find(name)
    }

    fn files_below(&self, _: ImplicitRole, _: &BStr) -> Result<Arc<dyn FilesBelow>> {
        Err(Error::invalid("There are no directories"))
    }

    fn child(&self, _: &str, _: bool) -> Result<Option<Arc<dyn Storage>>> {
        Ok(None)
    }

    fn has_child(&self, _: &str) -> bool {
        false
    }

    fn policy(&self) -> &OpenPolicy {
        &self.policy
    }
}

fn files(files: &[Arc<dyn Storage>]) -> Files<'_> {
    let policy = OpenPolicy {
        // So little that slices are evicted and written early.
        max_cache_bytes: 32 << 10,
        ..OpenPolicy::strict()
    };
    Files { files, policy }
}

/// The secret `s` of encrypted images.
pub fn objects() -> Objects {
    let mut objects = Objects::new();
    objects
        .add_secret("s", Secret::new("correct horse"))
        .unwrap();
    objects
}

/// Empty files for an image.
pub fn empty_files(config: &Config) -> Vec<Arc<dyn Storage>> {
    let count = config.files();
    let memory = |name: &&str| Arc::new(MemoryStorage::new(*name)) as Arc<dyn Storage>;
    FILES[..count].iter().map(memory).collect()
}

/// Files of memory with these bytes.
pub fn memory(bytes: &[Vec<u8>]) -> Vec<Arc<dyn Storage>> {
    let file = |(name, bytes): (&&str, &Vec<u8>)| {
        Arc::new(MemoryStorage::with_bytes(*name, bytes.clone())) as Arc<dyn Storage>
    };
    FILES.iter().zip(bytes).map(file).collect()
}

/// The bytes of files.
pub fn bytes_of(files: &[Arc<dyn Storage>]) -> Vec<Vec<u8>> {
    let read = |file: &Arc<dyn Storage>| {
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        bytes
    };
    files.iter().map(read).collect()
}

/// A new image that is to be made.
pub struct New<'a> {
    pub format: &'a str,
    pub options: &'a str,
    pub len: u64,
    /// Name and format.
    pub backing: Option<(&'a str, &'a str)>,
}

impl New<'_> {
    /// Starts the image in `storages`, fills it with `fill`, and finishes it.
    pub fn create(
        &self,
        storages: &[Arc<dyn Storage>],
        durability: Durability,
        fill: impl FnOnce(&dyn Bulk) -> Result<()>,
    ) -> Result<()> {
        self.create_over(None, storages, durability, fill)
    }

    /// The same over a parent that is known.
    pub fn create_over(
        &self,
        parent: Option<NewParent>,
        storages: &[Arc<dyn Storage>],
        durability: Durability,
        fill: impl FnOnce(&dyn Bulk) -> Result<()>,
    ) -> Result<()> {
        let driver = registry::by_name(self.format).unwrap();
        let mut options = Options::new();
        if !self.options.is_empty() {
            options = Options::parse(self.options).unwrap();
        }
        let values = Values::check(&options, driver.create_options).unwrap();
        let backing = self.backing.map(|(name, format)| BackingRef {
            name: name.into(),
            format: Some(format.into()),
        });
        let plan = driver.create.unwrap();
        let mut new = plan(&CreateParams {
            name: Some(FILES[0].into()),
            size: self.len,
            values: &values,
            backing: backing.as_ref(),
        })?;
        let control = Arc::<platter::job::JobControl>::default();
        new.prepare(&PrepareContext {
            objects: &objects(),
            parent,
            control: &control,
        })?;
        let bulk = new.start(storages, &control)?;
        fill(&*bulk)?;
        bulk.finish(durability)
    }
}

/// The bytes of the files of a new image.
pub fn new_image(config: &Config) -> Vec<Vec<u8>> {
    let files = empty_files(config);
    let create = config.new_image();
    let create = create.create_over(config.parent(), &files, Durability::None, |_| Ok(()));
    create.unwrap();
    bytes_of(&files)
}

/// How an image is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Write,
    /// For `check`, without repair.
    Check,
    /// For `check -r`.
    Repair,
}

/// Opens an image of a kind.
pub fn open(
    config: &Config,
    storages: &[Arc<dyn Storage>],
    durability: Durability,
    access: Access,
) -> Result<Box<dyn Format>> {
    let driver = registry::by_name(config.format).unwrap();
    let given = match access {
        Access::Check => [config.opening, config.after_crash].join(","),
        Access::Write | Access::Repair => config.opening.to_owned(),
    };
    let given = match given.trim_matches(',') {
        "" => Options::new(),
        given => Options::parse(given).unwrap(),
    };
    let values = Values::check(&given, driver.open_options).unwrap();
    (driver.open)(OpenContext {
        compression_level: None,
        storage: storages[0].clone(),
        read_only: access == Access::Check,
        metadata_only: false,
        probed: None,
        for_check: access != Access::Write,
        durability,
        options: &values,
        objects: &objects(),
        opener: &files(storages),
        warn: &|_| (),
        control: &Arc::default(),
    })
}

/// Reads guest bytes the way an image does: by extents, with the bytes below.
pub fn read(format: &dyn Format, buf: &mut [u8], offset: u64, below: &Base) -> Result<()> {
    use platter::extent::ExtentKind;
    let _held = format.begin_io();
    let mut done = 0;
    while done < buf.len() {
        let at = offset + done as u64;
        let extent = format.map(at, (buf.len() - done) as u64)?;
        let part = &mut buf[done..done + extent.len as usize];
        match extent.kind {
            ExtentKind::Data { slot, host_offset } => {
                format.storage(slot)?.read_at(part, host_offset)?;
            }
            ExtentKind::Zero { .. } => part.fill(0),
            ExtentKind::Unallocated { .. } => below.read_below(part, at)?,
            ExtentKind::Encoded { .. } => format.read_encoded(part, at)?,
        }
        done += extent.len as usize;
    }
    Ok(())
}

/// The tags of all sectors.
pub fn read_tags(format: &dyn Format, below: &Base) -> Result<Vec<Option<u64>>> {
    let mut bytes = vec![0; format.len() as usize];
    read(format, &mut bytes, 0, below)?;
    Ok(bytes.chunks_exact(SECTOR).map(tag_of).collect())
}

/// Checks an image; the report and the findings. One without a check has none.
pub fn check(format: &dyn Format, mode: RepairMode) -> Result<(CheckReport, Vec<String>)> {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let sink = notes.clone();
    let mut job = Job::new().on_message(Box::new(move |message| {
        if let Message::Note(line) = message {
            sink.lock().unwrap().push(line.clone());
        }
    }));
    let checked = format
        .checker()
        .map(|checker| checker.check(mode, &mut job));
    let report = checked.transpose()?.unwrap_or_default();
    drop(job);
    let notes = std::mem::take(&mut *notes.lock().unwrap());
    Ok((report, notes))
}
