//! From a connected socket to a server that accepts requests: key exchange, host verification, user authentication.

use std::os::fd::{BorrowedFd, OwnedFd};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::libssh::{self, Answer, Hash, Known, Session, Step};

use super::link::{Pipe, Waiter};
use super::options::{HostCheck, Settings};

/// Usual size of a read.
const READ: usize = 64 << 10;
/// Number of bytes received after which a read may ask for a full buffer, which lets the server send that much ahead.
const AHEAD: usize = 512 << 10;

/// The local end of a channel of the library.
struct SshPipe {
    session: Session,
    /// Bytes received since the last read of a full buffer.
    since: usize,
}

/// Wraps an error message of the library.
fn failed(text: String) -> Error {
    Error::new(ErrorKind::Os, text).with_errno(libc::ECONNRESET)
}

impl Pipe for SshPipe {
    fn read(&mut self, buf: &mut [u8]) -> Result<Option<usize>> {
        // The size of a read is how far the server may send ahead; it is not extended for every packet.
        let ask = match self.since >= AHEAD {
            true => buf.len(),
            false => buf.len().min(READ),
        };
        if self.since >= AHEAD {
            self.since = 0;
        }
        let buf = buf.get_mut(..ask).unwrap_or_default();
        let len = self.session.read(buf).map_err(failed)?;
        self.since += len.unwrap_or(0);
        Ok(len)
    }

    fn write(&mut self, buf: &[u8]) -> Result<usize> {
        self.session.write(buf).map_err(failed)
    }

    fn wants_write(&self) -> bool {
        self.session.wants_write()
    }

    fn socket(&self) -> BorrowedFd<'_> {
        self.session.socket()
    }
}

/// Authenticates both ends and opens the SFTP subsystem.
///
/// # Errors
/// [`ErrorKind::Denied`] where one end rejects the other; errors of the connection.
pub(super) fn log_in(
    settings: &Settings,
    socket: OwnedFd,
    waiter: &Waiter<'_>,
) -> Result<Box<dyn Pipe>> {
    let text = |bytes: &[u8], what: &str| {
        libssh::name(bytes).ok_or_else(|| Error::invalid(format!("The {what} has a zero byte")))
    };
    let host = text(settings.host.as_bytes(), "name of the host")?;
    let user = text(settings.user.as_bytes(), "name of the user")?;
    let known = settings.known_hosts.as_ref();
    let known = known.map(|file| text(file, "name of the file of known hosts"));
    let known = known.transpose()?;
    let session = Session::new(socket, &host, settings.port, &user, known.as_deref());
    let mut pipe = SshPipe {
        session: session.map_err(failed)?,
        since: AHEAD,
    };
    pipe.until_done(waiter, Session::connect)
        .map_err(|error| match error.kind() {
            ErrorKind::Cancelled => error,
            _ => error.context("failed to establish SSH session"),
        })?;
    check_host(&mut pipe.session, &settings.check)?;
    pipe.check_user(settings, waiter)?;
    pipe.until_done(waiter, |session| session.open_subsystem(c"sftp"))
        .map_err(|error| match error.kind() {
            ErrorKind::Cancelled => error,
            _ => error.context("failed to initialize sftp handle"),
        })?;
    Ok(Box::new(pipe))
}

impl SshPipe {
    fn until_done<T>(
        &mut self,
        waiter: &Waiter<'_>,
        mut call: impl FnMut(&mut Session) -> Result<Step<T>, String>,
    ) -> Result<T> {
        loop {
            if let Step::Done(done) = call(&mut self.session).map_err(failed)? {
                return Ok(done);
            }
            waiter.wait(self.session.socket(), self.session.wants_write())?;
        }
    }

    fn check_user(&mut self, settings: &Settings, waiter: &Waiter<'_>) -> Result<()> {
        let denied = |text: String| Error::new(ErrorKind::Denied, text).with_errno(libc::EPERM);
        let none = self.until_done(waiter, Session::log_in_by_nothing)?;
        if none == Answer::Success {
            return Ok(());
        }
        if let Some(file) = &settings.identity {
            let shown = String::from_utf8_lossy(file).into_owned();
            let name = libssh::name(file);
            let taken = name.is_some_and(|name| {
                let passphrase = settings.passphrase.as_ref();
                self.session.take_key(&name, passphrase).is_ok()
            });
            if !taken {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("The private key '{shown}' cannot be read"),
                )
                .with_hint(match settings.passphrase {
                    Some(_) => "Either it is no private key, or its passphrase is another one.",
                    None => "Either it is no private key, or it has a passphrase, which is given as a secret.",
                }));
            }
            if self.until_done(waiter, Session::log_in_by_key)? == Answer::Success {
                return Ok(());
            }
            if settings.password.is_none() {
                return Err(denied(format!(
                    "failed to authenticate as '{}' using the private key '{shown}'",
                    settings.user
                )));
            }
        }
        if let Some(password) = &settings.password {
            let said = |session: &mut Session| session.log_in_by_password(password);
            if self.until_done(waiter, said)? == Answer::Success {
                return Ok(());
            }
            let said = |session: &mut Session| session.log_in_by_answers(password);
            if self.until_done(waiter, said)? == Answer::Success {
                return Ok(());
            }
            return Err(denied(format!(
                "failed to authenticate as '{}' using the password",
                settings.user
            )));
        }
        match self.until_done(waiter, Session::log_in_by_default_keys)? {
            Answer::Success => Ok(()),
            Answer::Denied | Answer::Partial => Err(denied(
                "failed to authenticate using publickey authentication and the identities held by your ssh-agent"
                    .to_owned(),
            )),
        }
    }
}

/// Rejects a server that is not the expected one.
fn check_host(session: &mut Session, check: &HostCheck) -> Result<()> {
    let denied = |text: String| Error::new(ErrorKind::Denied, text).with_errno(libc::EPERM);
    match check {
        HostCheck::None => Ok(()),
        HostCheck::Hash(hash, wanted) => {
            let (kind, found) = session.host_key(*hash).map_err(failed)?;
            let found = hex(&found);
            let plain: String = wanted.chars().filter(|c| *c != ':').collect();
            if plain.eq_ignore_ascii_case(&found) {
                return Ok(());
            }
            let name = super::options::hash_name(*hash);
            Err(denied(format!(
                "remote host {kind} key fingerprint '{name}:{found}' does not match host_key_check '{name}:{wanted}'"
            )))
        }
        HostCheck::KnownHosts => {
            let known = session.known().map_err(failed)?;
            if known == Known::Yes {
                return Ok(());
            }
            let (kind, hash) = session.host_key(Hash::Sha256).map_err(failed)?;
            let print = format!("SHA256:{}", STANDARD_NO_PAD.encode(hash));
            let text = match known {
                Known::Changed => {
                    return Err(denied(format!(
                        "host key ({kind} key with fingerprint {print}) does not match the one in known_hosts; this may be a possible attack"
                    )));
                }
                Known::OtherType => "host key for this server not found, another type exists",
                _ => "no host key was found in known_hosts",
            };
            Err(denied(text.to_owned()).with_hint(format!(
                "The server has an {kind} key with the fingerprint {print}."
            )))
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
