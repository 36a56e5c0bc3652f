//! URIs of exports (`doc/uri.md`).

use bstr::{BStr, BString, ByteSlice};

use super::is_string;
use super::limits::DEFAULT_PORT;
use crate::net::url::decoded;

/// The address of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A machine.
    Tcp {
        /// Its name or IP address, the latter without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A process on this machine.
    Unix {
        /// The path of its socket.
        path: BString,
    },
    /// A virtual machine or its host.
    Vsock {
        /// Its context ID.
        cid: u32,
        /// The port.
        port: u32,
    },
}

/// A parsed URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    /// Whether the connection uses TLS.
    pub tls: bool,
    /// The address of the server.
    pub place: Place,
    /// The export; the default one if empty.
    pub export: BString,
    /// The name that the server's certificate must have, if not that of the host.
    pub tls_hostname: Option<String>,
    /// The ID of the TLS credentials, an extension of ours.
    pub tls_creds: Option<String>,
}

impl Uri {
    /// Parses a URI; None if it is invalid, or contains anything unknown. User names and the fragment after `#` are
    /// ignored.
    pub fn parse(text: &BStr) -> Option<Self> {
        let (scheme, rest) = text.split_once_str("://")?;
        let (tls, kind) = match scheme {
            b"nbd" | b"nbd+tcp" => (false, Kind::Tcp),
            b"nbds" | b"nbds+tcp" => (true, Kind::Tcp),
            b"nbd+unix" => (false, Kind::Unix),
            b"nbds+unix" => (true, Kind::Unix),
            b"nbd+vsock" => (false, Kind::Vsock),
            b"nbds+vsock" => (true, Kind::Vsock),
            _ => return None,
        };
        let rest = rest.split_once_str("#").map_or(rest, |(before, _)| before);
        let (rest, query) = rest.split_once_str("?").unwrap_or((rest, b""));
        let path_at = rest.find_byte(b'/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(path_at)?;
        let export = decoded(path.strip_prefix(b"/").unwrap_or(path))?;
        if !is_string(&export) {
            return None;
        }
        let mut socket = None;
        let (mut tls_hostname, mut tls_creds) = (None, None);
        for pair in query.split_str("&").filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once_str("=").unwrap_or((pair, b""));
            let value = decoded(value)?;
            let free = match key {
                b"socket" if kind == Kind::Unix => socket.replace(value).is_none(),
                b"tls-hostname" if tls => tls_hostname.replace(text_of(value)?).is_none(),
                b"tls-creds" if tls => tls_creds.replace(text_of(value)?).is_none(),
                _ => false,
            };
            if !free {
                return None;
            }
        }
        let place = match kind {
            Kind::Unix if authority.is_empty() => Place::Unix { path: socket? },
            Kind::Unix => return None,
            Kind::Tcp => {
                let authority = authority
                    .rsplit_once_str("@")
                    .map_or(authority, |(_, host)| host);
                tcp(authority)?
            }
            Kind::Vsock => {
                let (cid, port) = authority.split_once_str(":").unwrap_or((authority, b""));
                Place::Vsock {
                    cid: number(cid)?,
                    port: match port {
                        b"" => u32::from(DEFAULT_PORT),
                        port => number(port)?,
                    },
                }
            }
        };
        Some(Self {
            tls,
            place,
            export,
            tls_hostname,
            tls_creds,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Unix,
    Vsock,
}

fn text_of(value: BString) -> Option<String> {
    String::from_utf8(value.into()).ok()
}

fn tcp(authority: &[u8]) -> Option<Place> {
    let (host, port) = match authority.strip_prefix(b"[") {
        Some(rest) => {
            let (host, rest) = rest.split_once_str("]")?;
            match rest {
                b"" => (host, &b""[..]),
                rest => (host, rest.strip_prefix(b":")?),
            }
        }
        None => authority.split_once_str(":").unwrap_or((authority, b"")),
    };
    let host = String::from_utf8(decoded(host)?.into()).ok()?;
    let port = match port {
        b"" => DEFAULT_PORT,
        port => number(port)?,
    };
    (!host.is_empty() && port != 0).then_some(Place::Tcp { host, port })
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    plain.then(|| digits.to_str().ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<Uri> {
        Uri::parse(text.into())
    }

    fn tcp_at(host: &str, port: u16) -> Place {
        Place::Tcp {
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn uris_say_where_the_server_is_and_which_export() {
        for (text, tls, place, export) in [
            ("nbd://h", false, tcp_at("h", 10809), ""),
            ("nbd://h/", false, tcp_at("h", 10809), ""),
            ("nbd+tcp://h:5/a/b", false, tcp_at("h", 5), "a/b"),
            ("nbd://u@h:5//a%20b%3f?#x", false, tcp_at("h", 5), "/a b?"),
            ("nbds://[::1]:7/x", true, tcp_at("::1", 7), "x"),
            ("nbd://[fe80::1]", false, tcp_at("fe80::1", 10809), ""),
            (
                "nbd+unix:///e?socket=/a%20b",
                false,
                Place::Unix {
                    path: "/a b".into(),
                },
                "e",
            ),
            (
                "nbd+vsock://2:9/e",
                false,
                Place::Vsock { cid: 2, port: 9 },
                "e",
            ),
        ] {
            let found = parsed(text).unwrap();
            assert_eq!((found.tls, &found.place), (tls, &place), "{text}");
            assert_eq!(found.export, export, "{text}");
        }
        let named = parsed("nbds+unix:///?socket=s&tls-hostname=h&tls-creds=c").unwrap();
        assert_eq!(named.tls_hostname.as_deref(), Some("h"));
        assert_eq!(named.tls_creds.as_deref(), Some("c"));
    }

    #[test]
    fn what_is_no_uri_of_an_export_is_told() {
        for text in [
            "nbd:h:1",
            "nbd://",
            "nbd://:10809/",
            "nbd://h:x/",
            "nbd://h:70000/",
            "nbd://h:0/",
            "nbd://[::1/",
            "nbd://h/%00",
            "nbd://h/%zz",
            "nbd://h/?socket=a",
            "nbd://h/?tls-hostname=a",
            "nbd+unix://",
            "nbd+unix:///x",
            "nbd+unix:///x?foo=bar",
            "nbd+unix://h/x?socket=s",
            "nbd+unix:///x?socket=s&foo=1",
            "nbd+unix:///x?socket=s&socket=t",
            "nbd+foo://h",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".*", tail in "[-a-z0-9:/?&=%\\[\\]@#]{0,40}") {
            let _ = Uri::parse(text.as_str().into());
            let _ = Uri::parse(format!("nbd://{tail}").as_str().into());
            let _ = Uri::parse(format!("nbds+unix://{tail}").as_str().into());
        }
    }
}
