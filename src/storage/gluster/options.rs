//! The settings: which file of which volume to open, and how; from options, or file names that stand for them.

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, Result};
use crate::location::tree::flatten;
use crate::net::Address;
use crate::net::url::decoded;
use crate::options::{OptionKind, OptionSpec, Values, option};
use crate::storage::driver::StorageTarget;
use crate::storage::remote_file::given_options;
use crate::value::{Map, Value};

/// The default port of servers.
const PORT: u16 = 24007;
/// The library's log level, unless an option says otherwise: errors and anything more severe.
const LEVEL: u8 = 4;
/// The library's highest log level.
const MAX_LEVEL: u8 = 9;
/// Maximum number of servers to try per volume.
const MAX_SERVERS: usize = 64;

pub(super) const OPTIONS: &[OptionSpec] = &[
    super::DEBUG,
    super::LOG_FILE,
    option("path", OptionKind::Name, "Path of the file in the volume"),
    option("server.*.host", OptionKind::Str, "Host of a server"),
    option("server.*.ipv4", OptionKind::Bool, "Refused"),
    option("server.*.ipv6", OptionKind::Bool, "Refused"),
    option(
        "server.*.path",
        OptionKind::Name,
        "Path of a server's unix socket",
    ),
    option("server.*.port", OptionKind::Str, "Port of a server").default_to("24007"),
    option("server.*.to", OptionKind::Num, "Refused"),
    option(
        "server.*.type",
        OptionKind::Str,
        "inet (also called tcp) or unix",
    )
    .one_of(&["inet", "tcp", "unix"]),
    option("volume", OptionKind::Name, "Name of the volume"),
];

/// Options that say how a file is opened, not which one: they are not part of file names.
pub(super) const WEAK: &[&str] = &["debug", "logfile"];

pub(super) const CREATE: &[OptionSpec] = &[
    super::DEBUG,
    super::LOG_FILE,
    OptionSpec {
        allowed: &["off", "falloc", "full"],
        default: Some("off"),
        ..option("preallocation", OptionKind::Str, "Preallocation mode")
    },
    option("size", OptionKind::Size, "Virtual disk size"),
];

/// A server to ask for a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Server {
    Inet(String, u16),
    Unix(BString),
}

impl Server {
    /// Its network address.
    pub(super) fn address(&self) -> Address {
        match self {
            Self::Inet(host, port) => Address::inet(host.clone(), *port),
            Self::Unix(path) => Address::unix(path.clone()),
        }
    }

    fn of(options: &Values, place: usize) -> Result<Self> {
        let missing = |name: &str| {
            Error::missing_parameter(name)
                .with_hint(format!("check in 'server' array index '{place}'"))
        };
        match options.str("type").ok_or_else(|| missing("type"))? {
            "inet" | "tcp" => {}
            "unix" => {
                let path = options.name("path").ok_or_else(|| missing("path"))?;
                return match path.is_empty() || path.contains(&0) {
                    true => Err(missing("path")),
                    false => Ok(Self::Unix(path.into())),
                };
            }
            _ => {
                let error = Error::invalid("Parameter 'type' may be 'inet' or 'unix'");
                return Err(error.with_hint(format!("check in 'server' array index '{place}'")));
            }
        }
        let host = options.str("host").filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| missing("host"))?;
        if options.num("to").is_some() {
            return Err(Error::invalid("Parameter 'to' not supported"));
        }
        if options.bool("ipv4").is_some() || options.bool("ipv6").is_some() {
            return Err(Error::invalid("Parameters 'ipv4/ipv6' not supported"));
        }
        let port = match options.str("port") {
            None | Some("0") => PORT,
            Some(port) => port
                .parse()
                .map_err(|_| Error::invalid(format!("'{port}' is not a valid port number")))?,
        };
        match host.contains('\0') {
            true => Err(missing("host")),
            false => Ok(Self::Inet(host.to_owned(), port)),
        }
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inet(host, port) => write!(f, "host {host} and port {port}"),
            Self::Unix(path) => write!(f, "socket {path}"),
        }
    }
}

/// The settings of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) volume: BString,
    pub(super) path: BString,
    /// Tried in this order.
    pub(super) servers: Vec<Server>,
    pub(super) log: Log,
}

/// What the library logs, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) file: BString,
    pub(super) level: u8,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            file: "/dev/null".into(),
            level: LEVEL,
        }
    }
}

