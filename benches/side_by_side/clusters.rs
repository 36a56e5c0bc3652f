//! Images on a Ceph cluster, an NFS server, an iSCSI target and a volume of GlusterFS on the loopback interface, against
//! the clients of those projects: QEMU's modules for them are in no package here.

use std::path::Path;

use crate::common::Dir;
use crate::rows::{Row, measure_row, wanted};
use crate::{Setup, cluster, gluster, iscsi, nfs, run};

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

/// A command line, in owned words.
fn line<S: AsRef<str>>(words: &[S]) -> Vec<String> {
    words.iter().map(|word| word.as_ref().to_owned()).collect()
}

impl Bench<'_> {
    fn wants(&self, names: &[&str]) -> bool {
        names.iter().any(|name| wanted(self.setup, name))
    }

    /// The tool's conversion from raw to raw, in the network that `inside` leads to.
    fn convert(&self, inside: &[String], options: &[&str], from: &str, to: &str) -> Vec<String> {
        let tool = std::fs::canonicalize(&self.setup.platter);
        let tool = tool.map_or(self.setup.platter.clone(), |path| {
            path.display().to_string()
        });
        let words = [
            &[tool.as_str(), "convert", "-f", "raw", "-O", "raw"],
            options,
            &[from, to],
        ];
        [inside.to_vec(), line(&words.concat())].concat()
    }

    /// One row; `output` is the file that both make, where it is one here.
    fn row(
        &self,
        name: &str,
        ours: &[String],
        (against, theirs, target): (&str, &[String], f64),
        output: Option<&str>,
        before: &[String],
    ) -> Result<(), String> {
        fn words(line: &[String]) -> Vec<&str> {
            line.iter().map(String::as_str).collect()
        }
        measure_row(
            self.setup,
            &Row {
                name,
                ours: words(ours),
                theirs: vec![(against, words(theirs), target)],
                output,
                format: Some("raw"),
                equals: None,
                over: false,
                before: words(before),
            },
        )
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
        self.row(
            names[0],
            &self.convert(&[], &[], &cluster.name("disk"), out),
            ("rbd export", &rbd(&["export", "rbd/disk", out]), 1.2),
            Some(out),
            &[],
        )?;
        cluster.rbd("rm --no-progress rbd/disk");
        let gone = format!("rbd -c {conf} --no-progress rm rbd/new 2>/dev/null || true");
        self.row(
            names[1],
            &self.convert(&[], &[], disk, &cluster.name("new")),
            ("rbd import", &rbd(&["import", disk, "rbd/new"]), 1.2),
            None,
            &line(&["sh", "-c", &gone]),
        )
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
        let copy = |from: &str, to: &str| [inside.to_vec(), line(&["nfs-cp", from, to])].concat();
        run::quiet(&["cp", disk, &dir.str("exp/disk")])?;
        let here = std::fs::canonicalize(&self.setup.dir).map_err(|e| e.to_string())?;
        let there = here.join("out.raw").display().to_string();
        self.row(
            names[0],
            &self.convert(&inside, &[], &url("disk"), &there),
            ("nfs-cp", &copy(&url("disk"), &there), 0.8),
            Some(out),
            &[],
        )?;
        // nfs-cp goes over no file that is there, and the server does not see at once that one is gone.
        let fresh = |line: &[String]| {
            let each = ["sh", "-c", "exec \"$@$$\"", "sh"].map(str::to_owned);
            [inside.to_vec(), each.to_vec(), line.to_vec()].concat()
        };
        let gone = format!("rm -f {}.*", dir.str("exp/new"));
        self.row(
            names[1],
            &fresh(&self.convert(&[], &[], disk, &url("new."))),
            (
                "nfs-cp",
                &fresh(&line(&["nfs-cp", disk, &url("new.")])),
                0.8,
            ),
            None,
            &line(&["sh", "-c", &gone]),
        )
    }

    /// No tool of libiscsi's copies, so this is beside a copy of the file behind the target.
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
        self.row(
            names[0],
            &self.convert(&[], &[], &server.url(1), out),
            ("cp", &line(&["cp", &dir.str("full"), out]), NO_TARGET),
            Some(out),
            &[],
        )?;
        self.row(
            names[1],
            &self.convert(&[], &["-n"], disk, &server.url(2)),
            ("cp", &line(&["cp", disk, &dir.str("copy")]), NO_TARGET),
            None,
            &[],
        )?;
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
        let inside = server.inside();
        let url = |name: &str| format!("gluster://{}/v/{name}", gluster::HOST);
        let mounted = |name: &str| {
            let path = server.seen(&dir.path(&format!("mounted/{name}")));
            path.display().to_string()
        };
        run::quiet(&["cp", disk, &mounted("disk")])?;
        self.row(
            names[0],
            &self.convert(&inside, &[], &url("disk"), out),
            (
                "cp from a mount",
                &line(&["cp", &mounted("disk"), out]),
                0.8,
            ),
            Some(out),
            &[],
        )?;
        self.row(
            names[1],
            &self.convert(&inside, &[], disk, &url("new")),
            ("cp to a mount", &line(&["cp", disk, &mounted("copy")]), 0.8),
            None,
            &[],
        )?;
        match Path::new(&dir.path("brick/new")).exists() {
            true => self.holds_the_disk(&dir.str("brick/new")),
            false => Ok(()),
        }
    }
}
