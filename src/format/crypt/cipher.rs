//! The options that select the cipher of a new volume.

use std::time::Duration;

use crate::crypto::luks::CreateOptions;
use crate::crypto::{Algorithm, CipherSpec, Hash, IvGenerator, Mode};
use crate::error::{Error, Result};
use crate::options::Values;

/// The help text of `iter-time`, which `amend` shares.
pub(crate) const OPTION_ITER_TIME: &str = "Time to spend in PBKDF in milliseconds";

/// Checked cipher options.
pub(crate) type CipherOptions = CreateOptions;

/// The cipher selected by the options, whose keys begin with `prefix` (`encrypt.` in qcow2).
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for an unknown name, [`crate::ErrorKind::Unsupported`] for an impossible combination.
pub(crate) fn parse_cipher_options(values: &Values, prefix: &str) -> Result<CipherOptions> {
    let text = |name: &str| values.str(&format!("{prefix}{name}"));
    let algorithm = match text("cipher-alg") {
        None => Algorithm::Aes256,
        Some(name @ ("3des" | "des" | "sm4")) => {
            return Err(Error::unsupported(format!(
                "Algorithm '{name}' not supported"
            )));
        }
        Some(name) => {
            Algorithm::from_name(name).ok_or_else(|| Error::refused_value("cipher-alg", name))?
        }
    };
    let mode = match text("cipher-mode") {
        None => Mode::Xts,
        Some(name) => {
            Mode::from_name(name).ok_or_else(|| Error::refused_value("cipher-mode", name))?
        }
    };
    let hash_of = |name: &str, default| match text(name) {
        None => Ok(default),
        Some(text) => Hash::from_name(text).ok_or_else(|| Error::refused_value(name, text)),
    };
    let iv = match text("ivgen-alg") {
        None | Some("plain64") => IvGenerator::Plain64,
        Some("plain") => IvGenerator::Plain,
        Some("essiv") => IvGenerator::Essiv(hash_of("ivgen-hash-alg", Hash::Sha256)?),
        Some(name) => return Err(Error::refused_value("ivgen-alg", name)),
    };
    let hash = hash_of("hash-alg", Hash::Sha256)?;
    let iter_time =
        Duration::from_millis(values.num(&format!("{prefix}iter-time")).unwrap_or(2000));
    let cipher = CipherSpec {
        algorithm,
        mode,
        iv,
    };
    // Setting up the cipher with a dummy key detects impossible combinations before a file is touched.
    cipher.keyed(&vec![1; cipher.key_len()])?;
    Ok(CipherOptions {
        cipher,
        hash,
        iter_time,
    })
}
