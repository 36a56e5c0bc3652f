//! The settings: which file of which server to read, and how.

use bstr::{BString, ByteSlice};

use crate::error::{Error, Result};
use crate::net::Url;
use crate::net::url::decoded;
use crate::object::Objects;
use crate::options::{OptionKind, OptionSpec, Values, option};
use crate::secret::Secret;
use crate::storage::remote::Terms;
use crate::storage::remote::options::{secret, spec, url};

/// Servers often allow no more than this per host.
const DEFAULT_CONNECTIONS: u64 = 4;
/// The default port of sessions that are encrypted from the first byte on.
const TLS_PORT: u16 = 990;
const PORT: u16 = 21;
/// The user name if none is given, and the password that goes with it.
const ANYBODY: (&str, &str) = ("anonymous", "ftp@example.com");
/// Maximum length of the argument of a command.
const MAX_ARGUMENT: usize = 4096;

pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        default: Some("4"),
        ..option("connections", OptionKind::Num, "Connections (1 to 16)")
    },
    spec::PASSWORD,
    spec::READ_AHEAD,
    spec::RETRY,
    spec::VERIFY,
    spec::TIMEOUT,
    OptionSpec {
        default: Some("off"),
        ..option(
            "tls",
            OptionKind::Bool,
            "Ask the server for TLS before the user is named",
        )
    },
    spec::TLS,
    spec::URL,
    spec::USER,
];

/// Options that say how an image is read, not which one.
pub(super) const WEAK: &[&str] = &[
    "connections",
    "readahead",
    "retry-timeout",
    "timeout",
    "tls-creds",
];

/// When a session is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    Never,
    /// From the first byte on.
    Implicit,
    /// Once it has been requested.
    Explicit,
}

/// The settings of an image.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) url: Url,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: Secret,
    pub(super) path: BString,
    pub(super) encryption: Encryption,
    pub(super) terms: Terms,
}

impl Settings {
    /// Builds the settings from options that have been checked.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`], or errors of a secret.
    pub(super) fn of(scheme: &str, options: &Values, objects: &Objects) -> Result<Self> {
        let mut url = url(scheme, options)?;
        let asked = options.bool("tls");
        let encryption = match (scheme == "ftps", asked) {
            (true, Some(false)) => {
                return Err(Error::invalid(
                    "Option 'tls' is off where the URL wants every byte encrypted",
                ));
            }
            (true, _) => Encryption::Implicit,
            (false, Some(true)) => Encryption::Explicit,
            (false, _) => Encryption::Never,
        };
        let password = secret(options, "password-secret", objects)?.or(url.password.take());
        let user = options.str("username").map(str::to_owned);
        let user = user.or(url.user.take());
        let (user, password) = match (user, password) {
            (Some(user), password) => (user, password.unwrap_or_else(|| Secret::new(""))),
            (None, Some(password)) => (ANYBODY.0.to_owned(), password),
            (None, None) => (ANYBODY.0.to_owned(), Secret::new(ANYBODY.1)),
        };
        check_argument("user", user.as_bytes())?;
        check_argument("password", password.bytes())?;
        let path = path(&url)?;
        let default = match encryption {
            Encryption::Implicit => TLS_PORT,
            Encryption::Never | Encryption::Explicit => PORT,
        };
        Ok(Self {
            port: url.port.unwrap_or(default),
            user,
            password,
            path,
            encryption,
            terms: Terms::of(options, objects, DEFAULT_CONNECTIONS)?,
            url,
        })
    }

    /// Identifies the file by server, user and path.
    pub(super) fn identity(&self) -> BString {
        let Self { url, port, .. } = self;
        let place = format!("{}://{}@{}:{port}/", url.scheme, self.user, url.host);
        [place.as_bytes(), &self.path].concat().into()
    }
}

/// Refuses what would end the line of a command, and with it the command.
fn check_argument(what: &str, text: &[u8]) -> Result<()> {
    if text.len() > MAX_ARGUMENT {
        return Err(Error::invalid(format!("The {what} is too long for FTP")));
    }
    match text.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        false => Ok(()),
        true => Err(Error::invalid(format!(
            "The {what} has the end of a line or a zero byte"
        ))),
    }
}

/// The path to send: relative to the user's initial directory, unless it begins with a second slash.
fn path(url: &Url) -> Result<BString> {
    let target = url.target.as_bytes();
    let target = target.strip_prefix(b"/").unwrap_or(target);
    let (target, kind) = match target.rsplit_once_str(";type=") {
        Some((target, kind)) => (target, kind),
        None => (target, &b"i"[..]),
    };
    if !kind.eq_ignore_ascii_case(b"i") {
        return Err(Error::invalid(
            "The URL wants another type than an image, which is 'i'",
        ));
    }
    let path = decoded(target).ok_or_else(|| Error::invalid("The path of the URL is damaged"))?;
    check_argument("path", &path)?;
    if path.is_empty() || path.ends_with(b"/") {
        return Err(Error::invalid("The URL names a directory"));
    }
    Ok(path)
}
