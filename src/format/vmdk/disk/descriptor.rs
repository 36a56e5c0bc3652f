//! The descriptor: the text that says what a disk consists of.
//! Specification: VMware Virtual Disk Format 5.0, "The Descriptor File".

use std::fmt::Write as _;

use bstr::{BStr, BString, ByteSlice};
use encoding_rs::Encoding;

use super::create_type::check_any_type;
use super::descriptor_text::{
    decode, encode, find, hex, insert_after, lines, missing, next_word, number, place, set, value,
};
use crate::error::{Error, ErrorKind, Result};
use crate::memory;
use crate::printable::printable;

/// The content ID of a disk without a parent.
pub(in crate::format::vmdk) const NO_PARENT: u32 = u32::MAX;

/// Refers to the long content ID instead.
const USE_LONG: u32 = u32::MAX - 1;

/// Maximum memory per byte of the text: each line of an extent has at least 16 bytes.
const IN_MEMORY: u64 = 16;

/// The supported versions of the text.
const VERSIONS: std::ops::RangeInclusive<u32> = 1..=3;

/// A descriptor: its text, and what was parsed from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::format::vmdk) struct Descriptor {
    text: BString,
    pub(in crate::format::vmdk) cid: u32,
    pub(in crate::format::vmdk) parent_cid: u32,
    /// `createType`, as written.
    pub(in crate::format::vmdk) create_type: BString,
    /// The name of the parent, in UTF-8 if its encoding is known.
    pub(in crate::format::vmdk) parent: Option<BString>,
    /// The name of the file that tracks changes.
    pub(in crate::format::vmdk) change_tracking: Option<BString>,
    pub(in crate::format::vmdk) extents: Vec<ExtentLine>,
}

/// Permitted access to an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format::vmdk) enum Access {
    ReadWrite,
    ReadOnly,
    None,
}

/// The type of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format::vmdk) enum ExtentType {
    Flat,
    Sparse,
    Zero,
    Vmfs,
    VmfsSparse,
    SeSparse,
}

impl ExtentType {
    const ALL: [Self; 6] = [
        Self::Flat,
        Self::Sparse,
        Self::Zero,
        Self::Vmfs,
        Self::VmfsSparse,
        Self::SeSparse,
    ];

    /// The keyword in the descriptor.
    pub(in crate::format::vmdk) fn word(self) -> &'static str {
        match self {
            Self::Flat => "FLAT",
            Self::Sparse => "SPARSE",
            Self::Zero => "ZERO",
            Self::Vmfs => "VMFS",
            Self::VmfsSparse => "VMFSSPARSE",
            Self::SeSparse => "SESPARSE",
        }
    }
}

/// One line of the extent description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::format::vmdk) struct ExtentLine {
    pub(in crate::format::vmdk) access: Access,
    pub(in crate::format::vmdk) sectors: u64,
    pub(in crate::format::vmdk) kind: ExtentType,
    /// The name of its file, in UTF-8 if its encoding is known; empty for zeroes.
    pub(in crate::format::vmdk) name: BString,
    /// The sector of the file at which a flat extent begins.
    pub(in crate::format::vmdk) offset: u64,
    /// Offset of the line in the text.
    pub(in crate::format::vmdk) at: usize,
}

