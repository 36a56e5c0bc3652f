//! An image or chain that is traversed in guest order, with the run that was looked up last.

use std::sync::Arc;

use super::identity::{BytesAt, Files};
use crate::error::Result;
use crate::image::{Image, ReadsAs};

/// One of two images that are traversed in parallel: each is only queried again when its last answer is used up,
/// however short the other's runs are.
#[derive(Clone)]
pub(crate) struct Side<'a> {
    /// None reads as zeroes throughout.
    image: Option<&'a Image>,
    files: Arc<Files>,
    start: u64,
    end: u64,
    zero: bool,
    place: Option<BytesAt>,
}

impl<'a> Side<'a> {
    pub(crate) fn new(image: Option<&'a Image>) -> Self {
        Self {
            image,
            files: Arc::new(image.map(Files::of).unwrap_or_default()),
            start: 0,
            end: 0,
            zero: false,
            place: None,
        }
    }

    /// Makes the run cover `at`; the lookup is limited to `limit`. Past the end of the image there are zeroes.
    pub(crate) fn look_up(&mut self, at: u64, limit: u64) -> Result<()> {
        if (self.start..self.end).contains(&at) {
            return Ok(());
        }
        self.start = at;
        let Some(image) = self.image.filter(|image| at < image.len()) else {
            (self.end, self.zero, self.place) = (limit.max(at + 1), true, None);
            return Ok(());
        };
        self.end = at;
        let found = image.map(at, limit.min(image.len()) - at)?;
        // A run with unknown contents is read, which reports why it cannot be.
        self.zero = found.reads_as() == ReadsAs::Zero;
        self.place = self.files.place(&found, at);
        self.end = at.saturating_add(found.extent.len);
        Ok(())
    }

    /// Where the run ends.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Whether the run is known to read as zeroes.
    pub(crate) fn zero(&self) -> bool {
        self.zero
    }

    /// Where `at`, which the run covers, is stored.
    pub(crate) fn place_at(&self, at: u64) -> Option<BytesAt> {
        let skip = at - self.start;
        self.place.clone().map(|place| match place {
            BytesAt::Host(file, offset) => BytesAt::Host(file, offset.saturating_add(skip)),
            BytesAt::Guest(file, driver, offset) => {
                BytesAt::Guest(file, driver, offset.saturating_add(skip))
            }
        })
    }
}
