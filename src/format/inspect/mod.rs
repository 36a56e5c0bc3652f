//! The findings of inspecting an untrusted image: the vocabulary shared by a format, which knows its own references and
//! tables, and the operation, which judges them.

mod name;
mod requirements;

use std::sync::Arc;

use bstr::BString;

use crate::policy::{ImplicitRole, OpenPolicy};
use crate::printable::shown_name;
use crate::storage::Storage;

pub use name::NameTraits;
pub use requirements::{Finding, Requirement, Verdict};

/// The arguments for inspecting an image. A format reads the storage and opens nothing.
pub struct InspectContext<'a> {
    /// The image file, with a limit on how much of it can be read.
    pub storage: Arc<dyn Storage>,
    /// Its length.
    pub file_len: u64,
    /// The limits.
    pub policy: &'a OpenPolicy,
}

/// A file that an image names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Its role.
    pub role: ImplicitRole,
    /// The name as it is stored; truncated if it is longer than any program accepts.
    pub name: Vec<u8>,
    /// The format that the image records for it.
    pub format: Option<BString>,
    /// The offset of the name in the file.
    pub offset: u64,
}

impl Reference {
    /// The name without passwords.
    pub fn shown_name(&self) -> BString {
        shown_name(&self.name)
    }

    /// [`Reference::shown_name`] as text; invalid UTF-8 is replaced.
    pub fn name_text(&self) -> String {
        self.shown_name().to_string()
    }

    /// What kind of name it is.
    pub fn traits(&self) -> NameTraits {
        NameTraits::of(&self.name)
    }
}

/// What a format found in an image.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// The virtual size in bytes, as claimed.
    pub virtual_size: Option<u64>,
    /// The cluster size in bytes, if the format has one.
    pub cluster_size: Option<u64>,
    /// Whether the guest data is encrypted.
    pub encrypted: bool,
    /// Number of internal snapshots, as claimed.
    pub snapshots: Option<u64>,
    /// Every file that the image names.
    pub references: Vec<Reference>,
    /// Whether the contents were fully parsed as this format, so that nothing they reference or require was missed.
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

    /// Marks the contents as not understood: no favourable verdict can be relied on.
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
