//! Compression of whole buffers: clusters and grains.

mod method;

pub use method::CompressionType;

/// A worker's compression state, kept between units.
#[derive(Debug, Default)]
pub struct Encoder {}
