//! Options that select a file on a server and say how to access it, and the file names that stand for them.

use std::time::Duration;

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, Result};
use crate::location::tree::flatten;
use crate::net::url::decoded;
use crate::net::{Address, Family};
use crate::object::Objects;
use crate::options::{OptionKind, OptionSpec, Values, option};
use crate::secret::Secret;
use crate::storage::driver::StorageTarget;
use crate::storage::remote_file::given_options;
use crate::sys::libssh::Hash;
use crate::sys::user;
use crate::value::{Map, Value};

use super::sftp::MAX_PATH;
use super::text;

const DEFAULT_PORT: u16 = 22;
/// Seconds that a server may be silent: making written data durable can take a while.
const DEFAULT_TIMEOUT: u64 = 300;

pub(super) const OPTIONS: &[OptionSpec] = &[
    text("host", "Host of the server"),
    text(
        "host-key-check.hash",
        "Fingerprint that the server's key is to have",
    ),
    text("host-key-check.mode", "none, hash or known_hosts")
        .default_to("known_hosts")
        .one_of(&["none", "hash", "known_hosts"]),
    text(
        "host-key-check.type",
        "Hash of the fingerprint: md5, sha1 or sha256",
    )
    .one_of(&["md5", "sha1", "sha256"]),
    OptionSpec {
        default: Some("yes"),
        ..text(
            "host_key_check",
            "no, yes, or the fingerprint behind md5:, sha1: or sha256:",
        )
    },
    option("identity", OptionKind::Name, "File with the private key"),
    text(
        "identity-secret",
        "ID of the secret with the key's passphrase",
    ),
    option("known-hosts", OptionKind::Name, "File of known hosts"),
    text("password-secret", "ID of the secret with the password"),
    option("path", OptionKind::Name, "Path of the file on the server"),
    text("port", "Port of the server").default_to("22"),
    text("server.host", "Host of the server"),
    option(
        "server.ipv4",
        OptionKind::Bool,
        "Use version 4 of the internet protocol",
    ),
    option(
        "server.ipv6",
        OptionKind::Bool,
        "Use version 6 of the internet protocol",
    ),
    option(
        "server.keep-alive",
        OptionKind::Bool,
        "Ask a silent server whether it is there",
    )
    .default_to("off"),
    option(
        "server.numeric",
        OptionKind::Bool,
        "The host is a number, not a name",
    ),
    text("server.port", "Port of the server"),
    OptionSpec {
        default: Some("300"),
        ..option(
            "timeout",
            OptionKind::Num,
            "Seconds for which a server may be silent; 0 is for ever",
        )
    },
    text("user", "Name of the user on the server"),
];

/// Options that affect how a file is opened, not which file it is: they are up to the opener.
pub(super) const WEAK: &[&str] = &[
    "host-key-check.hash",
    "host-key-check.mode",
    "host-key-check.type",
    "identity",
    "identity-secret",
    "known-hosts",
    "password-secret",
    "server.keep-alive",
    "server.numeric",
    "timeout",
];

/// Options that may follow the `?` of a file name.
const IN_QUERY: &[&str] = &[
    "host_key_check",
    "identity",
    "identity-secret",
    "known-hosts",
    "password-secret",
    "timeout",
];

/// How the identity of the server is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HostCheck {
    /// Not at all.
    None,
    /// The fingerprint that its key must have, as given.
    Hash(Hash, String),
    /// Its key must be among the user's known hosts.
    KnownHosts,
}

/// The settings of one file.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) host: String,
    pub(super) port: u16,
    family: Family,
    pub(super) keep_alive: bool,
    /// How long the server may be silent while a response is due.
    pub(super) timeout: Option<Duration>,
    pub(super) user: String,
    pub(super) path: BString,
    pub(super) check: HostCheck,
    /// The file with the private key; without it and without a password, the user's default keys are tried.
    pub(super) identity: Option<BString>,
    /// The passphrase of the private key.
    pub(super) passphrase: Option<Secret>,
    pub(super) password: Option<Secret>,
    /// The file of known hosts, instead of the user's own.
    pub(super) known_hosts: Option<BString>,
}

/// The name of a hash in options.
pub(super) fn hash_name(hash: Hash) -> &'static str {
    match hash {
        Hash::Md5 => "md5",
        Hash::Sha1 => "sha1",
        Hash::Sha256 => "sha256",
    }
}

fn hash_named(name: &str) -> Option<Hash> {
    let all = [Hash::Md5, Hash::Sha1, Hash::Sha256];
    all.into_iter().find(|hash| hash_name(*hash) == name)
}

