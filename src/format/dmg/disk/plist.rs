//! Block tables in the property list: those of the array `blkx`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quick_xml::Reader;
use quick_xml::events::Event;

use crate::error::{Error, Result};
use crate::memory;

use super::mish::TableReader;

/// The array of block tables.
const TABLES: &[u8] = b"blkx";

/// Where the parser is.
#[derive(Default)]
struct State {
    depth: u64,
    /// The key that was read last.
    key: Vec<u8>,
    /// The depth of the array of tables, while in it.
    array: Option<u64>,
    /// What the text that comes next is.
    text: Text,
    /// The text of a table so far, without blanks.
    data: Vec<u8>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Text {
    #[default]
    Other,
    Key,
    Table,
}

/// Gives each table of the list to `tables`.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] where it is no such list, or of [`TableReader::add`].
pub(in super::super) fn tables_of_plist(list: &[u8], tables: &mut TableReader<'_>) -> Result<()> {
    let mut reader = Reader::from_reader(list);
    let mut state = State::default();
    let damaged = |why: String| Error::corrupt(format!("The property list is damaged: {why}"));
    loop {
        let event = reader
            .read_event()
            .map_err(|error| damaged(error.to_string()))?;
        match event {
            Event::Start(tag) => state.begin(tag.name().as_ref()),
            Event::Text(text) => state.take(&text)?,
            Event::End(tag) if tag.name().as_ref() == b"data" && state.text == Text::Table => {
                let table = STANDARD.decode(&state.data);
                let table = table.map_err(|error| damaged(error.to_string()))?;
                tables.add(&table)?;
                state.end();
            }
            Event::End(_) => state.end(),
            // What follows may be filled up with zeroes.
            Event::Eof => return Ok(()),
            _ => {}
        }
    }
}

impl State {
    fn begin(&mut self, tag: &[u8]) {
        self.depth += 1;
        self.text = match tag {
            b"key" => {
                self.key.clear();
                Text::Key
            }
            b"data" if self.array.is_some() && self.key == b"Data" => Text::Table,
            _ => Text::Other,
        };
        if tag == b"array" && self.key == TABLES && self.array.is_none() {
            self.array = Some(self.depth);
        }
        self.data.clear();
    }

    fn take(&mut self, text: &[u8]) -> Result<()> {
        let to = match self.text {
            Text::Other => return Ok(()),
            Text::Key => &mut self.key,
            Text::Table => &mut self.data,
        };
        memory::reserve(to, text.len())?;
        to.extend(text.iter().filter(|byte| !byte.is_ascii_whitespace()));
        Ok(())
    }

    fn end(&mut self) {
        if self.array == Some(self.depth) {
            self.array = None;
        }
        self.depth = self.depth.saturating_sub(1);
        self.text = Text::Other;
    }
}
