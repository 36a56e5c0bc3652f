//! What products require of images beyond the format.

use crate::error::Result;
use crate::format::driver::FormatDriver;
use crate::format::inspect::{InspectContext, Inspection};
use crate::format::objection::Objection;
use crate::format::package::Package;
use crate::size::human_size;

/// A product and its requirements.
#[derive(Debug)]
pub struct Profile {
    /// The name by which users select it: `azure`.
    pub name: &'static str,
    /// The name of the product, for display.
    pub product: &'static str,
    /// The format of its images.
    pub driver: &'static FormatDriver,
    /// The creation options that such images need.
    pub options: &'static [(&'static str, &'static str)],
    /// The package that it requires around the image, unless it takes the image file itself.
    pub package: Option<&'static Package>,
    /// The virtual sizes that it accepts.
    pub sizes: Sizes,
    /// What else users have to know, one sentence each.
    pub notes: &'static [&'static str],
    /// Finds what the product would refuse in an image of the format; sizes have been checked before.
    pub check: CheckFn,
}

/// See [`Profile::check`].
pub type CheckFn = fn(&InspectContext<'_>, &mut Vec<Objection>) -> Result<()>;

/// Virtual sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// They are multiples of this.
    pub multiple: u64,
    /// The smallest.
    pub least: u64,
    /// The largest.
    pub most: u64,
}

impl PartialEq for Profile {
    /// Names are unique.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Profile {}

impl Profile {
    /// Everything that the product would refuse in a file.
    ///
    /// # Errors
    /// If reading fails.
    pub fn objections(
        &self,
        context: &InspectContext<'_>,
        inspection: &Inspection,
    ) -> Result<Vec<Objection>> {
        let mut found = Vec::new();
        if let Some(size) = inspection.virtual_size {
            self.sizes.check(size, &mut found);
        }
        (self.check)(context, &mut found)?;
        Ok(found)
    }
}

impl Sizes {
    /// The smallest accepted size that is not less than `size`.
    pub fn next(&self, size: u64) -> Option<u64> {
        let next = size.max(self.least).checked_next_multiple_of(self.multiple);
        next.filter(|size| *size <= self.most)
    }

    fn check(&self, size: u64, found: &mut Vec<Objection>) {
        if !size.is_multiple_of(self.multiple) {
            found.push(Objection::new(
                format!(
                    "The virtual size of {size} bytes is no multiple of {}",
                    human_size(self.multiple)
                ),
                match self.next(size) {
                    Some(next) => format!("Resize the image to {next} bytes"),
                    None => format!("Resize the image to {} bytes", self.most),
                },
            ));
        }
        if size < self.least || size > self.most {
            found.push(Objection::new(
                format!("The virtual size is {}", human_size(size)),
                format!(
                    "It has to be between {} and {}",
                    human_size(self.least),
                    human_size(self.most)
                ),
            ));
        }
    }
}
