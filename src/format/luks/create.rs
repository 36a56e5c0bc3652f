//! Creating LUKS volumes.

use std::io::IoSlice;
use std::sync::Arc;

use crate::codec::Encoder;
use crate::crypto::luks::{HeaderIo, NewVolume, required_header_len};
use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageSlot;
use crate::format::crypt::{CipherOptions, HeaderArea, OPTION_ITER_TIME, parse_cipher_options};
use crate::format::driver::{self, not_prepared, outlined_preallocation, own_file};
use crate::format::{
    Bulk, CreateParams, InitialContent, NewImage, PlannedFile, PrepareContext, Reserved,
};
use crate::format::{Contents, Measured, Outline};
use crate::job::JobControl;
use crate::memory::{self, IoBuf};
use crate::options::{OptionKind, OptionSpec, Values, option};
use crate::storage::crypt::CryptStorage;
use crate::storage::{Durability, Preallocation, Storage, ZeroFlags, grow, set_len_or_fit};

/// Magic and version.
const MAGIC_LEN: usize = 8;

pub(super) const OPTIONS: &[OptionSpec] = &[
    option(
        "cipher-alg",
        OptionKind::Str,
        "Name of encryption cipher algorithm",
    ),
    option(
        "cipher-mode",
        OptionKind::Str,
        "Name of encryption cipher mode",
    ),
    option(
        "detached-header",
        OptionKind::Bool,
        "Create a detached LUKS header",
    ),
    option(
        "hash-alg",
        OptionKind::Str,
        "Name of encryption hash algorithm",
    ),
    option("iter-time", OptionKind::Num, OPTION_ITER_TIME),
    option(
        "ivgen-alg",
        OptionKind::Str,
        "Name of IV generator algorithm",
    ),
    option(
        "ivgen-hash-alg",
        OptionKind::Str,
        "Name of IV generator hash algorithm",
    ),
    option(
        "key-secret",
        OptionKind::Str,
        "ID of the secret that provides the keyslot passphrase",
    ),
    option("size", OptionKind::Size, "Virtual disk size"),
];

fn preallocation(values: &Values) -> Result<Preallocation> {
    match driver::preallocation(values) {
        // There are no tables.
        Ok(Preallocation::Metadata) => Ok(Preallocation::Off),
        Ok(mode) => Ok(mode),
        Err(word) => Err(Error::refused_value("preallocation", word)),
    }
}

/// Whether a header is to be created without a payload.
fn is_detached(values: &Values) -> bool {
    values.bool("detached-header").unwrap_or(false)
}

fn key_secret(values: &Values) -> Result<&str> {
    values.str("key-secret").ok_or_else(|| {
        Error::new(
            ErrorKind::NeedsSecret,
            "Parameter 'key-secret' is required for cipher",
        )
    })
}

pub(super) fn outline(values: &Values) -> Outline {
    Outline {
        encrypted: true,
        preallocation: outlined_preallocation(values),
        size_is_optional: is_detached(values),
        ..Outline::default()
    }
}

/// All of the payload is allocated: unwritten data decrypts to noise.
pub(super) fn measure(params: &CreateParams<'_>, _: &mut Contents<'_>) -> Result<Measured> {
    let values = params.values;
    preallocation(values)?;
    key_secret(values)?;
    let options = parse_cipher_options(values, "")?;
    let payload = if is_detached(values) { 0 } else { params.size };
    let total = required_header_len(&options.cipher)
        .checked_add(payload)
        .ok_or_else(|| Error::new(ErrorKind::Limit, "The image is too large for a file"))?;
    Ok(Measured {
        required: total,
        fully_allocated: total,
        bitmaps: None,
    })
}

pub(super) fn plan(params: &CreateParams<'_>) -> Result<Box<dyn NewImage>> {
    let values = params.values;
    let preallocation = preallocation(values)?;
    let options = parse_cipher_options(values, "")?;
    let secret = key_secret(values)?.to_owned();
    let detached = is_detached(values);
    // A detached header does not record the size of the payload.
    let size = if detached { 0 } else { params.size };
    let end = required_header_len(&options.cipher)
        .checked_add(size)
        .ok_or_else(|| Error::new(ErrorKind::Limit, "The image is too large for a file"))?;
    Ok(Box::new(NewLuks {
        options,
        secret,
        preallocation,
        size,
        end,
        detached,
        volume: None,
    }))
}

/// A volume to be created.
#[derive(Debug)]
struct NewLuks {
    options: CipherOptions,
    /// ID of the secret.
    secret: String,
    preallocation: Preallocation,
    size: u64,
    /// Length of the file.
    end: u64,
    /// Only a header is created.
    detached: bool,
    /// Its keys, once they have been generated.
    volume: Option<NewVolume>,
}

impl NewImage for NewLuks {
    fn files(&self) -> Vec<PlannedFile> {
        vec![PlannedFile::own(self.end)]
    }

