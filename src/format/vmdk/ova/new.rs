//! A new archive with one disk.

use std::sync::Arc;

use crate::archive;
use crate::error::{Error, ErrorKind, Result};
use crate::format::driver::own_file;
use crate::format::{Bulk, CreateParams, InOrder, NewImage, PlannedFile, PrepareContext};
use crate::job::JobControl;
use crate::storage::{Preallocation, SliceStorage, Storage};

use super::bulk::OvaBulk;
use super::front::Front;
use super::in_order::OvaInOrder;

/// See [`crate::format::Package::wrap`].
pub(super) fn wrap(
    image: Box<dyn NewImage>,
    params: &CreateParams<'_>,
) -> Result<Box<dyn NewImage>> {
    if params.backing.is_some() {
        return Err(Error::unsupported(
            "The disk of an OVA has no backing file: it is to be whole by itself",
        ));
    }
    Ok(Box::new(NewOva {
        image,
        front: Front::new(params.name, params.size),
        capacity: params.size,
    }))
}

/// An archive that is to be created.
#[derive(Debug)]
struct NewOva {
    image: Box<dyn NewImage>,
    front: Front,
    capacity: u64,
}

impl NewImage for NewOva {
    fn files(&self) -> Vec<PlannedFile> {
        let around = self.front.len() + archive::BLOCK + archive::END;
        let files = self.image.files().into_iter();
        files
            .map(|file| PlannedFile {
                len: file.len.saturating_add(around),
                ..file
            })
            .collect()
    }

    fn ends_with_file(&self) -> bool {
        true
    }

    fn prepare(&mut self, context: &PrepareContext<'_>) -> Result<()> {
        self.image.prepare(context)
    }

    fn in_order(self: Box<Self>) -> Result<Box<dyn InOrder>> {
        let image = self.image.in_order()?;
        Ok(Box::new(OvaInOrder::new(image, self.front, self.capacity)))
    }

    fn start(
        self: Box<Self>,
        files: &[Arc<dyn Storage>],
        control: &Arc<JobControl>,
    ) -> Result<Box<dyn Bulk>> {
        let own = own_file(files)?;
        if files.len() > 1 {
            return Err(Error::new(
                ErrorKind::Internal,
                "An OVA holds disks of one file",
            ));
        }
        own.set_len(self.front.len(), Preallocation::Off)?;
        let disk: Arc<dyn Storage> =
            Arc::new(SliceStorage::new(own.clone(), self.front.len(), None)?);
        let image = self.image.start(std::slice::from_ref(&disk), control)?;
        Ok(Box::new(OvaBulk::new(
            image,
            (own.clone(), disk),
            self.front,
            self.capacity,
            control,
        )))
    }
}
