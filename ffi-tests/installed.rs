//! An installed tree as others find it: through pkg-config, through CMake, by the completions of shells.

use std::fs;
use std::num::NonZero;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{PROGRAMS, compile, done, python, root, run, valgrind};

/// A directory under which everything is installed.
struct Tree(tempfile::TempDir);

impl Tree {
    fn make(&self, target: &str) {
        let mut make = Command::new("make");
        make.args(["--no-print-directory", target, "PREFIX=/usr"])
            .arg(format!("DESTDIR={}", self.0.path().display()))
            .current_dir(root());
        done(untold(&mut make));
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect(self.0.path(), &mut found);
        found
    }
}

/// A command that builds: what cargo tells this test of its package would have dependencies built again, which look at
/// that.
fn untold(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let told = name.to_string_lossy();
        if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        match entry.file_type().expect("a kind").is_dir() {
            true => collect(&entry.path(), found),
            false => found.push(entry.path()),
        }
    }
}

/// Slow where nothing is built yet: `make install` builds both archives.
#[test]
#[ignore = "builds the release; `make check` runs it"]
fn with_an_installed_tree() {
    let tree = Tree(tempfile::tempdir().expect("a temporary directory"));
    tree.make("install");
    done(untold(
        Command::new("sh")
            .arg("ci/debian.sh")
            .arg(tree.path(""))
            .arg("built")
            .current_dir(root()),
    ));
    thread::scope(|scope| {
        scope.spawn(|| examples(&tree));
        completions(&tree);
        by_cmake(&tree);
        python::by_wheel(&tree.path("usr/lib"));
    });
    by_pkg_config(&tree);
    tree.make("uninstall");
    assert_eq!(tree.files(), Vec::<PathBuf>::new(), "left behind");
}

