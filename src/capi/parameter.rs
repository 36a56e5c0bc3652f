//! Parameters that must not be NULL.

use crate::error::{Error, Result};

/// A parameter that must not be NULL.
pub(super) fn given<T>(value: Option<T>, name: &str) -> Result<T> {
    value.ok_or_else(|| Error::invalid(format!("Parameter '{name}' is NULL")))
}
