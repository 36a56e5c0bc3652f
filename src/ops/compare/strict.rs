//! Strict mode: whether two images of one size are allocated alike.

use super::status_failed;
use crate::error::Result;
use crate::image::{Image, Status, Statuses};
use crate::job::Job;

/// Where the block status differs, or could not be found out.
pub(super) struct Found {
    /// Contents count up to here.
    pub offset: u64,
    /// The offset to report, or why it is not known.
    pub result: Result<u64>,
}

/// One image and its run at the current offset.
struct Side<'a> {
    image: &'a Image,
    statuses: Statuses<'a>,
    run: Option<(u64, Status)>,
}

impl<'a> Side<'a> {
    fn new(image: &'a Image) -> Self {
        Self {
            image,
            statuses: image.statuses(),
            run: None,
        }
    }

    /// The status at `at` and where its run ends.
    fn at(&mut self, at: u64) -> Result<(Status, u64)> {
        if let Some((end, status)) = self.run.filter(|(end, _)| at < *end) {
            return Ok((status, end));
        }
        let status = self
            .statuses
            .at(at, self.image.len() - at)
            .map_err(|error| status_failed(self.image, error))?;
        let end = at.saturating_add(status.len);
        self.run = Some((end, status));
        Ok((status, end))
    }
}

/// The first run whose flags differ. Where one image's run is the rest of the image and the
/// other's is not, the whole run counts: that is the offset which `qemu-img` reports.
///
/// # Errors
/// Cancellation; a failed lookup is part of the result.
pub(super) fn first_difference(a: &Image, b: &Image, job: &mut Job) -> Result<Option<Found>> {
    let mut sides = [Side::new(a), Side::new(b)];
    let len = a.len();
    let mut at = 0;
    let mut rest_of_one = None;
    while at < len {
        let [x, y] = &mut sides;
        let (x, y) = match (x.at(at), y.at(at)) {
            (Ok(x), Ok(y)) => (x, y),
            (Err(error), _) | (_, Err(error)) => {
                return Ok(Some(Found {
                    offset: at,
                    result: Err(error),
                }));
            }
        };
        if !x.0.same_flags(&y.0) {
            let offset = rest_of_one.unwrap_or(at);
            return Ok(Some(Found {
                offset,
                result: Ok(offset),
            }));
        }
        if rest_of_one.is_none() && (x.1 >= len) != (y.1 >= len) {
            rest_of_one = Some(at);
        }
        at = x.1.min(y.1);
        job.tick()?;
    }
    Ok(None)
}
