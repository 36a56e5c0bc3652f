//! Connections to clusters, and their timeouts.

use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroize;

use crate::error::{Error, Result};
use crate::job::JobControl;
use crate::policy::OpenPolicy;
use crate::storage::aside::aside;
use crate::storage::modes::CacheMode;
use crate::sys::librados::{Cluster, Pool};
use crate::sys::{librados, librbd};

use super::options::Settings;

/// Timeout in seconds for connecting, applied where the settings leave it at the library's default of five minutes.
const CONNECT: (&CStr, u64, &CStr) = (c"client_mount_timeout", 300, c"30");
/// The same for each request: by default the library waits without limit.
const REQUEST: (&CStr, u64, &CStr) = (c"rados_osd_op_timeout", 0, c"60");
/// The same for commands to the monitors.
const QUESTION: (&CStr, u64, &CStr) = (c"rados_mon_op_timeout", 0, c"30");

/// An open pool, with the timeout for calls that the library itself does not bound.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) pool: Arc<Pool>,
    pub(super) patience: Duration,
}

/// An error returned by the library.
pub(super) fn failed(errno: i32, what: impl Into<String>) -> Error {
    Error::os(errno).context(what)
}

/// Connects according to the settings.
///
/// # Errors
/// Where a library is missing; errors of the cluster.
pub(super) fn connect(
    settings: &Settings,
    cache: CacheMode,
    control: &JobControl,
) -> Result<Client> {
    let libraries = librados::check().and_then(|()| librbd::check());
    libraries.map_err(Error::unsupported)?;
    let (settings, own) = (settings.clone(), settings.clone());
    let (cluster, patience) = aside(control, None, move || configured(&own, cache))?;
    let pool = aside(control, Some(patience), move || {
        connected(cluster, &settings)
    })?;
    Ok(Client {
        pool: Arc::new(pool),
        patience,
    })
}

/// Configures the cluster handle, and works out the timeout of its calls. Reads files only.
fn configured(settings: &Settings, cache: CacheMode) -> Result<(Cluster, Duration)> {
    let cluster = Cluster::new(settings.user.as_deref())
        .map_err(|errno| failed(errno, "error initializing"))?;
    match &settings.conf {
        Some(file) => cluster.read_file(Some(file)).map_err(|errno| {
            let file = file.to_string_lossy();
            failed(errno, format!("error reading conf file {file}"))
        })?,
        // The options may be sufficient without a configuration file.
        None => drop(cluster.read_file(None)),
    }
    let must = |key: &CStr, value: &CStr| {
        cluster.set(key, value).map_err(|errno| {
            let key = key.to_string_lossy();
            failed(errno, format!("invalid conf option {key}"))
        })
    };
    // The library prints nothing: failures are returned as errors.
    for key in [c"log_to_stderr", c"err_to_stderr"] {
        must(key, c"false")?;
    }
    // Without a cache, data has reached the cluster when the write completes.
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
        // A timeout that the user has disabled stays disabled.
        let seconds = cluster.number(key).filter(|seconds| *seconds > 0);
        patience += seconds.unwrap_or(u64::from(u32::MAX));
    }
    if let Some(policy) = &settings.policy {
        check_monitors(policy, cluster.text(c"mon_host").as_deref())?;
    }
    Ok((cluster, Duration::from_secs(patience)))
}

/// Connects, and opens the pool. Blocks on the cluster.
fn connected(cluster: Cluster, settings: &Settings) -> Result<Pool> {
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
    Ok(pool)
}

/// Checks whether the policy permits the monitors in `list`, which has the form of `mon_host`.
///
/// # Errors
/// [`crate::ErrorKind::Denied`]; also where the list is empty, because the library would then look for monitors itself.
fn check_monitors(policy: &OpenPolicy, list: Option<&str>) -> Result<()> {
    let separators = |c: char| matches!(c, ',' | ';') || c.is_whitespace();
    let list = list.unwrap_or_default();
    let mut monitors = list
        .split(separators)
        .filter(|word| !word.is_empty())
        .peekable();
    if monitors.peek().is_none() {
        return policy.check_host(None, None);
    }
    monitors.try_for_each(|word| {
        let (host, port) = monitor(word);
        policy.check_host(Some(host), port)
    })
}

/// The host and port of one monitor address: `[v2:HOST:PORT/NONCE`, `HOST:PORT`, `[ADDRESS]:PORT`…
fn monitor(word: &str) -> (&str, Option<u16>) {
    let kinds = ["v1:", "v2:", "any:"];
    let of_group = word.trim_start_matches('[');
    let word = match kinds.iter().find_map(|kind| of_group.strip_prefix(kind)) {
        Some(rest) => rest,
        None => word,
    };
    let word = word.split('/').next().unwrap_or_default();
    let (host, rest) = match word.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or((rest, "")),
        // An IPv6 address without brackets has no port.
        None if word.matches(':').count() > 1 => (word, ""),
        None => word.split_at(word.find(':').unwrap_or(word.len())),
    };
    let port = rest.trim_end_matches(']').strip_prefix(':');
    (
        host.trim_end_matches(']'),
        port.and_then(|port| port.parse().ok()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::HostRule;

    #[test]
    fn monitors_are_found_in_every_form_of_their_list() {
        for (word, host, port) in [
            ("h", "h", None),
            ("h:6789", "h", Some(6789)),
            ("[v2:127.0.0.1:3300/0", "127.0.0.1", Some(3300)),
            ("v1:127.0.0.1:6789/0]", "127.0.0.1", Some(6789)),
            ("[v2:[fd00::1]:3300/0]", "fd00::1", Some(3300)),
            ("[fd00::1]:6789", "fd00::1", Some(6789)),
            ("[fd00::1]", "fd00::1", None),
            ("fd00::1", "fd00::1", None),
        ] {
            assert_eq!(monitor(word), (host, port), "{word}");
        }
    }

    #[test]
    fn each_monitor_is_asked_about_and_none_is_denied() {
        let policy = OpenPolicy {
            implicit_hosts: ["a", "b"]
                .map(|host| HostRule::parse(host).unwrap())
                .to_vec(),
            ..OpenPolicy::permissive()
        };
        check_monitors(&policy, Some("[v2:a:1/0,v1:a:2/0], b")).unwrap();
        for list in [Some("a,c"), Some(" "), None] {
            let denied = check_monitors(&policy, list).unwrap_err();
            assert_eq!(denied.kind(), crate::ErrorKind::Denied, "{list:?}");
        }
    }
}
