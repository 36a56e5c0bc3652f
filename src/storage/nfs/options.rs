//! The settings of a file: options, and file names as a short form of them.

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, Result};
use crate::location::tree::flatten;
use crate::net::url::decoded;
use crate::options::{OptionKind, OptionSpec, Values, option};
use crate::storage::driver::StorageTarget;
use crate::storage::remote_file::given_options;
use crate::sys::libnfs::Wanted;
use crate::sys::user;
use crate::value::{Map, Value};

use super::number;

/// QEMU's limits for the read-ahead size in bytes, and for its cache in pages.
const MAX_READ_AHEAD: u64 = 1 << 20;
const MAX_PAGES: u64 = (8 << 20) / 4096;
const MAX_PATH: usize = 4096;

pub(super) const OPTIONS: &[OptionSpec] = &[
    number("debug", "Taken and not used"),
    number("group", "Number of the group"),
    number("mount-port", "Port of the server for mounting"),
    number("page-cache-size", "Taken and not used"),
    option("path", OptionKind::Name, "Path of the file on the server"),
    number("port", "Port of the server").default_to("2049"),
    number("readahead-size", "Taken and not used"),
    option("server.host", OptionKind::Str, "Host of the server"),
    option("server.type", OptionKind::Str, "inet").one_of(&["inet"]),
    number(
        "tcp-syn-count",
        "How many times a connection is tried before it is given up",
    ),
    number("user", "Number of the user"),
    number("version", "Of the protocol: 3 (default) or 4")
        .default_to("3")
        .one_of(&["3", "4"]),
];

/// Options that determine how a file is opened, not which one: they are left out of names.
pub(super) const WEAK: &[&str] = &[
    "debug",
    "page-cache-size",
    "readahead-size",
    "tcp-syn-count",
];

/// The parameters that are allowed after the `?` of a file name, and the options that they stand for.
const IN_QUERY: &[(&str, &str)] = &[
    ("uid", "user"),
    ("gid", "group"),
    ("tcp-syn-cnt", "tcp-syn-count"),
    ("readahead", "readahead-size"),
    ("pagecache", "page-cache-size"),
    ("debug", "debug"),
    ("version", "version"),
    ("nfsport", "port"),
    ("mountport", "mount-port"),
];

/// The settings of a file.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) host: String,
    /// The directory to mount, and the file in it.
    pub(super) directory: BString,
    pub(super) file: BString,
    pub(super) wanted: Wanted,
    /// Warnings about options that are not applied as given.
    pub(super) warnings: Vec<String>,
}

impl Settings {
    /// Builds the settings from options that have been checked.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`].
    pub(super) fn of(options: &Values) -> Result<Self> {
        let missing = |name: &str| Error::missing_parameter(name);
        let server = match options.str("server.type") {
            Some(_) => "server.host",
            None => "server",
        };
        let host = options.str("server.host");
        let host = host.ok_or_else(|| missing(server))?;
        if let Some(kind) = options.str("server.type").filter(|kind| *kind != "inet") {
            return Err(Error::refused_value("type", kind));
        }
        let path = options.name("path").ok_or_else(|| missing("path"))?;
        let strange = || Error::invalid("Invalid URL specified");
        if path.len() > MAX_PATH || path.contains(&0) || host.is_empty() || host.contains('\0') {
            return Err(strange());
        }
        let (directory, file) = path.rsplit_once_str("/").ok_or_else(strange)?;
        if file.is_empty() || !path.starts_with(b"/") {
            return Err(strange());
        }
        let directory = match directory.is_empty() {
            true => "/".into(),
            false => directory.into(),
        };
        let limited = |key: &str, what: &str, most: u64, unit: &str| {
            let is_over = options.num(key).is_some_and(|size| size > most);
            is_over.then(|| format!("Truncating NFS {what} size to {most}{unit}"))
        };
        let warnings = [
            limited("readahead-size", "readahead", MAX_READ_AHEAD, ""),
            limited("page-cache-size", "pagecache", MAX_PAGES, " pages"),
        ];
        let small = |key: &str| match options.num(key) {
            None => Ok(None),
            Some(number) => i32::try_from(number)
                .map(|number| Some(number.unsigned_abs()))
                .map_err(|_| Error::invalid(format!("'{key}' is at most {}", i32::MAX))),
        };
        let port = |key: &str| match options.num(key) {
            None => Ok(None),
            Some(number) => u16::try_from(number)
                .ok()
                .filter(|port| *port != 0)
                .map(Some)
                .ok_or_else(|| Error::invalid(format!("'{key}' is from 1 to 65535"))),
        };
        let version = match options.num("version") {
            None | Some(3) => 3,
            Some(4) => 4,
            Some(other) => {
                return Err(Error::invalid(format!(
                    "Version {other} of NFS is not supported: 'version' is 3 or 4"
                )));
            }
        };
        Ok(Self {
            host: host.to_owned(),
            directory,
            file: file.into(),
            wanted: Wanted {
                version,
                uid: small("user")?,
                gid: small("group")?,
                syn_count: small("tcp-syn-count")?,
                port: port("port")?,
                mount_port: port("mount-port")?,
            },
            warnings: warnings.into_iter().flatten().collect(),
        })
    }