impl Descriptor {
    /// Parses the text, up to its first zero byte.
    ///
    /// # Errors
    /// [`ErrorKind::NotAnImage`], [`ErrorKind::Corrupt`] or [`ErrorKind::Unsupported`].
    pub(in crate::format::vmdk) fn parse(bytes: &[u8]) -> Result<Self> {
        let end = bytes.find_byte(0).unwrap_or(bytes.len());
        let text = bytes.get(..end).unwrap_or_default();
        memory::headroom(text.len() as u64 * IN_MEMORY)?;
        let encoding = value(text, "encoding").and_then(|label| Encoding::for_label(&label));
        let number = |key| match value(text, key) {
            None => Err(missing(key)),
            Some(word) => hex(&word).ok_or_else(|| {
                let word = word.to_str_lossy();
                Error::corrupt(format!(
                    "Invalid {key} '{}' in the descriptor",
                    printable(&word)
                ))
            }),
        };
        let Some(version) = value(text, "version") else {
            // A text that has none of these keys is not necessarily a descriptor.
            let is_one = ["CID", "createType"]
                .iter()
                .any(|key| value(text, key).is_some());
            let kind = if is_one {
                ErrorKind::Corrupt
            } else {
                ErrorKind::NotAnImage
            };
            return Err(missing("version").with_kind(kind));
        };
        let version: Option<u32> = version.to_str().ok().and_then(|word| word.parse().ok());
        if version.is_none_or(|version| !VERSIONS.contains(&version)) {
            return Err(Error::unsupported("Unsupported version of the descriptor"));
        }
        let decoded = |name: BString| BString::from(decode(&name, encoding).into_owned());
        let mut extents = Vec::new();
        for (at, line) in lines(text) {
            let extent = extent_line(line, at).or_else(|error| {
                // Nothing is known about a disk of another type, including its extents.
                let named = value(text, "createType");
                named.map_or(Ok(()), |found| check_any_type(found.as_bstr()))?;
                Err(error)
            })?;
            if let Some(extent) = extent {
                let name = decoded(extent.name);
                extents.push(ExtentLine { name, ..extent });
            }
        }
        Ok(Self {
            cid: number("CID")?,
            parent_cid: match value(text, "parentCID") {
                None => NO_PARENT,
                Some(_) => number("parentCID")?,
            },
            create_type: value(text, "createType").ok_or_else(|| missing("createType"))?,
            parent: value(text, "parentFileNameHint")
                .filter(|name| !name.is_empty())
                .map(decoded),
            change_tracking: value(text, "changeTrackPath").map(decoded),
            extents,
            text: text.into(),
        })
    }

    /// Whether it describes the same disk, even if the text differs.
    pub(in crate::format::vmdk) fn says_as(&self, other: &Self) -> bool {
        let same = |(a, b): (&ExtentLine, &ExtentLine)| {
            let b = ExtentLine {
                at: a.at,
                ..b.clone()
            };
            *a == b
        };
        self.cid == other.cid
            && self.parent_cid == other.parent_cid
            && self.create_type == other.create_type
            && self.parent == other.parent
            && self.change_tracking == other.change_tracking
            && self.extents.len() == other.extents.len()
            && self.extents.iter().zip(&other.extents).all(same)
    }

    /// The text.
    pub(in crate::format::vmdk) fn text(&self) -> &BStr {
        self.text.as_bstr()
    }

    /// The value of a key.
    pub(in crate::format::vmdk) fn value(&self, key: &str) -> Option<BString> {
        value(&self.text, key)
    }

    /// Whether there is a parent, according to its content ID or its name.
    pub(in crate::format::vmdk) fn has_parent(&self) -> bool {
        self.parent_cid != NO_PARENT || self.parent.is_some()
    }

    /// The same with another content ID, also at the end of the long one.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if there is no such line.
    pub(in crate::format::vmdk) fn with_cid(&self, cid: u32) -> Result<Self> {
        let mut text = set(&self.text, "CID", &format!("{cid:08x}"))?;
        if let Some(long) = value(&text, "ddb.longContentID")
            && let Some(kept) = long.len().checked_sub(8).and_then(|end| long.get(..end))
        {
            let mut long = BString::from(kept);
            long.extend_from_slice(format!("{cid:08x}").as_bytes());
            text = set(&text, "ddb.longContentID", &long.to_str_lossy())?;
        }
        Self::parse(&text)
    }

    /// The same with another parent or none.
    ///
    /// # Errors
    /// As [`Descriptor::with_cid`]; [`crate::ErrorKind::Invalid`] for a name that cannot be written.
    pub(in crate::format::vmdk) fn with_parent(
        &self,
        parent: Option<(&BStr, u32)>,
    ) -> Result<Self> {
        let (name, cid) = match parent {
            Some((name, cid)) => (Some(name), cid),
            None => (None, NO_PARENT),
        };
        let mut text = match find(&self.text, "parentCID") {
            Some(_) => set(&self.text, "parentCID", &format!("{cid:08x}"))?,
            None => insert_after(&self.text, "CID", format!("parentCID={cid:08x}").as_bytes())?,
        };
        if let Some((at, line, _)) = find(&text, "parentFileNameHint") {
            text.drain(at..at + line);
        }
        if let Some(name) = name {
            check_name(name)?;
            let encoding = value(&text, "encoding").and_then(|label| Encoding::for_label(&label));
            let mut line = BString::from("parentFileNameHint=\"");
            line.extend_from_slice(&encode(name, encoding));
            line.push(b'"');
            text = insert_after(&text, "createType", &line)?;
        }
        Self::parse(&text)
    }

