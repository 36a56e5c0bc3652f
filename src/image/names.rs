//! The names of an open image: the shortest one that opens it again, and that of its backing file.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use bstr::{BStr, BString, ByteSlice};

use crate::image::Image;
use crate::image::plan::Plan;
use crate::location::{json_name, resolve_name};
use crate::storage::Identity;
use crate::value::{Map, Value};

/// The backing file that an image names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackingFile {
    /// As it stands in the image.
    pub name: BString,
    /// As seen from where the image was opened.
    pub full_name: BString,
    /// The format that the image records for it.
    pub format: Option<BString>,
}

impl Image {
    /// The shortest name that opens this layer again: a file name, a URI or `json:{…}`.
    pub fn filename(&self) -> &BStr {
        self.filename.as_bstr()
    }

    /// The name of the format, or of the protocol where that was named in the format's place.
    pub fn format_name(&self) -> &str {
        self.format_name
    }

    /// The backing file that the image names, whether it is open or not.
    pub fn backing_file(&self) -> Option<BackingFile> {
        let named = self
            .format
            .parent()?
            .first()
            .filter(|named| !named.name.is_empty())?;
        let full = self.name_beside(&named.name);
        Some(BackingFile {
            full_name: full.into_vec().into(),
            name: named.name,
            format: named.format,
        })
    }

    /// A name as it would stand in the image, as seen from where the image was opened.
    pub fn name_beside(&self, name: impl AsRef<[u8]>) -> OsString {
        resolve_name(&self.base, OsStr::from_bytes(name.as_ref()))
    }

    /// What tells the image's file from others: two images with the same are the same file. None
    /// where that cannot be known.
    pub fn identity(&self) -> Option<Identity> {
        self.storage.identity()
    }
}

/// Options of formats that an image cannot be opened without, or that change what the guest sees, in
/// the order in which names show them beside driver and file.
const STRONG: [&str; 6] = [
    "offset",
    "encrypt.key-secret",
    "driver",
    "size",
    "file",
    "key-secret",
];

/// An option that was given, its key dotted or its group an object.
fn given<'a>(plan: &'a Plan, key: &str) -> Option<&'a Value> {
    plan.given.get(key).or_else(|| {
        let (group, inner) = key.split_once('.')?;
        plan.given.get(group)?.get(inner)
    })
}

/// Sets name and tree of an image over its file.
pub(super) fn set(image: &mut Image, plan: &Plan, plain: Option<BString>, bare: bool) {
    let file = std::mem::take(&mut image.tree);
    if bare {
        image.filename = plain.unwrap_or_else(|| json_name(&file));
        image.tree = file;
        return;
    }
    let mut tree = Map::new();
    let mut weak_only = true;
    if let Some(header) = &image.header_file {
        weak_only = false;
        tree.insert("header".to_owned(), Value::Object(header.tree.clone()));
    }
    for key in STRONG {
        let value = match key {
            "driver" => image.driver.name.into(),
            "file" => Value::Object(file.clone()),
            _ => match given(plan, key) {
                None => continue,
                Some(value) => {
                    weak_only = false;
                    value.clone()
                }
            },
        };
        tree.insert(key.to_owned(), value);
    }
    image.filename = plain
        .filter(|_| weak_only)
        .unwrap_or_else(|| json_name(&tree));
    image.tree = tree;
}
