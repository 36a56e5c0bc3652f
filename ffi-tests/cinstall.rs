//! What `cargo cinstall` is told of the package is what `make install` installs.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::{done, root};

/// What cargo says of the package.
fn package() -> Value {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["metadata", "--locked", "--offline", "--no-deps"])
        .args(["--format-version", "1"])
        .current_dir(root());
    let told: Value = serde_json::from_slice(&done(&mut cargo).stdout).expect("JSON");
    told["packages"][0].clone()
}

/// The headers that the Makefile installs.
fn headers(makefile: &str) -> BTreeSet<String> {
    makefile
        .lines()
        .filter(|line| line.contains("install -m 644") && line.contains("$(INCLUDEDIR)"))
        .filter_map(|line| {
            line.split_whitespace()
                .find(|word| word.starts_with("include/"))
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn cargo_cinstall_is_told_what_make_installs() {
    let package = package();
    let capi = &package["metadata"]["capi"];
    let makefile = fs::read_to_string(root().join("Makefile")).expect("the Makefile");
    let pc = fs::read_to_string(root().join("pkgconfig/platter.pc.in")).expect("the template");
    let field = |name: &str| {
        let start = format!("{name}: ");
        let line = pc.lines().find_map(|line| line.strip_prefix(&*start));
        line.unwrap_or_else(|| panic!("no {name} in platter.pc"))
    };

    // Without a feature of this name it builds nothing.
    assert!(package["features"]["capi"].is_array(), "{package}");
    // The header is the one that is committed, and stands where programs look for <platter.h>.
    assert_eq!(capi["header"]["name"], "platter");
    assert_eq!(capi["header"]["generation"], false);
    assert_eq!(capi["header"]["subdirectory"], false);
    let assets = capi["install"]["include"]["asset"].as_array();
    let assets: BTreeSet<_> = assets
        .expect("the headers")
        .iter()
        .map(|asset| asset["from"].as_str().expect("a path").to_owned())
        .collect();
    assert_eq!(assets, headers(&makefile));
    assert!(assets.contains("include/platter.h"), "{assets:?}");
    for header in &assets {
        assert!(root().join(header).is_file(), "{header}");
    }

    // The shared object has the name that -lplatter finds, and each minor version an ABI of its own.
    assert_eq!(capi["library"]["name"], "platter");
    assert!(field("Libs").ends_with("-lplatter"), "{pc}");
    assert_eq!(capi["library"]["version_suffix_components"], 2);
    assert!(makefile.contains("ABI := $(shell echo $(VERSION) | cut -d. -f1,2)"));
    assert!(makefile.contains("SONAME := libplatter.so.$(ABI)"));

    // What pkg-config says: name, description, version.
    assert_eq!(capi["pkg_config"]["name"], field("Name"));
    assert_eq!(capi["pkg_config"]["filename"], "platter");
    assert_eq!(capi["pkg_config"]["description"], field("Description"));
    assert_eq!(field("Version"), "@VERSION@");
    let version = package["version"].as_str().expect("a version");
    let cargo = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let first = cargo
        .lines()
        .find_map(|line| line.strip_prefix("version = "));
    // The Makefile takes the first line that looks like this.
    assert_eq!(first, Some(&*format!("\"{version}\"")));
}
