//! Recognises image formats by their first bytes, also those that have no driver here: an image
//! of such a format must be refused by name, never taken for a raw disk.

use bstr::BStr;

use crate::format::Probe;

/// How many bytes at the beginning of a file decide.
pub const PROBE_BYTES: usize = 512;

type Rule = fn(&Head<'_>) -> bool;

/// The formats, most specific first: the first rule that fits wins.
const RULES: &[(&str, Rule)] = &[
    ("parallels", parallels),
    ("qed", |h| h.starts(b"QED\0")),
    ("vhdx", |h| h.starts(b"vhdxfile")),
    ("vmdk", |h| {
        h.starts(b"KDMV") || h.starts(b"COWD") || vmdk_descriptor(&h.bytes)
    }),
    ("vpc", |h| h.starts(b"conectix")),
    ("vdi", |h| h.le32(64) == 0xbeda_107f),
    ("qcow2", |h| h.starts(b"QFI\xfb") && h.be32(4) >= 2),
    ("qcow", |h| h.starts(b"QFI\xfb") && h.be32(4) == 1),
    ("luks", |h| h.starts(b"LUKS\xba\xbe") && h.at(6, &[0, 1])),
    ("bochs", bochs),
    ("dmg", |h| h.name.len() > 4 && h.name.ends_with(b".dmg")),
    ("cloop", |h| h.starts(CLOOP_SCRIPT)),
];

/// The shell script at the beginning of a compressed loop image, version 2.
const CLOOP_SCRIPT: &[u8] =
    b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";

/// The name of the format whose signature stands in the first [`PROBE_BYTES`], or None: raw.
pub fn recognise(probe: &Probe<'_>) -> Option<&'static str> {
    recognise_all(probe).next()
}

/// Every format whose signature stands in the first [`PROBE_BYTES`], the one that wins first.
pub fn recognise_all<'a>(probe: &Probe<'a>) -> impl Iterator<Item = &'static str> + use<'a> {
    let mut bytes = [0; PROBE_BYTES];
    let len = probe.head.len().min(PROBE_BYTES);
    bytes[..len].copy_from_slice(&probe.head[..len]);
    let head = Head {
        bytes,
        name: probe.name,
    };
    RULES
        .iter()
        .filter(move |(_, rule)| rule(&head))
        .map(|(name, _)| *name)
}

/// Whether images of that format are recognised, with a driver here or without.
pub fn is_known(format: &str) -> bool {
    RULES.iter().any(|(name, _)| *name == format)
}

/// The first bytes, padded with zeroes, and the file name.
struct Head<'a> {
    bytes: [u8; PROBE_BYTES],
    name: &'a BStr,
}

impl Head<'_> {
    fn at(&self, offset: usize, magic: &[u8]) -> bool {
        self.bytes[offset..].starts_with(magic)
    }

    fn starts(&self, magic: &[u8]) -> bool {
        self.at(0, magic)
    }

    fn word(&self, offset: usize) -> [u8; 4] {
        let mut word = [0; 4];
        word.copy_from_slice(&self.bytes[offset..offset + 4]);
        word
    }

    fn be32(&self, offset: usize) -> u32 {
        u32::from_be_bytes(self.word(offset))
    }

    fn le32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.word(offset))
    }

    /// A text in a field of `len` bytes that is filled up with zeroes.
    fn text(&self, offset: usize, len: usize, text: &[u8]) -> bool {
        let field = &self.bytes[offset..offset + len];
        field.starts_with(text) && field.get(text.len()).is_none_or(|end| *end == 0)
    }
}

fn parallels(head: &Head<'_>) -> bool {
    (head.starts(b"WithoutFreeSpace") || head.starts(b"WithouFreSpacExt")) && head.le32(16) == 2
}

fn bochs(head: &Head<'_>) -> bool {
    head.text(0, 32, b"Bochs Virtual HD Image")
        && head.text(32, 16, b"Redolog")
        && head.text(48, 16, b"Growing")
        && matches!(head.le32(64), 0x1_0000 | 0x2_0000)
}

/// A VMDK text descriptor: after comments and blank lines comes `version=1`, 2 or 3.
fn vmdk_descriptor(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|b| *b == b'\n') {
        let line = &rest[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if matches!(line, b"version=1" | b"version=2" | b"version=3") {
            return true;
        }
        let blank = !line.is_empty() && line.iter().all(|b| *b == b' ');
        if !blank && line.first() != Some(&b'#') {
            return false;
        }
        rest = &rest[end + 1..];
    }
    false
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
        assert_eq!(named("x.dmg".into(), CLOOP_SCRIPT), Some("dmg"));
        assert_eq!(named("x".into(), CLOOP_SCRIPT), Some("cloop"));
    }
}
