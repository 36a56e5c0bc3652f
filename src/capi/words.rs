//! Tests that the header has a `#define` for each word that programs compare or pass, and that the library does not use
//! the tool's words.

use std::collections::BTreeSet;

use crate::architecture;
use crate::filter;
use crate::format::inspect::{Requirement, Verdict};
use crate::format::registry;
use crate::image::NODE_OPTIONS;
use crate::options::{OptionSpec, parse_value};
use crate::policy::ImplicitRole;
use crate::storage;

const HEADER: &str = include_str!("../../include/platter.h");
/// The source with the results of a comparison.
const REPORT_FIELDS: &str = include_str!("report_fields.rs");
/// The sources that contain the keys of reports.
const SOURCES: [&str; 5] = [
    include_str!("report.rs"),
    REPORT_FIELDS,
    include_str!("layer_keys.rs"),
    include_str!("../ops/inspect/render.rs"),
    include_str!("../ops/exports.rs"),
];

/// The words of a group; checks that each name is derived from its word.
fn defined(group: &str) -> BTreeSet<String> {
    let prefix = format!("#define {group}");
    let lines = HEADER.lines().filter_map(|line| line.strip_prefix(&prefix));
    lines
        .filter_map(|line| {
            let (name, word) = line.split_once(' ')?;
            let word = word.strip_prefix('"')?.strip_suffix('"')?;
            assert_eq!(name, word.replace(['-', '.'], "_").to_uppercase());
            Some(word.to_owned())
        })
        .collect()
}

fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    words.into_iter().map(str::to_owned).collect()
}

/// Checks that the words of a group are those that the library has.
fn assert_defined<'a>(group: &str, known: impl IntoIterator<Item = &'a str>) {
    let (defined, known) = (defined(group), words(known));
    let missing: Vec<_> = known.difference(&defined).collect();
    let unknown: Vec<_> = defined.difference(&known).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "change `#define {group}…` in cbindgen.toml and run `make header`: {missing:?} missing, {unknown:?} unknown"
    );
}

#[test]
fn the_header_names_every_guard_and_verdict() {
    let guards = Requirement::ALL.iter().map(|guard| guard.id());
    assert_defined("PLATTER_GUARD_", guards);
    let verdicts = [
        Verdict::Pass,
        Verdict::Fail,
        Verdict::Unknown,
        Verdict::NotApplicable,
    ];
    assert_defined(
        "PLATTER_VERDICT_",
        verdicts.iter().map(|verdict| verdict.id()),
    );
}

#[test]
fn the_header_names_every_role_of_a_name_and_every_difference() {
    let roles = [
        ImplicitRole::Backing,
        ImplicitRole::DataFile,
        ImplicitRole::Extent,
        ImplicitRole::ParentLocator,
    ];
    let roles = roles.iter().map(|role| role.id());
    assert_defined("PLATTER_REFERENCE_", roles);
    let told = REPORT_FIELDS.split("(false, Some(\"").skip(1);
    let told = told.filter_map(|rest| rest.split('"').next());
    assert_defined("PLATTER_REASON_", told);
}

#[test]
fn the_header_names_every_option_of_making_and_amending() {
    let formats = registry::drivers().iter();
    let formats = formats.flat_map(|driver| [driver.create_options, driver.amend_options]);
    let protocols = storage::registry::drivers().iter();
    let protocols = protocols.map(|driver| driver.create_options);
    let options = formats.chain(protocols).flatten().map(|spec| spec.name);
    assert_defined("PLATTER_OPT_", options);
}

#[test]
fn the_header_names_every_option_of_opening() {
    let formats = registry::drivers().iter();
    let formats = formats.flat_map(|driver| driver.open_options);
    let protocols = storage::registry::drivers().iter();
    let protocols = protocols.flat_map(|driver| driver.open_options);
    let filters = filter::registry::drivers().iter();
    let filters = filters.flat_map(|driver| driver.open_options);
    let options = formats.chain(protocols).chain(filters).chain(NODE_OPTIONS);
    let options = options.map(|spec| spec.name);
    // Keys of list items contain an index.
    let options = options.filter(|name| !name.contains('*'));
    assert_defined("PLATTER_OPEN_OPT_", options.chain(["driver"]));
}

/// Every option table of every driver, and that of all nodes.
fn tables() -> Vec<&'static [OptionSpec]> {
    let formats = registry::drivers().iter().flat_map(|driver| {
        [
            driver.create_options,
            driver.open_options,
            driver.amend_options,
        ]
    });
    let protocols = storage::registry::drivers().iter();
    let protocols = protocols.flat_map(|driver| [driver.create_options, driver.open_options]);
    let filters = filter::registry::drivers().iter();
    let filters = filters.map(|driver| driver.open_options);
    let drivers = formats.chain(protocols).chain(filters);
    drivers.chain([NODE_OPTIONS]).collect()
}

