//! The bitmaps of an open image: which exist, and which of them record writes.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{ErrorKind, Result};
use crate::format::qcow2::disk::{BitmapFlags, Header, read_bitmap_directory};
use crate::format::qcow2::state::Qcow2;
use crate::format::qcow2::table_place::TablePlace;
use crate::job::JobControl;
use crate::memory;

use super::record::Record;
use super::recorder::{Known, Session};

/// Memory that a change takes for each bitmap besides its name: its old and its new state, and its entry.
const CHANGED: u64 = 640;
/// Offset of the flags in an entry of the bitmap directory.
const FLAGS_AT: u64 = 12;

/// The next state of a bitmap.
pub(super) struct Next {
    /// The bitmap afterwards; the offset of its table is still the old one, 0 for a new bitmap.
    pub(super) known: Known,
    /// Its stored bits are kept.
    pub(super) keep: bool,
    /// Bits to set in addition.
    pub(super) add: Vec<Arc<Record>>,
}

impl Qcow2 {
    /// Reads the directory, unless that has been done. A read-only image may be changed by others, so there it is read
    /// each time.
    pub(super) fn load_bitmaps(&self, session: &mut Session) -> Result<()> {
        if session.loaded && !self.read_only {
            return Ok(());
        }
        let extension = self.header.lock().consistent_bitmaps();
        let mut loaded = Session {
            loaded: true,
            ..Session::default()
        };
        if let Some(extension) = extension {
            let size = self.virtual_size();
            let cluster = self.layout.cluster_size();
            let entries = read_bitmap_directory(&*self.storage, &extension, size, cluster)?;
            loaded.known = entries
                .into_iter()
                .map(|entry| Known { entry, live: false })
                .collect();
            loaded.place = TablePlace {
                offset: extension.directory_offset,
                first: extension.directory_offset >> self.layout.cluster_bits(),
                clusters: self.layout.clusters_for(extension.directory_size),
            };
        }
        *session = loaded;
        Ok(())
    }

    /// Called before guest data changes for the first time: bitmaps that record are marked in use on disk, so that
    /// after a crash they are not taken for complete.
    pub(in crate::format::qcow2) fn begin_recording(&self) -> Result<()> {
        let session = &mut *self.recorder.session.write();
        self.load_bitmaps(session)?;
        if session.begun {
            return Ok(());
        }
        let mut at = session.place.offset;
        let mut marked = Vec::new();
        for (index, known) in session.known.iter().enumerate() {
            let mut bytes = Vec::new();
            known.entry.write_to(&mut bytes);
            if known.enabled() && !known.inconsistent() {
                let flags = known.entry.flags | BitmapFlags::IN_USE;
                self.storage
                    .write_at(&flags.bits().to_be_bytes(), at + FLAGS_AT)?;
                marked.push(index);
            }
            at += bytes.len() as u64;
        }
        if !marked.is_empty() {
            self.barrier()?;
        }
        let size = self.virtual_size();
        for index in marked {
            if let Some(known) = session.known.get_mut(index) {
                known.entry.flags |= BitmapFlags::IN_USE;
                // One that is too large to work with stays in use, because it misses writes.
                known.live = self
                    .bitmap_clusters(size, known.entry.granularity_bits)
                    .is_ok();
            }
        }
        session.begun = true;
        self.start_record(session, size)
    }

    /// Starts an empty record for the live bitmaps.
    ///
    /// # Errors
    /// If memory cannot be allocated: the bitmaps stay in use then, because they miss writes.
    pub(super) fn start_record(&self, session: &mut Session, size: u64) -> Result<()> {
        let live = session.known.iter().filter(|known| known.live);
        let finest = live.map(|known| known.entry.granularity_bits).min();
        let made = match finest.map(|bits| Record::new(size, u32::from(bits))) {
            None => Ok(None),
            Some(record) => record.map(|record| Some(Arc::new(record))),
        };
        let (record, outcome) = match made {
            Ok(record) => (record, Ok(())),
            Err(error) => {
                for known in &mut session.known {
                    known.live = false;
                }
                (None, Err(error))
            }
        };
        self.recorder
            .recording
            .store(record.is_some(), Ordering::Release);
        session.record = record;
        outcome
    }

