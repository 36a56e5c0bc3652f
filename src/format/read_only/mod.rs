//! The frame of formats that are only read: a driver says what each run of the guest is, the frame makes
//! an image of that.

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

/// How a run of the guest is held.
#[derive(Debug)]
pub(crate) enum Held {
    /// It is zeroes.
    Zero,
    /// As it is, at this offset of the source.
    Plain(u64),
    /// In a unit that is encoded by itself, and may be larger than the run.
    Unit(EncodedUnit),
    /// It is not; the error is that of the reads of it.
    Lost(Error),
}

/// The longest run of guest bytes that are held in one way.
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

    /// The run that begins at `offset`, which lies within the virtual size. No more than what is before
    /// `end` is wanted; the run may be longer.
    ///
    /// # Errors
    /// Of reading what says where the run is.
    fn run(&self, source: &SizedStorage, offset: u64, end: u64) -> Result<GuestRun>;

    /// Verifying, where images say something that can be verified.
    fn verifier(&self) -> Option<&dyn Verify> {
        None
    }
}

/// The check of an image that is only read, whose format gives it something to compare with.
pub(crate) trait Verify: Send + Sync {
    /// Goes through the image; each finding is a note of `job`.
    ///
    /// # Errors
    /// When the check cannot be carried out.
    fn verify(&self, source: &SizedStorage, job: &mut Job) -> Result<CheckReport>;
}

/// An open image.
#[derive(Debug)]
pub(crate) struct ReadOnly<C> {
    driver: &'static FormatDriver,
    /// The image's own file.
    file: Arc<dyn Storage>,
    /// The files that it has beside.
    others: Vec<Arc<dyn Storage>>,
    /// The names of those that are not open.
    closed: Vec<(FileRole, BString)>,
    source: SizedStorage,
    /// The source is the image's own file, so that what is kept as it is stands there.
    is_own: bool,
    /// The source is what the encrypted file decrypts to.
    encrypted: bool,
    contents: C,
    units: UnitReader,
}

impl<C: Contents> ReadOnly<C> {
    /// An image in one file, the source of all its pieces.
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

    /// The image is in an encrypted file; the source is what that decrypts to.
    pub(crate) fn encrypted_in(self, file: Arc<dyn Storage>) -> Self {
        Self {
            file,
            is_own: false,
            encrypted: true,
            ..self
        }
    }

    /// Whether what is kept is encrypted.
    pub(crate) fn with_encryption(self, encrypted: bool) -> Self {
        Self { encrypted, ..self }
    }

    /// The source stands for several files: the image's own, and others; `closed` names those that were not
    /// opened.
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
            // What is lost is refused when it is read.
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
                // An error is met when its run is asked for itself.
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
