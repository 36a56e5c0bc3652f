//! The settings of a unit: options, and file names as a short form of them.

use std::hash::{BuildHasher, RandomState};

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, Result};
use crate::location::tree::flatten;
use crate::net::url::decoded;
use crate::object::Objects;
use crate::options::{OptionKind, OptionSpec, Values, option};
use crate::policy::OpenPolicy;
use crate::printable::without_passwords;
use crate::secret::Secret;
use crate::sys::libiscsi::{HeaderDigest, Login, Wanted};
use crate::value::{Map, Value};

use super::text;

const DEFAULT_PORT: u16 = 3260;
/// The initiator name of QEMU's tools, which targets may know.
const INITIATOR: &str = "iqn.2008-11.org.linux-kvm";
/// Maximum length of a name that the library accepts.
const MAX_NAME: usize = 255;
/// Maximum LUN of a single level.
const MAX_LUN: u16 = 16383;
/// Addressing method for LUNs that do not fit in a byte (SAM, flat space).
const FLAT: u16 = 0x4000;
const MAX_TIMEOUT: u64 = 24 * 3600;

pub(super) const OPTIONS: &[OptionSpec] = &[
    text(
        "header-digest",
        "crc32c, none, crc32c-none or none-crc32c (default)",
    )
    .default_to("none-crc32c")
    .one_of(&["crc32c", "none", "crc32c-none", "none-crc32c"]),
    text("initiator-name", "What we are called").default_to(INITIATOR),
    option("lun", OptionKind::Num, "Number of the unit").default_to("0"),
    text("password", "Password"),
    text("password-secret", "ID of the secret with the password"),
    text("portal", "HOST or HOST:PORT of the target"),
    text("target", "Name of the target"),
    text(
        "target-password-secret",
        "ID of the secret with the password by which the target proves who it is",
    ),
    text("target-user", "Name by which the target proves who it is"),
    option(
        "timeout",
        OptionKind::Num,
        "Seconds until a command that has no answer is given up (0 is never)",
    )
    .default_to("0"),
    text("transport", "tcp or iser")
        .default_to("tcp")
        .one_of(&["tcp", "iser"]),
    text("user", "Name of the user"),
];

/// Options that determine how a unit is opened, not which one: they are left out of names.
pub(super) const WEAK: &[&str] = &[
    "header-digest",
    "initiator-name",
    "password",
    "password-secret",
    "target-password-secret",
    "target-user",
    "timeout",
];

/// Options that are allowed after the `?` of a file name.
const IN_QUERY: &[&str] = &[
    "header-digest",
    "initiator-name",
    "password-secret",
    "target-password-secret",
    "target-user",
    "timeout",
];

/// The settings of a unit.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) lun: u16,
    /// The LUN as encoded in commands.
    pub(super) address: u16,
    wanted: Wanted,
    /// The policy to check before following a redirect by the target.
    pub(super) policy: Option<OpenPolicy>,
}

/// The host and the port of a portal; the group after a comma is ignored.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`].
pub(super) fn portal(text: &str) -> Result<(String, u16)> {
    let strange = || Error::invalid(format!("The portal '{text}' is no HOST or HOST:PORT"));
    let place = text.split(',').next().unwrap_or_default();
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(strange)?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(strange()),
            }
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let port = match port {
        None => DEFAULT_PORT,
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(strange)?,
    };
    match host.is_empty() {
        true => Err(strange()),
        false => Ok((host.to_owned(), port)),
    }
}

/// The LUN, and how it is encoded; None if it is not valid. The library's own tools use the encoded form for LUNs above
/// 255.
fn numbered(given: u64) -> Option<(u16, u16)> {
    let given = u16::try_from(given).ok()?;
    match given {
        0..=255 => Some((given, given)),
        256..=MAX_LUN => Some((given, FLAT | given)),
        FLAT..0x8000 => Some((given & MAX_LUN, given)),
        _ => None,
    }
}

