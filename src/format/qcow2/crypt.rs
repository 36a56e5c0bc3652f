//! Encrypted images: the cipher of an open image, and all I/O on guest data.

use std::io::{IoSlice, IoSliceMut};

use crate::crypto::luks::Volume;
use crate::error::{Error, Result};
use crate::format::OpenContext;
use crate::format::crypt::{self, HeaderArea, check_work};
use crate::storage::data_cipher::DataCipher;
use crate::storage::{Step, ZeroFlags, steps};

use super::disk::{CryptMethod, ImageHeader};
use super::state::Qcow2;

/// The cipher of the image's data: none if it is not encrypted, or if only metadata is wanted.
///
/// # Errors
/// [`crate::ErrorKind::NeedsSecret`], [`crate::ErrorKind::WrongSecret`], [`crate::ErrorKind::Invalid`] if the options
/// name another encryption, or if reading the encryption header fails.
pub(super) fn cipher(image: &ImageHeader, ctx: &OpenContext<'_>) -> Result<Option<DataCipher>> {
    let found = match image.header.crypt {
        CryptMethod::None => None,
        CryptMethod::Aes => Some("aes"),
        CryptMethod::Luks => Some(crypt::METHOD),
    };
    match (found, ctx.options.str("encrypt.format")) {
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
    if ctx.metadata_only {
        return Ok(None);
    }
    if !ctx.read_only && !image.header.size.is_multiple_of(512) {
        return Err(Error::unsupported(
            "An encrypted image whose size is not a multiple of 512 can only be read",
        ));
    }
    let id = ctx
        .options
        .str("encrypt.key-secret")
        .ok_or_else(|| Error::needs_secret("encrypt.key-secret"))?;
    let secret = ctx.objects.secret(id)?;
    match image.crypto() {
        Some(place) => {
            let area = HeaderArea::new(ctx.storage.clone(), place.offset);
            check_work(&Volume::read_header(&area)?, ctx.opener.policy())?;
            let volume = Volume::unlock(&area, secret.bytes(), ctx.control)?;
            Ok(Some(DataCipher::luks(&volume)))
        }
        None => DataCipher::aes(secret.bytes()).map(Some),
    }
}

impl Qcow2 {
    /// The cipher, if the image is encrypted.
    fn cipher(&self) -> Result<Option<&DataCipher>> {
        match &self.cipher {
            None if self.encrypted => Err(Error::needs_secret("encrypt.key-secret")),
            cipher => Ok(cipher.as_ref()),
        }
    }

    /// Fills `buf` with the guest bytes at `guest`, which are stored at `host`.
    pub(super) fn read_data(&self, buf: &mut [u8], host: u64, guest: u64) -> Result<()> {
        let storage = self.data_storage();
        steps::announce(&**storage, Step::ReadAio);
        match self.cipher()? {
            None => storage.read_at(buf, host),
            Some(cipher) => cipher.read(&**storage, buf, host, guest),
        }
    }

    /// As [`Self::read_data`], but only if that does not block; returns whether it was done.
    pub(super) fn try_read_data(&self, buf: &mut [u8], host: u64, guest: u64) -> Result<bool> {
        let storage = self.data_storage();
        match self.cipher()? {
            None => storage.try_read(&mut [IoSliceMut::new(buf)], host),
            Some(cipher) => cipher.try_read(&**storage, buf, host, guest),
        }
    }

    /// Writes the guest bytes at `guest`, the concatenation of `bufs`, to `host`.
    pub(super) fn write_data(&self, bufs: &[IoSlice<'_>], host: u64, guest: u64) -> Result<()> {
        let storage = self.data_storage();
        steps::announce(&**storage, Step::WriteAio);
        match (self.cipher()?, bufs) {
            (Some(cipher), bufs) => cipher.write(&**storage, bufs, host, guest),
            (None, [one]) => storage.write_at(one, host),
            (None, many) => storage.write_vectored_at(many, host),
        }
    }

    /// Makes `len` guest bytes at `guest`, which are stored at `host`, read as zeroes; they still take space.
    pub(super) fn write_zero_data(&self, len: u64, host: u64, guest: u64) -> Result<()> {
        let storage = self.data_storage();
        match self.cipher()? {
            None => storage.write_zeroes(host, len, ZeroFlags::empty()),
            Some(cipher) => cipher.write_zeroes(&**storage, len, host, guest),
        }
    }
}
