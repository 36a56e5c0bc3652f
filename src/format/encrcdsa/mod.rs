//! The encryption that Apple's systems apply to disk images of every kind: a header (version 2) or a trailer (version
//! 1) with keys that a passphrase unlocks, and individually encrypted blocks.
//!
//! See `docs/formats/dmg.md`.

mod blocks;
mod cipher;
mod disk;
mod inspect;
mod plain;
mod unlock;

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::OpenContext;
use crate::options::{OptionKind, OptionSpec};
use crate::storage::Storage;

use disk::{FOOTER_LEN, Volume};
use plain::Plain;

pub(crate) use blocks::read_in_blocks;
pub(crate) use cipher::BlockCipher;
pub(crate) use disk::{FOOTER_MAGIC, HEADER_MAGIC};
pub(crate) use inspect::inspect;

/// The option that names the secret.
pub(crate) const KEY_SECRET: &str = "key-secret";

/// The open options that formats offer for it.
pub(crate) const OPEN_OPTIONS: &[OptionSpec] = &[OptionSpec {
    name: KEY_SECRET,
    kind: OptionKind::Str,
    help: "ID of the secret that provides the passphrase of an encrypted image",
    default: None,
    allowed: &[],
}];

/// The contents of the header or the trailer; None if the file has neither.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`], [`crate::ErrorKind::Unsupported`], or if reading fails.
fn read(storage: &dyn Storage, file_len: u64) -> Result<Option<Volume>> {
    let mut magic = [0; HEADER_MAGIC.len()];
    storage.read_at(&mut magic, 0)?;
    if magic == *HEADER_MAGIC {
        return Volume::from_header(storage, file_len).map(Some);
    }
    let Some(at) = file_len.checked_sub(FOOTER_LEN as u64) else {
        return Ok(None);
    };
    let mut footer = [0; FOOTER_LEN];
    storage.read_at(&mut footer, at)?;
    if !footer.ends_with(FOOTER_MAGIC) {
        return Ok(None);
    }
    Volume::from_footer(&footer, at).map(Some)
}

/// The decrypted bytes of the file; None if it is not encrypted.
///
/// # Errors
/// [`crate::ErrorKind::NeedsSecret`], [`crate::ErrorKind::WrongSecret`], [`crate::ErrorKind::Limit`] under the policy,
/// [`crate::ErrorKind::Cancelled`], or the errors of a damaged file.
pub(crate) fn open(context: &OpenContext<'_>) -> Result<Option<Arc<dyn Storage>>> {
    let file_len = context.storage.len()?;
    let Some(volume) = read(&*context.storage, file_len)? else {
        return Ok(None);
    };
    volume.check_place(file_len)?;
    let cipher = unlock(context, &volume)?;
    let plain = Plain::new(context.storage.clone(), volume.data, cipher);
    Ok(Some(Arc::new(plain)))
}

/// The cipher for data in files other than that of the header.
///
/// # Errors
/// As [`open`].
pub(crate) fn unlock_by(context: &OpenContext<'_>, header: &dyn Storage) -> Result<BlockCipher> {
    let volume = Volume::from_header(header, header.len()?)?;
    unlock(context, &volume)
}

fn unlock(context: &OpenContext<'_>, volume: &Volume) -> Result<BlockCipher> {
    let policy = context.opener.policy();
    for lock in &volume.locks {
        policy.check_key_iterations(u64::from(lock.iterations))?;
    }
    let id = context.options.str(KEY_SECRET);
    let id = id.ok_or_else(|| Error::needs_secret(KEY_SECRET))?;
    let secret = context.objects.secret(id)?;
    let keys = unlock::unlock(volume, secret.bytes(), context.control)?;
    BlockCipher::new(volume.block_size, &keys)
}
