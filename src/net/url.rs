//! URLs: `scheme://[user[:password]@]host[:port]/path[?query]` (RFC 3986).

use std::fmt;

use bstr::{BStr, BString, ByteSlice};

use super::address::Address;
use crate::error::{Error, Result};
use crate::secret::Secret;

/// A parsed URL. Displayed without its password.
#[derive(Clone, Debug)]
pub struct Url {
    /// In lower case.
    pub scheme: String,
    /// The user name.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// A name in lower case, or an IP address, without brackets.
    pub host: String,
    /// The port, if it is not the scheme's default.
    pub port: Option<u16>,
    /// Path and query, encoded as in a request; begins with a slash.
    pub target: String,
}

/// Decodes the percent-encoding in a part of a URL.
pub(crate) fn decoded(text: &[u8]) -> Option<BString> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
                let high = digit(rest.next())?;
                let low = digit(rest.next())?;
                u8::try_from(high << 4 | low).ok()?
            }
            other => *other,
        });
    }
    Some(bytes.into())
}

fn malformed(reason: &str) -> Error {
    Error::invalid(format!("Malformed URL: {reason}"))
}

/// Percent-encodes bytes beyond ASCII.
fn encoded(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text {
        match byte.is_ascii() {
            true => out.push(char::from(*byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

impl Url {
    /// Parses a URL. The fragment after `#` is not part of the request and is dropped.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`].
    pub fn parse(text: &BStr) -> Result<Self> {
        // A line break would end a line of the request, too.
        if text.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
            return Err(malformed("it has a blank or a control character")
                .with_hint("In URLs a blank is written as %20"));
        }
        let (scheme, rest) = text
            .split_once_str("://")
            .ok_or_else(|| malformed("it has no scheme"))?;
        let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
            && scheme
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
        if !is_scheme {
            return Err(malformed("it has no scheme"));
        }
        let rest = rest.split_once_str("#").map_or(rest, |(before, _)| before);
        let end = rest.find_byteset("/?").unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (user, place) = match authority.rsplit_once_str("@") {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        let (host, port) = host_and_port(place)?;
        let bad_user = || malformed("its user name is damaged");
        let (user, password) = match user {
            None => (None, None),
            Some(user) => {
                let (name, password) = match user.split_once_str(":") {
                    Some((name, password)) => (name, Some(password)),
                    None => (user, None),
                };
                let name = decoded(name).ok_or_else(bad_user)?;
                let name = String::from_utf8(name.into()).map_err(|_| bad_user())?;
                let password = password
                    .map(|password| decoded(password).ok_or_else(bad_user))
                    .transpose()?;
                (Some(name), password.map(Secret::new))
            }
        };
        let mut target = encoded(target);
        if !target.starts_with('/') {
            target.insert(0, '/');
        }
        Ok(Self {
            scheme: scheme.to_str_lossy().to_ascii_lowercase(),
            user,
            password,
            host,
            port,
            target,
        })
    }

    /// Resolves a reference from a response to this URL. User name and password are not passed on.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`].
    pub fn join(&self, reference: &BStr) -> Result<Self> {
        let end = reference.find_byteset("/?#").unwrap_or(reference.len());
        let has_scheme = reference
            .get(..end)
            .is_some_and(|start| start.contains(&b':'));
        if has_scheme {
            return Self::parse(reference);
        }
        let scheme = &self.scheme;
        if reference.starts_with(b"//") {
            return Self::parse([scheme.as_bytes(), b":", reference].concat().as_bstr());
        }
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.target.as_str(), None),
        };
        let (directory, _) = path.rsplit_once('/').unwrap_or_default();
        let target: BString = match reference.first() {
            Some(b'/') => reference.to_owned(),
            Some(b'?') => [path.as_bytes(), reference].concat().into(),
            Some(b'#') | None => match query {
                Some(query) => format!("{path}?{query}").into(),
                None => path.into(),
            },
            Some(_) => [directory.as_bytes(), b"/", reference].concat().into(),
        };
        let place = self.place();
        let text = [scheme.as_bytes(), b"://", place.as_bytes(), &target].concat();
        let mut url = Self::parse(text.as_bstr())?;
        url.target = without_dots(&url.target);
        Ok(url)
    }

    /// Host and port, as written in a URL.
    pub fn place(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match self.port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        }
    }

    /// Its network address; `default` is the scheme's default port.
    pub fn address(&self, default: u16) -> Address {
        Address::inet(self.host.clone(), self.port.unwrap_or(default))
    }

    /// Without the query, which may contain secrets.
    pub fn without_query(&self) -> String {
        let shown = self.to_string();
        match shown.split_once('?') {
            Some((before, _)) => format!("{before}?..."),
            None => shown,
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        write!(f, "{}{}", self.place(), self.target)
    }
}

fn host_and_port(place: &[u8]) -> Result<(String, Option<u16>)> {
    let bad = || malformed("it has no host");
    let (host, port) = match place.strip_prefix(b"[") {
        Some(rest) => {
            let (host, rest) = rest.split_once_str("]").ok_or_else(bad)?;
            let is_number = host.to_str().is_ok_and(|host| {
                let plain = host.split('%').next().unwrap_or_default();
                plain.parse::<std::net::Ipv6Addr>().is_ok()
            });
            match rest {
                _ if !is_number => return Err(bad()),
                b"" => (host, &b""[..]),
                rest => (host, rest.strip_prefix(b":").ok_or_else(bad)?),
            }
        }
        None => place.split_once_str(":").unwrap_or((place, b"")),
    };
    let is_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:%".contains(byte);
    if host.is_empty() || !host.iter().all(is_host) {
        return Err(bad());
    }
    let port = match port {
        b"" => None,
        digits => {
            let number = digits.iter().all(u8::is_ascii_digit);
            let number = number.then(|| digits.to_str().ok()?.parse().ok()).flatten();
            let number = number.filter(|port: &u16| *port != 0);
            Some(number.ok_or_else(|| malformed("its port is no number of a port"))?)
        }
    };
    Ok((host.to_str_lossy().to_ascii_lowercase(), port))
}

/// RFC 3986, 5.2.4, for a target that begins with a slash.
fn without_dots(target: &str) -> String {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let mut parts: Vec<&str> = Vec::new();
    let mut open = false;
    for part in path.split('/').skip(1) {
        open = matches!(part, "." | "..");
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if open {
        parts.push("");
    }
    let path = format!("/{}", parts.join("/"));
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text.into()).unwrap()
    }

    #[test]
    fn urls_are_taken_apart_and_shown_without_passwords() {
        let all = url("HTTP://joe%40x:s%3Acret@Host.example:81/a%20b?c=d#e");
        assert_eq!(all.scheme, "http");
        assert_eq!(all.user.as_deref(), Some("joe@x"));
        assert_eq!(all.password.as_ref().unwrap().bytes(), b"s:cret");
        assert_eq!((all.host.as_str(), all.port), ("host.example", Some(81)));
        assert_eq!(all.target, "/a%20b?c=d");
        assert_eq!(all.to_string(), "http://joe@x@host.example:81/a%20b?c=d");
        assert_eq!(
            all.without_query(),
            "http://joe@x@host.example:81/a%20b?..."
        );
        assert!(!format!("{all:?}").contains("s:cret"));
        let bare = url("https://[::1]");
        assert_eq!((bare.host.as_str(), bare.target.as_str()), ("::1", "/"));
        assert_eq!(bare.place(), "[::1]");
        assert_eq!(url("ftp://h/\u{e4}").target, "/%C3%A4");
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for text in [
            "",
            "a",
            "://h",
            "1a://h",
            "http://",
            "http:///x",
            "http://[::1/x",
            "http://[h]/",
            "http://h:0/",
            "http://h:65536/",
            "http://h:x/",
            "http://h/a b",
            "http://h/a\r\nb",
            "http://a b/",
            "http://a%zz:@h/",
            "http://h\u{e4}/",
        ] {
            assert!(Url::parse(text.into()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn references_lead_on_from_where_they_stand() {
        let base = url("http://joe:pw@h:8/a/b/c?q");
        for (reference, found) in [
            ("https://o/x", "https://o/x"),
            ("//o/x", "http://o/x"),
            ("/x?y", "http://h:8/x?y"),
            ("x", "http://h:8/a/b/x"),
            ("../x", "http://h:8/a/x"),
            ("../../../x", "http://h:8/x"),
            ("./", "http://h:8/a/b/"),
            ("..", "http://h:8/a/"),
            ("?z", "http://h:8/a/b/c?z"),
            ("#f", "http://h:8/a/b/c?q"),
            ("", "http://h:8/a/b/c?q"),
            ("x?a:b", "http://h:8/a/b/x?a:b"),
        ] {
            assert_eq!(
                base.join(reference.into()).unwrap().to_string(),
                found,
                "{reference}"
            );
        }
        assert!(base.join("mailto:x".into()).is_err());
        assert!(base.join("/a\nb".into()).is_err());
    }
}
