//! Time stamps in footers and headers: "Time Stamp" of the specification.

use std::time::{Duration, SystemTime};

/// Time is counted from the beginning of the year 2000.
const EPOCH: Duration = Duration::from_secs(946_684_800);

/// Seconds since the year 2000, capped to what the field can hold; 0 for earlier times.
pub(crate) fn seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH + EPOCH);
    since.map_or(0, |since| {
        u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_counts_from_the_year_2000() {
        for (unix, expected) in [
            (0, 0),
            (946_684_800, 0),
            (1_700_000_000, 753_315_200),
            (1 << 34, u32::MAX),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(unix);
            assert_eq!(seconds(time), expected, "{unix}");
        }
    }
}
