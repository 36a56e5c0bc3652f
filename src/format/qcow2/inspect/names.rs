//! The files that a header names, found without trusting it: also for a version, features or damage that keep the image
//! from being opened.

use crate::bytes::be32;
use crate::format::inspect::Reference;
use crate::policy::ImplicitRole;

use super::super::disk::{BACKING_FORMAT, DATA_FILE, END, Incompatible};
use super::numbers::Numbers;

/// Longer names are truncated: no program accepts them.
const MAX_NAME: usize = 4096;
/// Offset of the feature word that shows whether there is a data file.
const INCOMPATIBLE_AT: u64 = 72;

/// All files that are named.
pub(super) fn references(head: &[u8], numbers: &Numbers) -> Vec<Reference> {
    let extensions = Extensions {
        head,
        at: numbers.header_len as usize,
        end: extensions_end(head, numbers),
    };
    let mut backing_format = None;
    let mut found = Vec::new();
    for (kind, offset, data) in extensions {
        match kind {
            BACKING_FORMAT => backing_format = Some(name_of(&data[..data.len().min(MAX_NAME)])),
            DATA_FILE => found.push(Reference {
                role: ImplicitRole::DataFile,
                name: name_of(data),
                format: None,
                offset: offset as u64,
            }),
            _ => {}
        }
    }
    let has_data_file = numbers.incompatible.contains(Incompatible::DATA_FILE);
    if has_data_file && found.is_empty() {
        found.push(Reference {
            role: ImplicitRole::DataFile,
            name: Vec::new(),
            format: None,
            offset: INCOMPATIBLE_AT,
        });
    }
    if numbers.backing_offset != 0 && numbers.backing_len != 0 {
        let start = usize::try_from(numbers.backing_offset).unwrap_or(usize::MAX);
        let rest = head.get(start..).unwrap_or_default();
        let len = rest.len().min(numbers.backing_len as usize);
        found.insert(
            0,
            Reference {
                role: ImplicitRole::Backing,
                name: name_of(&rest[..len]),
                format: backing_format
                    .filter(|name| !name.is_empty())
                    .map(Into::into),
                offset: numbers.backing_offset,
            },
        );
    }
    found
}

/// Extensions end at the backing file name, if it is behind the header.
fn extensions_end(head: &[u8], numbers: &Numbers) -> usize {
    let name = usize::try_from(numbers.backing_offset).unwrap_or(usize::MAX);
    if name > numbers.header_len as usize {
        head.len().min(name)
    } else {
        head.len()
    }
}

fn name_of(bytes: &[u8]) -> Vec<u8> {
    // A NUL ends it, as for programs that read it as a C string.
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes[..end.min(MAX_NAME)].to_vec()
}

/// Walks header extensions: type, offset of the data, data. If a length passes the end, the data is truncated and the
/// walk ends.
struct Extensions<'a> {
    head: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Iterator for Extensions<'a> {
    type Item = (u32, usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let head = self.head.get(..self.end)?;
        let kind = be32(head, self.at).filter(|kind| *kind != END)?;
        let len = be32(head, self.at.checked_add(4)?)? as usize;
        let start = self.at.checked_add(8)?;
        let rest = head.get(start..)?;
        let data = &rest[..len.min(rest.len())];
        self.at = start.checked_add(len)?.checked_next_multiple_of(8)?;
        Some((kind, start, data))
    }
}
