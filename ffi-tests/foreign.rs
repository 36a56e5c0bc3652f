//! What makes bindings for other languages takes the header as it is: bindgen for Rust, cgo for Go.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use super::{done, functions, root, run, shared_object};

/// Whether a tool is there; check.sh counts those that are not.
fn is_there(tool: &str, question: &str) -> bool {
    let there = Command::new(tool).arg(question).output().is_ok();
    if !there {
        eprintln!("SKIPPED: the header with {tool}");
    }
    there
}

#[test]
fn bindgen_takes_every_function_and_constant() {
    if !is_there("bindgen", "--version") {
        return;
    }
    let work = tempfile::tempdir().expect("a temporary directory");
    let bindings = work.path().join("bindings.rs");
    // Headers of the compiler, which libclang has none of.
    let include = done(Command::new("cc").arg("-print-file-name=include"));
    done(
        Command::new("bindgen")
            .args(["--allowlist-function", "platter_.*"])
            .args(["--allowlist-var", "PLATTER_.*"])
            .arg(root().join("include/platter.h"))
            .arg("-o")
            .arg(&bindings)
            .arg("--")
            .arg(format!(
                "-I{}",
                String::from_utf8_lossy(&include.stdout).trim()
            )),
    );
    let text = fs::read_to_string(&bindings).expect("the bindings");
    let named = |start: &str| -> BTreeSet<String> {
        text.split(start)
            .skip(1)
            .map(|rest| {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                rest[..end.unwrap_or(rest.len())].to_owned()
            })
            .filter(|name| name.to_ascii_lowercase().starts_with("platter_"))
            .collect()
    };
    assert_eq!(named("pub fn "), functions());
    let header = fs::read_to_string(root().join("include/platter.h")).expect("the header");
    let constants: BTreeSet<String> = header
        .lines()
        .filter_map(|line| line.strip_prefix("#define PLATTER_")?.split_once(' '))
        .map(|(name, _)| format!("PLATTER_{name}"))
        .collect();
    assert!(constants.len() > 100, "{constants:?}");
    assert_eq!(named("pub const "), constants);

    let program = work.path().join("program");
    let library = shared_object().display().to_string();
    done(
        Command::new("rustc")
            .args(["--edition", "2021", "-L", &library, "-l", "platter", "-C"])
            .arg(format!("link-arg=-Wl,-rpath,{library}"))
            .arg("-o")
            .arg(&program)
            .arg(root().join("ffi-tests/foreign/main.rs"))
            .env("BINDINGS", &bindings),
    );
    run(Command::new(program));
}

#[test]
fn cgo_takes_the_header() {
    if !is_there("go", "version") {
        return;
    }
    let work = tempfile::tempdir().expect("a temporary directory");
    let library = shared_object().display().to_string();
    let program = work.path().join("program");
    done(
        Command::new("go")
            .arg("build")
            .arg("-o")
            .arg(&program)
            .arg(root().join("ffi-tests/foreign/main.go"))
            .current_dir(work.path())
            .env("CGO_ENABLED", "1")
            .env(
                "CGO_CFLAGS",
                format!("-I{}", root().join("include").display()),
            )
            .env("CGO_LDFLAGS", format!("-L{library} -Wl,-rpath,{library}"))
            .env("GOCACHE", work.path().join("cache"))
            .env("GOPATH", work.path().join("path"))
            .env("GO111MODULE", "off")
            .env("GOPROXY", "off"),
    );
    run(Command::new(program));
}
