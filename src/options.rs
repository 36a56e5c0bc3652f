//! Typed option tables, and bags of `key=value` options checked against them.
//!
//! One table per driver and operation validates options and feeds `-o help`, the introspection calls of the C ABI and
//! the manual. Values are bytes, because some of them are file names.

mod list;
mod values;

use bstr::{BStr, BString, ByteSlice};

use crate::error::Result;

use list::check_list;
pub(crate) use list::split_list;
pub use list::{asks_for_help, double_commas};
pub(crate) use values::valid_keys;
pub use values::{OptionValue, Values, parse_value};

/// The type of an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionKind {
    /// Free text, or one of [`OptionSpec::allowed`].
    Str,
    /// The name of a file, which need not be UTF-8.
    Name,
    /// A number.
    Num,
    /// A number of bytes with an optional suffix.
    Size,
    /// `on` or `off`.
    Bool,
}

impl OptionKind {
    /// The name as `-o help` prints it.
    pub fn help_name(self) -> &'static str {
        match self {
            Self::Str | Self::Name => "str",
            Self::Num => "num",
            Self::Size => "size",
            Self::Bool => "bool (on/off)",
        }
    }
}

/// One option of a driver.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// The key. For an option in a list, `*` stands for its index: `server.*.host` matches `server.0.host`.
    pub name: &'static str,
    /// The type of the value.
    pub kind: OptionKind,
    /// One line of help.
    pub help: &'static str,
    /// The value when the option is not given.
    pub default: Option<&'static str>,
    /// The allowed values, if only some are.
    pub allowed: &'static [&'static str],
}

/// An option without a default, for the tables of drivers.
pub(crate) const fn option(name: &'static str, kind: OptionKind, help: &'static str) -> OptionSpec {
    OptionSpec {
        name,
        kind,
        help,
        default: None,
        allowed: &[],
    }
}

impl OptionSpec {
    /// The same option with a default value.
    pub(crate) const fn default_to(self, value: &'static str) -> Self {
        Self {
            default: Some(value),
            ..self
        }
    }

    /// The same option, restricted to these values.
    pub(crate) const fn one_of(self, values: &'static [&'static str]) -> Self {
        Self {
            allowed: values,
            ..self
        }
    }

    /// Whether its value is the ID of a secret.
    pub fn is_secret(&self) -> bool {
        self.name.ends_with("-secret")
    }

    /// Whether `key` is a key of this option.
    pub fn matches(&self, key: &str) -> bool {
        key_matches(self.name, key)
    }

    /// What messages call the option if it was given as `key`: QEMU's tools name an option within a list item without
    /// the path to that item.
    fn shown<'k>(&self, key: &'k str) -> &'k str {
        let within = match self.name.rsplit_once("*.") {
            Some((_, within)) => within.split('.').count(),
            None => return key,
        };
        let mut dots = key.rmatch_indices('.');
        let at = dots.nth(within - 1).map_or(0, |(at, _)| at + 1);
        key.get(at..).unwrap_or(key)
    }
}

/// Whether `key` matches `name`, in which `*` is any index of a list.
pub(crate) fn key_matches(name: &str, key: &str) -> bool {
    if !name.contains('*') {
        return name == key;
    }
    let mut parts = key.split('.');
    let all = name.split('.').all(|part| {
        let given = parts.next();
        match part {
            "*" => given.is_some_and(|given| list_index(given).is_some()),
            _ => given == Some(part),
        }
    });
    all && parts.next().is_none()
}

/// The list index that a part of a key denotes.
pub(crate) fn list_index(part: &str) -> Option<usize> {
    let plain = part == "0" || !part.starts_with(['0', '+']);
    plain.then(|| part.parse().ok()).flatten()
}

/// A bag of options as the user typed them, in order; a later key replaces an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    entries: Vec<(String, BString)>,
}

impl Options {
    /// An empty bag.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key`, replacing an earlier value.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<BString>) {
        let key = key.into();
        self.entries.retain(|(k, _)| *k != key);
        self.entries.push((key, value.into()));
    }

    /// The value of `key` as typed.
    pub fn get(&self, key: &str) -> Option<&BStr> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// Removes `key` and returns its value.
    pub fn take(&mut self, key: &str) -> Option<BString> {
        let at = self.entries.iter().position(|(k, _)| k == key)?;
        Some(self.entries.remove(at).1)
    }

    /// The entries, in the order in which they were set.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &BStr)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), v.as_bstr()))
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds the entries of a `k=v,k=v` list: `,,` in a value is a literal comma, a bare `flag` is `on`, `noflag` is
    /// `off`. An existing key is replaced.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for an empty list, or a leading or trailing comma.
    pub fn parse_into(&mut self, list: &(impl AsRef<[u8]> + ?Sized)) -> Result<()> {
        let list = BStr::new(list);
        check_list(list)?;
        for item in split_list(list) {
            self.set(item.key.to_str_lossy(), item.value);
        }
        Ok(())
    }

    /// A bag from a `k=v,k=v` list, see [`Options::parse_into`].
    ///
    /// # Errors
    /// As [`Options::parse_into`].
    pub fn parse(list: &(impl AsRef<[u8]> + ?Sized)) -> Result<Self> {
        let mut options = Self::new();
        options.parse_into(list)?;
        Ok(options)
    }
}

/// The compression level, in the tables of all formats that compress.
pub const COMPRESSION_LEVEL: &str = "compression_level";

/// The lines of `-o help` for the options of all `tables`, sorted by name; a name in more than one table is listed
/// once. Those in `own`, which QEMU does not know, follow the others under a heading of their own. Each line ends in a
/// newline.
pub fn help_table(tables: &[&[OptionSpec]], own: &[&str]) -> String {
    let is_own = |name: &str| own.contains(&name);
    let mut specs: Vec<&OptionSpec> = tables.iter().flat_map(|table| table.iter()).collect();
    specs.sort_by_key(|spec| (is_own(spec.name), spec.name));
    specs.dedup_by_key(|spec| spec.name);
    let mut text = String::new();
    let mut headed = false;
    for spec in specs {
        if is_own(spec.name) && !headed {
            text.push_str("Further options:\n");
            headed = true;
        }
        let head = format!("{}=<{}>", spec.name, spec.kind.help_name());
        text.push_str(&format!("  {head:<22} - {}\n", spec.help));
    }
    text
}

#[cfg(test)]
mod tests;
