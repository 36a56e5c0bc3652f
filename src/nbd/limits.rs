//! How long things may be ("Conventions", "Block size constraints").

/// The longest string: a name of an export or of a metadata context, a description, an error message.
pub const MAX_STRING: usize = 4096;
/// The most data of one option that is read; a list of metadata contexts is the longest.
pub const MAX_OPTION: u32 = 64 << 10;
/// The most bytes of payload that go with one request or chunk, whatever the peer offers.
pub const MAX_PAYLOAD: u32 = 64 << 20;
/// What any server takes in one read or write, where it names no maximum.
pub const PORTABLE_PAYLOAD: u32 = 32 << 20;
/// The largest of minimum block sizes.
pub const MAX_MINIMUM_BLOCK: u32 = 64 << 10;
/// A maximum block size of "none".
pub const UNLIMITED_BLOCK: u32 = u32::MAX;
/// The largest export: offsets are signed on most hosts.
pub const MAX_EXPORT: u64 = i64::MAX as u64;
/// The port that IANA has reserved.
pub const DEFAULT_PORT: u16 = 10809;
