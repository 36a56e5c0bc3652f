//! Opening and creating qcow2 images over any storage, and the bytes below them.

use std::sync::Arc;

use platter::error::{Error, Result};
use platter::format::{
    BackingRef, Below, CreateContext, CreateParams, Format, OpenContext, Opener, registry,
};
use platter::options::Values;
use platter::policy::{ImplicitRole, OpenPolicy};
use platter::secret::Secrets;
use platter::storage::memory::MemoryStorage;
use platter::storage::{Durability, Storage};
use platter::{Options, storage};

/// One kind of image.
pub struct Config {
    pub name: &'static str,
    pub options: &'static str,
    /// It names a backing file whose bytes are [`Base`].
    pub overlay: bool,
}

/// Guest bytes of an image.
pub const SIZE: u64 = 512 << 10;
/// A sector of the model.
pub const SECTOR: usize = 512;

/// The bytes below an overlay: each sector holds its own tag.
pub struct Base(pub bool);

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

impl Below for Base {
    fn read_below(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        for (i, byte) in buf.iter_mut().enumerate() {
            let at = offset as usize + i;
            let inside = self.0 && (at as u64) < SIZE;
            *byte = if inside {
                base_tag(at / SECTOR).to_le_bytes()[at % 8]
            } else {
                0
            };
        }
        Ok(())
    }

    fn is_zero_below(&self, offset: u64, _len: u64) -> Result<bool> {
        Ok(!self.0 || offset >= SIZE)
    }
}

struct NoFiles(OpenPolicy);

impl Opener for NoFiles {
    fn open_named(&self, _: ImplicitRole, name: &str, _: bool) -> Result<Arc<dyn Storage>> {
        Err(Error::invalid(format!("'{name}' is not there")))
    }

    fn create_named(&self, _: ImplicitRole, name: &str) -> Result<Arc<dyn Storage>> {
        Err(Error::invalid(format!("'{name}' cannot be created")))
    }

    fn policy(&self) -> &OpenPolicy {
        &self.0
    }
}

/// The bytes of a new image.
pub fn new_image(config: &Config) -> Vec<u8> {
    let driver = registry::by_name("qcow2").unwrap();
    let values = Values::check(
        &Options::parse(config.options).unwrap(),
        driver.create_options,
    )
    .unwrap();
    let memory = Arc::new(MemoryStorage::new("new"));
    let backing = BackingRef {
        name: "base".into(),
        format: Some("raw".into()),
    };
    let create = driver.create.unwrap();
    create(CreateContext {
        storage: memory.clone(),
        params: CreateParams {
            size: SIZE,
            asked_size: SIZE,
            values: &values,
            backing: config.overlay.then_some(&backing),
        },
        secrets: &Secrets::new(),
        opener: &NoFiles(OpenPolicy::strict()),
    })
    .unwrap()
    .finish(Durability::None)
    .unwrap();
    memory.to_vec()
}

/// Opens an image for reading and writing.
pub fn open(storage: Arc<dyn Storage>, durability: Durability) -> Result<Box<dyn Format>> {
    open_as(storage, durability, false)
}

/// Opens an image for `check`, read-only.
pub fn open_for_check(bytes: Vec<u8>) -> Result<Box<dyn Format>> {
    let storage: Arc<dyn storage::Storage> = Arc::new(MemoryStorage::with_bytes("crashed", bytes));
    open_as(storage, Durability::None, true)
}

fn open_as(
    storage: Arc<dyn Storage>,
    durability: Durability,
    for_check: bool,
) -> Result<Box<dyn Format>> {
    let driver = registry::by_name("qcow2").unwrap();
    (driver.open)(OpenContext {
        storage,
        read_only: for_check,
        metadata_only: false,
        probed: false,
        for_check,
        durability,
        options: &Values::default(),
        secrets: &Secrets::new(),
        opener: &NoFiles(OpenPolicy::strict()),
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
