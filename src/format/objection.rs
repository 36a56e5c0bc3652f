//! What products refuse in images.

/// Something in an image that a product would refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// What it is.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

impl Objection {
    /// Creates one from a reason and its remedy.
    pub fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            remedy: remedy.into(),
        }
    }
}
