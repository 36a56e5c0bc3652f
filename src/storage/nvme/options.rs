//! The settings of a namespace: options, and file names as a short form of them.

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, Result};
use crate::location::tree::flatten;
use crate::options::{OptionKind, OptionSpec, Values, option};
use crate::value::{Map, Value};

pub(super) const OPTIONS: &[OptionSpec] = &[
    option(
        "device",
        OptionKind::Str,
        "Address of the controller on the PCI bus, DOMAIN:BUS:SLOT.FUNCTION",
    ),
    option("namespace", OptionKind::Num, "Number of the namespace").default_to("1"),
];

const SCHEME: &str = "nvme://";

/// The settings of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// PCI address in the kernel's notation.
    pub(super) device: String,
    pub(super) namespace: u32,
}

fn no_device() -> Error {
    Error::invalid("'device' option is required")
}

impl Settings {
    /// # Errors
    /// [`crate::ErrorKind::Invalid`].
    pub(super) fn of(options: &Values) -> Result<Self> {
        let device = options
            .str("device")
            .ok_or_else(no_device)?
            .to_ascii_lowercase();
        if !is_address(&device) {
            return Err(Error::invalid(format!(
                "'{device}' is no address of a PCI device, such as 0000:01:00.0"
            )));
        }
        let namespace = options.num("namespace").unwrap_or(1);
        // A number with all bits set means all namespaces.
        let namespace = u32::try_from(namespace)
            .ok()
            .filter(|number| (1..u32::MAX).contains(number))
            .ok_or_else(|| Error::invalid(format!("There is no namespace {namespace}")))?;
        Ok(Self { device, namespace })
    }

    /// The name that opens the namespace.
    pub(super) fn name(&self) -> BString {
        format!("{SCHEME}{}/{}", self.device, self.namespace).into()
    }
}

/// Whether a text has the form `dddd:bb:ss.f`: nothing else may become part of a path.
fn is_address(text: &str) -> bool {
    let form = b"xxxx:xx:xx.x";
    text.len() == form.len()
        && text.bytes().zip(form).all(|(byte, form)| match form {
            b'x' => byte.is_ascii_hexdigit(),
            mark => byte == *mark,
        })
}

/// The options that a file name stands for: `nvme://DEVICE[/NAMESPACE]`.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for a name of any other form.
pub(super) fn parse_file_name(name: &BStr) -> Result<Map<String, Value>> {
    let strange = || {
        Error::invalid(format!(
            "'{name}' is no name of a namespace; its form is {SCHEME}DEVICE/NAMESPACE"
        ))
    };
    let rest = name.strip_prefix(SCHEME.as_bytes());
    let rest = rest.ok_or_else(no_device)?;
    let (device, namespace) = rest.split_once_str("/").unwrap_or((rest, b"1"));
    let namespace = namespace.to_str().ok().and_then(|text| text.parse().ok());
    let namespace: u64 = namespace.ok_or_else(strange)?;
    let mut options = Map::new();
    options.insert("device".to_owned(), Value::String(device.into()));
    options.insert("namespace".to_owned(), Value::from(namespace));
    Ok(options)
}

/// The short name that opens the namespace again.
pub(super) fn file_name(given: &Map<String, Value>) -> Option<BString> {
    let options = flatten(given);
    let mut name: BString = SCHEME.into();
    name.extend_from_slice(options.get("device")?);
    name.push(b'/');
    name.extend_from_slice(options.get("namespace").unwrap_or(b"1".as_bstr()));
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
    fn names_stand_for_options_and_come_back() {
        for (name, shown) in [
            ("nvme://0000:01:00.0/1", "nvme://0000:01:00.0/1"),
            ("nvme://0000:01:00.0", "nvme://0000:01:00.0/1"),
            ("nvme://00AB:C1:0f.7/12", "nvme://00ab:c1:0f.7/12"),
        ] {
            assert_eq!(of_name(name).unwrap().name(), shown);
        }
        let given = parse_file_name("nvme://0000:01:00.0/3".into()).unwrap();
        assert_eq!(file_name(&given).unwrap(), "nvme://0000:01:00.0/3");
    }

    #[test]
    fn what_is_no_address_leads_nowhere() {
        for (name, text) in [
            ("nvme:", "'device' option is required"),
            (
                "nvme://0000:01:00.0/x",
                "'nvme://0000:01:00.0/x' is no name",
            ),
            ("nvme://0000:01:00.0/0", "There is no namespace 0"),
            (
                "nvme://0000:01:00.0/4294967295",
                "There is no namespace 4294967295",
            ),
            ("nvme://../../x/1", "'nvme://../../x/1' is no name"),
            ("nvme://..", "'..' is no address"),
            ("nvme:///1", "'' is no address"),
            ("nvme://0000:01:00:0", "'0000:01:00:0' is no address"),
        ] {
            let error = of_name(name).unwrap_err().to_string();
            assert!(error.starts_with(text), "{name}: {error}");
        }
    }
}
