//! Connected volumes. They stay connected for a while when they are not used, because the library takes ten seconds
//! to shut one down, and connecting takes several round trips to a server.

use std::ffi::{CStr, CString, OsStr};
use std::mem::discriminant;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use bstr::{BString, ByteSlice};
use parking_lot::Mutex;

use crate::crew;
use crate::error::{Error, Result};
use crate::sys::libgfapi::Volume;
use crate::sys::signal::Blocked;

use super::options::{Log, Server, Settings};

/// Maximum number of unused volumes that stay connected.
const KEPT: usize = 8;

/// Makes the client revalidate what it caches each time, because others may have changed it.
const FRESH: [(&CStr, &CStr); 3] = [
    (c"*-md-cache", c"md-cache-timeout"),
    (c"*-io-cache", c"cache-timeout"),
    (c"*-quick-read", c"cache-timeout"),
];

static VOLUMES: Mutex<Vec<Known>> = Mutex::new(Vec::new());

/// A connected volume, and the settings that it was connected with.
struct Known {
    name: BString,
    servers: Vec<Server>,
    log: Log,
    volume: Arc<Volume>,
}

impl Known {
    fn is_of(&self, settings: &Settings) -> bool {
        self.name == settings.volume && self.servers == settings.servers && self.log == settings.log
    }
}

/// Makes a C string for the library.
///
/// # Errors
/// If it contains a NUL.
pub(super) fn text(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Error::invalid("A name has a NUL in it"))
}

/// The requested volume, if it is already connected.
pub(super) fn known(settings: &Settings) -> Option<Arc<Volume>> {
    let volumes = VOLUMES.lock();
    let known = volumes.iter().find(|known| known.is_of(settings));
    known.map(|known| known.volume.clone())
}

/// Forgets a volume that has lost its servers, so that no other user gets it.
pub(super) fn forget(volume: &Arc<Volume>) {
    let mut volumes = VOLUMES.lock();
    volumes.retain(|known| !Arc::ptr_eq(&known.volume, volume));
}

/// Connects to a volume. Waits for the servers.
///
/// # Errors
/// Errors of the library, which does not say what is wrong.
pub(super) fn connect(settings: &Settings) -> Result<Arc<Volume>> {
    // The library does not fall back from a server of one kind to one of the other.
    let mut groups = settings
        .servers
        .chunk_by(|one, other| discriminant(one) == discriminant(other));
    let mut connected = Err(Error::os(libc::ENOTCONN));
    while let Err(error) = connected {
        let Some(servers) = groups.next() else {
            let (volume, path) = (&settings.volume, &settings.path);
            let text =
                format!("Gluster connection for volume {volume}, path {path} failed to connect");
            let hint =
                |error: Error, server: &Server| error.with_hint(format!("failed on {server}"));
            return Err(settings.servers.iter().fold(error.context(text), hint));
        };
        connected = connect_by(settings, servers);
    }
    let volume = connected?;
    let volume = Arc::new(volume);
    let mut volumes = VOLUMES.lock();
    let mut idle = volumes
        .iter()
        .filter(|known| Arc::strong_count(&known.volume) == 1)
        .count();
    while idle >= KEPT {
        let oldest = volumes
            .iter()
            .position(|known| Arc::strong_count(&known.volume) == 1);
        if let Some(oldest) = oldest {
            end(volumes.remove(oldest).volume);
        }
        idle -= 1;
    }
    volumes.push(Known {
        name: settings.volume.clone(),
        servers: settings.servers.clone(),
        log: settings.log.clone(),
        volume: volume.clone(),
    });
    Ok(volume)
}

/// Releases a volume on a thread of its own, without waiting for it.
pub(super) fn end(volume: Arc<Volume>) {
    let blocked = Blocked::all();
    // If no thread can be started, it stays connected, which does no harm.
    let kept = Arc::new(Mutex::new(Some(volume)));
    let own = kept.clone();
    let thread = crew::thread("library");
    let made = thread.spawn(move || drop(own.lock().take()));
    drop(blocked);
    if made.is_err() {
        std::mem::forget(kept);
    }
}

fn connect_by(settings: &Settings, servers: &[Server]) -> Result<Volume> {
    let of = |errno: i32| Error::os(errno);
    let volume = Volume::new(&text(&settings.volume)?).map_err(of)?;
    for server in servers {
        let (transport, host, port) = match server {
            Server::Inet(host, port) => (c"tcp", host.as_bytes().as_bstr(), *port),
            Server::Unix(path) => (c"unix", path.as_bstr(), 0),
        };
        let added = volume.add_server(transport, &text(host)?, port);
        added.map_err(of)?;
    }
    for (part, key) in FRESH {
        volume.set_option(part, key, c"0").map_err(of)?;
    }
    let log = &settings.log;
    let file = match log.file.starts_with(b"/") || log.file == "-" {
        true => log.file.clone(),
        // The library mistakes a bare file name for a directory.
        false => {
            let file = std::path::absolute(OsStr::from_bytes(&log.file));
            let file = file.map_err(|error| Error::io(&error))?;
            BString::from(file.into_os_string().into_encoded_bytes())
        }
    };
    volume.set_log(&text(&file)?, log.level).map_err(of)?;
    volume.connect().map_err(of)?;
    Ok(volume)
}
