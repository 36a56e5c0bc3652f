//! How many bytes identify the contents of a file, and known contents without a driver. How a format is recognised is
//! part of its own description.

use crate::format::{Probe, Signature};

/// Number of bytes at the beginning of a file that are probed.
pub const PROBE_BYTES: usize = 512;

/// Offsets of a footer from the end of the file: older VHD files have a footer of 511 bytes.
pub const FOOTERS: [u64; 2] = [512, 511];

/// Known contents without a driver.
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

/// Contents that inspection names but probing treats as a raw disk, as QEMU does.
pub const UNPROBED: &[Foreign] = &[foreign("luks2", u8::MAX, |file| {
    file.starts(b"LUKS\xba\xbe") && !file.at(6, &[0, 1])
})];
