//! Compiles the C and C++ programs of `programs/` over the public header and runs each against the
//! archive, against the shared object that is linked from it, under valgrind and with the address
//! sanitizer; and, in an ignored test, against an installed tree.
//!
//! `PLATTER_SKIP_VALGRIND=1` leaves valgrind out where it is not installed.

mod cinstall;
mod foreign;
mod installed;
mod nulls;
mod python;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, OnceLock};

/// What an archive of Rust needs of the system.
const NATIVE_LIBS: &[&str] = &[
    "-lgcc_s",
    "-lutil",
    "-lrt",
    "-lpthread",
    "-lm",
    "-ldl",
    "-lc",
];
const WARNINGS: &[&str] = &["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where cargo has put the archive that was built together with this test.
fn archive() -> PathBuf {
    let exe = std::env::current_exe().expect("the path of this test");
    let archive = exe.with_file_name("libplatter.a");
    assert!(archive.exists(), "{} is missing", archive.display());
    archive
}

/// A directory for what all tests share; it stays until the next build cleans it.
fn shared_dir() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ffi");
    fs::create_dir_all(&dir).expect("a directory for the programs");
    dir
}

/// The shared object, linked as `make` links it.
fn shared_object() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = shared_dir().join("so");
        fs::create_dir_all(&dir).expect("a directory for the shared object");
        let object = dir.join("libplatter.so.0.1");
        let mut link = Command::new("sh");
        link.arg("ci/link-so.sh")
            .args([object.as_os_str(), OsStr::new("libplatter.so.0.1")])
            .arg(archive())
            .arg(NATIVE_LIBS.join(" "))
            .current_dir(root());
        done(&mut link);
        let name = dir.join("libplatter.so");
        if !name.exists() {
            std::os::unix::fs::symlink("libplatter.so.0.1", name).expect("a symlink");
        }
        dir
    })
}

/// Runs a command that must succeed and returns its output.
fn done(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn source(name: &str) -> PathBuf {
    let dir = root().join("ffi-tests/programs");
    ["c", "cpp"]
        .iter()
        .map(|kind| dir.join(format!("{name}.{kind}")))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("there is no program {name}"))
}

/// The compiler of a program.
fn compiler(name: &str) -> Command {
    let cpp = source(name).extension().is_some_and(|kind| kind == "cpp");
    let mut cc = Command::new(if cpp { "c++" } else { "cc" });
    cc.arg(match (cpp, name) {
        (false, _) => "-std=c11",
        (true, "wrapper") => "-std=c++17",
        (true, _) => "-std=c++11",
    })
    .args(["-g", "-O1", "-D_GNU_SOURCE", "-pthread"])
    .args(WARNINGS)
    .arg("-I")
    .arg(root().join("ffi-tests"));
    cc
}

/// Compiles a program; `args` come last.
fn compile<S: AsRef<OsStr>>(name: &str, flavour: &str, args: &[S]) -> PathBuf {
    let program = shared_dir().join(format!("{name}-{flavour}"));
    let mut cc = compiler(name);
    done(cc.arg("-o").arg(&program).arg(source(name)).args(args));
    program
}

/// What a program becomes with some flags, over the header in the tree: it is compiled once for all that ask for it.
fn object(name: &str, flags: &[&str]) -> PathBuf {
    type Objects = BTreeMap<String, Arc<OnceLock<PathBuf>>>;
    static OBJECTS: Mutex<Objects> = Mutex::new(Objects::new());
    let text = fs::read_to_string(source(name)).expect("the program");
    // What it is told and does not ask for makes no difference.
    let tells = |flag: &&&str| {
        flag.strip_prefix("-D")
            .is_none_or(|name| text.contains(name))
    };
    let flags: Vec<_> = flags.iter().filter(tells).collect();
    let key = flags.iter().fold(name.to_owned(), |key, flag| key + flag);
    let slot = OBJECTS
        .lock()
        .expect("the objects")
        .entry(key.clone())
        .or_default()
        .clone();
    let make = || {
        let object = shared_dir().join(key.replace(',', "-") + ".o");
        let mut cc = compiler(name);
        cc.arg("-I").arg(root().join("include")).args(flags);
        done(cc.arg("-c").arg("-o").arg(&object).arg(source(name)));
        object
    };
    slot.get_or_init(make).clone()
}

/// Links the object of a program; `args` come last.
fn link<S: AsRef<OsStr>>(name: &str, flavour: &str, flags: &[&str], args: &[S]) -> PathBuf {
    let object = object(name, flags);
    let program = shared_dir().join(format!("{name}-{flavour}"));
    let mut cc = compiler(name);
    done(
        cc.args(flags)
            .arg("-o")
            .arg(&program)
            .arg(object)
            .args(args),
    );
    program
}

