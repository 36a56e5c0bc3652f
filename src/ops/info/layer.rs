//! What `info` shows of one open image.

use std::ffi::OsStr;

use serde_json::{Map, Value};

use super::LayerInfo;
use super::name::shown_name;
use crate::error::Result;
use crate::image::Image;
use crate::location::resolve_name;
use crate::size::round_up_sector;
use crate::storage::Storage;

/// The report of one layer.
///
/// # Errors
/// Of reading metadata.
pub(super) fn layer_info(image: &Image) -> Result<LayerInfo> {
    let format = image.format();
    let details = format.info()?;
    let filename = shown_name(image.location(), format.driver());
    let mut layer = LayerInfo {
        format: format.driver().to_owned(),
        virtual_size: image.len(),
        actual_size: image.storage().allocated_size(),
        cluster_size: details.cluster_size,
        encrypted: details.encrypted,
        dirty: details.dirty.or(has_dirty_flag(&**image.storage())),
        snapshots: details.snapshots,
        specific: details.specific,
        children: vec![("file".to_owned(), file_info(&**image.storage())?)],
        ..LayerInfo::default()
    };
    if let Some(backing) = format.backing() {
        let own = image.storage().name();
        let full = resolve_name(OsStr::new(own), OsStr::new(&backing.name));
        layer.full_backing_filename = Some(full.to_string_lossy().into_owned());
        layer.backing_filename = Some(backing.name);
        layer.backing_format = backing.format;
    }
    layer.filename = filename;
    Ok(layer)
}

/// The report of a file (or another storage) as a node of its own.
///
/// # Errors
/// Of asking for its length.
pub(super) fn file_info(storage: &dyn Storage) -> Result<LayerInfo> {
    let length = storage.len()?;
    let specific: Map<String, Value> = storage
        .specific_info()
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    Ok(LayerInfo {
        filename: storage.name().to_owned(),
        format: storage.driver().to_owned(),
        virtual_size: round_up_sector(length).unwrap_or(length),
        actual_size: storage.allocated_size(),
        dirty: has_dirty_flag(storage),
        specific: (storage.driver() == "file").then_some(Value::Object(specific)),
        ..LayerInfo::default()
    })
}

/// QEMU shows `dirty-flag` for what lies on the host, but not for remote storages.
fn has_dirty_flag(storage: &dyn Storage) -> Option<bool> {
    matches!(storage.driver(), "file" | "host_device").then_some(false)
}
