//! The parent of a differencing image: names as the locator holds them, and the identity.

use bstr::{BStr, BString, ByteSlice};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::format::{ExpectedParent, Mismatch, NameStyle, ParentId, ParentName, ParentRef};

use super::disk::{Locator, VHDX_PARENT};

/// The keys of names, in the order in which they are tried.
const NAMES: [&str; 3] = ["relative_path", "volume_path", "absolute_win32_path"];

/// The keys of the identity: that of the parent and, while that is being changed, the one that it will have.
const LINKAGES: [&str; 2] = ["parent_linkage", "parent_linkage2"];

/// What identifies a parent.
pub(super) const IDENTITY: &str = "data write GUID";

/// The error for a parent in another format.
pub(super) fn is_no_vhdx() -> Error {
    Error::unsupported("The backing file of a VHDX has to be a VHDX")
}

/// The parent that a locator refers to.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] for another kind of parent, [`crate::ErrorKind::Corrupt`] for an invalid identity.
pub(super) fn of_locator(locator: &Locator) -> Result<ParentRef> {
    if locator.kind != VHDX_PARENT {
        return Err(Error::unsupported(format!(
            "Unknown type {} of the VHDX parent locator",
            locator.kind
        )));
    }
    let mut ids = Vec::new();
    for key in LINKAGES {
        if let Some(text) = locator.get(key) {
            let guid = Uuid::parse_str(text).map_err(|_| {
                Error::corrupt(format!("The VHDX parent locator holds no valid {key}"))
            })?;
            ids.push(ParentId::DataWriteGuid(guid));
        }
    }
    Ok(ParentRef {
        names: names(locator).collect(),
        format: Some(super::DRIVER.name.into()),
        expected: (!ids.is_empty()).then_some(ExpectedParent {
            ids,
            if_changed: Mismatch::Refuse,
            if_other: Mismatch::Refuse,
        }),
    })
}

/// The same names with another identity.
pub(super) fn with_linkage(locator: &Locator, guid: Uuid) -> Locator {
    let names = locator
        .pairs
        .iter()
        .filter(|(key, _)| !LINKAGES.contains(&key.as_str()));
    Locator {
        kind: locator.kind,
        pairs: [linkage(guid)].into_iter().chain(names.cloned()).collect(),
    }
}

/// The same identity with another name.
pub(super) fn with_name(old: &Locator, stored: &str) -> Locator {
    let linkages = old
        .pairs
        .iter()
        .filter(|(key, _)| LINKAGES.contains(&key.as_str()));
    Locator {
        kind: old.kind,
        pairs: linkages.cloned().chain([name(stored)]).collect(),
    }
}

fn linkage(guid: Uuid) -> (String, String) {
    (LINKAGES[0].to_owned(), format!("{{{guid}}}"))
}

/// The names in a locator, in the order in which they are to be tried.
pub(super) fn names(locator: &Locator) -> impl Iterator<Item = ParentName> {
    let values = NAMES.into_iter().filter_map(|key| locator.get(key));
    values
        .filter(|name| !name.is_empty())
        .map(|name| ParentName {
            name: BString::from(name),
            // Windows names do not begin like this: it was written on a system like this one.
            style: match name.starts_with('/') {
                true => NameStyle::Posix,
                false => NameStyle::Windows,
            },
        })
}

/// The name of a parent in the form that a locator records.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for a name that could not be read back.
pub(super) fn to_record(name: &BStr) -> Result<String> {
    let unable = || {
        Error::invalid(format!(
            "A VHDX cannot record '{name}' as its backing file; use a name in UTF-8 without backslashes or \
             a drive"
        ))
    };
    let text = name.to_str().map_err(|_| unable())?;
    let stored = match text.starts_with('/') {
        true => text.to_owned(),
        false => text.replace('/', "\\"),
    };
    let read = names(&locator(&stored, None))
        .next()
        .and_then(|name| name.here());
    match read {
        Some(read) if read == name && !text.contains('\\') => Ok(stored),
        _ => Err(unable()),
    }
}

