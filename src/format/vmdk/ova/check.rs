//! Checks archives that were created elsewhere for what readers of OVA would reject.

use std::ops::ControlFlow;
use std::sync::Arc;

use bstr::ByteSlice;

use crate::archive::{self, Member};
use crate::error::{ErrorKind, Result};
use crate::format::InspectContext;
use crate::format::objection::Objection;
use crate::format::package::PackageContext;
use crate::memory;
use crate::printable::{printable, printable_bytes};
use crate::storage::{SliceStorage, Storage};

use super::super::inspect::inspect;
use super::super::profile::check_stream;
use super::envelope::{NAME_SPACE, STREAM};
use super::manifest::{self, hex};
use super::parse::{Description, DiskEntry};

/// Maximum number of members that are examined.
const MAX_MEMBERS: usize = 1000;

/// Maximum length of a description or manifest.
const MAX_TEXT: u64 = 4 << 20;

/// Number of bytes read at a time to compute a digest.
const READ: usize = 1 << 20;

/// Maximum number of objections to one archive.
const MAX_FOUND: usize = 100;

const AGAIN: &str = "Convert its disk with the profile 'ova'";
const REPACK: &str =
    "Pack the files anew: the description first, then the manifest, then the disks in their order";

/// See [`crate::format::Package::first_image`]: the first disk that the description names, or else the first member
/// with the name of one.
pub(super) fn first_image(context: &PackageContext<'_>) -> Result<Option<Arc<dyn Storage>>> {
    let Ok(members) = members(context)? else {
        return Ok(None);
    };
    let archive = Archive { context, members };
    Ok(match archive.first_disk()? {
        Some(member) => archive.open(member),
        None => None,
    })
}

/// See [`crate::format::Package::check`].
pub(super) fn check(context: &PackageContext<'_>, found: &mut Vec<Objection>) -> Result<()> {
    let members = match members(context)? {
        Ok(members) => members,
        Err(objection) => {
            found.push(objection);
            return Ok(());
        }
    };
    let archive = Archive { context, members };
    archive.check_members(found);
    archive.check_manifest(found)?;
    archive.check_description(found)?;
    found.truncate(MAX_FOUND);
    Ok(())
}

/// The members, or the reason why there are none.
fn members(context: &PackageContext<'_>) -> Result<Result<Vec<Member>, Objection>> {
    let storage = &**context.storage;
    if !archive::is_archive(storage)? {
        return Ok(Err(Objection::new(
            "The file is no OVA: no tar archive is in it",
            "Convert it with the profile 'ova'",
        )));
    }
    let mut members = Vec::new();
    let visited = archive::visit_members(storage, context.control, &mut |member| {
        members.push(member);
        match members.len() < MAX_MEMBERS {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    });
    Ok(match visited {
        Ok(()) => Ok(members),
        Err(error) if error.kind() == ErrorKind::Corrupt => Err(Objection::new(
            error.to_string(),
            "Fetch the file once more: it may have been cut",
        )),
        Err(error) => return Err(error),
    })
}

/// An archive whose members are known.
struct Archive<'a> {
    context: &'a PackageContext<'a>,
    members: Vec<Member>,
}

