//! The warning about a raw format that was only guessed.

/// What the user of a writable image learns when its raw format was guessed; three lines.
pub(super) fn probed_raw_warning(name: &str) -> String {
    format!(
        "WARNING: Image format was not specified for '{name}' and probing guessed raw.\n\
         \x20        Automatically detecting the format is dangerous for raw images, write operations \
         on block 0 will be restricted.\n\
         \x20        Specify the 'raw' format explicitly to remove the restrictions."
    )
}
