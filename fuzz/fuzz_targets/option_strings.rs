//! Any text as options: parsed, checked against the table of each driver, and written out again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use platter::format::registry;
use platter::options::{Options, Values, asks_for_help, double_commas};

fuzz_target!(|data: &[u8]| {
    let _ = asks_for_help(data);
    let Ok(options) = Options::parse(data) else {
        return;
    };
    let mut again = Vec::new();
    for (key, value) in options.iter() {
        if !again.is_empty() {
            again.push(b',');
        }
        again.extend_from_slice(key.as_bytes());
        again.push(b'=');
        again.extend_from_slice(&double_commas(value));
    }
    if let Ok(second) = Options::parse(&again) {
        assert!(options.iter().eq(second.iter()), "the options change");
    }
    for driver in registry::drivers() {
        for table in [
            driver.create_options,
            driver.open_options,
            driver.amend_options,
        ] {
            if let Ok(values) = Values::check(&options, table) {
                for spec in table {
                    let _ = values.get(spec.name);
                }
            }
        }
    }
});
