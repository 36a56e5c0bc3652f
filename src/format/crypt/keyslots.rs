//! Changing the key slots of a volume: the options, and what they request.

use std::time::Duration;

use crate::crypto::luks::{AmendState, HeaderIo, KeyslotChange, Volume};
use crate::error::{Error, Result};
use crate::job::JobControl;
use crate::object::Objects;
use crate::options::{OptionKind, OptionSpec, Values, option};
use crate::secret::Secret;

use super::cipher::OPTION_ITER_TIME;

/// The names of the options, without a prefix.
pub(crate) const KEYSLOT_OPTIONS: [&str; 5] =
    ["iter-time", "keyslot", "new-secret", "old-secret", "state"];

/// The options of `amend` under these names, in the order of [`KEYSLOT_OPTIONS`].
pub(crate) const fn keyslot_options(names: [&'static str; 5]) -> [OptionSpec; 5] {
    let [iter_time, keyslot, new_secret, old_secret, state] = names;
    [
        option(iter_time, OptionKind::Num, OPTION_ITER_TIME),
        option(
            keyslot,
            OptionKind::Num,
            "Select a single keyslot to modify explicitly",
        ),
        option(
            new_secret,
            OptionKind::Str,
            "New secret to set in the matching keyslots. Empty string to erase",
        ),
        option(
            old_secret,
            OptionKind::Str,
            "Select all keyslots that match this password",
        ),
        option(
            state,
            OptionKind::Str,
            "Select new state of affected keyslots (active/inactive)",
        )
        .one_of(&["active", "inactive"]),
    ]
}

/// Whether the values, whose keys begin with `prefix`, contain an option for key slots.
pub(crate) fn changes_keyslots(values: &Values, prefix: &str) -> bool {
    KEYSLOT_OPTIONS
        .iter()
        .any(|name| values.get(&format!("{prefix}{name}")).is_some())
}

/// Changes the key slots of the volume in `area` as requested by the options, whose keys begin with `prefix`
/// (`encrypt.` in qcow2). `unlocked_by` is the ID of the secret that opened the image.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`], [`crate::ErrorKind::NotFound`] for an unknown secret, otherwise as
/// [`Volume::amend`].
pub(crate) fn change_keyslots(
    area: &dyn HeaderIo,
    values: &Values,
    prefix: &str,
    objects: &Objects,
    unlocked_by: &str,
    force: bool,
    control: &JobControl,
) -> Result<()> {
    let state = match values.str(&format!("{prefix}state")) {
        Some("active") => AmendState::Active,
        Some("inactive") => AmendState::Inactive,
        Some(other) => {
            return Err(Error::refused_value("state", other));
        }
        None => return Err(Error::invalid("Parameter 'state' is missing")),
    };
    let filling = state == AmendState::Active;
    // A secret that must not be given is refused whether or not it exists.
    let secret = |name: &str, wanted: bool| match values.str(&format!("{prefix}{name}")) {
        Some(id) if wanted && filling => objects.secret_text(id).map(Some),
        Some(id) if wanted => objects.secret(id).map(Some),
        Some(_) => Ok(Some(Secret::new(Vec::new()))),
        None => Ok(None),
    };
    let new_secret = secret("new-secret", filling)?;
    let old_secret = secret("old-secret", !filling)?;
    let number = |name: &str| match values.num(&format!("{prefix}{name}")) {
        Some(value) if i64::try_from(value).is_err() => Err(Error::invalid(format!(
            "Parameter '{name}' expects integer"
        ))),
        value => Ok(value),
    };
    let change = KeyslotChange {
        state,
        keyslot: number("keyslot")?,
        old_secret: old_secret.as_ref().map(|secret| secret.bytes()),
        new_secret: new_secret.as_ref().map(|secret| secret.bytes()),
        iter_time: number("iter-time")?.map(Duration::from_millis),
        force,
    };
    let unlocked_by = objects.secret(unlocked_by)?;
    Volume::amend(area, &change, unlocked_by.bytes(), control)
}
