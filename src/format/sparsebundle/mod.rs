//! Sparse bundles of macOS (UDSB): a directory with a file for each band of the disk that was written. Read-only.
//!
//! See `docs/formats/sparsebundle.md`.

mod bands;
mod info;
mod inspect;
mod numbering;
mod plain;

use std::sync::Arc;

use bstr::BStr;

use crate::error::{Result, ResultExt};
use crate::format::encrcdsa;
use crate::format::read_only::{Contents, GuestRun, Held, ReadOnly, SizedStorage};
use crate::format::{ChildSpec, Format, FormatDriver, OpenContext, Signature};
use crate::policy::ImplicitRole;
use crate::storage::Storage;

use bands::Bands;
use info::Info;
use plain::PlainBands;

/// The file that represents the directory.
const INFO: &str = "Info.plist";

/// The file with the keys of an encrypted bundle; empty for other bundles.
const TOKEN: &str = "token";

/// The directory of the bands, whose names are their numbers in hexadecimal.
const BANDS: &str = "bands";

/// A key that appears early in the property list of a bundle.
const KEY: &[u8] = b"<key>band-size</key>";

/// The format.
pub static DRIVER: FormatDriver = FormatDriver {
    signature: Some(Signature {
        rank: 150,
        fits: |file| {
            let mut windows = file.head.windows(KEY.len());
            file.name.ends_with(INFO.as_bytes()) && windows.any(|window| window == KEY)
        },
        footer: None,
    }),
    open_options: encrcdsa::OPEN_OPTIONS,
    secret_option: Some(encrcdsa::KEY_SECRET),
    strong_options: &[encrcdsa::KEY_SECRET],
    children: &[ChildSpec::FILE.in_directory(INFO), ChildSpec::EXTENTS],
    ..FormatDriver::read_only("sparsebundle", open, inspect::inspect)
};

/// The state of an open image.
#[derive(Debug)]
struct Bundle {
    info: Info,
    bands: Arc<Bands>,
}

fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    let file = context.storage.clone();
    let info = Info::read(&*file, file.len()?)?;
    let header = match encryption(&context) {
        // Only the contents of the list are needed.
        Err(_) if context.metadata_only => None,
        found => found?,
    };
    let cipher = match &header {
        Some(header) if !context.metadata_only => Some(encrcdsa::unlock_by(&context, &**header)?),
        _ => None,
    };
    let files = context
        .opener
        .files_below(ImplicitRole::Extent, BStr::new(BANDS))?;
    let max_table = context.opener.policy().max_table_bytes;
    let bands = Bands::new(file.clone(), files, info, max_table);
    let bands = Arc::new(bands);
    let disk: Arc<dyn Storage> = match cipher {
        Some(cipher) => Arc::new(PlainBands::new(bands.clone(), info, cipher)?),
        None => bands.clone(),
    };
    let source = SizedStorage::new(disk)?;
    let image = ReadOnly::new(&DRIVER, source, Bundle { info, bands });
    let image = image.in_files(file, Vec::new(), Vec::new());
    Ok(Box::new(image.with_encryption(header.is_some())))
}

/// The file that describes the encryption of the bands; None if they are not encrypted.
fn encryption(context: &OpenContext<'_>) -> Result<Option<Arc<dyn Storage>>> {
    let token = context
        .opener
        .open_named(ImplicitRole::Extent, BStr::new(TOKEN), false)
        .context(|| {
            format!("Could not open '{TOKEN}', which tells whether the bundle is encrypted")
        })?;
    let mut magic = [0; encrcdsa::HEADER_MAGIC.len()];
    token.read_at(&mut magic, 0)?;
    Ok((magic == *encrcdsa::HEADER_MAGIC).then_some(token))
}

impl Bundle {
    /// The start of the first band from this one on that may be present, or the end of the disk.
    fn absent_to(&self, number: u64) -> Result<u64> {
        let next = self.bands.next(number)?;
        let start = next.map_or(u64::MAX, |next| next.saturating_mul(self.info.band));
        Ok(start.min(self.info.len))
    }
}

impl Contents for Bundle {
    fn len(&self) -> u64 {
        self.info.len
    }

    /// A run within one band, or across absent bands up to the next one that may be present.
    fn run(&self, _: &SizedStorage, offset: u64, _: u64) -> Result<GuestRun> {
        let number = offset / self.info.band;
        let start = number * self.info.band;
        let end = start.saturating_add(self.info.band).min(self.info.len);
        let held = start.saturating_add(self.bands.held(number)?).min(end);
        Ok(match offset < held {
            true => GuestRun {
                held: Held::Plain(offset),
                end: held,
            },
            // Bands may be small, and the disk may claim any size.
            false => GuestRun {
                held: Held::Zero,
                end: match held == start && end < self.info.len {
                    true => self.absent_to(number + 1)?,
                    false => end,
                },
            },
        })
    }
}