/// The archive without what debuggers read, which is more than half of it: linkers and valgrind would read it for each
/// program.
fn lean_archive() -> &'static Path {
    static LEAN: OnceLock<PathBuf> = OnceLock::new();
    LEAN.get_or_init(|| {
        let lean = shared_dir().join("libplatter-lean.a");
        let mut objcopy = Command::new("objcopy");
        done(objcopy.arg("--strip-debug").arg(archive()).arg(&lean));
        lean
    })
}

fn link_archive(name: &str, flavour: &str, flags: &[&str]) -> PathBuf {
    let mut args = vec![lean_archive().as_os_str()];
    args.extend(NATIVE_LIBS.iter().map(OsStr::new));
    link(
        name,
        flavour,
        &[&["-DPLATTER_TESTING"], flags].concat(),
        &args,
    )
}

/// Runs a program in a directory of its own; it must end with 0 and print nothing but its own lines.
fn run(mut command: Command) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    command.current_dir(dir.path()).env_remove("PLATTER_LOG");
    let output = done(&mut command);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.ends_with("ok\n"), "{command:?} printed {text:?}");
}

fn static_run(name: &str) {
    run(Command::new(link_archive(name, "static", &[])));
}

fn shared_run(name: &str) {
    let dir = shared_object().display().to_string();
    let rpath = format!("-Wl,-rpath,{dir}");
    let args = ["-L", &dir, &rpath, "-lplatter"];
    run(Command::new(link(name, "shared", &[], &args)));
}

fn valgrind_run(name: &str) {
    if std::env::var_os("PLATTER_SKIP_VALGRIND").is_some() {
        eprintln!("SKIPPED: {name} under valgrind");
        return;
    }
    let program = link_archive(name, "valgrind", &["-DSLOW_RUN"]);
    let mut command = Command::new("valgrind");
    command
        .args(valgrind(&root().join("packaging/platter.supp")))
        .arg(program);
    run(command);
}

/// How valgrind is asked; the suppressions are those that are installed, and nothing beside them.
fn valgrind(suppressions: &Path) -> Vec<String> {
    let mut args: Vec<_> = [
        "-q",
        "--error-exitcode=99",
        "--leak-check=full",
        "--show-leak-kinds=definite,possible",
        "--errors-for-leak-kinds=definite,possible",
        "--num-callers=40",
        "--fair-sched=yes",
    ]
    .map(str::to_owned)
    .into();
    args.push(format!("--suppressions={}", suppressions.display()));
    args
}

fn sanitizer_run(name: &str) {
    let flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    let program = link_archive(name, "asan", &flags);
    let mut command = Command::new(program);
    command.env(
        "ASAN_OPTIONS",
        "detect_leaks=1:detect_stack_use_after_return=1",
    );
    run(command);
}

macro_rules! programs {
    ($($name:ident),* $(,)?) => {
        const PROGRAMS: &[&str] = &[$(stringify!($name)),*];

        $(mod $name {
            const NAME: &str = stringify!($name);

            #[test]
            fn with_the_archive() {
                super::static_run(NAME);
            }

            #[test]
            fn with_the_shared_object() {
                super::shared_run(NAME);
            }

            #[test]
            fn under_valgrind() {
                super::valgrind_run(NAME);
            }

            #[test]
            fn with_the_address_sanitizer() {
                super::sanitizer_run(NAME);
            }
        })*
    };
}

programs!(
    layout,
    arguments,
    options,
    drivers,
    defaults,
    opening,
    policy,
    inspect,
    image_io,
    queue,
    storage,
    storages,
    ends,
    jobs,
    background,
    control,
    operations,
    names,
    snapshots,
    bitmaps,
    streams,
    packed,
    profiles,
    amend,
    reports,
    errors,
    logging,
    secrets,
    server,
    workflow,
    wrapper,
    lifetimes,
    panics,
    signals,
    descriptors,
    cplusplus,
);

/// The functions that the header declares.
fn functions() -> BTreeSet<String> {
    let header = fs::read_to_string(root().join("include/platter.h")).expect("the header");
    calls(&header)
        .into_iter()
        .filter(|name| !name.ends_with("_fn"))
        .collect()
}

