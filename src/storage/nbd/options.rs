//! The settings of an export: options, and file names as a short form of them.

use std::os::fd::RawFd;
use std::time::Duration;

use bstr::{BStr, BString, ByteSlice};
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::location::tree::flatten;
use crate::nbd::is_string;
use crate::nbd::limits::DEFAULT_PORT;
use crate::nbd::meta::ALLOCATION;
use crate::nbd::uri::{Place, Uri};
use crate::net::address::Names;
use crate::net::tls::{Endpoint, TlsCredentials};
use crate::net::{Address, Family};
use crate::object::Objects;
use crate::options::{OptionKind, OptionSpec, Values, option};
use crate::value::{Map, Value};

/// The schemes that file names begin with, without the colon.
pub(super) const SCHEMES: &[&str] = &[
    "nbd",
    "nbd+tcp",
    "nbd+unix",
    "nbd+vsock",
    "nbds",
    "nbds+tcp",
    "nbds+unix",
    "nbds+vsock",
];

/// Number of connections if the server allows several.
const DEFAULT_CONNECTIONS: u64 = 4;
/// Maximum number of connections.
const MAX_CONNECTIONS: u64 = 16;
/// Seconds for which a server may be silent.
const DEFAULT_TIMEOUT: u64 = 300;

pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        default: Some("4"),
        ..option(
            "connections",
            OptionKind::Num,
            "Connections, where the server allows several (1 to 16)",
        )
    },
    option("export", OptionKind::Name, "Name of the export"),
    option("filename", OptionKind::Name, "URI of the export"),
    option("host", OptionKind::Str, "Host of the server"),
    OptionSpec {
        default: Some("0"),
        ..option(
            "open-timeout",
            OptionKind::Num,
            "Seconds for which connecting is tried again",
        )
    },
    option("path", OptionKind::Name, "Path of the server's unix socket"),
    option("port", OptionKind::Str, "Port of the server").default_to("10809"),
    OptionSpec {
        default: Some("0"),
        ..option(
            "reconnect-delay",
            OptionKind::Num,
            "Seconds for which requests wait for a lost connection to come back",
        )
    },
    option(
        "server.abstract",
        OptionKind::Bool,
        "The unix socket is in the abstract namespace",
    ),
    option(
        "server.cid",
        OptionKind::Str,
        "Number of the virtual machine",
    ),
    option("server.host", OptionKind::Str, "Host of the server"),
    option(
        "server.ipv4",
        OptionKind::Bool,
        "Use version 4 of the internet protocol",
    ),
    option(
        "server.ipv6",
        OptionKind::Bool,
        "Use version 6 of the internet protocol",
    ),
    option(
        "server.keep-alive",
        OptionKind::Bool,
        "Ask a silent server whether it is there",
    )
    .default_to("off"),
    option(
        "server.numeric",
        OptionKind::Bool,
        "The host is a number, not a name",
    ),
    option(
        "server.path",
        OptionKind::Name,
        "Path of the server's unix socket",
    ),
    option("server.port", OptionKind::Str, "Port of the server"),
    option("server.str", OptionKind::Str, "Number of an open socket"),
    option(
        "server.tight",
        OptionKind::Bool,
        "An abstract name ends where it ends",
    )
    .default_to("on"),
    option(
        "server.to",
        OptionKind::Num,
        "The last port to try; of servers alone",
    ),
    option("server.type", OptionKind::Str, "inet, unix, vsock or fd")
        .one_of(&["inet", "unix", "vsock", "fd"]),
    option(
        "tls",
        OptionKind::Bool,
        "Encrypt the connection; without tls-creds, believe whom this machine trusts",
    ),
    option("tls-creds", OptionKind::Str, "ID of the TLS credentials"),
    option(
        "tls-hostname",
        OptionKind::Str,
        "Name that the server's certificate is to have",
    ),
    OptionSpec {
        default: Some("300"),
        ..option(
            "timeout",
            OptionKind::Num,
            "Seconds for which a server may be silent; 0 is for ever",
        )
    },
    OptionSpec {
        default: Some(ALLOCATION),
        ..option(
            "x-dirty-bitmap",
            OptionKind::Name,
            "Metadata context that is shown as block status",
        )
    },
];

