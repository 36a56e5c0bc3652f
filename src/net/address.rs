//! Addresses of peers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

use bstr::{BString, ByteSlice};
use socket2::SockAddr;

use crate::error::{Error, Result};

/// Which versions of the Internet Protocol may be used.
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

/// The namespace of a local socket's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Names {
    /// The file system.
    #[default]
    Path,
    /// Linux's abstract namespace, with the name unpadded.
    Abstract,
    /// Linux's abstract namespace, with the name padded with zeros to the maximum length.
    AbstractPadded,
}

/// The address of a peer, or one to listen on. Displayed as in other tools: `host:port`, the path, or `cid:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A machine.
    Inet {
        /// Its name or IP address, the latter without brackets; empty for all addresses of this machine, when
        /// listening.
        host: String,
        /// The port number, or the name of the service.
        port: String,
        /// The versions that may be used.
        family: Family,
    },
    /// A process on this machine.
    Unix {
        /// Name of its socket; empty if it has none.
        path: BString,
        /// The namespace of the name.
        names: Names,
    },
    /// A virtual machine or its host.
    Vsock {
        /// Its context ID.
        cid: u32,
        /// The port.
        port: u32,
    },
    /// A socket that this process has open already. It is duplicated, and stays open.
    Descriptor(RawFd),
}

impl Address {
    /// A machine by name or IP address, with any version.
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

    /// The host whose certificate is expected; None if the address has no host name.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Inet { host, .. } => Some(host),
            _ => None,
        }
    }

    /// The port number; None if the address has none, or names a service instead.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Inet { port, .. } => port.parse().ok(),
            _ => None,
        }
    }

    /// From the kernel's address of one end of a connection.
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
                // A machine that connected by IPv4 to a dual-stack socket.
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

/// Maximum length of the name of a local socket, including the terminating zero.
const LONGEST: usize = 108;

/// The kernel's address for the name of a local socket.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] if it is too long or empty.
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
