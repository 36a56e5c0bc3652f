//! The names of an open image: the shortest one that opens it again, and that of its backing file.

use serde_json::{Map, Value};

use crate::image::Image;
use crate::image::host::file_id;
use crate::image::plan::Plan;
use crate::location::{json_name, resolve_name};

/// The backing file that an image names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackingFile {
    /// As it stands in the image.
    pub name: String,
    /// As seen from where the image was opened.
    pub full_name: String,
    /// The format that the image records for it.
    pub format: Option<String>,
}

impl Image {
    /// The shortest name that opens this layer again: a file name, a URI or `json:{…}`.
    pub fn filename(&self) -> &str {
        &self.filename
    }

    /// The name of the format, or of the protocol where that was named in the format's place.
    pub fn format_name(&self) -> &str {
        self.format_name
    }

    /// The backing file that the image names, whether it is open or not.
    pub fn backing_file(&self) -> Option<BackingFile> {
        let named = self
            .format
            .backing()
            .filter(|named| !named.name.is_empty())?;
        let path = self.format.backing_path();
        let path = path.unwrap_or_else(|| named.name.clone().into());
        let full = resolve_name(&self.base, &path);
        Some(BackingFile {
            full_name: full.to_string_lossy().into_owned(),
            name: named.name,
            format: named.format,
        })
    }

    /// What tells the image's file from others: two images with the same are the same file. None
    /// where the storage is no file.
    pub fn file_id(&self) -> Option<(u64, u64)> {
        file_id(&*self.storage)
    }
}

/// Options of formats that change what the guest sees, in the order in which names show them;
/// None stands for the driver.
const STRONG: [Option<&str>; 3] = [Some("offset"), None, Some("size")];

/// Sets name and tree of an image over its file.
pub(super) fn set(image: &mut Image, plan: &Plan, plain: Option<String>, bare: bool) {
    let file = std::mem::take(&mut image.tree);
    if bare {
        image.filename = plain.unwrap_or_else(|| json_name(&file));
        image.tree = file;
        return;
    }
    let mut tree = Map::new();
    for key in STRONG {
        match key {
            None => {
                tree.insert("driver".to_owned(), image.driver.name.into());
            }
            Some(key) => {
                if let Some(value) = plan.given.get(key) {
                    tree.insert(key.to_owned(), value.clone());
                }
            }
        }
    }
    let weak_only = tree.len() == 1;
    tree.insert("file".to_owned(), Value::Object(file));
    image.filename = plain
        .filter(|_| weak_only)
        .unwrap_or_else(|| json_name(&tree));
    image.tree = tree;
}
