//! The table of results, in Markdown.

use crate::run::Cost;

/// The middle of the values.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// Prints the head of the table.
pub fn head(pairs: usize) {
    println!(
        "Medians of {pairs} pairs, page cache warm. Ratio: Platter's wall time over qemu-img's; best: of the shortest runs.\n"
    );
    println!(
        "| row | Platter wall s | CPU s | qemu-img wall s | CPU s | ratio | best | target | output |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---|");
}

/// Prints one row; the ratio is the median of the pairs' ratios.
pub fn row(name: &str, ours: &[Cost], theirs: &[Cost], target: f64, note: &str) {
    let wall = |costs: &[Cost]| median(costs.iter().map(|c| c.wall));
    let cpu = |costs: &[Cost]| median(costs.iter().map(|c| c.cpu));
    let ratio = median(ours.iter().zip(theirs).map(|(a, b)| a.wall / b.wall));
    let shortest = |costs: &[Cost]| costs.iter().map(|c| c.wall).fold(f64::INFINITY, f64::min);
    let best = shortest(ours) / shortest(theirs);
    // Some comparisons only give a measure.
    let target = match target.is_finite() {
        true if ratio <= target => format!("{target:.2}"),
        true => format!("{target:.2} (missed)"),
        false => String::new(),
    };
    println!(
        "| {name} | {:.3} | {:.2} | {:.3} | {:.2} | **{ratio:.2}** | {best:.2} | {target} | {note} |",
        wall(ours),
        cpu(ours),
        wall(theirs),
        cpu(theirs),
    );
}
