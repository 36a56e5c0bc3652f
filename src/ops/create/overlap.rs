//! No operation changes a file that an image of the same operation depends on, whatever role the file has for that
//! image and whatever name it is given by.

use bstr::{BStr, BString};

use crate::error::{Error, ErrorKind, Result};
use crate::format::FileRole;
use crate::image::{Image, StandingFile};
use crate::memory;
use crate::storage::Identity;

/// Why a file must not be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A source of a conversion reads it.
    Source,
    /// The input of `dd` reads it.
    Input,
    /// The new image is to depend on it.
    Backing,
    /// The same for a file that has not been opened.
    Unopened,
}

/// The files that an operation must not change.
#[derive(Debug, Default)]
pub(crate) struct KeptFiles(Vec<(Reason, StandingFile)>);

/// A file that an operation is going to change.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) id: Identity,
    /// Its role in the new image.
    pub(crate) role: FileRole,
    /// Its name, as the user gave it.
    pub(crate) name: BString,
}

impl KeptFiles {
    /// Adds all files of an image and of its open chain.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub(crate) fn add(&mut self, reason: Reason, image: &Image) -> Result<()> {
        for file in image.standing_files()? {
            memory::push(&mut self.0, (reason, file))?;
        }
        Ok(())
    }

    /// Adds a file that is read but is not an image.
    pub(crate) fn add_file(&mut self, reason: Reason, id: Identity, name: &BStr) {
        let file = StandingFile {
            id,
            role: FileRole::Image,
            name: name.to_owned(),
            of: name.to_owned(),
        };
        self.0.push((reason, file));
    }

    /// Adds files that the new image is to depend on, none of which was opened.
    pub(crate) fn add_unopened(&mut self, files: Vec<StandingFile>) {
        let files = files.into_iter();
        self.0.extend(files.map(|file| (Reason::Unopened, file)));
    }

    /// The file of the backing file, if there is one.
    pub(crate) fn backing(&self) -> Option<&StandingFile> {
        let mut kept = self.0.iter();
        kept.find(|(reason, _)| *reason == Reason::Backing)
            .map(|(_, file)| file)
    }

    /// Refuses the operation if a file that it writes must not be changed, or would be two files of the new image at
    /// once.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], or [`ErrorKind::Locked`] as if a lock had detected it.
    pub(crate) fn check(&self, written: &[Written]) -> Result<()> {
        for (at, file) in written.iter().enumerate() {
            if let Some(first) = written[..at].iter().find(|first| first.id == file.id) {
                return Err(Error::invalid(format!(
                    "'{}' cannot be the {} of '{}': it is the same file",
                    file.name,
                    file.role.words(),
                    first.name
                )));
            }
            let clash = self.0.iter().find(|(_, kept)| kept.id == file.id);
            if let Some((reason, kept)) = clash {
                return Err(refusal(*reason, kept, file));
            }
        }
        Ok(())
    }
}

fn refusal(reason: Reason, kept: &StandingFile, written: &Written) -> Error {
    let shown = &written.name;
    match reason {
        Reason::Source => Error::new(ErrorKind::Locked, "Failed to get \"write\" lock")
            .with_hint(format!("Is another process using the image [{shown}]?")),
        Reason::Input => Error::invalid(format!(
            "'{shown}' is also read as the input: copying it onto itself would destroy it"
        )),
        Reason::Backing | Reason::Unopened => {
            let what = "Error: Trying to create an image over a file of its own backing chain";
            Error::invalid(match kept.role {
                FileRole::Image => what.to_owned(),
                role => {
                    let (words, of) = (role.words(), &kept.of);
                    format!("{what}: '{shown}' is the {words} of '{of}'")
                }
            })
        }
    }
}
