//! How a protocol is described to the registry, and what it gets to open or create a storage.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use bstr::{BStr, BString};

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::net::Address;
use crate::object::Objects;
use crate::options::{OptionSpec, Options, Values, valid_keys};
use crate::policy::OpenPolicy;
use crate::storage::creation::{Creation, NewStorage};
use crate::storage::exports::ExportInfo;
use crate::storage::identity::Identity;
use crate::storage::modes::CacheMode;
use crate::storage::traits::Storage;
use crate::value::{Map, Value};

bitflags::bitflags! {
    /// What a protocol can do.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct StorageFeatures: u32 {
        /// Can be written.
        const WRITE = 1;
        /// Can be created, or taken as the target of a creation.
        const CREATE = 1 << 1;
        /// Can change its length.
        const RESIZE = 1 << 2;
        /// Takes locks against other processes.
        const LOCKS = 1 << 3;
        /// Tells data from holes.
        const EXTENTS = 1 << 4;
        /// Its offsets are places where its bytes stand, rather than made when they are read.
        const PLACES = 1 << 5;
    }
}

/// How to open a storage.
#[derive(Clone, Copy, Debug, Default)]
pub struct StorageOpen {
    /// Open for writing as well.
    pub writable: bool,
    /// Page cache use and flush guarantees.
    pub cache: CacheMode,
    /// An image names it: see [`crate::storage::FileOpen::named_by_image`].
    pub named_by_image: bool,
}

/// What a driver is to open or to create, beside its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageTarget<'a> {
    /// A host path; need not be UTF-8.
    Path(Cow<'a, Path>),
    /// `scheme:rest` as typed.
    Uri(&'a BStr),
    /// No name: the options say all.
    Unnamed,
}

/// What opening a storage gets.
#[derive(Clone, Debug)]
pub struct OpenContext<'a> {
    /// What to open.
    pub target: StorageTarget<'a>,
    /// Options of the protocol, from [`StorageDriver::check_options`].
    pub options: &'a Values,
    /// How to open it.
    pub how: StorageOpen,
    /// The secrets and other objects that options name by ID.
    pub objects: &'a Objects,
    /// What opening may do and how much it may take.
    pub policy: &'a OpenPolicy,
    /// Ends what takes long, such as a connection, when it is cancelled or late. A driver that keeps
    /// on waiting in later requests keeps it.
    pub control: &'a Arc<JobControl>,
}

impl OpenContext<'_> {
    /// Asks whether the server to be opened may be reached; a driver does that before it connects. A server that the
    /// caller names is always allowed.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`].
    pub fn check_server(&self, server: &Address) -> Result<()> {
        if !self.how.named_by_image {
            return Ok(());
        }
        if let Address::Descriptor(_) = server {
            let message = "An image names a socket that this process has open";
            return Err(Error::new(ErrorKind::Denied, message));
        }
        self.policy.check_host(server.host(), server.port())
    }

    /// The policy for servers that become known only when others have been reached; None where the caller names
    /// the image itself.
    pub(super) fn policy_of_servers(&self) -> Option<OpenPolicy> {
        self.how.named_by_image.then(|| self.policy.clone())
    }
}

/// What creating a storage gets.
#[derive(Clone, Debug)]
pub struct CreateContext<'a> {
    /// What to create.
    pub target: StorageTarget<'a>,
    /// Options, checked against [`StorageDriver::create_options`], without those that the format takes.
    pub options: &'a Values,
    /// Page cache use and flush guarantees.
    pub cache: CacheMode,
    /// The whole is written right away, so that space of earlier contents is of use.
    pub is_filled: bool,
    /// The secrets and other objects that options name by ID.
    pub objects: &'a Objects,
    /// What creating may do.
    pub policy: &'a OpenPolicy,
    /// Ends what takes long when it is cancelled or late.
    pub control: &'a Arc<JobControl>,
}

