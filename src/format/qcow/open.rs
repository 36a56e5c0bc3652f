//! Opening an image.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bstr::BString;
use parking_lot::{Mutex, RwLock};

use crate::bytes::be64;
use crate::codec::{Compression, Method};
use crate::error::{Error, Result};
use crate::format::decoded::DecodedUnits;
use crate::format::inflight::InFlight;
use crate::format::read_ahead::ReadAhead;
use crate::format::table_cache::Cache;
use crate::format::{ChildSpec, Format, IoUsers, OpenContext};
use crate::memory;
use crate::options::{OptionKind, OptionSpec};
use crate::policy::OpenPolicy;
use crate::storage::data_cipher::DataCipher;
use crate::storage::{Durability, Storage, read_exact_at};

use super::Qcow;
use super::disk::{Crypt, HEADER_LEN, Header};
use super::space::Space;

const fn option(name: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec {
        name,
        kind: OptionKind::Str,
        help,
        default: None,
        allowed: &[],
    }
}

/// Open options, sorted by name.
pub(super) const OPTIONS: &[OptionSpec] = &[
    option(
        "encrypt.format",
        "The encryption that the header must name: 'aes'",
    )
    .one_of(&["aes"]),
    option(
        "encrypt.key-secret",
        "ID of the secret that provides the AES encryption key",
    ),
];

/// See [`crate::format::FormatDriver::open`].
pub(super) fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    let header = read_header(&*context.storage)?;
    let cipher = cipher(&header, &context)?;
    let image = build(
        &context.storage,
        header,
        context.opener.policy(),
        How {
            read_only: context.read_only || context.storage.read_only(),
            durability: context.durability,
            compression_level: context.compression_level,
            cipher,
        },
    )?;
    if context.opener.has_child(ChildSpec::BACKING.name) {
        // The backing file in use need not be named by the header.
        image.is_overlay.store(true, Ordering::Release);
    }
    Ok(Box::new(image))
}

/// Reads the header of a file.
pub(super) fn read_header(storage: &dyn Storage) -> Result<Header> {
    let mut head = [0; HEADER_LEN];
    storage.read_at(&mut head, 0)?;
    Header::from_bytes(&head)
}

/// The cipher of the image's data; None if it is not encrypted, or only metadata is needed.
fn cipher(header: &Header, context: &OpenContext<'_>) -> Result<Option<DataCipher>> {
    let found = match header.crypt {
        Crypt::None => None,
        Crypt::Aes => Some("aes"),
    };
    match (found, context.options.str("encrypt.format")) {
        (None, Some(named)) => {
            return Err(Error::invalid(format!(
                "No encryption in image header, but options specified format '{named}'"
            )));
        }
        (Some(found), Some(named)) if found != named => {
            return Err(Error::invalid(format!(
                "Header reported '{found}' encryption format but options specify '{named}'"
            )));
        }
        (None, None) => return Ok(None),
        _ => {}
    }
    if context.metadata_only {
        return Ok(None);
    }
    let id = context
        .options
        .str("encrypt.key-secret")
        .ok_or_else(|| Error::needs_secret("encrypt.key-secret"))?;
    DataCipher::aes(context.objects.secret(id)?.bytes()).map(Some)
}

/// How an image is to be used.
pub(super) struct How {
    pub(super) read_only: bool,
    pub(super) durability: Durability,
    pub(super) compression_level: Option<i64>,
    pub(super) cipher: Option<DataCipher>,
}

/// Builds the image from its header.
pub(super) fn build(
    storage: &Arc<dyn Storage>,
    header: Header,
    policy: &OpenPolicy,
    how: How,
) -> Result<Qcow> {
    policy.check_decompressed(header.geometry().cluster())?;
    Compression::at_level(Method::Deflate, how.compression_level)?;
    let backing = read_name(&**storage, &header)?;
    let l1 = read_l1(&**storage, &header, policy)?;
    Ok(Qcow {
        storage: storage.clone(),
        geometry: header.geometry(),
        l1_offset: header.l1_offset,
        l1_end: header.l1_offset + l1.len() as u64 * 8,
        len: header.guest_size(),
        encrypted: header.crypt != Crypt::None,
        header: Mutex::new(header),
        is_overlay: AtomicBool::new(backing.is_some()),
        backing: Mutex::new(backing),
        l1,
        tables: RwLock::new(None),
        cache: Cache::new(policy.max_cache_bytes),
        read_ahead: ReadAhead::of(&**storage),
        decoded: DecodedUnits::default(),
        cipher: how.cipher,
        read_only: how.read_only,
        durability: how.durability,
        compression_level: how.compression_level,
        file_len: AtomicU64::new(storage.len()?),
        space: Mutex::new(Space::default()),
        inflight: InFlight::default(),
        users: IoUsers::default(),
        flushing: Mutex::new(()),
        is_dirty: AtomicBool::new(false),
        lost: AtomicBool::new(false),
    })
}

/// Reads the name of the backing file, if there is one.
fn read_name(storage: &dyn Storage, header: &Header) -> Result<Option<BString>> {
    let Some(place) = header.name_place() else {
        return Ok(None);
    };
    let mut name = vec![0; header.name_len as usize];
    storage.read_at(&mut name, place.start)?;
    let end = name.iter().position(|byte| *byte == 0);
    name.truncate(end.unwrap_or(name.len()));
    Ok((!name.is_empty()).then(|| name.into()))
}

/// Reads the upper table.
fn read_l1(storage: &dyn Storage, header: &Header, policy: &OpenPolicy) -> Result<Vec<AtomicU64>> {
    let len = header.tables() * 8;
    policy.check_table("L1 table", len)?;
    if len > 0 {
        // Before memory is allocated for what does not exist.
        read_exact_at(storage, &mut [0], header.l1_offset + len - 1)?;
    }
    let mut bytes = memory::zeroed(len as usize)?;
    read_exact_at(storage, &mut bytes, header.l1_offset)?;
    let words = bytes.chunks_exact(8);
    memory::collect(words.map(|word| AtomicU64::new(be64(word, 0).unwrap_or(0))))
}
