//! The requirements for images from untrusted sources.

/// The outcome of checking a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The requirement is met.
    Pass,
    /// The image must not be used as it is.
    Fail,
    /// It could not be determined; counts as a failure.
    Unknown,
    /// The requirement does not apply.
    NotApplicable,
}

impl Verdict {
    /// The name in reports.
    pub fn id(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
            Self::NotApplicable => "not-applicable",
        }
    }

    /// Whether the image may be used as far as this requirement is concerned.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Pass | Self::NotApplicable)
    }
}

/// One requirement. Reports list them in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Requirement {
    /// The contents are of the format that the caller named.
    FormatMatches,
    /// The contents are of only one format.
    SingleFormat,
    /// The format has a driver here and the policy allows it.
    FormatAllowed,
    /// The version and every incompatible feature are known.
    KnownFeatures,
    /// No backing file or parent is named.
    NoBackingFile,
    /// If a backing file is named, so is its format.
    BackingFormat,
    /// No external data file is named.
    NoDataFile,
    /// No extent in another file is named.
    NoExtents,
    /// Names are plain, relative file names.
    PlainNames,
    /// The header fields are consistent; tables are within the file and do not overlap.
    HeaderConsistent,
    /// The virtual size is within the policy.
    VirtualSize,
    /// Tables are within the policy.
    TableSizes,
    /// Unlocking requires no more key derivation than the policy allows.
    KeyDerivation,
    /// A compressed unit decodes to no more than the policy allows.
    DecompressedSize,
    /// The length of the file is explained by its contents.
    FileSize,
    /// There are few enough internal snapshots to be walked.
    SnapshotCount,
    /// The image was closed properly and is not marked as damaged.
    Clean,
}

impl Requirement {
    /// Every requirement, in the order of reports.
    pub const ALL: &'static [Self] = &[
        Self::FormatMatches,
        Self::SingleFormat,
        Self::FormatAllowed,
        Self::KnownFeatures,
        Self::NoBackingFile,
        Self::BackingFormat,
        Self::NoDataFile,
        Self::NoExtents,
        Self::PlainNames,
        Self::HeaderConsistent,
        Self::VirtualSize,
        Self::TableSizes,
        Self::KeyDerivation,
        Self::DecompressedSize,
        Self::FileSize,
        Self::SnapshotCount,
        Self::Clean,
    ];

    /// Requirements that the format must judge; without its finding the verdict is unknown.
    pub const OF_FORMAT: &'static [Self] = &[
        Self::KnownFeatures,
        Self::HeaderConsistent,
        Self::TableSizes,
        Self::KeyDerivation,
        Self::DecompressedSize,
        Self::FileSize,
        Self::SnapshotCount,
        Self::Clean,
    ];

    /// The name in reports.
    pub fn id(self) -> &'static str {
        match self {
            Self::FormatMatches => "format-matches",
            Self::SingleFormat => "single-format",
            Self::FormatAllowed => "format-allowed",
            Self::KnownFeatures => "known-features",
            Self::NoBackingFile => "no-backing-file",
            Self::BackingFormat => "backing-format",
            Self::NoDataFile => "no-data-file",
            Self::NoExtents => "no-extents",
            Self::PlainNames => "plain-names",
            Self::HeaderConsistent => "header-consistent",
            Self::VirtualSize => "virtual-size",
            Self::TableSizes => "table-sizes",
            Self::KeyDerivation => "key-derivation",
            Self::DecompressedSize => "decompressed-size",
            Self::FileSize => "file-size",
            Self::SnapshotCount => "snapshot-count",
            Self::Clean => "clean",
        }
    }
}

/// The verdict on one requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Identifies the requirement.
    pub requirement: Requirement,
    /// The outcome.
    pub verdict: Verdict,
    /// One line with the reason.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_complete_and_in_order() {
        assert!(Requirement::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(Requirement::ALL.len(), Requirement::Clean as usize + 1);
        assert!(
            Requirement::OF_FORMAT
                .iter()
                .all(|g| Requirement::ALL.contains(g))
        );
    }
}
