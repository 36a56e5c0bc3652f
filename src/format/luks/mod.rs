//! LUKS version 1: an encrypted disk preceded by a header with key slots.
//! Specification: LUKS On-Disk Format 1.2.3.

mod amend;
mod create;
mod inspect;

use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bstr::BString;
use parking_lot::Mutex;

use crate::crypto::luks::{Header, Volume};
use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::format::crypt::{HeaderArea, check_work, header_info};
use crate::format::unstated::of;
use crate::format::{
    Amend, Below, ChildSpec, Features, FileRole, FlushPlan, Format, FormatDriver, FormatFile,
    FormatInfo, FormatWrite, Immediate, IoGuard, LongIoGuard, OpenContext, Resize, Signature,
};
use crate::job::JobControl;
use crate::options::{OptionKind, OptionSpec};
use crate::storage::crypt::CryptStorage;
use crate::storage::{Durability, Preallocation, Storage, ZeroFlags, grow};

/// The LUKS format.
pub static DRIVER: FormatDriver = FormatDriver {
    name: "luks",
    of_images: Features::WRITE.union(Features::RESIZE),
    signature: Some(Signature {
        rank: 90,
        fits: |file| file.starts(b"LUKS\xba\xbe\0\x01"),
        footer: None,
    }),
    has_metadata: false,
    is_transparent: false,
    is_stream: false,
    children: &[ChildSpec::FILE, ChildSpec::HEADER],
    open,
    read_in_order: None,
    inspect: inspect::inspect,
    create: Some(create::plan),
    outline: create::outline,
    measure: Some(create::measure),
    create_options: create::OPTIONS,
    unstated: &[of("detached-header", "off")],
    own_options: &[],
    summary: &[
        ("size", None),
        ("key-secret", None),
        ("cipher-alg", None),
        ("cipher-mode", None),
        ("ivgen-alg", None),
        ("ivgen-hash-alg", None),
        ("hash-alg", None),
        ("iter-time", None),
        ("detached-header", None),
    ],
    amend_options: amend::OPTIONS,
    open_options: &[OptionSpec {
        name: "key-secret",
        kind: OptionKind::Str,
        help: "ID of the secret that provides the keyslot passphrase",
        default: None,
        allowed: &[],
    }],
    secret_option: Some("key-secret"),
    strong_options: &["key-secret"],
    events: &[],
};

/// An open volume; without a secret, only its header is available.
#[derive(Debug)]
struct Luks {
    storage: Arc<dyn Storage>,
    /// The file of the header, if it is detached.
    header_file: Option<Arc<dyn Storage>>,
    header: Mutex<Header>,
    /// The ID of the secret that opened the volume.
    secret_id: Option<String>,
    plain: Option<Arc<dyn Storage>>,
    len: AtomicU64,
    payload_offset: u64,
    writable: bool,
}

/// The option that names the secret.
const KEY_SECRET: &str = "key-secret";

fn needs_secret() -> Error {
    Error::needs_secret(KEY_SECRET)
}

fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    let storage = context.storage;
    let header_file = context
        .opener
        .child(ChildSpec::HEADER.name, !context.read_only)?;
    let area = HeaderArea::new(header_file.as_ref().unwrap_or(&storage).clone(), 0);
    let mut secret_id = None;
    let (header, plain) = if context.metadata_only {
        (Volume::read_header(&area)?, None)
    } else {
        let id = context.options.str(KEY_SECRET).ok_or_else(needs_secret)?;
        let header = Volume::read_header(&area)?;
        check_place(&header, header_file.is_some())?;
        check_work(&header, context.opener.policy())?;
        let volume = Volume::unlock(&area, context.objects.secret(id)?.bytes(), context.control)?;
        secret_id = Some(id.to_owned());
        let payload = volume.header().payload_offset();
        let crypt = CryptStorage::new(storage.clone(), payload, volume.cipher_handle());
        (header, Some(Arc::new(crypt) as Arc<dyn Storage>))
    };
    check_place(&header, header_file.is_some())?;
    let payload_offset = header.payload_offset();
    let len = storage.len()?.checked_sub(payload_offset).ok_or_else(|| {
        Error::corrupt("LUKS payload starts past the end of the file").with_offset(payload_offset)
    })?;
    Ok(Box::new(Luks {
        // The missing part of a last, partial sector reads as zeroes, and is decrypted with it.
        len: AtomicU64::new(len.next_multiple_of(512)),
        writable: !context.read_only && !storage.read_only(),
        storage,
        header_file,
        header: Mutex::new(header),
        secret_id,
        plain,
        payload_offset,
    }))
}

