//! The driver as the registry sees it.

use crate::error::Result;
use crate::format::magic::PROBE_BYTES;
use crate::format::unstated::{of, one_of};
use crate::format::{ChildSpec, Features, Format, FormatDriver, OpenContext, Probe, Signature};
use crate::options::COMPRESSION_LEVEL;

use super::create;
use super::disk::{cowd_header, sparse_header};

/// The driver's name.
pub(super) const NAME: &str = "vmdk";

/// The line of the registry.
pub static DRIVER: FormatDriver = FormatDriver {
    name: NAME,
    of_images: Features::WRITE
        .union(Features::COMPRESS)
        .union(Features::CHECK)
        .union(Features::REPAIR)
        .union(Features::RESIZE),
    signature: Some(Signature {
        rank: 40,
        fits,
        footer: None,
    }),
    has_metadata: true,
    is_transparent: false,
    is_stream: false,
    children: &[ChildSpec::FILE, ChildSpec::EXTENTS, ChildSpec::BACKING],
    open,
    inspect: super::inspect::inspect,
    create: Some(create::plan),
    outline: create::outline,
    measure: Some(create::measure),
    create_options: create::OPTIONS,
    unstated: &[
        one_of(
            "adapter_type",
            "ide",
            &["ide", "lsilogic", "buslogic", "legacyESX"],
        ),
        of("compat6", "off"),
        of("zeroed_grain", "off"),
        one_of(
            "subformat",
            "monolithicSparse",
            &[
                "monolithicSparse",
                "monolithicFlat",
                "twoGbMaxExtentSparse",
                "twoGbMaxExtentFlat",
                "streamOptimized",
            ],
        ),
    ],
    own_options: &[COMPRESSION_LEVEL],
    summary: create::SUMMARY,
    amend_options: &[],
    open_options: &[],
    secret_option: None,
    strong_options: &[],
    events: &[],
};

fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    Ok(Box::new(super::open::open(&context)?))
}

fn fits(file: &Probe<'_>) -> bool {
    file.starts(&sparse_header::MAGIC)
        || file.starts(&cowd_header::MAGIC)
        || is_descriptor(file.head)
}

/// A text descriptor: after comments and blank lines comes `version=1`, 2 or 3.
fn is_descriptor(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(..PROBE_BYTES).unwrap_or(bytes);
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
