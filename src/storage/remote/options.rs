//! Options for how a server is accessed, and the URLs that stand for them.

use std::time::{Duration, Instant};

use bstr::{BStr, BString, ByteSlice};
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::net::tls::{Endpoint, TlsCredentials};
use crate::net::{Url, Wait};
use crate::object::Objects;
use crate::options::{OptionKind, OptionSpec, Values, option};
use crate::printable::without_passwords;
use crate::secret::Secret;
use crate::size::SECTOR;
use crate::value::{Map, Value};

const MAX_CONNECTIONS: u64 = 16;
/// Maximum read-ahead of one request.
const DEFAULT_READ_AHEAD: u64 = 4 << 20;
const MAX_READ_AHEAD: u64 = 8 << 20;
const DEFAULT_TIMEOUT: u64 = 5;
const MAX_TIMEOUT: u64 = 10_000;
const DEFAULT_RETRY: u64 = 30;
/// The same for the first request for an image, where someone may be waiting for the outcome.
const DEFAULT_RETRY_OPENING: u64 = 5;
/// Minimum rate of a response in bytes per second.
const LEAST_RATE: u64 = 16 << 10;

/// Options common to all these drivers, for use in their tables.
pub(in crate::storage) mod spec {
    use super::{OptionKind, OptionSpec, option};

    pub(in crate::storage) const PASSWORD: OptionSpec = option(
        "password-secret",
        OptionKind::Str,
        "ID of the secret with the password",
    );
    pub(in crate::storage) const READ_AHEAD: OptionSpec = OptionSpec {
        default: Some("4M"),
        ..option(
            "readahead",
            OptionKind::Size,
            "The most that is read ahead with one request",
        )
    };
    pub(in crate::storage) const RETRY: OptionSpec = OptionSpec {
        default: Some("30"),
        ..option(
            "retry-timeout",
            OptionKind::Num,
            "Seconds for which requests that fail are made again",
        )
    };
    pub(in crate::storage) const VERIFY: OptionSpec = OptionSpec {
        default: Some("on"),
        ..option(
            "sslverify",
            OptionKind::Bool,
            "Check the server's certificate",
        )
    };
    pub(in crate::storage) const TIMEOUT: OptionSpec = OptionSpec {
        default: Some("5"),
        ..option(
            "timeout",
            OptionKind::Num,
            "Seconds for which a server may be silent; 0 is for ever",
        )
    };
    pub(in crate::storage) const TLS: OptionSpec =
        option("tls-creds", OptionKind::Str, "ID of the TLS credentials");
    pub(in crate::storage) const URL: OptionSpec =
        option("url", OptionKind::Name, "URL of the image");
    pub(in crate::storage) const USER: OptionSpec =
        option("username", OptionKind::Str, "Name of the user");
}

/// The settings for accessing a server.
#[derive(Debug)]
pub(in crate::storage) struct Terms {
    pub(in crate::storage) connections: usize,
    /// The number of connections was not set explicitly.
    pub(in crate::storage) may_widen: bool,
    pub(in crate::storage) read_ahead: u64,
    pub(in crate::storage) timeout: Option<Duration>,
    pub(in crate::storage) retry: Duration,
    /// The same for the first request for an image.
    pub(in crate::storage) retry_opening: Duration,
    verify: bool,
    /// The credentials that servers are verified against; loaded on first use.
    trust: Mutex<Option<TlsCredentials>>,
}

impl Terms {
    /// Builds the settings from options that have been checked.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`]; errors of the TLS credentials.
    pub(in crate::storage) fn of(
        options: &Values,
        objects: &Objects,
        default_connections: u64,
    ) -> Result<Self> {
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
        let connections = options.num("connections").unwrap_or(default_connections);
        if !(1..=MAX_CONNECTIONS).contains(&connections) {
            return Err(Error::invalid(format!(
                "Parameter 'connections' expects a number from 1 to {MAX_CONNECTIONS}"
            )));
        }
        let retry = options.num("retry-timeout");
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
        Ok(Self {
            connections: usize::try_from(connections).unwrap_or(1),
            may_widen: options.num("connections").is_none(),
            read_ahead: read_ahead.min(MAX_READ_AHEAD),
            timeout: (timeout > 0).then(|| Duration::from_secs(timeout)),
            retry: Duration::from_secs(retry.unwrap_or(DEFAULT_RETRY)),
            retry_opening: Duration::from_secs(retry.unwrap_or(DEFAULT_RETRY_OPENING)),
            verify,
            trust: Mutex::new(tls),
        })
    }

    /// The credentials that servers are verified against.
    ///
    /// # Errors
    /// Where the system's certificate authorities cannot be loaded.
    pub(in crate::storage) fn trust(&self) -> Result<TlsCredentials> {
        let mut trust = self.trust.lock();
        if let Some(known) = &*trust {
            return Ok(known.clone());
        }
        let made = TlsCredentials::system(self.verify)?;
        *trust = Some(made.clone());
        Ok(made)
    }

    /// The wait for one step of an exchange with the server.
    pub(in crate::storage) fn wait<'a>(&self, control: &'a JobControl) -> Wait<'a> {
        let wait = Wait::new(control);
        match self.timeout {
            Some(timeout) => wait.at_most(timeout),
            None => wait,
        }
    }

    /// Deadline for `len` bytes to arrive: a server that sends a byte now and then would otherwise never time out.
    pub(in crate::storage) fn body_end(&self, len: u64) -> Option<Instant> {
        let slow = self.timeout? + Duration::from_secs(len / LEAST_RATE);
        Instant::now().checked_add(slow)
    }

    /// Describes an error where it is a timeout of the server; an expired or cancelled job takes precedence.
    pub(in crate::storage) fn silent(&self, error: Error, control: &JobControl) -> Error {
        if let Err(over) = control.check() {
            return over;
        }
        match (error.errno(), self.timeout) {
            (libc::ETIMEDOUT, Some(timeout)) if error.kind() == ErrorKind::Os => error
                .with_message(format!(
                    "The server has not answered within {} seconds",
                    timeout.as_secs()
                )),
            _ => error,
        }
    }
}

/// The URL in checked options, as given; its scheme must be `scheme`.
///
/// # Errors
/// [`ErrorKind::Invalid`].
pub(in crate::storage) fn url(scheme: &str, options: &Values) -> Result<Url> {
    let text = options
        .name("url")
        .ok_or_else(|| Error::invalid("curl block driver requires an 'url' option"))?;
    check_scheme(scheme, text)?;
    Url::parse(text)
}

/// The contents of the secret that an option names.
///
/// # Errors
/// Errors of the secret.
pub(in crate::storage) fn secret(
    options: &Values,
    key: &str,
    objects: &Objects,
) -> Result<Option<Secret>> {
    let id = options.str(key);
    id.map(|id| objects.secret_text(id)).transpose()
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

/// The options that a URL stands for.
///
/// # Errors
/// [`ErrorKind::Invalid`] for a URL of another scheme.
pub(in crate::storage) fn parse_file_name(scheme: &str, name: &BStr) -> Result<Map<String, Value>> {
    check_scheme(scheme, name)?;
    let mut options = Map::new();
    options.insert("url".to_owned(), Value::String(name.to_owned()));
    Ok(options)
}

/// The URL that reopens the image, where no other option is needed.
pub(in crate::storage) fn file_name(given: &Map<String, Value>) -> Option<BString> {
    let only = given.iter().all(|(key, _)| key == "url");
    let url = given.get("url").filter(|_| only)?;
    url.as_name()
        .map(|url| without_passwords(url).into_owned().into())
}
