//! Files on NFS servers (`nfs://HOST/PATH`), using versions 3 and 4 of the protocol.
//!
//! libnfs, loaded at run time, implements the protocol.

mod client;
mod file;
mod options;
mod write_back;

use std::sync::Arc;

use crate::error::Result;
use crate::net::Address;
use crate::options::{OptionKind, OptionSpec, Values, option};
use crate::storage::creation::NewStorage;
use crate::storage::driver::{CreateContext, OpenContext, StorageDriver, StorageFeatures};
use crate::storage::identity::Identity;
use crate::storage::remote_file;
use crate::storage::traits::Storage;

use file::Nfs;

/// The NFS driver.
pub static DRIVER: StorageDriver = StorageDriver {
    name: "nfs",
    schemes: &["nfs"],
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
    if let Ok((settings, _)) = options::settings_of(&context.target, context.options) {
        visit(Identity::Remote(settings.place()));
    }
}

fn open(context: &OpenContext<'_>) -> Result<Arc<dyn Storage>> {
    let (settings, name) = options::settings_of(&context.target, context.options)?;
    let port = settings.wanted.port.unwrap_or(client::PORT);
    context.check_server(&Address::inet(settings.host.clone(), port))?;
    remote_file::open(context, name, Nfs(settings))
}

fn create(context: &CreateContext<'_>) -> Result<Box<dyn NewStorage>> {
    let (settings, name) = options::settings_of(&context.target, &Values::default())?;
    remote_file::claim(context, name, Nfs(settings))
}

/// An [`OptionSpec`] of a number, for the table of options.
const fn number(name: &'static str, help: &'static str) -> OptionSpec {
    option(name, OptionKind::Num, help)
}
