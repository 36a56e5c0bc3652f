//! Reading: POSIX.1-2001 (pax), ustar, and GNU tar's long names.

use std::ops::ControlFlow;

use bstr::{BStr, BString};
use tar::{EntryType, Header, PaxExtensions};

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::memory;
use crate::storage::Storage;

use super::BLOCK;

/// Where each header has its magic.
const MAGIC: std::ops::Range<usize> = 257..262;

/// Maximum bytes of a long name or of extended attributes.
const MAX_EXTENSION: u64 = 1 << 20;

/// A file within an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its name, as stored in the archive.
    pub name: BString,
    /// Offset of its first byte.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Whether its holes are left out, so that its bytes are not stored contiguously.
    pub is_sparse: bool,
    /// Whether its header is extended in the way that POSIX.1-2001 introduced.
    pub has_extensions: bool,
}

impl Member {
    /// Whether it has that name; a leading `./` is ignored.
    pub(crate) fn is_called(&self, name: &BStr) -> bool {
        let bare = |name: &'_ [u8]| name.strip_prefix(b"./").unwrap_or(name).to_owned();
        bare(&self.name) == bare(name)
    }
}

/// What extensions say about the member that follows.
#[derive(Default)]
struct Extensions {
    name: Option<BString>,
    len: Option<u64>,
    is_sparse: bool,
    are_posix: bool,
}

/// Whether the file begins like an archive.
///
/// # Errors
/// If reading fails.
pub(crate) fn is_archive(file: &dyn Storage) -> Result<bool> {
    let len = file.len()?;
    let mut block = [0; BLOCK as usize];
    if len < BLOCK {
        return Ok(false);
    }
    file.read_at(&mut block, 0)?;
    Ok(block[MAGIC] == *b"ustar" && has_checksum(Header::from_byte_slice(&block)))
}

/// Visits the regular files of an archive in order.
///
/// # Errors
/// [`ErrorKind::Corrupt`] for an invalid header, [`ErrorKind::Cancelled`], or if reading fails.
pub(crate) fn visit_members(
    file: &dyn Storage,
    control: &JobControl,
    visit: &mut dyn FnMut(Member) -> ControlFlow<()>,
) -> Result<()> {
    let end = file.len()?;
    let mut at = 0;
    let mut extensions = Extensions::default();
    let mut block = [0; BLOCK as usize];
    while end - at >= BLOCK {
        control.checkpoint()?;
        file.read_at(&mut block, at)?;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let header = Header::from_byte_slice(&block);
        if !has_checksum(header) {
            return Err(damaged(
                file,
                at,
                "no header of a member is where one should be",
            ));
        }
        let kind = header.entry_type();
        let of_header = header.entry_size();
        let of_header = of_header.map_err(|_| damaged(file, at, "a member has no valid length"))?;
        let extends = matches!(kind.as_byte(), b'L' | b'K' | b'x' | b'g');
        let len = match extends {
            true => of_header,
            false => extensions.len.unwrap_or(of_header),
        };
        let offset = at + BLOCK + map_blocks(file, kind, &block, at)?;
        let next = len
            .checked_next_multiple_of(BLOCK)
            .and_then(|len| offset.checked_add(len));
        // The padding of the last member may be missing.
        if offset > end || len > end - offset {
            return Err(damaged(file, at, "a member ends past the end of the file"));
        }
        if extends {
            extensions.take(file, kind, at, len)?;
        } else {
            let extensions = std::mem::take(&mut extensions);
            let sparse = kind == EntryType::GNUSparse || extensions.is_sparse;
            if kind.is_file() || kind.is_contiguous() || sparse {
                let name = extensions
                    .name
                    .unwrap_or_else(|| (&*header.path_bytes()).into());
                let member = Member {
                    name,
                    offset,
                    len,
                    is_sparse: sparse,
                    has_extensions: extensions.are_posix,
                };
                if visit(member).is_break() {
                    return Ok(());
                }
            }
        }
        at = match next {
            Some(next) if next < end => next,
            _ => return Ok(()),
        };
    }
    Ok(())
}

/// The length of the additional blocks that list the data of a sparse file in GNU tar's old format.
fn map_blocks(file: &dyn Storage, kind: EntryType, header: &[u8], at: u64) -> Result<u64> {
    const HEADER_GOES_ON: usize = 482;
    const BLOCK_GOES_ON: usize = 504;
    let mut len = 0;
    let mut goes_on = kind == EntryType::GNUSparse && header[HEADER_GOES_ON] != 0;
    let mut block = [0; BLOCK as usize];
    while goes_on {
        len += BLOCK;
        // Past the end of the file, this reads zeroes.
        file.read_at(&mut block, at + len)?;
        goes_on = block[BLOCK_GOES_ON] != 0;
    }
    Ok(len)
}

