//! Length limits ("Conventions", "Block size constraints").

/// Maximum length of a string: a name of an export or of a metadata context, a description, an error message.
pub const MAX_STRING: usize = 4096;
/// Maximum length of an option's data that is accepted; a list of metadata contexts is the longest.
pub const MAX_OPTION: u32 = 64 << 10;
/// Maximum payload of one request or chunk, whatever the peer offers.
pub const MAX_PAYLOAD: u32 = 64 << 20;
/// The length that any server accepts in one read or write, unless it specifies a maximum.
pub const PORTABLE_PAYLOAD: u32 = 32 << 20;
/// Maximum value of the minimum block size.
pub const MAX_MINIMUM_BLOCK: u32 = 64 << 10;
/// The maximum block size that means "unlimited".
pub const UNLIMITED_BLOCK: u32 = u32::MAX;
/// Maximum size of an export: offsets are signed on most hosts.
pub const MAX_EXPORT: u64 = i64::MAX as u64;
/// The port that IANA has assigned.
pub const DEFAULT_PORT: u16 = 10809;
