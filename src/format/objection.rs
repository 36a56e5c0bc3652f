//! What products refuse in images.

/// What a product would refuse in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// What it is.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

impl Objection {
    /// From a reason and its remedy.
    pub fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            remedy: remedy.into(),
        }
    }
}
