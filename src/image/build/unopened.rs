//! What lies below an image that is opened for writing without its chain.

use super::ancestors::Ancestors;
use super::below::{self, Next};
use super::layer;
use crate::error::Result;
use crate::image::{Image, OpenOptions, location_files};

/// Refuses to write to an image where one of its files is also a file of the chain that stays closed. Only the
/// metadata of files on this machine is looked at; what cannot be opened, or may not be, ends the look.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`].
pub(super) fn check_apart(
    image: &mut Image,
    options: &OpenOptions,
    ancestors: &mut Ancestors<'_>,
) -> Result<()> {
    if image.written_files()?.len() < 2 {
        // Who stands on itself is met where the chain is opened.
        return Ok(());
    }
    let walking = OpenOptions {
        backing: true,
        metadata_only: false,
        force_share: true,
        ..below::of_layer(options)
    };
    let looking = OpenOptions {
        metadata_only: true,
        ..walking.clone()
    };
    let mut last: Option<Image> = None;
    loop {
        let above = last.as_mut().unwrap_or(image);
        let Ok(Next::Layer(start)) = below::next(above, &walking, ancestors) else {
            return Ok(());
        };
        if location_files(&start.location).is_empty() {
            return Ok(());
        }
        let Ok(layer) = layer::open(*start, &looking, ancestors) else {
            return Ok(());
        };
        image.check_apart([&layer].into_iter())?;
        last = Some(layer);
    }
}