/// Options that determine how an export is opened, not which one.
pub(super) const WEAK: &[&str] = &[
    "connections",
    "filename",
    "open-timeout",
    "reconnect-delay",
    "timeout",
    "x-dirty-bitmap",
];

/// Further options that do not prevent a short name from being shown.
const UNSEEN: &[&str] = &[
    "server.numeric",
    "server.keep-alive",
    "tls",
    "tls-creds",
    "tls-hostname",
];

/// The settings of an export.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Address of the server.
    pub(super) address: Address,
    /// Name of the export.
    pub(super) export: BString,
    /// The metadata context that is used for block status.
    pub(super) context: BString,
    /// Whether that context was requested explicitly.
    pub(super) context_asked: bool,
    /// How long the first attempt to connect is retried.
    pub(super) open_timeout: Duration,
    /// How long requests wait for a lost connection to be re-established.
    pub(super) reconnect_delay: Duration,
    /// How long the server may be silent while it owes a reply.
    pub(super) timeout: Option<Duration>,
    /// Maximum number of connections.
    pub(super) connections: usize,
    /// TLS credentials, if the connection is to be encrypted.
    pub(super) tls: Option<TlsCredentials>,
    /// Host name that the server's certificate must match; None if the server has none, which only PSKs can do without.
    pub(super) tls_host: Option<String>,
    /// Whether the kernel sends keepalive probes.
    pub(super) keep_alive: bool,
}

impl Settings {
    /// Builds the settings from options that have been checked.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`].
    pub(super) fn of(options: &Values, objects: &Objects) -> Result<Self> {
        let export = options.name("export").unwrap_or_default();
        if !is_string(export) {
            return Err(Error::invalid("export name too long to send to server"));
        }
        let context = options.name("x-dirty-bitmap");
        if context.is_some_and(|name| !is_string(name)) {
            return Err(Error::invalid(
                "x-dirty-bitmap query too long to send to server",
            ));
        }
        let connections = options.num("connections").unwrap_or(DEFAULT_CONNECTIONS);
        if !(1..=MAX_CONNECTIONS).contains(&connections) {
            return Err(Error::invalid(format!(
                "Parameter 'connections' expects a number from 1 to {MAX_CONNECTIONS}"
            )));
        }
        let address = address(options)?;
        let tls = options.str("tls-creds");
        let tls = match (tls, options.bool("tls")) {
            (Some(_), Some(false)) => {
                return Err(Error::invalid("tls-creds are of no use without TLS"));
            }
            (Some(id), _) => Some(objects.tls(id, Endpoint::Client)?),
            (None, Some(true)) => Some(those_of_this_machine()?),
            (None, _) => None,
        };
        let tls_host = options.str("tls-hostname").or(address.host());
        let tls_host = tls_host.map(str::to_owned);
        let seconds = |key| Duration::from_secs(options.num(key).unwrap_or(0));
        Ok(Self {
            address,
            tls,
            tls_host,
            export: export.to_owned(),
            context: context.unwrap_or(ALLOCATION.into()).to_owned(),
            context_asked: context.is_some(),
            open_timeout: seconds("open-timeout"),
            reconnect_delay: seconds("reconnect-delay"),
            timeout: match options.num("timeout").unwrap_or(DEFAULT_TIMEOUT) {
                0 => None,
                seconds => Some(Duration::from_secs(seconds)),
            },
            connections: usize::try_from(connections).unwrap_or(1),
            keep_alive: options.bool("server.keep-alive").unwrap_or(false),
        })
    }
}

impl Settings {
    /// Whether both refer to the same data and the same block status; the number of a descriptor may belong to another
    /// socket by now.
    pub(super) fn same_export(&self, other: &Self) -> bool {
        self.address == other.address
            && self.export == other.export
            && self.context == other.context
            && self.tls == other.tls
            && self.tls_host == other.tls_host
    }
}

impl Settings {
    /// The descriptor that is the connection: there can be no other, and no new one once it is lost.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        match self.address {
            Address::Descriptor(number) => Some(number),
            _ => None,
        }
    }
}

