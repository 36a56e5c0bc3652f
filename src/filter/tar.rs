//! `tar`: a file within a tar archive, read where it lies. What it holds may be an image of any format.

use std::io::IoSliceMut;
use std::ops::ControlFlow;
use std::sync::Arc;

use bstr::BStr;

use crate::archive::{self, Member};
use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageExtent;
use crate::filter::{Content, FilterContext, FilterDriver};
use crate::format::ChildSpec;
use crate::job::JobControl;
use crate::options::{OptionKind, OptionSpec};
use crate::printable::printable_bytes;
use crate::storage::forward::{forward, read_only};
use crate::storage::{HostFile, Limits, Storage};

/// The line of the registry.
pub static DRIVER: FilterDriver = FilterDriver {
    name: "tar",
    children: &[ChildSpec::FILE],
    shows: None,
    contents: Some(contents),
    holds_file: true,
    passes_compressed: false,
    keeps_writers_out: false,
    open_options: &[OptionSpec {
        name: MEMBER,
        kind: OptionKind::Name,
        help: "name of the file within the archive",
        default: None,
        allowed: &[],
    }],
    weak_options: &[],
    events: &[],
    open,
    file_names: None,
    file_name: None,
};

const MEMBER: &str = "member";

/// The most names that a message lists.
const NAMED: usize = 8;

#[derive(Debug)]
struct TarMember {
    archive: Arc<dyn Storage>,
    offset: u64,
    len: u64,
}

fn open(mut context: FilterContext<'_>) -> Result<Arc<dyn Storage>> {
    let archive = context.take(ChildSpec::FILE.name)?.storage;
    if context.writable {
        let text = format!(
            "'{}': what lies in a tar archive can only be read",
            archive.name()
        );
        return Err(Error::new(ErrorKind::ReadOnly, text));
    }
    let name = context.options.name(MEMBER);
    let member = find(&*archive, name, context.control)?;
    if member.is_sparse {
        return Err(Error::unsupported(format!(
            "'{}': the holes of '{}' are left out in the archive; unpack it first",
            archive.name(),
            printable_bytes(&member.name)
        )));
    }
    Ok(Arc::new(TarMember {
        offset: member.offset,
        len: member.len,
        archive,
    }))
}

/// The last member of that name, as unpacking would leave it; without a name the only one there is.
fn find(archive: &dyn Storage, name: Option<&BStr>, control: &JobControl) -> Result<Member> {
    let mut found = None;
    let mut count = 0;
    let mut names = String::new();
    archive::visit_members(archive, control, &mut |member| {
        count += 1;
        if count <= NAMED {
            let separator = if names.is_empty() { "" } else { ", " };
            names += &format!("{separator}'{}'", printable_bytes(&member.name));
        } else if count == NAMED + 1 {
            names += ", …";
        }
        match name {
            Some(name) if !member.is_called(name) => {}
            _ => found = Some(member),
        }
        ControlFlow::Continue(())
    })?;
    let archive = archive.name();
    match (name, found) {
        (_, None) if count == 0 => Err(Error::invalid(format!(
            "'{archive}': the archive holds no files"
        ))),
        (Some(name), None) => Err(Error::invalid(format!(
            "'{archive}': the archive has no member '{}'; it has {names}",
            printable_bytes(name)
        ))),
        (None, Some(_)) if count > 1 => Err(Error::invalid(format!(
            "'{archive}': name a member of the archive by the option '{MEMBER}'; it has {names}"
        ))),
        (_, Some(found)) => Ok(found),
        (None, None) => Err(Error::invalid(format!("'{archive}': the archive is empty"))),
    }
}

/// What an archive holds; nothing where the file is not an archive.
fn contents(
    file: &dyn Storage,
    control: &JobControl,
    visit: &mut dyn FnMut(Content) -> ControlFlow<()>,
) -> Result<()> {
    if !archive::is_archive(file)? {
        return Ok(());
    }
    archive::visit_members(file, control, &mut |member| {
        visit(Content {
            option: MEMBER,
            name: member.name,
            len: member.len,
        })
    })
}

impl TarMember {
    /// The bytes of a range that the member has.
    fn inside(&self, offset: u64, len: u64) -> u64 {
        len.min(self.len.saturating_sub(offset))
    }

    fn refused(&self) -> Error {
        Error::new(
            ErrorKind::ReadOnly,
            format!("'{}' is read-only", self.archive.name()),
        )
    }
}

impl Storage for TarMember {
    forward!(archive: name, identity, sync, allocated_size, lock);
    read_only!(refused);

    fn driver(&self) -> &'static str {
        DRIVER.name
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let (inside, outside) = buf.split_at_mut(self.inside(offset, buf.len() as u64) as usize);
        outside.fill(0);
        match inside.is_empty() {
            true => Ok(()),
            false => self.archive.read_at(inside, self.offset + offset),
        }
    }

    fn try_read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<bool> {
        let len = bufs.iter().map(|buf| buf.len() as u64).sum();
        match self.inside(offset, len) == len {
            true => self.archive.try_read(bufs, self.offset + offset),
            false => Ok(false),
        }
    }

    fn len(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        match self.inside(offset, len) {
            0 => Ok(StorageExtent {
                len,
                zero: true,
                allocated: false,
            }),
            inside => self.archive.extent(self.offset + offset, inside),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            fixed_len: true,
            ..self.archive.limits()
        }
    }

    fn host(&self) -> Option<&dyn HostFile> {
        // Its bytes lie at other offsets there.
        None
    }
}