fn host_check(options: &Values) -> Result<HostCheck> {
    let (mode, kind, hash) = (
        options.str("host-key-check.mode"),
        options.str("host-key-check.type"),
        options.str("host-key-check.hash"),
    );
    let short = options.str("host_key_check");
    if short.is_some() && (mode.is_some() || kind.is_some() || hash.is_some()) {
        return Err(Error::invalid(
            "host_key_check and host-key-check may not be used at the same time",
        ));
    }
    match short {
        Some("no") => return Ok(HostCheck::None),
        Some("yes") => return Ok(HostCheck::KnownHosts),
        Some(text) => {
            let parts = text.split_once(':');
            let hash = parts.and_then(|(name, hash)| Some((hash_named(name)?, hash)));
            let (kind, hash) = hash.ok_or_else(|| {
                Error::invalid(format!("unknown host_key_check setting ({text})"))
            })?;
            return Ok(HostCheck::Hash(kind, hash.to_owned()));
        }
        None => {}
    }
    let unexpected = |name: &str| Error::unexpected_parameter(name);
    match mode {
        Some("hash") => {
            let kind = kind.ok_or_else(|| Error::missing_parameter("host-key-check.type"))?;
            let hash = hash.ok_or_else(|| Error::missing_parameter("host-key-check.hash"))?;
            let kind = hash_named(kind).ok_or_else(|| Error::refused_value("type", kind))?;
            Ok(HostCheck::Hash(kind, hash.to_owned()))
        }
        None if kind.is_some() || hash.is_some() => {
            Err(Error::missing_parameter("host-key-check.mode"))
        }
        None | Some("none" | "known_hosts") if kind.is_some() => {
            Err(unexpected("host-key-check.type"))
        }
        None | Some("none" | "known_hosts") if hash.is_some() => {
            Err(unexpected("host-key-check.hash"))
        }
        Some("none") => Ok(HostCheck::None),
        None | Some("known_hosts") => Ok(HostCheck::KnownHosts),
        Some(other) => Err(Error::refused_value("mode", other)),
    }
}

impl Settings {
    /// Builds the settings from options that have been checked.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`]; errors of a secret.
    pub(super) fn of(options: &Values, objects: &Objects) -> Result<Self> {
        let given = options.iter().any(|(key, _)| key.starts_with("server."));
        let (host, port) = (options.str("host"), options.str("port"));
        if given && (host.is_some() || port.is_some()) {
            return Err(Error::invalid(
                "Cannot use 'server' and host/port at the same time",
            ));
        }
        if port.is_some() && host.is_none() {
            return Err(Error::invalid("port may not be used without host"));
        }
        let (host, port) = if given {
            (
                options
                    .str("server.host")
                    .ok_or_else(|| Error::missing_parameter("server.host"))?,
                Some(
                    options
                        .str("server.port")
                        .ok_or_else(|| Error::missing_parameter("server.port"))?,
                ),
            )
        } else {
            (
                host.ok_or_else(|| Error::missing_parameter("server"))?,
                port,
            )
        };
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| Error::invalid("Use only numeric port value"))?,
        };
        if options.bool("server.numeric") == Some(true) && host.parse::<std::net::IpAddr>().is_err()
        {
            return Err(Error::invalid(format!(
                "'{host}' is not the number of a host"
            )));
        }
        let family = match (options.bool("server.ipv4"), options.bool("server.ipv6")) {
            (Some(false), Some(false)) => {
                return Err(Error::invalid("Cannot disable IPv4 and IPv6 at same time"));
            }
            (_, Some(false)) | (Some(true), None) => Family::V4,
            (Some(false), _) | (None, Some(true)) => Family::V6,
            (None, None) | (Some(true), Some(true)) => Family::Any,
        };
        let path = options
            .name("path")
            .ok_or_else(|| Error::missing_parameter("path"))?;
        if path.is_empty() || path.len() > MAX_PATH || path.find_byte(0).is_some() {
            return Err(Error::invalid(
                "The path on the server is empty or too long",
            ));
        }
        let user = match options.str("user") {
            Some(user) => user.to_owned(),
            None => user::name().ok_or_else(|| Error::invalid("Can't get user name"))?,
        };
        let secret = |key: &str| options.str(key).map(|id| objects.secret_text(id));
        Ok(Self {
            host: host.to_owned(),
            port,
            family,
            keep_alive: options.bool("server.keep-alive").unwrap_or(false),
            timeout: match options.num("timeout").unwrap_or(DEFAULT_TIMEOUT) {
                0 => None,
                seconds => Some(Duration::from_secs(seconds)),
            },
            user,
            path: path.to_owned(),
            check: host_check(options)?,
            identity: options.name("identity").map(BStr::to_owned),
            passphrase: secret("identity-secret").transpose()?,
            password: secret("password-secret").transpose()?,
            known_hosts: options.name("known-hosts").map(BStr::to_owned),
        })
    }

    /// The address of the server.
    pub(super) fn address(&self) -> Address {
        Address::Inet {
            host: self.host.clone(),
            port: self.port.to_string(),
            family: self.family,
        }
    }

    /// Identifies the file among all others, whichever user opens it.
    pub(super) fn place(&self) -> BString {
        let server = format!("ssh://{}:{}/", self.host.to_ascii_lowercase(), self.port);
        [server.as_bytes(), &self.path].concat().into()
    }
}

