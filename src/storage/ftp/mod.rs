//! What FTP servers keep (`ftp://HOST/PATH`, `ftps://HOST/PATH`), to be read (RFC 959, 2428, 3659, 4217).
//!
//! Over `storage/remote/`, which says when what is asked for; here is how: a few sessions, each of which goes on with
//! the transfer that it has where the reading does.

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
        // What is only read is never written over.
        stands_on: none_is_known,
        create: None,
        exports: None,
    }
}

/// The protocol, encrypted where that is asked for.
pub static FTP: StorageDriver = driver(
    "ftp",
    &["ftp"],
    |context| storage::open("ftp", context),
    |name| parse_file_name("ftp", name),
);

/// The protocol over TLS from its first byte on.
pub static FTPS: StorageDriver = driver(
    "ftps",
    &["ftps"],
    |context| storage::open("ftps", context),
    |name| parse_file_name("ftps", name),
);
