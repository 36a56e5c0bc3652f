//! What `info` reports about a LUKS header.

use serde_json::json;

use crate::crypto::luks::{Header, STRIPES};
use crate::value::{Map, Value};

/// The `data` object of a LUKS volume that begins at `base` of its file; `detached` tells whether its header is a
/// separate file. Keys are in QEMU's order.
pub(crate) fn header_info(header: &Header, base: u64, detached: bool) -> Value {
    let mut data = Map::new();
    data.insert("ivgen-alg".into(), header.cipher.iv.name().into());
    data.insert("detached-header".into(), detached.into());
    data.insert("hash-alg".into(), header.hash.name().into());
    data.insert("cipher-alg".into(), header.cipher.algorithm.name().into());
    data.insert("uuid".into(), header.uuid.as_str().into());
    if let Some(hash) = header.cipher.iv.hash() {
        data.insert("ivgen-hash-alg".into(), hash.name().into());
    }
    data.insert("cipher-mode".into(), header.cipher.mode.name().into());
    let slots = header.slots.iter().map(|slot| {
        let offset = base.saturating_add(u64::from(slot.material_sector) * 512);
        if slot.active {
            json!({"active": true, "iters": slot.iterations, "key-offset": offset,
                   "stripes": STRIPES})
        } else {
            json!({"active": false, "key-offset": offset})
        }
    });
    data.insert("slots".into(), slots.collect());
    data.insert("payload-offset".into(), header.payload_offset().into());
    data.insert("master-key-iters".into(), header.digest_iterations.into());
    Value::Object(data)
}
