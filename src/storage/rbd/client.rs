//! Connections to clusters, and how long they are waited for.

use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroize;

use crate::error::{Error, Result};
use crate::job::JobControl;
use crate::storage::aside::aside;
use crate::storage::modes::CacheMode;
use crate::sys::librados::{Cluster, Pool};
use crate::sys::{librados, librbd};

use super::options::Settings;

/// Seconds for which a cluster is waited for when it is connected, unless its settings say otherwise than the
/// library's default, which is five minutes.
const CONNECT: (&CStr, u64, &CStr) = (c"client_mount_timeout", 300, c"30");
/// The same of each request, for which the library waits without an end.
const REQUEST: (&CStr, u64, &CStr) = (c"rados_osd_op_timeout", 0, c"60");
/// The same of questions to the monitors.
const QUESTION: (&CStr, u64, &CStr) = (c"rados_mon_op_timeout", 0, c"30");

/// A pool that is open, and how long its cluster is waited for where the library has no end of its own.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) pool: Arc<Pool>,
    pub(super) patience: Duration,
}

/// An error of the library.
pub(super) fn failed(errno: i32, what: impl Into<String>) -> Error {
    Error::os(errno).context(what)
}

/// Connects, as the settings say.
///
/// # Errors
/// Where a library is missing; of the cluster.
pub(super) fn connect(
    settings: &Settings,
    cache: CacheMode,
    control: &JobControl,
) -> Result<Client> {
    let libraries = librados::check().and_then(|()| librbd::check());
    libraries.map_err(Error::unsupported)?;
    let settings = settings.clone();
    // The library ends this by itself, by its settings, which only it knows.
    aside(control, None, move || connected(&settings, cache))
}

fn connected(settings: &Settings, cache: CacheMode) -> Result<Client> {
    let cluster = Cluster::new(settings.user.as_deref())
        .map_err(|errno| failed(errno, "error initializing"))?;
    match &settings.conf {
        Some(file) => cluster.read_file(Some(file)).map_err(|errno| {
            let file = file.to_string_lossy();
            failed(errno, format!("error reading conf file {file}"))
        })?,
        // The options may say all.
        None => drop(cluster.read_file(None)),
    }
    let must = |key: &CStr, value: &CStr| {
        cluster.set(key, value).map_err(|errno| {
            let key = key.to_string_lossy();
            failed(errno, format!("invalid conf option {key}"))
        })
    };
    // Nothing is printed; failures are told by errors.
    for key in [c"log_to_stderr", c"err_to_stderr"] {
        must(key, c"false")?;
    }
    // What is not cached has reached the cluster when it was written.
    must(
        c"rbd_cache",
        match cache.direct() || cache.write_through() {
            true => c"false",
            false => c"true",
        },
    )?;
    for (key, value) in &settings.further {
        must(key, value)?;
    }
    if let Some(key) = &settings.key {
        let mut text = key.bytes().to_vec();
        let secret = CString::new(text.as_slice());
        text.zeroize();
        let secret = secret.map_err(|_| Error::invalid("The key has a zero byte"))?;
        let done = must(c"key", &secret);
        secret.into_bytes().zeroize();
        done?;
    }
    let mut patience = 0;
    for (key, default, ours) in [CONNECT, REQUEST, QUESTION] {
        let named = settings.further.iter().any(|(named, _)| **named == *key);
        if !named && cluster.number(key) == Some(default) {
            must(key, ours)?;
        }
        // An end that the user has taken away stays away.
        let seconds = cluster.number(key).filter(|seconds| *seconds > 0);
        patience += seconds.unwrap_or(u64::from(u32::MAX));
    }
    cluster
        .connect()
        .map_err(|errno| failed(errno, "error connecting"))?;
    let cluster = Arc::new(cluster);
    let mut pool = Pool::open(&cluster, &settings.pool).map_err(|errno| {
        let pool = settings.pool.to_string_lossy();
        failed(errno, format!("error opening pool {pool}"))
    })?;
    let namespace = &settings.namespace;
    if !namespace.is_empty() {
        let text = namespace.to_string_lossy();
        let exists = librbd::namespace_exists(&pool, namespace)
            .map_err(|errno| failed(errno, format!("error checking namespace {text}")))?;
        if !exists {
            return Err(
                Error::os(libc::ENOENT).with_message(format!("namespace '{text}' does not exist"))
            );
        }
        pool.set_namespace(namespace);
    }
    Ok(Client {
        pool: Arc::new(pool),
        patience: Duration::from_secs(patience),
    })
}
