//! Which authenticated peers are admitted.

use std::collections::BTreeMap;

use bstr::{BStr, ByteSlice};

use super::error::untrusted;
use crate::error::{Error, Result};

/// Decides by the identity that a peer has proved: the distinguished name of its certificate, or the name of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    rules: Vec<Rule>,
    /// The decision if no rule matches.
    allow: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    pattern: String,
    glob: bool,
    allow: bool,
}

impl Authorization {
    /// Admits only that identity.
    pub fn of(identity: impl Into<String>) -> Self {
        let rule = Rule {
            pattern: identity.into(),
            glob: false,
            allow: true,
        };
        Self {
            rules: vec![rule],
            allow: false,
        }
    }

    /// From the properties of an object: `identity`, or `policy` (`deny` or `allow`) with `rules.N.match`,
    /// `rules.N.policy` and `rules.N.format` (`exact` or `glob`); the first matching rule decides.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`].
    pub fn parse(properties: &BTreeMap<&str, &BStr>) -> Result<Self> {
        if let Some(identity) = properties.get("identity") {
            no_others(properties, |key| key == "identity")?;
            return Ok(Self::of(text("identity", identity)?));
        }
        let allow = match properties.get("policy") {
            None => false,
            Some(value) => is_allow("policy", value)?,
        };
        no_others(properties, |key| {
            key == "policy" || key.starts_with("rules.")
        })?;
        let mut rules = Vec::new();
        let mut used = 0;
        loop {
            let key = |part: &str| format!("rules.{}.{part}", rules.len());
            let get = |part: &str| properties.get(key(part).as_str());
            let Some(pattern) = get("match") else {
                break;
            };
            let glob = match get("format").map(|format| format.as_bytes()) {
                None | Some(b"exact") => false,
                Some(b"glob") => true,
                Some(other) => return Err(Error::refused_value("format", BStr::new(other))),
            };
            let policy = get("policy").ok_or_else(|| Error::missing_parameter(key("policy")))?;
            used += 2 + usize::from(get("format").is_some());
            let rule = Rule {
                pattern: text("match", pattern)?,
                glob,
                allow: is_allow("policy", policy)?,
            };
            rules.push(rule);
        }
        let given = properties.keys().filter(|key| key.starts_with("rules."));
        if given.count() != used {
            return Err(Error::invalid(format!(
                "Parameter 'rules.{}.match' is missing, or a rule has an unknown key",
                rules.len()
            )));
        }
        Ok(Self { rules, allow })
    }

    /// Whether an identity is admitted.
    pub fn allows(&self, identity: &str) -> bool {
        let fits = |rule: &&Rule| {
            if rule.glob {
                glob(rule.pattern.as_bytes(), identity.as_bytes())
            } else {
                rule.pattern == identity
            }
        };
        let decided = self.rules.iter().find(fits);
        decided.map_or(self.allow, |rule| rule.allow)
    }

    /// As [`Authorization::allows`], for a peer that may not have proved any identity.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Denied`].
    pub fn check(&self, identity: Option<&str>) -> Result<()> {
        match identity {
            Some(identity) if self.allows(identity) => Ok(()),
            Some(identity) => Err(untrusted(format!(
                "TLS x509 authz check for {identity} is denied"
            ))),
            None => Err(untrusted(
                "TLS authz check is denied: the client did not prove who it is",
            )),
        }
    }
}

fn text(key: &str, value: &BStr) -> Result<String> {
    let text = value.to_str();
    let text = text.map_err(|_| Error::invalid(format!("Parameter '{key}' is not UTF-8")))?;
    Ok(text.to_owned())
}

fn is_allow(key: &str, value: &BStr) -> Result<bool> {
    match value.as_bytes() {
        b"allow" => Ok(true),
        b"deny" => Ok(false),
        _ => Err(Error::refused_value(key, value)),
    }
}

fn no_others(properties: &BTreeMap<&str, &BStr>, known: impl Fn(&str) -> bool) -> Result<()> {
    match properties.keys().find(|key| !known(key)) {
        Some(key) => Err(Error::unexpected_parameter(key)),
        None => Ok(()),
    }
}

/// `*` matches any text, `?` any byte. Takes time at most proportional to the product of both lengths.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Position of the last star, and how far its match extends.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((at, reach)) => {
                    *reach += 1;
                    (p, t) = (*at + 1, *reach);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Authorization> {
        let pairs = pairs.iter();
        Authorization::parse(&pairs.map(|(k, v)| (*k, BStr::new(*v))).collect())
    }

    #[test]
    fn one_name_or_rules_of_which_the_first_that_fits_decides() {
        let one = parse(&[("identity", "CN=a")]).unwrap();
        assert!(one.allows("CN=a") && !one.allows("CN=ab"));
        let list = parse(&[
            ("policy", "deny"),
            ("rules.0.match", "CN=evil*"),
            ("rules.0.policy", "deny"),
            ("rules.0.format", "glob"),
            ("rules.1.match", "CN=*,O=Example"),
            ("rules.1.policy", "allow"),
            ("rules.1.format", "glob"),
        ])
        .unwrap();
        assert!(list.allows("CN=good,O=Example"));
        assert!(!list.allows("CN=evil,O=Example"));
        assert!(!list.allows("CN=good,O=Other"));
        assert!(list.check(None).is_err());
        let open = parse(&[("policy", "allow")]).unwrap();
        assert!(open.allows("anyone"));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for bad in [
            &[("identity", "a"), ("policy", "deny")][..],
            &[("policy", "maybe")],
            &[("rules.1.match", "a"), ("rules.1.policy", "allow")],
            &[("rules.0.match", "a")],
            &[("rules.0.match", "a"), ("rules.0.policy", "x")],
            &[
                ("rules.0.match", "a"),
                ("rules.0.policy", "deny"),
                ("rules.0.x", "y"),
            ],
            &[("bogus", "a")],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn stars_try_every_reach() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b", "aXbY", false),
            ("?", "", false),
            ("a?c", "abc", true),
            ("", "a", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), fits, "{pattern}");
        }
    }
}
