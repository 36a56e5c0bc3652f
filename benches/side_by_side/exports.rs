//! Images as files and as block devices of virtual machines, beside qemu-storage-daemon's.

use crate::nbd::row;
use crate::rows::{measure_row, wanted};
use crate::server::Server;
use crate::{Setup, device, random, run};

/// Reads of the rows that read here and there.
const READS: &str = "100000";
/// At least as fast.
const TARGET: f64 = 1.0;

pub fn measure(setup: &Setup) -> Result<(), String> {
    if run::quiet(&["qemu-storage-daemon", "--version"]).is_err() {
        println!("\nLEFT OUT: the rows of FUSE and vhost-user need qemu-storage-daemon");
        return Ok(());
    }
    let disk = setup.disk.display().to_string();
    let plain = format!("{}.plain.qcow2", disk.trim_end_matches(".raw"));
    let this = std::env::current_exe().map_err(|e| e.to_string())?;
    let this = this.display().to_string();
    let (mut names, mut clients) = (Vec::new(), Vec::new());
    for (kind, whole, random) in [
        (
            "fuse",
            vec!["dd", "of=/dev/null", "bs=1M", "status=none", "if=AT"],
            vec![&this, random::FILE, "AT", READS],
        ),
        (
            "vhost-user",
            vec![&this, device::ARGUMENT, "AT", "0"],
            vec![&this, device::ARGUMENT, "AT", READS],
        ),
    ] {
        for (format, image) in [("qcow2", &plain), ("raw", &disk)] {
            for (how, client) in [("", &whole), (", 4 KiB", &random)] {
                names.push(format!("{kind} {format}{how}"));
                clients.push((kind, format, image, client.clone()));
            }
        }
    }
    for (name, (kind, format, image, client)) in names.iter().zip(clients) {
        if wanted(setup, name) {
            one(setup, name, kind, (format, image), &client)?;
        }
    }
    Ok(())
}

fn one(
    setup: &Setup,
    name: &str,
    kind: &str,
    (format, image): (&str, &str),
    client: &[&str],
) -> Result<(), String> {
    let (ours, theirs) = (setup.path("ours.export"), setup.path("theirs.export"));
    let option = format!("--{kind}");
    let mut argv = vec![setup.platter.as_str(), "serve", &option, &ours];
    if kind != "fuse" {
        argv.extend(["--queues", "2"]);
    }
    argv.extend(["-r", "-f", format, image]);
    let protocol = format!("file,node-name=f,filename={image},read-only=on");
    let node = format!("{format},node-name=n,file=f,read-only=on");
    let export = match kind {
        "fuse" => format!("fuse,id=e,node-name=n,mountpoint={theirs}"),
        _ => format!(
            "vhost-user-blk,id=e,node-name=n,num-queues=2,addr.type=unix,addr.path={theirs}"
        ),
    };
    let daemon = [
        "qemu-storage-daemon",
        "--blockdev",
        &protocol,
        "--blockdev",
        &node,
        "--export",
        &export,
    ];
    let start = match kind {
        "fuse" => Server::mount,
        _ => Server::start_single,
    };
    let ours = start(&argv, ours.clone())?;
    let theirs = start(&daemon, theirs.clone())?;
    let command =
        |at: &str| -> Vec<String> { client.iter().map(|word| word.replace("AT", at)).collect() };
    let (ours, theirs) = (command(&ours.at), command(&theirs.at));
    fn words(command: &[String]) -> Vec<&str> {
        command.iter().map(String::as_str).collect()
    }
    let theirs = vec![("qemu-storage-daemon", words(&theirs), TARGET)];
    measure_row(setup, &row(name, words(&ours), theirs))
}
