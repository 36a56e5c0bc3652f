//! The structures of a VHD file.

mod footer;
mod geometry;
mod header;
mod layout;
mod locator;
mod time;

pub(super) use footer::{COOKIE, DiskType, FOOTER_LEN, Footer, not_an_image};
pub(super) use geometry::Geometry;
pub(super) use header::{DynamicHeader, HEADER_LEN};
pub(super) use layout::VpcLayout;
pub(super) use locator::{Locator, Platform, from_utf16, to_url, to_windows, without_dot};
pub(super) use time::seconds;
