//! What a server says of the exports that it has.

use bstr::BString;

/// One export of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportInfo {
    /// Its name.
    pub name: BString,
    /// What the server says of it for people; may be empty.
    pub description: BString,
    /// Why the server tells no more of it, where it refuses to.
    pub refusal: Option<String>,
    /// What it is; None where the server cannot tell, or refuses to.
    pub details: Option<ExportDetails>,
    /// How many bits the lengths of requests have.
    pub length_bits: u32,
    /// The metadata contexts that it has.
    pub contexts: Vec<BString>,
}

/// What an export is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportDetails {
    /// Its length in bytes.
    pub size: u64,
    /// It cannot be written.
    pub read_only: bool,
    /// The flags of the protocol.
    pub flags: u64,
    /// The names of those that are known.
    pub abilities: Vec<&'static str>,
    /// The lengths of requests, where the server tells them.
    pub blocks: Option<ExportBlocks>,
}

/// The lengths that requests may have, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportBlocks {
    /// They are multiples of this.
    pub minimum: u32,
    /// Multiples of this are fast.
    pub preferred: u32,
    /// The longest; `u32::MAX` where there is none.
    pub maximum: u32,
}
