//! Options that select an image and say how to access it, and the file names that stand for them.

use std::ffi::CString;

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, Result};
use crate::location::tree::flatten;
use crate::object::Objects;
use crate::options::{OptionKind, OptionSpec, OptionValue, Values, option};
use crate::policy::OpenPolicy;
use crate::secret::Secret;
use crate::storage::driver::StorageTarget;
use crate::value::{Map, Value};

use super::encryption::{NAMES, Wanted};
use super::{name, text};

pub(super) const OPTIONS: &[OptionSpec] = &[
    text(
        "auth-client-required.*",
        "Ways to log in that are allowed: cephx, none",
    ),
    name("conf", "File with the settings of the cluster"),
    text("encrypt.format", "luks or luks2").one_of(NAMES),
    text("encrypt.key-secret", "ID of the secret with the passphrase"),
    name("filename", "Name of the image with its options"),
    name("image", "Name of the image"),
    text("key-secret", "ID of the secret with the user's key"),
    name("namespace", "Namespace of the pool"),
    name("pool", "Name of the pool"),
    text("server.*.host", "Host of a monitor of the cluster"),
    text("server.*.port", "Port of that monitor"),
    name(
        "settings.*",
        "A further setting of the client, as KEY=VALUE",
    ),
    name("snapshot", "Snapshot of the image"),
    name("user", "Name of the user, without client."),
];

/// Options that affect how an image is opened, not which image it is.
pub(super) const WEAK: &[&str] = &[
    "auth-client-required.*",
    "encrypt.format",
    "encrypt.key-secret",
    "filename",
    "key-secret",
    "settings.*",
];

pub(super) const CREATE: &[OptionSpec] = &[
    option("cluster_size", OptionKind::Size, "RBD object size"),
    OptionSpec {
        allowed: &["aes-128", "aes-256"],
        default: Some("aes-256"),
        ..text(
            "encrypt.cipher-alg",
            "Name of encryption cipher algorithm (allowed values: aes-128, aes-256)",
        )
    },
    text(
        "encrypt.format",
        "Encrypt the image, format choices: 'luks', 'luks2'",
    )
    .one_of(NAMES),
    text(
        "encrypt.key-secret",
        "ID of secret providing LUKS passphrase",
    ),
    text("password-secret", "ID of secret providing the password"),
    option("size", OptionKind::Size, "Virtual disk size"),
];

/// Maximum length of any name.
const MAX_NAME: usize = 4096;

/// The settings of one image.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) pool: CString,
    pub(super) namespace: CString,
    pub(super) image: CString,
    pub(super) snapshot: Option<CString>,
    pub(super) conf: Option<CString>,
    pub(super) user: Option<CString>,
    /// Configuration settings for the library, in order.
    pub(super) further: Vec<(CString, CString)>,
    pub(super) key: Option<Secret>,
    pub(super) encryption: Option<Wanted>,
    /// Policy that the addresses of the monitors are checked against.
    pub(super) policy: Option<OpenPolicy>,
}

/// Converts a name to the form the library takes.
fn c_name(what: &str, bytes: &[u8]) -> Result<CString> {
    let whole = CString::new(bytes).ok();
    whole
        .filter(|_| bytes.len() <= MAX_NAME)
        .ok_or_else(|| Error::invalid(format!("The {what} has a zero byte or is too long")))
}

/// All values of a list, ordered by index.
fn listed<'a>(options: &'a Values, list: &str, key: &str) -> Vec<(usize, &'a OptionValue)> {
    let mut found: Vec<_> = options
        .iter()
        .filter_map(|(name, value)| {
            let rest = name.strip_prefix(list)?.strip_prefix('.')?;
            let (place, rest) = rest.split_once('.').unwrap_or((rest, ""));
            (rest == key).then_some((place.parse().ok()?, value))
        })
        .collect();
    found.sort_by_key(|(place, _)| *place);
    found
}

fn as_text(value: &OptionValue) -> &[u8] {
    match value {
        OptionValue::Str(text) => text.as_bytes(),
        OptionValue::Name(name) => name,
        OptionValue::Num(_) | OptionValue::Bool(_) => b"",
    }
}

/// The monitors in the form the library takes.
fn monitors(options: &Values) -> Result<Option<String>> {
    let hosts = listed(options, "server", "host");
    let ports = listed(options, "server", "port");
    let mut all = Vec::new();
    for (place, host) in &hosts {
        let port = ports.iter().find(|(at, _)| at == place);
        let (_, port) =
            port.ok_or_else(|| Error::missing_parameter(format!("server.{place}.port")))?;
        let (host, port) = (as_text(host).as_bstr(), as_text(port).as_bstr());
        all.push(match host.contains(&b':') && !host.starts_with(b"[") {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        });
    }
    if let Some((place, _)) = ports
        .iter()
        .find(|(place, _)| !hosts.iter().any(|(at, _)| at == place))
    {
        return Err(Error::missing_parameter(format!("server.{place}.host")));
    }
    Ok((!all.is_empty()).then(|| all.join(";")))
}

