//! What `info` shows of one open image.

use super::LayerInfo;
use crate::error::Result;
use crate::image::Image;
use crate::size::round_up_sector;
use crate::storage::Storage;
use crate::value::{Map, Value};

/// The report of one layer.
///
/// # Errors
/// Of reading metadata.
pub(super) fn layer_info(image: &Image) -> Result<LayerInfo> {
    let storage = &**image.storage();
    if image.format_name() != image.format().driver() {
        // A protocol in the place of the format: the file is all there is.
        return Ok(LayerInfo {
            filename: image.filename().to_owned(),
            ..file_info(storage)?
        });
    }
    let details = image.info().map_err(|error| {
        error.context_if_bare(|| format!("Could not read the metadata of '{}'", image.filename()))
    })?;
    let file = match image.file_image() {
        Some(node) => layer_info(node)?,
        None => file_info(storage)?,
    };
    let header = image.header_storage();
    let actual_size = match header {
        Some(header) => storage
            .allocated_size()
            .zip(header.allocated_size())
            .map(|(file, header)| file.saturating_add(header)),
        None => storage.allocated_size(),
    };
    let mut children = Vec::new();
    if let Some(header) = header {
        children.push(("header".to_owned(), file_info(&**header)?));
    }
    let backing = image.backing_file();
    let (backing_filename, full_backing_filename, backing_format) = match backing {
        Some(file) => (Some(file.name), Some(file.full_name), file.format),
        None => (None, None, None),
    };
    let dirty = details.dirty.or(file.dirty);
    // An image shows through a raw layer over it.
    let cluster_size = details.cluster_size.or(match image.driver().name {
        "raw" => file.cluster_size,
        _ => None,
    });
    children.push(("file".to_owned(), file));
    Ok(LayerInfo {
        filename: image.filename().to_owned(),
        format: image.format_name().to_owned(),
        virtual_size: image.len(),
        actual_size,
        cluster_size,
        encrypted: details.encrypted,
        dirty,
        backing_filename,
        full_backing_filename,
        backing_format,
        snapshots: details.snapshots,
        specific: details.specific,
        children,
    })
}

/// The report of a file (or another storage) as a node of its own.
///
/// # Errors
/// Of asking for its length.
fn file_info(storage: &dyn Storage) -> Result<LayerInfo> {
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
        specific: matches!(storage.driver(), "file" | "host_device")
            .then_some(Value::Object(specific)),
        ..LayerInfo::default()
    })
}

/// QEMU shows `dirty-flag` for what lies on the host, but not for remote storages.
fn has_dirty_flag(storage: &dyn Storage) -> Option<bool> {
    matches!(storage.driver(), "file" | "host_device").then_some(false)
}