fn by_pkg_config(tree: &Tree) {
    let libdir = tree.path("usr/lib");
    let flags = |extra: &[&str]| {
        let output = done(
            Command::new("pkg-config")
                .args(["--cflags", "--libs"])
                .args(extra)
                .arg("platter")
                .env("PKG_CONFIG_LIBDIR", libdir.join("pkgconfig"))
                .env("PKG_CONFIG_SYSROOT_DIR", tree.path("")),
        );
        let text = String::from_utf8(output.stdout).expect("UTF-8 flags");
        text.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    each_program(|name| {
        let program = compile(name, "installed", &flags(&[]));
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", &libdir);
        run(command);
    });
    // Without the shared object, `-lplatter` finds the archive.
    for path in tree.files() {
        if path.parent() == Some(&*libdir) && path.to_string_lossy().contains(".so") {
            fs::remove_file(path).expect("removal");
        }
    }
    each_program(|name| {
        run(Command::new(compile(
            name,
            "installed-static",
            &flags(&["--static"]),
        )));
    });
    statically(&flags(&["--static"]), &libdir);
}

/// Programs without any shared object, that of C included.
fn statically(flags: &[String], libdir: &Path) {
    let flags = [&["-static".to_owned()], flags].concat();
    for name in ["operations", "panics", "workflow", "wrapper"] {
        let program = compile(name, "installed-alone", &flags);
        let headers = done(Command::new("readelf").arg("-lW").arg(&program));
        let headers = String::from_utf8_lossy(&headers.stdout);
        assert!(headers.contains("LOAD"), "{headers}");
        assert!(!headers.contains("INTERP"), "{headers}");
        run(Command::new(program));
    }
    // Libraries that are loaded when they are needed would bring a libc of their own.
    let work = tempfile::tempdir().expect("a temporary directory");
    let program = work.path().join("read-sector");
    done(
        Command::new("cc")
            .arg(root().join("examples-c/samples/read-sector.c"))
            .arg("-o")
            .arg(&program)
            .args(&flags),
    );
    for (name, library) in [
        ("ssh://127.0.0.1/disk", "libssh"),
        ("iscsi://127.0.0.1/disk/0", "libiscsi"),
        ("nfs://127.0.0.1/exported/disk", "libnfs"),
        ("rbd:pool/disk", "librados"),
    ] {
        let output = Command::new(&program)
            .arg(name)
            .output()
            .expect("a program");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {told}");
        assert!(told.contains(library), "{told}");
        assert!(told.contains("linked statically"), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
    // Of the archive's symbols the functions alone are seen, and nothing in it is for debuggers.
    let archive = libdir.join("libplatter.a");
    let symbols = done(
        Command::new("nm")
            .args(["-g", "--defined-only", "-j"])
            .arg(&archive),
    );
    let symbols = String::from_utf8_lossy(&symbols.stdout).into_owned();
    let foreign: Vec<_> = symbols
        .lines()
        .filter(|line| !line.is_empty() && !line.ends_with(':') && !line.starts_with("platter_"))
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    let sections = done(Command::new("readelf").args(["-S", "-W"]).arg(&archive));
    assert!(!String::from_utf8_lossy(&sections.stdout).contains(".debug_info"));
}

/// The examples of the manual, built and run where they are installed.
fn examples(tree: &Tree) {
    let directory = tree.path("usr/share/doc/platter/examples");
    let library = tree.path("usr/lib");
    let work = tempfile::tempdir().expect("a temporary directory");
    for entry in fs::read_dir(&directory).expect("the examples") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, work.path().join(path.file_name().expect("a name"))).expect("a copy");
    }
    let build = |flags: &str| {
        done(
            Command::new("make")
                .args(["-j2", "-B"])
                .arg(format!(
                    "CFLAGS=-g -Wall -Wextra -Wconversion -Werror {flags}"
                ))
                .current_dir(work.path())
                .env("PKG_CONFIG_LIBDIR", library.join("pkgconfig"))
                .env("PKG_CONFIG_SYSROOT_DIR", tree.path("")),
        );
    };
    let path = std::env::var("PATH").unwrap_or_default();
    let complaints = tempfile::tempdir().expect("a temporary directory");
    // An example that is to fail would hide it where it fails otherwise.
    let run = |from: &Path| {
        let log = complaints.path().join("log");
        done(
            Command::new("sh")
                .arg(root().join("ffi-tests/examples.sh"))
                .current_dir(from)
                .env("PATH", format!("{}:{path}", tree.path("usr/bin").display()))
                .env("LD_LIBRARY_PATH", &library)
                .env(
                    "ASAN_OPTIONS",
                    format!("detect_leaks=1:log_path={}", log.display()),
                )
                .env("UBSAN_OPTIONS", format!("log_path={}", log.display())),
        );
        for entry in fs::read_dir(complaints.path()).expect("the complaints") {
            let told = fs::read_to_string(entry.expect("an entry").path()).expect("a log");
            assert!(told.is_empty(), "{told}");
        }
    };
    build("-fsanitize=address,undefined -fno-sanitize-recover=all");
    run(work.path());
    build("");
    match std::env::var_os("PLATTER_SKIP_VALGRIND") {
        Some(_) => run(work.path()),
        None => run(under_valgrind(work.path(), complaints.path(), tree).path()),
    }
    for page in [
        "man3/platter.3",
        "man3/platter_image_open.3",
        "man7/platter-upload.7",
        "man1/platter-img.1",
    ] {
        assert!(
            tree.path("usr/share/man").join(page).exists(),
            "{page} is missing"
        );
    }
    assert!(tree.path("usr/share/doc/platter/html/index.html").exists());
}

/// A directory with the examples of `built`, each of which runs under valgrind.
fn under_valgrind(built: &Path, complaints: &Path, tree: &Tree) -> tempfile::TempDir {
    let wrappers = tempfile::tempdir().expect("a temporary directory");
    let args = valgrind(&tree.path("usr/share/platter/platter.supp"));
    for entry in fs::read_dir(built).expect("the examples") {
        let program = entry.expect("an entry").path();
        let source = program.with_extension("c");
        if source == program || !source.exists() {
            continue;
        }
        let wrapper = wrappers.path().join(program.file_name().expect("a name"));
        let script = format!(
            "#!/bin/sh\nexec valgrind {} --log-file={}/%p {} \"$@\"\n",
            args.join(" "),
            complaints.display(),
            program.display()
        );
        fs::write(&wrapper, script).expect("a script");
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    wrappers
}

/// Does the same with every program, as many side by side as there are cores.
fn each_program(work: impl Fn(&str) + Sync) {
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(2, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(name) = PROGRAMS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(name);
                }
            });
        }
    });
}

/// A project that finds the package, in the version that it wants or none.
fn by_cmake(tree: &Tree) {
    let build = tempfile::tempdir().expect("a temporary directory");
    let configure = |wanted: &str| {
        let mut cmake = Command::new("cmake");
        cmake
            .arg("-S")
            .arg(root().join("ffi-tests/cmake"))
            .arg("-B")
            .arg(build.path())
            .arg(format!("-DWANTED={wanted}"))
            .arg(format!(
                "-DCMAKE_PREFIX_PATH={}",
                tree.path("usr").display()
            ))
            .arg(format!(
                "-DPROGRAMS={}",
                root().join("ffi-tests/programs").display()
            ))
            .arg(format!(
                "-DCMAKE_C_FLAGS=-D_GNU_SOURCE -I{0}",
                root().join("ffi-tests").display()
            ))
            .arg(format!(
                "-DCMAKE_CXX_FLAGS=-D_GNU_SOURCE -I{0}",
                root().join("ffi-tests").display()
            ));
        cmake
    };
    for version in ["9.0", "0.0", "1", "0.1.1"] {
        let output = configure(version).output().expect("cmake");
        assert!(!output.status.success(), "version {version} was found");
    }
    for version in ["0", "0.1", "0.1.0"] {
        done(&mut configure(version));
    }
    done(Command::new("cmake").arg("--build").arg(build.path()));
    for name in ["shared_c", "shared_cpp", "static_c"] {
        run(Command::new(build.path().join(name)));
    }
}

