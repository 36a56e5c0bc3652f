//! What clouds and hypervisors require of a VHD.

use crate::error::Result;
use crate::format::InspectContext;
use crate::format::objection::Objection;
use crate::format::profile::{Profile, Sizes};

use super::disk::{DiskType, FOOTER_LEN};
use super::open::{Damage, find};
use super::{DRIVER, MAX_FIXED, MAX_SIZE};

/// A disk for upload to Azure.
pub static AZURE: Profile = Profile {
    name: "azure",
    product: "Microsoft Azure",
    driver: &DRIVER,
    options: &[("subformat", "fixed"), ("force_size", "on")],
    package: None,
    sizes: Sizes {
        multiple: 1 << 20,
        least: 20 << 20,
        most: MAX_FIXED,
    },
    notes: &[
        "The size is rounded up to whole MiB, and is what the footer says, whatever its geometry.",
    ],
    check: check_azure,
};

/// A disk of a Xen virtual machine.
pub static XEN: Profile = Profile {
    name: "xen",
    product: "XenServer and XCP-ng",
    driver: &DRIVER,
    options: &[("subformat", "dynamic"), ("force_size", "on")],
    package: None,
    sizes: Sizes {
        multiple: 2 << 20,
        least: 2 << 20,
        most: MAX_SIZE,
    },
    notes: &["The size is rounded up to whole blocks of 2 MiB."],
    check: check_xen,
};

fn check_azure(ctx: &InspectContext<'_>, found: &mut Vec<Objection>) -> Result<()> {
    let again = "Convert it with the profile 'azure'";
    let disk = find(&*ctx.storage, ctx.file_len)?;
    if disk.footer.disk_type != DiskType::Fixed {
        let kind = match disk.footer.disk_type {
            DiskType::Differencing => "a differencing",
            _ => "a dynamic",
        };
        found.push(Objection::new(
            format!("It is {kind} disk, and fixed ones are taken"),
            again,
        ));
        return Ok(());
    }
    let (says, shows) = (disk.footer.current_size, disk.footer.size(None));
    if says != shows {
        found.push(Objection::new(
            format!("The footer says {says} bytes, and {shows} by its geometry"),
            again,
        ));
    }
    if ctx.file_len.checked_sub(FOOTER_LEN as u64) != Some(says) {
        found.push(Objection::new(
            format!(
                "The file has {} bytes, and {says} of the disk and {FOOTER_LEN} of the footer are all that it may have",
                ctx.file_len
            ),
            again,
        ));
    }
    Ok(())
}

fn check_xen(ctx: &InspectContext<'_>, found: &mut Vec<Objection>) -> Result<()> {
    let disk = find(&*ctx.storage, ctx.file_len)?;
    let (says, shows) = (disk.footer.current_size, disk.footer.size(None));
    if says != shows {
        found.push(Objection::new(
            format!("The footer says {says} bytes, and {shows} by its geometry"),
            "Convert it with the profile 'xen'",
        ));
    }
    if disk.damage != Damage::None {
        found.push(Objection::new(
            "One of the two footers is missing, damaged or out of date",
            "Repair the image with check",
        ));
    }
    Ok(())
}