impl Settings {
    /// Builds the settings from options that have been checked.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`].
    fn of(options: &Values) -> Result<Self> {
        let missing = |name: &str| Error::missing_parameter(name);
        let list = options.list("server")?;
        if list.is_empty() {
            return Err(missing("server"));
        }
        if list.len() > MAX_SERVERS {
            let text = format!("A volume has at most {MAX_SERVERS} servers here");
            return Err(Error::invalid(text));
        }
        let text = |name: &str| match options.name(name) {
            None => Err(missing(name)),
            Some(text) if text.is_empty() || text.contains(&0) => Err(Error::invalid(format!(
                "Parameter '{name}' is no name of one"
            ))),
            Some(text) => Ok(BString::from(text)),
        };
        let servers = list.iter().enumerate();
        let mut settings = Self {
            volume: text("volume")?,
            path: text("path")?,
            servers: servers
                .map(|(place, server)| Server::of(server, place))
                .collect::<Result<_>>()?,
            log: Log::default(),
        };
        settings.take_log(options)?;
        Ok(settings)
    }

    /// Takes the log settings from options.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`].
    pub(super) fn take_log(&mut self, options: &Values) -> Result<()> {
        if let Some(level) = options.num("debug") {
            // Values above the maximum mean the maximum, as in QEMU.
            self.log.level = u8::try_from(level).unwrap_or(MAX_LEVEL).min(MAX_LEVEL);
        }
        if let Some(file) = options.name("logfile") {
            if file.is_empty() || file.contains(&0) {
                return Err(Error::invalid("Parameter 'logfile' is no name of a file"));
            }
            self.log.file = file.into();
        }
        Ok(())
    }
}

/// The settings from the options and the name of a target combined, and the name to show.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`].
pub(super) fn settings_of(
    target: &StorageTarget<'_>,
    options: &Values,
) -> Result<(Settings, BString)> {
    let (given, values) = given_options(target, options, OPTIONS, parse_file_name)?;
    let settings = Settings::of(&values)?;
    let name = file_name(&given);
    let name = name.unwrap_or_else(|| {
        let parts: [&[u8]; 4] = [b"gluster:", &settings.volume, b"/", &settings.path];
        parts.concat().into()
    });
    Ok((settings, name))
}

/// The options that a file name stands for: `gluster[+tcp]://HOST[:PORT]/VOLUME/PATH` or
/// `gluster+unix:///VOLUME/PATH?socket=PATH`.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for a name of another form.
pub(super) fn parse_file_name(name: &BStr) -> Result<Map<String, Value>> {
    let strange = || {
        Error::invalid(format!("invalid URI {name}")).with_hint(
            "A file is gluster[+tcp]://HOST[:PORT]/VOLUME/PATH or gluster+unix:///VOLUME/PATH?socket=PATH",
        )
    };
    let mut options = Map::new();
    let mut set = |key: &str, value: &[u8]| {
        options.insert(key.to_owned(), Value::String(value.into()));
    };
    let (scheme, rest) = name.split_once_str(":").ok_or_else(strange)?;
    let (rest, query) = rest.split_once_str("?").unwrap_or((rest, b""));
    let (server, path) = match rest.strip_prefix(b"//") {
        Some(rest) => rest.split_at(rest.find_byte(b'/').ok_or_else(strange)?),
        None => (b"".as_slice(), rest),
    };
    let path = path.strip_prefix(b"/").ok_or_else(strange)?;
    let (volume, path) = path.split_once_str("/").ok_or_else(strange)?;
    let part = |part: &[u8]| decoded(part).filter(|part| !part.is_empty() && !part.contains(&0));
    set("volume", &part(volume).ok_or_else(strange)?);
    set(
        "path",
        &part(path.trim_start_with(|c| c == '/')).ok_or_else(strange)?,
    );
    if scheme == b"gluster+unix" {
        let socket = query
            .strip_prefix(b"socket=")
            .filter(|socket| !socket.contains(&b'&'));
        let socket = socket.filter(|_| server.is_empty()).and_then(part);
        set("server.0.type", b"unix");
        set("server.0.path", &socket.ok_or_else(strange)?);
        return Ok(options);
    }
    if !query.is_empty() {
        return Err(strange());
    }
    let (host, port) = match server.strip_prefix(b"[") {
        Some(rest) => rest.split_once_str("]").ok_or_else(strange)?,
        None => server.split_at(server.find_byte(b':').unwrap_or(server.len())),
    };
    set("server.0.type", b"inet");
    set("server.0.host", &part(host).ok_or_else(strange)?);
    if let Some(port) = port.strip_prefix(b":") {
        let number = port.to_str().ok().and_then(|port| port.parse::<u16>().ok());
        number.ok_or_else(strange)?;
        set("server.0.port", port);
    } else if !port.is_empty() {
        return Err(strange());
    }
    Ok(options)
}

