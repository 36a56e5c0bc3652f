//! Typed option tables, and bags of `key=value` options checked against them.
//!
//! One table per driver and operation validates options, feeds `-o help`, the introspection
//! calls of the C ABI and the manual. Values are bytes, for some of them are names of files.

use std::borrow::Cow;

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, Result};
use crate::size::SizeError;

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
    /// The key. Of an option in a list, `*` stands for its place in it: `server.*.host` matches
    /// `server.0.host`.
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
    /// The same with a value for where it is not given.
    pub(crate) const fn default_to(self, value: &'static str) -> Self {
        Self {
            default: Some(value),
            ..self
        }
    }

    /// The same with the only values that it takes.
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

    /// Whether a key is that of the option.
    pub fn matches(&self, key: &str) -> bool {
        key_matches(self.name, key)
    }

    /// What messages call the option where it was given by `key`: QEMU's tools name what stands in an item of a
    /// list by itself.
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

/// Whether a key is one that `name` stands for, in which `*` is any place in a list.
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

/// The place in a list that a part of a key names.
fn list_index(part: &str) -> Option<usize> {
    let plain = part == "0" || !part.starts_with(['0', '+']);
    plain.then(|| part.parse().ok()).flatten()
}

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

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds the entries of a `k=v,k=v` list: `,,` in a value is a literal comma, a bare `flag` is
    /// `on`, `noflag` is `off`. A key that is there already is replaced.
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

/// Refuses a list that cannot be joined to another by a comma.
fn check_list(list: &BStr) -> Result<()> {
    let trailing = list.iter().rev().take_while(|c| **c == b',').count();
    if list.is_empty() || list.starts_with(b",") || trailing % 2 == 1 {
        return Err(Error::invalid(format!("Invalid option list: {list}")));
    }
    Ok(())
}

/// Whether a `k=v,k=v` list asks for help: one element is `help` or `?`.
///
/// # Errors
/// As [`Options::parse_into`], for a list that is none.
pub fn asks_for_help(list: &(impl AsRef<[u8]> + ?Sized)) -> Result<bool> {
    let list = BStr::new(list);
    check_list(list)?;
    Ok(split_list(list).any(|item| item.bare && (item.word == "help" || item.word == "?")))
}

/// One element of a list.
#[derive(Debug)]
pub(crate) struct ListItem<'a> {
    /// The key.
    pub(crate) key: &'a BStr,
    /// The value, doubled commas made single.
    pub(crate) value: BString,
    /// There was no `=`.
    pub(crate) bare: bool,
    /// The element before its `=`, a leading `no` left in.
    pub(crate) word: &'a BStr,
}

/// Splits `k=v,flag,noflag`; a comma in a value is doubled, keys have none.
pub(crate) fn split_list(list: &BStr) -> impl Iterator<Item = ListItem<'_>> {
    let mut rest = Some(list.as_bytes()).filter(|list| !list.is_empty());
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let end = text.find_byteset("=,").unwrap_or(text.len());
        let (word, tail) = text.split_at(end);
        let Some(mut tail) = tail.strip_prefix(b"=") else {
            // A comma that ends the list ends its last element too.
            rest = tail.strip_prefix(b",").filter(|tail| !tail.is_empty());
            let (key, value) = match word.strip_prefix(b"no") {
                Some(key) => (key, "off"),
                None => (word, "on"),
            };
            return Some(ListItem {
                key: key.as_bstr(),
                value: value.into(),
                bare: true,
                word: word.as_bstr(),
            });
        };
        let mut value = BString::default();
        let item = |value| {
            Some(ListItem {
                key: word.as_bstr(),
                value,
                bare: false,
                word: word.as_bstr(),
            })
        };
        while let Some((part, after)) = tail.split_once_str(",") {
            value.extend_from_slice(part);
            match after.strip_prefix(b",") {
                Some(after) => {
                    value.push(b',');
                    tail = after;
                }
                None => {
                    rest = Some(after).filter(|after| !after.is_empty());
                    return item(value);
                }
            }
        }
        value.extend_from_slice(tail);
        item(value)
    })
}

/// A value as it stands in a `k=v,k=v` list: commas doubled.
pub fn double_commas(value: impl AsRef<[u8]>) -> BString {
    value.as_ref().replace(",", ",,").into()
}

/// How hard compression tries, in the tables of all formats that compress.
pub const COMPRESSION_LEVEL: &str = "compression_level";

