//! The defaults and allowed values of creation options that are missing from the option tables: those print what QEMU's
//! tools print, and a table's allowed values determine the wording of errors.

use crate::crypto::{Algorithm, Hash, IvGenerator, Mode};

/// Properties of an option that are missing from the table.
#[derive(Clone, Copy, Debug)]
pub struct Unstated {
    /// The key.
    pub key: &'static str,
    /// What the driver uses if the option is not given.
    pub default: Option<&'static str>,
    /// The values that the driver accepts, if they are few.
    pub allowed: &'static [&'static str],
}

/// An option with a default.
pub(crate) const fn of(key: &'static str, default: &'static str) -> Unstated {
    one_of(key, default, &[])
}

/// An option with a default and few values.
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

/// An option with few values, which is off unless it is given.
pub(crate) const fn among(key: &'static str, allowed: &'static [&'static str]) -> Unstated {
    Unstated {
        key,
        default: None,
        allowed,
    }
}

/// Options that are off by default in every driver that has them.
const EVERYWHERE: &[Unstated] = &[
    of("encryption", "off"),
    of("nocow", "off"),
    of("preallocation", "off"),
];

/// Defaults of LUKS, including LUKS within other formats, whose options begin with [`IN_OTHERS`].
const LUKS: &[Unstated] = &[
    one_of("cipher-alg", "aes-256", Algorithm::NAMES),
    one_of("cipher-mode", "xts", Mode::NAMES),
    one_of("hash-alg", "sha256", Hash::NAMES),
    of("iter-time", "2000"),
    one_of("ivgen-alg", "plain64", IvGenerator::NAMES),
    one_of("ivgen-hash-alg", "sha256", Hash::NAMES),
];
const IN_OTHERS: &str = "encrypt.";

/// The missing properties of an option of a driver that has `own`.
pub(crate) fn find(own: &'static [Unstated], key: &str) -> Option<&'static Unstated> {
    let found = own.iter().chain(EVERYWHERE).find(|one| one.key == key);
    found.or_else(|| of_luks(key))
}

/// The missing properties of an option of LUKS.
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