/// Credentials that trust whom this machine trusts; shared, so that settings of the same export compare equal.
fn those_of_this_machine() -> Result<TlsCredentials> {
    static MADE: Mutex<Option<TlsCredentials>> = Mutex::new(None);
    let mut made = MADE.lock();
    if let Some(made) = &*made {
        return Ok(made.clone());
    }
    let fresh = TlsCredentials::system(true)?;
    Ok(made.insert(fresh).clone())
}

fn address(options: &Values) -> Result<Address> {
    let given = options.iter().any(|(key, _)| key.starts_with("server."));
    let (path, host, port) = (
        options.name("path"),
        options.str("host"),
        options.str("port"),
    );
    if given && (path.is_some() || host.is_some() || port.is_some()) {
        return Err(Error::invalid(
            "Cannot use 'server' and path/host/port at the same time",
        ));
    }
    match (path, host) {
        _ if given => server(options),
        (Some(_), Some(_)) => Err(Error::invalid(
            "path and host may not be used at the same time",
        )),
        (Some(_), None) if port.is_some() => {
            Err(Error::invalid("port may not be used without host"))
        }
        (Some(path), None) => Ok(Address::unix(path)),
        (None, Some(host)) => Ok(match port {
            Some(port) => Address::inet(host, port),
            None => Address::inet(host, DEFAULT_PORT),
        }),
        (None, None) => Err(Error::invalid("NBD server address missing")),
    }
}

fn server(options: &Values) -> Result<Address> {
    let kind = options
        .str("server.type")
        .ok_or_else(|| Error::missing_parameter("type"))?;
    let text = |key: &str| {
        let name = key.rsplit('.').next().unwrap_or(key);
        options
            .str(key)
            .ok_or_else(|| Error::missing_parameter(name))
    };
    Ok(match kind {
        "inet" => {
            if options.bool("server.numeric") == Some(true) {
                let host = text("server.host")?;
                if host.parse::<std::net::IpAddr>().is_err() {
                    return Err(Error::invalid(format!(
                        "'{host}' is not the number of a host"
                    )));
                }
            }
            let family = match (options.bool("server.ipv4"), options.bool("server.ipv6")) {
                (Some(false), Some(false)) => {
                    return Err(Error::invalid("Cannot disable IPv4 and IPv6 at same time"));
                }
                (_, Some(false)) | (Some(true), None) => Family::V4,
                (Some(false), _) | (None, Some(true)) => Family::V6,
                (None, None) | (Some(true), Some(true)) => Family::Any,
            };
            Address::Inet {
                host: text("server.host")?.to_owned(),
                port: text("server.port")?.to_owned(),
                family,
            }
        }
        "unix" => {
            let path = options
                .name("server.path")
                .ok_or_else(|| Error::missing_parameter("path"))?;
            let tight = options.bool("server.tight").unwrap_or(true);
            Address::Unix {
                path: path.to_owned(),
                names: match options.bool("server.abstract") {
                    Some(true) if tight => Names::Abstract,
                    Some(true) => Names::AbstractPadded,
                    _ => Names::Path,
                },
            }
        }
        "vsock" => {
            let number = |key: &str, name: &str| {
                let text = text(key)?;
                text.parse()
                    .map_err(|_| Error::invalid(format!("Parameter '{name}' expects a number")))
            };
            Address::Vsock {
                cid: number("server.cid", "cid")?,
                port: number("server.port", "port")?,
            }
        }
        "fd" => {
            let number = text("server.str")?;
            Address::Descriptor(number.parse().map_err(|_| {
                Error::invalid(format!("'{number}' is not the number of a file descriptor"))
            })?)
        }
        other => {
            return Err(Error::refused_value("type", other));
        }
    })
}

