//! Changing the key slots of a LUKS volume.

use crate::crypto::luks::Volume;
use crate::error::{Error, Result};
use crate::format::crypt::{HeaderArea, KEYSLOT_OPTIONS, change_keyslots, keyslot_options};
use crate::format::{Amend, AmendContext};
use crate::job::Job;
use crate::options::OptionSpec;

use super::Luks;

/// Options of `amend`, sorted by name.
pub(super) const OPTIONS: &[OptionSpec] = &keyslot_options(KEYSLOT_OPTIONS);

impl Amend for Luks {
    fn amend(&self, context: &AmendContext<'_>, job: &mut Job) -> Result<()> {
        if !self.writable {
            return Err(Error::open_read_only(self.header_storage().name()));
        }
        let unlocked_by = self.secret_id.as_deref().ok_or_else(super::needs_secret)?;
        job.tick()?;
        let area = HeaderArea::new(self.header_storage().clone(), 0);
        let changed = change_keyslots(
            &area,
            context.values,
            "",
            context.objects,
            unlocked_by,
            context.force,
            job.control(),
        );
        // Even after a failure some slots may have changed.
        if let Ok(header) = Volume::read_header(&area) {
            *self.header.lock() = header;
        }
        changed
    }
}
