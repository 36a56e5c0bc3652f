//! The formats of other products, from a qcow2 image and back to a raw disk.

use std::fs;
use std::path::Path;

use crate::Setup;
use crate::rows::{Row, measure_row, wanted};
use crate::run;

/// A format with the options that make it another one.
pub struct Kind {
    pub name: &'static str,
    pub format: &'static str,
    pub options: &'static [&'static str],
    /// The largest ratios that are good enough: to it, and back.
    targets: [f64; 2],
}

pub const KINDS: &[Kind] = &[
    kind("vdi", "vdi", &[], [0.8, 0.8]),
    kind("vpc", "vpc", &[], [0.6, 0.6]),
    kind(
        "fixed vpc",
        "vpc",
        &["-o", "subformat=fixed,force_size=on"],
        [0.8, 0.8],
    ),
    kind("vhdx", "vhdx", &[], [0.6, 0.6]),
    kind("parallels", "parallels", &[], [0.8, 0.8]),
    kind("qed", "qed", &[], [0.8, 0.8]),
    kind("qcow", "qcow", &[], [0.8, 0.8]),
    kind("monolithicSparse", "vmdk", &[], [0.4, 0.5]),
    kind(
        "streamOptimized",
        "vmdk",
        &["-o", "subformat=streamOptimized"],
        [0.2, 0.4],
    ),
];

const fn kind(
    name: &'static str,
    format: &'static str,
    options: &'static [&'static str],
    targets: [f64; 2],
) -> Kind {
    Kind {
        name,
        format,
        options,
        targets,
    }
}

impl Kind {
    /// The image to be read. Theirs makes it: how a file lies in the page cache is the same for both then.
    pub fn made(&self, setup: &Setup, source: &str) -> Result<String, String> {
        let name = self.name.replace(' ', "-");
        let kept = setup.path(&format!("made.{name}.{}", self.format));
        if !Path::new(&kept).exists() {
            let fresh = format!("{kept}.new");
            let make = [
                &[setup.qemu.as_str(), "convert", "-O", self.format],
                self.options,
                &[source, &fresh],
            ]
            .concat();
            run::quiet(&make)?;
            fs::rename(&fresh, &kept).map_err(|e| e.to_string())?;
        }
        Ok(kept)
    }
}

/// Measures each in both directions; `source` is a qcow2 image of the disk.
pub fn measure(setup: &Setup, source: &str) -> Result<(), String> {
    for kind in KINDS {
        let (to, back) = (
            format!("qcow2 to {}", kind.name),
            format!("{} to raw", kind.name),
        );
        if !wanted(setup, &to) && !wanted(setup, &back) {
            continue;
        }
        let image = setup.path(&format!("out.{}", kind.format));
        let (p, q) = (setup.platter.as_str(), setup.qemu.as_str());
        let make = [
            &["convert", "-O", kind.format],
            kind.options,
            &[source, &image],
        ]
        .concat();
        let row = Row {
            name: &to,
            ours: [&[p], make.as_slice()].concat(),
            theirs: vec![("", [&[q], make.as_slice()].concat(), kind.targets[0])],
            output: Some(&image),
            format: Some(kind.format),
            equals: None,
            over: false,
            before: vec![],
        };
        measure_row(setup, &row)?;
        if !wanted(setup, &back) {
            continue;
        }
        let kept = kind.made(setup, source)?;
        let out = setup.path("out.raw");
        let read = ["convert", "-f", kind.format, "-O", "raw", &kept, &out];
        let row = Row {
            name: &back,
            ours: [&[p], read.as_slice()].concat(),
            theirs: vec![("", [&[q], read.as_slice()].concat(), kind.targets[1])],
            output: Some(&out),
            format: None,
            equals: None,
            over: false,
            before: vec![],
        };
        measure_row(setup, &row)?;
    }
    Ok(())
}
