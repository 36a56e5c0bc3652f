//! How reports look as text: QEMU's JSON style and its human-readable forms.

pub mod human;
pub mod json;
