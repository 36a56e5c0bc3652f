//! Limits on the requests of a group of storages: bytes and requests per second, with bursts.
//!
//! Each limit is a leaky bucket. What is taken fills it, time empties it, and a request waits until what was taken
//! before it has leaked down to the capacity of the bucket.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bstr::{BStr, ByteSlice};
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::job::JobControl;

/// Maximum rate.
const MAX_RATE: u64 = 1_000_000_000_000_000;

/// Which requests or bytes a bucket limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    All,
    Reads,
    Writes,
}

/// The buckets, with the part of the property names that stands for each.
const BUCKETS: [(&str, Of); 6] = [
    ("bps-total", Of::All),
    ("bps-read", Of::Reads),
    ("bps-write", Of::Writes),
    ("iops-total", Of::All),
    ("iops-read", Of::Reads),
    ("iops-write", Of::Writes),
];

/// How many of the buckets count bytes; the others count requests.
const OF_BYTES: usize = 3;

/// The limit of one bucket, per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    /// The leak rate; 0 means no limit.
    rate: u64,
    /// The leak rate during a burst; 0 means none.
    burst: u64,
    /// How long a burst may last, in seconds.
    burst_length: u32,
}

impl Default for Limit {
    fn default() -> Self {
        Self {
            rate: 0,
            burst: 0,
            burst_length: 1,
        }
    }
}

/// The limits of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThrottleLimits {
    limits: [Limit; 6],
    /// Bytes that count as one request; 0 counts every request as one.
    request_size: u64,
}

impl ThrottleLimits {
    /// The limits of an object of the type `throttle-group`: properties such as `limits.bps-total`, or `x-bps-total`
    /// under its former name.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for an unknown property, a value out of range or limits that cannot be combined.
    pub fn parse<'a>(properties: impl IntoIterator<Item = (&'a str, &'a BStr)>) -> Result<Self> {
        let mut limits = Self::default();
        let mut properties: Vec<_> = properties.into_iter().collect();
        // Whatever the order, the newer names take precedence.
        properties.sort_by_key(|(key, _)| key.starts_with("limits."));
        for (key, value) in properties {
            limits.set(key, value)?;
        }
        limits.check()?;
        Ok(limits)
    }

    fn set(&mut self, key: &str, value: &BStr) -> Result<()> {
        if key == "limits" {
            return Err(Error::invalid(
                "Invalid parameter type for 'limits', expected: object",
            ));
        }
        let newer = key.strip_prefix("limits.");
        let unknown = || {
            let first = key.split('.').next().unwrap_or_default();
            let key = if newer.is_some() { key } else { first };
            Error::unexpected_parameter(key)
        };
        let name = newer.or(key.strip_prefix("x-")).ok_or_else(unknown)?;
        let number = || integer(key, value, newer.is_some());
        if name == "iops-size" {
            self.request_size = number()?;
            return Ok(());
        }
        let (bucket, kind) = BUCKETS
            .iter()
            .zip(&mut self.limits)
            .find_map(|((bucket, _), limit)| Some((limit, name.strip_prefix(bucket)?)))
            .ok_or_else(unknown)?;
        match kind {
            "" => bucket.rate = number()?,
            "-max" => bucket.burst = number()?,
            "-max-length" => {
                let seconds = number()?;
                let is_negative = newer.is_some() && i64::try_from(seconds).is_err();
                let seconds = if is_negative {
                    Ok(u32::MAX)
                } else {
                    u32::try_from(seconds)
                };
                bucket.burst_length = seconds.map_err(|_| {
                    let key = newer.unwrap_or(key);
                    Error::invalid(format!(
                        "{key} value must be in the range [0, {}]",
                        u32::MAX
                    ))
                })?;
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let both = |part: &[Limit], value: fn(&Limit) -> u64| {
            value(&part[0]) > 0 && (value(&part[1]) > 0 || value(&part[2]) > 0)
        };
        let (bytes, requests) = self.limits.split_at(OF_BYTES);
        if [bytes, requests]
            .into_iter()
            .any(|part| both(part, |limit| limit.rate) || both(part, |limit| limit.burst))
        {
            return Err(Error::invalid(
                "bps/iops/max total values and read/write values cannot be used at the same time",
            ));
        }
        if self.request_size > 0 && requests.iter().all(|limit| limit.rate == 0) {
            return Err(Error::invalid("iops size requires an iops value to be set"));
        }
        self.limits.iter().try_for_each(Limit::check)
    }

    fn is_none(&self) -> bool {
        self.limits.iter().all(|limit| limit.rate == 0)
    }
}

impl Limit {
    fn check(&self) -> Result<()> {
        let refused = |why: &str| Err(Error::invalid(why));
        if self.rate > MAX_RATE || self.burst > MAX_RATE {
            return Err(Error::invalid(format!(
                "bps/iops/max values must be within [0, {MAX_RATE}]"
            )));
        }
        if self.burst_length == 0 {
            return refused("the burst length cannot be 0");
        }
        if self.burst_length > 1 && self.burst == 0 {
            return refused("burst length set without burst rate");
        }
        if self.burst > 0 && u64::from(self.burst_length) > MAX_RATE / self.burst {
            return refused("burst length too high for this burst rate");
        }
        if self.burst > 0 && self.rate == 0 {
            return refused("bps_max/iops_max require corresponding bps/iops values");
        }
        if self.burst > 0 && self.burst < self.rate {
            return refused("bps_max/iops_max cannot be lower than bps/iops");
        }
        Ok(())
    }

    /// How much may be taken at once.
    fn room(&self) -> f64 {
        match self.burst {
            // A tenth of a second in advance, so that requests need not arrive one by one.
            0 => self.rate as f64 / 10.0,
            burst => burst as f64 * f64::from(self.burst_length),
        }
    }
}

/// Parses an integer. A negative number wraps around if `wraps`, otherwise it is an error.
fn integer(key: &str, value: &BStr, wraps: bool) -> Result<u64> {
    let value = value.to_str_lossy();
    let negative = value.strip_prefix('-');
    if let Some(negative) = negative.and_then(|rest| rest.parse::<u64>().ok()) {
        return match wraps {
            true => Ok(negative.wrapping_neg()),
            false => Err(Error::invalid("Property values cannot be negative")),
        };
    }
    crate::size::parse_number_checked(&value)
        .map_err(|_| Error::invalid(format!("Parameter '{key}' expects integer")))
}

/// How full a bucket is.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    /// At the sustained rate.
    lasting: f64,
    /// At the burst rate.
    burst: f64,
}

