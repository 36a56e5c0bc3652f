//! The object that says why a call failed.

use std::ffi::{CString, c_int};

use crate::capi::status;
use crate::capi::text::{c_line, c_string};
use crate::error::{Error, Stage};

/// Why a call failed. The caller of the failing call owns it and frees it with `platter_error_free()`; it never
/// changes, so any thread may read it.
#[derive(Clone, Debug)]
pub struct platter_error {
    pub(super) status: c_int,
    pub(super) errno: c_int,
    pub(super) offset: Option<u64>,
    pub(super) stage: u32,
    pub(super) file: Option<CString>,
    pub(super) message: CString,
    pub(super) hints: Vec<CString>,
}

impl platter_error {
    pub(super) fn new(error: &Error) -> Self {
        Self {
            status: status::of_kind(error.kind()),
            errno: error.errno(),
            offset: error.offset(),
            stage: of_stage(error.stage()),
            file: error.file().map(|name| c_string(name.to_vec())),
            message: c_line(error.to_string()),
            hints: error.hints().iter().map(c_line).collect(),
        }
    }

    pub(super) fn status(&self) -> c_int {
        self.status
    }
}

/// Stage of an error: none that programs distinguish.
pub const PLATTER_STAGE_OTHER: u32 = 0;
/// Stage of an error: looking up where guest bytes are stored, in a comparison.
pub const PLATTER_STAGE_BLOCK_STATUS: u32 = 1;
/// Stage of an error: reading guest bytes, in a comparison.
pub const PLATTER_STAGE_READ: u32 = 2;
/// Stage of an error: opening a local file or device itself, before anything is read from it.
pub const PLATTER_STAGE_OPEN: u32 = 3;
/// Stage of an error: comparing the contents of the children of a filter, which must be the same but are not, in a
/// comparison.
pub const PLATTER_STAGE_VERIFY: u32 = 4;

fn of_stage(stage: Option<Stage>) -> u32 {
    match stage {
        None => PLATTER_STAGE_OTHER,
        Some(Stage::BlockStatus) => PLATTER_STAGE_BLOCK_STATUS,
        Some(Stage::Read) => PLATTER_STAGE_READ,
        Some(Stage::Open) => PLATTER_STAGE_OPEN,
        Some(Stage::Verify) => PLATTER_STAGE_VERIFY,
    }
}
