//! Files on FTP servers (`ftp://HOST/PATH`, `ftps://HOST/PATH`), read-only (RFC 959, 2428, 3659, 4217).
//!
//! Built on `storage/remote/`, which decides what to request and when; this module carries it out: with a few sessions,
//! each of which continues its current transfer if the reading continues there.

mod options;
mod reply;
mod session;
mod source;
mod storage;
#[cfg(test)]
mod tests;

use crate::storage::driver::{OpenFn, ParseNameFn, StorageDriver, StorageFeatures, none_is_known};
use crate::storage::remote::options::{file_name, parse_file_name};

const fn driver(
    name: &'static str,
    schemes: &'static [&'static str],
    open: OpenFn,
    parse: ParseNameFn,
) -> StorageDriver {
    StorageDriver {
        name,
        schemes,
        features: StorageFeatures::PLACES,
        is_local: false,
        info_type: None,
        open_options: options::OPTIONS,
        weak_options: options::WEAK,
        create_options: &[],
        parse_file_name: Some(parse),
        file_name: Some(file_name),
        open,
        // What can only be read is never overwritten.
        stands_on: none_is_known,
        create: None,
        exports: None,
    }
}

/// FTP, encrypted if that is requested.
pub static FTP: StorageDriver = driver(
    "ftp",
    &["ftp"],
    |context| storage::open("ftp", context),
    |name| parse_file_name("ftp", name),
);

/// FTP over TLS from the first byte on.
pub static FTPS: StorageDriver = driver(
    "ftps",
    &["ftps"],
    |context| storage::open("ftps", context),
    |name| parse_file_name("ftps", name),
);
