//! Files on SSH servers (`ssh://USER@HOST/PATH`), over SFTP.
//!
//! libssh, loaded at run time, establishes the connection and authenticates both ends. SFTP itself is implemented here,
//! with many requests in flight at once, which the library does not support.

mod file;
mod link;
mod login;
mod options;
mod plain;
mod sftp;
#[cfg(test)]
mod tests;

pub use plain::sftp_over;

use std::sync::Arc;

use crate::error::Result;
use crate::options::{OptionKind, OptionSpec, Values, option};
use crate::storage::creation::NewStorage;
use crate::storage::driver::{CreateContext, OpenContext, StorageDriver, StorageFeatures};
use crate::storage::identity::Identity;
use crate::storage::remote_file;
use crate::storage::traits::Storage;

use file::{Ssh, dialer};

/// The driver for this protocol.
pub static DRIVER: StorageDriver = StorageDriver {
    name: "ssh",
    schemes: &["ssh"],
    features: StorageFeatures::WRITE
        .union(StorageFeatures::CREATE)
        .union(StorageFeatures::RESIZE)
        .union(StorageFeatures::PLACES),
    is_local: false,
    info_type: None,
    open_options: options::OPTIONS,
    weak_options: options::WEAK,
    create_options: &[option("size", OptionKind::Size, "Virtual disk size")],
    parse_file_name: Some(options::parse_file_name),
    file_name: Some(options::file_name),
    open,
    stands_on,
    create: Some(create),
    exports: None,
};

fn stands_on(context: &OpenContext<'_>, visit: &mut dyn FnMut(Identity)) {
    let known = options::settings_of(&context.target, context.options, context.objects);
    if let Ok((settings, _)) = known {
        visit(Identity::Remote(settings.place()));
    }
}

fn open(context: &OpenContext<'_>) -> Result<Arc<dyn Storage>> {
    let (target, objects) = (&context.target, context.objects);
    let (settings, name) = options::settings_of(target, context.options, objects)?;
    context.check_server(&settings.address())?;
    remote_file::open(context, name, Ssh::new(&settings, dialer(&settings)))
}

fn create(context: &CreateContext<'_>) -> Result<Box<dyn NewStorage>> {
    let (target, objects) = (&context.target, context.objects);
    let (settings, name) = options::settings_of(target, &Values::default(), objects)?;
    remote_file::claim(context, name, Ssh::new(&settings, dialer(&settings)))
}

/// An [`OptionSpec`] of a text option, for the table of options.
const fn text(name: &'static str, help: &'static str) -> OptionSpec {
    option(name, OptionKind::Str, help)
}
