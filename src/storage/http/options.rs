//! The settings: which image of which server to read, and how; from options, or URLs that stand for them.

use bstr::ByteSlice;

use crate::error::{Error, Result};
use crate::net::Url;
use crate::object::Objects;
use crate::options::{OptionKind, OptionSpec, Values, option};
use crate::secret::Secret;
use crate::storage::remote::options::{secret, spec};
use crate::storage::remote::{self, Terms};

use super::login::basic;
use super::proxy::Proxies;

const DEFAULT_CONNECTIONS: u64 = 8;

pub(super) const OPTIONS: &[OptionSpec] = &[
    option(
        "bearer-secret",
        OptionKind::Str,
        "ID of the secret with a token that opens the image",
    ),
    OptionSpec {
        default: Some("8"),
        ..option("connections", OptionKind::Num, "Connections (1 to 16)")
    },
    option("cookie", OptionKind::Str, "Cookies, as they are sent"),
    option(
        "cookie-secret",
        OptionKind::Str,
        "ID of the secret with the cookies",
    ),
    option(
        "headers-secret",
        OptionKind::Str,
        "ID of the secret with further headers, one a line",
    ),
    spec::PASSWORD,
    option(
        "proxy-password-secret",
        OptionKind::Str,
        "ID of the secret with the password for the proxy",
    ),
    option(
        "proxy-username",
        OptionKind::Str,
        "Name of the user for the proxy",
    ),
    spec::READ_AHEAD,
    spec::RETRY,
    OptionSpec {
        default: Some("off"),
        ..option(
            "spool",
            OptionKind::Bool,
            "Where the server knows no byte ranges, take all into a temporary file",
        )
    },
    OptionSpec {
        default: Some("off"),
        ..option(
            "stream",
            OptionKind::Bool,
            "Where the server knows no byte ranges, read in one pass, in order",
        )
    },
    spec::VERIFY,
    spec::TIMEOUT,
    spec::TLS,
    spec::URL,
    spec::USER,
];

/// Options that say how an image is read, not which one; and those with confidential values.
pub(super) const WEAK: &[&str] = &[
    "bearer-secret",
    "connections",
    "cookie",
    "headers-secret",
    "readahead",
    "retry-timeout",
    "spool",
    "stream",
    "timeout",
    "tls-creds",
];

/// Headers with credentials.
#[derive(Clone, Debug, Default)]
pub(super) struct Headers(Vec<(String, Secret)>);

impl Headers {
    fn push(&mut self, name: &str, value: Secret) {
        self.0.push((name.to_owned(), value));
    }

    /// The names and values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.bytes()))
    }
}

/// The settings of an image.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) url: Url,
    /// Only for the server of the URL.
    pub(super) headers: Headers,
    pub(super) proxies: Proxies,
    pub(super) terms: Terms,
    pub(super) without_ranges: WithoutRanges,
}

/// What to do with a server without byte ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WithoutRanges {
    /// Refuse it.
    Refused,
    /// Copy all that it sends to a temporary file before anything is read.
    Spooled,
    /// Read the image in the order in which it arrives.
    InOrder,
}

impl WithoutRanges {
    fn of(options: &Values) -> Result<Self> {
        let is_on = |key| options.bool(key).unwrap_or(false);
        match (is_on("spool"), is_on("stream")) {
            (false, false) => Ok(Self::Refused),
            (true, false) => Ok(Self::Spooled),
            (false, true) => Ok(Self::InOrder),
            (true, true) => Err(Error::invalid(
                "'spool' and 'stream' are mutually exclusive",
            )),
        }
    }
}

impl Settings {
    /// Builds the settings from options that have been checked.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`], or errors of a secret.
    pub(super) fn of(scheme: &str, options: &Values, objects: &Objects) -> Result<Self> {
        let mut url = remote::options::url(scheme, options)?;
        let terms = Terms::of(options, objects, DEFAULT_CONNECTIONS)?;
        let headers = headers(&url, options, objects)?;
        (url.user, url.password) = (None, None);
        let proxy_password = secret(options, "proxy-password-secret", objects)?;
        let proxy_user = options.str("proxy-username");
        let proxy_user = proxy_user.or(proxy_password.as_ref().map(|_| ""));
        let proxy_login = proxy_user.map(|user| basic(user, proxy_password.as_ref()));
        Ok(Self {
            url,
            headers,
            proxies: Proxies::of_environment(proxy_login),
            terms,
            without_ranges: WithoutRanges::of(options)?,
        })
    }
}

fn headers(url: &Url, options: &Values, objects: &Objects) -> Result<Headers> {
    let mut headers = Headers::default();
    let password = secret(options, "password-secret", objects)?.or(url.password.clone());
    let user = options.str("username").or(url.user.as_deref());
    let user = user.or(password.as_ref().map(|_| ""));
    let bearer = secret(options, "bearer-secret", objects)?;
    match (user, bearer) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid(
                "A user and 'bearer-secret' are mutually exclusive",
            ));
        }
        (Some(user), None) => headers.push("Authorization", basic(user, password.as_ref())),
        (None, Some(token)) => {
            let line = [b"Bearer ", token.bytes().trim_ascii()].concat();
            headers.push("Authorization", Secret::new(line));
        }
        (None, None) => {}
    }
    let cookie = options.str("cookie").map(Secret::new);
    match (cookie, options.str("cookie-secret")) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid(
                "curl driver cannot handle both cookie and cookie secret",
            ));
        }
        (Some(cookie), None) => headers.push("Cookie", cookie),
        (None, Some(id)) => {
            let cookie = objects.secret_text(id)?;
            headers.push("Cookie", Secret::new(cookie.bytes().trim_ascii()));
        }
        (None, None) => {}
    }
    if let Some(further) = secret(options, "headers-secret", objects)? {
        for line in further.bytes().lines().filter(|line| !line.is_empty()) {
            let (name, value) = header_line(line).ok_or_else(|| {
                Error::invalid(
                    "The secret of 'headers-secret' has a line that is not 'NAME: VALUE'",
                )
            })?;
            headers.push(name, Secret::new(value));
        }
    }
    for (name, value) in headers.iter() {
        if value
            .iter()
            .any(|byte| byte.is_ascii_control() && *byte != b'\t')
        {
            return Err(Error::invalid(format!(
                "The value of the header '{name}' has a control character"
            )));
        }
    }
    Ok(headers)
}

fn header_line(line: &[u8]) -> Option<(&str, &[u8])> {
    let (name, value) = line.split_once_str(":")?;
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let plain = !name.is_empty() && name.iter().all(is_name);
    // Requests set these themselves.
    let own = [
        "host",
        "range",
        "connection",
        "content-length",
        "transfer-encoding",
        "accept-encoding",
    ];
    let name = name.to_str().ok().filter(|_| plain)?;
    let taken = own.iter().any(|own| name.eq_ignore_ascii_case(own));
    (!taken).then(|| (name, value.trim_ascii()))
}
