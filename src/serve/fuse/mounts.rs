//! What is mounted where, as reported by the kernel (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use bstr::ByteSlice;

/// The device number of a mounted file system; its FUSE connection is named after it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Device {
    major: u32,
    pub(super) minor: u32,
}

/// All mounts; later ones cover earlier ones.
#[derive(Debug)]
pub(super) struct Mounts(Vec<(Device, PathBuf)>);

impl Mounts {
    /// The current mounts.
    pub(super) fn now() -> io::Result<Self> {
        Ok(Self::from_text(&fs::read("/proc/self/mountinfo")?))
    }

    fn from_text(text: &[u8]) -> Self {
        Self(text.lines().filter_map(entry).collect())
    }

    /// The topmost mount at `path`.
    pub(super) fn at(&self, path: &Path) -> Option<Device> {
        let on_top = self.0.iter().rfind(|(_, at)| at == path);
        on_top.map(|(device, _)| *device)
    }

    /// Where a file system is mounted, unless another one is mounted over it there.
    pub(super) fn place_of(&self, device: Device) -> Option<&Path> {
        let mut places = self.0.iter().filter(|(of, _)| *of == device);
        let (_, path) = places.find(|(_, path)| self.at(path) == Some(device))?;
        Some(path)
    }
}

fn entry(line: &[u8]) -> Option<(Device, PathBuf)> {
    let mut fields = line.split_str(" ").skip(2);
    let (major, minor) = fields.next()?.to_str().ok()?.split_once(':')?;
    let path = unescaped(fields.nth(1)?);
    let device = Device {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    };
    Some((device, OsString::from_vec(path).into()))
}

/// Blanks, newlines and backslashes are escaped as three octal digits.
fn unescaped(mut text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    while let Some((&first, rest)) = text.split_first() {
        let code = rest.get(..3).filter(|_| first == b'\\');
        let code = code.and_then(|digits| u8::from_str_radix(digits.to_str().ok()?, 8).ok());
        plain.push(code.unwrap_or(first));
        text = match code {
            Some(_) => rest.get(3..).unwrap_or_default(),
            None => rest,
        };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
        40 22 0:39 / /a\\040b\\134 rw,nosuid - fuse platter rw,user_id=0\n\
        41 22 0:40 / /c rw - fuse platter rw\n\
        42 41 0:41 / /c rw - tmpfs tmpfs rw\n\
        nonsense\n";

    #[test]
    fn places_are_found_by_name_and_by_number() {
        let mounts = Mounts::from_text(TEXT);
        let ours = mounts.at(Path::new("/a b\\")).unwrap();
        assert_eq!(ours.minor, 39);
        assert_eq!(mounts.place_of(ours), Some(Path::new("/a b\\")));
        assert_eq!(mounts.at(Path::new("/a")), None);
    }

    #[test]
    fn what_lies_under_another_has_no_place() {
        let mounts = Mounts::from_text(TEXT);
        let hidden = Device {
            major: 0,
            minor: 40,
        };
        assert_eq!(mounts.place_of(hidden), None);
        assert_eq!(mounts.at(Path::new("/c")).unwrap().minor, 41);
    }

    #[test]
    fn those_of_this_machine_are_read() {
        assert!(Mounts::now().unwrap().at(Path::new("/")).is_some());
    }
}