    /// Names the user that the server has refused, if that may be the reason; otherwise empty.
    pub(super) fn whom(&self, error: &Error) -> String {
        if !matches!(error.os_errno(), Some(libc::EACCES | libc::EPERM)) {
            return String::new();
        }
        let own = user::numbers();
        let user = self.wanted.uid.unwrap_or(own.0);
        let group = self.wanted.gid.unwrap_or(own.1);
        format!(" as user {user} of group {group}")
    }

    /// Identifies the file, whichever user opens it.
    pub(super) fn place(&self) -> BString {
        let separator = match self.directory.ends_with(b"/") {
            true => "",
            false => "/",
        };
        let port = self
            .wanted
            .port
            .map_or(String::new(), |port| format!(":{port}"));
        let server = format!("nfs://{}{port}", self.host.to_ascii_lowercase());
        let parts = [
            server.as_bytes(),
            &self.directory,
            separator.as_bytes(),
            &self.file,
        ];
        parts.concat().into()
    }
}

/// The settings from the options and the name of a target together, and the name to show.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`].
pub(super) fn settings_of(
    target: &StorageTarget<'_>,
    options: &Values,
) -> Result<(Settings, BString)> {
    let (given, values) = given_options(target, options, OPTIONS, parse_file_name)?;
    let settings = Settings::of(&values)?;
    let name = file_name(&given).unwrap_or_else(|| settings.place());
    Ok((settings, name))
}

/// The options that a file name stands for: `nfs://HOST/PATH[?KEY=VALUE&…]`.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for a name of any other form.
pub(super) fn parse_file_name(name: &BStr) -> Result<Map<String, Value>> {
    let strange = || Error::invalid("Invalid URI specified");
    let no_host = || Error::invalid("missing hostname in URI");
    let mut options = Map::new();
    let mut set = |key: &str, value: &[u8]| {
        options.insert(key.to_owned(), Value::String(value.into()));
    };
    let (scheme, rest) = name.split_once_str("://").ok_or_else(no_host)?;
    if scheme != super::DRIVER.name.as_bytes() {
        return Err(strange());
    }
    let (rest, query) = rest.split_once_str("?").unwrap_or((rest, b""));
    let (host, path) = rest.split_at(rest.find_byte(b'/').unwrap_or(rest.len()));
    let host = match host.strip_prefix(b"[") {
        Some(host) => host.strip_suffix(b"]").ok_or_else(strange)?,
        None => host,
    };
    if host.is_empty() {
        return Err(no_host());
    }
    if path.is_empty() {
        return Err(Error::invalid("missing file path in URI"));
    }
    set("server.host", &decoded(host).ok_or_else(strange)?);
    set("path", &decoded(path).ok_or_else(strange)?);
    for pair in query.split_str("&").filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once_str("=").unwrap_or((pair, b""));
        let key = key.to_str_lossy();
        if value.is_empty() {
            return Err(Error::invalid(format!(
                "Value for NFS parameter expected: {key}"
            )));
        }
        let known = IN_QUERY.iter().find(|(short, _)| *short == key);
        let (_, option) =
            known.ok_or_else(|| Error::invalid(format!("Unknown NFS parameter name: {key}")))?;
        let value = decoded(value).ok_or_else(strange)?;
        if value.iter().any(|byte| !byte.is_ascii_digit()) {
            return Err(Error::invalid(format!(
                "Invalid value for NFS parameter: {key}"
            )));
        }
        set(option, &value);
    }
    Ok(options)
}

