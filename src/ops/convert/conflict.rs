//! Settings of a conversion that are invalid, by themselves or in combination.

use std::ffi::CStr;

use crate::error::{Error, Result};

use super::profile::applied;
use super::request::ConvertRequest;

/// Maximum sparse size.
const MAX_SPARSE: u32 = 16 << 20;

/// Maximum number of workers.
pub(super) const MAX_PARALLEL: u32 = 16;

/// Checks the minimum length of a run of zeroes that stays sparse.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] if it is not a multiple of 512 up to 16 MiB.
pub(crate) fn check_sparse_size(bytes: u64) -> Result<u32> {
    let size = u32::try_from(bytes).ok();
    size.filter(|size| size % 512 == 0 && *size <= MAX_SPARSE)
        .ok_or_else(|| {
            Error::invalid(format!(
                "Runs of {bytes} zeroes cannot be left sparse: the size is a multiple of 512 up to {MAX_SPARSE}, or 0 to leave none"
            ))
        })
}

/// Checks how many pieces of work are done at a time.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] if it is not between 1 and 16.
pub(crate) fn check_parallel(pieces: u64) -> Result<u32> {
    let count = u32::try_from(pieces).ok();
    count
        .filter(|count| (1..=MAX_PARALLEL).contains(count))
        .ok_or_else(|| {
            Error::invalid(format!(
                "{pieces} pieces of work at a time are not between 1 and {MAX_PARALLEL}"
            ))
        })
}

/// What is wrong with the settings of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Conflict {
    /// Broken bitmaps are to be left out, but no bitmaps are copied.
    SkipWithoutBitmaps,
    /// Copying inside the host excludes compression.
    CopyRangeAndCompress,
    /// Copying inside the host excludes a sparse size.
    CopyRangeAndSparseSize,
    /// Copying inside the host excludes salvaging.
    CopyRangeAndSalvage,
    /// An existing image takes no creation options.
    OptionsOfExisting,
    /// Only an existing image can be declared to read as zeroes.
    ZeroOfNew,
    /// Several sources have no common backing file.
    BackingOfSeveral,
    /// A snapshot requires a single source.
    SnapshotOfSeveral,
    /// Bitmaps require a single source.
    BitmapsOfSeveral,
    /// A profile determines how a new image is created.
    ProfileOfExisting,
    /// A whole chain requires a single source, and becomes new images.
    WholeChain,
}

impl Conflict {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::SkipWithoutBitmaps,
        Self::CopyRangeAndCompress,
        Self::CopyRangeAndSparseSize,
        Self::CopyRangeAndSalvage,
        Self::OptionsOfExisting,
        Self::ZeroOfNew,
        Self::BackingOfSeveral,
        Self::SnapshotOfSeveral,
        Self::BitmapsOfSeveral,
        Self::ProfileOfExisting,
        Self::WholeChain,
    ];

    /// The first conflict in these settings.
    pub fn find(request: &ConvertRequest) -> Option<Self> {
        let (source, target, tuning) = (&request.source, &request.target, &request.tuning);
        let several = source.images.len() > 1;
        let found = [
            (
                source.skip_broken_bitmaps && !source.bitmaps,
                Self::SkipWithoutBitmaps,
            ),
            (
                tuning.copy_range && target.compress,
                Self::CopyRangeAndCompress,
            ),
            (
                tuning.copy_range && tuning.sparse_size.is_some(),
                Self::CopyRangeAndSparseSize,
            ),
            (
                tuning.copy_range && source.salvage,
                Self::CopyRangeAndSalvage,
            ),
            (
                target.exists && !target.options.is_empty(),
                Self::OptionsOfExisting,
            ),
            (target.is_zero && !target.exists, Self::ZeroOfNew),
            (
                target.backing_name().is_some() && several,
                Self::BackingOfSeveral,
            ),
            (
                source.snapshot.is_some() && several,
                Self::SnapshotOfSeveral,
            ),
            (source.bitmaps && several, Self::BitmapsOfSeveral),
            (
                target.profile.is_some() && (target.exists || target.fd.is_some()),
                Self::ProfileOfExisting,
            ),
            (
                target.whole_chain
                    && (several
                        || source.fd.is_some()
                        || source.snapshot.is_some()
                        || target.fd.is_some()
                        || target.exists
                        || target.backing_name().is_some()
                        || target.backing_format().is_some()),
                Self::WholeChain,
            ),
        ];
        found
            .into_iter()
            .find_map(|(broken, rule)| broken.then_some(rule))
    }

    /// What is wrong, in one line.
    pub fn message(self) -> &'static CStr {
        match self {
            Self::SkipWithoutBitmaps => {
                c"Broken bitmaps can only be left out where bitmaps are copied"
            }
            Self::CopyRangeAndCompress => c"Compressed data cannot be copied inside the host",
            Self::CopyRangeAndSparseSize => {
                c"Zeroes are not looked for in data that is copied inside the host, so a size for them has no effect"
            }
            Self::CopyRangeAndSalvage => {
                c"Data that may be unreadable cannot be copied inside the host"
            }
            Self::OptionsOfExisting => c"Creation options have no effect on a target that exists",
            Self::ZeroOfNew => c"Only a target that exists can be said to read as zeroes",
            Self::BackingOfSeveral => {
                c"Having a backing file for the target makes no sense when concatenating multiple input images"
            }
            Self::SnapshotOfSeveral => c"No support for concatenating multiple snapshot",
            Self::BitmapsOfSeveral => c"Copying bitmaps only possible with single source",
            Self::ProfileOfExisting => {
                c"A profile decides how a new image is made, and has no effect on a target that exists"
            }
            Self::WholeChain => {
                c"A whole chain is converted from one image into new images: no snapshot, backing file, descriptor or existing target goes with that"
            }
        }
    }
}

