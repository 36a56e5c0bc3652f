//! The README has a row for every driver, and the manual page of the tool names it.

use std::collections::BTreeSet;

use platter::{filter, format, storage};

const README: &str = include_str!("../../README.md");
const MANUAL: &str = include_str!("../../docs/man/platter-img.1");

/// The words of a text that may be names of drivers, in small letters.
fn words(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let words = text.split(|c| !is_part(c)).map(str::to_ascii_lowercase);
    words.collect()
}

/// What stands in the first column of the table below a heading of the README.
fn rows(heading: &str) -> BTreeSet<String> {
    let (_, section) = README
        .split_once(&format!("\n## {heading}\n"))
        .expect("a section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let cells = section.lines().filter_map(|line| line.split('|').nth(1));
    cells.flat_map(words).collect()
}

#[test]
fn every_driver_has_a_row_in_the_readme_and_is_named_in_the_manual() {
    // Changes of the font end a word.
    let mut parts = MANUAL.split("\\f");
    let first = parts.next().unwrap_or_default();
    let parts = parts.map(|part| part.get(1..).unwrap_or_default());
    let text: Vec<_> = [first].into_iter().chain(parts).collect();
    let manual = words(&text.join(" ").replace("\\-", "-"));

    let formats = format::registry::drivers().iter();
    let protocols = storage::registry::drivers().iter();
    let filters = filter::registry::drivers().iter();
    let mut missing = Vec::new();
    let tables: [(&str, Vec<&str>); 3] = [
        ("Formats", formats.map(|driver| driver.name).collect()),
        ("Protocols", protocols.map(|driver| driver.name).collect()),
        ("Filters", filters.map(|driver| driver.name).collect()),
    ];
    for (heading, names) in tables {
        let rows = rows(heading);
        for name in names {
            if !rows.contains(name) {
                missing.push(format!("README.md, {heading}: {name}"));
            }
            if !manual.contains(name) {
                missing.push(format!("docs/man/platter-img.1: {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
