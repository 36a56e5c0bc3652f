//! Filters: nodes that stand on other nodes and have no file of their own.

mod blkdebug;
mod blklogwrites;
mod blkverify;
mod compress;
mod copy_before_write;
mod copy_on_read;
pub mod decompress;
mod differ;
mod preallocate;
mod quorum;
pub mod registry;
mod tar;
mod throttle;
pub mod traits;
mod units;

pub use traits::{
    ChildImage, Content, ContentsFn, FileNameFn, FileNames, FilterChild, FilterContext,
    FilterDriver, FilterName, NamedNodes, ParsedName,
};
