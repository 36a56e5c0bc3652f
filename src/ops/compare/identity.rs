//! The files of the layers of an image, for finding ranges that two images share.

use std::sync::Arc;

use crate::extent::{ExtentKind, StorageSlot};
use crate::image::{ChainExtent, Image};
use crate::storage::Identity;

/// The files of each layer of a chain.
#[derive(Default)]
pub(crate) struct Files {
    layers: Vec<Layer>,
}

/// The files of one layer.
struct Layer {
    own: Option<Arc<Identity>>,
    slots: Vec<(StorageSlot, Option<Arc<Identity>>)>,
}

/// A location whose bytes are the same for everyone who reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BytesAt {
    /// Verbatim bytes of a file.
    Host(Arc<Identity>, u64),
    /// Guest bytes that the image in the file encodes.
    Guest(Arc<Identity>, &'static str, u64),
}

impl Files {
    pub(crate) fn of(image: &Image) -> Self {
        let of = |layer: &Image| Layer {
            own: layer.identity().map(Arc::new),
            slots: layer
                .slots()
                .into_iter()
                .map(|(slot, storage)| (slot, storage.identity().map(Arc::new)))
                .collect(),
        };
        Self {
            layers: image.layers().map(of).collect(),
        }
    }

    /// Where the run is stored, if that is known.
    pub(crate) fn place(&self, found: &ChainExtent<'_>, guest_offset: u64) -> Option<BytesAt> {
        let layer = self.layers.get(usize::try_from(found.depth).ok()?)?;
        match found.extent.kind {
            ExtentKind::Data { slot, host_offset } => {
                let (_, file) = layer.slots.iter().find(|(known, _)| *known == slot)?;
                Some(BytesAt::Host(file.clone()?, host_offset))
            }
            ExtentKind::Encoded { .. } => Some(BytesAt::Guest(
                layer.own.clone()?,
                found.layer.format().driver(),
                guest_offset,
            )),
            _ => None,
        }
    }
}
