//! The verdict on every requirement: from what the format found, and from what applies to every format.

use bstr::ByteSlice;

use super::signatures::Signature;
use crate::format::FormatDriver;
use crate::format::inspect::{Finding, Inspection, Reference, Requirement, Verdict};
use crate::ops::create::TargetFormat;
use crate::policy::{ImplicitRole, OpenPolicy};

/// The basis of the verdicts.
pub(super) struct Judged<'a> {
    pub(super) format: &'a str,
    pub(super) named: bool,
    pub(super) driver: Option<&'static FormatDriver>,
    pub(super) signatures: &'a [Signature],
    pub(super) inspection: &'a Inspection,
    pub(super) policy: &'a OpenPolicy,
}

/// A verdict with its reason.
type Ruling = (Verdict, String);

fn pass(reason: impl Into<String>) -> Ruling {
    (Verdict::Pass, reason.into())
}

fn fail(reason: impl Into<String>) -> Ruling {
    (Verdict::Fail, reason.into())
}

fn unknown(reason: impl Into<String>) -> Ruling {
    (Verdict::Unknown, reason.into())
}

fn not_applicable(reason: impl Into<String>) -> Ruling {
    (Verdict::NotApplicable, reason.into())
}

/// One finding per requirement.
pub(super) fn judge(judged: &Judged<'_>) -> Vec<Finding> {
    Requirement::ALL
        .iter()
        .map(|requirement| {
            let (verdict, reason) = rule(judged, *requirement);
            Finding {
                requirement: *requirement,
                verdict,
                reason,
            }
        })
        .collect()
}

fn rule(judged: &Judged<'_>, requirement: Requirement) -> Ruling {
    match requirement {
        Requirement::FormatMatches => format_matches(judged),
        Requirement::SingleFormat => single_format(judged),
        Requirement::FormatAllowed => format_allowed(judged),
        Requirement::NoBackingFile => names_none(
            judged,
            &[ImplicitRole::Backing, ImplicitRole::ParentLocator],
            "backing file",
        ),
        Requirement::NoDataFile => names_none(judged, &[ImplicitRole::DataFile], "data file"),
        Requirement::NoExtents => names_none(judged, &[ImplicitRole::Extent], "extent"),
        Requirement::BackingFormat => backing_format(judged),
        Requirement::PlainNames => plain_names(judged),
        Requirement::VirtualSize => virtual_size(judged),
        of_format => of_format_itself(judged, of_format),
    }
}

/// What the format found. What it passed at first may fail on closer inspection.
fn of_format_itself(judged: &Judged<'_>, requirement: Requirement) -> Ruling {
    let findings = judged.inspection.findings.iter();
    let mut findings = findings.filter(|found| found.requirement == requirement);
    let failed = findings
        .clone()
        .find(|found| found.verdict == Verdict::Fail);
    failed.or_else(|| findings.next()).map_or_else(
        || doubt(judged).unwrap_or_else(|| unknown("the format says nothing about it")),
        |found| (found.verdict, found.reason.clone()),
    )
}

fn images<'a>(judged: &'a Judged<'_>) -> impl Iterator<Item = &'static str> + use<'a> {
    let images = judged.signatures.iter().filter(|found| found.image);
    images.map(|found| found.name)
}

/// Whether its contents are the disk, which may have any signature.
fn is_transparent(judged: &Judged<'_>) -> bool {
    judged.driver.is_some_and(|driver| driver.is_transparent)
}

fn format_matches(judged: &Judged<'_>) -> Ruling {
    let format = judged.format;
    let looks = images(judged).next();
    if !judged.named {
        return not_applicable(format!(
            "no format was named; it would be taken for {format}"
        ));
    }
    match looks {
        None if is_transparent(judged) => pass("the contents bear no signature of an image format"),
        Some(_) if images(judged).any(|name| name == format) => {
            pass(format!("the contents are {format}"))
        }
        Some(name) => fail(format!("the contents look like {name}, not {format}")),
        None => fail(format!("the contents are not {format}")),
    }
}

fn single_format(judged: &Judged<'_>) -> Ruling {
    let format = judged.format;
    // A disk may hold a file system or a partition table; an image must not be one at the same time.
    let mut others = judged
        .signatures
        .iter()
        .filter(|found| found.name != format && (found.image || !is_transparent(judged)))
        .map(|found| found.name)
        .peekable();
    if others.peek().is_none() {
        return pass(format!("nothing but {format}"));
    }
    let list: Vec<&str> = others.collect();
    fail(format!(
        "it is taken for {format}, but also looks like {}",
        list.join(", ")
    ))
}

fn format_allowed(judged: &Judged<'_>) -> Ruling {
    let format = judged.format;
    if judged.driver.is_none() {
        fail(format!("there is no driver for {format}"))
    } else if !judged.policy.allows_format(format) {
        fail(format!("the policy does not allow {format}"))
    } else {
        pass(format!("{format} is supported"))
    }
}

/// Why the findings may be incomplete, if so.
fn doubt(judged: &Judged<'_>) -> Option<Ruling> {
    if judged.driver.is_none() {
        Some(unknown("nothing here understands the format"))
    } else if !judged.inspection.understood {
        Some(unknown(format!(
            "the contents cannot be understood as {}",
            judged.format
        )))
    } else {
        None
    }
}

fn names_none(judged: &Judged<'_>, roles: &[ImplicitRole], what: &str) -> Ruling {
    let mut named = judged
        .inspection
        .references
        .iter()
        .filter(|reference| roles.contains(&reference.role));
    match named.next() {
        Some(first) => fail(format!(
            "the image names the {what} '{}'",
            first.name_text()
        )),
        None => doubt(judged).unwrap_or_else(|| pass(format!("the image names no {what}"))),
    }
}

fn backing_format(judged: &Judged<'_>) -> Ruling {
    let backing = judged.inspection.references.iter().find(|reference| {
        matches!(
            reference.role,
            ImplicitRole::Backing | ImplicitRole::ParentLocator
        )
    });
    let Some(backing) = backing else {
        return doubt(judged).unwrap_or_else(|| not_applicable("the image names no backing file"));
    };
    match &backing.format {
        None => fail("the backing file's format is not recorded: it would be guessed"),
        Some(name) if TargetFormat::find(&name.to_str_lossy()).is_some() => {
            doubt(judged).unwrap_or_else(|| pass(format!("recorded as {name}")))
        }
        Some(name) => fail(format!(
            "the backing file's format '{name}' is not supported"
        )),
    }
}

fn plain_names(judged: &Judged<'_>) -> Ruling {
    let references = &judged.inspection.references;
    let odd = references
        .iter()
        .map(Reference::traits)
        .zip(references)
        .find(|(traits, _)| !traits.is_plain());
    match odd {
        Some((traits, reference)) => fail(format!(
            "the name '{}' is {}",
            reference.name_text(),
            traits.words()
        )),
        None => doubt(judged).unwrap_or_else(|| {
            if references.is_empty() {
                not_applicable("the image names no file")
            } else {
                pass("every name is a plain file name")
            }
        }),
    }
}

fn virtual_size(judged: &Judged<'_>) -> Ruling {
    let Some(bytes) = judged.inspection.virtual_size else {
        return unknown("the virtual size cannot be read");
    };
    match judged.policy.check_virtual_size(bytes) {
        Ok(()) => doubt(judged).unwrap_or_else(|| pass(format!("{bytes} bytes"))),
        Err(error) => fail(error.to_string()),
    }
}