/// Takes a whole file name apart.
pub type ParseNameFn = fn(&BStr) -> Result<Map<String, Value>>;
/// Puts options together to a file name; None where none holds them all.
pub type ShortNameFn = fn(&Map<String, Value>) -> Option<BString>;
/// Opens a storage of one protocol.
pub type OpenFn = fn(&OpenContext<'_>) -> Result<Arc<dyn Storage>>;
/// Shows the identity of each file that a storage would stand on, as far as it is known before anything is opened
/// or a server is asked.
pub type StandsOnFn = fn(&OpenContext<'_>, &mut dyn FnMut(Identity));
/// Claims a storage of one protocol for an operation that is to fill it; makes it where it is missing
/// and changes nothing else.
pub type ClaimFn = fn(&CreateContext<'_>) -> Result<Box<dyn NewStorage>>;

/// Lists the exports of a server of one protocol.
pub type ExportsFn = fn(&OpenContext<'_>) -> Result<Vec<ExportInfo>>;

/// A protocol, as one line of the registry.
///
/// The functions of a client library are loaded at first use, and once: the outcome is that of every
/// later use. A connection belongs to the storage that `open` gives.
#[derive(Debug)]
pub struct StorageDriver {
    /// The name used as `driver=`.
    pub name: &'static str,
    /// What stands before the colon of a file name of this protocol.
    pub schemes: &'static [&'static str],
    /// What it can do.
    pub features: StorageFeatures,
    /// Its storages lie on this host.
    pub is_local: bool,
    /// The type of what `info` shows of it alone, where it shows anything.
    pub info_type: Option<&'static str>,
    /// Options of opening beyond those that every node has, sorted by name.
    pub open_options: &'static [OptionSpec],
    /// Those of them that say how something is opened and not what: they stand in no name.
    pub weak_options: &'static [&'static str],
    /// Options of creation, sorted by name.
    pub create_options: &'static [OptionSpec],
    /// The options that a whole file name, scheme included, stands for; without it the name is the target.
    pub parse_file_name: Option<ParseNameFn>,
    /// The name that options stand for, where a short one says all; without it that is the target alone.
    pub file_name: Option<ShortNameFn>,
    /// Opens; called by [`StorageDriver::open_storage`].
    pub open: OpenFn,
    /// Shows what its storages would stand on; called by [`StorageDriver::visit_identities`].
    pub stands_on: StandsOnFn,
    /// Begins to create, where the protocol can; called by [`StorageDriver::claim`].
    pub create: Option<ClaimFn>,
    /// Lists what the server exports, where servers of the protocol can tell; called by
    /// [`StorageDriver::list_exports`].
    pub exports: Option<ExportsFn>,
}

impl StorageDriver {
    /// Whether opening takes an option of that key.
    pub fn takes(&self, key: &str) -> bool {
        self.open_options.iter().any(|spec| spec.matches(key))
    }

    /// Whether its storages are files and devices of this host: what stands behind the scheme is a path.
    pub fn takes_paths(&self) -> bool {
        self.is_local && self.takes("filename")
    }

    /// Checks options of opening, the keys of nested ones joined by dots.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`]: an unknown key, or a value of another type.
    pub fn check_options(&self, options: &Options) -> Result<Values> {
        if let Some((key, _)) = options.iter().find(|(key, _)| !self.takes(key)) {
            return Err(self.unknown_option(key));
        }
        Values::check(options, self.open_options)
    }

    /// Refuses nulls, which give no value, where not even that can be left out: in an address, and for what is no
    /// option.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`].
    pub(crate) fn check_nulls(&self, given: &Map<String, Value>) -> Result<()> {
        for (key, _) in given.iter().filter(|(_, value)| **value == Value::Null) {
            if !self.takes(key) {
                return Err(self.unknown_option(key));
            }
            if key.starts_with("server.") {
                return Err(Error::invalid(format!("Parameter '{key}' has no value")));
            }
        }
        Ok(())
    }

    pub(super) fn unknown_option(&self, key: &str) -> Error {
        Error::invalid(format!(
            "Block protocol '{}' doesn't support the option '{key}'",
            self.name
        ))
        .with_hint(valid_keys(self.open_options))
    }

    /// Opens a storage, where the policy allows the protocol.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Denied`], [`crate::ErrorKind::ReadOnly`] where the protocol is only read, or of the
    /// open.
    pub fn open_storage(&self, context: &OpenContext<'_>) -> Result<Arc<dyn Storage>> {
        context.policy.check_protocol(self.name)?;
        let storage = (self.open)(context)?;
        if context.how.writable && !self.features.contains(StorageFeatures::WRITE) {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                format!("Protocol driver '{}' does not support writes", self.name),
            ));
        }
        Ok(storage)
    }

    /// Calls `visit` with the identity of each file that the storage of this context would stand on: those that
    /// [`Storage::visit_identities`] would show, or more, as far as they are known before anything is opened. Where
    /// the policy does not allow the protocol, there are none.
    pub fn visit_identities(&self, context: &OpenContext<'_>, visit: &mut dyn FnMut(Identity)) {
        if context.policy.allows_protocol(self.name) {
            (self.stands_on)(context, visit);
        }
    }

    /// Lists the exports of the server to which the context leads, where the policy allows the protocol.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Denied`], [`crate::ErrorKind::Unsupported`] where the protocol has no such list, or
    /// of the server.
    pub fn list_exports(&self, context: &OpenContext<'_>) -> Result<Vec<ExportInfo>> {
        context.policy.check_protocol(self.name)?;
        let exports = self.exports.ok_or_else(|| {
            Error::unsupported(format!("Protocol '{}' has no lists of exports", self.name))
        })?;
        exports(context)
    }

    /// Claims a storage for an operation that is to fill it. It is made where it is missing, and
    /// removed again unless the operation succeeds; what is there stays as it is until
    /// [`Creation::empty`]. No lock is taken.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Denied`], [`crate::ErrorKind::Unsupported`] where the protocol cannot
    /// create, or `Could not create 'X': …`.
    pub fn claim(&self, context: &CreateContext<'_>) -> Result<Creation> {
        context.policy.check_protocol(self.name)?;
        let create = self.create;
        let create = create.ok_or_else(|| Error::no_protocol_creation(self.name))?;
        create(context).map(|new| Creation::new(new).under(context.control))
    }
}

