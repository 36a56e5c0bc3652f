//! Parallels images with edits of the header, the table and the format extension.
#![no_main]

use libfuzzer_sys::fuzz_target;
use platter_fuzz::parallels::{seal, with_extensions};
use platter_fuzz::structures::{Case, Kind, Target};

static TARGET: Target = Target::new(Kind {
    format: "parallels",
    big_endian: false,
    seal,
    more: with_extensions,
});

fuzz_target!(|case: Case| TARGET.run(&case));