fn digest(text: Option<&str>) -> Result<HeaderDigest> {
    Ok(match text {
        None | Some("none-crc32c") => HeaderDigest::PreferNone,
        Some("none") => HeaderDigest::None,
        Some("crc32c") => HeaderDigest::Crc32c,
        Some("crc32c-none") => HeaderDigest::PreferCrc32c,
        Some(other) => {
            return Err(Error::invalid(format!(
                "Invalid header-digest setting : {other}"
            )));
        }
    })
}

impl Settings {
    /// Builds the settings from options that have been checked; `scheme` determines the transport if no option does.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`], or if a secret is not available.
    pub(super) fn of(scheme: &str, options: &Values, objects: &Objects) -> Result<Self> {
        let need = |key| {
            options
                .str(key)
                .ok_or_else(|| Error::missing_parameter(key))
        };
        let (host, port) = portal(need("portal")?)?;
        let target = need("target")?;
        let initiator = options.str("initiator-name").unwrap_or(INITIATOR);
        let iser = match options.str("transport") {
            None => scheme != super::ISCSI.name,
            Some("tcp") => false,
            Some("iser") => true,
            Some(other) => {
                return Err(Error::invalid(format!("Unknown transport: {other}")));
            }
        };
        let unit = numbered(options.num("lun").unwrap_or(0));
        let timeout = options.num("timeout").unwrap_or(0);
        let Some((lun, address)) = unit.filter(|_| timeout <= MAX_TIMEOUT) else {
            return Err(Error::invalid(format!(
                "'lun' is at most {MAX_LUN}, and 'timeout' at most {MAX_TIMEOUT}"
            )));
        };
        let secret = |key: &str| options.str(key).map(|id| objects.secret_text(id));
        let own = secret("password-secret").transpose()?;
        if own.is_some() && options.str("password").is_some() {
            return Err(Error::invalid(
                "'password' and 'password-secret' properties are mutually exclusive",
            ));
        }
        let own = own.or(options.str("password").map(Secret::new));
        let login = login(options.str("user"), own, "user", "password-secret")?;
        let theirs = secret("target-password-secret").transpose()?;
        let names = ("target-user", "target-password-secret");
        let target_login = self::login(options.str(names.0), theirs, names.0, names.1)?;
        if target_login.is_some() && login.is_none() {
            return Err(Error::invalid(
                "A target proves who it is only to one who does: 'user' is missing",
            ));
        }
        for (what, name) in [("target", target), ("initiator-name", initiator)] {
            if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') {
                return Err(Error::invalid(format!("'{what}' is empty or too long")));
            }
        }
        Ok(Self {
            host,
            port,
            lun,
            address,
            wanted: Wanted {
                initiator: initiator.to_owned(),
                target: target.to_owned(),
                digest: digest(options.str("header-digest"))?,
                login,
                target_login,
                iser,
                // Different for each: sessions of one initiator with the same number terminate each other.
                number: RandomState::new().hash_one(0) as u32,
                timeout: timeout as u32,
            },
            policy: None,
        })
    }

    /// The parameters of sessions. A session with the same settings replaces the previous one and ends its commands.
    pub(super) fn wanted(&self) -> Wanted {
        self.wanted.clone()
    }

    /// The message for a failed login: targets identify initiators by their names.
    pub(super) fn refusal(&self) -> String {
        let (target, initiator) = (&self.wanted.target, &self.wanted.initiator);
        format!("The target {target} does not let {initiator} in")
    }

    /// Identifies the unit, whichever user opens it.
    pub(super) fn place(&self) -> BString {
        let (host, target) = (self.host.to_ascii_lowercase(), &self.wanted.target);
        let name = super::ISCSI.name;
        format!("{name}://{host}:{}/{target}/{}", self.port, self.lun).into()
    }
}

fn login(
    user: Option<&str>,
    password: Option<Secret>,
    user_key: &str,
    password_key: &str,
) -> Result<Option<Login>> {
    match (user, password) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Error::missing_parameter(user_key)),
        // As with QEMU, a user name without a password is not sent to the target.
        (Some(_), None) if user_key == "user" => Ok(None),
        (Some(_), None) => Err(Error::missing_parameter(password_key)),
        (Some(user), Some(password)) if user.len() <= MAX_NAME => Ok(Some(Login {
            user: user.to_owned(),
            password,
        })),
        _ => Err(Error::invalid(format!("'{user_key}' is too long"))),
    }
}

