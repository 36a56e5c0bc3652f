//! Sparse images of macOS (UDSP): the bands of the disk in the order in which they were written. Read-only.
//!
//! See `docs/formats/sparseimage.md`.

mod disk;
mod inspect;

use crate::error::{Error, Result};
use crate::format::encrcdsa;
use crate::format::read_only::{Contents, GuestRun, Held, ReadOnly, SizedStorage};
use crate::format::{Format, FormatDriver, OpenContext, Signature};
use crate::memory;
use crate::policy::OpenPolicy;

use disk::{Header, MAGIC, NODE_LEN, Node};

/// The format.
pub static DRIVER: FormatDriver = FormatDriver {
    signature: Some(Signature {
        rank: 140,
        fits: |file| file.starts(MAGIC),
        footer: None,
    }),
    open_options: encrcdsa::OPEN_OPTIONS,
    secret_option: Some(encrcdsa::KEY_SECRET),
    strong_options: &[encrcdsa::KEY_SECRET],
    ..FormatDriver::read_only("sparseimage", open, inspect::inspect)
};

/// The state of an open image.
#[derive(Debug)]
pub(crate) struct Bands {
    header: Header,
    /// The offset of each band of the disk; 0 if it was never written.
    places: Vec<u64>,
    /// The end of the last part of the file that the nodes refer to.
    end: u64,
}

fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    let file = context.storage.clone();
    let policy = context.opener.policy();
    match encrcdsa::open(&context)? {
        None => {
            let source = SizedStorage::new(file)?;
            let bands = Bands::read(&source, policy)?;
            Ok(Box::new(ReadOnly::new(&DRIVER, source, bands)))
        }
        Some(plain) => {
            let source = SizedStorage::new(plain)?;
            let bands = Bands::read(&source, policy)?;
            let image = ReadOnly::new(&DRIVER, source, bands);
            Ok(Box::new(image.encrypted_in(file)))
        }
    }
}

/// Whether a source contains such an image.
///
/// # Errors
/// If reading fails.
pub(crate) fn is_one(source: &SizedStorage) -> Result<bool> {
    let mut magic = [0; MAGIC.len()];
    source.storage.read_at(&mut magic, 0)?;
    Ok(magic == *MAGIC)
}

impl Bands {
    /// Reads the header and the nodes.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`], [`crate::ErrorKind::Unsupported`], [`crate::ErrorKind::Limit`] by the policy, or
    /// if reading fails.
    pub(crate) fn read(source: &SizedStorage, policy: &OpenPolicy) -> Result<Self> {
        let mut bytes = memory::zeroed(NODE_LEN as usize)?;
        source.storage.read_at(&mut bytes, 0)?;
        let header = Header::from_bytes(&bytes)?;
        let count = header.bands();
        policy.check_table("List of bands", count.saturating_mul(8))?;
        let mut places = memory::filled(usize::try_from(count).map_err(|_| memory::lack())?, 0)?;
        let (mut at, mut end) = (0, NODE_LEN);
        for number in 0.. {
            policy.check_table("Nodes", (u64::from(number) + 1) * NODE_LEN)?;
            let node = Node::from_bytes(&bytes, number)?;
            for (place, band) in node.held() {
                let host = place.checked_mul(header.band);
                let host = host.and_then(|host| host.checked_add(at + NODE_LEN));
                // Bands past the end of the disk are left over from shrinking it.
                let slot = usize::try_from(band)
                    .ok()
                    .and_then(|band| places.get_mut(band));
                let (Some(host), Some(slot)) = (host, slot) else {
                    continue;
                };
                if *slot != 0 {
                    return Err(Error::corrupt(format!("The image has band {band} twice")));
                }
                *slot = host;
                end = end.max(host.saturating_add(header.band_len(band)));
            }
            if node.next == 0 {
                break;
            }
            let next = node.next;
            let fits = next
                .checked_add(NODE_LEN)
                .is_some_and(|end| end <= source.len);
            if next < at + NODE_LEN || !fits {
                let why =
                    format!("Node {number} names a next one that is not behind it in the file");
                return Err(Error::corrupt(why).with_offset(at));
            }
            source.storage.read_at(&mut bytes, next)?;
            at = next;
            end = end.max(next + NODE_LEN);
        }
        Ok(Self {
            header,
            places,
            end,
        })
    }
}

impl Contents for Bands {
    fn len(&self) -> u64 {
        self.header.len
    }

    /// A run within one band.
    fn run(&self, source: &SizedStorage, offset: u64, _: u64) -> Result<GuestRun> {
        let band = offset / self.header.band;
        let start = band * self.header.band;
        let end = start.saturating_add(self.header.band).min(self.header.len);
        let place = usize::try_from(band)
            .ok()
            .and_then(|band| self.places.get(band));
        let held = match place.copied().unwrap_or_default() {
            0 => Held::Zero,
            host => match host.checked_add(end - start) {
                Some(host_end) if host_end <= source.len => Held::Plain(host + (offset - start)),
                _ => Held::Lost(source.damaged(&format!("it ends before its band {band} does"))),
            },
        };
        Ok(GuestRun { held, end })
    }
}