/// The locator of a parent with this name, and this identity if it is known.
pub(super) fn locator(stored: &str, guid: Option<Uuid>) -> Locator {
    let linkage = guid.map(linkage).into_iter();
    Locator {
        kind: VHDX_PARENT,
        pairs: linkage.chain([name(stored)]).collect(),
    }
}

fn name(stored: &str) -> (String, String) {
    let key = match stored.starts_with('/') {
        true => NAMES[2],
        false => NAMES[0],
    };
    (key.to_owned(), stored.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locator(pairs: &[(&str, &str)]) -> Locator {
        let pairs = pairs
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()));
        Locator {
            kind: VHDX_PARENT,
            pairs: pairs.collect(),
        }
    }

    #[test]
    fn names_are_tried_in_the_order_of_the_specification() {
        let guid = "{83ed0ec3-24c8-49a6-a959-5e4bd1288791}";
        let other = "{00000000-24c8-49a6-a959-5e4bd1288791}";
        let parent = of_locator(&locator(&[
            ("absolute_win32_path", r"\\?\C:\a\base.vhdx"),
            ("volume_path", ""),
            ("parent_linkage2", other),
            ("parent_linkage", guid),
            ("relative_path", r"..\base.vhdx"),
        ]))
        .unwrap();
        let names: Vec<_> = parent
            .names
            .iter()
            .map(|name| name.name.to_string())
            .collect();
        assert_eq!(names, [r"..\base.vhdx", r"\\?\C:\a\base.vhdx"]);
        assert_eq!(parent.first().unwrap().name, "../base.vhdx");
        let expected = parent.expected.unwrap();
        let guids = [guid, other].map(|guid| ParentId::DataWriteGuid(guid.parse().unwrap()));
        assert_eq!(expected.ids, guids);
        assert_eq!(expected.if_changed, Mismatch::Refuse);
    }

    #[test]
    fn a_new_identity_leaves_the_names() {
        let guid = Uuid::from_u128(7);
        let old = locator(&[
            ("parent_linkage2", "x"),
            ("relative_path", "a"),
            ("parent_linkage", "y"),
        ]);
        let new = with_linkage(&old, guid);
        assert_eq!(new, super::locator("a", Some(guid)));
    }

    #[test]
    fn a_new_name_leaves_the_identity() {
        let old = locator(&[
            ("parent_linkage2", "x"),
            ("relative_path", "a"),
            ("absolute_win32_path", "c"),
            ("parent_linkage", "y"),
        ]);
        let new = locator(&[
            ("parent_linkage2", "x"),
            ("parent_linkage", "y"),
            ("relative_path", "b"),
        ]);
        assert_eq!(with_name(&old, "b"), new);
    }

    #[test]
    fn a_name_is_recorded_if_it_can_be_read_back() {
        for (name, stored) in [
            ("base", "base"),
            ("../a/base", r"..\a\base"),
            ("/a/base", "/a/base"),
            ("./a:b", r".\a:b"),
        ] {
            assert_eq!(to_record(name.into()).unwrap(), stored);
        }
        for name in [&b"a\\b"[..], b"\xff", b"C:x", b""] {
            to_record(BStr::new(name)).unwrap_err();
        }
    }

    #[test]
    fn a_locator_of_another_kind_or_without_a_valid_identity_is_refused() {
        let guid = ("parent_linkage", "{83ed0ec3-24c8-49a6-a959-5e4bd1288791}");
        assert!(of_locator(&locator(&[guid])).unwrap().is_nameless());
        of_locator(&locator(&[("relative_path", "a"), ("parent_linkage", "x")])).unwrap_err();
        let other = Locator {
            kind: Uuid::nil(),
            ..locator(&[guid, ("relative_path", "a")])
        };
        let error = of_locator(&other).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
        let absolute = of_locator(&locator(&[guid, ("absolute_win32_path", "/a/b")])).unwrap();
        assert_eq!(absolute.first().unwrap().name, "/a/b");
    }
}
