//! The parent of an image, its backing file: the names under which it may be found, and what distinguishes it from
//! another file of the same name.

use std::fmt;
use std::time::SystemTime;

use bstr::{BStr, BString, ByteSlice};
use uuid::Uuid;

use crate::driver_names::canonical;

/// The image below another one, and what images above it record of it; reached through
/// [`Format::lineage`](crate::format::Format::lineage).
pub trait Lineage: Send + Sync {
    /// The backing file that the image names.
    fn parent(&self) -> Option<ParentRef>;

    /// How the parent is found if the image has no name for it; None if it has to be named.
    fn parent_search(&self) -> Option<&'static ParentSearch> {
        None
    }

    /// What images that have this one as their parent record of it, if the format supports that.
    fn id(&self) -> Option<ParentId> {
        None
    }

    /// The identity of the disk, shared by all layers of a chain, if the format records it.
    fn disk_id(&self) -> Option<Uuid> {
        None
    }

    /// The sector sizes of the disk, if the format records them. The logical size is the same in all layers of a chain.
    fn sectors(&self) -> Option<Sectors> {
        None
    }
}

/// The sector sizes of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sectors {
    /// Bytes per logical sector, the unit of requests.
    pub logical: u32,
    /// Bytes that the disk writes at once, a hint for the guest.
    pub physical: u32,
}

impl Sectors {
    /// Checks whether a disk with these sectors may be the parent of one with logical sectors of this size.
    ///
    /// # Errors
    /// The reason, to be appended to the name of the parent.
    pub fn check_child(self, logical: u32) -> Result<(), String> {
        match self.logical == logical {
            true => Ok(()),
            false => Err(format!(
                "has logical sectors of {} bytes, and the image above it such of {logical}: all layers of a \
                 chain have the same",
                self.logical
            )),
        }
    }
}

/// What is known of an image that is to become the parent of another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewParent {
    /// Its virtual size in bytes.
    pub size: u64,
    /// What distinguishes it from others, if its format has that.
    pub id: Option<ParentId>,
    /// The identity of its disk, which a new image inherits, if its format has one.
    pub disk_id: Option<Uuid>,
    /// Its sectors, which a new image inherits, if its format records them.
    pub sectors: Option<Sectors>,
    /// When its file was last modified, if that is known.
    pub modified: Option<SystemTime>,
}

/// A backing file as given by users and recorded by images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackingRef {
    /// The name as recorded in the image.
    pub name: BString,
    /// The format that the image records for it.
    pub format: Option<BString>,
}

impl BackingRef {
    /// What a new image, or one with a new parent, is to record; the format under the name that all tools know.
    pub fn to_record(name: BString, format: Option<&str>) -> Self {
        let format = format.map(|format| canonical(format).into());
        Self { name, format }
    }
}

/// The parent that an image names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentRef {
    /// The names under which it may be found, in the order in which to try them; empty if the image records only the
    /// identity of its parent.
    pub names: Vec<ParentName>,
    /// The format that the image records for it.
    pub format: Option<BString>,
    /// What is required of it.
    pub expected: Option<ExpectedParent>,
}

/// A name of a parent, in the encoding of this system; what an image stores as UTF-16 is UTF-8 here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentName {
    /// The name as recorded in the image.
    pub name: BString,
    /// The system whose rules it follows.
    pub style: NameStyle,
}

/// The system whose rules a name follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameStyle {
    /// A path on this system, or a URI.
    Posix,
    /// A Windows path: backslashes, drive letters.
    Windows,
}

/// The identity that an image expects of its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedParent {
    /// What was recorded. A match of any one is sufficient; there is at least one.
    pub ids: Vec<ParentId>,
    /// What to do if the parent has been changed since: all or part of its identity differs.
    pub if_changed: Mismatch,
    /// What to do if it is another image, or one without an identity.
    pub if_other: Mismatch,
}

/// Where to look for a parent that images know only by its identity, and how to recognise it.
#[derive(Clone, Copy, Debug)]
pub struct ParentSearch {
    /// The directory in which the product keeps children; parents are in it, or in its parent directory.
    pub children: &'static str,
    /// Number of bytes at the beginning of a file that identify it.
    pub head_len: usize,
    /// The identity of an image that begins with these bytes.
    pub identify: fn(&[u8]) -> Option<ParentId>,
}

