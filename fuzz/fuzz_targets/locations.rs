//! Any name as a location: a path, a protocol, `json:` or `driver=…`. Nothing is opened.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use platter::Location;
use platter::location::{protocol_of, resolve_name};

fuzz_target!(|data: &[u8]| {
    let name = OsStr::from_bytes(data);
    if let Ok(location) = Location::parse(name) {
        let _ = location.display();
        // What is shown opens the same.
        let again = Location::parse(location.text()).expect("its own text");
        assert_eq!(location.node(), again.node(), "the location changes");
    }
    if let Ok(location) = Location::from_image_opts(name) {
        let _ = location.display();
    }
    let _ = Location::for_target(name);
    let _ = protocol_of(name);
    for overlay in ["", "a/b", "json:{}", "nbd://x"] {
        let _ = resolve_name(OsStr::new(overlay), name);
    }
});
