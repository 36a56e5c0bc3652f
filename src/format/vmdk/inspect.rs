//! Inspects an untrusted image: its header, its descriptor and its grain directory, using its own file alone. What the
//! descriptor names is listed even if it cannot be understood.

use std::sync::Arc;

use bstr::{BStr, ByteSlice};

use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageSlot;
use crate::format::inspect::{InspectContext, Inspection, Reference, Requirement, Verdict};
use crate::policy::ImplicitRole;
use crate::size::SECTOR;

use super::NAME;
use super::disk::create_type::check_type;
use super::disk::descriptor::{NamedRole, named_files};
use super::disk::sparse_header::{GD_AT_END, HEADER_LEN};
use super::disk::{Descriptor, SparseHeader};
use super::source::{Source, descriptor_text};
use super::sparse::{Sparse, SparseInput, TablePlace};
use crate::format::table_cache::Cache;

/// Maximum length of a name that any program accepts.
const MAX_NAME: usize = 4096;

/// See [`crate::format::FormatDriver::inspect`].
pub(super) fn inspect(ctx: &InspectContext<'_>) -> Result<Inspection> {
    let mut found = Inspection::default();
    for requirement in [Requirement::KeyDerivation, Requirement::SnapshotCount] {
        found.find(requirement, Verdict::NotApplicable, "a VMDK has none");
    }
    list_names(&mut found, ctx)?;
    let source = Source::read(&*ctx.storage, ctx.policy).and_then(|source| {
        let (descriptor, one_file) = match &source {
            Source::Text(descriptor) => (descriptor, false),
            Source::Hosted { descriptor, .. } => (descriptor, true),
        };
        check_type(descriptor.create_type.as_bstr(), one_file)?;
        Ok(source)
    });
    match source {
        Ok(Source::Text(descriptor)) => judge_text(&mut found, &descriptor),
        Ok(Source::Hosted { header, .. }) => judge_hosted(&mut found, ctx, &header)?,
        Err(error) => {
            let unread = "the header or the descriptor cannot be understood";
            found.virtual_size = claimed_size(ctx);
            found.doubt(unread);
            let (bad, other) = match error.kind() {
                ErrorKind::Unsupported => {
                    (Requirement::KnownFeatures, Requirement::HeaderConsistent)
                }
                ErrorKind::Limit => (Requirement::TableSizes, Requirement::HeaderConsistent),
                ErrorKind::Os => return Err(error),
                _ => (Requirement::HeaderConsistent, Requirement::KnownFeatures),
            };
            found.find(bad, Verdict::Fail, error.to_string());
            found.find(other, Verdict::Unknown, unread);
            return Ok(found);
        }
    }
    found.understood = true;
    Ok(found)
}

/// Lists every file that the descriptor names, wherever that is and however damaged.
fn list_names(found: &mut Inspection, ctx: &InspectContext<'_>) -> Result<()> {
    let Some((text, offset)) = descriptor_text(&*ctx.storage, ctx.policy)? else {
        return Ok(());
    };
    let inside = offset > 0;
    let names = named_files(&text);
    let extents = names.iter().filter(|file| file.role == NamedRole::Extent);
    // Inside an extent, the only extent line refers to the file itself.
    let itself = inside && extents.count() == 1;
    for file in names {
        let role = match file.role {
            NamedRole::Extent if itself && file.is_sparse => continue,
            NamedRole::Extent | NamedRole::ChangeTracking => ImplicitRole::Extent,
            NamedRole::Parent => ImplicitRole::Backing,
        };
        let name = file.name.get(..MAX_NAME).unwrap_or(&file.name);
        crate::memory::push(
            &mut found.references,
            Reference {
                role,
                name: name.to_vec(),
                format: (role == ImplicitRole::Backing).then(|| NAME.into()),
                offset: offset + file.at as u64,
            },
        )?;
    }
    Ok(())
}

/// The size that an unreliable header claims.
fn claimed_size(ctx: &InspectContext<'_>) -> Option<u64> {
    let mut head = [0; HEADER_LEN];
    ctx.storage.read_at(&mut head, 0).ok()?;
    let header = SparseHeader::from_bytes(&head).ok()?;
    header.capacity.checked_mul(SECTOR)
}