    /// Records that guest bytes were changed, or may have been; called when the change is complete.
    pub(in crate::format::qcow2) fn record(&self, offset: u64, len: u64) {
        if !self.recorder.recording.load(Ordering::Acquire) {
            return;
        }
        if let Some(record) = &self.recorder.session.read().record {
            record.set(offset..offset.saturating_add(len));
        }
    }

    /// Called on closing: stores what was recorded, so that the bitmaps are no longer in use. If `control` ends it,
    /// those that record stay in use.
    pub(in crate::format::qcow2) fn end_recording(&self, control: &JobControl) -> Result<()> {
        let session = &mut *self.recorder.session.write();
        session.begun = false;
        if !session.known.iter().any(|known| known.live) {
            return Ok(());
        }
        let ended = self.change_bitmaps(session, control, |_, next| {
            for next in next.iter_mut().filter(|next| next.known.live) {
                next.known.live = false;
                next.known.entry.flags -= BitmapFlags::IN_USE;
            }
            Ok(())
        });
        if let Err(error) = &ended
            && error.kind() == ErrorKind::Cancelled
        {
            session
                .known
                .iter_mut()
                .for_each(|known| known.live = false);
        }
        ended
    }

    /// Changes the list of bitmaps; what was recorded so far is merged into the live ones.
    pub(super) fn change_bitmaps(
        &self,
        session: &mut Session,
        control: &JobControl,
        change: impl FnOnce(&Session, &mut Vec<Next>) -> Result<()>,
    ) -> Result<()> {
        self.replace_bitmaps(session, self.virtual_size(), |_| {}, control, change)?;
        self.flush_all(self.durability)
    }

    /// Changes the virtual size together with the bitmaps; returns false if there are none.
    pub(in crate::format::qcow2) fn resize_bitmaps(
        &self,
        size: u64,
        control: &JobControl,
    ) -> Result<bool> {
        let session = &mut *self.recorder.session.write();
        self.load_bitmaps(session)?;
        if session.known.is_empty() {
            return Ok(false);
        }
        let header = |header: &mut Header| header.size = size;
        self.replace_bitmaps(session, size, header, control, |_, _| Ok(()))?;
        Ok(true)
    }

    fn replace_bitmaps(
        &self,
        session: &mut Session,
        size: u64,
        header: impl Fn(&mut Header),
        control: &JobControl,
        change: impl FnOnce(&Session, &mut Vec<Next>) -> Result<()>,
    ) -> Result<()> {
        let entries = session.known.iter();
        let names: u64 = entries.map(|known| known.entry.name.len() as u64).sum();
        memory::headroom(session.known.len() as u64 * CHANGED + 4 * names)?;
        let record = session.record.take();
        let mut next: Vec<Next> = session
            .known
            .iter()
            .map(|known| Next {
                known: known.clone(),
                keep: true,
                add: record.iter().filter(|_| known.live).cloned().collect(),
            })
            .collect();
        let changed = change(session, &mut next)
            .and_then(|()| self.store_bitmaps(session, &next, size, header, control));
        match changed {
            Ok(()) => self.start_record(session, size),
            Err(error) => {
                session.record = record;
                Err(error)
            }
        }
    }

    /// Refuses a size to which the bitmaps cannot be resized.
    pub(in crate::format::qcow2) fn check_bitmap_sizes(&self, size: u64) -> Result<()> {
        let session = &mut *self.recorder.session.write();
        self.load_bitmaps(session)?;
        for known in &session.known {
            known.check_consistent()?;
            self.bitmap_clusters(size, known.entry.granularity_bits)?;
        }
        Ok(())
    }

    /// Whether the image has bitmaps, consistent or not.
    pub(in crate::format::qcow2) fn has_bitmaps(&self) -> Result<bool> {
        let session = &mut *self.recorder.session.write();
        self.load_bitmaps(session)?;
        Ok(!session.known.is_empty())
    }

    /// Calls `visit` with the runs of dirty guest bytes within `range`.
    pub(super) fn visit_bitmap(
        &self,
        session: &Session,
        known: &Known,
        range: Range<u64>,
        control: &JobControl,
        visit: &mut dyn FnMut(Range<u64>) -> Result<()>,
    ) -> Result<()> {
        let record = session.record.as_deref().filter(|_| known.live);
        self.visit_stored(&known.entry, record, range, control, visit)
    }
}
