//! VDI images with edits of the header and the block map.
#![no_main]

use libfuzzer_sys::fuzz_target;
use platter_fuzz::structures::{Case, Kind, Target};

static TARGET: Target = Target::new(Kind {
    format: "vdi",
    big_endian: false,
    seal: |_| {},
    more: Vec::new,
});

fuzz_target!(|case: Case| TARGET.run(&case));
