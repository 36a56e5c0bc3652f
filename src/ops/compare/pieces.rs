//! Cutting the images into pieces that must be read, in guest order.

use super::side::Side;
use crate::error::Error;
use crate::image::Image;

/// What must be done with a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Read both images.
    Both,
    /// Read the image of this index; the other one reads as zeroes.
    Zero(usize),
    /// Nothing: both read the same.
    Skip,
}

/// A range of guest bytes and what to do with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct GuestPiece {
    pub start: u64,
    pub len: u64,
    pub task: Task,
}

impl GuestPiece {
    /// How many of its bytes are read.
    pub fn moved(&self) -> u64 {
        match self.task {
            Task::Skip => 0,
            Task::Both | Task::Zero(_) => self.len,
        }
    }
}

/// The pieces in guest order.
pub(super) struct Pieces<'a> {
    sides: [Side<'a>; 2],
    at: u64,
    limit: u64,
    /// Maximum length of a piece; pieces end at multiples of it, so that only a longer cluster is split.
    longest: u64,
    /// What ended the last piece, and is returned next.
    failed: Option<LookupFailed>,
}

/// An image, by its index, whose runs could not be looked up at an offset.
pub(super) struct LookupFailed {
    pub side: usize,
    pub offset: u64,
    pub error: Error,
}

impl<'a> Pieces<'a> {
    /// For the first `limit` bytes.
    pub(super) fn new(images: [&'a Image; 2], limit: u64, longest: u64) -> Self {
        Self {
            sides: images.map(|image| Side::new(Some(image))),
            at: 0,
            limit,
            longest,
            failed: None,
        }
    }

    /// The next piece; None at the end.
    pub(super) fn next(&mut self) -> Result<Option<GuestPiece>, LookupFailed> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        let start = self.at;
        let border = (start / self.longest + 1) * self.longest;
        let mut task = None;
        while self.at < self.limit {
            let (next, end) = match self.run() {
                Ok(run) => run,
                // The piece so far counts. The failed lookup is not retried: it might succeed then.
                Err(failed) if task.is_some() => {
                    self.failed = Some(failed);
                    break;
                }
                Err(failed) => return Err(failed),
            };
            match task {
                None => task = Some(next),
                Some(task) if task != next => break,
                Some(_) => {}
            }
            let end = if next == Task::Skip {
                end
            } else {
                end.min(border)
            };
            self.at = end.min(self.limit);
            if next != Task::Skip && self.at >= border {
                break;
            }
        }
        Ok(task.map(|task| GuestPiece {
            start,
            len: self.at - start,
            task,
        }))
    }

    /// What to do at the current offset, and where that ends.
    fn run(&mut self) -> Result<(Task, u64), LookupFailed> {
        let at = self.at;
        for (index, side) in self.sides.iter_mut().enumerate() {
            side.look_up(at, self.limit).map_err(|error| LookupFailed {
                side: index,
                offset: at,
                error,
            })?;
        }
        let [a, b] = &self.sides;
        let task = match (a.zero(), b.zero()) {
            (true, true) => Task::Skip,
            (false, true) => Task::Zero(0),
            (true, false) => Task::Zero(1),
            (false, false) => match (a.place_at(at), b.place_at(at)) {
                (Some(x), Some(y)) if x == y => Task::Skip,
                _ => Task::Both,
            },
        };
        Ok((task, a.end().min(b.end())))
    }
}
