//! Creation of qcow2 images.

mod options;

pub use options::OPTIONS;

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::driver::{not_prepared, outlined_preallocation, own_file};
use crate::format::qcow2::bulk::{Draft, NewEncryption, NewFiles, Qcow2Bulk};
use crate::format::qcow2::data_file;
use crate::format::qcow2::disk::{
    Autoclear, Compatible, CryptMethod, CryptoExtension, Extension, Header, ImageHeader,
    Incompatible, V3_LEN,
};
use crate::format::qcow2::measure::least_len;
use crate::format::qcow2::spec::{Encryption, Spec};
use crate::format::{Bulk, CreateParams, FileRole, NewImage, Outline, PlannedFile, PrepareContext};
use crate::job::JobControl;
use crate::options::{COMPRESSION_LEVEL, Values};
use crate::storage::Storage;

/// Keys of the "Formatting" line in QEMU's order, with the defaults that it shows.
pub const SUMMARY: &[(&str, Option<&str>)] = &[
    ("encryption", None),
    ("encrypt.format", None),
    ("encrypt.key-secret", None),
    ("encrypt.cipher-alg", None),
    ("encrypt.cipher-mode", None),
    ("encrypt.ivgen-alg", None),
    ("encrypt.ivgen-hash-alg", None),
    ("encrypt.hash-alg", None),
    ("encrypt.iter-time", None),
    ("cluster_size", Some("65536")),
    ("extended_l2", Some("off")),
    ("preallocation", None),
    ("compression_type", Some("zlib")),
    (COMPRESSION_LEVEL, None),
    ("size", None),
    ("compat", None),
    ("backing_file", None),
    ("backing_fmt", None),
    ("data_file", None),
    ("data_file_raw", None),
    ("lazy_refcounts", Some("off")),
    ("refcount_bits", Some("16")),
];

/// Minimum cluster size for the feature name table: it takes 400 bytes, which smaller header clusters had better
/// reserve for file names.
pub(in crate::format::qcow2) const MIN_CLUSTER_FOR_NAMES: u64 = 8192;

/// See [`Outline`].
pub fn outline(values: &Values) -> Outline {
    Outline {
        encrypted: values.str("encrypt.format").is_some()
            || values.bool("encryption") == Some(true),
        preallocation: outlined_preallocation(values),
        bitmaps: !matches!(values.str("compat"), Some("0.10" | "v2")),
        ..Outline::default()
    }
}

/// Checks all options against each other.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`], [`crate::ErrorKind::Unsupported`] or [`crate::ErrorKind::Limit`].
pub fn plan(params: &CreateParams<'_>) -> Result<Box<dyn NewImage>> {
    let spec = Spec::new(params)?;
    let mut header = header(params, &spec)?;
    fits(&mut header, params)?;
    Ok(Box::new(NewQcow2 {
        len: least_len(&spec, params.size)?,
        size: params.size,
        spec,
        header,
        draft: None,
    }))
}

/// An image to be created.
#[derive(Debug)]
struct NewQcow2 {
    spec: Spec,
    size: u64,
    /// Length of its file, in bytes, before guest data is written.
    len: u64,
    header: ImageHeader,
    /// What has been prepared in memory.
    draft: Option<Draft>,
}

impl NewImage for NewQcow2 {
    fn files(&self) -> Vec<PlannedFile> {
        let own = PlannedFile::own(self.len);
        let data = self.spec.data_file.as_ref().map(|name| PlannedFile {
            role: FileRole::Data,
            name: Some(name.clone()),
            len: self.size,
        });
        std::iter::once(own).chain(data).collect()
    }

    fn prepare(&mut self, context: &PrepareContext<'_>) -> Result<()> {
        let encryption = match &self.spec.encryption {
            None => None,
            Some(Encryption { luks, secret }) => {
                let secret = context.objects.secret_text(secret)?;
                Some(match luks {
                    None => NewEncryption::aes(&secret)?,
                    Some(options) => NewEncryption::luks(options, &secret, context.control)?,
                })
            }
        };
        let l1_entries = u64::from(self.header.header.l1_entries);
        self.draft = Some(Draft::new(self.spec.geometry, l1_entries, encryption)?);
        Ok(())
    }

