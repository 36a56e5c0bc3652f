//! Determines how many bytes an operation will move, while it moves them.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::image::Image;
use crate::job::JobControl;

/// Counting takes at most this fraction of the time, given as a divisor.
const SHARE: u32 = 32;
/// Runs that are looked up between two checks of the clock.
const BATCH: usize = 32;

/// A run of guest bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Its length.
    pub len: u64,
    /// How many of its bytes must be moved.
    pub moved: u64,
}

/// Counts the bytes to be moved ahead of the work, a little at a time. The total is exact as far as has been counted;
/// beyond that, an estimate is used.
pub(crate) struct Forecast<F> {
    look: F,
    next: u64,
    len: u64,
    counted: u64,
    estimate: u64,
    begin: Instant,
    spent: Duration,
    /// Why a run could not be looked up; it ended the count.
    failure: Option<Error>,
}

impl<F: FnMut(u64) -> Result<Run>> Forecast<F> {
    /// For work on `len` guest bytes of which about `estimate` must be moved; `look` returns the run at an offset.
    pub(crate) fn new(len: u64, estimate: u64, look: F) -> Self {
        Self {
            look,
            next: 0,
            len,
            counted: 0,
            estimate,
            begin: Instant::now(),
            spent: Duration::ZERO,
            failure: None,
        }
    }

    /// The number of guest bytes that the work covers.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Continues counting if it has not used its share of the time, and sets the job's total.
    ///
    /// # Errors
    /// If a run could not be looked up: the work may find it readable when it tries again, and would then never report
    /// it.
    pub(crate) fn update(&mut self, control: &JobControl) -> Result<()> {
        let allowed = self.begin.elapsed() / SHARE;
        if self.next < self.len && (self.spent < allowed || self.next == 0) {
            let begin = Instant::now();
            while self.next < self.len {
                self.count();
                if self.spent + begin.elapsed() >= allowed {
                    break;
                }
            }
            self.spent += begin.elapsed();
        }
        control.set_total(self.total());
        self.failure.take().map_or(Ok(()), Err)
    }

    fn count(&mut self) {
        for _ in 0..BATCH {
            if self.next >= self.len {
                return;
            }
            match (self.look)(self.next) {
                Ok(run) => {
                    self.next = self.next.saturating_add(run.len.max(1));
                    self.counted = self.counted.saturating_add(run.moved);
                }
                Err(error) => {
                    self.failure = Some(error);
                    self.counted = self.total();
                    self.next = self.len;
                }
            }
        }
    }

    fn total(&self) -> u64 {
        let rest = self.len.saturating_sub(self.next);
        self.counted
            .saturating_add(rest.min(self.estimate.saturating_sub(self.counted)))
    }
}

/// Approximate number of guest bytes that `layers` hold together: the allocated size of their files, if known.
pub(crate) fn held_by<'a>(layers: impl Iterator<Item = &'a Image>) -> u64 {
    layers.fold(0u64, |sum, layer| {
        let files = layer.slots().into_iter().map(|(_, file)| file);
        let bytes = files.fold(0u64, |sum, file| {
            sum.saturating_add(file.allocated_size().unwrap_or(u64::MAX))
        });
        sum.saturating_add(bytes)
    })
}

/// The layers of an image, from the top.
pub(crate) fn layers(image: &Image) -> impl Iterator<Item = &Image> {
    std::iter::successors(Some(image), |layer| layer.backing().map(AsRef::as_ref))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_exact_once_all_was_looked_at() {
        let control = JobControl::default();
        // Every other MiB of 1000.
        let mut forecast = Forecast::new(1000 << 20, 1 << 20, |at| {
            Ok(Run {
                len: 1 << 20,
                moved: if at >> 20 & 1 == 0 { 1 << 20 } else { 0 },
            })
        });
        forecast.update(&control).unwrap();
        let first = control.progress().total;
        assert!((1 << 20..=500 << 20).contains(&first), "{first}");
        while forecast.next < forecast.len {
            forecast.update(&control).unwrap();
        }
        assert_eq!(control.progress().total, 500 << 20);
    }

    #[test]
    fn what_is_not_counted_yet_is_estimated() {
        let mut forecast = Forecast::new(1 << 40, 10 << 20, |_| {
            Ok(Run {
                len: 1 << 20,
                moved: 1 << 20,
            })
        });
        assert_eq!(forecast.total(), 10 << 20);
        forecast.count();
        assert_eq!(forecast.total(), 32 << 20);
        // An image whose size is unknown may be full.
        let full = Forecast::new(1 << 40, u64::MAX, |_| Ok(Run { len: 1, moved: 1 }));
        assert_eq!(full.total(), 1 << 40);
    }

    #[test]
    fn an_error_ends_the_count_and_is_told_once() {
        let control = JobControl::default();
        let mut forecast = Forecast::new(1 << 40, 5, |_| Err(crate::Error::invalid("x")));
        let told = forecast.update(&control).unwrap_err();
        assert_eq!(told.to_string(), "x");
        assert_eq!(control.progress().total, 5);
        forecast.update(&control).unwrap();
    }
}