impl Level {
    fn leak(&mut self, limit: &Limit, seconds: f64) {
        self.lasting = (self.lasting - limit.rate as f64 * seconds).max(0.0);
        self.burst = (self.burst - limit.burst as f64 * seconds).max(0.0);
    }

    /// The seconds until there is room again.
    fn wait(&self, limit: &Limit) -> f64 {
        if limit.rate == 0 {
            return 0.0;
        }
        let lasting = (self.lasting - limit.room()) / limit.rate as f64;
        let burst = match limit.burst_length {
            0 | 1 => 0.0,
            _ => (self.burst - limit.burst as f64 / 10.0) / limit.burst as f64,
        };
        lasting.max(burst).max(0.0)
    }

    fn take(&mut self, amount: f64) {
        self.lasting += amount;
        self.burst += amount;
    }
}

#[derive(Debug, Default)]
struct State {
    levels: [Level; 6],
    counted: Option<Instant>,
}

impl State {
    /// Takes a request; returns how long it has to wait for what was taken before.
    fn take(&mut self, limits: &ThrottleLimits, write: bool, bytes: u64, now: Instant) -> Duration {
        let since = self.counted.replace(now).unwrap_or(now);
        let seconds = now.saturating_duration_since(since).as_secs_f64();
        let requests = match limits.request_size {
            0 => 1.0,
            size => (bytes as f64 / size as f64).max(1.0),
        };
        let mut longest = 0.0_f64;
        let buckets = BUCKETS.iter().zip(&limits.limits).zip(&mut self.levels);
        for (at, (((_, of), limit), level)) in buckets.enumerate() {
            level.leak(limit, seconds);
            let concerned = match of {
                Of::All => true,
                Of::Reads => !write,
                Of::Writes => write,
            };
            if concerned && limit.rate > 0 {
                longest = longest.max(level.wait(limit));
                level.take(if at < OF_BYTES {
                    bytes as f64
                } else {
                    requests
                });
            }
        }
        Duration::try_from_secs_f64(longest).unwrap_or(Duration::MAX)
    }
}

/// Storages that share limits: each request of any of them counts.
#[derive(Default)]
pub struct ThrottleGroup {
    limits: ThrottleLimits,
    state: Mutex<State>,
}

impl fmt::Debug for ThrottleGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThrottleGroup")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Maximum time that a wait goes on without checking whether it should end.
const LOOK: Duration = Duration::from_millis(50);

