//! The dirty bitmaps of the format extension ("Dirty bitmaps feature"). They are read as long as the image is not
//! written, and are not kept up to date.

use std::ops::Range;

use bstr::BStr;

use crate::error::{Error, Result};
use crate::format::bit_table::{self, Entry, Measures};
use crate::format::blocks::Layout;
use crate::format::{BitmapInfo, Bitmaps, DirtyRanges, Format};
use crate::job::JobControl;
use crate::memory::{self, IoBuf};
use crate::storage::read_exact_at;

use super::Parallels;
use super::extension::{Bits, DirtyBitmap};

impl Bitmaps for Parallels {
    fn covered(&self) -> u64 {
        self.len()
    }

    fn list(&self) -> Result<Vec<BitmapInfo>> {
        memory::collect(self.own.bitmaps.iter().map(|bitmap| BitmapInfo {
            name: bitmap.name.clone(),
            granularity: bitmap.granularity,
            enabled: true,
            inconsistent: false,
        }))
    }

    fn add(&self, _: &BStr, _: Option<u64>, _: &JobControl) -> Result<()> {
        Err(not_changed())
    }

    fn add_filled(
        &self,
        _: &BStr,
        _: u64,
        _: bool,
        _: &mut DirtyRanges<'_>,
        _: &JobControl,
    ) -> Result<()> {
        Err(not_changed())
    }

    fn remove(&self, _: &BStr, _: &JobControl) -> Result<()> {
        Err(not_changed())
    }

    fn clear(&self, _: &BStr, _: &JobControl) -> Result<()> {
        Err(not_changed())
    }

    fn set_enabled(&self, _: &BStr, _: bool, _: &JobControl) -> Result<()> {
        Err(not_changed())
    }

    fn finish(&self, _: &JobControl) -> Result<()> {
        Ok(())
    }

    fn visit_dirty(
        &self,
        name: &BStr,
        range: Range<u64>,
        control: &JobControl,
        visit: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<()> {
        let mut bitmaps = self.own.bitmaps.iter();
        let bitmap = bitmaps
            .find(|bitmap| bitmap.name == name)
            .ok_or_else(|| Error::no_such_bitmap(name))?;
        self.visit_bits(bitmap, range, control, &mut |run| {
            control.check()?;
            visit(run.start, run.end - run.start)
        })
    }

    fn mark(&self, _: &BStr, _: &mut DirtyRanges<'_>, _: &JobControl) -> Result<()> {
        Err(not_changed())
    }
}

fn not_changed() -> Error {
    Error::unsupported("The dirty bitmaps of a Parallels image are only read")
}

impl Parallels {
    fn visit_bits(
        &self,
        bitmap: &DirtyBitmap,
        range: Range<u64>,
        control: &JobControl,
        visit: &mut dyn FnMut(Range<u64>) -> Result<()>,
    ) -> Result<()> {
        let cluster = self.blocks.layout().block_size();
        let granularity = bitmap.granularity;
        let measures = Measures {
            span: granularity.saturating_mul(cluster * 8),
            granularity,
        };
        let entry = |index: u64, _: Range<u64>, bytes: &mut IoBuf| {
            let index = usize::try_from(index).ok();
            match index.and_then(|index| bitmap.table.get(index)) {
                None | Some(Bits::Clear) => Ok(Entry::Clear),
                Some(Bits::Set) => Ok(Entry::Set),
                Some(Bits::At(place)) => {
                    if bytes.is_empty() {
                        *bytes = memory::zeroed(cluster as usize)?;
                    }
                    read_exact_at(&*self.blocks.storage, bytes, *place)?;
                    Ok(Entry::Stored)
                }
            }
        };
        let range = range.start..range.end.min(self.len());
        bit_table::visit_set(measures, range, control, entry, visit)
    }
}