/// For protocols whose storages stand on nothing that another could write to, and for those whose server alone
/// knows what it is.
pub(super) fn none_is_known(_: &OpenContext<'_>, _: &mut dyn FnMut(Identity)) {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    const READ_ONLY: StorageDriver = StorageDriver {
        name: "any",
        schemes: &[],
        features: StorageFeatures::empty(),
        is_local: true,
        info_type: None,
        open_options: &[],
        weak_options: &[],
        create_options: &[],
        parse_file_name: None,
        file_name: None,
        open: |_| Ok(Arc::new(MemoryStorage::new("m"))),
        stands_on: none_is_known,
        create: None,
        exports: None,
    };

    #[test]
    fn what_is_only_read_is_not_opened_for_writing_whatever_its_driver_forgets() {
        let opened = |driver: &StorageDriver, writable| {
            let how = StorageOpen {
                writable,
                ..StorageOpen::default()
            };
            driver.open_storage(&OpenContext {
                target: StorageTarget::Unnamed,
                options: &Values::default(),
                how,
                objects: &Objects::new(),
                policy: &OpenPolicy::permissive(),
                control: &Arc::default(),
            })
        };
        assert!(opened(&READ_ONLY, false).is_ok());
        let error = opened(&READ_ONLY, true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnly);
        let written = StorageDriver {
            features: StorageFeatures::WRITE,
            ..READ_ONLY
        };
        assert!(opened(&written, true).is_ok());
    }
}