    /// The same with another number of sectors for the extent on line `index`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if there is no such line.
    pub(in crate::format::vmdk) fn with_sectors(&self, index: usize, sectors: u64) -> Result<Self> {
        let damaged = || Error::corrupt("The descriptor has no such extent");
        let line = self.extents.get(index).ok_or_else(damaged)?;
        let rest = self.text.get(line.at..).ok_or_else(damaged)?;
        let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
        let digit = rest
            .iter()
            .position(u8::is_ascii_digit)
            .ok_or_else(damaged)?;
        let len = rest
            .iter()
            .skip(digit)
            .position(blank)
            .ok_or_else(damaged)?;
        let mut text = self.text.clone();
        let from = line.at + digit;
        text.splice(from..from + len, sectors.to_string().into_bytes());
        Self::parse(&text)
    }
}

impl Descriptor {
    /// The same with another number of sectors for the extent on line `last`, followed by these extents (sectors, kind,
    /// name) and no others.
    ///
    /// # Errors
    /// As [`Descriptor::with_sectors`]; [`crate::ErrorKind::Invalid`] for a name that cannot be written.
    pub(in crate::format::vmdk) fn with_end(
        &self,
        last: usize,
        sectors: u64,
        more: &[(u64, ExtentType, BString)],
    ) -> Result<Self> {
        let new = self.with_sectors(last, sectors)?;
        let mut text = new.text;
        let end_of = |text: &BString, at: usize| {
            let rest = text.get(at..).unwrap_or_default();
            at + rest.find_byte(b'\n').map_or(rest.len(), |end| end + 1)
        };
        for line in new.extents.iter().skip(last + 1).rev() {
            let end = end_of(&text, line.at);
            text.drain(line.at..end);
        }
        let Some(line) = new.extents.get(last).filter(|_| !more.is_empty()) else {
            return Self::parse(&text);
        };
        let encoding = value(&text, "encoding").and_then(|label| Encoding::for_label(&label));
        let at = end_of(&text, line.at);
        let before = text.get(line.at..at).unwrap_or_default();
        let end: &[u8] = match before.ends_with(b"\r\n") {
            true => b"\r\n",
            false => b"\n",
        };
        let mut lines = Vec::new();
        if !before.ends_with(b"\n") {
            lines.extend_from_slice(end);
        }
        for (sectors, kind, name) in more {
            check_name(name.as_bstr())?;
            lines.extend_from_slice(format!("RW {sectors} {} \"", kind.word()).as_bytes());
            lines.extend_from_slice(&encode(name.as_bstr(), encoding));
            lines.extend_from_slice(match kind {
                ExtentType::Flat => b"\" 0",
                _ => b"\"",
            });
            lines.extend_from_slice(end);
        }
        memory::headroom(lines.len() as u64 * IN_MEMORY)?;
        text.splice(at..at, lines);
        Self::parse(&text)
    }
}

/// The content of a new descriptor.
#[derive(Clone, Debug)]
pub(in crate::format::vmdk) struct NewDescriptor<'a> {
    pub(in crate::format::vmdk) cid: u32,
    pub(in crate::format::vmdk) parent: Option<(&'a BStr, u32)>,
    pub(in crate::format::vmdk) create_type: &'a str,
    /// Sectors, type and name.
    pub(in crate::format::vmdk) extents: &'a [(u64, ExtentType, BString)],
    pub(in crate::format::vmdk) hardware: &'a str,
    pub(in crate::format::vmdk) tools: &'a str,
    pub(in crate::format::vmdk) adapter: &'a str,
    /// Cylinders, heads, sectors.
    pub(in crate::format::vmdk) geometry: (u64, u32, u32),
    /// The beginning of a long content ID, to be written with the additional lines of VMware's own tools.
    pub(in crate::format::vmdk) long_cid: Option<[u32; 3]>,
}

