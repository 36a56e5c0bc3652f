//! The "Formatting" line: what `create` is about to do.

use std::os::unix::ffi::OsStrExt;

use bstr::{BStr, BString};

use super::CreateRequest;
use super::target::creating_protocol;
use crate::format::FormatDriver;
use crate::options::{OptionValue, Values, double_commas};
use crate::printable::without_passwords;

/// Protocol keys that are shown after those of the format; those of other protocols follow them.
const PROTOCOL_KEYS: &[&str] = &["nocow", "preallocation", "extent_size_hint"];

/// `Formatting 'NAME', fmt=FORMAT key=value…`. Strings and switches appear as typed, numbers in decimal; what is not
/// given is only shown if the format has a default to show.
pub(super) fn summary(
    request: &CreateRequest,
    driver: &FormatDriver,
    values: &Values,
    size: u64,
    backing: (Option<&BStr>, Option<&str>),
) -> BString {
    let mut line = BString::from("Formatting '");
    line.extend_from_slice(&without_passwords(request.location.text().as_bytes()));
    line.extend_from_slice(format!("', fmt={}", request.format).as_bytes());
    let of_protocol = PROTOCOL_KEYS
        .iter()
        .filter(|key| driver.summary.iter().all(|(known, _)| known != *key))
        .map(|key| (*key, None));
    let protocol = creating_protocol(driver, &request.location).ok();
    let specs = protocol.map_or(&[][..], |protocol| protocol.create_options);
    let others = specs.iter().map(|spec| spec.name);
    let others = others.filter(|key| {
        let known =
            PROTOCOL_KEYS.contains(key) || driver.summary.iter().any(|(known, _)| known == key);
        !known && !driver.create_options.iter().any(|spec| spec.name == *key)
    });
    let others = others.filter(|key| *key != "size").map(|key| (key, None));
    let keys = driver.summary.iter().copied().chain(of_protocol);
    for (key, default) in keys.chain(others) {
        let value = match key {
            "size" => Some(size.to_string().into()),
            "backing_file" => backing
                .0
                .map(|name| double_commas(BStr::new(&without_passwords(name)))),
            "backing_fmt" => backing.1.map(double_commas),
            _ => given(request, values, key),
        };
        if let Some(value) = value.or_else(|| default.map(BString::from)) {
            line.extend_from_slice(format!(" {key}=").as_bytes());
            line.extend_from_slice(&value);
        }
    }
    line
}

/// The value of an option that was given.
fn given(request: &CreateRequest, values: &Values, key: &str) -> Option<BString> {
    let typed = request.options.get(key)?;
    Some(match values.get(key)? {
        // A negative number keeps its sign; sizes cannot be negative.
        OptionValue::Num(n) if typed.starts_with(b"-") => (*n as i64).to_string().into(),
        OptionValue::Num(n) => n.to_string().into(),
        OptionValue::Str(_) | OptionValue::Name(_) | OptionValue::Bool(_) => {
            double_commas(BStr::new(&without_passwords(typed)))
        }
    })
}
