//! The Python package: its tests, its doctests and its types, from the source tree and from the wheel.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{done, root, shared_object};

/// The interpreter of the directory in which ci/setup.sh installs what the tests use.
fn python() -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root().join(target).join("witnesses/bin/python")
}

/// Whether it is left out; check.sh counts that.
fn is_left_out(what: &str) -> bool {
    let left_out = std::env::var_os("PLATTER_SKIP_WITNESSES").is_some();
    if left_out {
        eprintln!("SKIPPED: {what}");
    }
    left_out
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("a kind").is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).expect("a copy")),
        }
    }
}

/// Runs the tests and the examples with the package that stands in `package`; a warning is an error.
pub fn run_tests(package: &Path, library: &Path) {
    run_tests_with(package, library, &[]);
}

/// The same with more in the environment.
fn run_tests_with(package: &Path, library: &Path, environment: &[(&str, &str)]) {
    let bindings = root().join("bindings/python");
    let python = || {
        let mut python = Command::new(python());
        python
            .args(["-W", "error"])
            .env("PYTHONPATH", package)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("LD_LIBRARY_PATH", library)
            .env_remove("PLATTER_LIBRARY")
            .env_remove("PLATTER_LOG")
            .envs(environment.iter().copied());
        python
    };
    done(
        python()
            .args(["-m", "doctest", "-o", "ELLIPSIS"])
            .arg(bindings.join("examples/tasks.py")),
    );
    let output = done(python().arg(bindings.join("tests/test_platter.py")));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.ends_with("\nOK\n"), "{told}");
    assert!(!told.contains("Exception ignored"), "{told}");
}

#[test]
fn tests_and_types_of_the_package() {
    if is_left_out("the Python package") {
        return;
    }
    let tree = tempfile::tempdir().expect("a temporary directory");
    let package = tree.path().join("bindings/python");
    copy(&root().join("bindings/python"), &package);
    copy(&root().join("include"), &tree.path().join("include"));
    done(
        Command::new(python())
            .arg("declarations.py")
            .current_dir(&package),
    );
    run_tests(&package, shared_object());
    // What is allocated is watched, by the package and the library; the interpreter itself leaves some.
    let preloaded = done(Command::new("cc").arg("-print-file-name=libasan.so"));
    let preloaded = String::from_utf8_lossy(&preloaded.stdout);
    let environment = [
        ("LD_PRELOAD", preloaded.trim()),
        ("ASAN_OPTIONS", "detect_leaks=0"),
        ("PYTHONMALLOC", "malloc"),
    ];
    run_tests_with(&package, shared_object(), &environment);
    let mypy = ["-m", "mypy", "--no-incremental", "platter"];
    done(Command::new(python()).args(mypy).current_dir(&package));
}

/// The wheel as `make python` builds it, without a network.
pub fn by_wheel(library: &Path) {
    if is_left_out("the Python wheel") {
        return;
    }
    let python = python();
    let mut make = Command::new("make");
    make.args(["--no-print-directory", "python"])
        .arg(format!("PYTHON={}", python.display()))
        .arg("PIP_FLAGS=--no-build-isolation -q")
        .current_dir(root());
    done(&mut make);
    let built = root().join("build/python");
    let wheels: Vec<_> = fs::read_dir(&built)
        .expect("the directory of wheels")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension() == Some(OsStr::new("whl")))
        .collect();
    let [wheel] = &*wheels else {
        panic!("{wheels:?}");
    };
    assert!(
        wheel.ends_with("platter-0.1.0-py3-none-any.whl"),
        "{wheel:?}"
    );
    let installed = tempfile::tempdir().expect("a temporary directory");
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "-q", "--no-deps", "--no-index"])
        .args(["--disable-pip-version-check", "--target"])
        .arg(installed.path())
        .arg(wheel);
    done(&mut pip);
    run_tests(installed.path(), library);
    can_be_published(&python, &names_in(&python, wheel));
}

/// The files of a wheel.
fn names_in(python: &Path, wheel: &Path) -> String {
    let list = "import sys, zipfile; print(*zipfile.ZipFile(sys.argv[1]).namelist(), sep='\\n')";
    let output = done(Command::new(python).args(["-c", list]).arg(wheel));
    String::from_utf8(output.stdout).expect("names")
}

/// The sources that are published hold a wheel with the same files, and both have the licences.
fn can_be_published(python: &Path, names: &str) {
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        let held = names.lines().filter(|name| name.ends_with(licence));
        assert_eq!(held.count(), 1, "{licence}: {names}");
    }
    let mut make = Command::new("make");
    make.args(["--no-print-directory", "sdist"])
        .arg(format!("PYTHON={}", python.display()))
        .current_dir(root());
    done(&mut make);
    let sources = root().join("build/python/platter-0.1.0.tar.gz");
    let built = tempfile::tempdir().expect("a temporary directory");
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "wheel", "-q", "--no-deps", "--no-index"])
        .args(["--no-build-isolation", "--disable-pip-version-check", "-w"])
        .arg(built.path())
        .arg(&sources);
    done(&mut pip);
    let wheel = built.path().join("platter-0.1.0-py3-none-any.whl");
    assert_eq!(names_in(python, &wheel), names);
}