/// The options that a file name stands for: `iscsi://[USER[%PASSWORD]@]HOST[:PORT]/TARGET/LUN[?KEY=VALUE&…]`.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for a name of any other form.
pub(super) fn parse_file_name(scheme: &str, name: &BStr) -> Result<Map<String, Value>> {
    let strange = || {
        let shown = without_passwords(name).into_owned();
        Error::invalid(format!(
            "Failed to parse URL : {}; its form is {scheme}://[USER[%PASSWORD]@]HOST[:PORT]/TARGET/LUN",
            shown.as_bstr()
        ))
    };
    let mut options = Map::new();
    let mut set = |key: &str, value: &BStr| {
        options.insert(key.to_owned(), Value::String(value.to_owned()));
    };
    let begin = format!("{scheme}://");
    let rest = name.strip_prefix(begin.as_bytes()).ok_or_else(strange)?;
    let (rest, query) = rest.split_once_str("?").unwrap_or((rest, b""));
    let (authority, path) = rest.split_once_str("/").ok_or_else(strange)?;
    let server = match authority.rsplit_once_str("@") {
        None => authority,
        Some((login, server)) => {
            let (user, password) = match login.split_once_str("%") {
                Some((user, password)) => (user, Some(password)),
                None => (login, None),
            };
            set("user", user.as_bstr());
            if let Some(password) = password {
                set("password", password.as_bstr());
            }
            server
        }
    };
    let (target, lun) = path.rsplit_once_str("/").ok_or_else(strange)?;
    let lun: u64 = lun
        .to_str()
        .ok()
        .and_then(|lun| lun.parse().ok())
        .ok_or_else(strange)?;
    if server.is_empty() || target.is_empty() {
        return Err(strange());
    }
    set("portal", server.as_bstr());
    set("target", decoded(target).ok_or_else(strange)?.as_bstr());
    for pair in query.split_str("&").filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once_str("=").unwrap_or((pair, b""));
        let key = key.to_str_lossy();
        if !IN_QUERY.contains(&&*key) {
            return Err(Error::invalid(format!(
                "Unsupported parameter '{key}' in URI"
            )));
        }
        set(&key, decoded(value).ok_or_else(strange)?.as_bstr());
    }
    options.insert("lun".to_owned(), Value::from(lun));
    Ok(options)
}

