//! Where certificates and keys come from: files in a directory, or text supplied by the caller.

use std::io::Read;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};
use crate::memory;

/// Maximum length of a file: certificate revocation lists may be long.
const MAX_FILE: u64 = 64 << 20;

/// A text, and its name in messages.
pub(super) struct Text {
    pub name: String,
    pub bytes: Zeroizing<Vec<u8>>,
}

impl Text {
    /// Reads a file that must exist.
    pub(super) fn file(dir: &Path, name: &str) -> Result<Self> {
        let path = dir.join(name);
        Self::read(&path).map_err(|error| unreadable(&path, &error))
    }

    /// Reads a file that may be missing.
    pub(super) fn file_if_any(dir: &Path, name: &str) -> Result<Option<Self>> {
        let path = dir.join(name);
        match Self::read(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(&path, &error)),
        }
    }

    /// Text supplied by a caller.
    pub(super) fn given(name: &str, bytes: &[u8]) -> Self {
        Self {
            name: name.to_owned(),
            bytes: Zeroizing::new(bytes.to_vec()),
        }
    }

    fn read(path: &Path) -> std::io::Result<Self> {
        let mut file = std::fs::File::open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(std::io::Error::from_raw_os_error(libc::EINVAL));
        }
        if found.len() > MAX_FILE {
            return Err(std::io::Error::from_raw_os_error(libc::EFBIG));
        }
        // Allocated at its full length: the memory that a growing vector leaves behind is not wiped.
        let none = |_| std::io::Error::from_raw_os_error(libc::ENOMEM);
        let mut bytes = Zeroizing::new(memory::filled(found.len() as usize, 0).map_err(none)?);
        file.read_exact(&mut bytes)?;
        Ok(Self {
            name: path.display().to_string(),
            bytes,
        })
    }

    /// The certificates in it; `what` names them in messages.
    pub(super) fn certificates(&self, what: &str) -> Result<Vec<CertificateDer<'static>>> {
        let found: std::result::Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(&self.bytes).collect();
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            _ => Err(self.refused(what)),
        }
    }

    /// The certificate revocation lists in it.
    pub(super) fn revoked(&self) -> Result<Vec<CertificateRevocationListDer<'static>>> {
        let found: std::result::Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_slice_iter(&self.bytes).collect();
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            _ => Err(self.refused("CRL")),
        }
    }

    pub(super) fn refused(&self, what: &str) -> Error {
        Error::invalid(format!("Unable to import {what} {}", self.name))
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    let path = path.display();
    let reason = match error.raw_os_error() {
        Some(libc::EFBIG) => Error::new(ErrorKind::Limit, "The file is too large"),
        Some(libc::EINVAL) => Error::invalid("It is not a regular file"),
        _ => Error::io(error),
    };
    reason.context(format!("Unable to access credentials {path}"))
}
