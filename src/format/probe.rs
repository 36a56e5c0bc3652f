//! Probes the format of a file from its first bytes and its name.

use bstr::BStr;

use crate::driver_names::unknown_driver;
use crate::error::Result;
use crate::format::magic::{FOOTERS, PROBE_BYTES};
use crate::format::{FormatDriver, Probe, Signature, footer, registry};
use crate::storage::Storage;

/// The result of probing a file.
#[derive(Clone, Copy, Debug)]
pub struct Guess {
    /// The driver; the raw driver if no signature is found.
    pub driver: &'static FormatDriver,
    /// The format that the name of the file suggests, although its footer is not at the end of the file.
    pub misnamed: Option<&'static str>,
}

/// The driver for the contents of `storage`. The end of the file is also examined if `footers` is set and there is no
/// signature at its beginning, and if only the name suggests a format.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] if the signature is that of a format without a driver here, or if reading fails.
pub fn probe(storage: &dyn Storage, footers: bool) -> Result<Guess> {
    let mut head = [0; PROBE_BYTES];
    storage.read_at(&mut head, 0)?;
    let probe = Probe {
        head: &head,
        name: storage.name(),
    };
    let mut misnamed = None;
    let mut found = None;
    for (name, signature) in recognised(&probe) {
        if is_confirmed(storage, &probe, &signature)? {
            found = Some(name);
            break;
        }
        misnamed = misnamed.or(Some(name));
    }
    if found.is_none() && footers {
        found = at_end(storage, storage.len()?)?.first().copied();
    }
    Ok(Guess {
        driver: of_name(found)?,
        misnamed: misnamed.filter(|_| found.is_none()),
    })
}

/// Whether anything besides the name suggests the format, if its files have a footer.
fn is_confirmed(storage: &dyn Storage, probe: &Probe<'_>, signature: &Signature) -> Result<bool> {
    let nameless = Probe {
        head: probe.head,
        name: BStr::new(b""),
    };
    match signature.footer {
        Some(footer) if !(signature.fits)(&nameless) => {
            let found = footer::find(storage, storage.len()?, footer)?;
            Ok(found.is_some())
        }
        _ => Ok(true),
    }
}

