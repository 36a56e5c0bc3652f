//! What a server offers under one name: an image, or a range of it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, ErrorKind, Result};
use crate::format::Bitmaps;
use crate::image::Image;
use crate::nbd::limits::MAX_STRING;
use crate::queue::QueueTarget;
use crate::serve::ahead::Ahead;

/// How an image is offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportOptions {
    /// The name that clients request; empty for the default export.
    pub name: BString,
    /// Its description in the list of exports.
    pub description: BString,
    /// Whether clients may write.
    pub writable: bool,
    /// Offset in the image at which it begins.
    pub offset: u64,
    /// Its length; None for the rest of the image.
    pub len: Option<u64>,
    /// The persistent dirty bitmaps that clients may read, of the image or its backing chain.
    pub bitmaps: Vec<BString>,
    /// Whether clients may query which layer of the chain holds what.
    pub allocation_depth: bool,
}

/// An image, or a range of it, under a name.
pub struct Export {
    target: Arc<dyn QueueTarget>,
    options: ExportOptions,
    len: u64,
    /// The layer of the chain that holds each of the bitmaps.
    layers: Vec<u32>,
    /// Decoding ahead of requests, if layers of the image may be compressed.
    ahead: Option<Ahead>,
    /// A request panicked: the state of the image is unknown.
    unusable: AtomicBool,
    /// No server offers it any more.
    withdrawn: AtomicBool,
}

impl Export {
    /// Offers the image of `target`, which it holds.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a name that the protocol cannot carry or a range outside the image,
    /// [`ErrorKind::ReadOnly`] if clients are to write to an image that is open read-only, [`ErrorKind::NotFound`] if
    /// no layer has a bitmap of that name, [`ErrorKind::Corrupt`] if it is inconsistent.
    pub fn new(target: Arc<dyn QueueTarget>, options: ExportOptions) -> Result<Self> {
        let image = target.image();
        for (what, text) in [
            ("name", &options.name),
            ("description", &options.description),
        ] {
            check_string(what, text.as_bstr())?;
        }
        let whole = image.len();
        if options.offset > whole {
            return Err(Error::invalid(format!(
                "Offset ({}) cannot be greater than size of the containing file ({whole})",
                options.offset
            )));
        }
        let rest = whole - options.offset;
        let len = options.len.unwrap_or(rest);
        if len > rest {
            return Err(Error::invalid(format!(
                "The window of {len} bytes at offset {} does not lie in '{}', which has {whole} bytes",
                options.offset,
                image.filename()
            )));
        }
        if options.writable && !image.writable() {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                format!(
                    "'{}' is open read-only and cannot be offered for writing",
                    image.filename()
                ),
            ));
        }
        let layers = options.bitmaps.iter().map(|name| {
            check_string("name of a bitmap", name.as_bstr())?;
            layer_of(image, BStr::new(name))
        });
        let layers = layers.collect::<Result<_>>()?;
        let image = target.image();
        Ok(Self {
            ahead: image.decodes_ahead().then(Ahead::default),
            target,
            len,
            layers,
            options,
            unusable: AtomicBool::new(false),
            withdrawn: AtomicBool::new(false),
        })
    }

    /// The name that clients request.
    pub fn name(&self) -> &BStr {
        self.options.name.as_bstr()
    }

    /// How it is offered.
    pub fn options(&self) -> &ExportOptions {
        &self.options
    }

    /// Its size in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether its size is 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether clients may write.
    pub fn writable(&self) -> bool {
        self.options.writable
    }

    /// Withdraws it: from now on requests of its clients are refused.
    pub(super) fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::Release);
    }

    pub(super) fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Acquire)
    }

    /// Whether the range lies within the export.
    pub(super) fn holds(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }

    /// Converts an offset in the export, which must lie within it, to an offset in the image.
    pub(super) fn place(&self, offset: u64) -> u64 {
        self.options.offset.saturating_add(offset)
    }

    /// Decoding ahead of requests, for images that may be compressed.
    pub(super) fn ahead(&self) -> Option<&Ahead> {
        self.ahead.as_ref()
    }

    /// Goes back to retaining only as much decoded data as images do by themselves.
    pub(super) fn release_decoded(&self) {
        if let Some(ahead) = &self.ahead {
            ahead.release(|bytes| self.image().keep_more_decoded(bytes));
        }
    }

    pub(super) fn image(&self) -> &Image {
        self.target.image()
    }

    /// The layer that holds the bitmap with that index, and the bitmap's name.
    pub(super) fn bitmap(&self, index: usize) -> Result<(&dyn Bitmaps, &BStr)> {
        let lost = || Error::new(ErrorKind::NotFound, "The bitmap is not there any more");
        let name = self.options.bitmaps.get(index).ok_or_else(lost)?;
        let depth = self.layers.get(index).copied().ok_or_else(lost)?;
        let layer = layers(self.image()).nth(depth as usize).ok_or_else(lost)?;
        Ok((layer.bitmaps().ok_or_else(lost)?, name.as_bstr()))
    }

    /// Runs `work` on the image; a panic becomes an error, after which the export is unusable.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Image) -> Result<T>) -> Result<T> {
        let panicked = || Error::new(ErrorKind::Internal, "Internal error: a request panicked");
        if self.unusable.load(Ordering::Acquire) {
            return Err(panicked());
        }
        catch_unwind(AssertUnwindSafe(|| work(self.image()))).unwrap_or_else(|payload| {
            self.unusable.store(true, Ordering::Release);
            self.target.panicked();
            // Dropping a payload can itself panic; leaking the second payload is the lesser evil.
            if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                std::mem::forget(second);
            }
            Err(panicked())
        })
    }
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export")
            .field("options", &self.options)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// The layers of a chain, starting with the image itself.
pub(super) fn layers(image: &Image) -> impl Iterator<Item = &Image> {
    std::iter::successors(Some(image), |layer| layer.backing().map(AsRef::as_ref))
}

/// The first layer with a bitmap of that name.
fn layer_of(image: &Image, name: &BStr) -> Result<u32> {
    for (layer, depth) in layers(image).zip(0..) {
        let Some(bitmaps) = layer.bitmaps() else {
            continue;
        };
        let found = bitmaps.list()?.into_iter().find(|info| info.name == name);
        match found {
            Some(info) if info.inconsistent => {
                return Err(Error::corrupt(format!(
                    "Bitmap '{name}' is inconsistent and cannot be used"
                )));
            }
            Some(_) => return Ok(depth),
            None => {}
        }
    }
    Err(Error::new(
        ErrorKind::NotFound,
        format!("Bitmap '{name}' is not found"),
    ))
}

/// Refuses a string that the protocol cannot carry.
fn check_string(what: &str, text: &BStr) -> Result<()> {
    let refused = if text.len() > MAX_STRING {
        format!("is longer than {MAX_STRING} bytes")
    } else if text.contains(&0) {
        "holds a NUL byte".to_owned()
    } else if text.to_str().is_err() {
        "is not UTF-8".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("The {what} of an export {refused}")))
}
