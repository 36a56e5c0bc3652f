//! The format of a new image by its name.

use crate::driver_names::unknown_format;
use crate::error::{Error, Result};
use crate::filter::registry as filters;
use crate::format::{FormatDriver, registry};
use crate::location::Location;
use crate::options::OptionSpec;
use crate::storage::StorageDriver;
use crate::storage::registry as protocols;

/// What a new image can be made as: a format, or in its place a protocol, whose files are plain disks.
#[derive(Clone, Copy, Debug)]
pub struct TargetFormat {
    /// The format's driver.
    pub driver: &'static FormatDriver,
    /// The protocol that was named in its place.
    pub protocol: Option<&'static StorageDriver>,
}

impl TargetFormat {
    /// The format of that name, if there is one, whether it can create or not.
    pub fn find(name: &str) -> Option<Self> {
        let of = |driver, protocol| Self { driver, protocol };
        match registry::by_name(name) {
            Some(driver) => Some(of(driver, None)),
            None => protocols::find(name).map(|protocol| of(registry::plain(), Some(protocol))),
        }
    }

    /// Whether there is a driver of that name, including one that creates nothing.
    pub fn is_known(name: &str) -> bool {
        Self::find(name).is_some() || filters::by_name(name).is_some()
    }

    /// As [`TargetFormat::find`], if it can create.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for an unknown name, [`crate::ErrorKind::Unsupported`] where it
    /// cannot create.
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

    /// The options of creation by themselves, without those of a target's protocol.
    pub fn create_options(&self) -> &'static [OptionSpec] {
        match self.protocol {
            Some(protocol) => protocol.create_options,
            None => self.driver.create_options,
        }
    }

    /// Where the file name leads with this format.
    pub fn location(&self, location: &Location) -> Location {
        match self.protocol {
            Some(protocol) => location.clone().with_protocol(protocol.name),
            None => location.clone(),
        }
    }
}