    fn prepare(&mut self, context: &PrepareContext<'_>) -> Result<()> {
        let passphrase = context.objects.secret_text(&self.secret)?;
        let volume = NewVolume::new(
            &self.options,
            self.detached,
            passphrase.bytes(),
            context.control,
        )?;
        self.volume = Some(volume);
        Ok(())
    }

    fn start(
        mut self: Box<Self>,
        files: &[Arc<dyn Storage>],
        control: &Arc<JobControl>,
    ) -> Result<Box<dyn Bulk>> {
        let storage = own_file(files)?.clone();
        let new = self.volume.take().ok_or_else(not_prepared)?;
        let payload = new.header_len();
        if storage.limits().fixed_len {
            set_len_or_fit(&*storage, self.end, self.preallocation)?;
        } else {
            grow(&*storage, self.end, self.preallocation, control)?;
        }
        let volume = new.write(&Unfinished(HeaderArea::new(storage.clone(), 0)))?;
        let plain: Arc<dyn Storage> = Arc::new(CryptStorage::new(
            storage.clone(),
            payload,
            volume.cipher_handle(),
        ));
        let magic = volume.header().to_bytes()[..MAGIC_LEN].to_vec();
        Ok(Box::new(LuksBulk {
            storage,
            plain,
            magic,
            size: self.size,
            detached: self.detached,
        }))
    }
}

/// The header area of a volume that is not a valid image yet: the magic is written last.
struct Unfinished(HeaderArea);

impl HeaderIo for Unfinished {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read(buf, offset)
    }

    fn write(&self, buf: &[u8], offset: u64) -> Result<()> {
        let mut bytes = memory::copied(buf)?;
        for (byte, _) in bytes.iter_mut().zip(offset..MAGIC_LEN as u64) {
            *byte = 0;
        }
        self.0.write(&bytes, offset)
    }

    fn sync(&self) -> Result<()> {
        self.0.sync()
    }
}

/// A new volume that is being filled.
#[derive(Debug)]
struct LuksBulk {
    storage: Arc<dyn Storage>,
    plain: Arc<dyn Storage>,
    magic: Vec<u8>,
    size: u64,
    /// There is only a header.
    detached: bool,
}

impl LuksBulk {
    fn inside(&self, offset: u64, len: u64) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size => Ok(()),
            _ if self.detached => Err(Error::invalid(
                "A detached header takes no data; create it, then convert into an existing image that \
                 is opened with it",
            )),
            _ => Err(Error::past_new_disk()),
        }
    }
}

impl Bulk for LuksBulk {
    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        match slot {
            StorageSlot::MAIN => Ok(&self.storage),
            _ => Err(Error::new(ErrorKind::Internal, "A LUKS image is one file")),
        }
    }

    fn data_storages(&self) -> Vec<&Arc<dyn Storage>> {
        vec![&self.storage]
    }

    fn takes_raw_writes(&self) -> bool {
        false
    }

    fn write_data(
        &self,
        (_, host): (StorageSlot, u64),
        _guest_offset: u64,
        bufs: &[IoSlice<'_>],
    ) -> Result<()> {
        self.plain.write_vectored_at(bufs, host)
    }

    fn write_zero_data(
        &self,
        (_, host): (StorageSlot, u64),
        _guest_offset: u64,
        len: u64,
    ) -> Result<()> {
        self.plain.write_zeroes(host, len, ZeroFlags::empty())
    }

    fn encode_unit(&self) -> Option<u32> {
        None
    }

    fn zero_unit(&self) -> u32 {
        512
    }

    fn alignment(&self) -> u64 {
        512
    }

    fn initial_content(&self) -> InitialContent {
        // Unwritten data decrypts to noise.
        InitialContent {
            unreserved_is_zero: false,
            unwritten_is_zero: false,
        }
    }

    fn encode(
        &self,
        _scratch: &mut Encoder,
        _guest_offset: u64,
        _unit: &[u8],
        _out: &mut IoBuf,
    ) -> Result<bool> {
        Err(Error::no_compression())
    }

    fn reserve(&self, guest_offset: u64, len: u64) -> Result<Reserved> {
        self.inside(guest_offset, len)?;
        Ok(Reserved {
            slot: StorageSlot::MAIN,
            offset: guest_offset,
            len,
        })
    }

    fn reserve_encoded(&self, _guest_offset: u64, _encoded_len: u32) -> Result<(StorageSlot, u64)> {
        Err(Error::no_compression())
    }

    fn reserve_zero(&self, guest_offset: u64, len: u64) -> Result<()> {
        // Unwritten data decrypts to noise, so zeroes are written too.
        self.inside(guest_offset, len)?;
        self.plain
            .write_zeroes(guest_offset, len, ZeroFlags::empty())
    }

    fn finish(&self, durability: Durability) -> Result<()> {
        self.storage.sync(durability)?;
        self.storage.write_at(&self.magic, 0)?;
        self.storage.sync(durability)
    }
}
