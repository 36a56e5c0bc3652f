//! Requests per second, as both tools' `bench` counts them: small reads from a warm qcow2 image.

use std::path::Path;
use std::process::Command;

use crate::rows::wanted;
use crate::table::median;
use crate::{Setup, run};

/// (requests at a time, requests of ours, of theirs, the least ratio that is good enough)
const DEPTHS: &[(u32, u64, u64, f64)] =
    &[(1, 2_000_000, 100_000, 4.0), (64, 2_000_000, 200_000, 2.0)];

/// The image takes this much of the page cache.
const SIZE: &str = "256M";

/// Measures each depth and prints a table.
pub fn measure(setup: &Setup) -> Result<(), String> {
    if !wanted(setup, "requests") {
        return Ok(());
    }
    let image = setup.path("requests.qcow2");
    if !Path::new(&image).exists() {
        make(setup, &image)?;
    }
    println!("\n| 4 KiB reads, warm qcow2 | Platter req/s | qemu-img req/s | ratio | target |");
    println!("|---|---:|---:|---:|---:|");
    for (depth, ours, theirs, target) in DEPTHS {
        let mut rates = (Vec::new(), Vec::new());
        for round in 0..=setup.pairs {
            let pair = (
                rate(&setup.platter, &image, *depth, *ours)?,
                rate(&setup.qemu, &image, *depth, *theirs)?,
            );
            // The first round only warms the page cache.
            if round > 0 {
                rates.0.push(pair.0);
                rates.1.push(pair.1);
            }
        }
        let ratio = median(rates.0.iter().zip(&rates.1).map(|(a, b)| a / b));
        let verdict = if ratio >= *target { "" } else { " (missed)" };
        println!(
            "| depth {depth} | {:.0} | {:.0} | **{ratio:.1}** | at least {target:.0}{verdict} |",
            median(rates.0.iter().copied()),
            median(rates.1.iter().copied()),
        );
    }
    Ok(())
}

/// An image whose clusters are all written.
fn make(setup: &Setup, image: &str) -> Result<(), String> {
    let fresh = format!("{image}.new");
    run::quiet(&[&setup.qemu, "create", "-q", "-f", "qcow2", &fresh, SIZE])?;
    let mut write = vec![setup.qemu.as_str(), "bench", "-w", "-f", "qcow2"];
    write.extend(["-s", "1M", "-c", "256", "--pattern", "90", &fresh]);
    run::quiet(&write)?;
    std::fs::rename(&fresh, image).map_err(|e| format!("{image}: {e}"))
}

/// Runs `bench` and gives the requests per second.
fn rate(program: &str, image: &str, depth: u32, count: u64) -> Result<f64, String> {
    let output = Command::new(program)
        .args(["bench", "-f", "qcow2", "-c", &count.to_string()])
        .args(["-d", &depth.to_string(), image])
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let seconds = text
        .lines()
        .find_map(|line| line.strip_prefix("Run completed in "))
        .and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok())
        .ok_or_else(|| format!("{program} bench said: {text}"))?;
    Ok(count as f64 / seconds.max(0.001))
}
