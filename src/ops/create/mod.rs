//! `create`: a new image.

mod target;

pub use target::{Target, TargetRequest, option_table, target};

use crate::error::Result;
use crate::job::Job;
use crate::location::Location;
use crate::options::Options;
use crate::policy::OpenPolicy;
use crate::secret::Secrets;

/// What to create. Backing file and format come as fields or as options, not both.
#[derive(Clone, Debug)]
pub struct CreateRequest {
    /// Where.
    pub location: Location,
    /// The format: `raw`, `qcow2`…
    pub format: String,
    /// Virtual size in bytes; None takes it from `size=` or the backing file.
    pub size: Option<u64>,
    /// Options as with `-o`.
    pub options: Options,
    /// `-b`.
    pub backing_file: Option<String>,
    /// `-F`.
    pub backing_format: Option<String>,
    /// `-u`: the backing file need not exist.
    pub backing_unsafe: bool,
    /// The secrets that options name by ID.
    pub secrets: Secrets,
    /// What opening the backing file may do.
    pub policy: OpenPolicy,
}

/// A checked creation: nothing is touched yet.
#[derive(Debug)]
pub struct CreatePlan {
    request: CreateRequest,
    summary: String,
}

impl CreatePlan {
    /// Checks everything that can be checked without touching the target; opens the backing file
    /// for its size.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] and others, one line that begins with the file name.
    pub fn new(request: CreateRequest, job: &mut Job) -> Result<Self> {
        let _ = (request, job);
        todo!()
    }

    /// The line `Formatting '…', fmt=… key=value…`, without newline.
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// Creates the image. A failure leaves no new file.
    ///
    /// # Errors
    /// Of the creation, one line that begins with the file name.
    pub fn run(self, job: &mut Job) -> Result<()> {
        let _ = (self.request, job);
        todo!()
    }
}
