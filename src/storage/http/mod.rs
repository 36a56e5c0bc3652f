//! Files on HTTP servers (`http://HOST/PATH`, `https://HOST/PATH`), read-only.
//!
//! Built on `storage/remote/`, which decides what to request and when; this module carries it out.

mod body;
mod client;
mod connection;
mod flow;
mod head;
mod login;
mod options;
mod passing;
mod proxy;
mod source;
mod storage;
#[cfg(test)]
mod tests;
mod whole;
mod window;

use crate::storage::driver::{StorageDriver, StorageFeatures, none_is_known};
use crate::storage::remote::options::{file_name, parse_file_name};

const fn driver(
    name: &'static str,
    schemes: &'static [&'static str],
    open: crate::storage::driver::OpenFn,
    parse: crate::storage::driver::ParseNameFn,
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

/// HTTP without encryption.
pub static HTTP: StorageDriver = driver(
    "http",
    &["http"],
    |context| storage::open("http", context),
    |name| parse_file_name("http", name),
);

/// HTTP over TLS.
pub static HTTPS: StorageDriver = driver(
    "https",
    &["https"],
    |context| storage::open("https", context),
    |name| parse_file_name("https", name),
);