fn completions(tree: &Tree) {
    let share = |path: &str| tree.path("usr/share").join(path);
    let asked = r#"
        . "$0"
        ask() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            _platter_img
            echo "${COMPREPLY[*]}"
        }
        ask platter-img co
        ask platter-img convert --output-f
        ask platter-img convert -O qc
        ask platter-img -T x check -r ''
        ask platter-img convert -t w
        ask platter-img info /et
        complete -p platter-img
    "#;
    let output = done(
        Command::new("bash")
            .args(["--norc", "-c", asked])
            .arg(share("bash-completion/completions/platter-img")),
    );
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "commit compare convert\n--output-format\nqcow qcow2\nleaks all\nwriteback writethrough\n\n\
         complete -o bashdefault -o default -F _platter_img platter-img\n"
    );
    let fish = share("fish/vendor_completions.d/platter-img.fish");
    let asked = format!(
        "source {}; complete -C 'platter-img co'; complete -C 'platter-img convert --output-f'; \
         complete -C 'platter-img check -r '",
        fish.display()
    );
    let output = done(Command::new("fish").args(["--no-config", "-c", &asked]));
    let text = String::from_utf8_lossy(&output.stdout);
    let first: Vec<_> = text
        .lines()
        .map(|line| line.split('\t').next().unwrap_or_default())
        .collect();
    assert_eq!(
        first,
        [
            "commit",
            "compare",
            "convert",
            "--output-format",
            "all",
            "leaks"
        ]
    );
    let zsh = share("zsh/site-functions");
    let dump = tempfile::tempdir().expect("a temporary directory");
    let asked = format!(
        "autoload -Uz compinit; fpath=({} $fpath); compinit -u -d {}/dump; print $_comps[platter-img]",
        zsh.display(),
        dump.path().display()
    );
    let output = done(Command::new("zsh").args(["-f", "-c", &asked]));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "_platter-img\n");
    done(Command::new("zsh").arg("-n").arg(zsh.join("_platter-img")));
}

/// Each task of the manual has a program of its own, which is installed, and built and run from there by the shell
/// script above, or by the doctests of the Python package.
#[test]
fn every_task_of_the_manual_has_a_program_that_is_run() {
    let script = fs::read_to_string(root().join("ffi-tests/examples.sh")).expect("the script");
    let overview = fs::read_to_string(root().join("docs/manual/platter.md")).expect("the overview");
    let mut programs = Vec::new();
    for entry in fs::read_dir(root().join("docs/manual")).expect("the pages") {
        let path = entry.expect("an entry").path();
        let page = path.file_stem().expect("a name").to_string_lossy();
        if page == "platter" {
            continue;
        }
        assert!(overview.contains(&format!("`{page}(7)`")), "{page}");
        let text = fs::read_to_string(&path).expect("a page");
        let shown: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("```")?.split_once(' '))
            .map(|(_, file)| file.to_owned())
            .collect();
        let [program] = &*shown else {
            panic!("{page} shows {shown:?}");
        };
        let name = Path::new(program).file_stem().expect("a name");
        let run = format!("\"$here/{}\"", name.to_string_lossy());
        assert!(
            program == "bindings/python/examples/tasks.py" || script.contains(&run),
            "{program} is not run"
        );
        programs.push(program.clone());
    }
    programs.sort();
    programs.dedup();
    assert!(programs.len() >= 15, "{programs:?}");
}

/// The tarball has every source, is the same each time, and is made again from what it holds.
#[test]
fn a_tarball_of_the_sources_holds_all_that_it_takes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let dist = |root: &Path, out: &str| {
        let out = directory.path().join(out);
        done(
            Command::new("sh")
                .args(["packaging/dist.sh", "9.9"])
                .arg(&out)
                .current_dir(root),
        );
        out.join("platter-9.9.tar.gz")
    };
    let first = dist(root(), "first");
    done(
        Command::new("tar")
            .arg("-xf")
            .arg(&first)
            .current_dir(directory.path()),
    );
    let unpacked = directory.path().join("platter-9.9");
    let again = dist(&unpacked, "again");
    assert!(fs::read(first).expect("a tarball") == fs::read(again).expect("a tarball"));
    // Everything that the build names is there.
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["metadata", "--locked", "--offline", "--no-deps"])
        .args(["--format-version", "1"])
        .current_dir(&unpacked);
    done(&mut cargo);
    for needed in ["include/platter.h", "examples-c/Makefile", ".ci/run"] {
        assert!(unpacked.join(needed).exists(), "{needed} is missing");
    }
}