/// Merges the options with those in the name of the target; also returns the name to show.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`]; errors of a secret.
pub(super) fn settings_of(
    target: &StorageTarget<'_>,
    options: &Values,
    objects: &Objects,
) -> Result<(Settings, BString)> {
    let (given, values) = given_options(target, options, OPTIONS, parse_file_name)?;
    let settings = Settings::of(&values, objects)?;
    let name = file_name(&given).unwrap_or_else(|| settings.place());
    Ok((settings, name))
}

/// Parses a file name into options: `ssh://[USER@]HOST[:PORT]/PATH[?host_key_check=…]`.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for a name of any other form.
pub(super) fn parse_file_name(name: &BStr) -> Result<Map<String, Value>> {
    let no_host = || Error::invalid("missing hostname in URI");
    let strange = || Error::invalid("The URI is not valid");
    let mut options = Map::new();
    let mut set = |key: &str, value: &BStr| {
        options.insert(key.to_owned(), Value::String(value.to_owned()));
    };
    let (_, rest) = name.split_once_str("://").ok_or_else(no_host)?;
    let rest = rest.split_once_str("#").map_or(rest, |(before, _)| before);
    let (rest, query) = rest.split_once_str("?").unwrap_or((rest, b""));
    let path_at = rest.find_byte(b'/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(path_at);
    let (user, server) = match authority.rsplit_once_str("@") {
        Some((user, server)) => (Some(user), server),
        None => (None, authority),
    };
    let (host, port) = match server.strip_prefix(b"[") {
        Some(rest) => {
            let (host, rest) = rest.split_once_str("]").ok_or_else(strange)?;
            match rest.strip_prefix(b":") {
                Some(port) => (host, port),
                None if rest.is_empty() => (host, rest),
                None => return Err(strange()),
            }
        }
        None => server.split_once_str(":").unwrap_or((server, b"")),
    };
    if host.is_empty() {
        return Err(no_host());
    }
    if path.is_empty() {
        return Err(Error::invalid("missing remote path in URI"));
    }
    let host = decoded(host).ok_or_else(strange)?;
    set("host", host.as_bstr());
    if !port.is_empty() {
        set("port", port.as_bstr());
    }
    if let Some(user) = user.filter(|user| !user.is_empty()) {
        if user.contains(&b':') {
            return Err(Error::invalid(
                "The URI has a password, which is to be given as a secret",
            ));
        }
        set("user", decoded(user).ok_or_else(strange)?.as_bstr());
    }
    set("path", decoded(path).ok_or_else(strange)?.as_bstr());
    for pair in query.split_str("&").filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once_str("=").unwrap_or((pair, b""));
        let key = key.to_str_lossy();
        if !IN_QUERY.contains(&&*key) {
            return Err(Error::invalid(format!(
                "Unsupported parameter '{key}' in URI"
            )));
        }
        set(&key, decoded(value).ok_or_else(strange)?.as_bstr());
    }
    Ok(options)
}

