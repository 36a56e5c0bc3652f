//! The images that are being opened above one: to find chains that refer to themselves.

use crate::error::{Error, ErrorKind, Result};
use crate::image::host::FileId;
use crate::policy::OpenPolicy;

/// One image on the way down, and the way to it.
#[derive(Debug)]
pub(super) struct Trail<'a> {
    id: Option<FileId>,
    depth: u32,
    above: Option<&'a Trail<'a>>,
}

impl<'a> Trail<'a> {
    /// A step further down, to the file `name`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where the file is on the way already, [`ErrorKind::Limit`] where the
    /// chain is too long.
    pub(super) fn step(
        above: Option<&'a Trail<'a>>,
        id: Option<FileId>,
        name: &str,
        policy: &OpenPolicy,
    ) -> Result<Self> {
        let depth = above.map_or(1, |above| above.depth.saturating_add(1));
        if above.is_some_and(|above| above.contains(id)) {
            return Err(Error::invalid(format!(
                "Backing file '{name}' creates an infinite loop."
            )));
        }
        if depth > policy.chain_limit() {
            return Err(Error::new(
                ErrorKind::Limit,
                format!(
                    "The backing chain has more than {} images at '{name}'",
                    policy.chain_limit()
                ),
            ));
        }
        Ok(Self { id, depth, above })
    }

    /// Whether the file is on the way.
    pub(super) fn contains(&self, id: Option<FileId>) -> bool {
        let mut next = Some(self);
        while let Some(step) = next {
            if id.is_some() && step.id == id {
                return true;
            }
            next = step.above;
        }
        false
    }
}