/// The options that a file name stands for: a URI, `nbd:HOST:PORT[:exportname=NAME]` or
/// `nbd:unix:PATH[:exportname=NAME]`.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for a name of any other form.
pub(super) fn parse_file_name(name: &BStr) -> Result<Map<String, Value>> {
    let mut options = Map::new();
    let mut set = |key: &str, value: &BStr| {
        options.insert(key.to_owned(), Value::String(value.to_owned()));
    };
    if name.contains_str("://") {
        let uri = Uri::parse(name).ok_or_else(|| Error::invalid("No valid URL specified"))?;
        match &uri.place {
            Place::Tcp { host, port } => {
                set("server.host", host.as_bytes().as_bstr());
                set("server.port", port.to_string().as_bytes().as_bstr());
                set("server.type", "inet".into());
            }
            Place::Unix { path } => {
                set("server.path", path.as_bstr());
                set("server.type", "unix".into());
            }
            Place::Vsock { cid, port } => {
                set("server.cid", cid.to_string().as_bytes().as_bstr());
                set("server.port", port.to_string().as_bytes().as_bstr());
                set("server.type", "vsock".into());
            }
        }
        if !uri.export.is_empty() {
            set("export", uri.export.as_bstr());
        }
        let named = [
            ("tls-creds", &uri.tls_creds),
            ("tls-hostname", &uri.tls_hostname),
        ];
        for (key, value) in named {
            if let Some(value) = value {
                set(key, value.as_bytes().as_bstr());
            }
        }
        if uri.tls {
            options.insert("tls".to_owned(), Value::from(true));
        }
        return Ok(options);
    }
    let rest = name
        .split_once_str(":")
        .map_or(&b""[..], |(_, rest)| rest)
        .as_bstr();
    let (server, export) = rest.split_once_str(":exportname=").unwrap_or((rest, b""));
    if server.is_empty() || (export.is_empty() && server.len() != rest.len()) {
        return Err(Error::invalid("NBD server address missing"));
    }
    if !export.is_empty() {
        set("export", export.as_bstr());
    }
    if let Some(path) = server.strip_prefix(b"unix:") {
        set("server.path", path.as_bstr());
        set("server.type", "unix".into());
        return Ok(options);
    }
    let parts = match server.strip_prefix(b"[") {
        Some(rest) => rest.split_once_str("]:"),
        None => server.split_once_str(":"),
    };
    let Some((host, port)) = parts else {
        return Err(Error::invalid(format!(
            "error parsing address '{}'",
            server.as_bstr()
        )));
    };
    set("server.host", host.as_bstr());
    set("server.port", port.as_bstr());
    set("server.type", "inet".into());
    Ok(options)
}