/// The short name that reopens the file, where there is one.
pub(super) fn file_name(given: &Map<String, Value>) -> Option<BString> {
    const HELD: [&str; 7] = [
        "host",
        "host_key_check",
        "path",
        "port",
        "server.host",
        "server.port",
        "user",
    ];
    let options = flatten(given);
    let all = options
        .iter()
        .all(|(key, _)| HELD.contains(&key) || WEAK.contains(&key));
    if !all {
        return None;
    }
    let text = |key: &str| options.get(key);
    let host = text("host").or(text("server.host"))?;
    let default = DEFAULT_PORT.to_string();
    let port = text("port").or(text("server.port"));
    let port = port.unwrap_or(default.as_bytes().as_bstr());
    let path = text("path")?;
    let user = match text("user") {
        Some(user) => user.to_owned(),
        None => user::name()?.into(),
    };
    let (open, close) = match host.contains(&b':') {
        true => ("[", "]"),
        false => ("", ""),
    };
    let mut name: BString = [
        b"ssh://",
        user.as_slice(),
        b"@",
        open.as_bytes(),
        host,
        close.as_bytes(),
        b":",
        port,
    ]
    .concat()
    .into();
    if !path.starts_with(b"/") {
        // Relative to the user's home directory, which no URL can express.
        return None;
    }
    name.extend_from_slice(path);
    if let Some(check) = text("host_key_check") {
        name.extend_from_slice(b"?host_key_check=");
        name.extend_from_slice(check);
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    fn of_list(list: &str) -> Result<Settings> {
        let options = Options::parse(list)?;
        Settings::of(&Values::check(&options, OPTIONS)?, &Objects::new())
    }

    fn of_name(name: &str) -> Result<Settings> {
        let options = flatten(&parse_file_name(name.into())?);
        Settings::of(&Values::check(&options, OPTIONS)?, &Objects::new())
    }

    #[test]
    fn file_names_stand_for_options_and_come_back() {
        let settings = of_name("ssh://u%20v@h:7/a%20b/c?host_key_check=no&identity=/k").unwrap();
        assert_eq!((settings.host.as_str(), settings.port), ("h", 7));
        assert_eq!(settings.user, "u v");
        assert_eq!(settings.path, "/a b/c");
        assert_eq!(settings.check, HostCheck::None);
        assert_eq!(settings.identity, Some("/k".into()));
        for (name, shown) in [
            ("ssh://u@h/p", "ssh://u@h:22/p"),
            (
                "ssh://u@[::1]:5/p?host_key_check=sha1:00",
                "ssh://u@[::1]:5/p?host_key_check=sha1:00",
            ),
            ("ssh://u@h/p?password-secret=s", "ssh://u@h:22/p"),
        ] {
            let parsed = parse_file_name(name.into()).unwrap();
            assert_eq!(file_name(&parsed).unwrap(), shown);
        }
        assert_eq!(of_name("ssh://u@h/p").unwrap().check, HostCheck::KnownHosts);
    }

    #[test]
    fn names_of_another_form_are_refused() {
        for (name, text) in [
            ("ssh:", "missing hostname in URI"),
            ("ssh://", "missing hostname in URI"),
            ("ssh:///x", "missing hostname in URI"),
            ("ssh://h", "missing remote path in URI"),
            ("ssh://h:x/y", "Use only numeric port value"),
            ("ssh://h:0/y", "Use only numeric port value"),
            ("ssh://[::1/y", "The URI is not valid"),
            ("ssh://h/%zz", "The URI is not valid"),
            (
                "ssh://u@h/y?bogus=1",
                "Unsupported parameter 'bogus' in URI",
            ),
            (
                "ssh://u:p@h/y",
                "The URI has a password, which is to be given as a secret",
            ),
            (
                "ssh://u@h/y?host_key_check=x",
                "unknown host_key_check setting (x)",
            ),
        ] {
            assert_eq!(of_name(name).unwrap_err().to_string(), text, "{name}");
        }
    }

    #[test]
    fn options_that_say_too_little_or_too_much_are_refused() {
        for (list, text) in [
            ("path=p", "Parameter 'server' is missing"),
            ("host=h", "Parameter 'path' is missing"),
            ("port=1,path=p", "port may not be used without host"),
            ("server.host=h,path=p", "Parameter 'server.port' is missing"),
            ("server.port=1,path=p", "Parameter 'server.host' is missing"),
            (
                "server.host=h,server.port=x,path=p",
                "Use only numeric port value",
            ),
            (
                "server.host=h,server.port=1,host=h,path=p",
                "Cannot use 'server' and host/port at the same time",
            ),
            (
                "host=h,path=p,user=u,host-key-check.mode=x",
                "Parameter 'mode' does not accept value 'x'",
            ),
            (
                "host=h,path=p,user=u,host-key-check.mode=hash",
                "Parameter 'host-key-check.type' is missing",
            ),
            (
                "host=h,path=p,user=u,host-key-check.mode=hash,host-key-check.type=md5",
                "Parameter 'host-key-check.hash' is missing",
            ),
            (
                "host=h,path=p,user=u,host-key-check.mode=none,host-key-check.hash=0",
                "Parameter 'host-key-check.hash' is unexpected",
            ),
            (
                "host=h,path=p,user=u,host-key-check.type=md5",
                "Parameter 'host-key-check.mode' is missing",
            ),
            (
                "host=h,path=p,user=u,host-key-check.mode=none,host_key_check=no",
                "host_key_check and host-key-check may not be used at the same time",
            ),
        ] {
            assert_eq!(of_list(list).unwrap_err().to_string(), text, "{list}");
        }
        let hash = of_list(
            "host=h,path=p,user=u,host-key-check.mode=hash,host-key-check.type=sha1,host-key-check.hash=a:b",
        );
        let expected = HostCheck::Hash(Hash::Sha1, "a:b".to_owned());
        assert_eq!(hash.unwrap().check, expected);
    }
}
