//! Writing: the blocks around the bytes of a member.

use std::time::{SystemTime, UNIX_EPOCH};

use tar::Header;

use crate::error::{Error, Result};

use super::BLOCK;

/// Length of the zeroes that end an archive.
pub(crate) const END: u64 = 2 * BLOCK;

/// The first length that does not fit into the digits of a ustar header.
const OCTAL_END: u64 = 1 << 33;

/// The header of a world-readable file. It is a ustar header as long as the length fits, otherwise that of GNU tar,
/// which stores the length as a binary number: of the two ways to have longer members, this is the one that readers of
/// OVA know.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for a name longer than 100 bytes.
pub(crate) fn header(name: &str, len: u64) -> Result<[u8; BLOCK as usize]> {
    let mut header = match len < OCTAL_END {
        true => Header::new_ustar(),
        false => Header::new_gnu(),
    };
    let fits = name.len() <= 100;
    let named = header.set_path(name).ok().filter(|()| fits);
    named
        .ok_or_else(|| Error::invalid(format!("'{name}' is too long for a name in an archive")))?;
    header.set_size(len);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    header.set_mtime(now.map_or(0, |now| now.as_secs()));
    header.set_cksum();
    Ok(*header.as_bytes())
}

/// The bytes that a member of this length takes, without its header.
pub(crate) fn padded(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::visit_members;
    use crate::job::JobControl;
    use crate::storage::{MemoryStorage, Preallocation, Storage};
    use std::ops::ControlFlow;

    #[test]
    fn lengths_past_8_gib_are_binary_and_read_again() {
        for len in [0, 5, OCTAL_END - 1, OCTAL_END, 62 << 40] {
            let block = header("a-disk1.vmdk", len).expect("a header");
            assert_eq!(&block[..13], b"a-disk1.vmdk\0");
            let magic = if len < OCTAL_END {
                *b"ustar\x0000"
            } else {
                *b"ustar  \0"
            };
            assert_eq!(block[257..265], magic, "{len}");
            assert_eq!(block[124] & 0x80 != 0, len >= OCTAL_END, "{len}");
            let parsed = Header::from_byte_slice(&block);
            assert_eq!(parsed.entry_size().expect("a length"), len);
        }
        assert!(header(&"n".repeat(101), 1).is_err());
    }

    #[test]
    fn what_is_written_is_read() {
        let file = MemoryStorage::with_bytes("x.tar", Vec::new());
        let mut at = 0;
        for (name, bytes) in [("a", &b"abc"[..]), ("b", &[7; 512])] {
            let block = header(name, bytes.len() as u64).expect("a header");
            file.write_at(&block, at).expect("memory");
            file.write_at(bytes, at + BLOCK).expect("memory");
            at += BLOCK + padded(bytes.len() as u64).expect("a length");
        }
        file.set_len(at + END, Preallocation::Off).expect("memory");
        let mut found = Vec::new();
        visit_members(&file, &JobControl::default(), &mut |member| {
            found.push((member.name.to_string(), member.offset, member.len));
            ControlFlow::Continue(())
        })
        .expect("an archive");
        assert_eq!(
            found,
            [("a".to_owned(), 512, 3), ("b".to_owned(), 1536, 512)]
        );
    }
}
