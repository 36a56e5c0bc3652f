//! Images on a Ceph cluster, an NFS server, an iSCSI target and a volume of GlusterFS on the loopback interface, against
//! QEMU's tool where it has its modules, and against the clients of those projects.

use std::path::Path;

use crate::common::Dir;
use crate::rows::{Row, measure_row, wanted};
use crate::{Setup, cluster, gluster, iscsi, network, nfs, run};

/// A comparison that has no target of its own.
const NO_TARGET: f64 = f64::INFINITY;

/// Measures what of all that is wanted and here.
pub fn measure(setup: &Setup) -> Result<(), String> {
    let disk = std::fs::canonicalize(&setup.disk).map_err(|e| e.to_string())?;
    let bench = Bench {
        setup,
        disk: disk.display().to_string(),
        out: setup.path("out.raw"),
    };
    bench.rbd()?;
    bench.nfs()?;
    bench.iscsi()?;
    bench.gluster()
}

struct Bench<'a> {
    setup: &'a Setup,
    disk: String,
    out: String,
}

/// A conversion of the raw disk to or from a server.
#[derive(Clone, Copy)]
struct Way<'a> {
    driver: &'a str,
    /// What stands before the program.
    inside: &'a [String],
    options: &'a [&'a str],
    from: &'a str,
    to: &'a str,
    /// The largest ratio to QEMU's tool that is good enough.
    target: f64,
    /// The file that is made, where it is one here.
    output: Option<&'a str>,
    /// What is run before each run, and is not measured.
    before: &'a [String],
}

impl Way<'_> {
    /// The command line with that program.
    fn by(&self, program: &str) -> Vec<String> {
        let words = [
            &[program, "convert", "-f", "raw", "-O", "raw"],
            self.options,
            &[self.from, self.to],
        ];
        [self.inside.to_vec(), line(&words.concat())].concat()
    }
}

/// A command line, in owned words.
fn line<S: AsRef<str>>(words: &[S]) -> Vec<String> {
    words.iter().map(|word| word.as_ref().to_owned()).collect()
}

