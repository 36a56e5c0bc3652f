//! Sessions with pre-shared keys.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::IoSlice;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::endpoint::Endpoint;
use super::error::{broken, untrusted};
use super::pem::Text;
use super::priority::Priority;
use super::session::{Plain, Session};
use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::sys::openssl::{self, Keys, Maker, Outcome, Versions};

/// Maximum number of bytes to encrypt at once.
const MOST_WRITTEN: usize = 64 << 10;

/// Creates sessions.
#[derive(Debug)]
pub(super) struct Psk {
    maker: Maker,
}

/// The keys in a text: lines of a name, a colon, and bytes in hexadecimal digits.
fn keys(text: &Text) -> Result<BTreeMap<Vec<u8>, Secret>> {
    let mut keys = BTreeMap::new();
    for line in text.bytes.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, digits) = (&line[..colon], &line[colon + 1..]);
        // If a name occurs twice, the first one counts.
        if let std::collections::btree_map::Entry::Vacant(free) = keys.entry(name.to_vec()) {
            free.insert(Secret::new(
                hex(digits).ok_or_else(|| damaged(text, name))?.to_vec(),
            ));
        }
    }
    Ok(keys)
}

fn damaged(text: &Text, name: &[u8]) -> Error {
    Error::invalid(format!(
        "The key of '{}' in {} is not in hexadecimal digits",
        String::from_utf8_lossy(name),
        text.name
    ))
}

fn hex(digits: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|value| value as u8);
    let mut bytes = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
    for pair in digits.chunks_exact(2) {
        bytes.push(digit(pair[0])? << 4 | digit(pair[1])?);
    }
    Some(bytes)
}

impl Psk {
    /// `user` is the name of a client's key.
    pub(super) fn new(
        endpoint: Endpoint,
        text: &Text,
        user: &str,
        priority: Priority,
    ) -> Result<Self> {
        let mut known = keys(text)?;
        let keys = match endpoint {
            Endpoint::Server => Keys::Server(Arc::new(known)),
            Endpoint::Client => {
                let missing = || {
                    Error::invalid(format!(
                        "Username {user} not found in PSK file {}",
                        text.name
                    ))
                };
                let key = known.remove(user.as_bytes()).ok_or_else(missing)?;
                Keys::Client(CString::new(user).map_err(|_| missing())?, key)
            }
        };
        let versions = Versions {
            tls12: priority.tls12,
            tls13: priority.tls13,
        };
        let maker = Maker::new(keys, versions).map_err(Error::unsupported)?;
        Ok(Self { maker })
    }

    pub(super) fn session(&self) -> Result<Box<dyn Session>> {
        let mut session = self.maker.session().map_err(|reason| broken(&reason))?;
        // The client speaks first.
        session.handshake().map_err(|reason| broken(&reason))?;
        Ok(Box::new(PskSession { session }))
    }
}

struct PskSession {
    session: openssl::Session,
}

/// Rephrases the messages that would not tell the user what to check.
fn failed(reason: &str) -> Error {
    match reason {
        // Reported by each end when the other one's key differs, or is unknown to it.
        "binder does not verify"
        | "decryption failed or bad record mac"
        | "digest check failed"
        | "psk identity not found"
        | "no suitable signature algorithm"
        | "the peer does not use the key" => {
            untrusted("TLS handshake failed: the peer has another key, or none")
        }
        alert if alert.contains("alert") && !alert.contains("close notify") => untrusted(format!(
            "TLS handshake failed: the peer refused the key ({alert})"
        )),
        other => broken(other),
    }
}

impl Session for PskSession {
    fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<usize> {
        let fed = self.session.feed(bytes).map_err(|reason| broken(&reason))?;
        if self.session.is_handshaking() {
            self.session.handshake().map_err(|reason| failed(&reason))?;
        }
        Ok(fed)
    }

    fn take(&mut self, to: &mut Vec<u8>) -> Result<()> {
        loop {
            let pending = self.session.pending();
            if pending == 0 {
                return Ok(());
            }
            let len = to.len();
            crate::memory::reserve(to, pending)?;
            to.resize(len + pending, 0);
            let taken = self.session.take(&mut to[len..]);
            to.truncate(len + taken);
        }
    }

    fn has_output(&self) -> bool {
        self.session.pending() > 0
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<Plain> {
        match self.session.read(buf).map_err(|reason| failed(&reason))? {
            Outcome::Bytes(n) => Ok(Plain::Bytes(n)),
            Outcome::Nothing => Ok(Plain::Nothing),
            Outcome::End => Ok(Plain::End),
        }
    }

    fn write(&mut self, bufs: &[IoSlice<'_>]) -> Result<usize> {
        let mut done = 0;
        for buf in bufs.iter().filter(|buf| !buf.is_empty()) {
            let len = buf.len().min(MOST_WRITTEN - done);
            let written = self.session.write(&buf[..len]);
            done += written.map_err(|reason| failed(&reason))?;
            if len < buf.len() || done == MOST_WRITTEN {
                break;
            }
        }
        Ok(done)
    }

    fn close(&mut self) {
        self.session.close();
    }

    fn identity(&self) -> Option<String> {
        let name = self.session.identity()?;
        String::from_utf8(name).ok()
    }
}
