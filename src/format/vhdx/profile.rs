//! What Hyper-V requires of a VHDX.

use crate::error::Result;
use crate::format::InspectContext;
use crate::format::objection::Objection;
use crate::format::profile::{Profile, Sizes};

use super::disk::Header;
use super::driver::DRIVER;
use super::open::read_headers;

/// A disk of a virtual machine.
pub static HYPERV: Profile = Profile {
    name: "hyperv",
    product: "Microsoft Hyper-V",
    driver: &DRIVER,
    options: &[("subformat", "dynamic")],
    package: None,
    sizes: Sizes {
        multiple: 4096,
        least: 3 << 20,
        most: 64 << 40,
    },
    notes: &[
        "On NTFS the file must be neither sparse nor compressed nor encrypted, or the disk is not attached.",
    ],
    check,
};

fn check(ctx: &InspectContext<'_>, found: &mut Vec<Objection>) -> Result<()> {
    let headers = read_headers(&*ctx.storage)?;
    if headers.iter().any(Option::is_none) {
        found.push(Objection::new(
            "One of the two headers is damaged",
            "Repair the image with check",
        ));
    }
    let (_, header) = Header::current(headers)?;
    if header.has_log() {
        found.push(Objection::new(
            "The image was not closed properly: its log has to be replayed",
            "Repair the image with check",
        ));
    }
    Ok(())
}
