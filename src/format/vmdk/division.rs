//! How a disk of another size is divided into parts: which of them stay, and which are added.

use std::sync::Arc;

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, ErrorKind, Result};
use crate::format::Format;
use crate::format::inspect::NameTraits;
use crate::memory;
use crate::printable::printable;
use crate::size::SECTOR;

use super::disk::{Descriptor, ExtentType};
use super::open::MAX_EXTENTS;
use super::parts::{Part, PartKind};
use super::state::Vmdk;

/// Maximum size of a part in bytes, after which split disks begin another one.
const PART: u64 = 2 << 30;

/// More than the memory that a part needs, except for its name.
const PER_PART: u64 = 1024;

/// The parts of a disk of a given size.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Division {
    /// Number of existing parts that stay.
    pub(super) kept: usize,
    /// Some parts are removed.
    pub(super) is_cut: bool,
    /// The line and the type of the last one that stays.
    line: usize,
    kind: ExtentType,
    /// Size of that one in bytes.
    pub(super) last: u64,
    /// The parts that are added: bytes and names.
    pub(super) more: Vec<(u64, BString)>,
}

impl Vmdk {
    /// The parts of the disk at this size.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if it cannot have this size, [`ErrorKind::Limit`].
    pub(super) fn division(&self, len: u64) -> Result<Division> {
        let parts = &**self.parts;
        let Some(last) = parts.last().filter(|_| len.is_multiple_of(SECTOR)) else {
            return Err(Error::unsupported(
                "A disk without an extent keeps its size",
            ));
        };
        if len < self.len() {
            return self.shorter(len);
        }
        let all = len - last.start;
        let room = match self.is_in_parts() {
            true => PART.max(last.len()),
            false => u64::MAX,
        };
        let more = match all.checked_sub(room).filter(|more| *more > 0) {
            Some(more) => self.more_parts(last, more)?,
            None => Vec::new(),
        };
        Ok(Division::new(parts, parts.len(), last, all.min(room), more))
    }

    fn shorter(&self, len: u64) -> Result<Division> {
        let parts = &**self.parts;
        let kept = match self.is_in_parts() {
            true => parts.partition_point(|part| part.start < len),
            false => parts.len(),
        };
        let (stay, go) = parts.split_at(kept);
        let last = stay.last().filter(|part| part.start < len);
        let Some(last) = last else {
            return Err(Error::unsupported(
                "A disk that is not divided into parts of 2 GiB cannot be made shorter than its last extent allows",
            ));
        };
        if go.iter().any(|part| part.read_only) {
            return Err(Error::unsupported(
                "An extent that the descriptor calls read-only cannot be removed",
            ));
        }
        let left = len - last.start;
        Ok(Division::new(parts, kept, last, left, Vec::new()))
    }

    /// The parts to add after the last one to hold this many bytes.
    fn more_parts(&self, last: &Part, bytes: u64) -> Result<Vec<(u64, BString)>> {
        let stored = self.stored.lock();
        let lines = &stored.descriptor.extents;
        let takes = matches!(last.word, Some(ExtentType::Flat | ExtentType::Sparse));
        let Some(line) = lines
            .last()
            .filter(|_| takes && last.line + 1 == lines.len())
        else {
            return Err(Error::unsupported(
                "No part can be added behind the last extent of the disk",
            ));
        };
        let count = bytes.div_ceil(PART);
        if lines.len() as u64 + count > MAX_EXTENTS as u64 {
            return Err(Error::new(
                ErrorKind::Limit,
                format!("The image would have more than {MAX_EXTENTS} extents"),
            ));
        }
        memory::headroom(count.saturating_mul(PER_PART + 4 * line.name.len() as u64))?;
        let name = Numbered::of(line.name.as_bstr())?;
        let mut more = Vec::new();
        memory::reserve(&mut more, count as usize)?;
        for n in 0..count {
            let name = name.after(n + 1);
            if lines.iter().any(|line| line.name == name) {
                return Err(Error::unsupported(format!(
                    "The next part would be '{}', and the disk has that extent already",
                    printable(&name.to_str_lossy())
                )));
            }
            more.push(((bytes - n * PART).min(PART), name));
        }
        Ok(more)
    }

    /// Whether the disk is divided into parts of 2 GiB.
    fn is_in_parts(&self) -> bool {
        let stored = self.stored.lock();
        let kind = stored.descriptor.create_type.to_ascii_lowercase();
        kind.contains_str("gbmaxextent")
    }
}