/// The short name that opens the file again, if there is one.
pub(super) fn file_name(given: &Map<String, Value>) -> Option<BString> {
    let options = flatten(given);
    let text = |key: &str| options.get(key);
    let (host, path) = (text("server.host")?, text("path")?);
    let (open, close) = match host.contains(&b':') {
        true => ("[", "]"),
        false => ("", ""),
    };
    let mut name: BString = format!("nfs://{open}").into();
    name.extend_from_slice(host);
    name.extend_from_slice(close.as_bytes());
    for byte in path.iter() {
        match byte {
            b'%' | b'?' => name.extend_from_slice(format!("%{byte:02x}").as_bytes()),
            byte => name.push(*byte),
        }
    }
    let mut mark = b'?';
    for (short, option) in IN_QUERY {
        let Some(value) = text(option).filter(|_| !WEAK.contains(option)) else {
            continue;
        };
        name.push(mark);
        name.extend_from_slice(short.as_bytes());
        name.push(b'=');
        name.extend_from_slice(value);
        mark = b'&';
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_name(name: &str) -> Result<Settings> {
        let options = flatten(&parse_file_name(name.into())?);
        Settings::of(&Values::check(&options, OPTIONS)?)
    }

    #[test]
    fn file_names_stand_for_options_and_come_back() {
        let name = "nfs://H/a/b%20c?uid=1&gid=2&readahead=4096&version=4&nfsport=7";
        let settings = of_name(name).unwrap();
        assert_eq!((settings.host.as_str(), settings.wanted.version), ("H", 4));
        assert_eq!(
            (settings.wanted.uid, settings.wanted.gid),
            (Some(1), Some(2))
        );
        assert_eq!(
            (settings.directory.as_bstr(), settings.file.as_bstr()),
            ("/a".into(), "b c".into())
        );
        assert_eq!(settings.place(), "nfs://h:7/a/b c");
        let parsed = parse_file_name(name.into()).unwrap();
        assert_eq!(
            file_name(&parsed).unwrap(),
            "nfs://H/a/b c?uid=1&gid=2&version=4&nfsport=7"
        );
        assert_eq!(of_name("nfs://[::1]/f").unwrap().directory, "/");
    }

    #[test]
    fn names_of_another_form_are_refused() {
        for (name, text) in [
            ("nfs:", "missing hostname in URI"),
            ("nfs://h", "missing file path in URI"),
            ("nfs:///x", "missing hostname in URI"),
            ("nfs://[h/x", "Invalid URI specified"),
            ("nfs://h/d/", "Invalid URL specified"),
            ("nfs://h/x?uid", "Value for NFS parameter expected: uid"),
            ("nfs://h/x?uid=x", "Invalid value for NFS parameter: uid"),
            ("nfs://h/x?a=1", "Unknown NFS parameter name: a"),
            (
                "nfs://h/x?version=2",
                "Version 2 of NFS is not supported: 'version' is 3 or 4",
            ),
            ("nfs://h/x?nfsport=70000", "'port' is from 1 to 65535"),
        ] {
            assert_eq!(of_name(name).unwrap_err().to_string(), text, "{name}");
        }
    }
}
