//! What formats do where an option of a new image is not given, and which values they take, where the tables of
//! options leave that out: those print what QEMU's tools print, and what a table allows decides on the words of errors.

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

/// What is off for every driver that has such an option.
const EVERYWHERE: &[Unstated] = &[
    of("encryption", "off"),
    of("nocow", "off"),
    of("preallocation", "off"),
];

/// What is left out of an option of a driver that has `own`.
pub(crate) fn find(own: &'static [Unstated], key: &str) -> Option<&'static Unstated> {
    own.iter().chain(EVERYWHERE).find(|one| one.key == key)
}

#[cfg(test)]
mod tests {
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
}
