//! What inspecting an untrusted image finds: the vocabulary between a format, which knows its own
//! references and tables, and the operation, which judges.

mod name;
mod requirements;

use std::sync::Arc;

use bstr::BString;

use crate::policy::{ImplicitRole, OpenPolicy};
use crate::printable::shown_name;
use crate::storage::Storage;

pub use name::NameTraits;
pub use requirements::{Finding, Requirement, Verdict};

/// What a format gets to inspect an image. It reads the storage and opens nothing.
pub struct InspectContext<'a> {
    /// The image file, with a ceiling on what can be read of it.
    pub storage: Arc<dyn Storage>,
    /// Its length.
    pub file_len: u64,
    /// The ceilings.
    pub policy: &'a OpenPolicy,
}

/// A file that an image names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Its part.
    pub role: ImplicitRole,
    /// The name as it is stored; cut where it is longer than any program accepts.
    pub name: Vec<u8>,
    /// The format that the image records for it.
    pub format: Option<BString>,
    /// Where the name stands in the file.
    pub offset: u64,
}

impl Reference {
    /// The name without passwords.
    pub fn shown_name(&self) -> BString {
        shown_name(&self.name)
    }

    /// [`Reference::shown_name`] as text; bytes that are no UTF-8 are replaced.
    pub fn name_text(&self) -> String {
        self.shown_name().to_string()
    }

    /// What kind of name it is.
    pub fn traits(&self) -> NameTraits {
        NameTraits::of(&self.name)
    }
}

/// What a format found.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// The virtual size in bytes, as it is claimed.
    pub virtual_size: Option<u64>,
    /// The cluster size in bytes, where the format has one.
    pub cluster_size: Option<u64>,
    /// Whether the guest data is encrypted.
    pub encrypted: bool,
    /// Internal snapshots, as many as are claimed.
    pub snapshots: Option<u64>,
    /// Every file that the image names.
    pub references: Vec<Reference>,
    /// Whether the contents were understood as the format, so that nothing that they name or ask for
    /// was missed.
    pub understood: bool,
    /// The verdicts on the requirements that only the format can judge; see [`Requirement::OF_FORMAT`].
    pub findings: Vec<Finding>,
}

impl Inspection {
    /// Adds a verdict.
    pub fn find(&mut self, requirement: Requirement, verdict: Verdict, reason: impl Into<String>) {
        self.findings.push(Finding {
            requirement,
            verdict,
            reason: reason.into(),
        });
    }

    /// The contents are not understood: no verdict that speaks for the image can be relied on.
    pub fn doubt(&mut self, reason: &str) {
        self.understood = false;
        for found in &mut self.findings {
            if found.verdict.is_good() {
                found.verdict = Verdict::Unknown;
                reason.clone_into(&mut found.reason);
            }
        }
    }

    /// Adds a pass, or a failure with its reason.
    pub fn judge(&mut self, requirement: Requirement, result: Result<String, String>) {
        match result {
            Ok(reason) => self.find(requirement, Verdict::Pass, reason),
            Err(reason) => self.find(requirement, Verdict::Fail, reason),
        }
    }
}
