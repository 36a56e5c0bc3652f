//! What a signal handler may do with a job: no guard, no lock and no allocation, unless a call is refused and the
//! caller wants to know why.

use std::ffi::c_int;

use crate::capi::boundary::{self, ErrOut, Handle, check_flags, given};
use crate::capi::status::{self, PLATTER_OK};
use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;

use super::platter_job;

/// Why a call is refused.
enum Refusal<'a> {
    NoJob,
    Unusable(&'a platter_job),
    Flags(u32),
    NoRate(&'a platter_job),
}

impl Refusal<'_> {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoJob | Self::Flags(_) => ErrorKind::Invalid,
            Self::Unusable(_) => ErrorKind::Internal,
            Self::NoRate(_) => ErrorKind::Unsupported,
        }
    }

    fn tell(&self) -> Result<()> {
        match self {
            Self::NoJob => given(None, "job"),
            Self::Unusable(job) => job.poison().check(),
            Self::Flags(flags) => check_flags(*flags, 0),
            Self::NoRate(job) => Err(Error::unsupported(format!(
                "A job of the kind '{}' moves no guest data whose rate could be limited",
                job.runner.name()
            ))),
        }
    }
}

/// Performs `action`, which only stores atomics and wakes threads.
pub(super) fn control(
    job: Option<&platter_job>,
    flags: u32,
    err: ErrOut<'_>,
    action: impl FnOnce(&JobControl),
) -> c_int {
    answer(
        err,
        accepted(job, flags).map(|job| action(job.runner.control())),
    )
}

/// As [`control`], for a rate limit, which only jobs that move guest data support.
pub(super) fn set_rate(
    job: Option<&platter_job>,
    bytes_per_second: u64,
    flags: u32,
    err: ErrOut<'_>,
) -> c_int {
    let job = accepted(job, flags).and_then(|job| match bytes_per_second > 0 && !job.heeds_rate {
        true => Err(Refusal::NoRate(job)),
        false => Ok(job),
    });
    answer(
        err,
        job.map(|job| job.runner.control().set_rate(bytes_per_second)),
    )
}

fn accepted(
    job: Option<&platter_job>,
    flags: u32,
) -> std::result::Result<&platter_job, Refusal<'_>> {
    match job {
        None => Err(Refusal::NoJob),
        Some(job) if job.poison().is_set() => Err(Refusal::Unusable(job)),
        Some(_) if flags != 0 => Err(Refusal::Flags(flags)),
        Some(job) => Ok(job),
    }
}

fn answer(err: ErrOut<'_>, outcome: std::result::Result<(), Refusal<'_>>) -> c_int {
    match (outcome, err) {
        (Ok(()), None) => PLATTER_OK,
        (Ok(()), Some(err)) => {
            err.write(std::ptr::null_mut());
            PLATTER_OK
        }
        (Err(refusal), None) => status::of_kind(refusal.kind()),
        (Err(refusal), err) => boundary::call(err, || refusal.tell()),
    }
}
