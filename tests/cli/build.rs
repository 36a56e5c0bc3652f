//! The command-line tool under test: the one that `PLATTER_IMG` names, else built here with `cc`.
#![allow(dead_code, reason = "each test uses its own share of the helpers")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

/// The path of the tool. Fails the test when it cannot be built.
pub fn tool() -> &'static Path {
    static TOOL: OnceLock<PathBuf> = OnceLock::new();
    TOOL.get_or_init(|| match std::env::var_os("PLATTER_IMG") {
        Some(path) => PathBuf::from(path)
            .canonicalize()
            .expect("PLATTER_IMG names a file"),
        None => build("platter-img", &sources("examples-c/platter-img"), &[]),
    })
}

/// The tool without any shared object, for where there is none; always built here.
pub fn lone_tool() -> &'static Path {
    static TOOL: OnceLock<PathBuf> = OnceLock::new();
    TOOL.get_or_init(|| {
        build(
            "platter-img-alone",
            &sources("examples-c/platter-img"),
            &["-static", "-s"],
        )
    })
}

/// Builds one of the samples beside the tool.
pub fn sample(name: &str) -> PathBuf {
    build(
        name,
        &[root().join(format!("examples-c/samples/{name}.c"))],
        &[],
    )
}

/// Builds one of the programs of `ffi-tests`, for which only these tests have the servers.
pub fn program(name: &str) -> PathBuf {
    let source = root().join(format!("ffi-tests/programs/{name}.c"));
    build(
        name,
        &[source],
        &["-I", concat!(env!("CARGO_MANIFEST_DIR"), "/ffi-tests")],
    )
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(directory: &str) -> Vec<PathBuf> {
    let directory = root().join(directory);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("a directory entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "c"))
        .collect();
    files.sort();
    files
}

/// The static library that this very test run was built with.
fn library() -> PathBuf {
    let test = std::env::current_exe().expect("the path of the test");
    let library = test.parent().expect("a directory").join("libplatter.a");
    assert!(
        library.exists(),
        "{} was not built with the tests",
        library.display()
    );
    library
}

fn build(name: &str, sources: &[PathBuf], kind: &[&str]) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let test = std::env::current_exe().expect("the path of the test");
    let test = test
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let output = directory.join(format!("{name}-of-{test}"));
    // Built aside and renamed: another run of the same test may be using the old one.
    let fresh = directory.join(format!("{name}-{}", std::process::id()));
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let ran = Command::new(&compiler)
        .args(["-std=c11", "-O1", "-g", "-D_GNU_SOURCE"])
        .args(kind)
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"])
        .arg("-I")
        .arg(root().join("include"))
        .args(sources)
        .arg(library())
        .arg(if kind.contains(&"-static") {
            "-lgcc_eh"
        } else {
            "-lgcc_s"
        })
        .args(["-lutil", "-lrt", "-lpthread", "-lm", "-ldl"])
        .arg("-o")
        .arg(&fresh)
        .output()
        .unwrap_or_else(|error| panic!("{compiler} is needed to build {name}: {error}"));
    assert!(
        ran.status.success(),
        "{name} does not build:\n{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    std::fs::rename(&fresh, &output).expect("the tool moves into its place");
    output
}

/// The helper that runs a program under a limit on time and measures its memory.
pub fn limited() -> &'static Path {
    static TOOL: OnceLock<PathBuf> = OnceLock::new();
    TOOL.get_or_init(|| build("limited", &[root().join("tests/tools/limited.c")], &[]))
}

/// A shared object that lets calls of a program fail; see its source.
pub fn faults() -> &'static Path {
    static OBJECT: OnceLock<PathBuf> = OnceLock::new();
    OBJECT.get_or_init(|| preloaded("faults"))
}

/// A shared object that looks for a text in the memory of a program that ends; see its source.
pub fn scan() -> &'static Path {
    static OBJECT: OnceLock<PathBuf> = OnceLock::new();
    OBJECT.get_or_init(|| preloaded("scan"))
}

/// A shared object that makes keys of Ceph's encryption cheap; see its source.
pub fn cheap_keys() -> &'static Path {
    static OBJECT: OnceLock<PathBuf> = OnceLock::new();
    OBJECT.get_or_init(|| preloaded("cheap_keys"))
}

/// The program of a virtual machine; see its source.
pub fn guest() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| alone("guest", &["-static"], &[]))
}

/// The program of a virtual machine that carries out commands; see its source.
pub fn machine() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| alone("machine", &["-static"], &[]))
}

/// The program that resets a unit of an iSCSI target; see its source.
pub fn lun_reset() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| alone("lun_reset", &[], &["-ldl"]))
}

/// What stands in for a version of libnfs, in whose order of arguments the buffer of reads and writes comes first or not.
pub fn fake_nfs(version: &str, buffer_first: bool) -> PathBuf {
    let named = format!("-DVERSION=\"{version}\"");
    let soname = format!("-Wl,-soname,{version}");
    let mut kind = vec!["-shared", "-fPIC", &named, &soname];
    if buffer_first {
        kind.push("-DBUFFER_FIRST");
    }
    // One at a time: all are built under one name.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _alone = BUILDING.lock();
    alone(&format!("fake_nfs.{version}"), &kind, &[])
}

/// A directory of what stands in for client libraries of servers; see its sources.
pub fn fakes() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fakes");
        std::fs::create_dir_all(&directory).expect("a directory");
        let map = root().join("tests/tools/fake_gfapi.map");
        let versions = format!("-Wl,--version-script={}", map.display());
        let names: [(&str, &[&str], &[&str]); 2] = [
            ("fake_rbd", &[], &["librados.so.2", "librbd.so.1"]),
            ("fake_gfapi", &[&versions], &["libgfapi.so.0"]),
        ];
        for (source, more, names) in names {
            let mut kind = vec!["-shared", "-fPIC"];
            kind.extend(more);
            let made = alone(&format!("{source}.so"), &kind, &["-lpthread"]);
            for name in names {
                let fresh = directory.join(format!("{name}.{}", std::process::id()));
                std::fs::copy(&made, &fresh).expect("a copy");
                std::fs::rename(&fresh, directory.join(name)).expect("it moves into its place");
            }
        }
        directory
    })
}

fn preloaded(name: &str) -> PathBuf {
    alone(&format!("{name}.so"), &["-shared", "-fPIC"], &["-ldl"])
}

/// Builds what needs nothing of this library from its one source.
fn alone(output: &str, kind: &[&str], libraries: &[&str]) -> PathBuf {
    let name = output.split('.').next().unwrap_or(output);
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join(output);
    let fresh = output.with_extension(std::process::id().to_string());
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let ran = Command::new(&compiler)
        .args([
            "-std=c11",
            "-O1",
            "-D_GNU_SOURCE",
            "-Wall",
            "-Wextra",
            "-Werror",
        ])
        .args(kind)
        .arg(root().join(format!("tests/tools/{name}.c")))
        .args(libraries)
        .arg("-o")
        .arg(&fresh)
        .output()
        .unwrap_or_else(|error| panic!("{compiler} is needed to build {name}: {error}"));
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    std::fs::rename(&fresh, &output).expect("it moves into its place");
    output
}
