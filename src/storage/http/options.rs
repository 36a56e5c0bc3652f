//! What is wanted of which server, and how: options, and the URLs that stand for them.

use std::time::Duration;

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, Result};
use crate::net::Url;
use crate::net::tls::{Endpoint, TlsCredentials};
use crate::object::Objects;
use crate::options::{OptionKind, OptionSpec, Values, option};
use crate::printable::without_passwords;
use crate::secret::Secret;
use crate::size::SECTOR;
use crate::value::{Map, Value};

use super::login::basic;
use super::proxy::Proxies;

const DEFAULT_CONNECTIONS: u64 = 8;
const MAX_CONNECTIONS: u64 = 16;
/// The most that is read ahead with one request.
const DEFAULT_READ_AHEAD: u64 = 4 << 20;
const MAX_READ_AHEAD: u64 = 8 << 20;
const DEFAULT_TIMEOUT: u64 = 5;
const MAX_TIMEOUT: u64 = 10_000;
const DEFAULT_RETRY: u64 = 30;

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
    option(
        "password-secret",
        OptionKind::Str,
        "ID of the secret with the password",
    ),
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
    OptionSpec {
        default: Some("4M"),
        ..option(
            "readahead",
            OptionKind::Size,
            "The most that is read ahead with one request",
        )
    },
    OptionSpec {
        default: Some("30"),
        ..option(
            "retry-timeout",
            OptionKind::Num,
            "Seconds for which requests that fail are made again",
        )
    },
    OptionSpec {
        default: Some("off"),
        ..option(
            "spool",
            OptionKind::Bool,
            "Where the server knows no byte ranges, take all into a temporary file",
        )
    },
    OptionSpec {
        default: Some("on"),
        ..option(
            "sslverify",
            OptionKind::Bool,
            "Check the server's certificate",
        )
    },
    OptionSpec {
        default: Some("5"),
        ..option(
            "timeout",
            OptionKind::Num,
            "Seconds for which a server may be silent; 0 is for ever",
        )
    },
    option("tls-creds", OptionKind::Str, "ID of the TLS credentials"),
    option("url", OptionKind::Name, "URL of the image"),
    option("username", OptionKind::Str, "Name of the user"),
];

/// Options that say how an image is read, not which; and those with what only some may see.
pub(super) const WEAK: &[&str] = &[
    "bearer-secret",
    "connections",
    "cookie",
    "headers-secret",
    "readahead",
    "retry-timeout",
    "spool",
    "timeout",
    "tls-creds",
];

/// Lines of a request that open something.
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

/// What is wanted.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) url: Url,
    /// For the server of the URL alone.
    pub(super) headers: Headers,
    pub(super) proxies: Proxies,
    pub(super) connections: usize,
    pub(super) read_ahead: u64,
    pub(super) timeout: Option<Duration>,
    pub(super) retry: Duration,
    pub(super) spool: bool,
    pub(super) verify: bool,
    pub(super) tls: Option<TlsCredentials>,
}

impl Settings {
    /// Of checked options.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`], or of a secret.
    pub(super) fn of(scheme: &str, options: &Values, objects: &Objects) -> Result<Self> {
        let text = options
            .name("url")
            .ok_or_else(|| Error::invalid("curl block driver requires an 'url' option"))?;
        check_scheme(scheme, text)?;
        let read_ahead = options.num("readahead").unwrap_or(DEFAULT_READ_AHEAD);
        if !read_ahead.is_multiple_of(SECTOR) {
            return Err(Error::invalid(format!(
                "HTTP_READAHEAD_SIZE {read_ahead} is not a multiple of 512"
            )));
        }
        let timeout = options.num("timeout").unwrap_or(DEFAULT_TIMEOUT);
        if timeout > MAX_TIMEOUT {
            return Err(Error::invalid("timeout parameter is too large or negative"));
        }
        let connections = options.num("connections").unwrap_or(DEFAULT_CONNECTIONS);
        if !(1..=MAX_CONNECTIONS).contains(&connections) {
            return Err(Error::invalid(format!(
                "Parameter 'connections' expects a number from 1 to {MAX_CONNECTIONS}"
            )));
        }
        let verify = options.bool("sslverify").unwrap_or(true);
        let tls = options.str("tls-creds");
        if tls.is_some() && !verify {
            return Err(Error::invalid(
                "'sslverify' and 'tls-creds' are mutually exclusive: the credentials say whether the server is checked",
            ));
        }
        let tls = tls
            .map(|id| objects.tls(id, Endpoint::Client))
            .transpose()?;
        let mut url = Url::parse(text)?;
        let headers = headers(&url, options, objects)?;
        (url.user, url.password) = (None, None);
        let secret = |key| {
            options
                .str(key)
                .map(|id| objects.secret_text(id))
                .transpose()
        };
        let proxy_password = secret("proxy-password-secret")?;
        let proxy_user = options.str("proxy-username");
        let proxy_user = proxy_user.or(proxy_password.as_ref().map(|_| ""));
        let proxy_login = proxy_user.map(|user| basic(user, proxy_password.as_ref()));
        Ok(Self {
            url,
            headers,
            proxies: Proxies::of_environment(proxy_login),
            connections: usize::try_from(connections).unwrap_or(1),
            read_ahead: read_ahead.min(MAX_READ_AHEAD),
            timeout: (timeout > 0).then(|| Duration::from_secs(timeout)),
            retry: Duration::from_secs(options.num("retry-timeout").unwrap_or(DEFAULT_RETRY)),
            spool: options.bool("spool").unwrap_or(false),
            verify,
            tls,
        })
    }
}

fn check_scheme(scheme: &str, text: &BStr) -> Result<()> {
    let begin = format!("{scheme}://");
    if text.starts_with(begin.as_bytes()) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{scheme} curl driver cannot handle the URL '{}' (does not start with '{begin}')",
        without_passwords(text).as_bstr()
    )))
}

fn headers(url: &Url, options: &Values, objects: &Objects) -> Result<Headers> {
    let secret = |key: &str| {
        options
            .str(key)
            .map(|id| objects.secret_text(id))
            .transpose()
    };
    let mut headers = Headers::default();
    let password = secret("password-secret")?.or(url.password.clone());
    let user = options.str("username").or(url.user.as_deref());
    let user = user.or(password.as_ref().map(|_| ""));
    let bearer = secret("bearer-secret")?;
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
    if let Some(further) = secret("headers-secret")? {
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
    // These are the requests' own.
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

/// The options that a URL stands for.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for one of another form.
pub(super) fn parse_file_name(scheme: &str, name: &BStr) -> Result<Map<String, Value>> {
    check_scheme(scheme, name)?;
    let mut options = Map::new();
    options.insert("url".to_owned(), Value::String(name.to_owned()));
    Ok(options)
}

/// The URL that opens the image again, where it says all.
pub(super) fn file_name(given: &Map<String, Value>) -> Option<BString> {
    let only = given.iter().all(|(key, _)| key == "url");
    let url = given.get("url").filter(|_| only)?;
    url.as_name()
        .map(|url| without_passwords(url).into_owned().into())
}
