//! New images: options, plan, and the bytes before the first block.

mod bulk;
mod front;
mod options;
mod spec;

use std::sync::Arc;

use uuid::Uuid;

use crate::error::{Error, Result};
use crate::format::driver::{outlined_preallocation, own_file};
use crate::format::{
    Bulk, Contents, CreateParams, Measured, NewImage, Outline, ParentId, PlannedFile,
    PrepareContext,
};
use crate::job::JobControl;
use crate::options::Values;
use crate::storage::{Preallocation, Storage, grow, set_len_or_fit};

use super::parent;
use bulk::VhdxBulk;
use front::Front;
use spec::Spec;

pub(super) use options::{OPTIONS, OWN, SUMMARY};

pub(super) fn outline(values: &Values) -> Outline {
    Outline {
        preallocation: match values.str("subformat") {
            Some("fixed") => outlined_preallocation(values),
            _ => Preallocation::Off,
        },
        records_parent: true,
        ..Outline::default()
    }
}

pub(super) fn plan(params: &CreateParams<'_>) -> Result<Box<dyn NewImage>> {
    Ok(Box::new(NewVhdx {
        spec: Spec::new(params)?,
        disk_id: None,
        parent: None,
    }))
}

pub(super) fn measure(params: &CreateParams<'_>, contents: &mut Contents<'_>) -> Result<Measured> {
    let spec = Spec::new(params)?;
    let geometry = &spec.geometry;
    let data = match &mut contents.data_units {
        Some(count) => count(geometry.block_size())?,
        None => 0,
    };
    let whole = spec.end_of_all();
    let overlay = contents.data_units.is_some() && spec.parent.is_some();
    Ok(Measured {
        required: match spec.fixed || overlay {
            true => whole,
            false => spec.data_start() + data * geometry.block_size(),
        },
        fully_allocated: whole,
        bitmaps: None,
    })
}

/// An image that is to be created.
#[derive(Debug)]
struct NewVhdx {
    spec: Spec,
    /// The parent's disk identifier, if it is known.
    disk_id: Option<Uuid>,
    parent: Option<Uuid>,
}

impl NewImage for NewVhdx {
    fn files(&self) -> Vec<PlannedFile> {
        vec![PlannedFile::own(match self.spec.fixed {
            true => self.spec.end_of_all(),
            false => self.spec.data_start(),
        })]
    }

    fn prepare(&mut self, context: &PrepareContext<'_>) -> Result<()> {
        let Some(name) = &self.spec.parent else {
            return Ok(());
        };
        let Some(parent) = context.parent else {
            return Err(Error::parent_not_known(parent::IDENTITY, name));
        };
        let Some(ParentId::DataWriteGuid(guid)) = parent.id else {
            return Err(parent::is_no_vhdx());
        };
        if let Some(sectors) = parent.sectors {
            self.spec.inherit(sectors)?;
        }
        self.parent = Some(guid);
        self.disk_id = parent.disk_id;
        Ok(())
    }

    fn start(
        self: Box<Self>,
        files: &[Arc<dyn Storage>],
        control: &Arc<JobControl>,
    ) -> Result<Box<dyn Bulk>> {
        let storage = own_file(files)?.clone();
        let front = Front::new(&self.spec, self.disk_id, self.parent)?;
        let spec = self.spec;
        let fresh = storage.limits().grown_is_zero && storage.is_empty()?;
        if storage.limits().fixed_len {
            set_len_or_fit(&*storage, spec.data_start(), Preallocation::Off)?;
        } else if spec.fixed {
            grow(&*storage, spec.end_of_all(), spec.preallocation, control)?;
        }
        Ok(Box::new(VhdxBulk::new(storage, fresh, spec, front)?))
    }
}