/// As [`probe`], for bytes that have been read already.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] as for [`probe`].
pub fn of_head(probe: &Probe<'_>) -> Result<&'static FormatDriver> {
    of_name(recognise(probe))
}

fn of_name(name: Option<&'static str>) -> Result<&'static FormatDriver> {
    let Some(name) = name else {
        return Ok(registry::plain());
    };
    registry::by_name(name).ok_or_else(|| unknown_driver(name))
}

/// The name of the format whose signature is in the first [`PROBE_BYTES`], or None: raw.
pub fn recognise(probe: &Probe<'_>) -> Option<&'static str> {
    recognise_all(probe).first().copied()
}

/// Every format whose signature is in the first [`PROBE_BYTES`], in order of preference.
pub fn recognise_all(probe: &Probe<'_>) -> Vec<&'static str> {
    let mut padded = [0; PROBE_BYTES];
    for (to, from) in padded.iter_mut().zip(probe.head) {
        *to = *from;
    }
    let probe = Probe {
        head: &padded,
        name: probe.name,
    };
    let found = recognised(&probe).into_iter();
    found.map(|(name, _)| name).collect()
}

/// As [`recognise_all`], for a head of that length, with the signatures.
fn recognised(probe: &Probe<'_>) -> Vec<(&'static str, Signature)> {
    let mut found: Vec<_> = signatures()
        .filter(|(_, signature)| (signature.fits)(probe))
        .collect();
    found.sort_unstable_by_key(|(_, signature)| signature.rank);
    found
}

/// Every format whose footer is at the end of a file of `file_len` bytes, in order of preference.
///
/// # Errors
/// If reading fails.
pub fn at_end(storage: &dyn Storage, file_len: u64) -> Result<Vec<&'static str>> {
    let mut found = Vec::new();
    for (name, signature) in signatures() {
        let Some(footer) = signature.footer.filter(|_| file_len >= FOOTERS[0]) else {
            continue;
        };
        for back in FOOTERS {
            if begins(storage, file_len - back, footer)? {
                found.push((signature.rank, name));
                break;
            }
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, name)| name).collect())
}

/// Whether these bytes are at `offset`.
///
/// # Errors
/// If reading fails.
pub fn begins(storage: &dyn Storage, offset: u64, magic: &[u8]) -> Result<bool> {
    let mut bytes = [0; 8];
    let Some(bytes) = bytes.get_mut(..magic.len()) else {
        return Ok(false);
    };
    storage.read_at(bytes, offset)?;
    Ok(bytes == magic)
}

/// Whether images of that format can be recognised.
pub fn is_recognised(format: &str) -> bool {
    signatures().any(|(name, _)| name == format)
}

/// The signatures of all formats.
pub fn signatures() -> impl Iterator<Item = (&'static str, Signature)> {
    let drivers = registry::drivers().iter();
    drivers.filter_map(|driver| Some((driver.name, driver.signature?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    fn of(head: &[u8]) -> Option<&'static str> {
        recognise(&Probe {
            head,
            name: "disk.img".into(),
        })
    }

    #[test]
    fn the_end_of_a_file_counts_where_that_is_asked_for_and_its_beginning_says_nothing() {
        let disk = |head: &[u8], foot: &[u8], odd: usize| {
            let mut bytes = vec![0; 4096 + 512 - odd];
            bytes[..head.len()].copy_from_slice(head);
            bytes[4096..4096 + foot.len()].copy_from_slice(foot);
            MemoryStorage::with_bytes("disk", bytes)
        };
        let name =
            |storage: &MemoryStorage, footers| probe(storage, footers).map(|d| d.driver.name);
        for odd in [0, 1] {
            let image = disk(b"", b"koly", odd);
            assert_eq!(name(&image, false).unwrap(), "raw");
            assert_eq!(name(&image, true).unwrap(), "dmg");
        }
        let both = disk(b"QFI\xfb\0\0\0\x03", b"koly", 0);
        assert_eq!(name(&both, true).unwrap(), "qcow2");
        for none in [
            disk(b"", b"", 0),
            MemoryStorage::with_bytes("x", vec![1; 100]),
        ] {
            assert_eq!(name(&none, true).unwrap(), "raw");
        }
    }

    #[test]
    fn a_name_alone_does_not_make_a_format_that_has_a_footer() {
        let guess = |bytes: Vec<u8>| probe(&MemoryStorage::with_bytes("x.dmg", bytes), false);
        let mut bytes = vec![0; 4096 + 700];
        let found = guess(bytes.clone()).unwrap();
        assert_eq!((found.driver.name, found.misnamed), ("raw", Some("dmg")));
        bytes[4200..4204].copy_from_slice(b"koly");
        let found = guess(bytes.clone()).unwrap();
        assert_eq!((found.driver.name, found.misnamed), ("dmg", None));
        bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        assert_eq!(guess(bytes).unwrap().driver.name, "qcow2");
    }

    #[test]
    fn no_two_signatures_have_the_same_rank() {
        let mut ranks: Vec<u8> = signatures().map(|(_, found)| found.rank).collect();
        let count = ranks.len();
        ranks.sort_unstable();
        ranks.dedup();
        assert_eq!(ranks.len(), count);
    }

    #[test]
    fn signatures_are_recognised_in_short_and_in_long_files() {
        assert_eq!(of(b""), None);
        assert_eq!(of(b"QFI\xfb\0\0\0\x03"), Some("qcow2"));
        assert_eq!(of(b"QFI\xfb\0\0\0\x01"), Some("qcow"));
        assert_eq!(of(b"QFI\xfb"), None);
        assert_eq!(of(b"QFI\xfb\0\0\0\0"), None);
        assert_eq!(of(b"QED\0"), Some("qed"));
        assert_eq!(of(b"conectix"), Some("vpc"));
        assert_eq!(of(b"LUKS\xba\xbe\0\x01"), Some("luks"));
        assert_eq!(of(b"LUKS\xba\xbe\0\x02"), None);
        assert_eq!(of(b"WithoutFreeSpace\x02\0\0\0"), Some("parallels"));
        assert_eq!(of(&[0; 4096]), None);
    }

    #[test]
    fn a_vmdk_descriptor_may_begin_with_comments_and_blanks() {
        assert_eq!(of(b"# Disk DescriptorFile\n  \nversion=1\n"), Some("vmdk"));
        assert_eq!(of(b"version=3\r\n"), Some("vmdk"));
        assert_eq!(of(b"\nversion=1\n"), None);
        assert_eq!(of(b" version=1\n"), None);
        assert_eq!(of(b"# x\nversion=1"), None);
    }

    #[test]
    fn the_vdi_signature_beats_that_of_qcow2_but_not_that_of_vpc() {
        let mut head = vec![0; 512];
        head[64..68].copy_from_slice(&0xbeda_107f_u32.to_le_bytes());
        head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        assert_eq!(of(&head), Some("vdi"));
        head[..8].copy_from_slice(b"conectix");
        assert_eq!(of(&head), Some("vpc"));
    }

    #[test]
    fn the_dmg_suffix_needs_a_name_before_it_and_loses_to_a_signature() {
        let named = |name, head| recognise(&Probe { head, name });
        assert_eq!(named("x.dmg".into(), b"" as &[u8]), Some("dmg"));
        assert_eq!(named(".dmg".into(), b""), None);
        assert_eq!(named("x.DMG".into(), b""), None);
        assert_eq!(named("x.dmg".into(), b"QED\0"), Some("qed"));
        let script = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";
        assert_eq!(named("x.dmg".into(), script), Some("dmg"));
        assert_eq!(named("x".into(), script), Some("cloop"));
    }
}