/// What to do if a parent is not the one that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Refuse to open the image.
    Refuse,
    /// Open the image, with a warning.
    Warn,
}

/// Distinguishes an image from others of the same name, and from its own earlier states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParentId {
    /// The content ID of a VMDK.
    ContentId(u32),
    /// The UUID of a VHD. Children also record the modification time of the parent's file, which differs for a copy.
    Uuid(uuid::Uuid),
    /// The data write GUID of a VHDX.
    DataWriteGuid(uuid::Uuid),
    /// The UUID of a VDI, and the UUID of its last modification.
    UuidAndModification {
        /// The UUID of the image.
        uuid: uuid::Uuid,
        /// Replaced after each change.
        modification: uuid::Uuid,
    },
}

/// How an identity compares with a recorded one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Likeness {
    /// The same image, unchanged.
    Same,
    /// The same image, changed since then.
    Changed,
    /// Another image, or one that was changed: the identity does not distinguish the two.
    ChangedOrOther,
    /// Another image.
    Other,
}

impl ParentId {
    /// Compares the identity that was found with this one, which was recorded.
    fn likeness(self, found: Self) -> Likeness {
        match (self, found) {
            _ if self == found => Likeness::Same,
            (
                Self::UuidAndModification { uuid: a, .. },
                Self::UuidAndModification { uuid: b, .. },
            ) if a == b => Likeness::Changed,
            (Self::ContentId(_), Self::ContentId(_))
            | (Self::DataWriteGuid(_), Self::DataWriteGuid(_)) => Likeness::ChangedOrOther,
            _ => Likeness::Other,
        }
    }
}

impl ParentId {
    /// Whether the identity that was found belongs to the same image, changed or not.
    pub fn is_same_image(self, found: Self) -> bool {
        matches!(self.likeness(found), Likeness::Same | Likeness::Changed)
    }

    /// A placeholder for the name of a file that is known only by this identity.
    pub fn mark(self) -> String {
        match self {
            Self::ContentId(id) => format!("{id:08x}"),
            Self::Uuid(uuid)
            | Self::DataWriteGuid(uuid)
            | Self::UuidAndModification { uuid, .. } => uuid.braced().to_string(),
        }
    }
}

impl fmt::Display for ParentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ContentId(id) => write!(f, "content ID {id:08x}"),
            Self::Uuid(uuid) => write!(f, "UUID {uuid}"),
            Self::DataWriteGuid(guid) => write!(f, "data write GUID {guid}"),
            Self::UuidAndModification { uuid, modification } => {
                write!(f, "UUID {uuid} of modification {modification}")
            }
        }
    }
}

impl ParentRef {
    /// A parent with one name and nothing else recorded.
    pub fn named(reference: BackingRef) -> Self {
        Self {
            names: vec![ParentName {
                name: reference.name,
                style: NameStyle::Posix,
            }],
            format: reference.format,
            expected: None,
        }
    }

    /// The names as paths on this system, except those that have no meaning here.
    pub fn names_here(&self) -> impl Iterator<Item = BString> {
        self.names.iter().filter_map(ParentName::here)
    }

    /// The name to be tried first, as a path on this system.
    pub fn first(&self) -> Option<BackingRef> {
        let name = self.names_here().next()?;
        Some(BackingRef {
            name,
            format: self.format.clone(),
        })
    }

    /// Checks whether a parent with that identity may be read.
    ///
    /// # Errors
    /// What to do, and one line that states both identities.
    pub fn check(&self, found: Option<ParentId>) -> Result<(), (Mismatch, String)> {
        let Some(expected) = &self.expected else {
            return Ok(());
        };
        let shown = match found {
            Some(found) => format!("has the {found}"),
            None => "has no such mark".to_owned(),
        };
        let mut wanted = None;
        for id in &expected.ids {
            let likeness = found.map_or(Likeness::Other, |found| id.likeness(found));
            let (meaning, what) = match likeness {
                Likeness::Same => return Ok(()),
                Likeness::Changed => (
                    expected.if_changed,
                    "was changed since it was recorded as the parent",
                ),
                Likeness::ChangedOrOther => (
                    expected.if_changed,
                    "is not the parent that was recorded, or was changed since",
                ),
                Likeness::Other => (expected.if_other, "is not the parent that was recorded"),
            };
            wanted.get_or_insert((
                meaning,
                format!("{what}: the {id} is expected, and the file {shown}"),
            ));
        }
        wanted.map_or(Ok(()), Err)
    }

