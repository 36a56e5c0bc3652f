//! `blkdebug`: a node that fails by rules, and that keeps requests to odd sizes.

mod config;
mod rules;
mod shape;
mod storage;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, Result, ResultExt};
use crate::filter::{FileNames, FilterContext, FilterDriver, FilterName, ParsedName};
use crate::format::ChildSpec;
use crate::options::{OptionKind, OptionSpec, OptionValue, Values, list_index, option};
use crate::storage::{Permissions, Storage};
use crate::trace::Event;
use crate::value::{Map, Value};

use rules::{Injection, Request, Rules, Transition};
use shape::Shape;
use storage::Debugged;

/// The filter.
pub static DRIVER: FilterDriver = FilterDriver {
    name: "blkdebug",
    children: &[ChildSpec {
        name: "image",
        ..ChildSpec::FILE
    }],
    shows: Some("image"),
    contents: None,
    holds_file: false,
    passes_compressed: false,
    keeps_writers_out: false,
    open_options: OPEN,
    weak_options: &["take-child-perms.*", "unshare-child-perms.*"],
    events: &[&EVENT],
    open,
    file_names: Some(FileNames {
        parse: parse_file_name,
        options: &[("x-image", "image")],
    }),
    file_name: Some(file_name),
};

/// An event that rules can refer to has occurred.
static EVENT: Event = Event::new("blkdebug_event");

const STEP: &str = "Step that switches the rule on";
const STATE: &str = "State in which the rule counts, 0 for any";
const IOTYPE: OptionSpec = OptionSpec {
    allowed: Request::NAMES,
    ..option("iotype", OptionKind::Str, "Kind of request that fails")
};

/// Options of one rule that fails requests.
const INJECT_ERROR: &[OptionSpec] = &[
    option("errno", OptionKind::Num, "Error to fail with"),
    option("event", OptionKind::Str, STEP),
    option(
        "immediately",
        OptionKind::Bool,
        "Fail before the request waits",
    ),
    IOTYPE,
    option("once", OptionKind::Bool, "Fail one request alone"),
    option(
        "sector",
        OptionKind::Num,
        "Sector that the request must touch",
    ),
    option("state", OptionKind::Num, STATE),
];

/// Options of one rule that changes the state.
const SET_STATE: &[OptionSpec] = &[
    option("event", OptionKind::Str, STEP),
    option("new_state", OptionKind::Num, "State that follows"),
    option("state", OptionKind::Num, STATE),
];

const OPEN: &[OptionSpec] = &[
    option("align", OptionKind::Size, "Alignment of requests"),
    option("config", OptionKind::Name, "File of rules"),
    option(
        "inject-error.*.errno",
        OptionKind::Num,
        "Error to fail with",
    )
    .default_to("5"),
    option("inject-error.*.event", OptionKind::Str, STEP),
    option(
        "inject-error.*.immediately",
        OptionKind::Bool,
        "Fail before the request waits",
    )
    .default_to("off"),
    OptionSpec {
        name: "inject-error.*.iotype",
        ..IOTYPE
    },
    option(
        "inject-error.*.once",
        OptionKind::Bool,
        "Fail one request alone",
    )
    .default_to("off"),
    option(
        "inject-error.*.sector",
        OptionKind::Num,
        "Sector that the request must touch",
    ),
    option("inject-error.*.state", OptionKind::Num, STATE).default_to("0"),
    option("inject-error.errno", OptionKind::Num, "Error to fail with").default_to("5"),
    option("inject-error.event", OptionKind::Str, STEP),
    option(
        "inject-error.immediately",
        OptionKind::Bool,
        "Fail before the request waits",
    )
    .default_to("off"),
    OptionSpec {
        name: "inject-error.iotype",
        ..IOTYPE
    },
    option(
        "inject-error.once",
        OptionKind::Bool,
        "Fail one request alone",
    )
    .default_to("off"),
    option(
        "inject-error.sector",
        OptionKind::Num,
        "Sector that the request must touch",
    ),
    option("inject-error.state", OptionKind::Num, STATE).default_to("0"),
    option("max-discard", OptionKind::Size, "Longest discard"),
    option("max-transfer", OptionKind::Size, "Longest read or write"),
    option("max-write-zero", OptionKind::Size, "Longest zeroing"),
    option("opt-discard", OptionKind::Size, "Unit of discards"),
    option("opt-write-zero", OptionKind::Size, "Unit of zeroing"),
    option("set-state.*.event", OptionKind::Str, STEP),
    option(
        "set-state.*.new_state",
        OptionKind::Num,
        "State that follows",
    )
    .default_to("0"),
    option("set-state.*.state", OptionKind::Num, STATE).default_to("0"),
    option("set-state.event", OptionKind::Str, STEP),
    option("set-state.new_state", OptionKind::Num, "State that follows").default_to("0"),
    option("set-state.state", OptionKind::Num, STATE).default_to("0"),
    option(
        "take-child-perms.*",
        OptionKind::Str,
        "Permission to take on the child",
    ),
    option(
        "unshare-child-perms.*",
        OptionKind::Str,
        "Permission to deny others on the child",
    ),
];

