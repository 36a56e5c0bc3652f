//! Bits as stored by dirty bitmaps: the first is the least significant bit of the first byte.

use std::ops::Range;

use crate::error::Result;

/// Sets a range of bits.
pub(crate) fn set(bytes: &mut [u8], range: Range<u64>) {
    change(bytes, range, |byte, mask| *byte |= mask);
}

/// Clears a range of bits.
pub(crate) fn clear(bytes: &mut [u8], range: Range<u64>) {
    change(bytes, range, |byte, mask| *byte &= !mask);
}

fn change(bytes: &mut [u8], range: Range<u64>, apply: impl Fn(&mut u8, u8)) {
    let mut bit = range.start;
    while bit < range.end {
        let end = range.end.min((bit / 8 + 1) * 8);
        let mask = (0xffu16 << (bit % 8)) as u8 & (0xffu16 >> ((8 - end % 8) % 8)) as u8;
        if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
            apply(byte, mask);
        }
        bit = end;
    }
}

/// The first bit at or after `range.start` that is (not) set; `range.end` if there is none.
pub(crate) fn find(bytes: &[u8], range: Range<u64>, set: bool) -> u64 {
    let mut bit = range.start;
    while bit < range.end {
        let byte = bytes.get((bit / 8) as usize).copied().unwrap_or(0);
        let wanted = if set { byte } else { !byte } >> (bit % 8);
        if wanted != 0 {
            return (bit + u64::from(wanted.trailing_zeros())).min(range.end);
        }
        bit = (bit / 8 + 1) * 8;
    }
    range.end
}

/// Passes each run of set bits in `range` to `visit`.
///
/// # Errors
/// The errors of `visit`, which stop it.
pub(crate) fn visit_runs(
    bytes: &[u8],
    range: Range<u64>,
    mut visit: impl FnMut(Range<u64>) -> Result<()>,
) -> Result<()> {
    let mut at = range.start;
    loop {
        let start = find(bytes, at..range.end, true);
        if start >= range.end {
            return Ok(());
        }
        at = find(bytes, start..range.end, false);
        visit(start..at)?;
    }
}

/// Joins adjacent runs. They are not collected, since there may be millions.
pub(crate) struct Joined<'a> {
    pending: Range<u64>,
    visit: &'a mut dyn FnMut(Range<u64>) -> Result<()>,
}

impl<'a> Joined<'a> {
    pub(crate) fn new(visit: &'a mut dyn FnMut(Range<u64>) -> Result<()>) -> Self {
        Self {
            pending: 0..0,
            visit,
        }
    }

    /// Adds the next run, which must not begin before the end of the last one.
    ///
    /// # Errors
    /// The errors of the visitor.
    pub(crate) fn add(&mut self, run: Range<u64>) -> Result<()> {
        if run.start == self.pending.end {
            self.pending.end = run.end;
            return Ok(());
        }
        let whole = std::mem::replace(&mut self.pending, run);
        match whole.is_empty() {
            true => Ok(()),
            false => (self.visit)(whole),
        }
    }

    /// Passes on the last run, which was held back in case another one adjoins it.
    ///
    /// # Errors
    /// The errors of the visitor.
    pub(crate) fn end(self) -> Result<()> {
        match self.pending.is_empty() {
            true => Ok(()),
            false => (self.visit)(self.pending),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn like_a_list_of_truths(
            ranges in proptest::collection::vec((any::<bool>(), 0u64..200, 0u64..200), 0..8),
            from in 0u64..200,
        ) {
            let mut bytes = vec![0u8; 25];
            let mut model = [false; 200];
            for (value, a, b) in ranges {
                let range = a.min(b)..a.max(b);
                model[range.start as usize..range.end as usize].fill(value);
                if value { set(&mut bytes, range) } else { clear(&mut bytes, range) }
            }
            for (bit, value) in model.iter().enumerate() {
                prop_assert_eq!(bytes[bit / 8] >> (bit % 8) & 1 == 1, *value);
            }
            let mut seen = [false; 200];
            let mut last = None;
            visit_runs(&bytes, from..200, |run| {
                assert!(run.start < run.end && last < Some(run.start));
                last = Some(run.end);
                seen[run.start as usize..run.end as usize].fill(true);
                Ok(())
            })
            .unwrap();
            model[..from as usize].fill(false);
            prop_assert_eq!(seen, model);
        }
    }
}