impl Division {
    fn new(
        parts: &[Arc<Part>],
        kept: usize,
        end: &Part,
        last: u64,
        more: Vec<(u64, BString)>,
    ) -> Self {
        Self {
            kept,
            is_cut: kept < parts.len(),
            line: end.line,
            kind: end.word.unwrap_or(ExtentType::Sparse),
            last,
            more,
        }
    }

    /// The descriptor of the disk in these parts.
    pub(super) fn described(&self, descriptor: &Descriptor) -> Result<Descriptor> {
        let sectors = self.last / SECTOR;
        if !self.is_cut && self.more.is_empty() {
            return descriptor.with_sectors(self.line, sectors);
        }
        let mut more = Vec::new();
        memory::reserve(&mut more, self.more.len())?;
        let lines = self.more.iter();
        more.extend(lines.map(|(bytes, name)| (bytes / SECTOR, self.kind, name.clone())));
        descriptor.with_end(self.line, sectors, &more)
    }
}

impl Part {
    /// Whether its file contains nothing else.
    pub(super) fn is_whole_file(&self) -> bool {
        match &self.kind {
            PartKind::Sparse(_) => true,
            PartKind::Zero { .. } => false,
            PartKind::Flat {
                storage, offset, ..
            } => *offset == 0 && storage.len().is_ok_and(|len| len <= self.len()),
        }
    }
}

/// The name of a part, with a number that can be incremented.
#[derive(Debug)]
struct Numbered<'a> {
    before: &'a BStr,
    number: u64,
    /// Minimum number of digits.
    width: usize,
    behind: &'a BStr,
}

impl<'a> Numbered<'a> {
    /// Splits a name such as `disk-s001.vmdk`.
    fn of(name: &'a BStr) -> Result<Self> {
        let refused = || {
            Error::unsupported(format!(
                "The last extent is '{}', which has no number (as in disk-s001.vmdk) from which the names of further ones follow; convert the image",
                printable(&name.to_str_lossy())
            ))
        };
        let traits = NameTraits::of(name);
        if traits.absolute || traits.parent {
            return Err(Error::unsupported(
                "The last extent is not a file beside the image, so no further ones can be made; convert the image",
            ));
        }
        let file = name.rfind_byte(b'/').map_or(0, |slash| slash + 1);
        let dot = name.rfind_byte(b'.').filter(|dot| *dot > file);
        let (stem, behind) = name.split_at(dot.unwrap_or(name.len()));
        let is_digit = |byte: &&u8| byte.is_ascii_digit();
        let width = stem.iter().rev().take_while(is_digit).count();
        let (before, digits) = stem.split_at(stem.len() - width);
        let kind = before.to_ascii_lowercase();
        let number = digits.to_str().ok().and_then(|digits| digits.parse().ok());
        let number = number.filter(|number| *number < u64::from(u32::MAX));
        match number.filter(|_| kind.ends_with(b"-s") || kind.ends_with(b"-f")) {
            Some(number) => Ok(Self {
                before: before.as_bstr(),
                number,
                width,
                behind: behind.as_bstr(),
            }),
            None => Err(refused()),
        }
    }

    /// The name of the part that comes `n` later.
    fn after(&self, n: u64) -> BString {
        let mut name = BString::from(self.before.as_bytes());
        name.extend_from_slice(
            format!("{:0width$}", self.number + n, width = self.width).as_bytes(),
        );
        name.extend_from_slice(self.behind);
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts_count_on() {
        for (name, next) in [
            ("disk-s001.vmdk", "disk-s002.vmdk"),
            ("disk-s999.vmdk", "disk-s1000.vmdk"),
            ("a.b/disk-F09", "a.b/disk-F10"),
            ("x-s2.y-f003.z", "x-s2.y-f004.z"),
        ] {
            assert_eq!(Numbered::of(name.into()).unwrap().after(1), next);
        }
        for name in [
            "disk.vmdk",
            "disk-s.vmdk",
            "disk001.vmdk",
            "/disk-s001.vmdk",
            "../disk-s001.vmdk",
            "disk-s99999999999999999999.vmdk",
        ] {
            assert!(Numbered::of(name.into()).is_err(), "{name}");
        }
    }
}
