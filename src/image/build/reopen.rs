//! Reopens what lies below an open image: to write to it, or for its metadata only.

use super::below::{described, has_nameless_parent, of_layer, recorded};
use super::open_chain;
use crate::error::{Error, ErrorKind, Result};
use crate::image::node_plan::ChildPlan;
use crate::image::{Image, OpenOptions, lock};
use crate::location::json_name;
use crate::printable::shown_name;
use crate::value::{Map, Value};

impl Image {
    /// Opens the layer below, and its own chain, again and for writing; the policy is asked again. The open one
    /// releases the locks that would be in the way, and must not be read any more once the new one is written to.
    ///
    /// # Errors
    /// As [`Image::open`], beginning with the name of the backing file.
    pub fn open_backing_writable(&self, options: &OpenOptions) -> Result<Self> {
        let base = self
            .backing()
            .ok_or_else(|| Error::invalid("Image does not have a backing file"))?;
        let tree = described(self.below.as_ref())?.cloned().unwrap_or_default();
        base.lock_files(lock::of_neighbour())?;
        let options = OpenOptions {
            writable: true,
            backing: true,
            metadata_only: false,
            force_share: false,
            ..of_layer(options)
        };
        self.start_below(recorded(self), tree, &options)
            .and_then(|start| open_chain(start, &options, Some(self), None))
            .map_err(|error| match error.kind() {
                // The file has been opened; changing its locks failed.
                ErrorKind::Locked => error,
                _ => error.could_not_open(base.location.display()),
            })
    }

    /// Opens what an open of the image would open below it, without its own chain and only for its metadata, under the
    /// policy of `options`. None if there is nothing below.
    ///
    /// # Errors
    /// As [`Image::open`], beginning with the name of the backing file.
    pub(crate) fn open_below_metadata(&self, options: &OpenOptions) -> Result<Option<Self>> {
        match (&self.below, described(self.below.as_ref())?) {
            (Some(ChildPlan::Null), _) => Ok(None),
            (_, Some(tree)) => self.open_metadata_with(tree.clone(), options).map(Some),
            (_, None) => self.open_backing_metadata(options),
        }
    }

    fn open_metadata_with(&self, tree: Map<String, Value>, options: &OpenOptions) -> Result<Self> {
        let options = OpenOptions {
            metadata_only: true,
            ..of_layer(options)
        };
        let name = match self.backing_file() {
            Some(named) => shown_name(&named.full_name),
            None => json_name(&tree),
        };
        self.start_below(recorded(self), tree, &options)
            .and_then(|start| open_chain(start, &options, Some(self), None))
            .map_err(|error| error.could_not_open(name))
    }

    /// Opens the backing file that the image names, without its own chain and only for its metadata, under the policy
    /// of `options`: the next step of `info` along a chain. None if the image names none.
    ///
    /// # Errors
    /// As [`Image::open`], beginning with the name of the backing file.
    pub fn open_backing_metadata(&self, options: &OpenOptions) -> Result<Option<Self>> {
        match self.backing_file() {
            None if !has_nameless_parent(self) => Ok(None),
            _ => self.open_metadata_with(Map::new(), options).map(Some),
        }
    }
}
