//! The manifest: the digests of the members, one per line.

use std::fmt::Write;

use crate::crypto::Hash;

/// A line of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The name of the digest, as written.
    pub(super) algorithm: &'a str,
    /// The name of the file.
    pub(super) file: &'a str,
    /// The digest in hexadecimal.
    pub(super) digest: &'a str,
}

impl Line<'_> {
    /// The hash function, if products support it.
    pub(super) fn hash(&self) -> Option<Hash> {
        let name = self.algorithm.replace('-', "").to_ascii_lowercase();
        let hash = Hash::from_name(&name)?;
        matches!(hash, Hash::Sha1 | Hash::Sha256 | Hash::Sha512).then_some(hash)
    }
}

/// The text of a manifest with the digests of these files.
pub(super) fn text(hash: Hash, files: &[(&str, &[u8])]) -> String {
    let name = hash.name().to_ascii_uppercase();
    let mut out = String::new();
    for (file, digest) in files {
        let _ = writeln!(out, "{name}({file})= {}", hex(digest));
    }
    out
}

/// Hexadecimal digits in lower case.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The lines of a manifest; those that cannot be parsed are errors.
pub(super) fn lines(text: &str) -> impl Iterator<Item = Result<Line<'_>, &str>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| parse(line).ok_or(line))
}

fn parse(line: &str) -> Option<Line<'_>> {
    let (algorithm, rest) = line.split_once('(')?;
    // A name may contain parentheses of its own.
    let (file, digest) = rest.rsplit_once(')')?;
    let digest = digest.trim_start().strip_prefix('=')?.trim();
    let good = !digest.is_empty() && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then_some(Line {
        algorithm: algorithm.trim(),
        file,
        digest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_as_products_write_it() {
        let written = text(Hash::Sha256, &[("a.ovf", &[0xab; 2]), ("b", &[1])]);
        assert_eq!(written, "SHA256(a.ovf)= abab\nSHA256(b)= 01\n");
        let read: Vec<_> = lines(&written).collect();
        assert_eq!(read[0].as_ref().map(|line| line.file), Ok("a.ovf"));
        let odd = "SHA1 (a (1).ovf) = 0F\r\n\nnothing\nSHA256(x)= 0g\n";
        let read: Vec<_> = lines(odd).collect();
        let first = read[0].as_ref().expect("a line");
        assert_eq!((first.file, first.digest), ("a (1).ovf", "0F"));
        assert_eq!(first.hash(), Some(Hash::Sha1));
        assert_eq!(read[1..], [Err("nothing"), Err("SHA256(x)= 0g")]);
    }
}
