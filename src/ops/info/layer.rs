//! What `info` shows of one open image and of the nodes below it.

use super::LayerInfo;
use crate::error::Result;
use crate::format::{ChildSpec, SnapshotInfo};
use crate::image::{Child, Image, Node};
use crate::memory;
use crate::printable::shown_name;
use crate::size::round_up_sector;
use crate::storage::{Storage, StorageFeatures, registry};
use crate::storage::{StorageDetails, StorageReport, StoredImage};
use crate::value::Value;

/// The report of one layer.
///
/// # Errors
/// If reading metadata fails.
pub(super) fn layer_info(image: &Image) -> Result<LayerInfo> {
    let mut info = layer_alone(image)?;
    if let Some(base) = image.backing() {
        let below = (ChildSpec::BACKING.name.to_owned(), layer_info(base)?);
        info.children.insert(0, below);
    }
    Ok(info)
}

/// The same without its backing file.
///
/// # Errors
/// If reading metadata fails.
pub(super) fn layer_alone(image: &Image) -> Result<LayerInfo> {
    if image.format_name() != image.format().driver()
        && let Some(node) = image.children().first()
    {
        // A protocol or a filter instead of a format: there is nothing but the node.
        return Ok(LayerInfo {
            filename: image.filename().to_owned(),
            ..node_info(node.node())?
        });
    }
    let details = image.info().map_err(|error| {
        error.context_if_bare(|| format!("Could not read the metadata of '{}'", image.filename()))
    })?;
    let children = children_info(image.children())?;
    let file = children.last().map(|(_, file)| file);
    // A format with clusters of its own shows the flag, whatever the file.
    let dirty = details.dirty.or(details.cluster_size.map(|_| false));
    let dirty = dirty.or(file.and_then(|file| file.dirty));
    let dirty = dirty.filter(|_| !details.hides_dirty);
    // An image below a raw layer shows through it.
    let shown = file.filter(|_| image.driver().is_transparent);
    let cluster_size = details.cluster_size;
    // A disk without tables has the cluster size of its file.
    let below = file.filter(|_| !image.driver().has_metadata);
    let cluster_size = cluster_size.or(below.and_then(|file| file.cluster_size));
    let mut snapshots = details.snapshots;
    if let Some(file) = shown {
        snapshots.extend(file.snapshots.iter().cloned());
    }
    let (backing_filename, full_backing_filename, backing_format) = match image.backing_file() {
        Some(file) => (
            Some(shown_name(&file.name)),
            Some(shown_name(&file.full_name)),
            file.format,
        ),
        None => (None, None, None),
    };
    Ok(LayerInfo {
        filename: image.filename().to_owned(),
        format: image.format_name().to_owned(),
        virtual_size: image.len(),
        actual_size: image.actual_size(),
        cluster_size,
        encrypted: details.encrypted,
        dirty,
        backing_filename,
        full_backing_filename,
        backing_format,
        snapshots,
        bitmaps: details.bitmaps,
        specific_type: Some(image.driver().name),
        specific: details.specific,
        contents: Vec::new(),
        children,
    })
}

/// Maximum memory for the report on a child, including what is printed of it.
const CHILD: u64 = 4 << 10;

/// The reports on children by their names, the last one opened first.
fn children_info(children: &[Child]) -> Result<Vec<(String, LayerInfo)>> {
    memory::headroom(children.len() as u64 * CHILD)?;
    let children = children.iter().rev();
    children
        .map(|child| Ok((child.name().to_owned(), node_info(child.node())?)))
        .collect()
}

