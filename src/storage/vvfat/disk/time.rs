//! Dates and times of directory entries (section "Date and Time Formats"). The format has no time zone; UTC is used
//! here, so that a directory yields the same disk everywhere.

/// Converts seconds since 1970 to a date and time, clamped to the years 1980 to 2107.
pub(in super::super) fn of_seconds(seconds: i64) -> (u16, u16) {
    const FIRST: i64 = 315_532_800; // 1980-01-01
    const LAST: i64 = 4_354_819_198; // 2107-12-31 23:59:58
    let seconds = seconds.clamp(FIRST, LAST);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let date = (year - 1980) << 9 | month << 5 | day;
    let time = ((second / 3600) << 11) | ((second / 60 % 60) << 5) | (second % 60 / 2);
    (date as u16, time as u16)
}

/// Converts days since 1970 to year, month and day in the Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Years start in March, so that the leap day comes last, and are grouped into eras of 400 years.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(seconds: i64) -> [u16; 6] {
        let (date, time) = of_seconds(seconds);
        [
            1980 + (date >> 9),
            date >> 5 & 15,
            date & 31,
            time >> 11,
            time >> 5 & 63,
            (time & 31) * 2,
        ]
    }

    #[test]
    fn moments_are_dates_and_times_in_utc() {
        assert_eq!(parts(951_782_399), [2000, 2, 28, 23, 59, 58]);
        assert_eq!(parts(951_782_400), [2000, 2, 29, 0, 0, 0]);
        assert_eq!(parts(1_709_251_199), [2024, 2, 29, 23, 59, 58]);
        assert_eq!(parts(1_795_702_160), [2026, 11, 26, 14, 9, 20]);
        assert_eq!(parts(i64::MIN), [1980, 1, 1, 0, 0, 0]);
        assert_eq!(parts(i64::MAX), [2107, 12, 31, 23, 59, 58]);
    }
}
