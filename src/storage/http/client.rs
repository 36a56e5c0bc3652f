//! A few connections to servers, kept open as long as they are useful.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::net::{Stream, Url, Wait, connect};
use crate::storage::remote::{Lanes, Terms, ended};

use super::body::Body;
use super::connection::Connection;
use super::head::{Head, Request, is_busy};
use super::options::Settings;
use super::proxy::{PROXY_HINT, Proxy};

/// Size of the kernel's buffers for a connection.
const KERNEL_BUFFER: usize = 2 << 20;
/// Maximum time to spend on the rest of a response.
const REST: Duration = Duration::from_millis(50);
/// The value of the User-Agent header.
const AGENT: &str = concat!("platter/", env!("CARGO_PKG_VERSION"));

/// The connections.
#[derive(Debug)]
pub(super) struct Client {
    settings: Settings,
    lanes: Lanes,
    /// Idle connections, and the origins that they lead to.
    idle: Mutex<Vec<(String, Connection)>>,
}

/// The response of a server, whose body remains to be received.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) connection: Connection,
    pub(super) head: Head,
    pub(super) body: Body,
}

/// The parameters of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking {
    /// The first byte and the one past the last.
    pub(super) range: Option<(u64, u64)>,
    /// Whether to bypass caches on the way.
    pub(super) afresh: bool,
}

/// The origin of a URL: scheme, host and port.
pub(super) fn origin(url: &Url) -> String {
    format!("{}://{}:{}", url.scheme, url.host, port(url))
}

/// The port of a URL, by default that of its scheme.
pub(super) fn port(url: &Url) -> u16 {
    let own = if url.scheme == "https" { 443 } else { 80 };
    url.port.unwrap_or(own)
}

impl Client {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            lanes: Lanes::new(settings.terms.connections),
            idle: Mutex::default(),
            settings,
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Limits the number of requests in flight.
    pub(super) fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// The terms on which servers are queried.
    pub(super) fn terms(&self) -> &Terms {
        &self.settings.terms
    }

    /// Sends a request, and receives the head of the response.
    ///
    /// # Errors
    /// Errors of the connection, or of what the server sends.
    pub(super) fn ask(&self, url: &Url, asking: Asking, control: &JobControl) -> Result<Answer> {
        let whom = origin(url);
        let proxy = self.settings.proxies.find(url)?;
        let request = self.request(url, asking, proxy.as_ref())?;
        loop {
            let (mut connection, old) = match self.take_idle(&whom) {
                Some(connection) => (connection, true),
                None => (
                    self.connect(url, proxy.as_ref(), self.terms().wait(control))?,
                    false,
                ),
            };
            match connection.exchange(&request, self.terms().wait(control)) {
                Ok(head) => {
                    return Ok(Answer {
                        body: Body::new(head.framing),
                        connection,
                        head,
                    });
                }
                // The server may have closed it in the meantime, as it is entitled to.
                Err(error) if old && ended(&error) => {}
                Err(error) => return Err(self.terms().silent(error, control)),
            }
        }
    }

    /// Keeps the connection of a response whose body has been read for the next request, if possible.
    pub(super) fn give_back(&self, url: &Url, mut answer: Answer, control: &JobControl) {
        let wait = Wait::new(control).until(Instant::now().checked_add(REST));
        if answer.head.keep && answer.connection.drain(&mut answer.body, wait) {
            let mut idle = self.idle.lock();
            if idle.len() >= self.lanes.count() {
                idle.remove(0);
            }
            idle.push((origin(url), answer.connection));
        }
    }

    fn take_idle(&self, whom: &str) -> Option<Connection> {
        let mut idle = self.idle.lock();
        let found = idle.iter().rposition(|(known, _)| known == whom)?;
        Some(idle.remove(found).1)
    }

    fn connect(&self, url: &Url, proxy: Option<&Proxy>, wait: Wait<'_>) -> Result<Connection> {
        let stream = match proxy {
            Some(proxy) => connect(&proxy.address, wait)?,
            None => connect(&url.address(port(url)), wait)?,
        };
        stream.set_buffers(KERNEL_BUFFER);
        if url.scheme != "https" {
            return Connection::new(stream);
        }
        let stream = match proxy {
            Some(proxy) => tunnel(stream, url, proxy, wait)?,
            None => stream,
        };
        let trust = self.terms().trust()?;
        Connection::new(stream.with_tls_client(&trust, Some(&url.host), wait)?)
    }

    fn request(
        &self,
        url: &Url,
        asking: Asking,
        proxy: Option<&Proxy>,
    ) -> Result<zeroize::Zeroizing<Vec<u8>>> {
        let proxy = proxy.filter(|_| url.scheme != "https");
        let whole;
        let target = match proxy {
            None => url.target.as_str(),
            Some(_) => {
                whole = format!("{}://{}{}", url.scheme, url.place(), url.target);
                &whole
            }
        };
        let mut request = Request::new("GET", target)?;
        request.header("Host", url.place().as_bytes())?;
        request.header("User-Agent", AGENT.as_bytes())?;
        request.header("Accept", b"*/*")?;
        // Ranges of compressed data would not be ranges of the image.
        request.header("Accept-Encoding", b"identity")?;
        if let Some((start, end)) = asking.range {
            let range = format!("bytes={start}-{}", end.saturating_sub(1));
            request.header("Range", range.as_bytes())?;
        }
        if asking.afresh {
            request.header("Cache-Control", b"no-cache")?;
        }
        if let Some(login) = proxy.and_then(|proxy| proxy.login.as_ref()) {
            request.header("Proxy-Authorization", login.bytes())?;
        }
        if origin(url) == origin(&self.settings.url) {
            for (name, value) in self.settings.headers.iter() {
                request.header(name, value)?;
            }
        }
        Ok(request.finish())
    }
}

/// Opens a stream to the server of `url` through a proxy.
fn tunnel(stream: Stream, url: &Url, proxy: &Proxy, wait: Wait<'_>) -> Result<Stream> {
    let host = match url.host.contains(':') {
        true => format!("[{}]", url.host),
        false => url.host.clone(),
    };
    let place = format!("{host}:{}", port(url));
    let mut request = Request::new("CONNECT", &place)?;
    request.header("Host", place.as_bytes())?;
    request.header("User-Agent", AGENT.as_bytes())?;
    if let Some(login) = &proxy.login {
        request.header("Proxy-Authorization", login.bytes())?;
    }
    let mut connection = Connection::new(stream)?;
    let head = connection.exchange(&request.finish(), wait)?;
    match head.status {
        200..=299 => connection.into_stream(),
        status => {
            let kind = match is_busy(status) {
                true => ErrorKind::Os,
                false => ErrorKind::Denied,
            };
            let message = format!("The proxy {} returned error: {status}", proxy.address);
            let error = Error::new(kind, message);
            Err(match status {
                407 => error.with_hint(PROXY_HINT),
                _ => error,
            })
        }
    }
}
