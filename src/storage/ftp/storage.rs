//! Opens an image on a server.

use std::sync::Arc;

use crate::error::Result;
use crate::storage::driver::OpenContext;
use crate::storage::remote::{Bytes, Place, RemoteStorage, given_options, refuse_writes};
use crate::storage::{Identity, Storage};

use super::options::{OPTIONS, Settings};
use super::source::Source;

/// Every read goes through the cache: a separate request would abort the transfer of another one.
const LONG: usize = usize::MAX;

/// Opens an image.
pub(super) fn open(driver: &'static str, context: &OpenContext<'_>) -> Result<Arc<dyn Storage>> {
    let (values, name) = given_options(driver, OPTIONS, context)?;
    let settings = Settings::of(driver, &values, context.objects)?;
    refuse_writes(context)?;
    context.check_server(&settings.url.address(settings.port))?;
    let place = Place {
        driver,
        name: name.clone(),
        identity: Identity::Remote(settings.identity()),
        kind: "images on FTP servers",
        in_flight: settings.terms.connections,
    };
    let read_ahead = settings.terms.read_ahead;
    let source = Source::new(settings, name);
    let control = context.control.clone();
    let (len, first) = source.open(&control)?;
    let bytes = Bytes::server(Box::new(source), (len, first), read_ahead, LONG);
    Ok(Arc::new(RemoteStorage::new(place, len, bytes, control)))
}
