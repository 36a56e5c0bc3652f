//! What is measured.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::run::{self, Cost};
use crate::{
    Setup, chains, clusters, encryption, exports, formats, memory, nbd, network, overlays, packed,
    requests, table,
};

/// One comparison: our command, one or more of theirs, and what is prepared and checked.
pub struct Row<'a> {
    pub name: &'a str,
    pub ours: Vec<&'a str>,
    /// (what it is called, command, the largest ratio that is good enough)
    pub theirs: Vec<(&'a str, Vec<&'a str>, f64)>,
    /// Removed before each run; its size is noted.
    pub output: Option<&'a str>,
    /// The format of the output, where it is not recognised from its beginning.
    pub format: Option<&'a str>,
    /// What the output must be equal to; None for the disk, where it is one.
    pub equals: Option<&'a str>,
    /// The output stays: each run but the first goes over what the one before has made.
    pub over: bool,
    /// What is run before each run, and is not measured.
    pub before: Vec<&'a str>,
}

pub fn remove(path: &str) -> Result<(), String> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(format!("{path}: {e}")),
        _ => Ok(()),
    }
}

pub fn wanted(setup: &Setup, name: &str) -> bool {
    setup.only.is_empty() || setup.only.iter().any(|word| name.contains(word.as_str()))
}

/// Runs one command on a fresh output; gives its cost and the bytes of the output.
fn once(argv: &[&str], output: Option<&str>, over: bool) -> Result<(Cost, u64), String> {
    if let Some(output) = output {
        if !over {
            remove(output)?;
        }
        // Else the kernel slows this run's writes down for what earlier ones left unwritten.
        let dir = Path::new(output).parent().unwrap_or(Path::new("."));
        run::settle(&dir.display().to_string())?;
    }
    let cost = run::timed(argv)?;
    let bytes = match output {
        Some(output) => fs::metadata(output)
            .map_err(|e| format!("{output}: {e}"))?
            .len(),
        None => 0,
    };
    Ok((cost, bytes))
}

fn prepare(row: &Row<'_>) -> Result<(), String> {
    match row.before.is_empty() {
        true => Ok(()),
        false => run::quiet(&row.before),
    }
}

pub fn measure_row(setup: &Setup, row: &Row<'_>) -> Result<(), String> {
    if !wanted(setup, row.name) {
        return Ok(());
    }
    let mut ours = Vec::new();
    let mut theirs = vec![Vec::new(); row.theirs.len()];
    let mut our_bytes = 0;
    let mut their_bytes = vec![0; row.theirs.len()];
    for round in 0..=setup.pairs {
        // The first round only warms the page cache.
        let counts = round > 0;
        prepare(row)?;
        let (cost, bytes) = once(&row.ours, row.output, row.over)?;
        our_bytes = bytes;
        if counts {
            ours.push(cost);
        }
        if let Some(output) = row
            .output
            .filter(|_| round == 0 && row.ours.contains(&"convert"))
        {
            let disk = setup.disk.display().to_string();
            let equals = row.equals.unwrap_or(&disk);
            let format = row.format.map_or(vec![], |format| vec!["-F", format]);
            let compare = [setup.qemu.as_str(), "compare", "-q"];
            run::quiet(&[&compare, format.as_slice(), &[equals, output]].concat())?;
        }
        // Their slow rows are worth no warming: ours has just read the same files.
        for (n, (_, argv, _)) in row.theirs.iter().enumerate() {
            if counts {
                prepare(row)?;
                let (cost, bytes) = once(argv, row.output, row.over)?;
                theirs[n].push(cost);
                their_bytes[n] = bytes;
            }
        }
    }
    for (n, (against, _, target)) in row.theirs.iter().enumerate() {
        let name = match *against {
            "" => row.name.to_owned(),
            against => format!("{}, against {against}", row.name),
        };
        let note = match (our_bytes, their_bytes[n]) {
            (0, _) | (_, 0) => String::new(),
            (a, b) => format!("{a} bytes, {:.3} of theirs", a as f64 / b as f64),
        };
        table::row(&name, &ours, &theirs[n], *target, &note);
    }
    if let Some(output) = row.output {
        remove(output)?;
    }
    Ok(())
}

