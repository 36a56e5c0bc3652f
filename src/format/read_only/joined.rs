//! Several files concatenated into one storage.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::memory;
use crate::storage::Storage;
use crate::storage::forward::{forward, read_only};

/// The files. The whole has the name of the first one.
#[derive(Debug)]
pub(crate) struct Joined {
    first: Arc<dyn Storage>,
    /// The files, each with its end offset in the whole.
    parts: Vec<(Arc<dyn Storage>, u64)>,
}

impl Joined {
    /// Consists of one file so far.
    ///
    /// # Errors
    /// If its length cannot be determined.
    pub(crate) fn new(first: Arc<dyn Storage>) -> Result<Self> {
        let mut joined = Self {
            first: first.clone(),
            parts: Vec::new(),
        };
        joined.push(first)?;
        Ok(joined)
    }

    /// Appends a file; returns its start offset.
    ///
    /// # Errors
    /// If its length cannot be determined.
    pub(crate) fn push(&mut self, part: Arc<dyn Storage>) -> Result<u64> {
        let start = self.end();
        let end = start.checked_add(part.len()?);
        let end = end.ok_or_else(|| Error::corrupt("The files are too long together"))?;
        memory::push(&mut self.parts, (part, end))?;
        Ok(start)
    }

    /// The end of the last file.
    pub(crate) fn end(&self) -> u64 {
        self.parts.last().map_or(0, |(_, end)| *end)
    }

    /// The files after the first one.
    pub(crate) fn others(&self) -> impl Iterator<Item = &Arc<dyn Storage>> {
        self.parts.iter().skip(1).map(|(part, _)| part)
    }

    fn refused(&self) -> Error {
        let text = format!("'{}' is read-only", self.first.name());
        Error::new(ErrorKind::ReadOnly, text)
    }
}

impl Storage for Joined {
    forward!(first: name, driver, identity, step_watcher, lock, limits);
    read_only!(refused, made, solid);

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut index = self.parts.partition_point(|(_, end)| *end <= offset);
        let mut rest = buf;
        let mut at = offset;
        while let Some((part, end)) = self.parts.get(index).filter(|_| !rest.is_empty()) {
            let start = match index
                .checked_sub(1)
                .and_then(|before| self.parts.get(before))
            {
                Some((_, start)) => *start,
                None => 0,
            };
            let len = (end - at).min(rest.len() as u64);
            let (head, tail) = rest.split_at_mut(len as usize);
            part.read_at(head, at - start)?;
            (rest, at, index) = (tail, at + len, index + 1);
        }
        rest.fill(0);
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.end())
    }

    fn allocated_size(&self) -> Option<u64> {
        let sizes = self.parts.iter().map(|(part, _)| part.allocated_size());
        sizes.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    #[test]
    fn bytes_follow_each_other_across_files() {
        let part = |bytes: &[u8]| -> Arc<dyn Storage> {
            Arc::new(MemoryStorage::with_bytes("a", bytes.to_vec()))
        };
        let mut joined = Joined::new(part(b"one")).unwrap();
        assert_eq!(joined.push(part(b"")).unwrap(), 3);
        assert_eq!(joined.push(part(b"four")).unwrap(), 3);
        assert_eq!(joined.push(part(b"!")).unwrap(), 7);
        let whole = b"onefour!\0\0";
        for from in 0..whole.len() {
            for to in from..whole.len() {
                let mut buf = vec![9; to - from];
                joined.read_at(&mut buf, from as u64).unwrap();
                assert_eq!(buf, whole[from..to]);
            }
        }
        assert_eq!((joined.len().unwrap(), joined.others().count()), (8, 3));
        assert!(joined.write_at(b"x", 0).is_err());
    }
}