/// The location of the payload must match that of the header.
fn check_place(header: &Header, detached: bool) -> Result<()> {
    if !detached && header.payload_offset() == 0 {
        return Err(Error::corrupt("LUKS payload is overlapping with the header").with_offset(104));
    }
    Ok(())
}

impl Luks {
    fn plain(&self) -> Result<&Arc<dyn Storage>> {
        self.plain.as_ref().ok_or_else(needs_secret)
    }

    /// The file that begins with the header.
    fn header_storage(&self) -> &Arc<dyn Storage> {
        self.header_file.as_ref().unwrap_or(&self.storage)
    }

    fn writable(&self) -> Result<&Arc<dyn Storage>> {
        if self.writable {
            self.plain()
        } else {
            Err(Error::os(libc::EROFS))
        }
    }
}

impl Format for Luks {
    fn driver(&self) -> &'static str {
        DRIVER.name
    }

    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn cluster_size(&self) -> Option<u32> {
        None
    }

    fn request_alignment(&self) -> u32 {
        512
    }

    fn map(&self, _offset: u64, len: u64) -> Result<Extent> {
        Ok(Extent {
            len,
            kind: ExtentKind::Encoded { compressed: false },
        })
    }

    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        match slot {
            StorageSlot::MAIN => Ok(&self.storage),
            _ => Err(Error::new(ErrorKind::Internal, "A LUKS image is one file")),
        }
    }

    fn visit_files<'a>(&'a self, visit: &mut dyn FnMut(FormatFile<'a>)) {
        visit(FormatFile::own(&self.storage));
        if let Some(header) = &self.header_file {
            visit(FormatFile::header(header));
        }
    }

    fn closed_files(&self) -> Vec<(FileRole, BString)> {
        Vec::new()
    }

    fn read_encoded(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.plain()?.read_at(buf, offset)
    }

    fn begin_io(&self) -> IoGuard<'_> {
        IoGuard::UNGUARDED
    }

    fn info(&self) -> Result<FormatInfo> {
        Ok(FormatInfo {
            encrypted: true,
            specific: Some(header_info(
                &self.header.lock(),
                0,
                self.header_file.is_some(),
            )),
            ..FormatInfo::default()
        })
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }

    fn amender(&self) -> Option<&dyn Amend> {
        Some(self)
    }

    fn writer(&self) -> Option<&dyn FormatWrite> {
        Some(self)
    }

    fn immediate(&self) -> Option<&dyn Immediate> {
        Some(self)
    }
}

impl FormatWrite for Luks {
    fn write(&self, buf: &[u8], offset: u64, _below: &dyn Below) -> Result<()> {
        self.writable()?.write_at(buf, offset)
    }

    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        flags: ZeroFlags,
        _below: &dyn Below,
    ) -> Result<()> {
        self.writable()?.write_zeroes(offset, len, flags)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.writable()?.discard(offset, len)
    }

    fn flush(&self, durability: Durability) -> Result<()> {
        self.storage.sync(durability)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        Some(self)
    }
}

impl Resize for Luks {
    fn resize_above(
        &self,
        len: u64,
        preallocation: Preallocation,
        _: &dyn Below,
        control: &JobControl,
    ) -> Result<()> {
        self.writable()?;
        let end = self
            .payload_offset
            .checked_add(len)
            .ok_or_else(Error::new_size_not_positive)?;
        grow(&*self.storage, end, preallocation, control)?;
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    fn grown_is_zero(&self) -> bool {
        // Unwritten data decrypts to noise.
        false
    }
}

impl Immediate for Luks {
    fn try_locate(&self, offset: u64, len: u64) -> Result<Option<Extent>> {
        self.map(offset, len).map(Some)
    }

    fn try_read_encoded(&self, buf: &mut [u8], offset: u64, may_decode: bool) -> Result<bool> {
        if !may_decode {
            return Ok(false);
        }
        self.plain()?.try_read(&mut [IoSliceMut::new(buf)], offset)
    }

    fn begin_long_io(&self) -> LongIoGuard {
        LongIoGuard::UNGUARDED
    }

    fn overwrites_memory(&self, _offset: u64, _len: u64) -> bool {
        // Encrypting takes time.
        false
    }

    fn in_place_range(&self, _offset: u64, _len: u64) -> Option<(StorageSlot, u64)> {
        None
    }

    fn note_in_place_write(&self, _offset: u64, _len: u64) {}

    fn direct_range(&self, _offset: u64, _len: u64) -> Option<(StorageSlot, u64)> {
        None
    }

    fn flush_plan(&self, durability: Durability) -> FlushPlan {
        FlushPlan::of(StorageSlot::MAIN, self.storage.sync_plan(durability))
    }

    fn note_failed_flush(&self) {
        // The storage remembers it.
    }
}
