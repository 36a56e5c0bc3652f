//! Reads at any offset and of any length from data that is decrypted in whole blocks.

use std::cell::RefCell;

use crate::error::Result;
use crate::memory::IoBuf;

thread_local! {
    /// The thread's buffer for blocks that are needed in part.
    static ROOM: RefCell<IoBuf> = const { RefCell::new(IoBuf::new()) };
}

/// Fills `buf` from `offset` on; `whole` reads and decrypts whole blocks of `block` bytes.
///
/// # Errors
/// Those of `whole`, or if there is not enough memory.
pub(crate) fn read_in_blocks(
    buf: &mut [u8],
    offset: u64,
    block: u64,
    mut whole: impl FnMut(&mut [u8], u64) -> Result<()>,
) -> Result<()> {
    let mut rest = buf;
    let mut at = offset;
    while !rest.is_empty() {
        let start = at - at % block;
        let lead = at - start;
        let len = rest.len() as u64 / block * block;
        if lead == 0 && len > 0 {
            let (part, tail) = rest.split_at_mut(len as usize);
            whole(part, at)?;
            (rest, at) = (tail, at + len);
            continue;
        }
        let take = (block - lead).min(rest.len() as u64);
        let (part, tail) = rest.split_at_mut(take as usize);
        // Taken out while in use: the underlying storage may be of the same kind.
        let mut room = ROOM.take();
        let read = room
            .room(block as usize)
            .and_then(|block| whole(block, start));
        if read.is_ok() {
            let lead = lead as usize;
            part.copy_from_slice(&room[lead..lead + part.len()]);
        }
        ROOM.set(room);
        read?;
        (rest, at) = (tail, at + take);
    }
    Ok(())
}