/// The short name that opens the file again, if there is one.
pub(super) fn file_name(given: &Map<String, Value>) -> Option<BString> {
    let options = flatten(given);
    let text = |key: &str| options.get(key);
    let known = [
        "volume",
        "path",
        "server.0.type",
        "server.0.host",
        "server.0.port",
        "server.0.path",
    ];
    let more = options
        .iter()
        .any(|(key, _)| !known.contains(&key) && !WEAK.contains(&key));
    if more {
        return None;
    }
    let escaped = |name: &mut BString, text: &[u8]| {
        for byte in text {
            match byte {
                b'%' | b'?' | b'#' => name.extend_from_slice(format!("%{byte:02x}").as_bytes()),
                byte => name.push(*byte),
            }
        }
    };
    let mut name;
    let unix = text("server.0.type")? == "unix";
    if unix {
        name = BString::from("gluster+unix://");
    } else {
        name = BString::from("gluster://");
        let host = text("server.0.host")?;
        let (open, close) = match host.contains(&b':') {
            true => ("[", "]"),
            false => ("", ""),
        };
        for part in [open.as_bytes(), host, close.as_bytes()] {
            name.extend_from_slice(part);
        }
        if let Some(port) = text("server.0.port") {
            name.push(b':');
            name.extend_from_slice(port);
        }
    }
    for key in ["volume", "path"] {
        name.push(b'/');
        escaped(&mut name, text(key)?);
    }
    if unix {
        name.extend_from_slice(b"?socket=");
        escaped(&mut name, text("server.0.path")?);
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
        for (name, volume, path, server, shown) in [
            (
                "gluster://h/v/a%20b/c",
                "v",
                "a b/c",
                Server::Inet("h".into(), PORT),
                "gluster://h/v/a b/c",
            ),
            (
                "gluster+tcp://[::1]:7/v/c",
                "v",
                "c",
                Server::Inet("::1".into(), 7),
                "gluster://[::1]:7/v/c",
            ),
            (
                "gluster+unix:///v/c%3f?socket=/run/s",
                "v",
                "c?",
                Server::Unix("/run/s".into()),
                "gluster+unix:///v/c%3f?socket=/run/s",
            ),
            (
                "gluster+unix:/v/c?socket=/run/s",
                "v",
                "c",
                Server::Unix("/run/s".into()),
                "gluster+unix:///v/c?socket=/run/s",
            ),
        ] {
            let settings = of_name(name).unwrap();
            assert_eq!(
                (settings.volume.as_bstr(), settings.path.as_bstr()),
                (volume.into(), path.into())
            );
            assert_eq!(settings.servers, [server], "{name}");
            let parsed = parse_file_name(name.into()).unwrap();
            assert_eq!(file_name(&parsed).unwrap(), shown, "{name}");
        }
    }

    #[test]
    fn names_of_another_form_are_refused() {
        for name in [
            "gluster:x",
            "gluster://h",
            "gluster://h/v",
            "gluster://h/v/",
            "gluster:///v/x",
            "gluster://h/v/x?a=b",
            "gluster://h:99999/v/x",
            "gluster://h:/v/x",
            "gluster://[::1/v/x",
            "gluster+unix:///v/x",
            "gluster+unix:///v/x?sock=/a",
            "gluster+unix:///v/x?socket=",
            "gluster+unix://h/v/x?socket=/a",
            "gluster://h/v/%00",
        ] {
            let text = of_name(name).unwrap_err().to_string();
            assert_eq!(text, format!("invalid URI {name}"));
        }
    }

    #[test]
    fn options_are_judged_in_the_words_of_qemu() {
        let start = [("volume", "v"), ("path", "p")];
        let of = |more: &[(&str, &str)]| {
            let mut options = crate::options::Options::new();
            for (key, value) in start.iter().chain(more) {
                options.set(*key, *value);
            }
            Settings::of(&Values::check(&options, OPTIONS).unwrap())
        };
        for (more, text) in [
            (&[][..], "Parameter 'server' is missing"),
            (&[("server.0.host", "h")], "Parameter 'type' is missing"),
            (&[("server.0.type", "inet")], "Parameter 'host' is missing"),
            (&[("server.0.type", "unix")], "Parameter 'path' is missing"),
            (
                &[("server.0.type", "rdma")],
                "Parameter 'type' may be 'inet' or 'unix'",
            ),
            (
                &[
                    ("server.0.type", "inet"),
                    ("server.0.host", "h"),
                    ("server.0.port", "abc"),
                ],
                "'abc' is not a valid port number",
            ),
            (
                &[
                    ("server.0.type", "inet"),
                    ("server.0.host", "h"),
                    ("server.0.ipv4", "on"),
                ],
                "Parameters 'ipv4/ipv6' not supported",
            ),
            (
                &[
                    ("server.0.type", "inet"),
                    ("server.0.host", "h"),
                    ("server.0.to", "4"),
                ],
                "Parameter 'to' not supported",
            ),
        ] {
            assert_eq!(of(more).unwrap_err().to_string(), text);
        }
        let inet = [
            ("server.0.type", "tcp"),
            ("server.0.host", "h"),
            ("debug", "12"),
        ];
        assert_eq!(of(&inet).unwrap().log.level, MAX_LEVEL);
    }
}
