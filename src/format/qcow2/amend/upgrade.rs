//! From version 2 to version 3: completes the fields of all snapshots, then replaces the header.

use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::format::qcow2::create::MIN_CLUSTER_FOR_NAMES;
use crate::format::qcow2::disk::Extension;
use crate::format::qcow2::state::Qcow2;

impl Qcow2 {
    /// Gives the image a version 3 header.
    pub(super) fn upgrade(&self) -> Result<()> {
        self.complete_snapshots()?;
        let roomy = self.layout.cluster_size() >= MIN_CLUSTER_FOR_NAMES;
        self.switch_whole_header(|image| {
            image.header.version = 3;
            image
                .extensions
                .retain(|extension| !matches!(extension, Extension::FeatureNames(_)));
            if !roomy {
                return;
            }
            image.extensions.push(Extension::known_feature_names());
            // The names only improve messages: a header that is full goes without.
            if image.to_bytes().is_err() {
                image.extensions.pop();
            }
        })?;
        self.version.store(3, Ordering::Release);
        Ok(())
    }
}