impl Archive<'_> {
    fn ending(&self, ending: &str) -> Option<(usize, &Member)> {
        let mut members = self.members.iter().enumerate();
        members.find(|(_, member)| has_ending(member, ending))
    }

    fn called(&self, name: &str) -> Option<(usize, &Member)> {
        let mut members = self.members.iter().enumerate();
        members.find(|(_, member)| member.is_called(name.as_bytes().into()))
    }

    /// The text of a member; `None` if it is too long or not UTF-8.
    fn text(&self, member: &Member) -> Result<Option<String>> {
        if member.len > MAX_TEXT || member.is_sparse {
            return Ok(None);
        }
        let mut bytes = memory::zeroed(member.len as usize)?;
        self.context.storage.read_at(&mut bytes, member.offset)?;
        Ok(bytes.to_str().ok().map(str::to_owned))
    }

    fn description(&self) -> Result<Option<Result<Description, String>>> {
        let Some((_, member)) = self.ending(".ovf") else {
            return Ok(None);
        };
        Ok(Some(match self.text(member)? {
            Some(text) => Description::parse(&text),
            None => Err(format!("it is no text of at most {} MiB", MAX_TEXT >> 20)),
        }))
    }

    fn first_disk(&self) -> Result<Option<&Member>> {
        let named = match self.description()? {
            Some(Ok(description)) => description
                .disks
                .iter()
                .filter_map(|disk| description.file(disk.file.as_deref()?))
                .find_map(|file| self.called(&file.name)),
            _ => None,
        };
        Ok(named
            .or_else(|| self.ending(".vmdk"))
            .map(|(_, member)| member))
    }

    /// A member as a file of its own.
    fn open(&self, member: &Member) -> Option<Arc<dyn Storage>> {
        let file = self.context.storage.clone();
        // The archive was examined before: a member that extends past its end now has been truncated since.
        let slice = SliceStorage::new(file, member.offset, Some(member.len)).ok()?;
        (!member.is_sparse).then(|| Arc::new(slice) as Arc<dyn Storage>)
    }

    fn check_members(&self, found: &mut Vec<Objection>) {
        match self.ending(".ovf") {
            None => found.push(Objection::new(
                "The archive holds no description (.ovf)",
                AGAIN,
            )),
            Some((0, _)) => {}
            Some((_, member)) => found.push(Objection::new(
                format!(
                    "The description {} is not the first file of the archive",
                    shown(member)
                ),
                REPACK,
            )),
        }
        if self.members.len() == MAX_MEMBERS {
            found.push(Objection::new(
                format!("The archive holds {MAX_MEMBERS} files or more"),
                AGAIN,
            ));
        }
        for member in &self.members {
            if member.is_sparse {
                found.push(Objection::new(
                    format!("The holes of {} are left out in the archive", shown(member)),
                    "Pack the files without leaving out holes",
                ));
            }
            if member.has_extensions {
                found.push(Objection::new(
                    format!(
                        "What describes {} is extended as in pax archives, which vSphere does not read",
                        shown(member)
                    ),
                    "Pack the files in the format of GNU tar or ustar",
                ));
            }
        }
    }

    fn check_manifest(&self, found: &mut Vec<Objection>) -> Result<()> {
        // The manifest is optional.
        let Some((at, member)) = self.ending(".mf") else {
            return Ok(());
        };
        if at != 1 {
            found.push(Objection::new(
                format!(
                    "The manifest {} does not follow the description",
                    shown(member)
                ),
                REPACK,
            ));
        }
        let Some(text) = self.text(member)? else {
            found.push(Objection::new(
                format!("The manifest {} is no text", shown(member)),
                AGAIN,
            ));
            return Ok(());
        };
        let mut verified = Vec::new();
        for line in manifest::lines(&text) {
            let line = match line {
                Ok(line) => line,
                Err(other) => {
                    found.push(Objection::new(
                        format!("A line of the manifest is no digest: '{}'", cut(other)),
                        AGAIN,
                    ));
                    continue;
                }
            };
            let Some((at, member)) = self.called(line.file) else {
                found.push(Objection::new(
                    format!(
                        "The manifest names '{}', which is not there",
                        cut(line.file)
                    ),
                    "Pack all files that belong together",
                ));
                continue;
            };
            // The digest of a file that is listed twice is computed once.
            if verified.contains(&at) {
                continue;
            }
            verified.push(at);
            let Some(hash) = line.hash() else {
                found.push(Objection::new(
                    format!(
                        "The manifest has digests of the kind {}",
                        cut(line.algorithm)
                    ),
                    AGAIN,
                ));
                continue;
            };
            let digest = self.digest(member, hash)?;
            if !line.digest.eq_ignore_ascii_case(&digest) {
                found.push(Objection::new(
                    format!(
                        "{} is not what the manifest says: its {} is {digest}",
                        shown(member),
                        hash.name().to_ascii_uppercase()
                    ),
                    "Fetch the file once more; if it was changed on purpose, convert its disk anew",
                ));
            }
        }
        for (at, member) in self.members.iter().enumerate() {
            let counts = !has_ending(member, ".mf") && !has_ending(member, ".cert");
            if counts && !verified.contains(&at) {
                found.push(Objection::new(
                    format!("{} has no digest in the manifest", shown(member)),
                    AGAIN,
                ));
            }
        }
        Ok(())
    }

    fn digest(&self, member: &Member, hash: crate::crypto::Hash) -> Result<String> {
        let mut hasher = hash.hasher();
        let mut buf = memory::zeroed(READ)?;
        let mut done = 0;
        while done < member.len {
            self.context.control.checkpoint()?;
            let left = member.len - done;
            let part = &mut buf[..usize::try_from(left).map_or(READ, |left| left.min(READ))];
            self.context.storage.read_at(part, member.offset + done)?;
            hasher.update(part);
            done += part.len() as u64;
        }
        Ok(hex(&hasher.finish()))
    }

    fn check_description(&self, found: &mut Vec<Objection>) -> Result<()> {
        let description = match self.description()? {
            None => return Ok(()),
            Some(Ok(description)) => description,
            Some(Err(why)) => {
                found.push(Objection::new(
                    format!("The description cannot be read: {}", printable(&why)),
                    AGAIN,
                ));
                return Ok(());
            }
        };
        if description.name_space != NAME_SPACE {
            found.push(Objection::new(
                format!(
                    "The description is of another version than VMware's products read ({})",
                    cut(&description.name_space)
                ),
                AGAIN,
            ));
        }
        if description.machines == 0 {
            found.push(Objection::new(
                "The description has no virtual system",
                AGAIN,
            ));
        }
        if let Some(parent) = &description.lost_parent {
            found.push(Objection::new(
                format!(
                    "A disk is at the controller {}, which is not there",
                    cut(parent)
                ),
                AGAIN,
            ));
        }
        self.check_files(&description, found);
        if description.disks.is_empty() {
            found.push(Objection::new("The description has no disk", AGAIN));
        }
        let first = self.first_disk()?.map(|member| member.offset);
        for disk in &description.disks {
            self.check_disk(&description, disk, first, found)?;
        }
        Ok(())
    }

    fn check_files(&self, description: &Description, found: &mut Vec<Objection>) {
        let mut last = 0;
        for file in &description.files {
            if file.in_parts {
                continue;
            }
            let Some((at, member)) = self.called(&file.name) else {
                found.push(Objection::new(
                    format!(
                        "The description names '{}', which is not in the archive",
                        cut(&file.name)
                    ),
                    "Pack all files that belong together",
                ));
                continue;
            };
            if let Some(len) = file.len.filter(|len| *len != member.len) {
                found.push(Objection::new(
                    format!(
                        "{} has {} bytes, and by the description {len}",
                        shown(member),
                        member.len
                    ),
                    AGAIN,
                ));
            }
            if at < last {
                found.push(Objection::new(
                    format!(
                        "{} stands before files that the description names earlier",
                        shown(member)
                    ),
                    REPACK,
                ));
            }
            last = last.max(at);
        }
    }

    fn check_disk(
        &self,
        description: &Description,
        disk: &DiskEntry,
        first: Option<u64>,
        found: &mut Vec<Objection>,
    ) -> Result<()> {
        let id = cut(&disk.id);
        if !description.used.contains(&disk.id) {
            found.push(Objection::new(
                format!("The disk {id} belongs to no machine"),
                AGAIN,
            ));
        }
        let Some(reference) = &disk.file else {
            return Ok(());
        };
        let Some(file) = description.file(reference) else {
            found.push(Objection::new(
                format!("The disk {id} is in a file that the description does not list"),
                AGAIN,
            ));
            return Ok(());
        };
        if disk.format != STREAM {
            found.push(Objection::new(
                format!(
                    "The disk {id} is said to have the format '{}', and streams of VMDK are what is imported",
                    cut(&disk.format)
                ),
                AGAIN,
            ));
        }
        if file.compression.is_some() || file.in_parts {
            return Ok(());
        }
        let Some(storage) = self
            .called(&file.name)
            .and_then(|(_, member)| self.open(member))
        else {
            return Ok(());
        };
        let is_first = self.called(&file.name).map(|(_, member)| member.offset) == first;
        let context = InspectContext {
            file_len: storage.len()?,
            storage: (self.context.bounded)(storage),
            policy: self.context.policy,
        };
        let inspection = inspect(&context)?;
        match (inspection.virtual_size, disk.capacity) {
            (Some(size), Some(capacity)) if size != capacity => found.push(Objection::new(
                format!("The disk {id} has {size} bytes, and by the description {capacity}"),
                AGAIN,
            )),
            (None, _) if !is_first => found.push(Objection::new(
                format!("The file of the disk {id} is no VMDK"),
                AGAIN,
            )),
            (Some(_), _) if !is_first => {
                let mut more = Vec::new();
                check_stream(&context, &mut more)?;
                found.extend(more.into_iter().map(|objection| {
                    Objection::new(format!("The disk {id}: {}", objection.reason), AGAIN)
                }));
            }
            _ => {}
        }
        if !inspection.references.is_empty() {
            found.push(Objection::new(
                format!("The disk {id} stands on files outside of its own"),
                AGAIN,
            ));
        }
        Ok(())
    }
}

fn has_ending(member: &Member, ending: &str) -> bool {
    member
        .name
        .to_ascii_lowercase()
        .ends_with(ending.as_bytes())
}

fn shown(member: &Member) -> String {
    format!("'{}'", cut(&printable_bytes(&member.name)))
}

/// Prepares foreign text for a message.
fn cut(text: &str) -> String {
    const MOST: usize = 100;
    let shown = printable(text);
    match shown.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown.into_owned(),
    }
}