impl Bench<'_> {
    fn wants(&self, names: &[&str]) -> bool {
        names.iter().any(|name| wanted(self.setup, name))
    }

    /// One row: a conversion by our tool and by QEMU's, and the transfer of another client, each in the network that
    /// `inside` leads to.
    fn row(&self, name: &str, way: &Way<'_>, other: (&str, &[String], f64)) -> Result<(), String> {
        fn words(line: &[String]) -> Vec<&str> {
            line.iter().map(String::as_str).collect()
        }
        let ours = std::fs::canonicalize(&self.setup.platter);
        let ours = ours.map_or(self.setup.platter.clone(), |path| {
            path.display().to_string()
        });
        let (ours, qemu) = (way.by(&ours), way.by(&self.setup.qemu));
        let mut theirs = vec![(other.0, words(other.1), other.2)];
        if network::peer_has(self.setup, name, way.driver) {
            theirs.push(("qemu-img", words(&qemu), way.target));
        }
        // Each has pairs of its own with ours: one that leaves much behind would change what is measured after it.
        for theirs in theirs {
            let row = Row {
                name,
                ours: words(&ours),
                theirs: vec![theirs],
                output: way.output,
                format: Some("raw"),
                equals: None,
                over: false,
                before: words(way.before),
            };
            measure_row(self.setup, &row)?;
        }
        Ok(())
    }

    /// What was written there last is the disk.
    fn holds_the_disk(&self, file: &str) -> Result<(), String> {
        run::quiet(&["cmp", file, &self.disk])
    }

    fn rbd(&self) -> Result<(), String> {
        let names = ["rbd to raw", "raw to rbd"];
        if !self.wants(&names) || cluster::ceph_is_missing() {
            return Ok(());
        }
        let (disk, out) = (self.disk.as_str(), self.out.as_str());
        let cluster = cluster::Cluster::new();
        let conf = cluster.conf();
        let rbd = |words: &[&str]| line(&[&["rbd", "-c", &conf, "--no-progress"], words].concat());
        run::quiet(
            &rbd(&["import", disk, "rbd/disk"])
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        )?;
        let way = Way {
            driver: "rbd",
            inside: &[],
            options: &[],
            from: &cluster.name("disk"),
            to: out,
            target: NO_TARGET,
            output: Some(out),
            before: &[],
        };
        let export = rbd(&["export", "rbd/disk", out]);
        self.row(names[0], &way, ("rbd export", &export, 1.2))?;
        cluster.rbd("rm --no-progress rbd/disk");
        let gone = format!("rbd -c {conf} --no-progress rm rbd/new 2>/dev/null || true");
        let way = Way {
            from: disk,
            to: &cluster.name("new"),
            output: None,
            before: &line(&["sh", "-c", &gone]),
            ..way
        };
        let import = rbd(&["import", disk, "rbd/new"]);
        self.row(names[1], &way, ("rbd import", &import, 1.2))
    }

    fn nfs(&self) -> Result<(), String> {
        let names = ["nfs to raw", "raw to nfs"];
        if !self.wants(&names) || nfs::ganesha_is_missing() {
            return Ok(());
        }
        let (disk, out) = (self.disk.as_str(), self.out.as_str());
        let dir = Dir::new();
        let server = nfs::Server::new(&dir);
        let inside = server.inside();
        let url = |name: &str| format!("nfs://127.0.0.1{}/exp/{name}", dir.root().display());
        run::quiet(&["cp", disk, &dir.str("exp/disk")])?;
        let here = std::fs::canonicalize(&self.setup.dir).map_err(|e| e.to_string())?;
        let there = here.join("out.raw").display().to_string();
        let way = Way {
            driver: "nfs",
            inside: &inside,
            options: &[],
            from: &url("disk"),
            to: &there,
            target: 0.8,
            output: Some(out),
            before: &[],
        };
        let copy = [inside.to_vec(), line(&["nfs-cp", &url("disk"), &there])].concat();
        self.row(names[0], &way, ("nfs-cp", &copy, 0.8))?;
        // nfs-cp goes over no file that is there, and the server does not see at once that one is gone.
        let each = ["sh", "-c", "exec \"$@$$\"", "sh"].map(str::to_owned);
        let fresh = [inside.to_vec(), each.to_vec()].concat();
        // The server keeps files open that are gone: their space is given back first.
        let gone = format!("truncate -c -s 0 {0}.*; rm -f {0}.*", dir.str("exp/new"));
        let way = Way {
            inside: &fresh,
            from: disk,
            to: &url("new."),
            output: None,
            before: &line(&["sh", "-c", &gone]),
            ..way
        };
        let copy = [fresh.clone(), line(&["nfs-cp", disk, &url("new.")])].concat();
        self.row(names[1], &way, ("nfs-cp", &copy, 0.8))
    }

    /// No tool of libiscsi's copies: what stands beside QEMU's is a copy of the file behind the target.
    fn iscsi(&self) -> Result<(), String> {
        let names = ["iscsi to raw", "raw to iscsi"];
        if !self.wants(&names) || iscsi::tgtd_is_missing() {
            return Ok(());
        }
        let (disk, out) = (self.disk.as_str(), self.out.as_str());
        let dir = Dir::new();
        for name in ["full", "new"] {
            run::quiet(&["cp", disk, &dir.str(name)])?;
        }
        let server = iscsi::Server::new(&dir);
        server.unit(1, "full", None, "thin_provisioning=1");
        server.unit(2, "new", None, "thin_provisioning=1");
        let way = Way {
            driver: "iscsi",
            inside: &[],
            options: &[],
            from: &server.url(1),
            to: out,
            target: 0.8,
            output: Some(out),
            before: &[],
        };
        let copy = line(&["cp", &dir.str("full"), out]);
        self.row(names[0], &way, ("cp", &copy, NO_TARGET))?;
        let way = Way {
            options: &["-n"],
            from: disk,
            to: &server.url(2),
            output: None,
            ..way
        };
        let copy = line(&["cp", disk, &dir.str("copy")]);
        self.row(names[1], &way, ("cp", &copy, NO_TARGET))?;
        self.holds_the_disk(&dir.str("new"))
    }

    /// Beside a mount by the client of GlusterFS itself.
    fn gluster(&self) -> Result<(), String> {
        let names = ["gluster to raw", "raw to gluster"];
        if !self.wants(&names) || gluster::gluster_is_missing() {
            return Ok(());
        }
        let (disk, out) = (self.disk.as_str(), self.out.as_str());
        let dir = Dir::new();
        let server = gluster::Server::new(&dir);
        let url = |name: &str| format!("gluster://{}/v/{name}", gluster::HOST);
        let mounted = |name: &str| {
            let path = server.seen(&dir.path(&format!("mounted/{name}")));
            path.display().to_string()
        };
        run::quiet(&["cp", disk, &mounted("disk")])?;
        let way = Way {
            driver: "gluster",
            inside: &server.inside(),
            options: &[],
            from: &url("disk"),
            to: out,
            target: 0.8,
            output: Some(out),
            before: &[],
        };
        let copy = line(&["cp", &mounted("disk"), out]);
        self.row(names[0], &way, ("cp from a mount", &copy, 0.8))?;
        let way = Way {
            from: disk,
            to: &url("new"),
            output: None,
            ..way
        };
        let copy = line(&["cp", disk, &mounted("copy")]);
        self.row(names[1], &way, ("cp to a mount", &copy, 0.8))?;
        match Path::new(&dir.path("brick/new")).exists() {
            true => self.holds_the_disk(&dir.str("brick/new")),
            false => Ok(()),
        }
    }
}
