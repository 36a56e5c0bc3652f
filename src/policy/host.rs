//! The servers that names inside images may refer to.

use std::net::IpAddr;

use crate::error::{Error, Result};

/// Servers: a host by name or address, or all hosts below a domain; on one port or on all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRule {
    host: Host,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// In lower case.
    Name(String),
    Number(IpAddr),
    /// The domain with a leading dot, in lower case.
    Below(String),
}

impl HostRule {
    /// `images.example.org`, `*.example.org`, `192.0.2.1` or `[2001:db8::1]`, followed by `:PORT` if only that port is
    /// meant.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`].
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || {
            Error::invalid(format!("'{text}' names no host"))
                .with_hint("A host is a name, a number, or *.DOMAIN, with :PORT behind where only that port is meant")
        };
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
                match rest {
                    "" => (host, None),
                    rest => (host, Some(rest.strip_prefix(':').ok_or_else(bad)?)),
                }
            }
            // A bare IPv6 address.
            None if text.parse::<IpAddr>().is_ok() => (text, None),
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = port
            .map(|port| port.parse().ok().filter(|port| *port != 0).ok_or_else(bad))
            .transpose()?;
        let is_name = |name: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !name.is_empty() && name.bytes().all(plain)
        };
        let host = match (host.parse::<IpAddr>(), host.strip_prefix("*.")) {
            (Ok(number), _) => Host::Number(number.to_canonical()),
            (Err(_), Some(domain)) if is_name(domain) => {
                Host::Below(format!(".{}", domain.to_ascii_lowercase()))
            }
            (Err(_), None) if is_name(host) => Host::Name(host.to_ascii_lowercase()),
            (Err(_), _) => return Err(bad()),
        };
        Ok(Self { host, port })
    }

    /// Whether it covers a server. Names are compared as written: no resolver is queried for their addresses.
    pub fn allows(&self, host: &str, port: Option<u16>) -> bool {
        if self.port.is_some() && self.port != port {
            return false;
        }
        let number = host.parse::<IpAddr>().map(|number| number.to_canonical());
        match (&self.host, number) {
            (Host::Number(allowed), Ok(number)) => *allowed == number,
            (Host::Name(name), Err(_)) => name.eq_ignore_ascii_case(host),
            (Host::Below(domain), Err(_)) => {
                let start = host.len().checked_sub(domain.len());
                let end = start
                    .filter(|start| *start > 0)
                    .and_then(|start| host.get(start..));
                end.is_some_and(|end| end.eq_ignore_ascii_case(domain))
            }
            (Host::Number(_), Err(_)) | (Host::Name(_) | Host::Below(_), Ok(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_allow_what_they_name_and_nothing_else() {
        for (rule, host, port, allowed) in [
            ("Images.example", "images.EXAMPLE", None, true),
            ("images.example", "images.example.org", None, false),
            ("images.example:80", "images.example", Some(80), true),
            ("images.example:80", "images.example", Some(81), false),
            ("images.example:80", "images.example", None, false),
            ("*.example", "a.b.Example", Some(1), true),
            ("*.example", "example", None, false),
            ("*.example", ".example", None, false),
            ("*.example", "badexample", None, false),
            ("192.0.2.1", "192.0.2.1", None, true),
            ("192.0.2.1", "::ffff:192.0.2.1", None, true),
            ("192.0.2.1", "192.0.2.10", None, false),
            // An address in another notation is not recognised as one.
            ("192.0.2.1", "3221225985", None, false),
            ("::1", "0:0::1", Some(5), true),
            ("[::1]:5", "::1", Some(5), true),
            ("[::1]:5", "::1", Some(6), false),
            ("127.0.0.1", "localhost", None, false),
        ] {
            let found = HostRule::parse(rule).unwrap().allows(host, port);
            assert_eq!(found, allowed, "{rule} {host} {port:?}");
        }
        for rule in [
            "", "*", "*.", "a b", "a:0", "a:x", "[a]", "[::1", "[::1]5", "a*b", "http://a", "a/b",
        ] {
            assert!(HostRule::parse(rule).is_err(), "{rule}");
        }
    }
}