/// The short name that opens the unit again, if there is one; it contains no password.
pub(super) fn file_name(scheme: &str, given: &Map<String, Value>) -> Option<BString> {
    let options = flatten(given);
    let text = |key: &str| options.get(key);
    let default = match scheme == super::ISCSI.name {
        true => "tcp",
        false => "iser",
    };
    if text("transport").is_some_and(|own| own != default) {
        return None;
    }
    let (portal, target) = (text("portal")?, text("target")?);
    let mut name: BString = format!("{scheme}://").into();
    if let Some(user) = text("user") {
        name.extend_from_slice(user);
        name.push(b'@');
    }
    name.extend_from_slice(portal);
    name.push(b'/');
    for byte in target.iter() {
        match byte {
            b'%' | b'?' => name.extend_from_slice(format!("%{byte:02x}").as_bytes()),
            byte => name.push(*byte),
        }
    }
    name.push(b'/');
    name.extend_from_slice(text("lun").unwrap_or(b"0".as_bstr()));
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    fn of_list(list: &str) -> Result<Settings> {
        let options = Options::parse(list)?;
        Settings::of("iscsi", &Values::check(&options, OPTIONS)?, &Objects::new())
    }

    fn of_name(name: &str) -> Result<Settings> {
        let options = flatten(&parse_file_name("iscsi", name.into())?);
        Settings::of("iscsi", &Values::check(&options, OPTIONS)?, &Objects::new())
    }

    #[test]
    fn file_names_stand_for_options_and_come_back_without_passwords() {
        let name = "iscsi://joe%s3@cret@h:7/iqn.2025-01.test%3ad/3?timeout=5";
        let settings = of_name(name).unwrap();
        assert_eq!(
            (settings.host.as_str(), settings.port, settings.lun),
            ("h", 7, 3)
        );
        assert_eq!(settings.wanted.target, "iqn.2025-01.test:d");
        assert_eq!(settings.wanted.timeout, 5);
        let login = settings.wanted.login.clone().unwrap();
        assert_eq!(
            (login.user.as_str(), login.password.bytes()),
            ("joe", &b"s3@cret"[..])
        );
        assert_eq!(settings.place(), "iscsi://h:7/iqn.2025-01.test:d/3");
        let parsed = parse_file_name("iscsi", name.into()).unwrap();
        let shown = "iscsi://joe@h:7/iqn.2025-01.test:d/3";
        assert_eq!(file_name("iscsi", &parsed).unwrap(), shown);
        let plain = of_name("iscsi://[::1]/t/0").unwrap();
        assert_eq!((plain.host.as_str(), plain.port), ("::1", 3260));
        assert!(plain.wanted.login.is_none() && !plain.wanted.iser);
    }

    #[test]
    fn units_are_addressed_by_a_byte_or_in_flat_space() {
        for (name, lun, address) in [
            ("0", 0, 0),
            ("255", 255, 255),
            ("256", 256, 0x4100),
            ("300", 300, 0x412c),
            ("16383", 16383, 0x7fff),
            ("16684", 300, 0x412c),
            ("16389", 5, 0x4005),
        ] {
            let settings = of_name(&format!("iscsi://h/t/{name}")).unwrap();
            assert_eq!((settings.lun, settings.address), (lun, address), "{name}");
        }
        let place = |name: &str| of_name(name).unwrap().place();
        assert_eq!(place("iscsi://h/t/300"), place("iscsi://h/t/16684"));
    }

    #[test]
    fn names_of_another_form_are_refused_and_show_no_password() {
        for (name, text) in [
            ("iscsi:", "Failed to parse URL : iscsi:"),
            ("iscsi://h", "Failed to parse URL : iscsi://h"),
            ("iscsi://h/t", "Failed to parse URL : iscsi://h/t"),
            ("iscsi://j%abc@h/t", "Failed to parse URL : iscsi://j@h/t"),
            ("iscsi:///t/1", "Failed to parse URL : iscsi:///t/1"),
            ("iscsi://h/t/x", "Failed to parse URL : iscsi://h/t/x"),
            ("iscsi://h/t/99999", "'lun' is at most 16383"),
            ("iscsi://h/t/32768", "'lun' is at most 16383"),
            (
                "iscsi://h:x/t/1",
                "The portal 'h:x' is no HOST or HOST:PORT",
            ),
            ("iscsi://h/t/1?a=b", "Unsupported parameter 'a' in URI"),
        ] {
            let error = of_name(name).unwrap_err().to_string();
            assert!(error.starts_with(text), "{name}: {error}");
        }
    }

    #[test]
    fn options_that_say_too_little_or_too_much_are_refused() {
        for (list, text) in [
            ("target=t", "Parameter 'portal' is missing"),
            ("portal=h", "Parameter 'target' is missing"),
            ("portal=h,target=t,transport=x", "Unknown transport: x"),
            (
                "portal=h,target=t,header-digest=x",
                "Invalid header-digest setting : x",
            ),
            (
                "portal=h,target=t,password=p",
                "Parameter 'user' is missing",
            ),
            (
                "portal=h,target=t,target-user=u",
                "Parameter 'target-password-secret' is missing",
            ),
            ("portal=h,target=", "'target' is empty or too long"),
        ] {
            assert_eq!(of_list(list).unwrap_err().to_string(), text, "{list}");
        }
        assert!(
            of_list("portal=h,target=t,transport=iser")
                .unwrap()
                .wanted
                .iser
        );
    }
}
