//! `quorum`: several children that hold the same bytes. What counts is what enough of them agree on.

mod storage;
mod vote;

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::filter::{FilterContext, FilterDriver};
use crate::format::{ChildSpec, FileRole};
use crate::options::{OptionKind, OptionSpec};
use crate::size::SECTOR;
use crate::storage::Storage;

use storage::{Quorum, Reading};

/// The filter.
pub static DRIVER: FilterDriver = FilterDriver {
    name: "quorum",
    children: &[ChildSpec {
        is_image: true,
        ..ChildSpec::optional("children.*", FileRole::Image)
    }],
    shows: None,
    contents: None,
    holds_file: false,
    // Each child would have to get them.
    passes_compressed: false,
    keeps_writers_out: true,
    open_options: OPEN,
    weak_options: &[],
    events: &[],
    open,
    file_names: None,
    file_name: None,
};

const OPEN: &[OptionSpec] = &[
    OptionSpec {
        name: "blkverify",
        kind: OptionKind::Bool,
        help: "Of two children that differ, fail and say where",
        default: Some("off"),
        allowed: &[],
    },
    OptionSpec {
        name: "read-pattern",
        kind: OptionKind::Str,
        help: "Whether all children are read, or the first that can be",
        default: Some("quorum"),
        allowed: &["quorum", "fifo"],
    },
    OptionSpec {
        name: "rewrite-corrupted",
        kind: OptionKind::Bool,
        help: "Write what was voted for to the children that read as something else",
        default: Some("off"),
        allowed: &[],
    },
    OptionSpec {
        name: "vote-threshold",
        kind: OptionKind::Num,
        help: "So many children must agree",
        default: None,
        allowed: &[],
    },
];

fn open(mut context: FilterContext<'_>) -> Result<Arc<dyn Storage>> {
    let children = context.take_list("children");
    let children: Vec<_> = children.into_iter().map(|child| child.storage).collect();
    if children.is_empty() {
        return Err(Error::invalid(
            "Number of provided children must be 1 or more",
        ));
    }
    let threshold = threshold(context.options.num("vote-threshold"), children.len())?;
    let reading = reading(&context, threshold, children.len())?;
    check_lengths(&children)?;
    Ok(Arc::new(Quorum::new(children, threshold, reading)))
}

/// The threshold of an option, which may be negative.
fn threshold(given: Option<u64>, children: usize) -> Result<usize> {
    let given = given.unwrap_or(0);
    // It is a number of 32 bits with a sign.
    if !(1..=i32::MAX as u64).contains(&given) {
        return Err(Error::invalid(
            "Parameter 'vote-threshold' expects a value >= 1",
        ));
    }
    usize::try_from(given)
        .ok()
        .filter(|threshold| *threshold <= children)
        .ok_or_else(|| Error::invalid("threshold may not exceed children count"))
}

fn reading(context: &FilterContext<'_>, threshold: usize, children: usize) -> Result<Reading> {
    match context.options.str("read-pattern") {
        None | Some("quorum") => {}
        Some("fifo") => return Ok(Reading::First),
        Some(_) => {
            return Err(Error::invalid("Please set read-pattern as fifo or quorum"));
        }
    }
    let must_agree = context.options.bool("blkverify").unwrap_or(false);
    if must_agree && !(children == 2 && threshold == 2) {
        return Err(Error::invalid(
            "blkverify=on can only be set if there are exactly two files and vote-threshold is 2",
        ));
    }
    let rewrites = context.options.bool("rewrite-corrupted").unwrap_or(false);
    if rewrites && must_agree {
        return Err(Error::invalid(
            "rewrite-corrupted=on cannot be used with blkverify=on",
        ));
    }
    if rewrites {
        context.require_writable()?;
    }
    Ok(Reading::Vote {
        must_agree,
        rewrites,
    })
}

/// Refuses children of different lengths: what one has and another has not cannot be voted on.
fn check_lengths(children: &[Arc<dyn Storage>]) -> Result<()> {
    let mut sectors = Vec::new();
    for child in children {
        sectors.push(child.len()?.div_ceil(SECTOR));
    }
    let (Some(first), Some(other)) = (
        sectors.first(),
        sectors.iter().position(|len| Some(len) != sectors.first()),
    ) else {
        return Ok(());
    };
    let hint = format!(
        "The children of a quorum must have one length: '{}' has {} bytes and '{}' has {}",
        children[0].name(),
        first * SECTOR,
        children[other].name(),
        sectors[other] * SECTOR
    );
    Err(Error::os(libc::EIO)
        .context("Could not refresh total sector count")
        .with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_sorted_by_name() {
        assert!(OPEN.is_sorted_by_key(|spec| spec.name));
    }

    #[test]
    fn thresholds_are_from_one_to_the_number_of_children() {
        let text = |given| threshold(given, 3).map_err(|error| error.to_string());
        assert_eq!(text(Some(3)), Ok(3));
        // Those of more than 32 bits are not valid.
        for given in [None, Some(0), Some(1 << 40), Some(u64::MAX)] {
            assert!(text(given).is_err_and(|text| text.contains(">= 1")));
        }
        assert!(text(Some(4)).is_err_and(|text| text.contains("exceed")));
    }
}