fn judge_text(found: &mut Inspection, descriptor: &Descriptor) {
    let mut sizes = descriptor.extents.iter().map(|extent| extent.sectors);
    let sectors = sizes.try_fold(0u64, u64::checked_add);
    found.virtual_size = sectors.and_then(|sectors| sectors.checked_mul(SECTOR));
    let kind = BStr::new(&descriptor.create_type);
    found.find(
        Requirement::KnownFeatures,
        Verdict::Pass,
        format!("a descriptor of the type {kind}"),
    );
    let elsewhere = "what the extents hold is in other files, which are not opened";
    found.find(
        Requirement::HeaderConsistent,
        Verdict::Pass,
        "every line is understood",
    );
    found.find(
        Requirement::FileSize,
        Verdict::Pass,
        "the file is a descriptor alone",
    );
    for requirement in [
        Requirement::TableSizes,
        Requirement::DecompressedSize,
        Requirement::Clean,
    ] {
        found.find(requirement, Verdict::NotApplicable, elsewhere);
    }
}

fn judge_hosted(
    found: &mut Inspection,
    ctx: &InspectContext<'_>,
    header: &SparseHeader,
) -> Result<()> {
    let guest = header.capacity.saturating_mul(SECTOR);
    found.virtual_size = Some(guest);
    found.cluster_size = Some(header.grain_bytes());
    let version = format!("version {} of a sparse extent", header.version);
    found.find(Requirement::KnownFeatures, Verdict::Pass, version);
    let compressed = header.compression != 0;
    let decoded = match compressed {
        true => Some(ctx.policy.check_decompressed(header.grain_bytes())),
        false => None,
    };
    match decoded {
        None => {
            let reason = "nothing is compressed";
            found.find(
                Requirement::DecompressedSize,
                Verdict::NotApplicable,
                reason,
            );
        }
        Some(checked) => found.judge(
            Requirement::DecompressedSize,
            checked
                .map(|()| format!("{} bytes a grain", header.grain_bytes()))
                .map_err(|error| error.to_string()),
        ),
    }
    let closed = match header.unclean {
        false => Ok("the extent was closed properly".to_owned()),
        true => Err("the extent was not closed properly".to_owned()),
    };
    found.judge(Requirement::Clean, closed);
    let table_bytes = header.directory_entries().saturating_mul(8);
    let tables = ctx.policy.check_table("Grain directory", table_bytes);
    let small = tables.is_ok();
    found.judge(
        Requirement::TableSizes,
        tables
            .map(|()| format!("{table_bytes} bytes of grain directories"))
            .map_err(|error| error.to_string()),
    );
    // Each grain can take space once, compressed ones somewhat more; in addition there are the tables.
    let most = guest
        .saturating_add(guest / 8)
        .saturating_add(header.overhead.saturating_mul(SECTOR))
        .saturating_add(64 << 20);
    let size = match ctx.file_len <= most {
        true => Ok(format!("{} bytes for {guest} guest bytes", ctx.file_len)),
        false => Err(format!(
            "{} bytes are more than {guest} guest bytes can take",
            ctx.file_len
        )),
    };
    found.judge(Requirement::FileSize, size);
    if !small {
        let reason = "the grain directory is too large to be looked at";
        found.find(Requirement::HeaderConsistent, Verdict::Unknown, reason);
        return Ok(());
    }
    match check_tables(ctx, header) {
        Ok(()) => found.find(
            Requirement::HeaderConsistent,
            Verdict::Pass,
            "the grain tables lie inside the file",
        ),
        Err(error) if error.kind() == ErrorKind::Os => return Err(error),
        Err(error) => found.find(
            Requirement::HeaderConsistent,
            Verdict::Fail,
            error.to_string(),
        ),
    }
    Ok(())
}

fn check_tables(ctx: &InspectContext<'_>, header: &SparseHeader) -> Result<()> {
    if header.directory == GD_AT_END || header.overhead.saturating_mul(SECTOR) > ctx.file_len {
        return Err(Error::corrupt("the grain directory is not in the file"));
    }
    let sparse = Sparse::hosted(
        &SparseInput {
            id: 0,
            slot: StorageSlot::MAIN,
            storage: &ctx.storage,
            cache: &Arc::new(Cache::new(0)),
            file_len: ctx.file_len,
        },
        header,
    )?;
    let bytes = sparse.per_table * sparse.word_len();
    for index in 0..u32::try_from(header.directory_entries()).unwrap_or(u32::MAX) {
        if let TablePlace::At(offset) = sparse.table_place(index)?
            && offset.saturating_add(bytes) > ctx.file_len
        {
            return Err(Error::corrupt(format!(
                "grain table {index} at {offset} passes the end of the file"
            )));
        }
    }
    Ok(())
}