/// The lines of `-o help` for the options of all `tables`, sorted by name; a name that stands in
/// more than one is listed once. Those of `own`, which QEMU does not know, stand behind the others, under a
/// heading of their own. Each line ends in a newline.
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

    /// Refuses words that a table does not list where it lists those that an option takes.
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

    /// Those that are not of a table.
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

    /// The items of the list `name`: each with the values whose keys begin with `name.N.`, by the rest
    /// of their keys.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] where an item is missing before the last one.
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

    /// The value of `key`, if given.
    pub fn get(&self, key: &str) -> Option<&OptionValue> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// The text of `key`, if given and a text; for names see [`Values::name`].
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

    /// The name of `key`, if given and the name of a file.
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
pub fn parse_value(spec: &OptionSpec, value: &BStr) -> Result<OptionValue> {
    parse_named(spec.name, spec.kind, value)
}

/// As [`parse_value`], for the option `name`.
fn parse_named(name: &str, kind: OptionKind, value: &BStr) -> Result<OptionValue> {
    // No number and no word has a byte that would be replaced here.
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

/// The error of an unknown key; the hint lists the valid ones.
fn unknown_key(key: &str, table: &[OptionSpec]) -> Error {
    let names: Vec<&str> = table.iter().map(|spec| spec.name).collect();
    let error = Error::invalid(format!("Invalid parameter '{key}'"));
    if names.is_empty() {
        error
    } else {
        error.with_hint(format!("Valid parameters: {}", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(list: &str) -> Vec<(String, String)> {
        let options = Options::parse(list).unwrap();
        options
            .iter()
            .map(|(k, v)| (k.to_owned(), v.to_string()))
            .collect()
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn lists_with_flags_and_doubled_commas() {
        assert_eq!(
            parsed("a=1,b,noc,d=x,,y,,,e=,f="),
            pairs(&[
                ("a", "1"),
                ("b", "on"),
                ("c", "off"),
                ("d", "x,y,"),
                ("e", ""),
                ("f", "")
            ])
        );
        assert_eq!(parsed("a=1,a=2"), pairs(&[("a", "2")]));
        // Keys have no commas: a doubled one is an empty key between two flags.
        assert_eq!(parsed("a,,=b"), pairs(&[("a", "on"), ("", "b")]));
        assert_eq!(
            parsed("a,,,b"),
            pairs(&[("a", "on"), ("", "on"), ("b", "on")])
        );
        assert_eq!(parsed("no"), pairs(&[("", "off")]));
        assert_eq!(parsed("a=b=c"), pairs(&[("a", "b=c")]));
        for bad in ["", ",", "a,", ",a", "a=1,,,"] {
            assert_eq!(
                Options::parse(bad).unwrap_err().to_string(),
                format!("Invalid option list: {bad}")
            );
        }
    }

    #[test]
    fn later_lists_add_to_earlier_ones() {
        let mut options = Options::parse("a=1,b=2").unwrap();
        options.parse_into("b=3").unwrap();
        assert_eq!(options.get("b"), Some(BStr::new("3")));
        assert_eq!(options.get("a"), Some(BStr::new("1")));
    }

    #[test]
    fn help_is_asked_for_by_a_whole_element() {
        for list in ["help", "?", "a=b,help", "help,x"] {
            assert!(asks_for_help(list).unwrap(), "{list}");
        }
        for list in ["help=on", "nohelp", "helpx", "a=b,,help"] {
            assert!(!asks_for_help(list).unwrap(), "{list}");
        }
        assert!(asks_for_help(",help").is_err());
    }

    #[test]
    fn names_are_bytes_and_words_are_not() {
        let options = Options::parse(b"data_file=b\xe9,,d,compat=\xff").unwrap();
        assert_eq!(options.get("data_file"), Some(BStr::new(b"b\xe9,d")));
        let file = option("data_file", OptionKind::Name, "Name of a file");
        let value = parse_value(&file, options.get("data_file").unwrap()).unwrap();
        assert_eq!(value, OptionValue::Name(b"b\xe9,d".into()));
        for kind in [
            OptionKind::Str,
            OptionKind::Num,
            OptionKind::Size,
            OptionKind::Bool,
        ] {
            assert!(parse_value(&option("compat", kind, ""), BStr::new(b"\xff")).is_err());
        }
        assert_eq!(double_commas(b"\xe9,x"), b"\xe9,,x".as_bstr());
    }

    const TABLE: &[OptionSpec] = &[
        option("data_file_raw", OptionKind::Bool, "Stays raw"),
        option("refcount_bits", OptionKind::Num, "Width"),
        option("size", OptionKind::Size, "Virtual disk size"),
    ];

    #[test]
    fn values_are_checked_by_type() {
        let check = |list| Values::check(&Options::parse(list).unwrap(), TABLE);
        let values = check("size=1.5k,refcount_bits=0x10,data_file_raw").unwrap();
        assert_eq!(values.num("size"), Some(1536));
        assert_eq!(values.num("refcount_bits"), Some(16));
        assert_eq!(values.bool("data_file_raw"), Some(true));
        for (list, message) in [
            (
                "size=x",
                "Parameter 'size' expects a non-negative number below 2^64",
            ),
            (
                "size=16E",
                "Value '16E' is out of range for parameter 'size'",
            ),
            (
                "refcount_bits=16k",
                "Parameter 'refcount_bits' expects a number",
            ),
            (
                "refcount_bits=18446744073709551616",
                "Value '18446744073709551616' is too large for parameter 'refcount_bits'",
            ),
            (
                "data_file_raw=1",
                "Parameter 'data_file_raw' expects 'on' or 'off'",
            ),
            ("bogus", "Invalid parameter 'bogus'"),
        ] {
            assert_eq!(check(list).unwrap_err().to_string(), message);
        }
        assert_eq!(
            check("bogus").unwrap_err().hints(),
            ["Valid parameters: data_file_raw, refcount_bits, size"]
        );
    }

    #[test]
    fn an_option_of_a_list_is_matched_at_every_place() {
        let host = option("server.*.host", OptionKind::Str, "");
        for key in ["server.0.host", "server.17.host"] {
            assert!(host.matches(key), "{key}");
        }
        for key in [
            "server.host",
            "server.*.host",
            "server.01.host",
            "server.+1.host",
            "server.-1.host",
            "server.0.host.x",
            "server.0",
            "server..host",
        ] {
            assert!(!host.matches(key), "{key}");
        }
    }

    #[test]
    fn lists_come_in_order_and_without_gaps() {
        let table = [
            option("server.*.host", OptionKind::Str, ""),
            option("server.*.port", OptionKind::Num, ""),
            option("server.type", OptionKind::Str, ""),
        ];
        let check = |list| Values::check(&Options::parse(list).unwrap(), &table);
        let values =
            check("server.1.host=b,server.0.host=a,server.0.port=7,server.type=x").unwrap();
        let servers = values.list("server").unwrap();
        let hosts: Vec<_> = servers.iter().map(|server| server.str("host")).collect();
        assert_eq!(hosts, [Some("a"), Some("b")]);
        assert_eq!(servers[0].num("port"), Some(7));
        assert_eq!(values.list("serve").unwrap().len(), 0);
        let gap = check("server.0.host=a,server.2.host=c").unwrap();
        let text = gap.list("server").unwrap_err().to_string();
        assert_eq!(text, "Parameter 'server.1' missing");
        let text = check("server.3.port=x").unwrap_err().to_string();
        assert_eq!(text, "Parameter 'port' expects a number");
    }

    #[test]
    fn help_lines_stand_in_columns_and_overflow() {
        let more = [option("backing_fmt", OptionKind::Str, "Image format")];
        assert_eq!(
            help_table(&[TABLE, &more, TABLE], &[]),
            "  backing_fmt=<str>      - Image format\n\
             \x20 data_file_raw=<bool (on/off)> - Stays raw\n\
             \x20 refcount_bits=<num>    - Width\n\
             \x20 size=<size>            - Virtual disk size\n"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_list_panics(list in "[a-c=,no?]{0,40}", any in ".*") {
            for list in [&list, &any] {
                let _ = (Options::parse(list), asks_for_help(list));
            }
        }

        #[test]
        fn any_value_survives_doubling(value in ".+", more in "[a-z]*") {
            let list = format!("k={},m={more}", double_commas(&value));
            let options = Options::parse(&list);
            if let Ok(options) = options {
                proptest::prop_assert_eq!(options.get("k"), Some(value.as_bytes().as_bstr()));
                proptest::prop_assert_eq!(options.get("m"), Some(more.as_bytes().as_bstr()));
            }
        }
    }
}
