//! The geometry of a disk: "CHS Calculation" in the appendix of the specification.

/// Cylinders, heads and sectors per track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) cylinders: u16,
    pub(crate) heads: u8,
    pub(crate) sectors: u8,
}

impl Geometry {
    /// The largest geometry; a disk with it is as large as its footer says.
    pub(crate) const MAX: Self = Self {
        cylinders: 65535,
        heads: 16,
        sectors: 255,
    };

    /// Sectors of a disk with this geometry.
    pub(crate) fn total(self) -> u64 {
        u64::from(self.cylinders) * u64::from(self.heads) * u64::from(self.sectors)
    }

    /// The geometry for a disk of that many sectors, which holds at most as many.
    pub(crate) fn below(sectors: u64) -> Self {
        let total = sectors.min(Self::MAX.total());
        let (mut tracks, mut heads, mut spt);
        if total >= 65535 * 16 * 63 {
            (spt, heads) = (255, 16);
            tracks = total / spt;
        } else {
            spt = 17;
            tracks = total / spt;
            heads = tracks.div_ceil(1024).max(4);
            if tracks >= heads * 1024 || heads > 16 {
                (spt, heads) = (31, 16);
                tracks = total / spt;
            }
            if tracks >= heads * 1024 {
                (spt, heads) = (63, 16);
                tracks = total / spt;
            }
        }
        Self {
            cylinders: (tracks / heads) as u16,
            heads: heads as u8,
            sectors: spt as u8,
        }
    }

    /// The smallest geometry that the calculation yields and that holds that many sectors.
    pub(crate) fn at_least(sectors: u64) -> Self {
        if sectors > Self::MAX.total() {
            return Self::MAX;
        }
        let mut asked = sectors;
        loop {
            let found = Self::below(asked);
            if found.total() >= sectors {
                return found;
            }
            asked += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_that_other_programs_arrive_at() {
        for (asked, size) in [
            (0, 0),
            (1, 34816),
            (34817, 69632),
            (500 << 10, 522_240),
            (1 << 20, 1_079_296),
            (2 << 20, 2_123_776),
            (4 << 20, 4_212_736),
            (10 << 20, 10_514_432),
            (100 << 20, 104_865_792),
            (504 << 20, 528_482_304),
            (512 << 20, 537_255_936),
            (1 << 30, 1_073_995_776),
            (10 << 30, 10_737_893_376),
            (127 << 30, 136_365_219_840),
        ] {
            let sectors = u64::div_ceil(asked, 512);
            assert_eq!(Geometry::at_least(sectors).total() * 512, size, "{asked}");
        }
        assert_eq!(Geometry::at_least((128 << 30) / 512), Geometry::MAX);
    }
}