impl Settings {
    /// Merges the options with those in the name of the target; explicit options take precedence.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`]; errors of a secret.
    pub(super) fn of(
        target: &StorageTarget<'_>,
        options: &Values,
        objects: &Objects,
    ) -> Result<Self> {
        let named = match target {
            StorageTarget::Uri(uri) => Some(uri.as_bytes().as_bstr()),
            StorageTarget::Path(path) => Some(path.as_os_str().as_encoded_bytes().as_bstr()),
            StorageTarget::Unnamed => options.name("filename"),
        };
        match named {
            None => Self::of_values(options, objects),
            Some(name) => {
                let mut given: Map<String, Value> = options
                    .iter()
                    .map(|(key, value)| {
                        let value = BString::from(as_text(value));
                        (key.to_owned(), Value::String(value))
                    })
                    .collect();
                given.retain(|key, _| key != "filename");
                for (key, value) in parse_file_name(name)? {
                    given.entry(key).or_insert(value);
                }
                Self::of_values(&Values::check(&flatten(&given), OPTIONS)?, objects)
            }
        }
    }

    fn of_values(options: &Values, objects: &Objects) -> Result<Self> {
        let given = |key: &str| {
            let value = options.name(key).filter(|value| !value.is_empty());
            value.map(|value| c_name(key, value)).transpose()
        };
        let mut further = Vec::new();
        for (_, pair) in listed(options, "settings", "") {
            let (key, value) = as_text(pair)
                .split_once_str("=")
                .ok_or_else(|| Error::invalid("A setting of the client is to be KEY=VALUE"))?;
            further.push((c_name("setting", key)?, c_name("setting", value)?));
        }
        let mut more = |key: &str, value: Vec<u8>| -> Result<()> {
            further.push((c_name("setting", key.as_bytes())?, c_name(key, &value)?));
            Ok(())
        };
        if let Some(hosts) = monitors(options)? {
            more("mon_host", hosts.into_bytes())?;
        }
        let ways = listed(options, "auth-client-required", "");
        for (_, way) in &ways {
            if !matches!(as_text(way), b"cephx" | b"none") {
                let way = as_text(way).as_bstr();
                return Err(Error::refused_value("auth-client-required", way));
            }
        }
        if !ways.is_empty() {
            let ways: Vec<_> = ways.iter().map(|(_, way)| as_text(way)).collect();
            more("auth_client_required", ways.join(&b';'))?;
        }
        let key = options.str("key-secret").map(|id| objects.secret_text(id));
        Ok(Self {
            pool: given("pool")?.ok_or_else(|| Error::missing_parameter("pool"))?,
            namespace: given("namespace")?.unwrap_or_default(),
            image: given("image")?.ok_or_else(|| Error::missing_parameter("image"))?,
            snapshot: given("snapshot")?,
            conf: given("conf")?,
            user: given("user")?,
            further,
            key: key.transpose()?,
            encryption: Wanted::of(options, objects)?,
            policy: None,
        })
    }

    /// The name of the image for messages, without connection details.
    pub(super) fn short(&self) -> BString {
        let mut name = BString::from(b"rbd:".as_slice());
        name.extend_from_slice(self.pool.as_bytes());
        name.push(b'/');
        if !self.namespace.is_empty() {
            name.extend_from_slice(self.namespace.as_bytes());
            name.push(b'/');
        }
        name.extend_from_slice(self.image.as_bytes());
        if let Some(snapshot) = &self.snapshot {
            name.push(b'@');
            name.extend_from_slice(snapshot.as_bytes());
        }
        name
    }
}

/// Splits at the first `end` that is not escaped by a backslash; the second part is `None` if there is no such byte.
fn cut(text: &[u8], end: u8) -> (&[u8], Option<&[u8]>) {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match *byte {
            b'\\' => at += 2,
            byte if byte == end => {
                return (
                    text.get(..at).unwrap_or_default(),
                    Some(text.get(at + 1..).unwrap_or_default()),
                );
            }
            _ => at += 1,
        }
    }
    (text, None)
}

/// Removes the backslashes that escape separators.
fn unescaped(text: &[u8]) -> BString {
    let mut out = BString::default();
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => out.extend(bytes.next()),
            _ => out.push(*byte),
        }
    }
    out
}

