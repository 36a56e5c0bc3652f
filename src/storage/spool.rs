//! Temporary files without a name.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bstr::{BStr, BString};

use crate::error::{Error, Result};
use crate::storage::file::{FileOpen, FileStorage, Locking, open_fd};
use crate::storage::modes::CacheMode;

/// Where temporary files go, unless the user says otherwise: there is more room than in `/tmp`.
const DIRECTORY: &str = "/var/tmp";

/// An empty one for what `name` holds, `shown` in messages, and the directory that has room for it.
///
/// # Errors
/// Of making the file.
pub(crate) fn open(name: &BStr, shown: BString) -> Result<(FileStorage, PathBuf)> {
    let directory = std::env::var_os("TMPDIR").filter(|value| !value.is_empty());
    let directory = directory.map_or_else(|| PathBuf::from(DIRECTORY), PathBuf::from);
    let file = nameless(&directory).map_err(|error| {
        Error::io(&error)
            .context(format!(
                "Could not make a temporary file in '{}' for what '{name}' holds",
                directory.display()
            ))
            .with_hint("The environment variable TMPDIR names another directory")
    })?;
    let how = FileOpen {
        writable: true,
        cache: CacheMode::Unsafe,
        locking: Locking::Off,
        driver: None,
        named_by_image: false,
    };
    Ok((open_fd(file.into(), shown, &how)?, directory))
}

/// A file that is gone as soon as it is closed.
fn nameless(directory: &Path) -> std::io::Result<File> {
    let mut how = OpenOptions::new();
    how.read(true).write(true).mode(0o600);
    let made = how
        .clone()
        .custom_flags(libc::O_TMPFILE | libc::O_EXCL)
        .open(directory);
    match made {
        // Some file systems and old kernels do not support files without names.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)
            ) =>
        {
            let path = directory.join(format!(".platter-{}", uuid::Uuid::new_v4()));
            let file = how
                .create_new(true)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        made => made,
    }
}