/// Names followed by `(` outside comments.
fn calls(text: &str) -> BTreeSet<String> {
    let code = without_comments(text);
    code.match_indices("platter_")
        .filter_map(|(at, _)| {
            let rest = &code[at..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
            rest[end..].starts_with('(').then(|| rest[..end].to_owned())
        })
        .collect()
}

fn without_comments(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("/*") {
        code.push_str(&rest[..start]);
        rest = rest[start..]
            .find("*/")
            .map_or("", |end| &rest[start + end..]);
    }
    code + rest
}

#[test]
fn every_function_is_in_the_version_script_and_called_with_bad_arguments() {
    let declared = functions();
    assert!(declared.len() > 90, "{declared:?}");
    let script = fs::read_to_string(root().join("platter.map")).expect("platter.map");
    let exported: BTreeSet<String> = script
        .lines()
        .filter_map(|line| line.trim().strip_suffix(';'))
        .filter(|name| name.starts_with("platter_"))
        .map(str::to_owned)
        .collect();
    assert_eq!(declared, exported);
    let tested = calls(&fs::read_to_string(source("arguments")).expect("the program"));
    let missing: Vec<_> = declared.difference(&tested).collect();
    assert!(missing.is_empty(), "arguments.c does not call {missing:?}");
}

/// What neither binding uses, and why it does not.
const NOT_BOUND: &[(&str, &str)] = &[
    (
        "platter_convert_conflict_text",
        "the error of the job says the same",
    ),
    (
        "platter_image_readv",
        "a read into each buffer does the same",
    ),
    (
        "platter_image_writev",
        "a write from each buffer does the same",
    ),
    ("platter_job_summary", "the tool's last line"),
    (
        "platter_map_each_job_new",
        "the extents of the report are walked",
    ),
    (
        "platter_option_help",
        "the tool's text; options are described one by one",
    ),
    (
        "platter_queue_readv",
        "a read into each buffer does the same",
    ),
    (
        "platter_queue_writev",
        "a write from each buffer does the same",
    ),
    ("platter_report_text_end", "the tool's last lines"),
    ("platter_report_write", "the JSON and the text are strings"),
    ("platter_version_number", "both compare the text"),
];

/// The names in a text that begin as functions do.
fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("platter_"))
        .collect()
}

#[test]
fn every_function_is_used_by_a_binding_or_has_a_reason_why_not() {
    let wrapper = fs::read_to_string(root().join("include/platter.hpp")).expect("the header");
    let code = wrapper
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let mut text: String = code.flat_map(|line| [line, "\n"]).collect();
    let package = root().join("bindings/python/platter");
    for entry in fs::read_dir(package).expect("the package") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|ending| ending == "py") {
            text += &fs::read_to_string(path).expect("a module");
        }
    }
    let used = words(&text);
    let declared = functions();
    let missing: BTreeSet<&str> = declared
        .iter()
        .map(String::as_str)
        .filter(|name| !used.contains(name))
        .collect();
    let known: BTreeSet<&str> = NOT_BOUND.iter().map(|(name, _)| *name).collect();
    assert_eq!(missing, known, "without a binding, and those with a reason");
}

#[test]
fn every_function_with_flags_is_called_with_unknown_bits() {
    let header = fs::read_to_string(root().join("include/platter.h")).expect("the header");
    let of = |text: &str, word: &str| -> BTreeSet<String> {
        let code = without_comments(text);
        let statements = code.split(';').filter(|statement| statement.contains(word));
        statements.flat_map(calls).collect()
    };
    let mut tested = BTreeSet::new();
    // What is called from a callback or with a control is tested there.
    for name in ["arguments", "secrets", "control"] {
        let program = fs::read_to_string(source(name)).expect("the program");
        tested.extend(of(&program, "BAD"));
    }
    let declared = of(&header, "uint32_t flags");
    assert!(declared.len() > 200, "{declared:?}");
    let missing: Vec<_> = declared.difference(&tested).collect();
    assert!(missing.is_empty(), "no unknown bit for {missing:?}");
}

#[test]
fn the_shared_object_exports_the_header_and_nothing_else() {
    let mut script = Command::new("sh");
    script
        .arg("ci/symbols.sh")
        .arg(shared_object().join("libplatter.so"))
        .current_dir(root());
    done(&mut script);
    let dynamic = done(
        Command::new("readelf")
            .args(["-d", "-W"])
            .arg(shared_object().join("libplatter.so")),
    );
    let dynamic = String::from_utf8_lossy(&dynamic.stdout).into_owned();
    assert!(dynamic.contains("soname: [libplatter.so.0.1]"), "{dynamic}");
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
}

/// Also where there are no exceptions.
#[test]
fn the_cpp_header_stands_alone_under_every_standard() {
    for flags in [
        &["-std=c++17"][..],
        &["-std=c++20"],
        &["-std=c++17", "-fno-exceptions", "-fno-rtti"],
    ] {
        let mut cc = Command::new("c++");
        cc.args(["-fsyntax-only", "-D_GNU_SOURCE"])
            .args(flags)
            .args(WARNINGS)
            .arg("-I")
            .arg(root().join("include"))
            .arg(source("wrapper"));
        done(&mut cc);
    }
}

#[test]
fn the_header_stands_alone_under_every_standard() {
    done(Command::new("sh").arg("ci/header.sh").current_dir(root()));
}