/// The short name that opens the export again, if there is one.
pub(super) fn file_name(given: &Map<String, Value>) -> Option<BString> {
    let options = flatten(given);
    let text = |key: &str| options.get(key);
    let only = |known: &[&str]| {
        options.iter().all(|(key, _)| {
            key == "export" || known.contains(&key) || UNSEEN.contains(&key) || WEAK.contains(&key)
        })
    };
    let export = text("export").filter(|name| !name.is_empty());
    let behind = |place: BString| -> BString {
        match export {
            Some(export) => [place.as_slice(), b"/", export].concat().into(),
            None => place,
        }
    };
    let secure = text("tls").is_some_and(|on| on == "on");
    let scheme: BString = if secure { "nbds" } else { "nbd" }.into();
    let mut query: Vec<BString> = Vec::new();
    let mut say = |key: &str| {
        let value = text(key).filter(|_| secure);
        query.extend(value.map(|value| [key.as_bytes(), b"=", value].concat().into()));
    };
    say("tls-creds");
    say("tls-hostname");
    let kind = text("server.type");
    let path = match kind {
        Some(kind) if kind == "unix" => text("server.path"),
        None => text("path"),
        Some(_) => None,
    };
    if let Some(path) = path {
        return only(&["path", "server.path", "server.type"]).then(|| {
            let place = behind([&scheme[..], b"+unix://"].concat().into());
            query.insert(0, [&b"socket="[..], path].concat().into());
            [&place[..], b"?", &bstr::join("&", &query)].concat().into()
        });
    }
    let (host, port) = match kind {
        Some(kind) if kind == "inet" => (text("server.host"), text("server.port")),
        None => (text("host"), text("port")),
        Some(_) => return None,
    };
    let default = DEFAULT_PORT.to_string();
    let port = port.unwrap_or(default.as_bytes().as_bstr());
    let whole = only(&["host", "port", "server.host", "server.port", "server.type"]);
    let host = host.filter(|_| whole)?;
    let place = behind([&scheme[..], b"://", host, b":", port].concat().into());
    Some(match query.is_empty() {
        true => place,
        false => [&place[..], b"?", &bstr::join("&", &query)].concat().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_name(name: &str) -> Result<Settings> {
        let options = flatten(&parse_file_name(name.into())?);
        let mut objects = Objects::new();
        objects.add_tls("c", TlsCredentials::system(false)?)?;
        Settings::of(&Values::check(&options, OPTIONS)?, &objects)
    }

    #[test]
    fn file_names_stand_for_addresses_and_come_back_in_one_form() {
        for (name, address, export, shown) in [
            ("nbd://h", "h:10809", "", "nbd://h:10809"),
            ("nbd://h:5/a%20b", "h:5", "a b", "nbd://h:5/a b"),
            ("nbd:h:5:exportname=a:b", "h:5", "a:b", "nbd://h:5/a:b"),
            ("nbd:[::1]:7", "::1:7", "", "nbd://::1:7"),
            ("nbd:unix:/s", "/s", "", "nbd+unix://?socket=/s"),
            (
                "nbd:unix:/s:exportname=e",
                "/s",
                "e",
                "nbd+unix:///e?socket=/s",
            ),
            (
                "nbd+unix:///e?socket=/a%20s",
                "/a s",
                "e",
                "nbd+unix:///e?socket=/a s",
            ),
            (
                "nbds://h/e?tls-creds=c",
                "h:10809",
                "e",
                "nbds://h:10809/e?tls-creds=c",
            ),
            (
                "nbds+unix:///e?socket=/s&tls-hostname=h&tls-creds=c",
                "/s",
                "e",
                "nbds+unix:///e?socket=/s&tls-creds=c&tls-hostname=h",
            ),
        ] {
            let settings = of_name(name).unwrap();
            assert_eq!(settings.address.to_string(), address, "{name}");
            assert_eq!(settings.export, export, "{name}");
            let found = file_name(&parse_file_name(name.into()).unwrap());
            assert_eq!(found.unwrap(), shown, "{name}");
        }
    }

    #[test]
    fn names_and_options_that_say_no_server_are_refused() {
        for (name, text) in [
            ("nbd:", "NBD server address missing"),
            ("nbd:unix:/s:exportname=", "NBD server address missing"),
            ("nbd://", "No valid URL specified"),
            ("nbd:x", "error parsing address 'x'"),
        ] {
            assert_eq!(of_name(name).unwrap_err().to_string(), text, "{name}");
        }
        for (list, text) in [
            ("export=x", "NBD server address missing"),
            ("port=1", "NBD server address missing"),
            (
                "path=s,host=h",
                "path and host may not be used at the same time",
            ),
            ("path=s,port=1", "port may not be used without host"),
            ("server.type=unix", "Parameter 'path' is missing"),
            ("server.path=s", "Parameter 'type' is missing"),
            (
                "server.type=x",
                "Parameter 'type' does not accept value 'x'",
            ),
            (
                "server.type=inet,server.host=h",
                "Parameter 'port' is missing",
            ),
            (
                "server.type=unix,server.path=s,path=s",
                "Cannot use 'server' and path/host/port at the same time",
            ),
            (
                "path=s,tls=off,tls-creds=c",
                "tls-creds are of no use without TLS",
            ),
            (
                "path=s,connections=17",
                "Parameter 'connections' expects a number from 1 to 16",
            ),
        ] {
            let options = crate::Options::parse(list).unwrap();
            let error = Settings::of(&Values::check(&options, OPTIONS).unwrap(), &Objects::new())
                .unwrap_err();
            assert_eq!(error.to_string(), text, "{list}");
        }
    }

    #[test]
    fn options_that_no_short_name_holds_make_a_long_one() {
        for (list, shown) in [
            ("path=/s,reconnect-delay=3", Some("nbd+unix://?socket=/s")),
            ("host=h,export=e", Some("nbd://h:10809/e")),
            (
                "server.type=inet,server.host=h,server.port=1,server.numeric=on",
                Some("nbd://h:1"),
            ),
            (
                "server.type=inet,server.host=h,server.port=1,server.ipv6=off",
                None,
            ),
            ("server.type=fd,server.str=5", None),
        ] {
            let options = crate::Options::parse(list).unwrap();
            let given = options
                .iter()
                .map(|(key, value)| (key.to_owned(), Value::String(value.to_owned())))
                .collect();
            assert_eq!(file_name(&given), shown.map(BString::from), "{list}");
        }
    }
}
