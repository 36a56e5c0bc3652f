//! Guesses the format of a file from its first bytes and its name.

use crate::driver_names::unknown_driver;
use crate::error::Result;
use crate::format::magic::{FOREIGN, PROBE_BYTES};
use crate::format::{FormatDriver, Probe, Signature, raw, registry};
use crate::storage::Storage;

/// The driver for what `storage` holds: raw where no signature is found.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] where the signature is that of a format without a driver
/// here, or of reading the first sector.
pub fn probe(storage: &dyn Storage) -> Result<&'static FormatDriver> {
    let mut head = [0; PROBE_BYTES];
    storage.read_at(&mut head, 0)?;
    of_head(&Probe {
        head: &head,
        name: storage.name(),
    })
}

/// As [`probe`], from bytes that were read already.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] as for [`probe`].
pub fn of_head(probe: &Probe<'_>) -> Result<&'static FormatDriver> {
    let Some(name) = recognise(probe) else {
        return Ok(&raw::DRIVER);
    };
    registry::by_name(name).ok_or_else(|| {
        unknown_driver(name).with_hint(format!(
            "The file looks like a {name} image, a format that is not supported; name the format 'raw' to take it for a plain disk."
        ))
    })
}

/// The name of the format whose signature stands in the first [`PROBE_BYTES`], or None: raw.
pub fn recognise(probe: &Probe<'_>) -> Option<&'static str> {
    recognise_all(probe).first().copied()
}

/// Every format whose signature stands in the first [`PROBE_BYTES`], the one that wins first.
pub fn recognise_all(probe: &Probe<'_>) -> Vec<&'static str> {
    let mut padded = [0; PROBE_BYTES];
    for (to, from) in padded.iter_mut().zip(probe.head) {
        *to = *from;
    }
    let probe = Probe {
        head: &padded,
        name: probe.name,
    };
    let mut found: Vec<_> = signatures()
        .filter(|(_, signature)| (signature.fits)(&probe))
        .map(|(name, signature)| (signature.rank, name))
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, name)| name).collect()
}

/// Whether images of that format are recognised, with a driver here or without.
pub fn is_recognised(format: &str) -> bool {
    signatures().any(|(name, _)| name == format)
}

/// The signatures of all formats, with a driver here or without.
pub fn signatures() -> impl Iterator<Item = (&'static str, Signature)> {
    let drivers = registry::drivers().iter();
    let ours = drivers.filter_map(|driver| Some((driver.name, driver.signature?)));
    let foreign = FOREIGN
        .iter()
        .map(|foreign| (foreign.name, foreign.signature));
    ours.chain(foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(head: &[u8]) -> Option<&'static str> {
        recognise(&Probe {
            head,
            name: "disk.img".into(),
        })
    }

    #[test]
    fn a_format_without_driver_is_named_and_never_taken_for_raw() {
        let head = |head| {
            of_head(&Probe {
                head,
                name: "x".into(),
            })
        };
        assert_eq!(head(b"\x55\xaa").unwrap().name, "raw");
        let error = head(b"KDMV\x01\0\0\0").unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
        assert_eq!(
            error.to_string(),
            "The driver 'vmdk' is not part of this build"
        );
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
