//! The format of a new image, by name.

use crate::driver_names::unknown_format;
use crate::error::{Error, Result};
use crate::filter::registry as filters;
use crate::format::{FormatDriver, registry};
use crate::location::Location;
use crate::options::OptionSpec;
use crate::storage::StorageDriver;
use crate::storage::registry as protocols;

/// What a new image can be created as: a format, or instead a protocol, whose files are plain disks.
#[derive(Clone, Copy, Debug)]
pub struct TargetFormat {
    /// The format's driver.
    pub driver: &'static FormatDriver,
    /// The protocol that was named instead of a format.
    pub protocol: Option<&'static StorageDriver>,
}

impl TargetFormat {
    /// The format with that name, if there is one, whether or not it can create images.
    pub fn find(name: &str) -> Option<Self> {
        let of = |driver, protocol| Self { driver, protocol };
        match registry::by_name(name) {
            Some(driver) => Some(of(driver, None)),
            None => protocols::find(name).map(|protocol| of(registry::plain(), Some(protocol))),
        }
    }

    /// Whether there is a driver with that name, including one that cannot create images.
    pub fn is_known(name: &str) -> bool {
        Self::find(name).is_some() || filters::by_name(name).is_some()
    }

    /// As [`TargetFormat::find`], if it can create images.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for an unknown name, [`crate::ErrorKind::Unsupported`] if it cannot create images.
    pub fn creatable(name: &str) -> Result<Self> {
        if filters::by_name(name).is_some() {
            return Err(Error::no_creation(name));
        }
        let found = Self::find(name).ok_or_else(|| unknown_format(name))?;
        let creates = match found.protocol {
            Some(protocol) => protocol.create.is_some(),
            None => found.driver.create.is_some(),
        };
        if !creates {
            return Err(Error::no_creation(name));
        }
        Ok(found)
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.protocol
            .map_or(self.driver.name, |protocol| protocol.name)
    }

    /// The creation options of the format alone, without those of a target's protocol.
    pub fn create_options(&self) -> &'static [OptionSpec] {
        match self.protocol {
            Some(protocol) => protocol.create_options,
            None => self.driver.create_options,
        }
    }

    /// The location that the file name denotes with this format.
    pub fn location(&self, location: &Location) -> Location {
        match self.protocol {
            Some(protocol) => location.clone().with_protocol(protocol.name),
            None => location.clone(),
        }
    }
}
