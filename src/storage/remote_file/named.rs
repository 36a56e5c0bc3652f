//! Merges the options with those in the name of a target.

use bstr::{BStr, BString, ByteSlice};

use crate::error::Result;
use crate::location::tree::flatten;
use crate::options::{OptionSpec, OptionValue, Values};
use crate::storage::driver::StorageTarget;
use crate::value::{Map, Value};

/// Returns the options as given, completed by those that the name stands for, and as checked against the table.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`].
pub(in crate::storage) fn given_options(
    target: &StorageTarget<'_>,
    options: &Values,
    table: &[OptionSpec],
    parse: impl FnOnce(&BStr) -> Result<Map<String, Value>>,
) -> Result<(Map<String, Value>, Values)> {
    let named = match target {
        StorageTarget::Uri(uri) => Some(uri.as_bytes().as_bstr().to_owned()),
        StorageTarget::Path(path) => Some(BString::from(path.as_os_str().as_encoded_bytes())),
        StorageTarget::Unnamed => None,
    };
    let mut given = tree_of(options);
    if let Some(name) = named {
        for (key, value) in parse(name.as_bstr())? {
            given.entry(key).or_insert(value);
        }
    }
    let values = Values::check(&flatten(&given), table)?;
    Ok((given, values))
}

/// Converts checked options back to their given form.
fn tree_of(values: &Values) -> Map<String, Value> {
    values
        .iter()
        .map(|(key, value)| {
            let value = match value {
                OptionValue::Str(text) => Value::from(text.as_str()),
                OptionValue::Name(name) => Value::String(name.clone()),
                OptionValue::Num(number) => Value::from(*number),
                OptionValue::Bool(flag) => Value::from(*flag),
            };
            (key.to_owned(), value)
        })
        .collect()
}
