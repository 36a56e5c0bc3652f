//! The specification of a new image: options checked against each other.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use bstr::{BStr, BString, ByteSlice};

use crate::codec::Compression;
use crate::crypto::luks::CreateOptions;
use crate::driver_names::unknown_protocol;
use crate::error::{Error, ErrorKind, Result};
use crate::format::CreateParams;
use crate::format::crypt::{NewEncryption, parse_cipher_options};
use crate::format::driver::preallocation;
use crate::format::qcow2::disk::{
    CompressionType, Extension, Geometry, MAX_L1_BYTES, RefcountWidth,
};
use crate::location::{Location, Node};
use crate::options::{COMPRESSION_LEVEL, Values};
use crate::storage::Preallocation;
use crate::storage::registry as protocols;

/// The option names of the cipher.
const ENCRYPT_KEYS: [&str; 7] = [
    "encrypt.key-secret",
    "encrypt.cipher-alg",
    "encrypt.cipher-mode",
    "encrypt.ivgen-alg",
    "encrypt.ivgen-hash-alg",
    "encrypt.hash-alg",
    "encrypt.iter-time",
];

/// The options of a new image, checked.
#[derive(Clone, Debug)]
pub(in crate::format::qcow2) struct Spec {
    /// 2 or 3.
    pub version: u32,
    /// Sizes.
    pub geometry: Geometry,
    /// Refcounts may be written late.
    pub lazy_refcounts: bool,
    /// Compression type of compressed clusters.
    pub compression_type: CompressionType,
    /// The same with its level, which is not recorded.
    pub compression: Compression,
    /// As requested; data_file_raw makes it at least [`Preallocation::Metadata`].
    pub preallocation: Preallocation,
    /// The external data file's name.
    pub data_file: Option<BString>,
    /// The data file is a raw image of the guest disk.
    pub data_file_raw: bool,
    /// How guest data is encrypted.
    pub encryption: Option<Encryption>,
}

/// How guest data is to be encrypted.
#[derive(Clone, Debug)]
pub(in crate::format::qcow2) struct Encryption {
    /// The cipher of a LUKS header; None for the legacy cipher.
    pub luks: Option<CreateOptions>,
    /// ID of the secret.
    pub secret: String,
}

/// The error for options that need version 3: one message for all of them.
fn needs_v3(what: &str) -> Error {
    Error::invalid(format!(
        "{what} only supported with compatibility level 1.1 and above (use version=v3 or greater)"
    ))
}

impl Spec {
    /// Checks all options, in QEMU's order.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], [`ErrorKind::Unsupported`] or [`ErrorKind::Limit`].
    pub fn new(params: &CreateParams<'_>) -> Result<Self> {
        Self::checked(params, false)
    }

    /// As [`Self::new`], for an image that will not be created: the legacy cipher, which takes no space, needs no
    /// secret then.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn to_measure(params: &CreateParams<'_>) -> Result<Self> {
        Self::checked(params, true)
    }

    fn checked(params: &CreateParams<'_>, measured: bool) -> Result<Self> {
        let values = params.values;
        let version = match values.str("compat") {
            None | Some("1.1" | "v3") => 3,
            Some("0.10" | "v2") => 2,
            Some(other) => return Err(Error::refused_value("version", other)),
        };
        let preallocation =
            preallocation(values).map_err(|word| Error::refused_value("preallocation", word))?;
        let compression_type = match values.str("compression_type") {
            None => CompressionType::Zlib,
            Some(name) => CompressionType::from_name(name)
                .ok_or_else(|| Error::refused_value("compression-type", name))?,
        };
        let level = values.num(COMPRESSION_LEVEL).map(u64::cast_signed);
        let encryption = encryption(values, measured)?;
        let flag = |key| values.bool(key).unwrap_or(false);
        let extended_l2 = flag("extended_l2");
        let cluster_bits = cluster_bits(values.num("cluster_size"), extended_l2, version)?;
        let compression =
            Compression::of_units(compression_type.method(), level, 1 << cluster_bits)?;
        let data_file = values.name("data_file").map(plain_name).transpose()?;
        let data_file_raw = flag("data_file_raw");
        let has_backing = params.backing.is_some();
        if let Some(format) = params.backing.and_then(|backing| backing.format.as_ref()) {
            Extension::backing_format(format.as_bstr())?;
        }
        if preallocation != Preallocation::Off && has_backing && !extended_l2 {
            return Err(Error::invalid(
                "Backing file and preallocation can only be used at the same time if extended_l2 \
                 is on",
            ));
        }
        let lazy_refcounts = flag("lazy_refcounts");
        if lazy_refcounts && version < 3 {
            return Err(needs_v3("Lazy refcounts"));
        }
        let width = refcount_width(values.num("refcount_bits"), version)?;
        if data_file_raw && data_file.is_none() {
            return Err(Error::invalid("data-file-raw requires data-file"));
        }
        if data_file_raw && has_backing {
            return Err(Error::invalid(
                "Backing file and data-file-raw cannot be used at the same time",
            ));
        }
        if data_file.is_some() && version < 3 {
            return Err(needs_v3("External data files are"));
        }
        if compression_type != CompressionType::Zlib && version < 3 {
            return Err(needs_v3("Non-zlib compression type is"));
        }
        let geometry = Geometry::new(cluster_bits, extended_l2, width.order())?;
        let l1_entries = geometry.l1_entries(params.size);
        if params.size > i64::MAX as u64 || l1_entries > MAX_L1_BYTES / 8 {
            return Err(Error::new(
                ErrorKind::Limit,
                "The image size is too large for file format 'qcow2' (try using a larger cluster \
                 size)",
            ));
        }
        Ok(Self {
            version,
            geometry,
            lazy_refcounts,
            compression_type,
            compression,
            preallocation: match preallocation {
                // A raw data file must hold every guest byte at its own offset.
                Preallocation::Off if data_file_raw => Preallocation::Metadata,
                other => other,
            },
            data_file,
            data_file_raw,
            encryption,
        })
    }
}

