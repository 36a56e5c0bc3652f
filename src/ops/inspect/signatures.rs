//! Every signature in a file, at its beginning and at its end: an image that two programs take for two different things
//! is an attack on one of them.

use crate::codec::container::Container;
use crate::error::Result;
use crate::format::Probe;
use crate::format::magic::{PROBE_BYTES, UNPROBED};
use crate::format::probe;
use crate::storage::Storage;

/// A signature that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The format or kind of contents.
    pub name: &'static str,
    /// Whether it is that of an image format; otherwise of something that a disk may well hold.
    pub image: bool,
    /// Whether it is where opening looks for it if no format is named.
    pub at_start: bool,
}

/// Offset of the first volume descriptor of an ISO 9660 file system.
const ISO_DESCRIPTOR: u64 = 0x8000;

/// Looks for all of them; what an image must not be besides its own format comes first.
///
/// # Errors
/// If reading fails.
pub fn find(storage: &dyn Storage, file_len: u64) -> Result<Vec<Signature>> {
    let mut head = [0; PROBE_BYTES];
    storage.read_at(&mut head, 0)?;
    let probe = Probe {
        head: &head,
        name: storage.name(),
    };
    let mut images: Vec<&'static str> = probe::recognise_all(&probe);
    let probed = images.len();
    let mut add = |name| {
        if !images.contains(&name) {
            images.push(name);
        }
    };
    for other in UNPROBED {
        if (other.signature.fits)(&probe) {
            add(other.name);
        }
    }
    for name in probe::at_end(storage, file_len)? {
        add(name);
    }
    let mut contents = Vec::new();
    if file_len > ISO_DESCRIPTOR && probe::begins(storage, ISO_DESCRIPTOR + 1, b"CD001")? {
        contents.push("iso9660");
    }
    if let Some(container) = Container::recognise(&head) {
        contents.push(container.name());
    }
    if has_partitions(&head) {
        contents.push("mbr");
    }
    let images = images.into_iter().enumerate();
    let mut found: Vec<Signature> = images
        .map(|(index, name)| Signature {
            name,
            image: true,
            at_start: index < probed,
        })
        .collect();
    found.extend(contents.into_iter().map(|name| Signature {
        name,
        image: false,
        at_start: false,
    }));
    Ok(found)
}

/// Whether there is a master boot record: the mark at its end, and a plausible partition table. The mark alone could be
/// chance.
fn has_partitions(head: &[u8; PROBE_BYTES]) -> bool {
    let entries = head[446..510].chunks_exact(16);
    head[510..] == [0x55, 0xaa]
        && entries.clone().all(|entry| entry[0] & 0x7f == 0)
        && entries.clone().any(|entry| entry[4] != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    fn names(bytes: Vec<u8>) -> Vec<(&'static str, bool)> {
        let len = bytes.len() as u64;
        find(&MemoryStorage::with_bytes("disk", bytes), len)
            .unwrap()
            .iter()
            .map(|s| (s.name, s.image))
            .collect()
    }

    #[test]
    fn signatures_at_both_ends() {
        assert_eq!(names(vec![]), []);
        assert_eq!(names(vec![0; 1 << 20]), []);
        let mut disk = vec![0; 70_000];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(names(disk.clone()), [], "an empty partition table");
        disk[450] = 0x83;
        assert_eq!(names(disk.clone()), [("mbr", false)]);
        disk[0x8001..0x8006].copy_from_slice(b"CD001");
        assert_eq!(names(disk.clone()), [("iso9660", false), ("mbr", false)]);
        disk[64..68].copy_from_slice(&0xbeda_107f_u32.to_le_bytes());
        disk[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        let end = disk.len() - 512;
        disk[end..end + 8].copy_from_slice(b"conectix");
        assert_eq!(
            names(disk.clone())[..3],
            [("vdi", true), ("qcow2", true), ("vpc", true)]
        );
        assert_eq!(names(b"LUKS\xba\xbe\0\x02".to_vec()), [("luks2", true)]);
        assert_eq!(names(b"LUKS\xba\xbe\0\x01".to_vec()), [("luks", true)]);
        assert_eq!(names(vec![0x1f, 0x8b, 8, 0]), [("gzip", false)]);
        let mut dmg = vec![0; 600];
        dmg[88..92].copy_from_slice(b"koly");
        assert_eq!(names(dmg), [("dmg", true)]);
    }
}
