//! Opens the files that an image names, under the policy.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bstr::BStr;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::format::Opener;
use crate::image::host::Opened;
use crate::image::open::{Context, open_source};
use crate::image::plan::{Plan, Source, source_of_tree};
use crate::image::{OpenOptions, lock};
use crate::location::{Location, resolve_name, resolve_plain_name};
use crate::policy::{ImplicitAnswer, ImplicitFile, ImplicitRole, OpenPolicy};
use crate::storage::{Storage, file};
use crate::value::{Map, Value};

/// The [`Opener`] of an image that is being opened.
pub(super) struct ImageOpener<'a> {
    /// How the image is opened, and what is open above it.
    pub(super) context: Context<'a>,
    /// The image's name for messages.
    pub(super) named_by: &'a BStr,
    /// The image's file name.
    pub(super) base: &'a OsStr,
    /// The tree that replaces the data file that the image names.
    pub(super) data_file: Option<&'a Map<String, Value>>,
    /// Whether that was asked for.
    pub(super) data_file_used: AtomicBool,
    /// The tree of the file that holds the header.
    pub(super) header: Option<&'a Map<String, Value>>,
    /// That file, once it was asked for.
    pub(super) header_file: Mutex<Option<HeaderFile>>,
}

/// The file that holds the header apart from the image's file.
#[derive(Clone, Debug)]
pub(super) struct HeaderFile {
    /// The file.
    pub(super) storage: Arc<dyn Storage>,
    /// The options that open it again.
    pub(super) tree: Map<String, Value>,
}

/// What a name inside an image leads to.
pub(super) enum Named {
    /// A location to open.
    Location(Location),
    /// An open file, and its name.
    Storage(Opened),
}

/// Applies the policy to a name inside an image.
///
/// # Errors
/// [`crate::ErrorKind::Denied`] by policy; of parsing the name.
pub(super) fn resolve(
    role: ImplicitRole,
    name: &OsStr,
    named_by: &BStr,
    base: &OsStr,
    writable: bool,
    options: &OpenOptions,
) -> Result<Named> {
    let policy = &options.policy;
    // A data file is named as seen from the working directory, other files as seen from the image.
    let base = match role {
        ImplicitRole::DataFile => OsStr::new(""),
        ImplicitRole::Backing | ImplicitRole::Extent => base,
    };
    let full: OsString;
    let location = if policy.implicit_protocols && role == ImplicitRole::Backing {
        full = resolve_name(base, name);
        Location::parse_name(&full)?
    } else {
        full = resolve_plain_name(base, name);
        Location::from_path(&full)
    };
    let name = BStr::new(name.as_bytes());
    let answer = policy.check_implicit(&ImplicitFile {
        role,
        name,
        named_by,
        path: location.path(),
        writable,
    })?;
    match answer {
        ImplicitAnswer::Open => Ok(Named::Location(location)),
        ImplicitAnswer::Fd(fd) => {
            let open = file::FileOpen {
                writable,
                cache: options.cache,
                named_by_image: true,
                ..file::FileOpen::default()
            };
            let shown = location.text().as_bytes();
            let storage = file::open_fd(fd, shown, &open)?;
            let mut opened = Opened::given(Arc::new(storage));
            opened.base = full;
            Ok(Named::Storage(opened))
        }
        ImplicitAnswer::Deny => Err(Error::new(
            crate::ErrorKind::Denied,
            format!("The open policy does not allow '{name}'"),
        )),
    }
}

impl ImageOpener<'_> {
    fn open(&self, role: ImplicitRole, name: &BStr, writable: bool) -> Result<Opened> {
        let replaced = self.data_file.filter(|_| role == ImplicitRole::DataFile);
        let opened = if let Some(tree) = replaced {
            self.data_file_used.store(true, Ordering::Relaxed);
            open_source(&source_of_tree(tree.clone())?, writable, &self.context)?
        } else {
            let context = Context {
                named_by_image: true,
                ..self.context
            };
            let options = context.options;
            let name = OsStr::from_bytes(name);
            match resolve(role, name, self.named_by, self.base, writable, options)? {
                Named::Storage(opened) => opened,
                Named::Location(location) => {
                    let source = match Plan::new(&location, None)? {
                        // A name alone is the file itself: its contents are not looked at.
                        Plan {
                            format: None,
                            source,
                            options,
                            ..
                        } if options.is_empty() => source,
                        plan => Source::Node(Box::new(plan)),
                    };
                    open_source(&source, writable, &context)?
                }
            }
        };
        if self.context.holds(opened.storage.identity().as_ref()) {
            return Err(Error::invalid(format!(
                "'{}' is the {} of itself",
                self.named_by,
                role.words()
            )));
        }
        Ok(opened)
    }
}

impl Opener for ImageOpener<'_> {
    fn open_named(
        &self,
        role: ImplicitRole,
        name: &BStr,
        writable: bool,
    ) -> Result<Arc<dyn Storage>> {
        let opened = self.open(role, name, writable)?;
        if !opened.locked {
            let share = self.context.force_share;
            opened.storage.lock(lock::of_data_file(writable, share))?;
        }
        Ok(opened.storage)
    }

    fn open_given(&self, child: &str, writable: bool) -> Result<Option<Arc<dyn Storage>>> {
        let tree = match child {
            "header" => self.header,
            "data-file" => {
                self.data_file_used.store(true, Ordering::Relaxed);
                self.data_file
            }
            _ => None,
        };
        let Some(tree) = tree else {
            return Ok(None);
        };
        let opened = open_source(&source_of_tree(tree.clone())?, writable, &self.context)?;
        if self.context.holds(opened.storage.identity().as_ref()) {
            return Err(Error::invalid(format!(
                "'{}' is the {child} of itself",
                self.named_by
            )));
        }
        if !opened.locked {
            let share = self.context.force_share;
            let metadata_only = self.context.options.metadata_only;
            opened.storage.lock(match child {
                "header" => lock::of_header(writable, metadata_only),
                _ => lock::of_data_file(writable, share),
            })?;
        }
        if child == "header" {
            *self.header_file.lock() = Some(HeaderFile {
                storage: opened.storage.clone(),
                tree: opened.tree,
            });
        }
        Ok(Some(opened.storage))
    }

    fn policy(&self) -> &OpenPolicy {
        &self.context.options.policy
    }
}
