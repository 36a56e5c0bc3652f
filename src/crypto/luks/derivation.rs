//! Calibration of key derivation for this machine, and random bytes.

use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::crypto::hash::Hash;
use crate::crypto::luks::disk::SALT_LEN;
use crate::crypto::luks::volume::MAX_ITERATIONS;
use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;

/// Minimum number of iterations of a key slot and of the key digest.
pub(super) const MIN_ITERATIONS: u32 = 1000;

/// Fills `buf` from the kernel's random source.
pub(super) fn fill_random(buf: &mut [u8]) -> Result<()> {
    getrandom::fill(buf)
        .map_err(|error| Error::new(ErrorKind::Os, format!("No random bytes: {error}")))
}

/// Number of PBKDF2 iterations that take `time` on this machine.
///
/// # Errors
/// [`ErrorKind::Limit`] if that is more than the limit; if cancelled.
pub(super) fn iterations_for(
    hash: Hash,
    key_len: usize,
    time: Duration,
    control: &JobControl,
) -> Result<u32> {
    let mut key = Zeroizing::new(vec![0; key_len]);
    let mut iterations = 1u32 << 14;
    loop {
        let start = Instant::now();
        hash.pbkdf2(b"password", &[0; SALT_LEN], iterations, &mut key, control)?;
        let took = start.elapsed();
        // A tenth of a second is long enough for a reliable measurement.
        if took >= Duration::from_millis(100) || iterations >= 1 << 30 {
            let per_second = f64::from(iterations) / took.as_secs_f64().max(1e-9);
            let wanted = per_second * time.as_secs_f64();
            if wanted > f64::from(MAX_ITERATIONS) {
                return Err(Error::new(
                    ErrorKind::Limit,
                    format!(
                        "An iter-time of {} ms needs more than {MAX_ITERATIONS} iterations of \
                         PBKDF2; choose a shorter one",
                        time.as_millis()
                    ),
                ));
            }
            return Ok((wanted as u32).max(MIN_ITERATIONS));
        }
        iterations *= 2;
    }
}
