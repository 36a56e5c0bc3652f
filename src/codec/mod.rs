//! Compression of whole buffers: clusters and grains.
//!
//! An [`Encoder`] and a [`Decoder`] belong to one worker each and keep their tables between units.

mod decode;
mod encode;
mod method;

pub use decode::Decoder;
pub use encode::Encoder;
pub use method::{Compression, Method};
