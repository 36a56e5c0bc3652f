//! Where a peer is.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

use bstr::{BString, ByteSlice};
use socket2::SockAddr;

use crate::error::{Error, Result};

/// Which versions of the internet protocol may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Family {
    /// Both.
    #[default]
    Any,
    /// Version 4 only.
    V4,
    /// Version 6 only.
    V6,
}

/// The namespace that the name of a local socket belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Names {
    /// The file system.
    #[default]
    Path,
    /// Linux' abstract one, in which the name ends where it ends.
    Abstract,
    /// Linux' abstract one, with the name filled up with zeros to the longest that there is.
    AbstractPadded,
}

/// Where a peer is, or where this process is to be found. Shown as users of other tools know it:
/// `host:port`, the path, or `cid:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A machine.
    Inet {
        /// Its name or its number, the latter without brackets; empty is every address of this machine,
        /// for listening.
        host: String,
        /// The number of the port, or the name of the service.
        port: String,
        /// The versions that may be used.
        family: Family,
    },
    /// A process of this machine.
    Unix {
        /// Name of its socket; empty for one that has none.
        path: BString,
        /// What namespace that belongs to.
        names: Names,
    },
    /// A virtual machine or its host.
    Vsock {
        /// Which of them.
        cid: u32,
        /// The port there.
        port: u32,
    },
    /// A socket that this process has open already. It is duplicated, and stays open.
    Descriptor(RawFd),
}

impl Address {
    /// A machine by name or number, with any version.
    pub fn inet(host: impl Into<String>, port: impl ToString) -> Self {
        Self::Inet {
            host: host.into(),
            port: port.to_string(),
            family: Family::Any,
        }
    }

    /// A local socket by its path.
    pub fn unix(path: impl Into<BString>) -> Self {
        Self::Unix {
            path: path.into(),
            names: Names::Path,
        }
    }

    /// The host whose certificate is expected there; None where the address names none.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Inet { host, .. } => Some(host),
            _ => None,
        }
    }

    /// The port there; None where the address has none, or one by the name of a service.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Inet { port, .. } => port.parse().ok(),
            _ => None,
        }
    }

    /// From what the kernel says of one end of a connection.
    pub(super) fn of(address: &SockAddr) -> Self {
        if let Some(inet) = address.as_socket() {
            return inet.into();
        }
        if let Some((cid, port)) = address.as_vsock_address() {
            return Self::Vsock { cid, port };
        }
        if let Some(name) = address.as_abstract_namespace() {
            return Self::Unix {
                path: name.into(),
                names: Names::Abstract,
            };
        }
        let path = address.as_pathname().map(|path| path.as_os_str());
        Self::unix(path.map_or(BString::default(), |path| {
            std::os::unix::ffi::OsStrExt::as_bytes(path).into()
        }))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Inet {
            host: match address {
                SocketAddr::V4(v4) => v4.ip().to_string(),
                // A machine that came by version 4 to a socket of both.
                SocketAddr::V6(v6) => match v6.ip().to_canonical() {
                    IpAddr::V4(v4) => v4.to_string(),
                    IpAddr::V6(ip) if v6.scope_id() != 0 => format!("{ip}%{}", v6.scope_id()),
                    IpAddr::V6(ip) => ip.to_string(),
                },
            },
            port: address.port().to_string(),
            family: Family::Any,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix { path, .. } => write!(f, "{path}"),
            Self::Vsock { cid, port } => write!(f, "{cid}:{port}"),
            Self::Descriptor(number) => write!(f, "{number}"),
        }
    }
}

/// The longest name of a local socket, with the zero at its end.
const LONGEST: usize = 108;

/// What the kernel takes for the name of a local socket.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] where it is too long or empty.
pub(super) fn unix(path: &BString, names: Names) -> Result<SockAddr> {
    use std::os::unix::ffi::OsStrExt;
    let too_long = || {
        Error::invalid(format!("UNIX socket path '{path}' is too long"))
            .with_hint(format!("Path must be less than {LONGEST} bytes"))
    };
    let mut name = match names {
        Names::Path => Vec::new(),
        Names::Abstract | Names::AbstractPadded => vec![0],
    };
    if path.is_empty() {
        return Err(Error::invalid("The path of a UNIX socket is empty"));
    }
    if names == Names::Path && path.find_byte(0).is_some() {
        return Err(Error::invalid("The path of a UNIX socket has a zero byte"));
    }
    if path.len() >= LONGEST {
        return Err(too_long());
    }
    name.extend_from_slice(path);
    if names == Names::AbstractPadded {
        name.resize(LONGEST, 0);
    }
    SockAddr::unix(std::ffi::OsStr::from_bytes(&name)).map_err(|_| too_long())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_as_other_tools_show_them() {
        assert_eq!(
            Address::inet("127.0.0.1", 10809).to_string(),
            "127.0.0.1:10809"
        );
        assert_eq!(Address::inet("::1", "nbd").to_string(), "::1:nbd");
        assert_eq!(Address::unix("/run/s").to_string(), "/run/s");
        assert_eq!(Address::Vsock { cid: 1, port: 7 }.to_string(), "1:7");
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:5".parse().unwrap();
        assert_eq!(Address::from(mapped).to_string(), "10.0.0.1:5");
    }

    #[test]
    fn names_of_local_sockets_are_bounded() {
        for names in [Names::Path, Names::Abstract, Names::AbstractPadded] {
            unix(&"a".repeat(107).into(), names).unwrap();
            let error = unix(&"a".repeat(108).into(), names).unwrap_err();
            assert!(error.to_string().ends_with("is too long"), "{error}");
            assert!(unix(&"".into(), names).is_err());
        }
        assert!(unix(&"a\0b".into(), Names::Path).is_err());
    }
}