/// Parses a file name into options: `rbd:POOL/[NAMESPACE/]IMAGE[@SNAPSHOT][:KEY=VALUE]…`.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for a name of any other form.
pub(super) fn parse_file_name(name: &BStr) -> Result<Map<String, Value>> {
    let mut options = Map::new();
    let mut set = |key: &str, value: BString| {
        options.insert(key.to_owned(), Value::String(value));
    };
    let rest = name.strip_prefix(b"rbd:").unwrap_or(name);
    let (pool, rest) = cut(rest, b'/');
    let rest = rest.ok_or_else(|| Error::invalid("Pool name is required"))?;
    let (place, mut pairs) = cut(rest, b':');
    let (namespace, image) = match cut(place, b'/') {
        (namespace, Some(image)) => (namespace, image),
        (image, None) => (&b""[..], image),
    };
    let (image, snapshot) = cut(image, b'@');
    if pool.is_empty() {
        return Err(Error::invalid("Pool name is required"));
    }
    if image.is_empty() {
        return Err(Error::invalid("Image name is required"));
    }
    set("pool", unescaped(pool));
    set("image", unescaped(image));
    set("namespace", unescaped(namespace));
    if let Some(snapshot) = snapshot {
        set("snapshot", unescaped(snapshot));
    }
    let mut further = 0;
    while let Some(rest) = pairs {
        let (pair, more) = cut(rest, b':');
        pairs = more;
        let (key, value) = cut(pair, b'=');
        let key = unescaped(key);
        let value = value
            .ok_or_else(|| Error::invalid(format!("conf option {key} has no value")))
            .map(unescaped)?;
        match key.as_slice() {
            b"id" => set("user", value),
            b"conf" => set("conf", value),
            b"filename" => {
                return Err(Error::invalid("A name does not stand in a name"));
            }
            _ => {
                let pair = [key.as_slice(), b"=", &value].concat();
                set(&format!("settings.{further}"), pair.into());
                further += 1;
            }
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_name(name: &str) -> Result<Settings> {
        let target = StorageTarget::Uri(name.into());
        Settings::of(&target, &Values::default(), &Objects::new())
    }

    fn of_list(list: &str) -> Result<Settings> {
        let values = Values::check(&crate::Options::parse(list)?, OPTIONS)?;
        Settings::of(&StorageTarget::Unnamed, &values, &Objects::new())
    }

    #[test]
    fn file_names_stand_for_options() {
        let all = of_name(r"rbd:p\/q/n/i\@m@s\:t:id=u:conf=/a\:b:key=A==:x=1").unwrap();
        assert_eq!((&*all.pool, &*all.namespace), (c"p/q", c"n"));
        assert_eq!(
            (&*all.image, all.snapshot.as_deref()),
            (c"i@m", Some(c"s:t"))
        );
        assert_eq!(
            (all.user.as_deref(), all.conf.as_deref()),
            (Some(c"u"), Some(c"/a:b"))
        );
        let further: Vec<_> = all.further.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(further, [(c"key", c"A=="), (c"x", c"1")]);
        assert_eq!(all.short(), "rbd:p/q/n/i@m@s:t");
        let plain = of_name("rbd:p//i@").unwrap();
        assert_eq!((&*plain.namespace, plain.snapshot), (c"", None));
    }

    #[test]
    fn names_and_options_of_another_form_are_refused() {
        for (name, text) in [
            ("rbd:", "Pool name is required"),
            ("rbd:x", "Pool name is required"),
            ("rbd:/x", "Pool name is required"),
            ("rbd:a/", "Image name is required"),
            ("rbd:a/b:conf", "conf option conf has no value"),
            ("rbd:a/b:conf=/x:", "conf option  has no value"),
            ("rbd:a/b\0", "The image has a zero byte or is too long"),
        ] {
            assert_eq!(of_name(name).unwrap_err().to_string(), text, "{name}");
        }
        for (list, text) in [
            ("image=i", "Parameter 'pool' is missing"),
            ("pool=p", "Parameter 'image' is missing"),
            (
                "pool=p,image=i,server.0.host=h",
                "Parameter 'server.0.port' is missing",
            ),
            (
                "pool=p,image=i,encrypt.format=x",
                "Parameter 'format' does not accept value 'x'",
            ),
            (
                "pool=p,image=i,encrypt.format=luks",
                "Parameter 'encrypt.key-secret' is missing",
            ),
            ("pool=p,image=i,key-secret=s", "No secret with id 's'"),
            (
                "pool=p,image=i,auth-client-required.0=x",
                "Parameter 'auth-client-required' does not accept value 'x'",
            ),
        ] {
            assert_eq!(of_list(list).unwrap_err().to_string(), text, "{list}");
        }
    }

    #[test]
    fn monitors_are_told_in_their_order() {
        let all = of_list(
            "pool=p,image=i,server.1.host=::1,server.1.port=2,server.0.host=h,server.0.port=1,\
             auth-client-required.0=cephx,auth-client-required.1=none",
        );
        let further = all.unwrap().further;
        let further: Vec<_> = further.iter().map(|(k, v)| (&**k, &**v)).collect();
        let hosts = (c"mon_host", c"h:1;[::1]:2");
        assert_eq!(further, [hosts, (c"auth_client_required", c"cephx;none")]);
    }
}
