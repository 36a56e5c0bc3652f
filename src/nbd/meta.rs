//! Metadata contexts: what block status is about ("Metadata querying").

use bstr::{BStr, BString, ByteSlice};

use crate::error::Result;

use super::fields::{Taker, push_string};
use super::{checked_string, violation};

/// Holes and zeroes.
pub const ALLOCATION: &str = "base:allocation";
/// Which image of a chain holds an extent; an extension of QEMU's servers.
pub const ALLOCATION_DEPTH: &str = "qemu:allocation-depth";
/// Prefix of the name of a dirty bitmap; an extension of QEMU's servers.
pub const DIRTY_BITMAP: &str = "qemu:dirty-bitmap:";

/// The data of the options `LIST_META_CONTEXT` and `SET_META_CONTEXT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaQuery {
    /// The export.
    pub export: BString,
    /// The contexts requested.
    pub queries: Vec<BString>,
}

impl MetaQuery {
    /// Encodes it for sending.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        push_string(&mut bytes, &self.export);
        let count = u32::try_from(self.queries.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&count.to_be_bytes());
        for query in &self.queries {
            push_string(&mut bytes, query);
        }
        bytes
    }

    /// Decodes it as received.
    ///
    /// # Errors
    /// [`violation`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let bad = || violation("The length of the request for metadata contexts does not fit");
        let mut taker = Taker(bytes);
        let export = taker.string("name of the export")?.ok_or_else(bad)?;
        let count = taker.u32().ok_or_else(bad)?;
        let mut queries = Vec::new();
        for _ in 0..count {
            let query = taker.string("query for a metadata context")?;
            queries.push(query.ok_or_else(bad)?.to_owned());
        }
        if !taker.0.is_empty() {
            return Err(bad());
        }
        Ok(Self {
            export: export.to_owned(),
            queries,
        })
    }
}

/// The data of one reply `META_CONTEXT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaContext {
    /// The ID used in block status.
    pub id: u32,
    /// The name.
    pub name: BString,
}

impl MetaContext {
    /// Encodes it for sending.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.id.to_be_bytes(), self.name.as_slice()].concat()
    }

    /// Decodes it as received.
    ///
    /// # Errors
    /// [`violation`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut taker = Taker(bytes);
        let id = taker.u32();
        let id = id.ok_or_else(|| violation("The metadata context has no number"))?;
        let name = checked_string(taker.0, "name of the metadata context")?;
        Ok(Self {
            id,
            name: name.to_owned(),
        })
    }
}

/// A parsed query for metadata contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query<'a> {
    /// [`ALLOCATION`].
    Allocation,
    /// [`ALLOCATION_DEPTH`].
    AllocationDepth,
    /// One dirty bitmap.
    DirtyBitmap(&'a BStr),
    /// Every context of the namespace `base`, in a list.
    AnyBase,
    /// Every context of the namespace `qemu`, in a list.
    AnyQemu,
    /// Every dirty bitmap, in a list.
    AnyDirtyBitmap,
    /// Anything else, which servers ignore.
    Other,
}

impl<'a> Query<'a> {
    /// Parses a query.
    pub fn parse(text: &'a BStr) -> Self {
        match text.as_bytes() {
            b"base:" => Self::AnyBase,
            b"qemu:" => Self::AnyQemu,
            text if text == ALLOCATION.as_bytes() => Self::Allocation,
            text if text == ALLOCATION_DEPTH.as_bytes() => Self::AllocationDepth,
            text => match text.strip_prefix(DIRTY_BITMAP.as_bytes()) {
                Some(b"") => Self::AnyDirtyBitmap,
                Some(name) => Self::DirtyBitmap(name.as_bstr()),
                None => Self::Other,
            },
        }
    }
}