impl ThrottleGroup {
    /// A group with these limits.
    pub fn new(limits: ThrottleLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::default(),
        })
    }

    /// Waits until the limits allow a request, in the order in which requests arrive.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Cancelled`] through `control`.
    pub fn admit(&self, write: bool, bytes: u64, control: &JobControl) -> Result<()> {
        if self.limits.is_none() {
            return Ok(());
        }
        let now = Instant::now();
        let wait = self.state.lock().take(&self.limits, write, bytes, now);
        let mut left = wait;
        while !left.is_zero() {
            control.check()?;
            std::thread::sleep(left.min(LOOK));
            left = wait.saturating_sub(now.elapsed());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(properties: &[(&str, &str)]) -> Result<ThrottleLimits> {
        let properties = properties.iter();
        ThrottleLimits::parse(properties.map(|(key, value)| (*key, BStr::new(*value))))
    }

    /// The waits, in milliseconds, of requests with these numbers of bytes, all submitted at the same time.
    fn waits(limits: &ThrottleLimits, write: bool, requests: &[u64]) -> Vec<u128> {
        let mut state = State::default();
        let now = Instant::now();
        let take = |bytes: &u64| state.take(limits, write, *bytes, now).as_millis();
        requests.iter().map(take).collect()
    }

    #[test]
    fn limits_are_refused_in_the_words_of_qemu() {
        for (properties, refusal) in [
            (
                &[("x-bps-total", "1k")][..],
                "Parameter 'x-bps-total' expects integer",
            ),
            (
                &[("x-bps-total", "-1")],
                "Property values cannot be negative",
            ),
            (
                &[("limits.foo", "1")],
                "Parameter 'limits.foo' is unexpected",
            ),
            (&[("foo", "1")], "Parameter 'foo' is unexpected"),
            (&[("bps-total", "1")], "Parameter 'bps-total' is unexpected"),
            (
                &[("limits", "x")],
                "Invalid parameter type for 'limits', expected: object",
            ),
            (
                &[("x-bps-total", "1"), ("x-bps-read", "1")],
                "bps/iops/max total values and read/write values cannot be used at the same time",
            ),
            (
                &[("limits.iops-read-max", "5")],
                "bps_max/iops_max require corresponding bps/iops values",
            ),
            (
                &[
                    ("limits.iops-total", "100"),
                    ("limits.iops-total-max", "50"),
                ],
                "bps_max/iops_max cannot be lower than bps/iops",
            ),
            (
                &[
                    ("limits.bps-read", "5"),
                    ("limits.bps-read-max-length", "100"),
                ],
                "burst length set without burst rate",
            ),
            (
                &[("x-bps-total-max-length", "0")],
                "the burst length cannot be 0",
            ),
            (
                &[("limits.bps-read-max-length", "100000000000")],
                "bps-read-max-length value must be in the range [0, 4294967295]",
            ),
            (
                &[("x-iops-size", "5")],
                "iops size requires an iops value to be set",
            ),
            (
                &[("x-bps-total", "1000000000000001")],
                "bps/iops/max values must be within [0, 1000000000000000]",
            ),
        ] {
            assert_eq!(limits(properties).unwrap_err().to_string(), refusal);
        }
        let newer = [("limits.bps-read", "6"), ("x-bps-read", "5")];
        assert_eq!(limits(&newer).unwrap(), limits(&newer[..1]).unwrap());
        assert!(limits(&[]).unwrap().is_none());
    }

    #[test]
    fn requests_wait_for_what_was_taken_before_them() {
        let bytes = limits(&[("limits.bps-total", "1000")]).unwrap();
        // A tenth of a second is free.
        assert_eq!(
            waits(&bytes, false, &[100, 1000, 500, 1]),
            [0, 0, 1000, 1500]
        );
        let requests = limits(&[("limits.iops-write", "10")]).unwrap();
        assert_eq!(waits(&requests, true, &[1, 1, 1, 1]), [0, 0, 100, 200]);
        assert_eq!(waits(&requests, false, &[1, 1, 1, 1]), [0; 4]);
        let sized = limits(&[("limits.iops-total", "10"), ("limits.iops-size", "100")]).unwrap();
        assert_eq!(waits(&sized, true, &[500, 1, 1]), [0, 400, 500]);
    }

    #[test]
    fn bursts_end_after_their_length() {
        let burst = limits(&[
            ("limits.bps-total", "100"),
            ("limits.bps-total-max", "1000"),
            ("limits.bps-total-max-length", "2"),
        ])
        .unwrap();
        // The burst rate applies from the beginning, and the sustained one after 2000 bytes.
        assert_eq!(
            waits(&burst, false, &[1000, 1000, 1000, 1]),
            [0, 900, 1900, 10_000]
        );
        let mut state = State::default();
        let start = Instant::now();
        let mut take = |bytes, seconds| {
            let at = start + Duration::from_secs(seconds);
            state.take(&burst, false, bytes, at).as_millis()
        };
        assert_eq!(take(2000, 0), 0);
        assert_eq!(take(1, 20), 0);
        assert_eq!(take(2000, 20), 0);
        // Both rates have applied since then.
        assert_eq!(take(1, 22), 0);
        assert_eq!(take(1, 22), 0);
    }

    #[test]
    fn a_wait_ends_when_the_work_is_cancelled() {
        let group = ThrottleGroup::new(limits(&[("limits.bps-total", "1")]).unwrap());
        let control = JobControl::default();
        group.admit(false, 1 << 40, &control).unwrap();
        control.cancel();
        let error = group.admit(true, 1, &control).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Cancelled);
    }
}