    fn start(
        mut self: Box<Self>,
        files: &[Arc<dyn Storage>],
        control: &Arc<JobControl>,
    ) -> Result<Box<dyn Bulk>> {
        let draft = self.draft.take().ok_or_else(not_prepared)?;
        let data = files.get(1).cloned();
        if let Some(data) = &data {
            data_file::prepare(&**data, self.size, self.spec.preallocation, control)?;
        }
        let target = NewFiles {
            storage: own_file(files)?.clone(),
            data,
            header: self.header,
            compression: self.spec.compression,
            preallocation: self.spec.preallocation,
            draft,
            control: control.clone(),
        };
        Ok(Box::new(Qcow2Bulk::new(target)?))
    }
}

fn header(params: &CreateParams<'_>, spec: &Spec) -> Result<ImageHeader> {
    let mut incompatible = Incompatible::empty();
    let mut autoclear = Autoclear::empty();
    incompatible.set(
        Incompatible::COMPRESSION,
        spec.compression_type != Default::default(),
    );
    incompatible.set(Incompatible::EXTENDED_L2, spec.geometry.extended_l2());
    incompatible.set(Incompatible::DATA_FILE, spec.data_file.is_some());
    autoclear.set(Autoclear::RAW_DATA_FILE, spec.data_file_raw);
    let mut compatible = Compatible::empty();
    compatible.set(Compatible::LAZY_REFCOUNTS, spec.lazy_refcounts);
    let mut extensions = Vec::new();
    if let Some(format) = params.backing.and_then(|backing| backing.format.as_ref()) {
        extensions.push(Extension::BackingFormat(format.to_vec()));
    }
    if let Some(name) = &spec.data_file {
        extensions.push(Extension::DataFile(name.to_vec()));
    }
    let crypt = match &spec.encryption {
        None => CryptMethod::None,
        Some(Encryption { luks: None, .. }) => CryptMethod::Aes,
        Some(_) => CryptMethod::Luks,
    };
    if crypt == CryptMethod::Luks {
        // The offset and length are filled in once they are known.
        extensions.push(Extension::Crypto(CryptoExtension { offset: 0, len: 0 }));
    }
    if spec.version >= 3 && spec.geometry.cluster_size() >= MIN_CLUSTER_FOR_NAMES {
        extensions.push(Extension::known_feature_names());
    }
    let l1_entries = u32::try_from(spec.geometry.l1_entries(params.size))
        .map_err(|_| Error::invalid("The image size is too large for file format 'qcow2'"))?;
    Ok(ImageHeader {
        header: Header {
            version: spec.version,
            backing_offset: 0,
            backing_len: 0,
            cluster_bits: spec.geometry.cluster_bits(),
            size: params.size,
            crypt,
            l1_entries,
            l1_offset: 0,
            reftable_offset: 0,
            reftable_clusters: 0,
            snapshots: 0,
            snapshots_offset: 0,
            incompatible,
            compatible,
            autoclear,
            refcount_order: spec.geometry.refcount_width().order(),
            header_len: V3_LEN,
            compression: spec.compression_type,
            rest: Vec::new(),
        },
        extensions,
        superseded: Vec::new(),
        unusable: None,
        backing_file: params.backing.map(|backing| backing.name.to_vec()),
    })
}

/// Checks that everything fits into the header cluster.
fn fits(header: &mut ImageHeader, params: &CreateParams<'_>) -> Result<()> {
    let Some(backing) = params.backing else {
        return header.to_bytes().map(drop);
    };
    let refused = |cause: Error| {
        cause.context(format!(
            "Could not assign backing file '{}' with format '{}'",
            backing.name,
            backing.format.clone().unwrap_or_default()
        ))
    };
    if backing.name.len() > 1023 {
        return Err(refused(Error::os(libc::EINVAL)));
    }
    header
        .to_bytes()
        .map(drop)
        .map_err(|_| refused(Error::os(libc::ENOSPC)))
}
