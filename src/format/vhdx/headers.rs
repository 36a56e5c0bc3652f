//! The two copies of the header of an open image: one is always valid, even while the other is being written.

use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Durability, Storage};

use super::disk::{HEADERS, Header};

/// The current header.
#[derive(Debug)]
pub(super) struct Headers {
    pub(super) current: Header,
    /// Which of the copies it is.
    which: usize,
}

impl Headers {
    /// Takes the current header and the index of its copy.
    pub(super) fn new((which, current): (usize, Header)) -> Self {
        Self { current, which }
    }

    /// Makes another header current: writes the copy that is not current first, and the other one once that is durable.
    /// What the header refers to must be durable already.
    pub(super) fn change(
        &mut self,
        storage: &dyn Storage,
        durability: Durability,
        change: impl Fn(&mut Header),
    ) -> Result<()> {
        let mut next = self.current.clone();
        change(&mut next);
        for round in 0..2 {
            let sequence = self.current.sequence.checked_add(1);
            next.sequence = sequence.ok_or_else(|| {
                Error::new(ErrorKind::Limit, "The VHDX header was written too often")
            })?;
            let which = 1 - self.which.min(1);
            storage.write_at(&next.to_bytes(), HEADERS[which])?;
            if round == 0 {
                storage.sync(durability)?;
            }
            self.which = which;
            self.current = next.clone();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::storage::MemoryStorage;

    #[test]
    fn one_copy_counts_at_any_time() {
        let storage = MemoryStorage::with_bytes("m", vec![0; 256 << 10]);
        let header = Header {
            sequence: 5,
            file_write: Uuid::nil(),
            data_write: Uuid::nil(),
            log: Uuid::nil(),
            log_version: 0,
            version: 1,
            log_len: 1 << 20,
            log_offset: 1 << 20,
        };
        storage.write_at(&header.to_bytes(), HEADERS[1]).unwrap();
        let mut headers = Headers::new((1, header));
        headers
            .change(&storage, Durability::Synced, |header| {
                header.log = Uuid::from_u128(1)
            })
            .unwrap();
        let copy = |at| {
            let mut bytes = [0; Header::LEN];
            storage.read_at(&mut bytes, at).unwrap();
            Header::from_bytes(&bytes)
        };
        let copies = HEADERS.map(copy);
        let sequences = copies.clone().map(|copy| copy.unwrap().sequence);
        assert_eq!(sequences, [6, 7]);
        assert_eq!(
            Header::current(copies).unwrap(),
            (1, headers.current.clone())
        );
        headers.current.sequence = u64::MAX;
        headers
            .change(&storage, Durability::Synced, |_| {})
            .unwrap_err();
    }
}
