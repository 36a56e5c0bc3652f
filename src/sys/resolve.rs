//! Lookup of hosts and services.

use std::ffi::{CStr, CString};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Which kinds of address to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Any,
    V4,
    V6,
}

/// The parameters of a lookup.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub version: Version,
    /// For listening: without a host, all addresses of this machine.
    pub passive: bool,
    /// Accepts only numeric addresses, so no server is queried.
    pub numeric: bool,
}

/// The addresses of a host and a service, in the order in which to try them. Blocks on name servers, however long that
/// takes.
///
/// # Errors
/// The resolver's message.
pub(crate) fn resolve(
    host: Option<&CStr>,
    service: &CStr,
    question: Question,
) -> Result<Vec<SocketAddr>, String> {
    // SAFETY: zeroed hints are valid.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_family = match question.version {
        Version::Any => libc::AF_UNSPEC,
        Version::V4 => libc::AF_INET,
        Version::V6 => libc::AF_INET6,
    };
    hints.ai_socktype = libc::SOCK_STREAM;
    if question.passive {
        hints.ai_flags |= libc::AI_PASSIVE;
    }
    if question.numeric {
        hints.ai_flags |= libc::AI_NUMERICHOST;
    }
    let mut list = std::ptr::null_mut();
    let host = host.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: both names are NULL or NUL-terminated, and only the call writes to the list.
    let code =
        unsafe { libc::getaddrinfo(host, service.as_ptr(), &raw const hints, &raw mut list) };
    if code != 0 {
        return Err(reason(code));
    }
    let mut found = Vec::new();
    let mut next = list;
    // SAFETY: the list from the call, each element with an address of the family and length that it specifies.
    unsafe {
        while let Some(one) = next.as_ref() {
            found.extend(address(one));
            next = one.ai_next;
        }
        libc::freeaddrinfo(list);
    }
    Ok(found)
}

/// # Safety
/// `one` must come from `getaddrinfo`.
unsafe fn address(one: &libc::addrinfo) -> Option<SocketAddr> {
    let len = one.ai_addrlen as usize;
    match one.ai_family {
        libc::AF_INET if len >= size_of::<libc::sockaddr_in>() => {
            // SAFETY: by its family and length; read without assuming its alignment.
            let v4 = unsafe { one.ai_addr.cast::<libc::sockaddr_in>().read_unaligned() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 if len >= size_of::<libc::sockaddr_in6>() => {
            // SAFETY: as above.
            let v6 = unsafe { one.ai_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            let v6 = SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id);
            Some(SocketAddr::V6(v6))
        }
        _ => None,
    }
}

fn reason(code: libc::c_int) -> String {
    if code == libc::EAI_SYSTEM {
        return crate::error::Error::io(&io::Error::last_os_error()).to_string();
    }
    // SAFETY: a text that is never freed.
    let text = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
    CString::from(text).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(host: Option<&CStr>, service: &CStr, version: Version) -> Result<Vec<String>, String> {
        let question = Question {
            version,
            passive: host.is_none(),
            numeric: true,
        };
        let found = resolve(host, service, question)?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn numbers_are_addresses_and_no_host_is_all_of_this_machine() {
        let v4 = ask(Some(c"127.0.0.1"), c"80", Version::Any).unwrap();
        assert_eq!(v4, ["127.0.0.1:80"]);
        let v6 = ask(Some(c"::1"), c"65535", Version::Any).unwrap();
        assert_eq!(v6, ["[::1]:65535"]);
        assert_eq!(ask(None, c"0", Version::V4).unwrap(), ["0.0.0.0:0"]);
        assert_eq!(ask(None, c"0", Version::V6).unwrap(), ["[::]:0"]);
    }

    #[test]
    fn other_versions_and_names_are_refused_in_words() {
        let refused = ask(Some(c"::1"), c"80", Version::V4).unwrap_err();
        assert!(refused.contains("Address family"), "{refused}");
        let refused = ask(Some(c"no.number"), c"80", Version::Any).unwrap_err();
        assert!(refused.contains("Name or service not known"), "{refused}");
    }
}
