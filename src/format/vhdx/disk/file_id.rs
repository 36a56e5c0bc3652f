//! The file type identifier (section 2.2.1): it alone identifies the file as a VHDX.

/// The first bytes of every VHDX.
pub(in super::super) const SIGNATURE: &[u8; 8] = b"vhdxfile";

/// Its length, including the name of the creator.
const FILE_ID_LEN: usize = 8 + 512;

/// The identifier of a file that is created here.
pub(in super::super) fn file_id() -> [u8; FILE_ID_LEN] {
    let mut bytes = [0; FILE_ID_LEN];
    let creator = concat!("Platter ", env!("CARGO_PKG_VERSION"));
    let units = creator.encode_utf16().flat_map(u16::to_le_bytes);
    for (to, from) in bytes.iter_mut().zip(SIGNATURE.iter().copied().chain(units)) {
        *to = from;
    }
    bytes
}
