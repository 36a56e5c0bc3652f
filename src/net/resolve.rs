//! Host names.

use std::ffi::CString;
use std::net::SocketAddr;
use std::sync::mpsc;

use super::address::Family;
use super::wait::Wait;
use crate::crew;
use crate::error::{Error, Result};
use crate::job::without_signals;
use crate::sys::resolve::{Question, Version, resolve as ask};

/// Resolves a host and a port, for clients with their own way of connecting; returns at least one address.
///
/// # Errors
/// `address resolution failed for HOST:PORT: …`; if the wait ends.
pub(crate) fn numbers(host: &str, port: u16, wait: Wait<'_>) -> Result<Vec<SocketAddr>> {
    resolve(host, &port.to_string(), Family::Any, false, wait)
}

/// Whether a numeric port is out of range: the resolver would truncate it to 16 bits.
fn is_no_port(port: &str) -> bool {
    let digits = port.trim_start().trim_start_matches(['+', '-']);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number && port.parse::<u16>().is_err()
}

/// The addresses of a host and a port, in the order in which to try them; at least one.
///
/// # Errors
/// `address resolution failed for HOST:PORT: …`; if the wait ends.
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
    if is_no_port(port) {
        return Err(failed("a port is a number up to 65535"));
    }
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
    // Most addresses are numeric, which requires neither a server nor a thread.
    let found = match ask(name.as_deref(), &service, question) {
        Ok(found) => Ok(found),
        Err(_) => {
            let (answer, answered) = mpsc::channel();
            // A name server that does not respond is not waited for: the thread ends when the lookup does.
            let asking = move || {
                let question = Question {
                    numeric: false,
                    ..question
                };
                // Nobody is listening any more if the wait is over.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_no_port_is_not_cut_to_one() {
        for port in ["65536", "99999", "-1", " 80", "18446744073709551617"] {
            let found = resolve("127.0.0.1", port, Family::Any, true, Wait::forever());
            let error = found.unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Invalid);
            let told = error.to_string();
            assert!(told.ends_with("a port is a number up to 65535"), "{told}");
        }
        for port in ["0", "80", "65535"] {
            let found = resolve("127.0.0.1", port, Family::Any, true, Wait::forever());
            assert_eq!(found.unwrap()[0].port().to_string(), port);
        }
    }
}
