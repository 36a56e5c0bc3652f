//! `compare`: whether two images have the same guest bytes.

mod content;
pub(crate) mod identity;
mod pieces;
pub(crate) mod side;
mod strict;

use crate::error::{Error, ErrorKind, Result, Stage};
use crate::image::Image;
use crate::job::Job;
use crate::ops::error_text;

/// The result of comparing two images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Same contents (and, in strict mode, same allocation and size).
    Identical,
    /// Different guest bytes: the start of the first 512-byte sector that differs.
    ContentMismatch(u64),
    /// Strict mode: allocation differs from this offset on, or in the run that begins there.
    StatusMismatch(u64),
    /// Strict mode: the sizes differ.
    SizeMismatch,
}

/// The report of `compare`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompareReport {
    /// The result.
    pub result: Comparison,
    /// The sizes differ and the images agree over the shorter one: worth a warning outside strict mode.
    pub size_mismatch: bool,
}

/// Compares `a` with `b`; a longer image must end in zeroes.
///
/// Both images are read on several threads, yet the result is always the first difference.
///
/// # Errors
/// If mapping or reading either image fails; the message names it, a hint gives details.
pub fn compare(a: &Image, b: &Image, strict: bool, job: &mut Job) -> Result<CompareReport> {
    let lengths_differ = a.len() != b.len();
    if strict && lengths_differ {
        return Ok(CompareReport {
            result: Comparison::SizeMismatch,
            size_mismatch: true,
        });
    }
    let whole = a.len().max(b.len());
    let status = if strict {
        strict::first_difference(a, b, job)?
    } else {
        None
    };
    // The status is compared first, but a content difference before it takes precedence.
    let limit = status.as_ref().map_or(whole, |found| found.offset);
    let result = match (content::first_difference([a, b], limit, job)?, status) {
        (Some(offset), _) => Comparison::ContentMismatch(offset / SECTOR * SECTOR),
        (None, Some(found)) => Comparison::StatusMismatch(found.result?),
        (None, None) => Comparison::Identical,
    };
    job.finish()?;
    let common = a.len().min(b.len());
    Ok(CompareReport {
        result,
        size_mismatch: lengths_differ
            && !matches!(result, Comparison::ContentMismatch(at) if at < common),
    })
}

const SECTOR: u64 = crate::size::SECTOR;

/// The error of looking up where `image` holds its data.
fn status_failed(image: &Image, error: Error) -> Error {
    let line = format!("Sector allocation test failed for {}", image.filename());
    error_text::explain(line, error).with_stage(Stage::BlockStatus)
}

/// The error of reading `image`.
fn read_failed(image: &Image, offset: u64, error: Error) -> Error {
    let name = image.filename();
    let stage = error.stage().filter(|stage| *stage == Stage::Verify);
    error_text::with_reason(
        format!("Error while reading offset {offset} of {name}"),
        error,
    )
    .with_stage(stage.unwrap_or(Stage::Read))
}

/// The exit code of `qemu-img compare` for an outcome: 0 identical, 1 different, 2 could not be opened or set up, 3
/// looking up the status of a block failed, 4 a read failed.
pub fn exit_code(outcome: &Result<CompareReport>) -> i32 {
    match outcome {
        Ok(report) if report.result == Comparison::Identical => 0,
        Ok(_) => 1,
        // The children of a filter that compares them differ.
        Err(error) if error.stage() == Some(Stage::Verify) => 1,
        Err(error) if error.stage() == Some(Stage::BlockStatus) => 3,
        Err(error) if error.stage() == Some(Stage::Read) => 4,
        Err(error) if error.kind() == ErrorKind::Cancelled => 4,
        Err(_) => 2,
    }
}

impl CompareReport {
    /// The lines that `qemu-img compare` prints.
    pub fn text(&self) -> String {
        let verdict = match self.result {
            Comparison::Identical => "Images are identical.".to_owned(),
            Comparison::ContentMismatch(offset) => format!("Content mismatch at offset {offset}!"),
            Comparison::StatusMismatch(offset) => {
                format!("Strict mode: Offset {offset} block status mismatch!")
            }
            Comparison::SizeMismatch => return "Strict mode: Image size mismatch!\n".to_owned(),
        };
        if self.size_mismatch {
            format!("Warning: Image size mismatch!\n{verdict}\n")
        } else {
            format!("{verdict}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_each_result() {
        let text = |result, size_mismatch| {
            CompareReport {
                result,
                size_mismatch,
            }
            .text()
        };
        assert_eq!(
            text(Comparison::Identical, false),
            "Images are identical.\n"
        );
        assert_eq!(
            text(Comparison::ContentMismatch(1_126_400), true),
            "Warning: Image size mismatch!\nContent mismatch at offset 1126400!\n"
        );
        assert_eq!(
            text(Comparison::StatusMismatch(512), false),
            "Strict mode: Offset 512 block status mismatch!\n"
        );
        assert_eq!(
            text(Comparison::SizeMismatch, true),
            "Strict mode: Image size mismatch!\n"
        );
    }
}