/// The error of a conversion without sources.
pub(super) fn no_source() -> Error {
    Error::invalid("A conversion takes at least one source")
}

/// Refuses invalid settings, before any file is touched.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`].
pub(crate) fn check(request: &ConvertRequest) -> Result<()> {
    if request.source.images.is_empty() && request.source.fd.is_none() {
        return Err(no_source());
    }
    let tuning = &request.tuning;
    tuning
        .sparse_size
        .map(u64::from)
        .map(check_sparse_size)
        .transpose()?;
    tuning
        .parallel
        .map(u64::from)
        .map(check_parallel)
        .transpose()?;
    if let Some(conflict) = Conflict::find(request) {
        return Err(Error::invalid(conflict.message().to_string_lossy()));
    }
    match request.target.profile {
        Some(profile) => applied(request, profile).map(drop),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Location;

    fn conflict(change: impl FnOnce(&mut ConvertRequest)) -> Conflict {
        let mut request = ConvertRequest::new(Location::from_path("a"), Location::from_path("b"));
        check(&request).unwrap();
        change(&mut request);
        let found = Conflict::find(&request).unwrap();
        let message = check(&request).unwrap_err().to_string();
        assert!(!message.contains(" -"), "a flag of the tool: {message}");
        found
    }

    #[test]
    fn every_conflict_is_found_and_named_without_flags() {
        let two = |r: &mut ConvertRequest| r.source.images.push(Location::from_path("c"));
        let found = [
            conflict(|r| r.source.skip_broken_bitmaps = true),
            conflict(|r| (r.tuning.copy_range, r.target.compress) = (true, true)),
            conflict(|r| (r.tuning.copy_range, r.tuning.sparse_size) = (true, Some(0))),
            conflict(|r| (r.tuning.copy_range, r.source.salvage) = (true, true)),
            conflict(|r| {
                r.target.exists = true;
                r.target.options.set("size", "1M");
            }),
            conflict(|r| r.target.is_zero = true),
            conflict(|r| {
                two(r);
                r.target.backing_file = Some("d".into());
            }),
            conflict(|r| {
                two(r);
                r.source.snapshot = Some("s".into());
            }),
            conflict(|r| {
                two(r);
                r.source.bitmaps = true;
            }),
            conflict(|r| (r.target.whole_chain, r.target.exists) = (true, true)),
        ];
        use Conflict::*;
        let expected = [
            SkipWithoutBitmaps,
            CopyRangeAndCompress,
            CopyRangeAndSparseSize,
            CopyRangeAndSalvage,
            OptionsOfExisting,
            ZeroOfNew,
            BackingOfSeveral,
            SnapshotOfSeveral,
            BitmapsOfSeveral,
            WholeChain,
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let refused = |change: fn(&mut ConvertRequest)| {
            let mut request =
                ConvertRequest::new(Location::from_path("a"), Location::from_path("b"));
            change(&mut request);
            assert_eq!(Conflict::find(&request), None);
            check(&request).unwrap_err().to_string()
        };
        let sparse = [
            refused(|r| r.tuning.sparse_size = Some(513)),
            refused(|r| r.tuning.sparse_size = Some(MAX_SPARSE + 512)),
        ];
        assert!(
            sparse
                .iter()
                .all(|message| message.contains("up to 16777216"))
        );
        let parallel = [
            refused(|r| r.tuning.parallel = Some(0)),
            refused(|r| r.tuning.parallel = Some(MAX_PARALLEL + 1)),
        ];
        assert!(parallel.iter().all(|message| message.ends_with("1 and 16")));
    }
}
