//! Addresses as text.

use bstr::{BStr, ByteSlice};

use crate::error::{Error, Result};
use crate::net::Address;

/// Parses an address: `unix:PATH`, `inet:HOST:PORT`, `vsock:CID:PORT` or `fd:NUMBER`.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] if it is not an address.
pub fn address_from_text(text: &BStr) -> Result<Address> {
    let wrong = || {
        Error::invalid(format!("'{text}' is not an address"))
            .with_hint("Addresses are unix:PATH, inet:HOST:PORT, vsock:CID:PORT and fd:NUMBER")
    };
    let (kind, rest) = text.split_once_str(b":").ok_or_else(wrong)?;
    if kind == b"unix" {
        return Ok(Address::unix(rest));
    }
    let rest = rest.to_str().map_err(|_| wrong())?;
    let number = |text: &str| text.parse().map_err(|_| wrong());
    match kind {
        b"inet" => {
            let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
            let bare = host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'));
            // Without brackets, it would be a guess where the port begins.
            if bare.is_none() && host.contains(':') || port.is_empty() {
                return Err(wrong());
            }
            Ok(Address::inet(bare.unwrap_or(host), port))
        }
        b"vsock" => {
            let (cid, port) = rest.split_once(':').ok_or_else(wrong)?;
            Ok(Address::Vsock {
                cid: number(cid)?,
                port: number(port)?,
            })
        }
        b"fd" => match rest.parse() {
            Ok(number) if number >= 0 => Ok(Address::Descriptor(number)),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        let parse = |text: &str| address_from_text(text.into());
        assert_eq!(parse("unix:a:b").unwrap(), Address::unix("a:b"));
        assert_eq!(parse("inet:h:nbd").unwrap(), Address::inet("h", "nbd"));
        assert_eq!(parse("inet::0").unwrap(), Address::inet("", 0));
        assert_eq!(parse("inet:[::1]:9").unwrap(), Address::inet("::1", 9));
        let vsock = Address::Vsock { cid: 2, port: 7 };
        assert_eq!(parse("vsock:2:7").unwrap(), vsock);
        assert_eq!(parse("fd:3").unwrap(), Address::Descriptor(3));
        for wrong in [
            "",
            "unix",
            "tcp:a:1",
            "inet:a",
            "inet:a:",
            "inet:::1:9",
            "vsock:1",
            "vsock:a:1",
            "fd:",
            "fd:-1",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