#[test]
fn every_default_is_a_value_that_its_option_takes() {
    for spec in tables().into_iter().flatten() {
        let Some(default) = spec.default else {
            continue;
        };
        let allowed = spec.allowed;
        assert!(allowed.is_empty() || allowed.contains(&default), "{spec:?}");
        parse_value(spec, default.into()).unwrap();
    }
}

#[test]
fn options_of_secrets_are_those_whose_help_says_so() {
    for spec in tables().into_iter().flatten() {
        let help = spec.help.to_lowercase();
        // QEMU's help for changing keys says less.
        let of_change = ["new-secret", "old-secret"];
        let says = of_change.iter().any(|key| spec.name.ends_with(key))
            || ["id of secret", "id of the secret"]
                .iter()
                .any(|words| help.contains(words));
        assert_eq!(spec.is_secret(), says, "{spec:?}");
    }
}

#[test]
fn the_header_names_every_key_of_a_report() {
    let keys = defined("PLATTER_KEY_");
    for source in SOURCES {
        let calls = [".add(", ".maybe(", "file.insert(", "map.insert(", " set("];
        for call in calls {
            for (at, _) in source.match_indices(call) {
                let rest = source[at + call.len()..].trim_start();
                let Some(key) = rest.strip_prefix('"') else {
                    continue;
                };
                let key = key.split('"').next().unwrap();
                assert!(keys.contains(key), "no PLATTER_KEY_ for {key:?}");
            }
        }
    }
    assert!(keys.contains("virtual-size") && keys.contains("container-sha256"));
}

/// How the tool names its numeric operands and options when it refuses them.
const OPERANDS: [&str; 6] = [
    "bs specified",
    "size specified.",
    "size specified:",
    "coroutines",
    "Select 0 ",
    "Must specify image",
];

/// Whether a word is a single-letter option, such as `-c`.
fn is_letter(word: &str) -> bool {
    matches!(word.as_bytes(), [b'-', letter] if letter.is_ascii_alphabetic())
}

/// The advice in a message is for any program: the tool adds its own names for it.
#[test]
fn no_message_names_an_option_or_a_command_of_the_tool() {
    // The help of an option, as it has been printed ever since the option was introduced.
    let known = ["using 'qemu-img convert' with subformat=dynamic."];
    let mut sources = architecture::sources();
    assert!(
        sources
            .remove(&["capi", "words"].map(str::to_owned)[..])
            .is_some()
    );
    for (name, (_, source)) in sources {
        for line in source.lines() {
            let literals = line.split('"').skip(1).step_by(2);
            for text in literals.chain(line.trim_start().strip_suffix("\\")) {
                let option = text
                    .split([' ', '\'', '('])
                    .filter_map(|word| word.strip_prefix("--"))
                    .any(|word| word.starts_with(|first: char| first.is_ascii_lowercase()));
                let letter = text.split([' ', '\'', '(']).any(|word| {
                    is_letter(word) && !text.contains("fusermount3 ") && !text.contains('#')
                });
                let operand = OPERANDS.iter().any(|word| text.contains(word));
                let command = text.contains("qemu-img ") || text.contains("platter-img ");
                let is_known = known.iter().any(|known| text.contains(known));
                let names_one = option || letter && text.contains(' ') || operand || command;
                assert!(is_known || !names_one, "{name:?}: {text}");
            }
        }
    }
}

#[test]
fn the_manual_lists_the_environment_that_is_read() {
    let manual = include_str!("../../docs/manual/platter.md");
    let (_, listed) = manual.split_once("## ENVIRONMENT").unwrap();
    let listed = listed.split("\n## ").next().unwrap();
    let mut readers = Vec::new();
    let mut sources = architecture::sources();
    sources.remove(&["capi", "words"].map(str::to_owned)[..]);
    for (module, (_, code)) in sources {
        for (at, call) in code.match_indices("env::var") {
            let given = code[at + call.len()..].split(['(', ')']).nth(1).unwrap();
            match given.trim().strip_prefix('"') {
                Some(name) => {
                    let entry = format!("- `{}`:", name.trim_end_matches('"'));
                    assert!(listed.contains(&entry), "{module:?} reads {name}");
                }
                None => readers.push(module.join("::")),
            }
        }
        assert!(
            !code.contains("env::vars") && !code.contains("getenv"),
            "{module:?}"
        );
    }
    // It takes the names from a list.
    assert_eq!(readers, ["storage::http::proxy"]);
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        assert!(listed.contains(name), "{name}");
    }
}
