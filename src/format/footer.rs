//! Footers at the end of a file, or slightly before it if the length of the file is not a multiple of a sector.

use crate::error::Result;
use crate::size::SECTOR;
use crate::storage::Storage;

/// Finds a footer of one sector that begins with `magic`: in the last sector, not counting padding of the file to whole
/// sectors, or a partial sector at the end. The one nearest to the end wins.
///
/// # Errors
/// If reading fails.
pub(crate) fn find(storage: &dyn Storage, file_len: u64, magic: &[u8]) -> Result<Option<u64>> {
    let sector = SECTOR as usize;
    let end = file_len.next_multiple_of(SECTOR);
    let start = end.saturating_sub(2 * SECTOR);
    let mut bytes = [0; 2 * SECTOR as usize];
    storage.read_at(&mut bytes, start)?;
    let most = (end - start) as usize;
    let last = (file_len - start) as usize;
    let Some(exact) = last.checked_sub(sector) else {
        return Ok(None);
    };
    let places = std::iter::once(exact).chain((0..=most - sector).rev());
    let found = places
        .filter(|at| *at > 0 || most == sector)
        .find(|at| *at <= exact && bytes.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    Ok(found.map(|at| start + at as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    #[test]
    fn it_is_found_with_less_than_a_sector_behind_it() {
        let place = |before: usize, behind: usize| {
            let mut bytes = vec![0; before];
            bytes.extend(b"koly");
            bytes.resize(before + 512 + behind, 0);
            let len = bytes.len() as u64;
            find(&MemoryStorage::with_bytes("x", bytes), len, b"koly").unwrap()
        };
        for (before, behind) in [(0, 0), (1, 0), (512, 0), (1000, 0), (1023, 1), (4097, 510)] {
            assert_eq!(
                place(before, behind),
                Some(before as u64),
                "{before} {behind}"
            );
        }
        for (before, behind) in [(1024, 512), (4096, 511), (1000, 512), (4096, 1024)] {
            assert_eq!(place(before, behind), None, "{before} {behind}");
        }
        for len in [0, 3, 511] {
            let mut bytes = b"koly".to_vec();
            bytes.resize(len, 0);
            let storage = MemoryStorage::with_bytes("x", bytes);
            assert_eq!(find(&storage, len as u64, b"koly").unwrap(), None);
        }
    }
}
