//! The framework of read-only formats: a driver describes each run of the guest, and the framework makes an image of
//! that.

mod inspect;
mod joined;
mod sized_storage;
mod units;

use std::fmt::Debug;
use std::sync::Arc;

use bstr::BString;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::format::{
    Check, CheckReport, DecodeAhead, FileRole, Format, FormatDriver, FormatFile, FormatInfo,
    IoGuard, RepairMode,
};
use crate::job::Job;
use crate::storage::Storage;

pub(crate) use joined::Joined;
pub(crate) use sized_storage::SizedStorage;
use units::UnitReader;
pub(crate) use units::{EncodedUnit, decode};

/// How a run of the guest is stored.
#[derive(Debug)]
pub(crate) enum Held {
    /// As zeroes.
    Zero,
    /// Verbatim, at this offset of the source.
    Plain(u64),
    /// In a unit that is encoded separately, and may be larger than the run.
    Unit(EncodedUnit),
    /// Not at all; reads of it return this error.
    Lost(Error),
}

/// The longest run of guest bytes that are stored in one way.
#[derive(Debug)]
pub(crate) struct GuestRun {
    pub(crate) held: Held,
    /// Its end in the guest.
    pub(crate) end: u64,
}

/// What a driver knows of an image.
pub(crate) trait Contents: Send + Sync + Debug {
    /// The virtual size in bytes.
    fn len(&self) -> u64;

    /// The run that begins at `offset`, which lies within the virtual size. The caller is only interested in what
    /// precedes `end`; the run may be longer.
    ///
    /// # Errors
    /// If reading the metadata that locates the run fails.
    fn run(&self, source: &SizedStorage, offset: u64, end: u64) -> Result<GuestRun>;

    /// Verification, if images contain something to verify against.
    fn verifier(&self) -> Option<&dyn Verify> {
        None
    }
}

/// The check of a read-only image whose format contains something to compare with.
pub(crate) trait Verify: Send + Sync {
    /// Verifies the image; each finding becomes a note of `job`.
    ///
    /// # Errors
    /// If the check cannot be carried out.
    fn verify(&self, source: &SizedStorage, job: &mut Job) -> Result<CheckReport>;
}

/// An open image.
#[derive(Debug)]
pub(crate) struct ReadOnly<C> {
    driver: &'static FormatDriver,
    /// The image's own file.
    file: Arc<dyn Storage>,
    /// Its additional files.
    others: Vec<Arc<dyn Storage>>,
    /// The names of additional files that are not open.
    closed: Vec<(FileRole, BString)>,
    source: SizedStorage,
    /// The source is the image's own file, so verbatim data can be read from there.
    is_own: bool,
    /// The source is the decrypted content of the encrypted file.
    encrypted: bool,
    contents: C,
    units: UnitReader,
}

impl<C: Contents> ReadOnly<C> {
    /// An image in one file, which is the source of all runs.
    pub(crate) fn new(driver: &'static FormatDriver, source: SizedStorage, contents: C) -> Self {
        Self {
            driver,
            file: source.storage.clone(),
            others: Vec::new(),
            closed: Vec::new(),
            source,
            is_own: true,
            encrypted: false,
            contents,
            units: UnitReader::default(),
        }
    }

    /// The image is in an encrypted file; the source is its decrypted content.
    pub(crate) fn encrypted_in(self, file: Arc<dyn Storage>) -> Self {
        Self {
            file,
            is_own: false,
            encrypted: true,
            ..self
        }
    }

    /// Sets whether the stored data is encrypted.
    pub(crate) fn with_encryption(self, encrypted: bool) -> Self {
        Self { encrypted, ..self }
    }

    /// The source represents several files: the image's own, and others; `closed` names those that were not opened.
    pub(crate) fn in_files(
        self,
        file: Arc<dyn Storage>,
        others: Vec<Arc<dyn Storage>>,
        closed: Vec<(FileRole, BString)>,
    ) -> Self {
        Self {
            file,
            others,
            closed,
            is_own: false,
            ..self
        }
    }

