//! Applies a product's requirements for its images to a conversion.

use bstr::BStr;

use crate::error::{Error, Result};
use crate::format::Profile;

use super::request::ConvertRequest;

/// The same conversion with the profile's settings applied.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] if the caller requested something else.
pub(super) fn applied(
    request: &ConvertRequest,
    profile: &'static Profile,
) -> Result<ConvertRequest> {
    let mut request = request.clone();
    if request.target.whole_chain
        && let Some(package) = profile.package
    {
        return Err(Error::unsupported(format!(
            "The profile '{}' puts one disk into a file ({}), and a whole chain is several",
            profile.name, package.name
        )));
    }
    request.source.window.product = Some(profile);
    request.target.format = Some(profile.driver.name.to_owned());
    let options = &mut request.target.options;
    for (key, value) in profile.options {
        match options.get(key) {
            Some(given) if given != BStr::new(value) => {
                return Err(Error::invalid(format!(
                    "The profile '{}' needs {key}={value}, not {given}",
                    profile.name
                )));
            }
            Some(_) => {}
            None => options.set(*key, *value),
        }
    }
    Ok(request)
}