/// The report of a node.
///
/// # Errors
/// If reading metadata or querying its length fails.
fn node_info(node: &Node) -> Result<LayerInfo> {
    if let Some(image) = node.image() {
        return layer_info(image);
    }
    let storage = &**node.storage();
    let Some((driver, children)) = node.filter() else {
        let info = file_info(storage)?;
        return Ok(match node.is_named_by_options() {
            true => LayerInfo {
                filename: node.filename(),
                ..info
            },
            false => info,
        });
    };
    let children = children_info(children)?;
    let mut shown = children.iter();
    let shown = shown.find(|(name, _)| Some(&**name) == driver.shows);
    let shown = shown.map(|(_, shown)| shown);
    // Most filters have nothing to report about themselves.
    let told = storage.report().map(StorageReport::details).transpose()?;
    Ok(LayerInfo {
        filename: node.filename(),
        format: driver.name.to_owned(),
        specific_type: Some(driver.name),
        specific: told.map(|details| specific_value(details.specific)),
        virtual_size: round_up(storage.len()?),
        actual_size: storage.allocated_size(),
        cluster_size: shown.and_then(|shown| shown.cluster_size),
        snapshots: shown
            .filter(|_| driver.passes_snapshots())
            .map_or_else(Vec::new, |shown| shown.snapshots.clone()),
        dirty: match shown {
            Some(shown) => shown.dirty.map(|_| false),
            None => driver.stands_on_one_child().then_some(false),
        },
        children,
        ..LayerInfo::default()
    })
}

/// The report on a file (or another storage) as a node of its own.
///
/// # Errors
/// If querying its length fails.
fn file_info(storage: &dyn Storage) -> Result<LayerInfo> {
    let driver = registry::find(storage.driver());
    let kind = driver.and_then(|driver| driver.info_type);
    let details = match storage.report() {
        Some(report) => report.details()?,
        None => StorageDetails::default(),
    };
    let is_image = details.image.is_some();
    let StoredImage {
        cluster_size,
        snapshots,
    } = details.image.unwrap_or_default();
    let snapshots = snapshots.into_iter().map(SnapshotInfo::of_storage);
    Ok(LayerInfo {
        filename: storage.name().to_owned(),
        format: storage.driver().to_owned(),
        virtual_size: round_up(storage.len()?),
        actual_size: storage.allocated_size(),
        // QEMU shows it for what is on the host and for images that a server stores as such, but not for other remote
        // storages.
        dirty: (is_image
            || driver.is_some_and(|driver| {
                driver.is_local && driver.features.contains(StorageFeatures::PLACES)
            }))
        .then_some(false),
        cluster_size,
        snapshots: snapshots.collect(),
        specific_type: kind,
        specific: kind.map(|_| specific_value(details.specific)),
        ..LayerInfo::default()
    })
}

/// What a driver reports under its own keys.
fn specific_value(specific: Vec<(&'static str, Value)>) -> Value {
    let members = specific.into_iter();
    let members = members.map(|(key, value)| (key.to_owned(), value));
    Value::Object(members.collect())
}

/// Lengths are shown in whole sectors.
fn round_up(length: u64) -> u64 {
    round_up_sector(length).unwrap_or(length)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::filter;
    use crate::storage::MemoryStorage;
    use crate::storage::forward::forward;

    /// A filter that has something to report.
    #[derive(Debug)]
    struct Told {
        child: MemoryStorage,
    }

    impl Storage for Told {
        forward!(
            child: name, driver, identity, read_only, read_at, try_read, write_at, len, set_len,
            write_zeroes, discard, sync, extent, limits, allocated_size, lock, host
        );

        fn report(&self) -> Option<&dyn StorageReport> {
            Some(self)
        }
    }

    impl StorageReport for Told {
        fn warnings(&self) -> Vec<String> {
            vec!["it is slow".to_owned()]
        }

        fn details(&self) -> Result<StorageDetails> {
            Ok(StorageDetails {
                image: None,
                specific: vec![("mask", Value::Bool(true))],
            })
        }
    }

    #[test]
    fn a_filter_tells_of_itself_what_its_storage_reports() {
        let driver = filter::registry::drivers()[0];
        let child = MemoryStorage::new("m");
        let node = Node::of_filter(driver, Arc::new(Told { child }));
        let info = node_info(&node).unwrap();
        assert_eq!(info.specific_type, Some(driver.name));
        let specific = info.specific.unwrap();
        assert_eq!(specific.as_object().unwrap()["mask"], Value::Bool(true));
        assert_eq!(node.warnings(), ["it is slow"]);
    }
}
