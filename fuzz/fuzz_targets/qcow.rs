//! Images of the first qcow with edits of the header and the tables.
#![no_main]

use libfuzzer_sys::fuzz_target;
use platter_fuzz::structures::{Case, Kind, Target};

static TARGET: Target = Target::new(Kind {
    format: "qcow",
    big_endian: true,
    seal: |_| {},
    more: Vec::new,
});

fuzz_target!(|case: Case| TARGET.run(&case));
