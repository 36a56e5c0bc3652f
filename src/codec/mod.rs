//! Compression of whole buffers, clusters and grains, and of whole files ([`container`]).
//!
//! An [`Encoder`] and a [`Decoder`] belong to one worker each and retain their tables between units.

mod adc;
pub mod container;
mod decode;
mod encode;
mod method;
pub(crate) mod parallel;
mod unpack;

pub use decode::Decoder;
pub use encode::Encoder;
pub use method::{Compression, Method};
pub use unpack::{Packing, Unpacker};