    /// The preferred identity of the parent.
    pub fn expected_id(&self) -> Option<ParentId> {
        self.expected.as_ref()?.ids.first().copied()
    }

    /// Whether the image has a parent but no name that is usable here.
    pub fn is_nameless(&self) -> bool {
        self.names_here().next().is_none()
    }
}

impl ParentName {
    /// The name as a path on this system; None if it has no meaning here, such as a drive of another machine.
    pub fn here(&self) -> Option<BString> {
        match self.style {
            NameStyle::Posix => Some(self.name.clone()),
            NameStyle::Windows => from_windows(self.name.as_bstr()),
        }
    }
}

fn from_windows(name: &BStr) -> Option<BString> {
    let has_drive = name.get(1) == Some(&b':');
    if has_drive || name.starts_with(b"\\") || name.starts_with(b"/") {
        return None;
    }
    Some(name.replace(b"\\", b"/").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(name: &str) -> ParentName {
        ParentName {
            name: name.into(),
            style: NameStyle::Windows,
        }
    }

    #[test]
    fn names_of_windows_are_paths_where_they_are_relative() {
        assert_eq!(windows(r".\dir\a.vhd").here(), Some("./dir/a.vhd".into()));
        assert_eq!(windows("a.vhd").here(), Some("a.vhd".into()));
        for elsewhere in [r"C:\a.vhd", r"\\host\share\a.vhd", r"\a.vhd", "C:a.vhd"] {
            assert_eq!(windows(elsewhere).here(), None, "{elsewhere}");
        }
    }

    #[test]
    fn a_parent_is_what_was_recorded_or_it_is_not() {
        let mut parent = ParentRef {
            names: vec![windows(r"C:\a.vhd"), windows(r"..\a.vhd")],
            format: Some("vpc".into()),
            expected: None,
        };
        assert_eq!(parent.first().unwrap().name, "../a.vhd");
        assert_eq!(parent.check(None), Ok(()));
        parent.expected = Some(ExpectedParent {
            ids: vec![ParentId::ContentId(1), ParentId::ContentId(3)],
            if_changed: Mismatch::Warn,
            if_other: Mismatch::Warn,
        });
        assert_eq!(parent.check(Some(ParentId::ContentId(3))), Ok(()));
        assert_eq!(parent.check(Some(ParentId::ContentId(1))), Ok(()));
        for found in [None, Some(ParentId::ContentId(2))] {
            let (what, line) = parent.check(found).unwrap_err();
            assert_eq!(what, Mismatch::Warn);
            assert!(line.contains("content ID 00000001"), "{line}");
        }
    }

    #[test]
    fn a_parent_that_was_changed_is_told_from_another_image() {
        let uuid = uuid::Uuid::from_u128;
        let vhd = |id| ParentId::Uuid(uuid(id));
        let vdi = |id, modification| ParentId::UuidAndModification {
            uuid: uuid(id),
            modification: uuid(modification),
        };
        let vhdx = |id| ParentId::DataWriteGuid(uuid(id));
        let (changed, other) = (Mismatch::Warn, Mismatch::Refuse);
        for (recorded, found, meaning) in [
            (vhd(1), vhd(2), other),
            (vdi(1, 5), vdi(1, 6), changed),
            (vdi(1, 5), vdi(2, 5), other),
            (vhdx(1), vhdx(2), changed),
            (vhdx(1), vhd(1), other),
        ] {
            let parent = ParentRef {
                names: Vec::new(),
                format: None,
                expected: Some(ExpectedParent {
                    ids: vec![recorded],
                    if_changed: changed,
                    if_other: other,
                }),
            };
            assert!(parent.is_nameless());
            assert_eq!(parent.check(Some(recorded)), Ok(()));
            let (found, line) = parent.check(Some(found)).unwrap_err();
            assert_eq!(found, meaning, "{line}");
            assert_eq!(parent.check(None).unwrap_err().0, other);
        }
    }
}
