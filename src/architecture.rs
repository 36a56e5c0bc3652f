//! Tests that imports run one way: between the layers, between the modules, and between files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The layers from top to bottom; modules of one layer do not import each other. Every other module belongs to the
/// vocabulary, below them all except where the tests for cycles say otherwise.
const LAYERS: &[&[&str]] = &[
    &["capi"],
    &["ops", "serve"],
    &["queue"],
    &["image"],
    &["filter"],
    &["format"],
    &["archive"],
    &["storage"],
    &["codec", "crypto", "nbd"],
    &["net"],
    &["sys"],
];

type Name = Vec<String>;
type Imports = BTreeMap<Name, BTreeSet<Name>>;

/// The modules of the crate by their files, without tests, each with its source.
pub(crate) fn sources() -> BTreeMap<Name, (bool, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut folders = vec![(Name::new(), root)];
    while let Some((name, folder)) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if matches!(&*stem, "tests" | "testing" | "architecture") {
                continue;
            }
            let inner: Name = name.iter().cloned().chain([stem.clone()]).collect();
            if path.is_dir() {
                folders.push((inner, path));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let is_folder = stem == "mod" || path.with_extension("").is_dir();
                let name = match &*stem {
                    "mod" | "lib" => name.clone(),
                    _ => inner,
                };
                found.insert(name, (is_folder, code(&fs::read_to_string(&path).unwrap())));
            }
        }
    }
    found
}

/// A source without its comments and without the tests at its end.
fn code(source: &str) -> String {
    let end = source.find("#[cfg(test)]\nmod tests {");
    let lines = source[..end.unwrap_or(source.len())].lines();
    let lines = lines.map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// Adds the paths of a tree such as `a::{b, c::d}`, and returns what follows it.
fn read_tree<'a>(mut rest: &'a str, mut path: Name, found: &mut Vec<Name>) -> &'a str {
    loop {
        rest = rest.trim_start();
        if let Some(mut inner) = rest.strip_prefix('{') {
            loop {
                inner = read_tree(inner, path.clone(), found).trim_start();
                // Skips what a tree is renamed to.
                let next = inner.find([',', '}']).unwrap_or(inner.len());
                let end = inner[next..].starts_with('}');
                inner = inner.get(next + 1..).unwrap_or_default();
                if end || inner.is_empty() {
                    return inner;
                }
            }
        }
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let len = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        if len > 0 {
            path.push(rest[..len].to_owned());
        }
        match rest[len..].strip_prefix("::") {
            Some(more) if len > 0 => rest = more,
            _ => {
                found.push(path);
                return &rest[len..];
            }
        }
    }
}

/// All paths in a source that begin with `start`.
fn paths(source: &str, start: &str) -> Vec<Name> {
    let mut found = Vec::new();
    for (at, _) in source.match_indices(start) {
        let before = source[..at].chars().next_back();
        if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            read_tree(&source[at..], Name::new(), &mut found);
        }
    }
    found
}

/// What each module imports, by the longest part of each path that is a module.
fn imports(sources: &BTreeMap<Name, (bool, String)>) -> Imports {
    // Names that the crate re-exports at its root, each with the module it comes from.
    let mut shown = BTreeMap::new();
    for path in paths(
        &sources[&Name::new()].1.replace("pub use ", "use crate::"),
        "crate::",
    ) {
        if let [_, module, .., name] = &*path {
            shown.insert(name.clone(), module.clone());
        }
    }
    let mut imports = Imports::new();
    for (module, (_, source)) in sources {
        let mut found = BTreeSet::new();
        for path in paths(source, "crate::")
            .into_iter()
            .chain(paths(source, "super::"))
        {
            let ups = path.iter().take_while(|part| *part == "super").count();
            let mut target: Name = match ups {
                0 => Name::new(),
                _ => module[..module.len().saturating_sub(ups)].to_vec(),
            };
            target.extend(path[ups.max(1)..].iter().cloned());
            if let [name, ..] = &*target
                && !sources.contains_key(&target[..1])
                && let Some(module) = shown.get(name)
            {
                target.insert(0, module.clone());
            }
            while !sources.contains_key(&target) {
                target.pop();
            }
            if target != *module && !target.is_empty() {
                found.insert(target);
            }
        }
        imports.insert(module.clone(), found);
    }
    imports.remove(&Name::new());
    imports
}

/// One cycle in the imports, as the modules on it; None if there is no cycle.
fn circle(imports: &Imports) -> Option<Vec<String>> {
    // A file that imports none of the remaining ones is on no cycle, nor is one that imports only such files.
    let mut left = imports.clone();
    loop {
        let names: BTreeSet<_> = left.keys().cloned().collect();
        let before = left.len();
        left.retain(|_, targets| {
            targets.retain(|target| names.contains(target));
            !targets.is_empty()
        });
        if left.len() == before {
            break;
        }
    }
    let mut way = vec![left.keys().next()?.clone()];
    loop {
        let next = left[way.last()?].first()?.clone();
        let start = way.iter().position(|name| *name == next);
        way.push(next);
        if let Some(start) = start {
            return Some(way[start..].iter().map(|name| name.join("::")).collect());
        }
    }
}

/// The imports between the top-level modules of the crate.
fn between_tops(imports: &Imports) -> Imports {
    let mut tops = Imports::new();
    for (module, targets) in imports {
        let top = module[..1].to_vec();
        let targets = targets.iter().map(|target| target[..1].to_vec());
        let others = targets.filter(|target| *target != top);
        tops.entry(top.clone()).or_default().extend(others);
    }
    tops
}

#[test]
fn layers_import_only_what_is_below_them() {
    let tops = between_tops(&imports(&sources()));
    let place = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    let mut upward = Vec::new();
    for (module, targets) in &tops {
        for target in targets {
            if let (Some(from), Some(to)) = (place(&module[0]), place(&target[0]))
                && to <= from
            {
                upward.push(format!("{} -> {}", module[0], target[0]));
            }
        }
    }
    assert!(upward.is_empty(), "{upward:?}");
    for layer in LAYERS.iter().flat_map(|layer| layer.iter()) {
        assert!(tops.contains_key(&vec![(*layer).to_owned()]), "{layer}");
    }
}

#[test]
fn modules_import_each_other_one_way() {
    let tops = between_tops(&imports(&sources()));
    assert!(tops.len() > 30, "{}", tops.len());
    assert_eq!(circle(&tops), None);
}

#[test]
fn files_import_each_other_one_way() {
    let sources = sources();
    let mut files = imports(&sources);
    // A module re-exports items of its files, which import one another by its name.
    files.retain(|name, _| !sources[name].0);
    assert!(files.len() > 500, "{}", files.len());
    assert_eq!(circle(&files), None);
}

#[test]
fn a_circle_is_found() {
    let name = |text: &str| vec![text.to_owned()];
    let mut imports = Imports::new();
    for (from, to) in [("a", "b"), ("b", "c"), ("c", "d")] {
        imports.entry(name(from)).or_default().insert(name(to));
    }
    assert_eq!(circle(&imports), None);
    imports.entry(name("d")).or_default().insert(name("b"));
    assert_eq!(circle(&imports).unwrap(), ["b", "c", "d", "b"]);
    let mut found = Vec::new();
    read_tree(
        "crate::{a::{self, B}, c as d, e::F}; crate",
        Name::new(),
        &mut found,
    );
    let found: Vec<_> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(
        found,
        ["crate::a::self", "crate::a::B", "crate::c", "crate::e::F"]
    );
}
