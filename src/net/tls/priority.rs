//! GnuTLS priority strings, as far as they can be honoured: they select versions of the protocol. The algorithms are
//! always those that are considered secure today.

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use crate::error::{Error, Result};

/// The versions that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Priority {
    pub tls12: bool,
    pub tls13: bool,
}

impl Default for Priority {
    fn default() -> Self {
        Self {
            tls12: true,
            tls13: true,
        }
    }
}

impl Priority {
    /// Parses the text.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] for anything that cannot be honoured.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let refused = |token: &str| {
            Err(Error::unsupported(format!(
                "Cannot set TLS session priority {text}: '{token}' is not supported"
            ))
            .with_hint("Only the versions of TLS can be chosen: NORMAL:-VERS-TLS1.3"))
        };
        let mut tokens = text.split(':');
        let mut priority = Self::default();
        match tokens.next().unwrap_or_default() {
            "NORMAL" | "SECURE128" | "PERFORMANCE" | "PFS" | "SYSTEM" | "@SYSTEM" => {}
            token => return refused(token),
        }
        for token in tokens {
            let (on, what) = match token.split_at_checked(1) {
                Some(("+", what)) => (true, what),
                Some(("-" | "!", what)) => (false, what),
                _ => return refused(token),
            };
            match what {
                "VERS-ALL" | "VERS-TLS-ALL" => {
                    priority = Self {
                        tls12: on,
                        tls13: on,
                    }
                }
                "VERS-TLS1.3" => priority.tls13 = on,
                "VERS-TLS1.2" => priority.tls12 = on,
                // These are never used anyway.
                "VERS-TLS1.1" | "VERS-TLS1.0" | "VERS-SSL3.0" if !on => {}
                _ => return refused(token),
            }
        }
        if !priority.tls12 && !priority.tls13 {
            return Err(Error::invalid(format!(
                "Cannot set TLS session priority {text}: no version is left"
            )));
        }
        Ok(priority)
    }

    /// As the TLS library expects them.
    pub(super) fn versions(self) -> Vec<&'static SupportedProtocolVersion> {
        let known = [(self.tls13, &TLS13), (self.tls12, &TLS12)];
        let chosen = known.into_iter().filter(|(on, _)| *on);
        chosen.map(|(_, version)| version).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_chosen_and_all_else_is_refused_by_name() {
        let versions = |text| Priority::parse(text).map(|p| (p.tls12, p.tls13));
        assert_eq!(versions("NORMAL").unwrap(), (true, true));
        assert_eq!(versions("NORMAL:-VERS-TLS1.3").unwrap(), (true, false));
        assert_eq!(
            versions("NORMAL:-VERS-ALL:+VERS-TLS1.3").unwrap(),
            (false, true)
        );
        for (bad, token) in [
            ("BOGUS", "BOGUS"),
            ("NORMAL:+ANON-DH", "+ANON-DH"),
            ("NORMAL:%COMPAT", "%COMPAT"),
            ("NORMAL:+VERS-TLS1.0", "+VERS-TLS1.0"),
            ("", ""),
        ] {
            let error = versions(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("'{token}'")), "{error}");
        }
        assert!(versions("NORMAL:-VERS-ALL").is_err());
    }
}