/// Measures every row and prints the tables.
pub fn measure(setup: &Setup) -> Result<(), String> {
    let (p, q) = (setup.platter.as_str(), setup.qemu.as_str());
    let disk = setup.disk.display().to_string();
    let disk = disk.as_str();
    let (out_q, out_r) = (setup.path("out.qcow2"), setup.path("out.raw"));
    let (out_q, out_r) = (out_q.as_str(), out_r.as_str());
    let sources = [
        ("plain", vec!["-O", "qcow2"]),
        ("zlib", vec!["-c", "-W", "-m", "16", "-O", "qcow2"]),
        (
            "zstd",
            vec![
                "-c",
                "-W",
                "-m",
                "16",
                "-O",
                "qcow2",
                "-o",
                "compression_type=zstd",
            ],
        ),
    ];
    let mut made = Vec::new();
    for (name, options) in sources {
        let path = format!("{}.{name}.qcow2", disk.trim_end_matches(".raw"));
        if !Path::new(&path).exists() {
            let fresh = format!("{path}.new");
            let argv = [&[q, "convert"], options.as_slice(), &[disk, &fresh]].concat();
            run::quiet(&argv)?;
            fs::rename(&fresh, &path).map_err(|e| e.to_string())?;
        }
        made.push(path);
    }
    let [plain, zlib, zstd] = made.as_slice() else {
        return Err("the sources were not made".to_owned());
    };
    table::head(setup.pairs);
    let convert = |options: &[&'static str]| [&["convert"], options].concat();
    let both = |name, options: &[&'static str], from, to, target| Row {
        name,
        ours: [&[p], convert(options).as_slice(), &[from, to]].concat(),
        theirs: vec![(
            "",
            [&[q], convert(options).as_slice(), &[from, to]].concat(),
            target,
        )],
        output: Some(to),
        format: None,
        equals: None,
        over: false,
        before: vec![],
    };
    let coded = |name, options: &'static [&'static str], targets: [f64; 2]| Row {
        name,
        ours: [&[p], convert(options).as_slice(), &[disk, out_q]].concat(),
        theirs: vec![
            (
                "-c",
                [&[q], convert(options).as_slice(), &[disk, out_q]].concat(),
                targets[0],
            ),
            (
                "-c -W -m 16",
                [
                    &[q],
                    convert(options).as_slice(),
                    &["-W", "-m", "16", disk, out_q],
                ]
                .concat(),
                targets[1],
            ),
        ],
        output: Some(out_q),
        format: None,
        equals: None,
        over: false,
        before: vec![],
    };
    let direct = |format| ["-t", "none", "-T", "none", "-O", format];
    let copy = format!("{}.copy.raw", disk.trim_end_matches(".raw"));
    let copy = copy.as_str();
    if !Path::new(copy).exists() {
        let fresh = format!("{copy}.new");
        run::quiet(&["cp", "--sparse=always", "--reflink=never", disk, &fresh])?;
        fs::rename(&fresh, copy).map_err(|e| e.to_string())?;
    }
    let rows = [
        both("raw to qcow2", &["-O", "qcow2"], disk, out_q, 0.8),
        both("qcow2 to raw", &["-O", "raw"], plain, out_r, 0.8),
        coded("zlib -c", &["-c", "-O", "qcow2"], [0.2, 0.35]),
        coded(
            "zstd -c",
            &["-c", "-O", "qcow2", "-o", "compression_type=zstd"],
            [0.45, 0.75],
        ),
        both("zlib to raw", &["-O", "raw"], zlib, out_r, 0.4),
        both("zstd to raw", &["-O", "raw"], zstd, out_r, 0.6),
        Row {
            over: true,
            before: vec![],
            ..both(
                "raw to qcow2 over a file",
                &["-O", "qcow2"],
                disk,
                out_q,
                0.7,
            )
        },
        Row {
            over: true,
            before: vec![],
            ..both(
                "qcow2 to raw over a file",
                &["-O", "raw"],
                plain,
                out_r,
                0.7,
            )
        },
        both("raw to qcow2, direct", &direct("qcow2"), disk, out_q, 0.9),
        both("qcow2 to raw, direct", &direct("raw"), plain, out_r, 0.9),
        Row {
            name: "compare raw with raw",
            ours: vec![p, "compare", disk, copy],
            theirs: vec![("", vec![q, "compare", disk, copy], 0.7)],
            output: None,
            format: None,
            equals: None,
            over: false,
            before: vec![],
        },
        Row {
            name: "compare qcow2 with raw",
            ours: vec![p, "compare", plain, disk],
            theirs: vec![("", vec![q, "compare", plain, disk], 0.7)],
            output: None,
            format: None,
            equals: None,
            over: false,
            before: vec![],
        },
        Row {
            name: "compare raw with zlib",
            ours: vec![p, "compare", disk, zlib],
            theirs: vec![("", vec![q, "compare", disk, zlib], 0.4)],
            output: None,
            format: None,
            equals: None,
            over: false,
            before: vec![],
        },
    ];
    for row in &rows {
        measure_row(setup, row)?;
    }
    formats::measure(setup, plain)?;
    packed::measure(setup, plain)?;
    encryption::measure(setup)?;
    nbd::measure(setup)?;
    exports::measure(setup)?;
    network::measure(setup)?;
    clusters::measure(setup)?;
    overlays::measure(setup)?;
    tables(setup)?;
    chains::measure(setup)?;
    peaks(setup, &rows)?;
    memory::measure(setup, plain)?;
    requests::measure(setup)?;
    sharing(setup)
}