/// The name to record for a data file: images refer to data files by plain file names only.
pub(in crate::format::qcow2) fn plain_name(given: &BStr) -> Result<BString> {
    let location = Location::for_target(OsStr::from_bytes(given));
    match location.node() {
        Node::Path(path) => Ok(path.as_os_str().as_bytes().into()),
        Node::Uri { protocol, .. } if protocols::for_scheme(protocol).is_none() => {
            Err(unknown_protocol(protocol))
        }
        _ => Err(Error::invalid(format!(
            "A data file needs a plain file name, which '{}' is not",
            location.display()
        ))),
    }
}

fn cluster_bits(size: Option<u64>, extended_l2: bool, version: u32) -> Result<u32> {
    let size = size.unwrap_or(65536);
    let bits = size.trailing_zeros();
    let range = Geometry::MIN_CLUSTER_BITS..=Geometry::MAX_CLUSTER_BITS;
    if !size.is_power_of_two() || !range.contains(&bits) {
        return Err(Error::invalid(
            "Cluster size must be a power of two between 512 and 2048k",
        ));
    }
    if extended_l2 && version < 3 {
        return Err(needs_v3("Extended L2 entries are"));
    }
    if extended_l2 && bits < 14 {
        return Err(Error::invalid(
            "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes",
        ));
    }
    Ok(bits)
}

fn refcount_width(bits: Option<u64>, version: u32) -> Result<RefcountWidth> {
    let width = RefcountWidth::from_bits(bits.unwrap_or(16)).ok_or_else(|| {
        Error::invalid("Refcount width must be a power of two and may not exceed 64 bits")
    })?;
    if version < 3 && width.bits() != 16 {
        return Err(Error::invalid(
            "Different refcount widths than 16 bits require compatibility level 1.1 or above (use \
             version=v3 or greater)",
        ));
    }
    Ok(width)
}

fn encryption(values: &Values, measured: bool) -> Result<Option<Encryption>> {
    let given = |key: &&&str| values.get(key).is_some();
    let luks = match NewEncryption::of(values)? {
        None if ENCRYPT_KEYS.iter().any(|key| given(&key)) => {
            return Err(Error::invalid("Parameter 'encrypt.format' is missing"));
        }
        None => return Ok(None),
        Some(NewEncryption::Aes) => {
            // The first of the keys is the secret; the others are for LUKS alone.
            if let Some(key) = ENCRYPT_KEYS.iter().skip(1).find(given) {
                return Err(Error::unexpected_parameter(key));
            }
            None
        }
        Some(NewEncryption::Luks) => Some(parse_cipher_options(values, "encrypt.")?),
    };
    let secret = match values.str("encrypt.key-secret") {
        Some(id) => id.to_owned(),
        None if measured && luks.is_none() => String::new(),
        None => return Err(Error::needs_secret("encrypt.key-secret")),
    };
    Ok(Some(Encryption { luks, secret }))
}
