//! The plan of a new image: its files, and the content of its descriptor.

use std::sync::Arc;

use bstr::{BString, ByteSlice};

use crate::error::{Error, Result};
use crate::format::driver::{not_prepared, own_file};
use crate::format::{
    Bulk, CreateParams, FileRole, InOrder, NewImage, ParentId, PlannedFile, PrepareContext,
};
use crate::job::JobControl;
use crate::memory;
use crate::size::SECTOR;
use crate::storage::Storage;

use super::super::disk::descriptor::{NewDescriptor, random_cid};
use super::bulk::{NewPart, VmdkBulk, header_of};
use super::spec::Spec;
use super::stream::StreamInOrder;

/// More than the memory that a part needs, except for its name: its line, and the buffer in which that is built.
const PER_PART: u64 = 512;

/// Maximum size of a descriptor inside an extent.
const MAX_INSIDE: usize = 20 * SECTOR as usize;

/// See [`crate::format::FormatDriver::create`].
pub(in super::super) fn plan(params: &CreateParams<'_>) -> Result<Box<dyn NewImage>> {
    let spec = Spec::new(params)?;
    if !spec.subformat.is_one_file() && params.name.is_none() {
        return Err(Error::invalid(
            "A disk of several files can only be made under the name of a file",
        ));
    }
    let new = NewVmdk {
        spec,
        descriptor: None,
    };
    // Names that cannot be written are rejected before anything else is examined.
    new.descriptor(0, Some(0))?;
    Ok(Box::new(new))
}

/// Length of the descriptor of a new image without a parent.
///
/// # Errors
/// If memory cannot be allocated.
pub(super) fn descriptor_len(spec: Spec) -> Result<u64> {
    let new = NewVmdk {
        spec,
        descriptor: None,
    };
    Ok(new.descriptor(0, None)?.len() as u64)
}

/// The beginning of a long content ID.
fn random_words() -> Result<[u32; 3]> {
    Ok([random_cid(0)?, random_cid(0)?, random_cid(0)?])
}

/// An image that is to be created.
#[derive(Debug)]
struct NewVmdk {
    spec: Spec,
    /// Its text, once the parent is known.
    descriptor: Option<BString>,
}

impl NewVmdk {
    fn descriptor(&self, cid: u32, parent_cid: Option<u32>) -> Result<BString> {
        let spec = &self.spec;
        let kind = spec.subformat.extent_type();
        let parts = spec.parts();
        memory::headroom(
            (parts.len() as u64).saturating_mul(PER_PART + 4 * spec.name.len() as u64),
        )?;
        let parts = parts.into_iter().enumerate();
        let extents: Vec<_> = parts
            .map(|(n, sectors)| (sectors, kind, spec.part_name(n)))
            .collect();
        let text = NewDescriptor {
            cid,
            parent: spec
                .parent
                .as_ref()
                .map(|name| name.as_bstr())
                .zip(parent_cid),
            create_type: spec.subformat.name(),
            extents: &extents,
            hardware: &spec.hardware,
            tools: &spec.tools,
            adapter: &spec.adapter,
            geometry: spec.geometry(),
            long_cid: spec
                .subformat
                .is_of_vmware()
                .then(random_words)
                .transpose()?,
        }
        .text()?;
        if spec.subformat.is_one_file() && text.len() > MAX_INSIDE {
            return Err(Error::invalid(format!(
                "The descriptor would take {} bytes, and there is room for {MAX_INSIDE}: the names are too long",
                text.len()
            )));
        }
        Ok(text)
    }
}

impl NewImage for NewVmdk {
    fn files(&self) -> Vec<PlannedFile> {
        let spec = &self.spec;
        let least = |sectors: u64| match spec.subformat.is_flat() {
            true => sectors.saturating_mul(SECTOR),
            false => spec
                .layout(sectors)
                .map_or(0, |layout| layout.overhead.saturating_mul(SECTOR)),
        };
        if spec.subformat.is_one_file() {
            return vec![PlannedFile::own(least(spec.sectors))];
        }
        let mut files = vec![PlannedFile::own(SECTOR)];
        for (n, sectors) in spec.parts().into_iter().enumerate() {
            let mut name = spec.directory.clone();
            name.extend_from_slice(&spec.part_name(n));
            files.push(PlannedFile {
                role: FileRole::Extent,
                name: Some(name),
                len: least(sectors),
            });
        }
        files
    }

    fn prepare(&mut self, context: &PrepareContext<'_>) -> Result<()> {
        let parent_cid = match (
            &self.spec.parent,
            context.parent.and_then(|parent| parent.id),
        ) {
            (None, _) => None,
            (Some(_), Some(ParentId::ContentId(cid))) => Some(cid),
            (Some(name), _) => {
                return Err(Error::parent_not_known("content ID", name));
            }
        };
        let text = self.descriptor(random_cid(0)?, parent_cid)?;
        self.descriptor = Some(text);
        Ok(())
    }

    fn in_order(self: Box<Self>) -> Result<Box<dyn InOrder>> {
        let spec = &self.spec;
        let layout = spec.layout(spec.sectors).ok_or_else(not_prepared)?;
        let header = header_of(spec.subformat, spec.zeroed, &layout);
        let descriptor = self.descriptor.ok_or_else(not_prepared)?;
        let compression = spec.compression;
        let stream = StreamInOrder::new(header, descriptor, compression)?;
        Ok(Box::new(stream))
    }

    fn start(
        self: Box<Self>,
        files: &[Arc<dyn Storage>],
        control: &Arc<JobControl>,
    ) -> Result<Box<dyn Bulk>> {
        let descriptor = self.descriptor.ok_or_else(not_prepared)?;
        let own = own_file(files)?.clone();
        let spec = self.spec;
        let first = usize::from(!spec.subformat.is_one_file());
        let files = files.get(first..).unwrap_or_default();
        let mut parts = Vec::new();
        let mut start = 0;
        for (n, (sectors, storage)) in spec.parts().into_iter().zip(files).enumerate() {
            let slot = u16::try_from(n + first).map_err(|_| not_prepared())?;
            let layout = match spec.subformat.is_flat() {
                true => None,
                false => Some(spec.layout(sectors).ok_or_else(not_prepared)?),
            };
            parts.push(NewPart::new(
                start,
                sectors * SECTOR,
                slot,
                storage,
                layout,
            )?);
            start += sectors * SECTOR;
        }
        Ok(Box::new(VmdkBulk::new(
            &spec, own, parts, descriptor, control,
        )?))
    }
}
