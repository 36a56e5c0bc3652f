//! Files in volumes of GlusterFS (`gluster://HOST/VOLUME/PATH`), through the library libgfapi, which is loaded at
//! run time.

mod file;
mod options;
mod volumes;

use std::sync::Arc;

use crate::error::Result;
use crate::options::{OptionKind, OptionSpec, option};
use crate::storage::creation::NewStorage;
use crate::storage::driver::{
    CreateContext, OpenContext, StorageDriver, StorageFeatures, none_is_known,
};
use crate::storage::remote_file;
use crate::storage::traits::Storage;

use file::Gluster;

/// The driver.
pub static DRIVER: StorageDriver = StorageDriver {
    name: "gluster",
    schemes: &["gluster", "gluster+tcp", "gluster+unix"],
    features: StorageFeatures::WRITE
        .union(StorageFeatures::CREATE)
        .union(StorageFeatures::RESIZE)
        .union(StorageFeatures::EXTENTS)
        .union(StorageFeatures::PLACES),
    is_local: false,
    info_type: None,
    open_options: options::OPTIONS,
    weak_options: options::WEAK,
    create_options: options::CREATE,
    parse_file_name: Some(options::parse_file_name),
    file_name: Some(options::file_name),
    open,
    // Only the server knows it.
    stands_on: none_is_known,
    create: Some(create),
    exports: None,
};

fn open(context: &OpenContext<'_>) -> Result<Arc<dyn Storage>> {
    let (settings, name) = options::settings_of(&context.target, context.options)?;
    for server in &settings.servers {
        context.check_server(&server.address())?;
    }
    remote_file::open(context, name, Gluster::of(settings))
}

fn create(context: &CreateContext<'_>) -> Result<Box<dyn NewStorage>> {
    let (mut settings, name) = options::settings_of(&context.target, &Default::default())?;
    settings.take_log(context.options)?;
    remote_file::claim(context, name, Gluster::of(settings))
}

/// The options for logging, shared by opening and creation.
const DEBUG: OptionSpec = option(
    "debug",
    OptionKind::Num,
    "How much the library writes of what it does (0 to 9)",
)
.default_to("4");
const LOG_FILE: OptionSpec = option(
    "logfile",
    OptionKind::Name,
    "File that it writes that to; nothing is written without",
)
.default_to("/dev/null");