impl Extensions {
    /// Reads an entry that describes the next one.
    fn take(&mut self, file: &dyn Storage, kind: EntryType, at: u64, len: u64) -> Result<()> {
        let of_next = kind.is_gnu_longname() || kind.is_pax_local_extensions();
        if !of_next {
            return Ok(());
        }
        if len > MAX_EXTENSION {
            let text = format!("extended attributes of {len} bytes; {MAX_EXTENSION} are the most");
            return Err(damaged(file, at, &text));
        }
        let mut bytes = memory::zeroed(len as usize)?;
        file.read_at(&mut bytes, at + BLOCK)?;
        if kind.is_gnu_longname() {
            let name = bytes.split(|byte| *byte == 0).next();
            self.name = name.map(BString::from);
            return Ok(());
        }
        self.are_posix = true;
        for extension in PaxExtensions::new(&bytes) {
            let extension =
                extension.map_err(|_| damaged(file, at, "damaged extended attributes"))?;
            match extension.key_bytes() {
                b"path" if !self.is_sparse => self.name = Some(extension.value_bytes().into()),
                b"GNU.sparse.name" => self.name = Some(extension.value_bytes().into()),
                b"size" => {
                    let number = extension.value().ok().and_then(|text| text.parse().ok());
                    let number =
                        number.ok_or_else(|| damaged(file, at, "a member has no valid length"))?;
                    self.len = Some(number);
                }
                _ => {}
            }
            self.is_sparse |= extension.key_bytes().starts_with(b"GNU.sparse.");
        }
        Ok(())
    }
}

/// Whether a header contains the right checksum: the sum of its bytes, with its own field taken as blanks. Old tars
/// added signed bytes.
fn has_checksum(header: &Header) -> bool {
    let Ok(expected) = header.cksum() else {
        return false;
    };
    let bytes = header.as_bytes();
    let blank = |at: usize, byte: u8| if (148..156).contains(&at) { b' ' } else { byte };
    let bytes = bytes.iter().enumerate();
    let bytes = bytes.map(|(at, byte)| blank(at, *byte));
    let unsigned: u32 = bytes.clone().map(u32::from).sum();
    let signed: i32 = bytes.map(|byte| i32::from(byte.cast_signed())).sum();
    expected == unsigned || i64::from(expected) == i64::from(signed)
}

fn damaged(file: &dyn Storage, at: u64, what: &str) -> Error {
    let text = format!(
        "'{}' is no tar archive, or a damaged one: {what}",
        file.name()
    );
    Error::new(ErrorKind::Corrupt, text).with_offset(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;
    use std::io::Write;

    fn members(bytes: Vec<u8>) -> Result<Vec<Member>> {
        let mut found = Vec::new();
        let file = MemoryStorage::with_bytes("x.tar", bytes);
        visit_members(&file, &JobControl::default(), &mut |member| {
            found.push(member);
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    fn archive(names: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in names {
            let mut header = Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder
                .append_data(&mut header, name, *bytes)
                .expect("memory");
        }
        builder.into_inner().expect("memory")
    }

    #[test]
    fn members_stand_where_their_bytes_are() {
        let long = "d/".repeat(80) + "name";
        let bytes = archive(&[("a.ovf", b"text"), (&long, &[7; 700]), ("./b", b"")]);
        let found = members(bytes.clone()).expect("an archive");
        let names: Vec<_> = found.iter().map(|member| member.name.to_string()).collect();
        assert_eq!(names, ["a.ovf", &long, "b"]);
        let second = &found[1];
        let at = second.offset as usize;
        assert_eq!(bytes[at..at + second.len as usize], [7; 700]);
        assert!(!second.is_called("name".into()));
        assert!(found[0].is_called("./a.ovf".into()));
    }

    #[test]
    fn extended_attributes_name_what_follows_them() {
        let mut builder = tar::Builder::new(Vec::new());
        builder
            .append_pax_extensions([("path", "ü".as_bytes()), ("size", b"3")])
            .expect("memory");
        let mut header = Header::new_ustar();
        header.set_size(3);
        header.set_path("short").expect("a name");
        header.set_cksum();
        builder.append(&header, &b"abc"[..]).expect("memory");
        let found = members(builder.into_inner().expect("memory")).expect("an archive");
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].name.to_string(), found[0].len),
            ("ü".to_owned(), 3)
        );
    }

    #[test]
    fn sparse_files_are_passed_over() {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNUSparse);
        header.set_path("holes").expect("a name");
        header.set_size(512);
        header.as_gnu_mut().expect("GNU").isextended[0] = 1;
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.write_all(&[0; 512]).expect("memory");
        bytes.write_all(&[9; 512]).expect("memory");
        bytes.extend(archive(&[("next", b"x")]));
        let found = members(bytes).expect("an archive");
        let seen: Vec<_> = found
            .iter()
            .map(|member| (member.name.to_string(), member.is_sparse, member.offset))
            .collect();
        assert_eq!(
            seen,
            [
                ("holes".to_owned(), true, 1024),
                ("next".to_owned(), false, 2048)
            ]
        );
    }

    #[test]
    fn what_lies_about_lengths_is_refused() {
        let mut header = Header::new_gnu();
        header.set_path("a").expect("a name");
        for len in [1 << 40, u64::MAX] {
            header.set_size(len);
            header.set_cksum();
            let mut bytes = header.as_bytes().to_vec();
            bytes.resize(2048, 1);
            let error = members(bytes).expect_err("a length past the end");
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains("past the end"), "{error}");
        }
        header.set_size(2 << 20);
        header.set_entry_type(EntryType::GNULongName);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(3 << 20, b'n');
        let error = members(bytes).expect_err("a name of 2 MiB");
        assert!(error.to_string().contains("are the most"), "{error}");
    }

    #[test]
    fn any_bytes_are_an_archive_or_an_error() {
        let whole = archive(&[("a", &[1; 600]), (&"b".repeat(150), &[2; 10])]);
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            let _ = members(bytes);
            let _ = members(whole[..at].to_vec());
        }
    }
}
