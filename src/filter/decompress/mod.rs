//! `decompress`: what a compressed file holds, which may be an image of any format.
//!
//! Where the file tells which part of it holds what, only the parts that are asked for are unpacked. Otherwise the
//! file is unpacked from its beginning, as far as it is asked for, into a temporary file without a name.

mod indexed;
mod spool;
mod spooled;

use std::sync::Arc;

use bstr::BStr;

use crate::codec::container::{Container, Index, Unpacker};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::filter::{FilterContext, FilterDriver};
use crate::format::ChildSpec;
use crate::job::JobControl;
use crate::options::{OptionKind, OptionSpec};
use crate::policy::OpenPolicy;
use crate::storage::Storage;

use indexed::Indexed;
use spooled::Spooled;

/// The line of the registry.
pub static DRIVER: FilterDriver = FilterDriver {
    name: "decompress",
    children: &[ChildSpec::FILE],
    shows: None,
    contents: None,
    holds_file: true,
    passes_compressed: false,
    keeps_writers_out: false,
    open_options: &[OptionSpec {
        name: TYPE,
        kind: OptionKind::Str,
        help: "what the file is compressed with; 'auto' looks at its beginning",
        default: Some(AUTO),
        allowed: &[AUTO, "bzip2", "gzip", "lz4", "xz", "zstd"],
    }],
    weak_options: &[],
    events: &[],
    open,
    file_names: None,
    file_name: None,
};

/// The option that names the compression.
pub const TYPE: &str = "type";

/// Zeroes are holes in multiples of this.
const GRAIN: usize = 64 << 10;

/// The compression is the one that the beginning of the file shows.
const AUTO: &str = "auto";

/// The kind of a compressed file by the value of the option; None for `auto`.
///
/// # Errors
/// [`ErrorKind::Invalid`] for a name that is not of any kind.
pub fn kind_named(name: &str) -> Result<Option<Container>> {
    match Container::by_name(name) {
        None if name != AUTO => Err(Error::invalid(format!(
            "Unknown compression '{name}'; it is one of {}",
            DRIVER.open_options[0].allowed.join(", ")
        ))),
        kind => Ok(kind),
    }
}

/// Reads a compressed file from its first byte to its last; `seen` is shown its bytes in their order.
///
/// # Errors
/// As [`Unpacker::new`], with the name of the file.
pub fn unpacker(
    file: &Arc<dyn Storage>,
    kind: Option<Container>,
    policy: &OpenPolicy,
    control: &Arc<JobControl>,
    seen: impl Fn(&[u8]) + Send + 'static,
) -> Result<Unpacker> {
    let (file, control) = (file.clone(), control.clone());
    let name = file.name().to_owned();
    let end = file.len()?;
    let mut at = 0;
    let source = move |buf: &mut [u8]| {
        control.checkpoint()?;
        let len = usize::try_from(end - at).map_or(buf.len(), |left| left.min(buf.len()));
        let part = buf.get_mut(..len).unwrap_or_default();
        file.read_at(part, at)?;
        seen(part);
        at += len as u64;
        Ok(len)
    };
    Unpacker::new(Box::new(source), kind, policy).context(|| format!("'{name}'"))
}

fn open(mut context: FilterContext<'_>) -> Result<Arc<dyn Storage>> {
    let file = context.take(ChildSpec::FILE.name)?.storage;
    if context.writable {
        return Err(refused(file.name()));
    }
    let kind = kind_named(context.options.str(TYPE).unwrap_or(AUTO))?;
    let (policy, control) = (context.policy, context.control);
    let unpacker = unpacker(&file, kind, policy, control, |_| ())?;
    let read_at = |buf: &mut [u8], at| {
        control.checkpoint()?;
        file.read_at(buf, at)
    };
    let index = Index::of(unpacker.kind(), &read_at, file.len()?, policy);
    Ok(match index.context(|| format!("'{}'", file.name()))? {
        Some(index) => Arc::new(Indexed::new(file, index, policy, control)),
        None => Arc::new(Spooled::new(file, unpacker, policy, control)?),
    })
}

/// What a compressed stream of that name holds, in any order: `unpacker` gives what follows the bytes of `head`.
///
/// # Errors
/// Of making the temporary file.
pub fn spooled(
    name: &BStr,
    unpacker: Unpacker,
    head: &[u8],
    policy: &OpenPolicy,
    control: &Arc<JobControl>,
) -> Result<Arc<dyn Storage>> {
    let spooled = Spooled::of_stream(name, unpacker, head, policy, control)?;
    Ok(Arc::new(spooled))
}

fn refused(name: &BStr) -> Error {
    let text = format!("'{name}': what is compressed can only be read");
    Error::new(ErrorKind::ReadOnly, text)
}

#[cfg(test)]
mod tests;
