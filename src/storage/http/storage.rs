//! Opens an image on a server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::memory::IoBuf;
use crate::storage::driver::OpenContext;
use crate::storage::remote::{
    Bytes, Place, RemoteStorage, Source as _, given_options, refuse_writes,
};
use crate::storage::{Identity, Storage};

use super::client::{Client, origin, port};
use super::options::{OPTIONS, Settings};
use super::passing::Passing;
use super::source::{Opened, Source};
use super::whole;

/// Reads of at least this many bytes get a request of their own.
const LONG: usize = 1 << 20;

/// If the first response takes at least this long, the server is far away.
const FAR: Duration = Duration::from_millis(10);
/// Connections to a distant server: while one waits for a response, the others receive theirs.
const FAR_CONNECTIONS: usize = 16;

/// Opens an image.
pub(super) fn open(driver: &'static str, context: &OpenContext<'_>) -> Result<Arc<dyn Storage>> {
    let (values, name) = given_options(driver, OPTIONS, context)?;
    let settings = Settings::of(driver, &values, context.objects)?;
    refuse_writes(context)?;
    context.check_server(&settings.url.address(port(&settings.url)))?;
    // Whatever redirects a response takes, the requested URL identifies the image.
    let identity = format!("{}{}", origin(&settings.url), settings.url.target);
    let may_widen = settings.terms.may_widen;
    let mut place = Place {
        driver,
        name: name.clone(),
        identity: Identity::Remote(identity.into()),
        kind: "images on HTTP servers",
        in_flight: settings.terms.connections,
    };
    let read_ahead = settings.terms.read_ahead;
    let source = Source::new(
        Client::new(settings),
        name,
        context.policy.clone(),
        context.how.named_by_image,
    );
    let control = context.control.clone();
    let begun = Instant::now();
    let opened = source.open(&control)?;
    if may_widen && begun.elapsed() >= FAR {
        source.lanes().widen(FAR_CONNECTIONS);
        place.in_flight = FAR_CONNECTIONS;
    }
    let (len, bytes) = match opened {
        Opened::Ranges(len, first) => {
            let bytes = Bytes::server(Box::new(source), (len, first), read_ahead, LONG);
            (len, bytes)
        }
        Opened::Whole => {
            let file = whole::keep(&source, &control)?;
            (file.len()?, Bytes::File(Box::new(file)))
        }
        Opened::InOrder(len, flow) => {
            let passing = Passing::new(source, len, flow);
            // Every read goes to the source, which caches the bytes for a while itself.
            let bytes = Bytes::server(Box::new(passing), (len, IoBuf::new()), read_ahead, 0);
            (len, bytes)
        }
    };
    Ok(Arc::new(RemoteStorage::new(place, len, bytes, control)))
}
