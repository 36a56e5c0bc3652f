//! The table of samples and the helpers of `tests/formats`.

#[path = "../../tests/formats/kit/given/mod.rs"]
pub mod given;
#[path = "../../tests/formats/kit/sample.rs"]
pub mod sample;
#[path = "../../tests/formats/kit/shelf.rs"]
pub mod shelf;
#[path = "../../tests/formats/kit/work.rs"]
pub mod work;
