//! Proxies, as the environment names them for all programs.

use std::net::IpAddr;

use bstr::{BStr, ByteSlice};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::net::{Address, Url};
use crate::secret::Secret;

use super::login::basic;

/// The port of proxies that are named without one.
const PORT: u16 = 1080;

/// The remedy for a proxy that requires authentication.
pub(super) const PROXY_HINT: &str = "The proxy wants to know who asks: give 'proxy-username' and 'proxy-password-secret', or both in the proxy's URL";

/// The proxies named by the environment. Their URLs may contain passwords.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    http: Option<Secret>,
    https: Option<Secret>,
    all: Option<Secret>,
    none: Option<String>,
    /// The header value with the credentials; takes precedence over those in the URLs.
    login: Option<Secret>,
}

/// A proxy to use.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) address: Address,
    pub(super) login: Option<Secret>,
}

/// The value of the first variable that is set. `HTTP_PROXY` is not used, because servers that run programs set it to
/// what a client sends.
fn variable(names: &[&str]) -> Option<String> {
    let found = names.iter().find_map(|name| std::env::var(name).ok());
    found.filter(|value| !value.is_empty())
}

impl Proxies {
    pub(super) fn of_environment(login: Option<Secret>) -> Self {
        Self {
            http: variable(&["http_proxy"]).map(Secret::new),
            https: variable(&["https_proxy", "HTTPS_PROXY"]).map(Secret::new),
            all: variable(&["all_proxy", "ALL_PROXY"]).map(Secret::new),
            none: variable(&["no_proxy", "NO_PROXY"]),
            login,
        }
    }

    /// The proxy for a URL.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] or [`crate::ErrorKind::Unsupported`] for a proxy that cannot be used.
    pub(super) fn find(&self, url: &Url) -> Result<Option<Proxy>> {
        let own = match url.scheme.as_str() {
            "https" => &self.https,
            _ => &self.http,
        };
        let Some(name) = own.as_ref().or(self.all.as_ref()) else {
            return Ok(None);
        };
        if self.is_excepted(&url.host) {
            return Ok(None);
        }
        let scheme: &[u8] = match name.bytes().contains_str("://") {
            true => b"",
            false => b"http://",
        };
        let whole = Zeroizing::new([scheme, name.bytes()].concat());
        // The value is not shown, because it may contain a password.
        let bad = |error: Error| {
            error.context(format!("The proxy for {} in the environment", url.scheme))
        };
        let proxy = Url::parse(BStr::new(&*whole)).map_err(bad)?;
        if proxy.scheme != "http" {
            return Err(bad(Error::unsupported(format!(
                "Proxies of the kind '{}' are not supported",
                proxy.scheme
            ))));
        }
        let named = proxy.user.as_ref();
        let login = named.map(|user| basic(user, proxy.password.as_ref()));
        Ok(Some(Proxy {
            address: proxy.address(PORT),
            login: self.login.clone().or(login),
        }))
    }

    fn is_excepted(&self, host: &str) -> bool {
        let Some(none) = &self.none else {
            return false;
        };
        let host = host.trim_end_matches('.');
        let is_number = host.parse::<IpAddr>().is_ok();
        none.split([',', ' ']).any(|name| {
            let name = name
                .trim_matches(|c| c == '[' || c == ']')
                .to_ascii_lowercase();
            let name = name.trim_matches('.');
            name == "*"
                || (!name.is_empty() && name == host)
                || (!is_number
                    && !name.is_empty()
                    && host
                        .strip_suffix(name)
                        .is_some_and(|before| before.ends_with('.')))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(proxies: &Proxies, url: &str) -> Option<String> {
        let url = Url::parse(url.into()).unwrap();
        let proxy = proxies.find(&url).unwrap();
        proxy.map(|proxy| proxy.address.to_string())
    }

    #[test]
    fn the_environment_says_what_stands_in_between() {
        let proxies = Proxies {
            http: Some(Secret::new("p:3128")),
            https: Some(Secret::new("http://joe:pw@q")),
            none: Some("localhost, .example.org,10.0.0.1,[::1]".to_owned()),
            ..Proxies::default()
        };
        assert_eq!(found(&proxies, "http://h/").unwrap(), "p:3128");
        assert_eq!(found(&proxies, "https://h/").unwrap(), "q:1080");
        for url in [
            "http://localhost:8/",
            "http://example.org/",
            "https://a.example.org/",
            "http://10.0.0.1/",
            "http://[::1]/",
        ] {
            assert_eq!(found(&proxies, url), None, "{url}");
        }
        assert!(found(&proxies, "http://xexample.org/").is_some());
        let url = Url::parse("https://h/".into()).unwrap();
        let login = proxies.find(&url).unwrap().unwrap().login.unwrap();
        assert_eq!(login.bytes(), b"Basic am9lOnB3");
        assert!(!format!("{proxies:?}").contains("pw"), "{proxies:?}");
        let strange = Proxies {
            all: Some(Secret::new("socks5://joe:pw@h")),
            ..Proxies::default()
        };
        let error = strange.find(&url).unwrap_err().to_string();
        assert!(
            error.contains("'socks5'") && !error.contains("pw"),
            "{error}"
        );
        let all = Proxies {
            all: Some(Secret::new("p:1")),
            none: Some("*".to_owned()),
            ..Proxies::default()
        };
        assert_eq!(found(&all, "http://h/"), None);
    }
}
