//! Strict mode: whether two images of the same size have the same allocation.

use super::status_failed;
use crate::error::Result;
use crate::image::{Image, Status, Statuses};
use crate::job::Job;

/// Where the block status differs, or could not be looked up.
pub(super) struct Found {
    /// Contents are compared up to here.
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
        // The tables of all layers down to the one that decides have been consulted.
        let layers = self.image.layers().take(status.depth as usize + 1);
        let spans = layers.filter_map(|layer| layer.format().status_span());
        let end = spans.fold(end, |end, span| {
            end.min((at / span + 1).saturating_mul(span))
        });
        self.run = Some((end, status));
        Ok((status, end))
    }
}

/// The first run whose flags differ. Whether a run is the last of its image is one of the flags, as in `qemu-img`:
/// images with different tables can differ in it even if they hold the same data.
///
/// # Errors
/// Cancellation; a failed lookup is part of the result.
pub(super) fn first_difference(a: &Image, b: &Image, job: &mut Job) -> Result<Option<Found>> {
    let mut sides = [Side::new(a), Side::new(b)];
    let len = a.len();
    let mut at = 0;
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
        if !x.0.same_flags(&y.0) || (x.1 >= len) != (y.1 >= len) {
            return Ok(Some(Found {
                offset: at,
                result: Ok(at),
            }));
        }
        at = x.1.min(y.1);
        job.tick()?;
    }
    Ok(None)
}
