//! The parent of a differencing disk: its names and its identity.

use bstr::{BString, ByteSlice};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::format::{
    BackingRef, ExpectedParent, Mismatch, NameStyle, ParentId, ParentName, ParentRef,
};
use crate::memory;
use crate::storage::Storage;

use super::DRIVER;
use super::disk::{DynamicHeader, Locator, Platform, from_utf16, to_url, to_windows, without_dot};

/// Bytes reserved for each name of a new disk.
const SPACE: u32 = 4096;

/// The parent according to the header and the names of a disk.
///
/// # Errors
/// If the names cannot be read.
pub(super) fn read(
    storage: &dyn Storage,
    header: &DynamicHeader,
    file_len: u64,
) -> Result<ParentRef> {
    let mut found: Vec<(Platform, ParentName)> = Vec::new();
    for locator in header.locators() {
        let (Some(platform), true) = (locator.platform, locator.offset < file_len) else {
            continue;
        };
        let len = u64::from(locator.len).min(file_len - locator.offset);
        let mut bytes = memory::zeroed(len as usize)?;
        storage.read_at(&mut bytes, locator.offset)?;
        found.extend(platform.name(&bytes).map(|name| (platform, name)));
    }
    found.sort_by_key(|(platform, _)| *platform);
    let mut names: Vec<ParentName> = Vec::new();
    let own = from_utf16(header.parent_name(), u16::from_be_bytes);
    let style = match own.contains_str("\\") {
        true => NameStyle::Windows,
        false => NameStyle::Posix,
    };
    let own = (!own.is_empty()).then_some(ParentName { name: own, style });
    for name in found.into_iter().map(|(_, name)| name).chain(own) {
        let key = |name: &ParentName| {
            let here = name.here().unwrap_or_else(|| name.name.clone());
            BString::from(without_dot(&here))
        };
        if !names.iter().any(|other| key(other) == key(&name)) {
            names.push(name);
        }
    }
    Ok(ParentRef {
        names,
        format: Some(DRIVER.name.into()),
        expected: Some(ExpectedParent {
            ids: vec![ParentId::Uuid(header.parent)],
            if_changed: Mismatch::Refuse,
            if_other: Mismatch::Refuse,
        }),
    })
}

/// The UUID by which a child identifies its parent; `recorded` is that of its current parent.
pub(super) fn uuid_of(
    backing: &BackingRef,
    id: Option<ParentId>,
    recorded: Option<Uuid>,
) -> Result<Uuid> {
    let is_vpc = |format: &BString| *format == DRIVER.name;
    match (id, recorded) {
        (Some(ParentId::Uuid(uuid)), _) if !uuid.is_nil() => Ok(uuid),
        (None, _) if !backing.format.as_ref().is_none_or(is_vpc) => Err(is_no_vhd(backing)),
        // The file was not opened: it may be the recorded parent under another name.
        (None, Some(uuid)) => Ok(uuid),
        (None, None) => Err(Error::parent_not_known("UUID", &backing.name)),
        (Some(_), _) => Err(is_no_vhd(backing)),
    }
}

fn is_no_vhd(backing: &BackingRef) -> Error {
    Error::unsupported(format!(
        "'{}' is no VHD: a differencing VPC image knows its parent by the UUID",
        backing.name
    ))
}

/// The names that a new disk records, each with its location; they are stored one after the other from `offset`.
pub(super) fn names(backing: &BackingRef, offset: u64) -> Result<Vec<(Locator, Vec<u8>)>> {
    let name = &backing.name;
    let mut names = vec![(Platform::MacUrl, to_url(name))];
    names.extend(to_windows(name).map(|name| (Platform::WindowsRelative, name)));
    let mut placed = Vec::new();
    for ((platform, bytes), n) in names.into_iter().zip(0..) {
        if bytes.len() > SPACE as usize {
            return Err(Error::backing_name_too_long());
        }
        let locator = Locator {
            platform: Some(platform),
            offset: offset + n * u64::from(SPACE),
            len: bytes.len() as u32,
        };
        placed.push((locator, bytes));
    }
    Ok(placed)
}

/// Bytes of the file that a name takes up.
pub(super) const NAME_SPACE: u32 = SPACE;
