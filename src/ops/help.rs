//! The help that `-o help` prints.

use crate::driver_names::{canonical, unknown_format};
use crate::error::{Error, Result};
use crate::location::Location;
use crate::ops::create::{TargetFormat, option_table};
use crate::options::help_table;

/// The options of `create` in `format`, and, if a target is given, those of its protocol.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for an unknown format, [`crate::ErrorKind::Unsupported`] if it cannot create images.
pub fn create_help(format: &str, target: Option<&Location>) -> Result<String> {
    let found = TargetFormat::creatable(format)?;
    let format = found.name();
    Ok(match target {
        Some(target) => {
            let table = option_table(found.driver, &found.location(target))?;
            format!(
                "Supported options:\n{}",
                help_table(&[&table], found.driver.own_options)
            )
        }
        None => format!(
            "Supported {format} options:\n{}\n\
             The protocol level may support further options.\n\
             Specify the target filename to include those options.\n",
            help_table(&[found.create_options()], found.driver.own_options)
        ),
    })
}

/// The options of `amend` on an image in `format`.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for an unknown format, [`crate::ErrorKind::Unsupported`] if it cannot amend images.
pub fn amend_help(format: &str) -> Result<String> {
    let driver = match TargetFormat::find(format) {
        None => return Err(unknown_format(format)),
        Some(found) => found.protocol.is_none().then_some(found.driver),
    };
    let format = canonical(format);
    let Some(driver) = driver.filter(|driver| !driver.amend_options.is_empty()) else {
        return Err(Error::unsupported(format!(
            "Format driver '{format}' does not support option amendment"
        )));
    };
    Ok(format!(
        "Amend options for '{format}':\n{}",
        help_table(&[driver.amend_options], driver.own_options)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_without_a_target_says_that_there_may_be_more() {
        let help = create_help("raw", None).unwrap();
        assert!(help.starts_with("Supported raw options:\n"));
        assert!(help.ends_with("Specify the target filename to include those options.\n"));
        assert_eq!(
            create_help("bogus", None).unwrap_err().to_string(),
            "Unknown file format 'bogus'"
        );
        assert_eq!(
            amend_help("raw").unwrap_err().to_string(),
            "Format driver 'raw' does not support option amendment"
        );
    }
}
