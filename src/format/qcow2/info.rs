//! The description of a qcow2 image for `info`, from its metadata alone.

use std::sync::Arc;

use bstr::BStr;
use serde_json::json;

use crate::crypto::luks::Volume;
use crate::error::Result;
use crate::format::crypt::{self, HeaderArea, header_info};
use crate::format::{FormatInfo, SnapshotInfo};
use crate::memory;
use crate::printable::shown_name;
use crate::storage::Storage;
use crate::value::{Map, Value};

use super::disk::{
    Autoclear, BitmapFlags, Compatible, CryptMethod, ImageHeader, Incompatible, SnapshotEntry,
    read_bitmap_directory, read_damaged_snapshot_table,
};

/// Bytes that a bitmap takes in the description besides its name.
const LISTED: u64 = 1 << 10;

/// Collects the description from the header, the snapshot table, the bitmap directory and the encryption header; what
/// lies past the end of the file is empty.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] if one of them is damaged, or if I/O fails.
pub fn info(storage: &Arc<dyn Storage>, image: &ImageHeader) -> Result<FormatInfo> {
    let header = &image.header;
    let (snapshots, _) = read_damaged_snapshot_table(&**storage, header)?;
    let bitmaps = match header.version {
        3.. => bitmaps(storage, image)?,
        _ => None,
    };
    Ok(FormatInfo {
        cluster_size: Some(1 << header.cluster_bits),
        encrypted: header.crypt != CryptMethod::None,
        hides_dirty: false,
        dirty: Some(header.incompatible.contains(Incompatible::DIRTY)),
        snapshots: memory::collect(snapshots.into_iter().map(snapshot))?,
        bitmaps: bitmaps.as_ref().map_or(0, |list| list.len() as u64),
        specific: Some(specific(storage, image, bitmaps)?),
    })
}

/// The information listed for a snapshot.
fn snapshot(entry: SnapshotEntry) -> SnapshotInfo {
    SnapshotInfo {
        vm_state_size: entry.vm_state_size(),
        date_sec: u64::from(entry.date_sec),
        date_nsec: entry.date_nsec,
        vm_clock_nsec: entry.vm_clock_nsec,
        icount: entry.icount(),
        disk_size: entry.extra.disk_size,
        id: entry.id.into(),
        name: entry.name.into(),
    }
}

/// The `data` object of `format-specific`, keys in QEMU's order.
fn specific(
    storage: &Arc<dyn Storage>,
    image: &ImageHeader,
    bitmaps: Option<Vec<Value>>,
) -> Result<Value> {
    let header = &image.header;
    let mut data = Map::new();
    let compat = if header.version < 3 { "0.10" } else { "1.1" };
    data.insert("compat".into(), compat.into());
    data.insert("compression-type".into(), header.compression.name().into());
    if header.version >= 3 {
        let lazy = header.compatible.contains(Compatible::LAZY_REFCOUNTS);
        data.insert("lazy-refcounts".into(), lazy.into());
        if let Some(list) = bitmaps {
            data.insert("bitmaps".into(), Value::Array(list));
        }
    }
    let bits = 1u64 << header.refcount_order.min(6);
    data.insert("refcount-bits".into(), bits.into());
    match header.crypt {
        CryptMethod::None => {}
        CryptMethod::Aes => {
            data.insert("encrypt".into(), json!({"format": "aes"}).into());
        }
        CryptMethod::Luks => {
            data.insert("encrypt".into(), luks(storage, image)?);
        }
    }
    if header.version >= 3 {
        if let Some(name) = image.data_file_name() {
            data.insert("data-file".into(), shown_name(&name).into());
        }
        if image.has_data_file() {
            let raw = header.autoclear.contains(Autoclear::RAW_DATA_FILE);
            data.insert("data-file-raw".into(), raw.into());
        }
        let corrupt = header.incompatible.contains(Incompatible::CORRUPT);
        data.insert("corrupt".into(), corrupt.into());
        let extended = header.incompatible.contains(Incompatible::EXTENDED_L2);
        data.insert("extended-l2".into(), extended.into());
    }
    Ok(Value::Object(data))
}

/// The bitmaps, if there is a list of them that can be trusted.
fn bitmaps(storage: &Arc<dyn Storage>, image: &ImageHeader) -> Result<Option<Vec<Value>>> {
    let Some(extension) = image.consistent_bitmaps() else {
        return Ok(None);
    };
    let cluster = 1 << image.header.cluster_bits;
    let entries = read_bitmap_directory(&**storage, &extension, image.header.size, cluster)?;
    let names: u64 = entries.iter().map(|entry| entry.name.len() as u64).sum();
    memory::headroom(entries.len() as u64 * LISTED + names)?;
    let list = entries.iter().map(|entry| {
        let mut flags = Vec::new();
        if entry.flags.contains(BitmapFlags::IN_USE) {
            flags.push("in-use");
        }
        if entry.flags.contains(BitmapFlags::AUTO) {
            flags.push("auto");
        }
        Value::Object(Map::from_iter([
            ("flags".to_owned(), flags.into_iter().collect::<Value>()),
            ("name".to_owned(), BStr::new(&entry.name).into()),
            (
                "granularity".to_owned(),
                (1u64 << entry.granularity_bits.min(63)).into(),
            ),
        ]))
    });
    Ok(Some(list.collect()))
}

/// The LUKS header, with the format's name in QEMU's position.
fn luks(storage: &Arc<dyn Storage>, image: &ImageHeader) -> Result<Value> {
    let offset = image.crypto().map_or(0, |crypto| crypto.offset);
    let header = Volume::read_header(&HeaderArea::new(storage.clone(), offset))?;
    let mut data = Map::new();
    if let Value::Object(fields) = header_info(&header, 0, false) {
        for (key, value) in fields {
            if key == "cipher-mode" {
                data.insert("format".into(), crypt::METHOD.into());
            }
            data.insert(key, value);
        }
    }
    Ok(Value::Object(data))
}
