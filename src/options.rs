//! Typed option tables, and bags of `key=value` options checked against them.
//!
//! One table per driver and operation validates options, feeds `-o help`, the introspection
//! calls of the C ABI and the manual.

use crate::error::{Error, Result};

/// The type of an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionKind {
    /// Free text, or one of [`OptionSpec::allowed`].
    Str,
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
            Self::Str => "str",
            Self::Num => "num",
            Self::Size => "size",
            Self::Bool => "bool (on/off)",
        }
    }
}

/// One option of a driver.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// The key.
    pub name: &'static str,
    /// The type of the value.
    pub kind: OptionKind,
    /// One line of help.
    pub help: &'static str,
    /// The value when the option is not given.
    pub default: Option<&'static str>,
    /// The values allowed, where only some are.
    pub allowed: &'static [&'static str],
}

/// A checked value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionValue {
    /// Of [`OptionKind::Str`].
    Str(String),
    /// Of [`OptionKind::Num`] or [`OptionKind::Size`].
    Num(u64),
    /// Of [`OptionKind::Bool`].
    Bool(bool),
}

/// A bag of options as the user typed them, in order; a later key replaces an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    entries: Vec<(String, String)>,
}

impl Options {
    /// An empty bag.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key`, replacing an earlier value.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        let key = key.into();
        self.entries.retain(|(k, _)| *k != key);
        self.entries.push((key, value.into()));
    }

    /// The value of `key` as typed.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    /// Removes `key` and returns its value.
    pub fn take(&mut self, key: &str) -> Option<String> {
        let at = self.entries.iter().position(|(k, _)| k == key)?;
        Some(self.entries.remove(at).1)
    }

    /// The entries, in the order in which they were set.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds the entries of a `k=v,k=v` list: `,,` is a literal comma, a bare `flag` is `on`,
    /// `noflag` is `off`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for an empty list, or a leading or trailing comma.
    pub fn parse_into(&mut self, list: &str) -> Result<()> {
        if list.is_empty() || list.starts_with(',') || ends_with_single_comma(list) {
            return Err(Error::invalid(format!("Invalid option list: {list}")));
        }
        for item in split_doubled(list) {
            match item.split_once('=') {
                Some((key, value)) => self.set(key, value),
                None => match item.strip_prefix("no") {
                    Some(key) if !key.is_empty() => self.set(key, "off"),
                    _ => self.set(item, "on"),
                },
            }
        }
        Ok(())
    }

    /// A bag from a `k=v,k=v` list, see [`Options::parse_into`].
    ///
    /// # Errors
    /// As [`Options::parse_into`].
    pub fn parse(list: &str) -> Result<Self> {
        let mut options = Self::new();
        options.parse_into(list)?;
        Ok(options)
    }
}

fn ends_with_single_comma(list: &str) -> bool {
    (list.len() - list.trim_end_matches(',').len()) % 2 == 1
}

/// Splits at single commas; `,,` becomes one comma.
fn split_doubled(list: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut chars = list.chars().peekable();
    while let Some(c) = chars.next() {
        if c != ',' {
            if let Some(item) = items.last_mut() {
                item.push(c);
            }
        } else if chars.peek() == Some(&',') {
            chars.next();
            if let Some(item) = items.last_mut() {
                item.push(',');
            }
        } else {
            items.push(String::new());
        }
    }
    items
}

/// Checked values, by key.
#[derive(Clone, Debug, Default)]
pub struct Values {
    entries: Vec<(&'static str, OptionValue)>,
}

impl Values {
    /// Checks `options` against `table`. Defaults are not filled in.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`]: an unknown key (the hint lists the valid ones), or a value
    /// of the wrong type.
    pub fn check(options: &Options, table: &[OptionSpec]) -> Result<Self> {
        let mut entries = Vec::new();
        for (key, text) in options.iter() {
            let Some(spec) = table.iter().find(|spec| spec.name == key) else {
                return Err(Error::invalid(format!("Invalid parameter '{key}'")));
            };
            entries.push((spec.name, parse_value(spec, text)?));
        }
        Ok(Self { entries })
    }

    /// The value of `key`, if given.
    pub fn get(&self, key: &str) -> Option<&OptionValue> {
        self.entries.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// The text of `key`, if given and a string.
    pub fn str(&self, key: &str) -> Option<&str> {
        match self.get(key) {
            Some(OptionValue::Str(text)) => Some(text),
            _ => None,
        }
    }

    /// The number of `key`, if given and a number or size.
    pub fn num(&self, key: &str) -> Option<u64> {
        match self.get(key) {
            Some(OptionValue::Num(n)) => Some(*n),
            _ => None,
        }
    }

    /// The truth of `key`, if given and a bool.
    pub fn bool(&self, key: &str) -> Option<bool> {
        match self.get(key) {
            Some(OptionValue::Bool(b)) => Some(*b),
            _ => None,
        }
    }
}

/// Parses one value as its option's type.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] that names the parameter.
pub fn parse_value(spec: &OptionSpec, text: &str) -> Result<OptionValue> {
    let name = spec.name;
    match spec.kind {
        OptionKind::Str => Ok(OptionValue::Str(text.to_owned())),
        OptionKind::Bool => match text {
            "on" | "yes" | "true" | "y" => Ok(OptionValue::Bool(true)),
            "off" | "no" | "false" | "n" => Ok(OptionValue::Bool(false)),
            _ => Err(Error::invalid(format!(
                "Parameter '{name}' expects 'on' or 'off'"
            ))),
        },
        OptionKind::Num => crate::size::parse_number(text)
            .map(OptionValue::Num)
            .ok_or_else(|| Error::invalid(format!("Parameter '{name}' expects a number"))),
        OptionKind::Size => crate::size::parse_option_size(name, text).map(OptionValue::Num),
    }
}
