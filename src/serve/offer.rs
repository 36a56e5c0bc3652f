//! What a server offers, as clients see it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bstr::{BStr, BString};
use parking_lot::RwLock;

use crate::error::{Error, ErrorKind, Result};
use crate::net::tls::{Authorization, Endpoint, TlsCredentials};
use crate::serve::export::Export;

/// Makes clients start TLS before anything else.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The server's certificates or keys.
    pub credentials: TlsCredentials,
    /// Which authenticated clients are admitted; None admits all.
    pub authorization: Option<Arc<Authorization>>,
}

/// The exports by name.
#[derive(Debug, Default)]
pub(super) struct Offer {
    exports: RwLock<BTreeMap<BString, Arc<Export>>>,
    tls: OnceLock<Tls>,
    ending: AtomicBool,
}

impl Offer {
    pub(super) fn add(&self, export: Export) -> Result<()> {
        match self.exports.write().entry(export.name().to_owned()) {
            Entry::Occupied(there) => Err(Error::new(
                ErrorKind::Exists,
                format!("There is an export '{}' already", there.key()),
            )),
            Entry::Vacant(place) => {
                place.insert(Arc::new(export));
                Ok(())
            }
        }
    }

    pub(super) fn remove(&self, name: &BStr) -> Option<Arc<Export>> {
        self.exports.write().remove(name)
    }

    pub(super) fn clear(&self) {
        self.exports.write().clear();
    }

    pub(super) fn export(&self, name: &BStr) -> Option<Arc<Export>> {
        self.exports.read().get(name).cloned()
    }

    pub(super) fn exports(&self) -> Vec<Arc<Export>> {
        self.exports.read().values().cloned().collect()
    }

    pub(super) fn set_tls(&self, tls: Tls) -> Result<()> {
        tls.credentials.expect(Endpoint::Server)?;
        let set = self.tls.set(tls);
        set.map_err(|_| Error::invalid("The server has TLS already"))
    }

    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.get()
    }

    /// From now on the server accepts no requests.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::Release);
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }
}
