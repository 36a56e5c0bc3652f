//! Lists such as `key=value,flag`: where their elements end, and what each contains.

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, Result};

/// Refuses a list that cannot be joined to another one with a comma.
pub(super) fn check_list(list: &BStr) -> Result<()> {
    let trailing = list.iter().rev().take_while(|c| **c == b',').count();
    if list.is_empty() || list.starts_with(b",") || trailing % 2 == 1 {
        return Err(Error::invalid(format!("Invalid option list: {list}")));
    }
    Ok(())
}

/// Whether a `k=v,k=v` list asks for help: one element is `help` or `?`.
///
/// # Errors
/// As [`super::Options::parse_into`], for an invalid list.
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
    /// The value, with doubled commas made single.
    pub(crate) value: BString,
    /// Whether there was no `=`.
    pub(crate) bare: bool,
    /// The element before its `=`, including a leading `no`.
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

/// A value as written in a `k=v,k=v` list: commas are doubled.
pub fn double_commas(value: impl AsRef<[u8]>) -> BString {
    value.as_ref().replace(",", ",,").into()
}
