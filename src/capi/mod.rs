//! The C ABI: the only room with exported symbols. It calls the public Rust API and nothing below.