impl NewDescriptor<'_> {
    /// The text.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for a name that cannot be written.
    pub(in crate::format::vmdk) fn text(&self) -> Result<BString> {
        let mut text = String::from("# Disk DescriptorFile\nversion=1\n");
        if self.long_cid.is_some() {
            text.push_str("encoding=\"UTF-8\"\n");
        }
        let name = |out: &mut BString, name: &BStr| {
            check_name(name)?;
            out.push(b'"');
            out.extend_from_slice(name);
            out.push(b'"');
            Ok::<_, Error>(())
        };
        let (parent, parent_cid) = match self.parent {
            Some((name, cid)) => (Some(name), cid),
            None => (None, NO_PARENT),
        };
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "CID={:08x}\nparentCID={parent_cid:08x}\ncreateType=\"{}\"\n",
            self.cid, self.create_type
        );
        let mut out = BString::from(text);
        if let Some(parent) = parent {
            out.extend_from_slice(b"parentFileNameHint=");
            name(&mut out, parent)?;
        }
        out.extend_from_slice(b"\n# Extent description\n");
        for (sectors, kind, file) in self.extents {
            out.extend_from_slice(format!("RW {sectors} {} ", kind.word()).as_bytes());
            name(&mut out, file.as_bstr())?;
            out.extend_from_slice(if *kind == ExtentType::Flat {
                b" 0\n"
            } else {
                b"\n"
            });
        }
        let (cylinders, heads, sectors) = self.geometry;
        out.extend_from_slice(b"\n# The Disk Data Base\n#DDB\n\n");
        if let Some([a, b, c]) = self.long_cid {
            let cid = self.cid;
            out.extend_from_slice(
                format!("ddb.longContentID = \"{a:08x}{b:08x}{c:08x}{cid:08x}\"\n").as_bytes(),
            );
        }
        for (key, value) in [
            ("virtualHWVersion", self.hardware),
            ("geometry.cylinders", &cylinders.to_string()),
            ("geometry.heads", &heads.to_string()),
            ("geometry.sectors", &sectors.to_string()),
            ("adapterType", self.adapter),
            ("toolsVersion", self.tools),
        ] {
            out.extend_from_slice(format!("ddb.{key} = ").as_bytes());
            name(&mut out, BStr::new(value))?;
            out.push(b'\n');
        }
        if self.long_cid.is_some() {
            // Open VM tools, which the guest's operating system manages.
            out.extend_from_slice(b"ddb.toolsInstallType = \"4\"\n");
        }
        Ok(out)
    }
}

/// The role of a file that a descriptor names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format::vmdk) enum NamedRole {
    Extent,
    Parent,
    ChangeTracking,
}

/// A file that a descriptor names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::format::vmdk) struct NamedFile {
    pub(in crate::format::vmdk) role: NamedRole,
    /// The name as it is stored.
    pub(in crate::format::vmdk) name: BString,
    /// Its offset in the text.
    pub(in crate::format::vmdk) at: usize,
    /// Its line describes a sparse extent.
    pub(in crate::format::vmdk) is_sparse: bool,
}

/// All files that a text names, whether it can be parsed or not: the quoted string on any line that may describe an
/// extent, and the values of keys that hold names.
pub(in crate::format::vmdk) fn named_files(text: &[u8]) -> Vec<NamedFile> {
    let end = text.find_byte(0).unwrap_or(text.len());
    let text = text.get(..end).unwrap_or_default();
    let mut files = Vec::new();
    for (role, key) in [
        (NamedRole::Parent, "parentFileNameHint"),
        (NamedRole::ChangeTracking, "changeTrackPath"),
    ] {
        if let (Some(name), Some(at)) = (value(text, key), place(text, key))
            && !name.is_empty()
        {
            files.push(NamedFile {
                role,
                name,
                at,
                is_sparse: false,
            });
        }
    }
    for (at, line) in lines(text) {
        let (access, rest) = next_word(line);
        let known = ["RW", "RDONLY", "NOACCESS"];
        let known = known
            .iter()
            .any(|word| access.eq_ignore_ascii_case(word.as_bytes()));
        let (_, rest) = next_word(rest);
        let (kind, _) = next_word(rest);
        let Some(start) = line.find_byte(b'"').filter(|_| known) else {
            continue;
        };
        let quoted = line.get(start + 1..).unwrap_or_default();
        let name = quoted
            .split(|byte| *byte == b'"')
            .next()
            .unwrap_or_default();
        files.push(NamedFile {
            role: NamedRole::Extent,
            name: name.into(),
            at: at + start + 1,
            is_sparse: kind.eq_ignore_ascii_case(b"SPARSE"),
        });
    }
    files
}

