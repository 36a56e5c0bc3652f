//! Limits that the filter keeps requests to, so that they come in odd sizes.

use crate::error::{Error, Result};
use crate::options::Values;

/// Every limit is smaller than this.
const TOO_LARGE: u64 = i32::MAX as u64;

/// The limits, in bytes; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Requests begin and end at multiples of this.
    pub(super) align: u64,
    /// The longest read or write.
    pub(super) max_transfer: u64,
    /// Zeroing in units of this, and at most this long.
    pub(super) zero: (u64, u64),
    /// Discards likewise.
    pub(super) discard: (u64, u64),
}

impl Shape {
    /// From the options of the filter.
    pub(super) fn new(values: &Values) -> Result<Self> {
        let size = |key: &str| values.num(key).unwrap_or(0);
        let align = match size("align") {
            0 => 1,
            align if align.is_power_of_two() && align < TOO_LARGE => align,
            align => return Err(unmet("align", align)),
        };
        let checked = |key: &str, unit: u64| match size(key) {
            value if value < TOO_LARGE && value.is_multiple_of(unit) => Ok(value),
            value => Err(unmet(key, value)),
        };
        let pair = |unit: &str, longest: &str| {
            let unit = checked(unit, align)?;
            Ok::<_, Error>((unit, checked(longest, align.max(unit))?))
        };
        Ok(Self {
            align,
            max_transfer: checked("max-transfer", align)?,
            zero: pair("opt-write-zero", "max-write-zero")?,
            discard: pair("opt-discard", "max-discard")?,
        })
    }

    /// A range made larger to where requests may begin and end.
    pub(super) fn around(&self, offset: u64, len: u64) -> Result<(u64, u64)> {
        let start = offset - offset % self.align;
        let end = offset
            .checked_add(len)
            .and_then(|end| end.checked_next_multiple_of(self.align))
            .ok_or_else(|| Error::os(libc::EFBIG))?;
        Ok((start, end))
    }
}

fn unmet(key: &str, value: u64) -> Error {
    Error::invalid(format!("Cannot meet constraints with {key} {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    fn shape(list: &str) -> Result<Shape> {
        let options = Options::parse(list).unwrap();
        Shape::new(&Values::check(&options, super::super::OPEN).unwrap())
    }

    #[test]
    fn limits_that_contradict_each_other_are_refused_as_by_qemu() {
        for (list, limit) in [
            ("align=511", "align 511"),
            ("align=2G", "align 2147483648"),
            ("align=4k,max-transfer=512", "max-transfer 512"),
            ("max-transfer=2147483647", "max-transfer 2147483647"),
            (
                "max-write-zero=512,opt-write-zero=1024",
                "max-write-zero 512",
            ),
            ("max-discard=1536,opt-discard=1024", "max-discard 1536"),
            ("align=4k,opt-write-zero=512", "opt-write-zero 512"),
        ] {
            let text = shape(list).unwrap_err().to_string();
            assert_eq!(text, format!("Cannot meet constraints with {limit}"));
        }
        for fine in [
            "align=0",
            "align=2",
            "align=1G",
            "max-transfer=1000",
            "max-write-zero=1",
        ] {
            shape(fine).unwrap();
        }
    }

    #[test]
    fn ranges_grow_to_the_alignment() {
        assert_eq!(
            shape("align=4k").unwrap().around(5000, 1).unwrap(),
            (4096, 8192)
        );
    }
}
