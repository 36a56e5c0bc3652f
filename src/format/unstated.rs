//! What formats do where an option of a new image is not given, and which values they take, where the tables of
//! options leave that out: those print what QEMU's tools print, and what a table allows decides on the words of errors.

use crate::crypto::{Algorithm, Hash, IvGenerator, Mode};

/// An option of which the table says nothing.
#[derive(Clone, Copy, Debug)]
pub struct Unstated {
    /// The key.
    pub key: &'static str,
    /// What the driver does where it is not given.
    pub default: Option<&'static str>,
    /// The values that the driver takes, where they are few.
    pub allowed: &'static [&'static str],
}

/// An option with a default.
pub(crate) const fn of(key: &'static str, default: &'static str) -> Unstated {
    one_of(key, default, &[])
}

/// One that takes few values.
pub(crate) const fn one_of(
    key: &'static str,
    default: &'static str,
    allowed: &'static [&'static str],
) -> Unstated {
    Unstated {
        key,
        default: Some(default),
        allowed,
    }
}

/// One that takes few values, and is off where it is not given.
pub(crate) const fn among(key: &'static str, allowed: &'static [&'static str]) -> Unstated {
    Unstated {
        key,
        default: None,
        allowed,
    }
}

/// What is off for every driver that has such an option.
const EVERYWHERE: &[Unstated] = &[
    of("encryption", "off"),
    of("nocow", "off"),
    of("preallocation", "off"),
];

/// What LUKS does, also within other formats, where the options begin with [`IN_OTHERS`].
const LUKS: &[Unstated] = &[
    one_of("cipher-alg", "aes-256", Algorithm::NAMES),
    one_of("cipher-mode", "xts", Mode::NAMES),
    one_of("hash-alg", "sha256", Hash::NAMES),
    of("iter-time", "2000"),
    one_of("ivgen-alg", "plain64", IvGenerator::NAMES),
    one_of("ivgen-hash-alg", "sha256", Hash::NAMES),
];
const IN_OTHERS: &str = "encrypt.";

/// What is left out of an option of a driver that has `own`.
pub(crate) fn find(own: &'static [Unstated], key: &str) -> Option<&'static Unstated> {
    let found = own.iter().chain(EVERYWHERE).find(|one| one.key == key);
    found.or_else(|| of_luks(key))
}

/// What is left out of an option of LUKS.
pub(crate) fn of_luks(key: &str) -> Option<&'static Unstated> {
    let key = key.strip_prefix(IN_OTHERS).unwrap_or(key);
    LUKS.iter().find(|one| one.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::registry;

    #[test]
    fn each_is_an_option_whose_table_leaves_it_out() {
        for driver in registry::drivers() {
            for one in driver.unstated {
                let mut table = driver.create_options.iter();
                let spec = table.find(|spec| spec.name == one.key).unwrap();
                assert!(spec.default.is_none() || one.default.is_none());
                assert!(spec.allowed.is_empty() || one.allowed.is_empty());
            }
        }
    }

    #[test]
    fn luks_takes_the_names_that_are_listed() {
        for one in LUKS {
            let luks = registry::by_name("luks").unwrap();
            assert!(luks.create_options.iter().any(|spec| spec.name == one.key));
        }
        let taken = |names: &[&str], takes: fn(&str) -> bool| names.iter().all(|name| takes(name));
        assert!(taken(Algorithm::NAMES, |name| Algorithm::from_name(name)
            .is_some()));
        assert!(taken(Mode::NAMES, |name| Mode::from_name(name).is_some()));
        assert!(taken(Hash::NAMES, |name| Hash::from_name(name).is_some()));
    }
}
