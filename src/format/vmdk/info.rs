//! What `info` shows.

use crate::error::Result;
use crate::format::{Format, FormatInfo};
use crate::memory;
use crate::value::{Map, Value};

use super::disk::ExtentType;
use super::parts::{Part, PartKind};
use super::state::Vmdk;

/// More than the memory that the description of an extent takes.
const EXTENT: u64 = 2048;

/// The description, with keys in QEMU's order.
///
/// # Errors
/// If there is not enough memory for all extents.
pub(super) fn info(image: &Vmdk) -> Result<FormatInfo> {
    memory::headroom(image.parts.len() as u64 * EXTENT)?;
    let stored = image.stored.lock();
    let descriptor = &stored.descriptor;
    let mut data = Map::new();
    data.insert("cid".into(), u64::from(descriptor.cid).into());
    data.insert("parent-cid".into(), u64::from(descriptor.parent_cid).into());
    let kind = Value::String(descriptor.create_type.clone());
    data.insert("create-type".into(), kind);
    let extents = image.parts.iter().map(|part| extent(part)).collect();
    data.insert("extents".into(), Value::Array(extents));
    Ok(FormatInfo {
        dirty: image.is_unclean().then_some(true),
        cluster_size: image.cluster_size().map(u64::from),
        specific: Some(Value::Object(data)),
        ..FormatInfo::default()
    })
}

fn extent(part: &Part) -> Value {
    let mut data = Map::new();
    let sparse = match &part.kind {
        PartKind::Sparse(sparse) => Some(sparse),
        PartKind::Flat { .. } | PartKind::Zero { .. } => None,
    };
    if sparse.is_some_and(|sparse| sparse.compressed) {
        data.insert("compressed".into(), true.into());
    }
    data.insert("virtual-size".into(), part.len().into());
    let name = part.storage().map(|file| file.name().to_owned());
    data.insert("filename".into(), Value::String(name.unwrap_or_default()));
    if let Some(sparse) = sparse {
        data.insert("cluster-size".into(), sparse.grain.into());
    }
    let word = part.word.map_or("", ExtentType::word);
    data.insert("format".into(), word.into());
    Value::Object(data)
}
