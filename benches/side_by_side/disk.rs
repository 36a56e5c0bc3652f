//! The disk to convert: an ext4 file system of 6 GiB that holds files of this machine.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::run;

/// Makes the disk, or takes the one that an earlier run has made.
pub fn build(dir: &Path, mib: u64) -> Result<PathBuf, String> {
    let disk = dir.join(format!("disk-{mib}.raw"));
    if disk.exists() {
        return Ok(disk);
    }
    eprintln!("building {} with {mib} MiB of files", disk.display());
    let stage = dir.join("stage");
    let fresh = dir.join("disk.new");
    let made = fill(&stage, mib << 20).and_then(|()| {
        let (stage, fresh) = (stage.display().to_string(), fresh.display().to_string());
        let _ = fs::remove_file(&fresh);
        run::quiet(&[
            "/sbin/mke2fs",
            "-q",
            "-t",
            "ext4",
            "-d",
            &stage,
            &fresh,
            "6G",
        ])
    });
    fs::remove_dir_all(&stage).map_err(|e| format!("{}: {e}", stage.display()))?;
    made?;
    fs::rename(&fresh, &disk).map_err(|e| e.to_string())?;
    Ok(disk)
}

/// Copies files below /usr until there are `bytes` of them.
fn fill(stage: &Path, bytes: u64) -> Result<(), String> {
    let mut left = bytes;
    for part in ["share", "bin", "lib", "libexec", "sbin"] {
        // Text first, then programs: about the mix of a system disk.
        let share = if part == "share" { left / 4 } else { left };
        let mut room = share;
        copy(&Path::new("/usr").join(part), &stage.join(part), &mut room)
            .map_err(|e| format!("copying /usr/{part}: {e}"))?;
        left -= share - room;
    }
    if left > bytes / 10 {
        return Err("there are not enough files below /usr".to_owned());
    }
    Ok(())
}

fn copy(from: &Path, to: &Path, room: &mut u64) -> std::io::Result<()> {
    let mut entries: Vec<_> = match fs::read_dir(from) {
        Ok(entries) => entries.collect::<Result<_, _>>()?,
        Err(_) => return Ok(()),
    };
    entries.sort_by_key(fs::DirEntry::file_name);
    fs::create_dir_all(to)?;
    for entry in entries {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let meta = entry.metadata()?;
        if meta.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if meta.is_dir() {
            copy(&source, &target, room)?;
        } else if meta.is_file() && meta.len() <= *room {
            // Not every file may be read by every user.
            if fs::copy(&source, &target).is_ok() {
                *room -= meta.len();
            }
        }
    }
    Ok(())
}
