//! How much of a file recognises what it holds, and contents without a driver. A format says in its own
//! description how it is recognised.

use crate::format::{Probe, Signature};

/// How many bytes at the beginning of a file decide.
pub const PROBE_BYTES: usize = 512;

/// Where a footer begins, counted from the end of the file: VHD's had a byte less once.
pub const FOOTERS: [u64; 2] = [512, 511];

/// Contents without a driver here.
#[derive(Debug)]
pub struct Foreign {
    /// Its name.
    pub name: &'static str,
    /// How it is recognised.
    pub signature: Signature,
}

const fn foreign(name: &'static str, rank: u8, fits: fn(&Probe<'_>) -> bool) -> Foreign {
    Foreign {
        name,
        signature: Signature {
            rank,
            fits,
            footer: None,
        },
    }
}

/// Contents that inspecting names and that probing takes for a plain disk, as QEMU's does.
pub const UNPROBED: &[Foreign] = &[foreign("luks2", u8::MAX, |file| {
    file.starts(b"LUKS\xba\xbe") && !file.at(6, &[0, 1])
})];
