//! What a product wants of its images, put into a conversion.

use bstr::BStr;

use crate::error::{Error, Result};
use crate::format::Profile;

use super::request::ConvertRequest;

/// The same conversion with what the profile decides.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] where the caller wants something else.
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
