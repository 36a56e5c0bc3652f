//! The option table of `create`.

use crate::format::crypt;
use crate::options::{COMPRESSION_LEVEL, OptionKind, OptionSpec};

const fn option(
    name: &'static str,
    kind: OptionKind,
    help: &'static str,
    default: Option<&'static str>,
    allowed: &'static [&'static str],
) -> OptionSpec {
    OptionSpec {
        name,
        kind,
        help,
        default,
        allowed,
    }
}

/// Options of `create`, sorted by name.
pub const OPTIONS: &[OptionSpec] = &[
    option(
        "backing_file",
        OptionKind::Name,
        "File name of a base image",
        None,
        &[],
    ),
    option(
        "backing_fmt",
        OptionKind::Str,
        "Image format of the base image",
        None,
        &[],
    ),
    option(
        "cluster_size",
        OptionKind::Size,
        "qcow2 cluster size",
        Some("65536"),
        &[],
    ),
    option(
        "compat",
        OptionKind::Str,
        "Compatibility level (v2 [0.10] or v3 [1.1])",
        None,
        &["0.10", "1.1", "v2", "v3"],
    ),
    option(
        COMPRESSION_LEVEL,
        OptionKind::Num,
        "How hard compressed writes try: 1 to 12 for zlib (default 2; 6 or 11 for clusters of 16 KiB and less), 22 and less for zstd (default 3)",
        None,
        &[],
    ),
    option(
        "compression_type",
        OptionKind::Str,
        "Compression method used for image cluster compression",
        Some("zlib"),
        &["zlib", "zstd"],
    ),
    option(
        "data_file",
        OptionKind::Name,
        "File name of an external data file",
        None,
        &[],
    ),
    option(
        "data_file_raw",
        OptionKind::Bool,
        "The external data file must stay valid as a raw image",
        None,
        &[],
    ),
    option(
        "encrypt.cipher-alg",
        OptionKind::Str,
        "Name of encryption cipher algorithm",
        None,
        &[],
    ),
    option(
        "encrypt.cipher-mode",
        OptionKind::Str,
        "Name of encryption cipher mode",
        None,
        &[],
    ),
    option(
        "encrypt.format",
        OptionKind::Str,
        "Encrypt the image, format choices: 'aes', 'luks'",
        None,
        &["aes", crypt::METHOD],
    ),
    option(
        "encrypt.hash-alg",
        OptionKind::Str,
        "Name of encryption hash algorithm",
        None,
        &[],
    ),
    option(
        "encrypt.iter-time",
        OptionKind::Num,
        "Time to spend in PBKDF in milliseconds",
        None,
        &[],
    ),
    option(
        "encrypt.ivgen-alg",
        OptionKind::Str,
        "Name of IV generator algorithm",
        None,
        &[],
    ),
    option(
        "encrypt.ivgen-hash-alg",
        OptionKind::Str,
        "Name of IV generator hash algorithm",
        None,
        &[],
    ),
    option(
        "encrypt.key-secret",
        OptionKind::Str,
        "ID of secret providing qcow AES key or LUKS passphrase",
        None,
        &[],
    ),
    option(
        "encryption",
        OptionKind::Bool,
        "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
        None,
        &[],
    ),
    option(
        "extended_l2",
        OptionKind::Bool,
        "Extended L2 tables",
        Some("off"),
        &[],
    ),
    option(
        "lazy_refcounts",
        OptionKind::Bool,
        "Postpone refcount updates",
        Some("off"),
        &[],
    ),
    option(
        "preallocation",
        OptionKind::Str,
        "Preallocation mode (allowed values: off, metadata, falloc, full)",
        None,
        &["off", "metadata", "falloc", "full"],
    ),
    option(
        "refcount_bits",
        OptionKind::Num,
        "Width of a reference count entry in bits",
        Some("16"),
        &[],
    ),
    option("size", OptionKind::Size, "Virtual disk size", None, &[]),
];
