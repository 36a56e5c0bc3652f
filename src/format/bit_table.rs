//! Bit tables that cover a disk, as used to store dirty bitmaps: each entry covers a span of guest bytes.

use std::ops::Range;

use crate::error::Result;
use crate::format::bits::{self, Joined};
use crate::job::JobControl;
use crate::memory::IoBuf;

/// The state of the span of a table entry.
pub(crate) enum Entry {
    /// No bit is set.
    Clear,
    /// All bits are set.
    Set,
    /// The bits are those that the buffer now holds.
    Stored,
}

/// Dimensions of a table, in guest bytes.
#[derive(Clone, Copy)]
pub(crate) struct Measures {
    /// Guest bytes per entry.
    pub(crate) span: u64,
    /// Guest bytes per bit.
    pub(crate) granularity: u64,
}

/// Passes the runs of guest bytes in `range` whose bits are set to `visit`, in order and as long as possible, also
/// across entries. `entry` determines the state of the entry with the given number, which covers the given guest bytes.
///
/// # Errors
/// The errors of `entry`, `visit` and `control`, each of which stops it.
pub(crate) fn visit_set(
    measures: Measures,
    range: Range<u64>,
    control: &JobControl,
    mut entry: impl FnMut(u64, Range<u64>, &mut IoBuf) -> Result<Entry>,
    visit: &mut dyn FnMut(Range<u64>) -> Result<()>,
) -> Result<()> {
    let Measures { span, granularity } = measures;
    let mut bytes = IoBuf::new();
    let mut joined = Joined::new(visit);
    let mut at = range.start;
    while at < range.end {
        control.check()?;
        let start = at - at % span;
        let end = start.saturating_add(span).min(range.end);
        match entry(at / span, start..end, &mut bytes)? {
            Entry::Clear => {}
            Entry::Set => joined.add(at..end)?,
            Entry::Stored => {
                let wanted = (at - start) / granularity..(end - start).div_ceil(granularity);
                bits::visit_runs(&bytes, wanted, |run| {
                    let place = |bit: u64| start.saturating_add(bit.saturating_mul(granularity));
                    joined.add(place(run.start).max(at)..place(run.end).min(end))
                })?;
            }
        }
        at = end;
    }
    joined.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;

    fn set_runs(range: Range<u64>) -> Vec<(u64, u64)> {
        let measures = Measures {
            span: 8 * 512,
            granularity: 512,
        };
        let mut found = Vec::new();
        let entry = |index: u64, _: Range<u64>, bytes: &mut IoBuf| {
            *bytes = memory::zeroed(1)?;
            Ok(match index {
                0 => Entry::Clear,
                1 => {
                    bits::set(bytes, 6..8);
                    Entry::Stored
                }
                2 => Entry::Set,
                _ => {
                    bits::set(bytes, 0..1);
                    Entry::Stored
                }
            })
        };
        visit_set(measures, range, &JobControl::default(), entry, &mut |run| {
            found.push((run.start, run.end));
            Ok(())
        })
        .unwrap();
        found
    }

    #[test]
    fn runs_join_across_entries_and_end_where_the_range_does() {
        let (start, end) = ((8 + 6) * 512, (24 + 1) * 512);
        assert_eq!(set_runs(0..32 * 512), [(start, end)]);
        assert_eq!(set_runs(start + 100..end - 100), [(start + 100, end - 100)]);
        assert_eq!(set_runs(0..start), []);
    }
}
