//! Apple's property lists, in XML.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use roxmltree::{Document, Node};

use crate::error::{Error, Result};
use crate::memory;
use crate::xml::{self, Preamble};

/// The end tag of the root element.
const END: &str = "</plist>";

/// A property list.
#[derive(Debug)]
pub(crate) struct PropertyList<'a>(Document<'a>);

/// A value in a list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value<'a>(Node<'a, 'a>);

impl<'a> PropertyList<'a> {
    /// Parses a file, or a part of one that may have padding after the list.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`].
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes.trim_ascii_end()).or_else(|error| {
            // The padding need not be text.
            std::str::from_utf8(bytes.get(..error.valid_up_to()).unwrap_or_default())
        });
        let text = text.unwrap_or_default();
        let end = text.rfind(END).map_or(text.len(), |at| at + END.len());
        let text = text.get(..end).unwrap_or_default();
        match xml::parse(text, Preamble::NamesType) {
            Ok(document) => Ok(Self(document)),
            Err(why) => Err(damaged(&why)),
        }
    }

    /// The values of a key, at any depth.
    pub(crate) fn every(&'a self, key: &'a str) -> impl Iterator<Item = Value<'a>> {
        let keys = self.0.descendants().filter(move |node| is_key(*node, key));
        keys.filter_map(|node| node.next_sibling_element().map(Value))
    }
}

fn is_key(node: Node<'_, '_>, key: &str) -> bool {
    node.has_tag_name("key") && node.text().is_some_and(|text| text.trim() == key)
}

fn damaged(why: &str) -> Error {
    Error::corrupt(format!("The property list is damaged: {why}"))
}

impl<'a> Value<'a> {
    /// The value of a key in a dictionary.
    pub(crate) fn get(self, key: &str) -> Option<Value<'a>> {
        let mut keys = self.0.children().filter(|node| is_key(*node, key));
        keys.next()?.next_sibling_element().map(Value)
    }

    /// The items of an array; none for any other value.
    pub(crate) fn items(self) -> impl Iterator<Item = Value<'a>> {
        let is_array = self.0.has_tag_name("array");
        let items = self.0.children().filter(move |_| is_array);
        items.filter(Node::is_element).map(Value)
    }

    /// A string, or the digits of a number.
    pub(crate) fn text(self) -> Option<&'a str> {
        let is_text = ["string", "integer"]
            .iter()
            .any(|name| self.0.has_tag_name(*name));
        is_text.then(|| self.0.text().unwrap_or_default())
    }

    /// Bytes; None if the value is of another type.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if they are not encoded correctly, or if memory is exhausted.
    pub(crate) fn data(self) -> Result<Option<Vec<u8>>> {
        if !self.0.has_tag_name("data") {
            return Ok(None);
        }
        let mut text = Vec::new();
        let texts = self.0.children().filter(Node::is_text);
        for part in texts.filter_map(|node| node.text()) {
            memory::reserve(&mut text, part.len())?;
            text.extend(part.bytes().filter(|byte| !byte.is_ascii_whitespace()));
        }
        let mut bytes = Vec::new();
        memory::reserve(&mut bytes, text.len() / 4 * 3 + 3)?;
        match STANDARD.decode_vec(&text, &mut bytes) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) => Err(damaged(&error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
        <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
        <plist version=\"1.0\"><dict>\n<key>size</key><integer> 12 </integer><key>name</key><string>a&amp;b</string>\n\
        <key>list</key><array><dict><key>Data</key><data>\n AAEC\n <!-- a --> Aw==</data></dict><data>A</data></array>\n\
        </dict></plist>";

    #[test]
    fn values_are_found_by_their_keys() {
        for behind in [&b""[..], b"\n", b"\0\0\0", b"\0\xff"] {
            let bytes = [LIST.as_bytes(), behind].concat();
            let list = PropertyList::parse(&bytes).unwrap();
            let lists: Vec<_> = list.every("list").collect();
            assert!(lists.len() == 1 && lists[0].get("Data").is_none());
            assert!(list.every("name").all(|name| name.items().next().is_none()));
            let texts = ["size", "name", "list"].map(|key| list.every(key).next().unwrap().text());
            assert_eq!(texts, [Some(" 12 "), Some("a&b"), None]);
            let items: Vec<_> = lists[0].items().collect();
            let data = items[0].get("Data").unwrap().data().unwrap();
            assert_eq!(data.as_deref(), Some(&[0, 1, 2, 3][..]));
            items[1].data().unwrap_err();
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in [&b""[..], b"<plist>", b"\xff", b"<plist></dict></plist>"] {
            let error = PropertyList::parse(text).unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with("The property list is damaged: ")
            );
        }
    }
}