/// A random content ID, other than `other_than` and the reserved ones.
pub(in crate::format::vmdk) fn random_cid(other_than: u32) -> Result<u32> {
    loop {
        let cid = getrandom::u32()
            .map_err(|error| Error::os(error.raw_os_error().unwrap_or(libc::EIO)))?;
        if cid != NO_PARENT && cid != USE_LONG && cid != other_than {
            return Ok(cid);
        }
    }
}

/// Rejects names that would end their line or their quotes.
fn check_name(name: &BStr) -> Result<()> {
    let bad = |byte: &u8| *byte < 0x20 || *byte == b'"';
    match name.iter().any(bad) {
        true => Err(Error::invalid(format!(
            "'{}' cannot stand in a descriptor: quotes and control characters would end it",
            printable(&name.to_str_lossy())
        ))),
        false => Ok(()),
    }
}

/// Parses a line that describes an extent; `None` if it does not.
fn extent_line(line: &[u8], at: usize) -> Result<Option<ExtentLine>> {
    let (word, rest) = next_word(line);
    let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    let access = match () {
        () if is("RW") => Access::ReadWrite,
        () if is("RDONLY") => Access::ReadOnly,
        () if is("NOACCESS") => Access::None,
        () => return Ok(None),
    };
    let invalid = || {
        let shown = line.to_str_lossy();
        Error::corrupt(format!("Invalid extent line: {}", printable(&shown)))
    };
    let (sectors, rest) = next_word(rest);
    let sectors = number(sectors).ok_or_else(invalid)?;
    let (word, rest) = next_word(rest);
    let mut kinds = ExtentType::ALL.into_iter();
    let kind = kinds
        .find(|kind| word.eq_ignore_ascii_case(kind.word().as_bytes()))
        .ok_or_else(|| {
            let shown = word.to_str_lossy();
            Error::unsupported(format!("Unsupported extent type '{}'", printable(&shown)))
        })?;
    let extent = |name: &[u8], offset| ExtentLine {
        access,
        sectors,
        kind,
        name: name.into(),
        offset,
        at,
    };
    if kind == ExtentType::Zero {
        return Ok(Some(extent(b"", 0)));
    }
    let quoted = rest
        .trim_ascii_start()
        .strip_prefix(b"\"")
        .ok_or_else(invalid)?;
    let end = quoted.find_byte(b'"').ok_or_else(invalid)?;
    let (name, rest) = quoted.split_at(end);
    let (offset, rest) = next_word(rest.get(1..).unwrap_or_default());
    let (uuid_or_nothing, _) = next_word(rest);
    let offset = match (kind, offset) {
        (ExtentType::Flat, word) => number(word).ok_or_else(invalid)?,
        (ExtentType::Vmfs, word) if !word.is_empty() => number(word).ok_or_else(invalid)?,
        (_, b"") => 0,
        _ => return Err(invalid()),
    };
    // After the offset of a device come its UUID and its name.
    if name.is_empty() || !(uuid_or_nothing.is_empty() || kind == ExtentType::Flat) {
        return Err(invalid());
    }
    Ok(Some(extent(name, offset)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Disk DescriptorFile\r\nversion=1\r\nencoding=\"windows-1252\"\r\nCID=0000abcd\r\n\
        ParentCID = ffffffff\r\ncreateType=\"twoGbMaxExtentSparse\"\r\n\r\n\
        RW 4192256 SPARSE \"d\u{e9}-s001.vmdk\"\r\nRDONLY 10 ZERO\r\n  NOACCESS 5 FLAT \"a b\" 7\r\n\
        ddb.longContentID = \"00112233445566778899aabb0000abcd\"\r\n";

    fn text() -> Vec<u8> {
        // Latin-1: one byte per character.
        TEXT.chars().map(|c| c as u8).collect()
    }

    #[test]
    fn every_key_is_found_whatever_its_case_and_encoding() {
        let found = Descriptor::parse(&text()).unwrap();
        assert_eq!((found.cid, found.parent_cid), (0xabcd, NO_PARENT));
        assert_eq!(found.create_type, "twoGbMaxExtentSparse");
        assert!(!found.has_parent());
        let names: Vec<_> = found.extents.iter().map(|e| e.name.clone()).collect();
        assert_eq!(names, ["d\u{e9}-s001.vmdk", "", "a b"]);
        assert_eq!(found.extents[2].offset, 7);
        assert_eq!(found.extents[2].access, Access::None);
    }

    #[test]
    fn a_change_leaves_all_other_bytes_as_they_are() {
        let old = Descriptor::parse(&text()).unwrap();
        let new = old.with_cid(0x1234_5678).unwrap();
        assert_eq!(new.cid, 0x1234_5678);
        assert_eq!(new.text().len(), old.text().len());
        assert!(new.text().contains_str("8899aabb12345678"));
        let new = old.with_parent(Some((BStr::new("p.vmdk"), 5))).unwrap();
        assert_eq!(
            new.parent.as_deref().map(BStr::new),
            Some(BStr::new("p.vmdk"))
        );
        assert_eq!(new.parent_cid, 5);
        let back = new.with_parent(None).unwrap();
        assert_eq!(back.text(), old.text());
        let grown = old.with_sectors(0, 8_000_000).unwrap();
        assert_eq!(grown.extents[0].sectors, 8_000_000);
        assert_eq!(
            grown.extents[2],
            ExtentLine {
                ..old.extents[2].clone()
            }
        );
        assert!(old.with_parent(Some((BStr::new("a\"b"), 5))).is_err());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let with = |line: &str| {
            let text = format!("version=1\nCID=1\ncreateType=\"vmfs\"\n{line}\n");
            Descriptor::parse(text.as_bytes())
        };
        assert!(with("RW 1 VMFS \"a\"").is_ok());
        assert!(with("RWX 1 VMFS \"a\"").unwrap().extents.is_empty());
        for line in [
            "RW x FLAT \"a\" 0",
            "RW -1 FLAT \"a\" 0",
            "RW 18014398509481984 FLAT \"a\" 0",
            "RW 1 FLAT \"a\"",
            "RW 1 FLAT a 0",
            "RW 1 FLAT \"\" 0",
            "RW 1 FLAT \"a 0",
            "RW 1 SPARSE \"a\" 0",
            "RW 1 VMFSRDM \"a\"",
        ] {
            assert!(with(line).is_err(), "{line}");
        }
        assert!(Descriptor::parse(b"version=4\nCID=1\ncreateType=\"vmfs\"\n").is_err());
        assert!(Descriptor::parse(b"version=1\nCID=xyz\ncreateType=\"vmfs\"\n").is_err());
        assert!(Descriptor::parse(b"version=1\nCID=1\n").is_err());
    }

    #[test]
    fn a_new_descriptor_can_be_read() {
        let extents = [(2048, ExtentType::Flat, "x-flat.vmdk".into())];
        let new = NewDescriptor {
            cid: 7,
            parent: Some((BStr::new("base.vmdk"), 9)),
            create_type: "monolithicFlat",
            extents: &extents,
            hardware: "4",
            tools: "2147483647",
            adapter: "ide",
            geometry: (2, 16, 63),
            long_cid: Some([1, 2, 3]),
        };
        let found = Descriptor::parse(&new.text().unwrap()).unwrap();
        assert_eq!((found.cid, found.parent_cid), (7, 9));
        assert_eq!(found.extents[0].name, "x-flat.vmdk");
        assert_eq!(found.with_cid(8).unwrap().cid, 8);
    }
}
