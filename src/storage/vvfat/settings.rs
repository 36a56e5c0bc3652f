//! Options that describe the disk to make of a directory, and the file names that stand for them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use bstr::{BStr, ByteSlice};

use super::disk::FatType;
use crate::error::{Error, Result};
use crate::options::{OptionKind, OptionSpec, Values};
use crate::value::{Map, Value};

/// Prefix of file names, before the colon.
pub(super) const SCHEME: &str = "fat";

pub(super) const DIR: &str = "dir";
const FAT_TYPE: &str = "fat-type";
const FLOPPY: &str = "floppy";
const LABEL: &str = "label";
pub(super) const RW: &str = "rw";

/// Maximum length of a volume label.
const LABEL_LEN: usize = 11;

const DEFAULT_LABEL: &str = "QEMU VVFAT";

/// Characters that are not allowed in a volume label.
const NOT_IN_LABELS: &[u8] = b"\"*+,./:;<=>?[\\]|";

pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: DIR,
        kind: OptionKind::Name,
        help: "Host directory to show as a disk",
        default: None,
        allowed: &[],
    },
    OptionSpec {
        name: FAT_TYPE,
        kind: OptionKind::Num,
        help: "FAT type: 12, 16 or 32",
        default: Some("0"),
        allowed: &["0", "12", "16", "32"],
    },
    OptionSpec {
        name: FLOPPY,
        kind: OptionKind::Bool,
        help: "Show a floppy disk rather than a hard disk",
        default: Some("off"),
        allowed: &[],
    },
    OptionSpec {
        name: LABEL,
        kind: OptionKind::Name,
        help: "Volume label",
        default: Some(DEFAULT_LABEL),
        allowed: &[],
    },
    OptionSpec {
        name: RW,
        kind: OptionKind::Bool,
        help: "Carry writes over to the directory",
        default: Some("off"),
        allowed: &[],
    },
];

/// The settings of one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) directory: PathBuf,
    pub(super) fat: FatType,
    /// The format of a floppy disk; `None` for a hard disk.
    pub(super) floppy: Option<Floppy>,
    /// The label, padded with blanks; `None` for no label.
    pub(super) label: Option<[u8; LABEL_LEN]>,
    pub(super) writable: bool,
}

/// The capacity of a floppy disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Floppy {
    /// 80 cylinders, two sides, 18 sectors per track.
    High,
    /// 80 cylinders, two sides, 36 sectors per track.
    Extended,
}

impl Settings {
    /// Builds the settings from options that have been checked.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`].
    pub(super) fn of(options: &Values) -> Result<Self> {
        let Some(directory) = options.name(DIR) else {
            return Err(Error::invalid("vvfat block driver requires a 'dir' option"));
        };
        let label = options.name(LABEL).unwrap_or(DEFAULT_LABEL.into());
        let given = options.num(FAT_TYPE).unwrap_or(0);
        let floppy = options.bool(FLOPPY).unwrap_or(false);
        let fat = match (given, floppy) {
            (12, _) | (0, true) => FatType::Fat12,
            (16, _) | (0, false) => FatType::Fat16,
            (32, false) => FatType::Fat32,
            (32, true) => {
                return Err(Error::invalid("A floppy disk is too small for FAT32"));
            }
            _ => {
                return Err(Error::invalid("Valid FAT types are only 12, 16 and 32"));
            }
        };
        Ok(Self {
            directory: PathBuf::from(OsStr::from_bytes(directory)),
            fat,
            floppy: floppy.then_some(match given {
                12 => Floppy::High,
                _ => Floppy::Extended,
            }),
            label: label_of(label)?,
            writable: options.bool(RW).unwrap_or(false),
        })
    }
}

/// Converts a label to its form on the disk; `None` for an empty one.
fn label_of(label: &BStr) -> Result<Option<[u8; LABEL_LEN]>> {
    if label.len() > LABEL_LEN {
        return Err(Error::invalid("vvfat label cannot be longer than 11 bytes"));
    }
    let fits = |byte: &u8| (b' '..0x7f).contains(byte) && !NOT_IN_LABELS.contains(byte);
    if !label.iter().all(fits) || label.starts_with(b" ") {
        return Err(Error::invalid(format!(
            "'{label}' cannot be the label of a FAT volume: use letters, digits and blanks"
        )));
    }
    let mut padded = [b' '; LABEL_LEN];
    for (to, from) in padded.iter_mut().zip(label.iter()) {
        *to = *from;
    }
    Ok((!label.is_empty()).then_some(padded))
}

/// Parses a file name into options: `fat:[floppy:][12:|16:|32:][rw:]DIRECTORY`. Other words between colons are ignored.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for a name of any other form.
pub(super) fn parse_file_name(name: &BStr) -> Result<Map<String, Value>> {
    let rest = name
        .strip_prefix(SCHEME.as_bytes())
        .and_then(|rest| rest.strip_prefix(b":"));
    let Some(rest) = rest else {
        return Err(Error::invalid(format!(
            "File name string must start with '{SCHEME}:'"
        )));
    };
    let (words, directory) = match rest.rsplit_once_str(":") {
        Some((words, directory)) => (words, directory),
        None => (&b""[..], rest),
    };
    let has = |word: &str| words.split_str(":").any(|given| given == word.as_bytes());
    let types = [32u64, 16, 12];
    let mut types = types.into_iter();
    let fat = types.find(|number| has(&number.to_string())).unwrap_or(0);
    Ok(Map::from_iter([
        (FAT_TYPE.to_owned(), Value::from(fat)),
        (DIR.to_owned(), BStr::new(directory).to_owned().into()),
        (FLOPPY.to_owned(), Value::from(has(FLOPPY))),
        (RW.to_owned(), Value::from(has(RW))),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::tree::flatten;

    fn of_name(name: &str) -> Result<Settings> {
        let options = flatten(&parse_file_name(name.into())?);
        Settings::of(&Values::check(&options, OPTIONS)?)
    }

    #[test]
    fn a_file_name_says_directory_type_and_medium() {
        let plain = of_name("fat:a/b").unwrap();
        assert_eq!(plain.directory, PathBuf::from("a/b"));
        assert_eq!((plain.fat, plain.floppy), (FatType::Fat16, None));
        assert!(!plain.writable);
        assert_eq!(plain.label.as_ref(), Some(b"QEMU VVFAT "));
        let floppy = of_name("fat:rw:12:floppy:/d").unwrap();
        assert_eq!(floppy.directory, PathBuf::from("/d"));
        assert_eq!(
            (floppy.fat, floppy.floppy),
            (FatType::Fat12, Some(Floppy::High))
        );
        assert!(floppy.writable);
        let other = of_name("fat:odd:floppy:d").unwrap();
        assert_eq!(other.floppy, Some(Floppy::Extended));
        // A single word is the directory.
        assert_eq!(of_name("fat:rw").unwrap().directory, PathBuf::from("rw"));
        assert!(of_name("d").is_err() && of_name("fat:floppy:32:d").is_err());
    }

    #[test]
    fn labels_are_those_that_a_volume_can_have() {
        assert_eq!(label_of("".into()).unwrap(), None);
        assert_eq!(label_of("A b".into()).unwrap(), Some(*b"A b        "));
        for bad in ["a/b", " x", "a\n", "é", "123456789012"] {
            assert!(label_of(bad.into()).is_err(), "{bad}");
        }
    }
}