/// The largest file of rules that is read.
const MAX_CONFIG: u64 = 1 << 20;

fn open(mut context: FilterContext<'_>) -> Result<Arc<dyn Storage>> {
    let values = context.options;
    let mut rules = match values.name("config") {
        Some(name) => config::parse(&read(name)?)?,
        None => Rules::default(),
    };
    for rule in rules_of(values, "inject-error")? {
        rules.injections.push(Injection::new(&rule)?);
    }
    for rule in rules_of(values, "set-state")? {
        rules.transitions.push(Transition::new(&rule)?);
    }
    let shape = Shape::new(values)?;
    let (takes, writes) = permissions(values, "take-child-perms")?;
    if writes {
        context.require_writable()?;
    }
    let (denies, _) = permissions(values, "unshare-child-perms")?;
    let inner = context.take("image")?.storage;
    Ok(Arc::new(Debugged::new(
        inner,
        rules,
        shape,
        (takes, denies),
    )))
}

/// The rules of a kind: a list of them, or one that is given by itself.
fn rules_of(values: &Values, kind: &str) -> Result<Vec<Values>> {
    let listed = values.list(kind)?;
    let single = values.group(kind);
    if single.iter().next().is_none() {
        return Ok(listed);
    }
    if let Some((key, _)) = listed.first().and_then(|rule| rule.iter().next()) {
        return Err(Error::invalid(format!(
            "Unknown option '0.{key}' for [{kind}]"
        )));
    }
    Ok(vec![single])
}

fn read(name: &BStr) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut text = Vec::new();
    std::fs::File::open(OsStr::from_bytes(name))
        .and_then(|file| file.take(MAX_CONFIG).read_to_end(&mut text))
        .map_err(|error| Error::io(&error))
        .context(|| "Could not read blkdebug config file".to_owned())?;
    Ok(text)
}

/// The permissions of a list, and whether any of them is to write.
fn permissions(values: &Values, key: &str) -> Result<(Permissions, bool)> {
    let (mut all, mut writes) = (Permissions::empty(), false);
    let mut places = BTreeSet::new();
    for (name, value) in values.iter() {
        let place = name
            .strip_prefix(key)
            .and_then(|rest| rest.strip_prefix('.'));
        let (Some(place), OptionValue::Str(value)) = (place, value) else {
            continue;
        };
        let place = list_index(place);
        places.insert(place.ok_or_else(|| Error::invalid(format!("'{key}' is a list")))?);
        writes |= ["write", "write-unchanged"].contains(&value.as_str());
        all |= match value.as_str() {
            "consistent-read" => Permissions::CONSISTENT_READ,
            "write" => Permissions::WRITE,
            "resize" => Permissions::RESIZE,
            // No other tool asks for it in its locks.
            "write-unchanged" => Permissions::empty(),
            _ => {
                return Err(Error::refused_value(key, value));
            }
        };
    }
    match (0..).zip(&places).find(|(at, place)| at != *place) {
        Some((missing, _)) => Err(Error::invalid(format!(
            "Parameter '{key}.{missing}' missing"
        ))),
        None => Ok((all, writes)),
    }
}

/// `blkdebug:CONFIG:FILE`; CONFIG may be empty.
fn parse_file_name(name: &BStr) -> Result<ParsedName> {
    let rest = name.strip_prefix(b"blkdebug:").unwrap_or(name);
    let (config, file) = rest
        .split_once_str(":")
        .ok_or_else(|| Error::invalid("blkdebug requires both config file and image path"))?;
    let mut options = Map::new();
    if !config.is_empty() {
        options.insert("config".to_owned(), config.as_bstr().into());
    }
    Ok(ParsedName {
        options,
        children: vec![("image", file.into())],
    })
}

fn file_name(name: &FilterName<'_>) -> Option<BString> {
    let config = name.options.get("config");
    // What others may do with the file does not change it.
    let weak = ["config", "take-child-perms", "unshare-child-perms"];
    if !name.options.keys().all(|key| weak.contains(&key.as_str())) {
        return None;
    }
    let config = config.map_or(Some(BStr::new("")), Value::as_name)?;
    Some(format_name(config, name.child("image")?))
}

fn format_name(config: &BStr, image: &BStr) -> BString {
    let mut name = BString::from("blkdebug:");
    name.extend_from_slice(config);
    name.push(b':');
    name.extend_from_slice(image);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_have_the_rules_and_the_image() {
        let parse = |name: &str| parse_file_name(BStr::new(name));
        for (name, config, image) in [
            ("blkdebug:c.cfg:a:b", Some("c.cfg"), "a:b"),
            ("blkdebug::a", None, "a"),
        ] {
            let parsed = parse(name).unwrap();
            let found = parsed.options.get("config").and_then(Value::as_str);
            assert_eq!(found, config);
            assert_eq!(parsed.children, [("image", image.into())]);
        }
        assert_eq!(
            parse("blkdebug:a").unwrap_err().to_string(),
            "blkdebug requires both config file and image path"
        );
    }

    #[test]
    fn options_are_sorted_by_name() {
        for table in [OPEN, INJECT_ERROR, SET_STATE] {
            assert!(table.is_sorted_by_key(|spec| spec.name));
        }
    }
}