/// A terabyte of metadata, and its check.
fn tables(setup: &Setup) -> Result<(), String> {
    let (p, q) = (setup.platter.as_str(), setup.qemu.as_str());
    let big = setup.path("big.qcow2");
    let big = big.as_str();
    let create = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "preallocation=metadata",
        big,
        "1T",
    ];
    measure_row(
        setup,
        &Row {
            name: "create 1 TiB preallocation=metadata",
            ours: [&[p], create.as_slice()].concat(),
            theirs: vec![("", [&[q], create.as_slice()].concat(), 0.3)],
            output: Some(big),
            format: None,
            equals: None,
            over: false,
            before: vec![],
        },
    )?;
    if !wanted(setup, "check 1 TiB") {
        return Ok(());
    }
    run::quiet(&[&[q], create.as_slice()].concat())?;
    let result = measure_row(
        setup,
        &Row {
            name: "check 1 TiB",
            ours: vec![p, "check", big],
            theirs: vec![("", vec![q, "check", big], 0.5)],
            output: None,
            format: None,
            equals: None,
            over: false,
            before: vec![],
        },
    );
    remove(big)?;
    result
}

/// Peak memory of each conversion.
fn peaks(setup: &Setup, rows: &[Row<'_>]) -> Result<(), String> {
    let rows: Vec<_> = rows.iter().filter(|row| wanted(setup, row.name)).collect();
    if rows.is_empty() {
        return Ok(());
    }
    memory::head();
    for row in rows {
        if let Some((_, theirs, _)) = row.theirs.last() {
            let limit = memory::LIMIT;
            memory::row(row.name, &row.ours, Some(theirs), row.output, limit)?;
        }
    }
    row_outputs(setup)
}

fn row_outputs(setup: &Setup) -> Result<(), String> {
    remove(&setup.path("out.qcow2"))?;
    remove(&setup.path("out.raw"))
}

/// On a file system that can share blocks, a copy must share them.
fn sharing(setup: &Setup) -> Result<(), String> {
    if !wanted(setup, "sharing") {
        return Ok(());
    }
    println!();
    let image = setup.path("xfs.img");
    let mount = setup.path("xfs");
    let mounted = mount_xfs(&image, &mount);
    let result = match &mounted {
        Ok(()) => sharing_rows(setup, &mount),
        Err(error) => {
            eprintln!("SKIPPED: block sharing was not measured: {error}");
            println!("Block sharing was **not measured**: {error}");
            Ok(())
        }
    };
    if mounted.is_ok() {
        run::quiet(&["umount", &mount])?;
    }
    remove(&image)?;
    result
}

fn mount_xfs(image: &str, mount: &str) -> Result<(), String> {
    remove(image)?;
    fs::create_dir_all(mount).map_err(|e| format!("{mount}: {e}"))?;
    let file = fs::File::create(image).map_err(|e| format!("{image}: {e}"))?;
    file.set_len(12 << 30)
        .map_err(|e| format!("{image}: {e}"))?;
    run::quiet(&["/sbin/mkfs.xfs", "-q", "-m", "reflink=1", image])?;
    run::quiet(&["mount", "-o", "loop", image, mount])
}

fn free_bytes(mount: &str) -> Result<u64, String> {
    let output = std::process::Command::new("df")
        .args(["-B1", "--output=avail", mount])
        .output()
        .map_err(|e| format!("df: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .nth(1)
        .and_then(|line| line.trim().parse().ok())
        .ok_or_else(|| format!("df: {text}"))
}

fn sharing_rows(setup: &Setup, mount: &str) -> Result<(), String> {
    let source = format!("{mount}/disk.raw");
    let disk = setup.disk.display().to_string();
    run::quiet(&["cp", "--sparse=always", &disk, &source])?;
    run::quiet(&["sync", "-f", mount])?;
    let data = fs::metadata(&source).map_err(|e| e.to_string())?.blocks() * 512;
    println!(
        "| on XFS | Platter wall s | qemu-img wall s | ratio | space that Platter took, of the data |"
    );
    println!("|---|---:|---:|---:|---:|");
    for (name, format, options) in [
        ("raw", "raw", vec![]),
        ("qcow2", "qcow2", vec![]),
        (
            "fixed vpc",
            "vpc",
            vec!["-o", "subformat=fixed,force_size=on"],
        ),
        ("flat vmdk", "vmdk", vec!["-o", "subformat=monolithicFlat"]),
    ] {
        let target = format!("{mount}/out.{format}");
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        let mut took = 0.0f64;
        for _ in 0..setup.pairs {
            for (program, costs) in [(&setup.platter, &mut ours), (&setup.qemu, &mut theirs)] {
                let before = free_bytes(mount)?;
                let argv = [
                    &[program.as_str(), "convert", "-O", format],
                    options.as_slice(),
                    &[&source, &target],
                ]
                .concat();
                costs.push(once(&argv, Some(&target), false)?.0);
                run::quiet(&["sync", "-f", mount])?;
                if *program == setup.platter {
                    run::quiet(&[&setup.qemu, "compare", "-q", "-F", format, &source, &target])?;
                    took = took.max(before.saturating_sub(free_bytes(mount)?) as f64 / data as f64);
                }
                remove(&target)?;
                remove(&format!("{mount}/out-flat.vmdk"))?;
                run::quiet(&["sync", "-f", mount])?;
            }
        }
        let ratio = table::median(ours.iter().zip(&theirs).map(|(a, b)| a.wall / b.wall));
        println!(
            "| raw to {name} | {:.3} | {:.3} | **{ratio:.2}** | {:.1} % |",
            table::median(ours.iter().map(|c| c.wall)),
            table::median(theirs.iter().map(|c| c.wall)),
            took * 100.0,
        );
    }
    Ok(())
}
