//! The band files, presented as one storage.

use std::sync::Arc;

use bstr::{BStr, ByteSlice};
use once_cell::sync::OnceCell;
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::format::FilesBelow;
use crate::memory;
use crate::storage::forward::{forward, read_only};
use crate::storage::{Limits, Storage};

use super::info::Info;

/// Maximum number of bands open at a time.
const MAX_OPEN: usize = 32;

/// A band that was looked up, and its length; None if there is no such file.
#[derive(Clone, Debug)]
struct Band {
    number: u64,
    file: Option<(Arc<dyn Storage>, u64)>,
}

/// The bands of a bundle, opened on demand.
#[derive(Debug)]
pub(super) struct Bands {
    /// The bundle's `Info.plist`, whose name the storage takes.
    info: Arc<dyn Storage>,
    files: Arc<dyn FilesBelow>,
    band: u64,
    len: u64,
    /// The numbers of the bands that exist, in order; None if they cannot be listed, or are too many to keep in memory.
    there: OnceCell<Option<Vec<u64>>>,
    most: usize,
    /// The most recently used bands, the last one at the end.
    known: Mutex<Vec<Band>>,
}

impl Bands {
    pub(super) fn new(
        info: Arc<dyn Storage>,
        files: Arc<dyn FilesBelow>,
        layout: Info,
        max_table: u64,
    ) -> Self {
        let most = max_table / size_of::<u64>() as u64;
        Self {
            info,
            files,
            band: layout.band,
            len: layout.len,
            there: OnceCell::new(),
            most: usize::try_from(most).unwrap_or(usize::MAX),
            known: Mutex::default(),
        }
    }

    /// How many bytes of a band are present; the rest reads as zeroes.
    pub(super) fn held(&self, number: u64) -> Result<u64> {
        let file = self.file(number)?;
        Ok(file.map_or(0, |(_, len)| len.min(self.band)))
    }

    /// The first band from this one on for which there is a file, or may be one.
    pub(super) fn next(&self, number: u64) -> Result<Option<u64>> {
        let there = self.there.get_or_try_init(|| self.list())?;
        Ok(match there {
            Some(there) => {
                let at = there.partition_point(|other| *other < number);
                there.get(at).copied()
            }
            None => Some(number),
        })
    }

    fn list(&self) -> Result<Option<Vec<u64>>> {
        let mut numbers = Vec::new();
        let all = self.files.each_name(&mut |name| {
            let number = name.to_str().ok();
            let number = number.and_then(|name| u64::from_str_radix(name, 16).ok());
            if let Some(number) = number.filter(|number| *name == *file_name(*number)) {
                memory::push(&mut numbers, number)?;
            }
            Ok(numbers.len() < self.most)
        })?;
        numbers.sort_unstable();
        Ok(all.then_some(numbers))
    }

    fn file(&self, number: u64) -> Result<Option<(Arc<dyn Storage>, u64)>> {
        {
            let mut known = self.known.lock();
            if let Some(at) = known.iter().position(|band| band.number == number) {
                let band = known.remove(at);
                known.push(band.clone());
                return Ok(band.file);
            }
        }
        let file = self.files.open(BStr::new(&file_name(number)))?;
        let file = match file {
            Some(file) => {
                let len = file.len()?;
                Some((file, len))
            }
            None => None,
        };
        let mut known = self.known.lock();
        if known.len() >= MAX_OPEN {
            known.remove(0);
        }
        let band = Band {
            number,
            file: file.clone(),
        };
        memory::push(&mut known, band)?;
        Ok(file)
    }

    pub(super) fn refused(&self) -> Error {
        let text = format!("'{}' is read-only", self.info.name());
        Error::new(ErrorKind::ReadOnly, text)
    }
}

/// The file name of a band.
fn file_name(number: u64) -> String {
    format!("{number:x}")
}

impl Storage for Bands {
    forward!(info: name, driver, identity, allocated_size, step_watcher, lock);
    read_only!(refused, made, solid);

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() && at < self.len {
            let within = at % self.band;
            let len = (self.band - within).min(rest.len() as u64);
            let (part, tail) = rest.split_at_mut(len as usize);
            match self.file(at / self.band)? {
                Some((file, _)) => file.read_at(part, within)?,
                None => part.fill(0),
            }
            (rest, at) = (tail, at + len);
        }
        rest.fill(0);
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn limits(&self) -> Limits {
        Limits {
            fixed_len: true,
            ..self.info.limits()
        }
    }
}
