//! What VMware's products require of a VMDK.

use std::sync::Arc;

use bstr::{BStr, ByteSlice};

use crate::error::{ErrorKind, Result};
use crate::extent::StorageSlot;
use crate::format::InspectContext;
use crate::format::objection::Objection;
use crate::format::profile::{Profile, Sizes};
use crate::printable::printable_bytes;

use super::disk::{Descriptor, ExtentType, Flags, SparseHeader};
use super::driver::DRIVER;
use super::source::Source;
use super::sparse::{Grain, Sparse, SparseInput, TablePlace};
use crate::format::table_cache::Cache;

/// Maximum size of a disk in ESXi.
const MOST: u64 = 62 << 40;

pub(super) const SIZES: Sizes = Sizes {
    multiple: 512,
    least: 1 << 20,
    most: MOST,
};

/// A disk to be imported.
pub static ESXI: Profile = Profile {
    name: "esxi",
    product: "VMware ESXi, import of a disk",
    driver: &DRIVER,
    options: &[
        ("subformat", "streamOptimized"),
        ("adapter_type", "lsilogic"),
    ],
    package: None,
    sizes: SIZES,
    notes: &["For ovftool, the upload of a virtual machine, and vSphere's image service."],
    check: check_stream,
};

/// A disk to be copied to a datastore.
pub static ESXI_DATASTORE: Profile = Profile {
    name: "esxi-datastore",
    product: "VMware ESXi, a datastore",
    driver: &DRIVER,
    options: &[("subformat", "vmfs"), ("adapter_type", "lsilogic")],
    package: None,
    sizes: SIZES,
    notes: &[
        "Both files are copied to the datastore, the descriptor and the one with -flat in its name.",
    ],
    check: check_datastore,
};

pub(super) fn check_stream(ctx: &InspectContext<'_>, found: &mut Vec<Objection>) -> Result<()> {
    let again = "Convert it with the profile 'esxi'";
    match Source::read(&*ctx.storage, ctx.policy)? {
        Source::Text(descriptor) => {
            found.push(not_imported(descriptor.create_type.as_bstr()));
            check_adapter(&descriptor, found);
        }
        Source::Hosted {
            header, descriptor, ..
        } => {
            if !descriptor
                .create_type
                .eq_ignore_ascii_case(b"streamOptimized")
            {
                found.push(not_imported(descriptor.create_type.as_bstr()));
            } else if header.version < 3 {
                found.push(Objection::new(
                    format!(
                        "The extent has version {}: \"sparse VMDK version too old\"",
                        header.version
                    ),
                    again,
                ));
            }
            check_adapter(&descriptor, found);
            check_text(&descriptor, found);
            if header.flags.contains(Flags::COMPRESSED) {
                match first_inversion(ctx, &header) {
                    Ok(None) => {}
                    Ok(Some((before, after))) => found.push(Objection::new(
                        format!(
                            "Grains are out of order, which readers of streams refuse: that at offset {after} \
                             comes before that at offset {before}"
                        ),
                        again,
                    )),
                    Err(error) if error.kind() == ErrorKind::Limit => found.push(Objection::new(
                        "Whether grains are in order cannot be told: the tables are longer than the open policy \
                         allows to read",
                        "Allow longer tables, or convert it once more",
                    )),
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(())
}

fn check_datastore(ctx: &InspectContext<'_>, found: &mut Vec<Objection>) -> Result<()> {
    let again = "Convert it with the profile 'esxi-datastore'";
    match Source::read(&*ctx.storage, ctx.policy)? {
        Source::Text(descriptor) => {
            let flat = |kind| {
                matches!(
                    kind,
                    ExtentType::Vmfs | ExtentType::VmfsSparse | ExtentType::SeSparse
                )
            };
            if let Some(other) = descriptor.extents.iter().find(|extent| !flat(extent.kind)) {
                found.push(Objection::new(
                    format!(
                        "An extent of type {} is none of a datastore",
                        other.kind.word()
                    ),
                    again,
                ));
            }
            check_adapter(&descriptor, found);
            check_text(&descriptor, found);
        }
        Source::Hosted { descriptor, .. } => found.push(Objection::new(
            format!(
                "\"Unsupported or invalid disk type\": a machine does not run from {}",
                printable_bytes(&descriptor.create_type)
            ),
            again,
        )),
    }
    Ok(())
}

fn not_imported(kind: &BStr) -> Objection {
    Objection::new(
        format!(
            "The type is {}, and streamOptimized is what is imported",
            printable_bytes(kind)
        ),
        "Convert it with the profile 'esxi'",
    )
}

fn check_adapter(descriptor: &Descriptor, found: &mut Vec<Objection>) {
    let adapter = descriptor.value("ddb.adapterType");
    let Some(adapter) = adapter else {
        found.push(Objection::new(
            "The descriptor names no adapter",
            "Convert it with adapter_type=lsilogic",
        ));
        return;
    };
    let known = ["lsilogic", "buslogic"];
    if !known
        .iter()
        .any(|name| adapter.eq_ignore_ascii_case(name.as_bytes()))
    {
        found.push(Objection::new(
            format!(
                "The adapter is {}, on which ESXi boots no disk or a slow one",
                printable_bytes(&adapter)
            ),
            "Convert it with adapter_type=lsilogic, which stands for every SCSI adapter",
        ));
    }
}

fn check_text(descriptor: &Descriptor, found: &mut Vec<Objection>) {
    let first = descriptor.text().lines().next().unwrap_or_default();
    let title = b"# Disk DescriptorFile";
    if first != title && first != b"#Disk DescriptorFile" {
        found.push(Objection::new(
            "The descriptor does not begin with \"# Disk DescriptorFile\"",
            "Convert the image once more",
        ));
    }
    let end = format!("{:08x}", descriptor.cid);
    let long = descriptor.value("ddb.longContentID");
    if long.is_some_and(|long| !long.to_ascii_lowercase().ends_with(end.as_bytes())) {
        found.push(Objection::new(
            "The long content ID does not end in the content ID",
            "Convert the image once more",
        ));
    }
}

/// The guest offsets of two grains of which the later one comes first in the file.
fn first_inversion(ctx: &InspectContext<'_>, header: &SparseHeader) -> Result<Option<(u64, u64)>> {
    let place = SparseInput {
        id: 0,
        slot: StorageSlot::MAIN,
        storage: &ctx.storage,
        cache: &Arc::new(Cache::new(ctx.policy.max_cache_bytes)),
        file_len: ctx.file_len,
    };
    let sparse = Sparse::hosted(&place, header)?;
    let grain = usize::try_from(sparse.grain).unwrap_or(usize::MAX);
    let table = sparse.per_table * sparse.word_len();
    let span = sparse.per_table.saturating_mul(sparse.grain);
    let mut last: Option<(u64, u64)> = None;
    for index in 0..u32::try_from(header.directory_entries()).unwrap_or(u32::MAX) {
        let TablePlace::At(offset) = sparse.table_place(index)? else {
            continue;
        };
        // In a large disk, most tables are holes in the file.
        let run = ctx.storage.extent(offset, table)?;
        if run.zero && run.len >= table {
            continue;
        }
        let start = span.saturating_mul(u64::from(index));
        for guest in (start..start.saturating_add(span).min(sparse.len())).step_by(grain) {
            if let Grain::At(place) = sparse.lookup(guest)? {
                if let Some((before, at)) = last
                    && place < at
                {
                    return Ok(Some((before, guest)));
                }
                last = Some((guest, place));
            }
        }
    }
    Ok(None)
}
