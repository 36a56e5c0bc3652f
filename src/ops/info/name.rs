//! The name under which `info` shows an image: the shortest one that opens the same.

use serde_json::{Map, Value};

use crate::location::{Location, Node};
use crate::ops::render::json;

/// Options that change what a guest sees; the others do not belong to the name.
const DECISIVE: &[(&str, &[&str])] = &[("raw", &["offset", "size"])];

/// The order in which QEMU writes the keys of a `json:` name.
const ORDER: &[&str] = &["offset", "driver", "size", "file", "filename"];

/// The name of the image of format `driver` at `location`: a plain one where a file name says it
/// all, else `json:{…}`.
pub(super) fn shown_name(location: &Location, driver: &str) -> String {
    match location.node() {
        Node::Path(path) => path.to_string_lossy().into_owned(),
        Node::Uri { uri, .. } => uri.clone(),
        Node::Tree(tree) => {
            let exact = describe(tree, driver);
            plain_name(&exact).map_or_else(
                || format!("json:{}", json::compact(&Value::Object(exact.clone()))),
                str::to_owned,
            )
        }
    }
}

/// The file name that stands for the tree: that of a protocol, or of a format that has nothing
/// but a file with a name.
fn plain_name(tree: &Map<String, Value>) -> Option<&str> {
    if let Some(name) = tree.get("filename") {
        return name.as_str();
    }
    let file = tree.get("file")?.as_object()?;
    let bare = tree.keys().all(|key| key == "driver" || key == "file");
    file.get("filename").filter(|_| bare)?.as_str()
}

/// The tree of a node with its driver and without what does not decide.
fn describe(tree: &Map<String, Value>, driver: &str) -> Map<String, Value> {
    let mut exact = Map::new();
    exact.insert("driver".to_owned(), driver.into());
    if let Some(name) = tree.get("filename") {
        exact.insert("filename".to_owned(), name.clone());
        return exact;
    }
    match tree.get("file") {
        Some(Value::Object(file)) => {
            let below = file.get("driver").and_then(Value::as_str).unwrap_or("file");
            exact.insert("file".to_owned(), Value::Object(describe(file, below)));
        }
        Some(other) => {
            exact.insert("file".to_owned(), other.clone());
        }
        // No file below: keep all that was given.
        None => exact.extend(tree.clone()),
    }
    let decisive = DECISIVE
        .iter()
        .find(|(name, _)| *name == driver)
        .map_or(&[][..], |(_, keys)| keys);
    for key in decisive {
        if let Some(value) = tree.get(*key) {
            exact.insert((*key).to_owned(), value.clone());
        }
    }
    ordered(exact)
}

fn ordered(map: Map<String, Value>) -> Map<String, Value> {
    let rank = |key: &str| {
        ORDER
            .iter()
            .position(|known| *known == key)
            .unwrap_or(ORDER.len())
    };
    let mut entries: Vec<(String, Value)> = map.into_iter().collect();
    entries.sort_by_key(|(key, _)| rank(key));
    entries.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str, driver: &str) -> String {
        shown_name(&Location::from_image_opts(text).unwrap(), driver)
    }

    #[test]
    fn a_file_name_is_enough_where_nothing_else_decides() {
        assert_eq!(name("driver=qcow2,file.filename=b", "qcow2"), "b");
        assert_eq!(name("file.filename=b,file.locking=off", "raw"), "b");
        let json = r#"json:{"driver":"raw","file":{"driver":"file","filename":"a:b"}}"#;
        let location = Location::parse(json).unwrap();
        assert_eq!(shown_name(&location, "raw"), "a:b");
        let location = Location::parse("file:x").unwrap();
        assert_eq!(shown_name(&location, "raw"), "x");
    }

    #[test]
    fn a_window_is_part_of_the_name() {
        assert_eq!(
            name("driver=raw,size=512,offset=0,file.filename=odd.raw", "raw"),
            r#"json:{"offset": "0", "driver": "raw", "size": "512", "file": {"driver": "file", "filename": "odd.raw"}}"#
        );
    }

    #[test]
    fn a_format_in_a_format_is_named_as_a_tree() {
        assert_eq!(
            name("driver=qcow2,file.driver=raw,file.file.filename=b", "qcow2"),
            r#"json:{"driver": "qcow2", "file": {"driver": "raw", "file": {"driver": "file", "filename": "b"}}}"#
        );
        assert_eq!(
            name(
                "driver=qcow2,file.driver=raw,file.offset=0,file.file.filename=b",
                "qcow2"
            ),
            r#"json:{"driver": "qcow2", "file": {"offset": "0", "driver": "raw", "file": {"driver": "file", "filename": "b"}}}"#
        );
    }
}
