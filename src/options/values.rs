//! Options that have been checked against their table.

use std::borrow::Cow;

use bstr::{BStr, BString, ByteSlice};

use super::{OptionKind, OptionSpec, Options, list_index};
use crate::error::{Error, Result};
use crate::size::SizeError;

/// A checked value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionValue {
    /// Of [`OptionKind::Str`].
    Str(String),
    /// Of [`OptionKind::Name`].
    Name(BString),
    /// Of [`OptionKind::Num`] or [`OptionKind::Size`].
    Num(u64),
    /// Of [`OptionKind::Bool`].
    Bool(bool),
}

/// Checked values, by key.
#[derive(Clone, Debug, Default)]
pub struct Values {
    entries: Vec<(Cow<'static, str>, OptionValue)>,
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
            let Some(spec) = table.iter().find(|spec| spec.matches(key)) else {
                return Err(unknown_key(key, table));
            };
            let name = match spec.name == key {
                true => Cow::Borrowed(spec.name),
                false => Cow::Owned(key.to_owned()),
            };
            entries.push((name, parse_named(spec.shown(key), spec.kind, text)?));
        }
        Ok(Self { entries })
    }

    /// Refuses words that are not allowed, for options whose allowed words the table lists.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`].
    pub(crate) fn check_words(&self, table: &[OptionSpec]) -> Result<()> {
        for (key, value) in self.iter() {
            let spec = table.iter().find(|spec| spec.matches(key));
            let allowed = spec.map_or(&[][..], |spec| spec.allowed);
            if let OptionValue::Str(text) = value
                && !allowed.is_empty()
                && !allowed.contains(&text.as_str())
            {
                return Err(Error::invalid_value(text));
            }
        }
        Ok(())
    }

    /// Those that do not belong to a table.
    pub(crate) fn without(&self, table: &[OptionSpec]) -> Self {
        let others = self.entries.iter();
        let others = others.filter(|(key, _)| !table.iter().any(|spec| spec.matches(key)));
        Self {
            entries: others.cloned().collect(),
        }
    }

    /// The values by their keys, in the order in which they were set.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &OptionValue)> {
        self.entries.iter().map(|(key, value)| (&**key, value))
    }

    /// The items of the list `name`: each with the values whose keys begin with `name.N.`, under the rest of their
    /// keys.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if an item before the last one is missing.
    pub fn list(&self, name: &str) -> Result<Vec<Self>> {
        let mut items = std::collections::BTreeMap::<usize, Self>::new();
        for (key, value) in self.iter() {
            let rest = key
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('.'));
            let Some((place, key)) = rest.and_then(|rest| rest.split_once('.')) else {
                continue;
            };
            if let Some(place) = list_index(place) {
                let item = items.entry(place).or_default();
                item.entries
                    .push((Cow::Owned(key.to_owned()), value.clone()));
            }
        }
        if let Some(missing) = (0..).zip(items.keys()).find(|(at, place)| at != *place) {
            let missing = missing.0;
            return Err(Error::invalid(format!(
                "Parameter '{name}.{missing}' missing"
            )));
        }
        Ok(items.into_values().collect())
    }

    /// The values whose keys are `name.` and one more part, which is not a list index, under that part.
    pub fn group(&self, name: &str) -> Self {
        let mut group = Self::default();
        for (key, value) in self.iter() {
            let part = key
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('.'));
            if let Some(part) = part.filter(|part| !part.contains('.')) {
                group
                    .entries
                    .push((Cow::Owned(part.to_owned()), value.clone()));
            }
        }
        group
    }

    /// The value of `key`, if given.
    pub fn get(&self, key: &str) -> Option<&OptionValue> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// The text of `key`, if given and a string; for names see [`Values::name`].
    pub fn str(&self, key: &str) -> Option<&str> {
        match self.get(key) {
            Some(OptionValue::Name(_)) => {
                debug_assert!(false, "'{key}' is a name");
                None
            }
            Some(OptionValue::Str(text)) => Some(text),
            _ => None,
        }
    }

    /// The name of `key`, if given and a file name.
    pub fn name(&self, key: &str) -> Option<&BStr> {
        match self.get(key) {
            Some(OptionValue::Name(name)) => Some(name.as_bstr()),
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

    /// The Boolean of `key`, if given and a bool.
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
/// [`crate::ErrorKind::Invalid`], naming the parameter.
pub fn parse_value(spec: &OptionSpec, value: &BStr) -> Result<OptionValue> {
    parse_named(spec.name, spec.kind, value)
}

/// As [`parse_value`], for the option `name`.
fn parse_named(name: &str, kind: OptionKind, value: &BStr) -> Result<OptionValue> {
    // No valid number or word contains a byte that would be replaced here.
    let text = value.to_str_lossy();
    match kind {
        OptionKind::Name => Ok(OptionValue::Name(value.to_owned())),
        OptionKind::Str => match value.to_str() {
            Ok(text) => Ok(OptionValue::Str(text.to_owned())),
            Err(_) => Err(Error::refused_value(name, value)),
        },
        OptionKind::Bool => match &*text {
            "on" | "yes" | "true" | "y" => Ok(OptionValue::Bool(true)),
            "off" | "no" | "false" | "n" => Ok(OptionValue::Bool(false)),
            _ => Err(Error::invalid(format!(
                "Parameter '{name}' expects 'on' or 'off'"
            ))),
        },
        OptionKind::Num => match crate::size::parse_number_checked(&text) {
            Ok(n) => Ok(OptionValue::Num(n)),
            Err(SizeError::Range) => Err(Error::invalid(format!(
                "Value '{text}' is too large for parameter '{name}'"
            ))),
            Err(SizeError::Syntax) => Err(Error::invalid(format!(
                "Parameter '{name}' expects a number"
            ))),
        },
        OptionKind::Size => crate::size::parse_option_size(name, &text).map(OptionValue::Num),
    }
}

/// The hint for an open option that the driver with this table does not know.
pub(crate) fn valid_keys(table: &[OptionSpec]) -> String {
    let mut names: Vec<&str> = table.iter().map(|spec| spec.name).collect();
    names.sort_unstable();
    names.push("those of every node");
    format!("Valid parameters: {}", names.join(", "))
}

/// The error for an unknown key; the hint lists the valid ones.
fn unknown_key(key: &str, table: &[OptionSpec]) -> Error {
    let names: Vec<&str> = table.iter().map(|spec| spec.name).collect();
    let error = Error::invalid(format!("Invalid parameter '{key}'"));
    if names.is_empty() {
        error
    } else {
        error.with_hint(format!("Valid parameters: {}", names.join(", ")))
    }
}
