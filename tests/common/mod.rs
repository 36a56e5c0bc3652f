//! Running the installed QEMU tools for comparison. They must be there: a missing tool fails the test.
#![allow(dead_code, reason = "each test file uses its own share of the helpers")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a program printed and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// A fresh directory for one test, removed at its end.
pub struct Dir(tempfile::TempDir);

impl Dir {
    /// A new directory.
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        self.0.path()
    }

    /// The path of `name` in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path of `name` in it, as text.
    pub fn str(&self, name: &str) -> String {
        self.path(name).to_str().expect("a UTF-8 path").to_owned()
    }

    /// Runs `qemu-img` in this directory.
    pub fn qemu_img<S: AsRef<OsStr>>(&self, args: &[S]) -> Ran {
        run_in(self.root(), "qemu-img", args)
    }

    /// Runs `qemu-img` in this directory and fails the test unless it succeeds; returns its output.
    pub fn qemu_img_ok<S: AsRef<OsStr> + std::fmt::Debug>(&self, args: &[S]) -> String {
        let ran = self.qemu_img(args);
        assert_eq!(ran.code, 0, "qemu-img {args:?}: {ran:?}");
        ran.out
    }

    /// Runs `qemu-io` with `commands` on an image of this directory; fails the test on an error.
    pub fn qemu_io(&self, format: &str, image: &str, commands: &[&str]) -> String {
        let mut args = vec!["-f", format];
        for command in commands {
            args.extend(["-c", command]);
        }
        args.push(image);
        let ran = run_in(self.root(), "qemu-io", &args);
        // qemu-io ends with 0 although a command fails; it then says so.
        assert!(
            ran.code == 0 && !ran.out.contains("failed"),
            "qemu-io {args:?}: {ran:?}"
        );
        ran.out
    }
}

/// Runs `program` in `directory`, in the C locale.
pub fn run_in<S: AsRef<OsStr>>(directory: &Path, program: &str, args: &[S]) -> Ran {
    let output = Command::new(program)
        .args(args)
        .current_dir(directory)
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|error| panic!("{program} must be installed for this test: {error}"));
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
