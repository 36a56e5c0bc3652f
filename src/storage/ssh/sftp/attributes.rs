//! File attributes (section 5).

use super::Cursor;

const SIZE: u32 = 1;
const UIDGID: u32 = 2;
const PERMISSIONS: u32 = 4;
const TIMES: u32 = 8;

/// Attributes of a file; any of them may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Attributes {
    pub(in super::super) size: Option<u64>,
    /// Including the file type, as in `st_mode`.
    pub(in super::super) mode: Option<u32>,
    /// When its contents were last modified, in seconds.
    pub(in super::super) modified: Option<u32>,
}

impl Attributes {
    /// Parses attributes; extended attributes at the end are ignored.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut at = Cursor(bytes);
        let flags = at.u32()?;
        let size = match flags & SIZE {
            0 => None,
            _ => Some(at.u64()?),
        };
        if flags & UIDGID != 0 {
            at.bytes(8)?;
        }
        let mode = match flags & PERMISSIONS {
            0 => None,
            _ => Some(at.u32()?),
        };
        let modified = match flags & TIMES {
            0 => None,
            _ => {
                at.u32()?;
                Some(at.u32()?)
            }
        };
        Some(Self {
            size,
            mode,
            modified,
        })
    }

    /// Appends attributes with a size and permissions.
    pub(super) fn write(out: &mut Vec<u8>, size: Option<u64>, mode: Option<u32>) {
        let mut flags = 0;
        if size.is_some() {
            flags |= SIZE;
        }
        if mode.is_some() {
            flags |= PERMISSIONS;
        }
        out.extend_from_slice(&flags.to_be_bytes());
        if let Some(size) = size {
            out.extend_from_slice(&size.to_be_bytes());
        }
        if let Some(mode) = mode {
            out.extend_from_slice(&mode.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_in_any_combination() {
        let mut bytes = Vec::new();
        Attributes::write(&mut bytes, Some(7), Some(0o644));
        let read = Attributes::from_bytes(&bytes).unwrap();
        assert_eq!((read.size, read.mode), (Some(7), Some(0o644)));
        let all = [
            15u32.to_be_bytes().as_slice(),
            &9u64.to_be_bytes(),
            &[0; 8],
            &0o100_600u32.to_be_bytes(),
            &1u32.to_be_bytes(),
            &2u32.to_be_bytes(),
        ]
        .concat();
        let read = Attributes::from_bytes(&all).unwrap();
        let expected = Attributes {
            size: Some(9),
            mode: Some(0o100_600),
            modified: Some(2),
        };
        assert_eq!(read, expected);
        for len in 0..all.len() {
            assert_eq!(Attributes::from_bytes(&all[..len]), None, "{len}");
        }
        let none = Attributes::from_bytes(&[0; 4]).unwrap();
        assert_eq!(none, Attributes::default());
    }
}
