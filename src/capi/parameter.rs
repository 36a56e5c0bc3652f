//! Parameters that must not be NULL, and booleans.

use crate::error::{Error, Result};

/// A parameter that must not be NULL.
pub(super) fn given<T>(value: Option<T>, name: &str) -> Result<T> {
    value.ok_or_else(|| Error::invalid(format!("Parameter '{name}' is NULL")))
}

/// A parameter that must be 0 or 1; other values are reserved for future use.
pub(super) fn truth(value: u32, name: &str) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::invalid(format!(
            "Parameter '{name}' must be 0 or 1, not {value}"
        ))),
    }
}
