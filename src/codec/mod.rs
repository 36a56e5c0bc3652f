//! Compression of whole buffers: clusters and grains.

/// A worker's compression state, kept between units.
#[derive(Debug, Default)]
pub struct Encoder {}
