//! Exports: the data of the options `INFO` and `GO`, and of the replies `INFO` and `SERVER`
//! ("Option types", "Option reply types").

use bstr::{BStr, BString, ByteSlice};

use crate::error::Result;

use super::fields::{Fields, Taker, push_string};
use super::flags::TransmissionFlags;
use super::limits::{MAX_MINIMUM_BLOCK, UNLIMITED_BLOCK};
use super::{checked_string, violation};

/// Identifies a kind of information about an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InfoCode(pub u16);

impl InfoCode {
    /// The size and capabilities; always sent.
    pub const EXPORT: Self = Self(0);
    /// The canonical name.
    pub const NAME: Self = Self(1);
    /// A description for humans.
    pub const DESCRIPTION: Self = Self(2);
    /// The block sizes.
    pub const BLOCK_SIZE: Self = Self(3);
}

/// The data of `INFO` and `GO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoRequest {
    /// The export; the default one if empty.
    pub name: BString,
    /// The information requested in addition to [`InfoCode::EXPORT`].
    pub wanted: Vec<InfoCode>,
}

impl InfoRequest {
    /// Encodes it for sending.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.name.len() + 6 + 2 * self.wanted.len());
        push_string(&mut bytes, &self.name);
        let count = u16::try_from(self.wanted.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&count.to_be_bytes());
        for code in self.wanted.iter().take(usize::from(count)) {
            bytes.extend_from_slice(&code.0.to_be_bytes());
        }
        bytes
    }

    /// Decodes it as received.
    ///
    /// # Errors
    /// [`violation`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let bad = || violation("The length of the request for information does not fit");
        let mut taker = Taker(bytes);
        let name = taker.string("name of the export")?.ok_or_else(bad)?;
        let count = taker.u16().ok_or_else(bad)?;
        if taker.0.len() != usize::from(count) * 2 {
            return Err(bad());
        }
        let wanted = std::iter::from_fn(|| taker.u16()).map(InfoCode).collect();
        Ok(Self {
            name: name.to_owned(),
            wanted,
        })
    }
}

/// Block sizes ("Block size constraints").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    /// Offsets and lengths are multiples of this.
    pub minimum: u32,
    /// Requests that are multiples of this are efficient.
    pub preferred: u32,
    /// Maximum length of a request with data; [`UNLIMITED_BLOCK`] if there is none.
    pub maximum: u32,
}

impl BlockSizes {
    fn check(self) -> Result<Self> {
        let minimum = self.minimum;
        if !minimum.is_power_of_two() || minimum > MAX_MINIMUM_BLOCK {
            return Err(violation(format!(
                "The minimum block size {minimum} is not a power of two up to {MAX_MINIMUM_BLOCK}"
            )));
        }
        if !self.preferred.is_power_of_two() || self.preferred < minimum {
            return Err(violation(format!(
                "The preferred block size {} is not a power of two from {minimum} on",
                self.preferred
            )));
        }
        let maximum = self.maximum;
        let whole = maximum == UNLIMITED_BLOCK || maximum.is_multiple_of(minimum);
        if !whole || maximum < minimum {
            return Err(violation(format!(
                "The maximum block size {maximum} is not a multiple of the minimum {minimum}"
            )));
        }
        Ok(self)
    }
}

/// The data of one reply `INFO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Info {
    /// The size in bytes, and the capabilities.
    Export {
        /// The size in bytes.
        size: u64,
        /// Its capabilities.
        flags: TransmissionFlags,
    },
    /// The canonical name.
    Name(BString),
    /// A description for humans.
    Description(BString),
    /// The block sizes.
    BlockSizes(BlockSizes),
    /// Anything else, which clients ignore.
    Other(InfoCode),
}

impl Info {
    /// Encodes it for sending.
    pub fn to_bytes(&self) -> Vec<u8> {
        let text = |code: InfoCode, text: &BStr| [&code.0.to_be_bytes(), text.as_bytes()].concat();
        match self {
            Self::Export { size, flags } => Fields::<12>::new()
                .u16(InfoCode::EXPORT.0)
                .u64(*size)
                .u16(flags.bits())
                .end()
                .to_vec(),
            Self::Name(name) => text(InfoCode::NAME, name.as_bstr()),
            Self::Description(words) => text(InfoCode::DESCRIPTION, words.as_bstr()),
            Self::BlockSizes(sizes) => Fields::<14>::new()
                .u16(InfoCode::BLOCK_SIZE.0)
                .u32(sizes.minimum)
                .u32(sizes.preferred)
                .u32(sizes.maximum)
                .end()
                .to_vec(),
            Self::Other(code) => code.0.to_be_bytes().to_vec(),
        }
    }

    /// Decodes it as received.
    ///
    /// # Errors
    /// [`violation`]: an inconsistent length, or invalid block sizes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let bad = || violation("The length of the information about the export does not fit");
        let mut taker = Taker(bytes);
        let code = InfoCode(taker.u16().ok_or_else(bad)?);
        let rest = taker.0.len();
        match code {
            InfoCode::EXPORT if rest == 10 => {
                let size = taker.u64().ok_or_else(bad)?;
                let flags = taker.u16().ok_or_else(bad)?;
                let flags = TransmissionFlags::from_bits_retain(flags);
                Ok(Self::Export { size, flags })
            }
            InfoCode::BLOCK_SIZE if rest == 12 => {
                let sizes = BlockSizes {
                    minimum: taker.u32().ok_or_else(bad)?,
                    preferred: taker.u32().ok_or_else(bad)?,
                    maximum: taker.u32().ok_or_else(bad)?,
                };
                sizes.check().map(Self::BlockSizes)
            }
            InfoCode::EXPORT | InfoCode::BLOCK_SIZE => Err(bad()),
            InfoCode::NAME => {
                checked_string(taker.0, "name of the export").map(|s| Self::Name(s.to_owned()))
            }
            InfoCode::DESCRIPTION => checked_string(taker.0, "description of the export")
                .map(|s| Self::Description(s.to_owned())),
            other => Ok(Self::Other(other)),
        }
    }
}

/// The data of one reply `SERVER`: an entry in the list of exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: BString,
    /// A description for humans.
    pub description: BString,
}

impl Listed {
    /// Encodes it for sending.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + self.name.len() + self.description.len());
        push_string(&mut bytes, &self.name);
        bytes.extend_from_slice(&self.description);
        bytes
    }

    /// Decodes it as received.
    ///
    /// # Errors
    /// [`violation`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut taker = Taker(bytes);
        let name = taker.string("name of the export")?;
        let name = name.ok_or_else(|| violation("The name of the export passes its reply"))?;
        let description = checked_string(taker.0, "description of the export")?;
        Ok(Self {
            name: name.to_owned(),
            description: description.to_owned(),
        })
    }
}
