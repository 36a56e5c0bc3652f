//! Encrypted targets and sources. The target exists already, so that no key derivation is measured.

use crate::rows::{Row, measure_row, remove, wanted};
use crate::{Setup, run};

const SECRET: &str = "secret,id=s,data=letmein";

/// Measures both directions.
pub fn measure(setup: &Setup) -> Result<(), String> {
    let names = ["raw to luks", "luks to raw"];
    if !names.iter().any(|name| wanted(setup, name)) {
        return Ok(());
    }
    let (p, q) = (setup.platter.as_str(), setup.qemu.as_str());
    let disk = setup.disk.display().to_string();
    let disk = disk.as_str();
    let (luks, out) = (setup.path("bench.luks"), setup.path("out.raw"));
    let (luks, out) = (luks.as_str(), out.as_str());
    let opened = format!("driver=luks,key-secret=s,file.filename={luks}");
    let opened = opened.as_str();
    let make = [
        q,
        "convert",
        "--object",
        SECRET,
        "-O",
        "luks",
        "-o",
        "key-secret=s,iter-time=10",
        disk,
        luks,
    ];
    run::quiet(&make)?;
    let into = [
        "convert",
        "--object",
        SECRET,
        "-n",
        "-f",
        "raw",
        "--target-image-opts",
        disk,
        opened,
    ];
    let from = [
        "convert",
        "--object",
        SECRET,
        "--image-opts",
        opened,
        "-O",
        "raw",
        out,
    ];
    let rows = [
        (names[0], into.as_slice(), None),
        (names[1], from.as_slice(), Some(out)),
    ];
    for (name, argv, output) in rows {
        measure_row(
            setup,
            &Row {
                name,
                ours: [&[p], argv].concat(),
                theirs: vec![("", [&[q], argv].concat(), 0.8)],
                output,
                format: None,
                equals: None,
                over: false,
                before: vec![],
            },
        )?;
    }
    remove(out)?;
    remove(luks)
}
