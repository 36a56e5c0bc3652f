//! Exports of NBD servers on unix sockets: both directions against QEMU's tool and nbdcopy, and our server against
//! QEMU's.

use crate::rows::{Row, measure_row, remove, wanted};
use crate::server::Server;
use crate::{Setup, random, run};

/// The largest ratio to nbdcopy that is good enough.
const AGAINST_NBDCOPY: f64 = 0.8;

/// Reads of the rows that read here and there.
const READS: &str = "200000";

/// A row without an output to compare.
pub fn row<'a>(
    name: &'a str,
    ours: Vec<&'a str>,
    theirs: Vec<(&'a str, Vec<&'a str>, f64)>,
) -> Row<'a> {
    Row {
        name,
        ours,
        theirs,
        output: None,
        format: None,
        equals: None,
        over: false,
        before: vec![],
    }
}

/// Measures the client, then the server.
pub fn measure(setup: &Setup) -> Result<(), String> {
    let here = |program: &&str| run::quiet(&[*program, "--version"]).is_ok();
    if !["nbdkit", "nbdcopy"].iter().all(here) {
        println!("\nLEFT OUT: the rows of NBD need nbdkit and nbdcopy");
        return Ok(());
    }
    for (kind, late) in [("memory", false), ("a file", false), ("a late file", true)] {
        client(setup, kind, late)?;
    }
    server(setup)
}

/// To and from nbdkit.
fn client(setup: &Setup, kind: &str, late: bool) -> Result<(), String> {
    let names = [format!("nbd to raw, {kind}"), format!("raw to nbd, {kind}")];
    if !names.iter().any(|name| wanted(setup, name)) {
        return Ok(());
    }
    let disk = setup.disk.display().to_string();
    let (socket, export, out) = (
        setup.path("bench.sock"),
        setup.path("export.raw"),
        setup.path("out.raw"),
    );
    let size = std::fs::metadata(&setup.disk)
        .map_err(|e| format!("{disk}: {e}"))?
        .len();
    let size = size.to_string();
    let mut argv = vec!["nbdkit", "-f", "-U", &socket];
    match kind {
        "memory" => argv.extend(["memory", &size]),
        _ => {
            run::quiet(&["cp", "--sparse=always", "--reflink=never", &disk, &export])?;
            if late {
                argv.push("--filter=delay");
            }
            argv.extend(["file", &export]);
            if late {
                argv.extend([
                    "delay-read=5ms",
                    "delay-write=5ms",
                    "delay-zero=5ms",
                    "delay-trim=5ms",
                    "delay-extents=5ms",
                ]);
            }
        }
    }
    let server = Server::start(&argv, socket.clone())?;
    let url = server.url();
    let (p, q, url) = (setup.platter.as_str(), setup.qemu.as_str(), url.as_str());
    run::quiet(&["nbdcopy", &disk, url])?;
    let against_qemu = if late { 0.3 } else { 0.8 };
    let theirs = |qemu: Vec<&'static str>, from, to| {
        let qemu = [
            &[q, "convert"],
            qemu.as_slice(),
            &["-f", "raw", "-O", "raw", from, to],
        ]
        .concat();
        vec![
            ("", qemu, against_qemu),
            ("nbdcopy", vec!["nbdcopy", from, to], AGAINST_NBDCOPY),
        ]
    };
    let ours = vec![p, "convert", "-f", "raw", "-O", "raw", url, &out];
    measure_row(
        setup,
        &Row {
            output: Some(&out),
            ..row(&names[0], ours, theirs(vec![], url, &out))
        },
    )?;
    let ours = vec![p, "convert", "-n", "-f", "raw", "-O", "raw", &disk, url];
    measure_row(setup, &row(&names[1], ours, theirs(vec!["-n"], &disk, url)))?;
    run::quiet(&[q, "compare", "-q", "-f", "raw", "-F", "raw", &disk, url])?;
    drop(server);
    remove(&export)
}

/// nbdcopy, and reads here and there, from our server and from QEMU's.
fn server(setup: &Setup) -> Result<(), String> {
    let disk = setup.disk.display().to_string();
    let made = |name: &str| format!("{}.{name}.qcow2", disk.trim_end_matches(".raw"));
    let (plain, zlib) = (made("plain"), made("zlib"));
    let this = std::env::current_exe().map_err(|e| e.to_string())?;
    let this = this.display().to_string();
    let whole = ["nbdcopy", "URL", "null:"];
    let random = [this.as_str(), random::ARGUMENT, "SOCKET", READS];
    for (name, format, image, client, target) in [
        ("serve qcow2", "qcow2", &plain, &whole[..], 1.0 / 1.5),
        ("serve zlib", "qcow2", &zlib, &whole, 1.0 / 2.0),
        ("serve raw", "raw", &disk, &whole, 1.0 / 1.2),
        ("serve qcow2, 4 KiB", "qcow2", &plain, &random, 1.0 / 1.5),
        ("serve raw, 4 KiB", "raw", &disk, &random, 1.0 / 1.5),
    ] {
        if !wanted(setup, name) {
            continue;
        }
        let (ours, theirs) = (setup.path("ours.sock"), setup.path("theirs.sock"));
        let common = ["-r", "-f", format, image.as_str()];
        let platter = [setup.platter.as_str(), "serve", "-e", "0", "-k", &ours];
        let ours = Server::start(&[&platter, common.as_slice()].concat(), ours.clone())?;
        let qemu = ["qemu-nbd", "-t", "-e", "0", "-k", &theirs];
        let theirs = Server::start(&[&qemu, common.as_slice()].concat(), theirs.clone())?;
        let urls = (ours.url(), theirs.url());
        let command = |server: &'_ str, socket: &'_ str| -> Vec<String> {
            let word = |word: &&str| word.replace("URL", server).replace("SOCKET", socket);
            client.iter().map(word).collect()
        };
        let (ours, theirs) = (command(&urls.0, &ours.at), command(&urls.1, &theirs.at));
        let theirs = theirs.iter().map(String::as_str).collect();
        let ours = ours.iter().map(String::as_str).collect();
        measure_row(setup, &row(name, ours, vec![("qemu-nbd", theirs, target)]))?;
    }
    Ok(())
}
