//! Names of machines.

use std::ffi::CString;
use std::net::SocketAddr;
use std::sync::mpsc;

use super::address::Family;
use super::wait::Wait;
use crate::crew;
use crate::error::{Error, Result};
use crate::job::without_signals;
use crate::sys::resolve::{Question, Version, resolve as ask};

/// The addresses of a host with a port, for what connects in its own way; at least one.
///
/// # Errors
/// `address resolution failed for HOST:PORT: …`, or of the wait.
pub(crate) fn numbers(host: &str, port: u16, wait: Wait<'_>) -> Result<Vec<SocketAddr>> {
    resolve(host, &port.to_string(), Family::Any, false, wait)
}

/// The addresses of a host and a port, in the order in which they are to be tried; at least one.
///
/// # Errors
/// `address resolution failed for HOST:PORT: …`, or of the wait.
pub(super) fn resolve(
    host: &str,
    port: &str,
    family: Family,
    passive: bool,
    wait: Wait<'_>,
) -> Result<Vec<SocketAddr>> {
    let failed = |reason: &str| {
        let message = format!("address resolution failed for {host}:{port}: {reason}");
        Error::invalid(message).with_errno(libc::EINVAL)
    };
    let text = |text: &str| {
        let zero = |_| failed("Name or service not known");
        CString::new(text).map_err(zero)
    };
    let name = match host {
        "" if passive => None,
        "" => return Err(failed("Name or service not known")),
        host => Some(text(host)?),
    };
    let service = text(port)?;
    let version = match family {
        Family::Any => Version::Any,
        Family::V4 => Version::V4,
        Family::V6 => Version::V6,
    };
    let question = Question {
        version,
        passive,
        numeric: true,
    };
    // Most addresses are numbers, which need neither a server nor a thread.
    let found = match ask(name.as_deref(), &service, question) {
        Ok(found) => Ok(found),
        Err(_) => {
            let (answer, answered) = mpsc::channel();
            // A server of names that does not answer is not waited for: the thread ends when it does.
            let asking = move || {
                let question = Question {
                    numeric: false,
                    ..question
                };
                // No one listens any more where the wait was over.
                let _ = answer.send(ask(name.as_deref(), &service, question));
            };
            let thread = crew::thread("resolve");
            without_signals(|| thread.spawn(asking)).map_err(|error| Error::io(&error))?;
            let answer = wait.message(&answered)?;
            answer.unwrap_or_else(|| Err("no answer".to_owned()))
        }
    };
    match found {
        Ok(found) if found.is_empty() => Err(failed("No address associated with hostname")),
        Ok(found) => Ok(found),
        Err(reason) => Err(failed(&reason)),
    }
}
