//! Which files the layers of an image are, to find ranges that two images share.

use crate::extent::{ExtentKind, StorageSlot};
use crate::image::{ChainExtent, FileId, Image, file_id};

/// The files of each layer of a chain.
#[derive(Default)]
pub(crate) struct Files {
    layers: Vec<[Option<FileId>; 2]>,
}

/// A place whose bytes are the same for everyone who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Bytes of a file as they are.
    Host(FileId, u64),
    /// Guest bytes that the image in the file encodes.
    Guest(FileId, &'static str, u64),
}

impl Files {
    pub(crate) fn of(image: &Image) -> Self {
        let mut layers = Vec::new();
        let mut layer = Some(image);
        while let Some(current) = layer {
            let data = current.format().storage(StorageSlot::DATA).ok();
            layers.push([
                file_id(&**current.storage()),
                data.and_then(|storage| file_id(&**storage)),
            ]);
            layer = current.backing().map(AsRef::as_ref);
        }
        Self { layers }
    }

    /// Where the run stands, if that can be told.
    pub(crate) fn place(&self, found: &ChainExtent<'_>, guest_offset: u64) -> Option<Place> {
        let layer = self.layers.get(usize::try_from(found.depth).ok()?)?;
        match found.extent.kind {
            ExtentKind::Data { slot, host_offset } => {
                let file = *layer.get(usize::from(slot.0))?;
                Some(Place::Host(file?, host_offset))
            }
            ExtentKind::Encoded { .. } => Some(Place::Guest(
                layer[0]?,
                found.layer.format().driver(),
                guest_offset,
            )),
            _ => None,
        }
    }
}