    fn kind(&self, held: &Held) -> ExtentKind {
        match held {
            Held::Zero => ExtentKind::ZEROES,
            Held::Plain(_) if !self.is_own => ExtentKind::Encoded { compressed: false },
            Held::Plain(host_offset) => ExtentKind::Data {
                slot: StorageSlot::MAIN,
                host_offset: *host_offset,
            },
            // Lost data is refused when it is read.
            Held::Unit(_) | Held::Lost(_) => ExtentKind::Encoded { compressed: true },
        }
    }
}

impl<C: Contents> DecodeAhead for ReadOnly<C> {
    fn decode_ahead(&self, offset: u64, most: u64) -> Result<u64> {
        let stop = offset.saturating_add(1);
        let run = self.contents.run(&self.source, offset, stop)?;
        match run.held {
            Held::Unit(unit) if unit.len <= most => {
                self.units.unit(&self.source, &unit)?;
            }
            _ => {}
        }
        Ok(run.end.max(stop))
    }

    fn keep_more(&self, bytes: usize) {
        self.units.keep_more(bytes);
    }
}

impl<C: Contents> Format for ReadOnly<C> {
    fn driver(&self) -> &'static str {
        self.driver.name
    }

    fn len(&self) -> u64 {
        self.contents.len()
    }

    fn cluster_size(&self) -> Option<u32> {
        None
    }

    fn request_alignment(&self) -> u32 {
        1
    }

    fn map(&self, offset: u64, len: u64) -> Result<Extent> {
        let stop = offset.saturating_add(len);
        let first = self.contents.run(&self.source, offset, stop)?;
        let kind = self.kind(&first.held);
        let mut end = first.end.min(stop);
        while end < stop {
            match self.contents.run(&self.source, end, stop) {
                Ok(next) if self.kind(&next.held) == kind.advanced(end - offset) => {
                    end = next.end.min(stop);
                }
                // The error will be reported when this run itself is requested.
                _ => break,
            }
        }
        Ok(Extent {
            len: end - offset,
            kind,
        })
    }

    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        match slot {
            StorageSlot::MAIN => Ok(&self.file),
            _ => Err(Error::new(ErrorKind::Internal, "The image has one file")),
        }
    }

    fn visit_files<'a>(&'a self, visit: &mut dyn FnMut(FormatFile<'a>)) {
        visit(FormatFile::own(&self.file));
        for storage in &self.others {
            visit(FormatFile {
                role: FileRole::Extent,
                slot: None,
                storage,
            });
        }
    }

    fn closed_files(&self) -> Vec<(FileRole, BString)> {
        self.closed.clone()
    }

    fn read_encoded(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let stop = offset.saturating_add(buf.len() as u64);
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let run = self.contents.run(&self.source, at, stop)?;
            let len = run.end.min(stop).saturating_sub(at);
            if len == 0 {
                return Err(Error::new(ErrorKind::Internal, "A run is empty"));
            }
            let (part, tail) = rest.split_at_mut(len as usize);
            match run.held {
                Held::Zero => part.fill(0),
                Held::Plain(host) => self.source.storage.read_at(part, host)?,
                Held::Unit(unit) => self.units.read(&self.source, &unit, part, at)?,
                Held::Lost(error) => return Err(error),
            }
            (rest, at) = (tail, at + len);
        }
        Ok(())
    }

    fn begin_io(&self) -> IoGuard<'_> {
        IoGuard::UNGUARDED
    }

    fn info(&self) -> Result<FormatInfo> {
        Ok(FormatInfo {
            encrypted: self.encrypted,
            hides_dirty: true,
            ..FormatInfo::default()
        })
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }

    fn decode_ahead(&self) -> Option<&dyn DecodeAhead> {
        Some(self)
    }

    fn checker(&self) -> Option<&dyn Check> {
        self.contents.verifier().map(|_| self as &dyn Check)
    }
}

impl<C: Contents> Check for ReadOnly<C> {
    fn repairs(&self) -> RepairMode {
        RepairMode::Report
    }

    fn check(&self, _: RepairMode, job: &mut Job) -> Result<CheckReport> {
        match self.contents.verifier() {
            Some(verifier) => verifier.verify(&self.source, job),
            None => Ok(CheckReport::default()),
        }
    }
}
