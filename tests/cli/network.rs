//! Every command over every protocol with a disk of 1.25 GiB, whose bytes another client of the protocol judges, and
//! transfers whose connections end again and again. These take minutes: `make network` runs them. With a disk of 1 GiB,
//! most of which is holes, each takes seconds.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::{Dir, Ran, Random, run_in};
use crate::faulty::{Fault, Proxy};
use crate::pair::{ours_command, words};
use crate::remote_faults::end_of;
use crate::site::Serves as _;
use crate::tls::certificates;
use crate::{ftp, gluster, http, iscsi, nbd, nfs, rbd, ssh};

const MIB: u64 = 1 << 20;
/// The length of the disk; about a quarter of it holds data.
const LEN: u64 = 1280 * MIB;

/// The length of a disk that is read in seconds; a sixteenth of it holds data.
const THIN: u64 = 1024 * MIB;

/// A disk no two pieces of which are alike, one in `every` MiB, with holes that end within the clusters and objects of
/// most formats and servers.
fn disk(dir: &Dir, name: &str, len: u64, every: u64) {
    let file = std::fs::File::create(dir.path(name)).expect("a disk");
    file.set_len(len).expect("its length");
    let mut random = Random(41);
    let mut piece: Vec<u8> = (0..MIB / 8)
        .flat_map(|_| random.next().to_le_bytes())
        .collect();
    for number in 0..len / (every * MIB) {
        let at = number * every * MIB + (number % 7) * (12 << 10);
        for (sector, bytes) in piece.chunks_exact_mut(4096).enumerate() {
            bytes[..8].copy_from_slice(&(at + sector as u64).to_le_bytes());
        }
        std::os::unix::fs::FileExt::write_all_at(&file, &piece, at).expect("data");
    }
}

/// What the images of a protocol stand in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Files that are only read.
    Given,
    /// Files.
    Files,
    /// Images, which are made where there is none alone.
    Images,
    /// Devices, which have the length that they have: `r` of that of the disk, and `q`, which is longer.
    Devices,
}

/// A protocol: a server, the tool, and another client.
struct Far<'a> {
    kind: Kind,
    /// How long the disk is.
    len: u64,
    dir: &'a Dir,
    /// The name of an image on the server.
    name: &'a dyn Fn(&str) -> String,
    /// The tool.
    tool: &'a dyn Fn(&str) -> Command,
    /// Has the other client copy an image of the server into a file here.
    fetch: &'a dyn Fn(&str, &Path),
}

/// Runs what must succeed.
#[track_caller]
fn done(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}

impl Far<'_> {
    /// Runs a line in which `U/NAME` stands for an image on the server.
    fn run(&self, line: &str) -> Ran {
        let words = line.split(' ').map(|word| match word.strip_prefix("U/") {
            Some(name) => (self.name)(name),
            None => word.to_owned(),
        });
        let line = words.collect::<Vec<_>>().join(" ");
        let output = (self.tool)(&line).output().expect("the tool");
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    fn ran(&self, line: &str) -> String {
        let ran = self.run(line);
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
        ran.out
    }

    #[track_caller]
    fn refuses(&self, line: &str) {
        let ran = self.run(line);
        assert_eq!(ran.code, 1, "{line}: {ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{line}: {ran:?}");
    }

    /// Two files here are the same, byte for byte; the first one goes away.
    #[track_caller]
    fn same(&self, name: &str, as_in: &str) {
        let len = |name: &str| {
            std::fs::metadata(self.dir.path(name))
                .expect("a file")
                .len()
        };
        assert_eq!(len(name), len(as_in), "{name}");
        // QEMU's tool does not read the holes of both, which `cmp` takes seconds for.
        let compare = format!("compare -q -f raw -F raw {name} {as_in}");
        self.dir.qemu_img_ok(&words(&compare));
        std::fs::remove_file(self.dir.path(name)).expect("a file");
    }

    /// An image of QEMU's tool's here holds the disk and contradicts nothing.
    #[track_caller]
    fn holds(&self, name: &str) {
        self.dir
            .qemu_img_ok(&words(&format!("check -q -f qcow2 {name}")));
        let compare = format!("compare -q -f qcow2 -F raw {name} a.raw");
        self.dir.qemu_img_ok(&words(&compare));
    }

    /// The file `seen` is what the other client has of an image.
    #[track_caller]
    fn see(&self, name: &str) {
        let seen = self.dir.path("seen");
        let _ = std::fs::remove_file(&seen);
        (self.fetch)(name, &seen);
    }

    /// What is told of `U/r` and `U/q` is what is told of the same bytes here: those of the disk and the file `seen`.
    #[track_caller]
    fn tells(&self) {
        for (name, format) in [("r", "raw"), ("q", "qcow2")] {
            let info = self.ran(&format!("info -f {format} U/{name}"));
            let gib = self.len as f64 / f64::from(1 << 30);
            let size = format!("virtual size: {gib} GiB ({} bytes)", self.len);
            assert!(info.contains(&size), "{info}");
            self.ran(&format!("compare -f {format} -F raw U/{name} a.raw"));
        }
        for command in ["map --output=json", "check", "measure -O qcow2"] {
            let there = self.ran(&format!("{command} -f qcow2 U/q"));
            let here = self.ran(&format!("{command} -f qcow2 seen"));
            assert_eq!(there, here, "{command}");
        }
        // A server may not tell where a raw image has holes; ranges of the same kind become the same image.
        self.ran("map --output=json -f raw U/r");
        self.ran("measure -f raw -O qcow2 U/r");
    }

    /// From the server: both images become others here.
    #[track_caller]
    fn gives(&self) {
        self.ran("convert -f qcow2 -O raw U/q out");
        self.same("out", "a.raw");
        self.ran("convert -f raw -O qcow2 U/r out");
        self.holds("out");
        std::fs::remove_file(self.dir.path("out")).expect("a file");
        let base = (self.name)("q");
        self.ran(&format!("create -q -f qcow2 -b {base} -F qcow2 over"));
        self.ran("resize -q -f qcow2 over 2G");
        self.ran(&format!("resize -q --shrink -f qcow2 over {}", self.len));
        self.ran("compare -f qcow2 -F raw over a.raw");
    }

    fn every_command(&self) {
        let exists = self.dir.path("a.raw").exists();
        assert!(exists, "the disk comes first");
        if self.kind == Kind::Given {
            self.see("r");
            self.same("seen", "a.raw");
            self.see("q");
            self.tells();
            self.same("seen", "q");
            self.gives();
            self.refuses("resize -f qcow2 U/q 2G");
            self.refuses("create -f raw U/new 1G");
            return;
        }
        let onto = match self.kind {
            Kind::Devices => "-n ",
            _ => "",
        };
        self.ran(&format!("convert {onto}-f raw -O raw a.raw U/r"));
        self.see("r");
        self.same("seen", "a.raw");
        if self.kind == Kind::Devices {
            self.ran(&format!("create -q -f qcow2 U/q {}", self.len));
        }
        self.ran(&format!("convert {onto}-f raw -O qcow2 a.raw U/q"));
        self.see("q");
        self.holds("seen");
        self.tells();
        self.gives();
        self.ran("resize -q -f qcow2 U/q 1536M");
        self.ran(&format!("resize -q --shrink -f qcow2 U/q {}", self.len));
        self.see("q");
        self.holds("seen");
        if self.kind == Kind::Devices {
            self.refuses("resize -f raw U/r 2G");
        } else {
            self.ran("resize -q -f raw U/r 1536M");
            self.ran(&format!("resize -q -f raw --shrink U/r {}", self.len));
            self.see("r");
            self.same("seen", "a.raw");
            self.ran("create -q -f raw U/e 1G");
            self.see("e");
            let meta = std::fs::metadata(self.dir.path("seen")).expect("a file");
            assert_eq!(meta.len(), 1 << 30);
        }
        // Over what is there, where that may be.
        if self.kind == Kind::Images {
            return self.refuses("create -q -f qcow2 U/q 1G");
        }
        self.ran("create -q -f qcow2 U/q 1G");
        self.see("q");
        self.dir.qemu_img_ok(&words("check -q -f qcow2 seen"));
        let info = self.dir.qemu_img_ok(&words("info -f qcow2 seen"));
        assert!(info.contains("virtual size: 1 GiB"), "{info}");
    }
}

/// Where the disk is to be read in seconds, another client copies each image once; later it is looked at where the server
/// has it.
fn seldom<'a>(
    len: u64,
    files: PathBuf,
    copy: &'a dyn Fn(&str, &Path),
) -> impl Fn(&str, &Path) + 'a {
    let copied = RefCell::new(Vec::new());
    move |name, to| {
        let is_known = copied.borrow().iter().any(|known| known == name);
        if len == THIN && (is_known || name == "e") {
            return std::fs::hard_link(files.join(name), to).expect("a link");
        }
        copied.borrow_mut().push(name.to_owned());
        copy(name, to);
    }
}

/// A directory with the disk.
fn with_disk() -> Dir {
    let dir = Dir::new();
    disk(&dir, "a.raw", LEN, 4);
    dir
}

/// One with that which is read in seconds.
fn with_thin_disk() -> Dir {
    let dir = Dir::new();
    disk(&dir, "a.raw", THIN, 16);
    dir
}

/// What a server that only gives has: the disk as a raw image and as qcow2.
fn with_images(dir: Dir) -> Dir {
    std::fs::hard_link(dir.path("a.raw"), dir.path("r")).expect("a link");
    dir.qemu_img_ok(&words("convert -f raw -O qcow2 a.raw q"));
    dir
}

/// `curl` copies a file of a server whose certificate that authority has signed.
fn curl(url: &str, authority: &Path, to: &Path) {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--fail", "--cacert"]).arg(authority);
    done(curl.arg("-o").arg(to).arg(url));
}

/// Every command over the names of a server that only gives.
fn every_command_reads(dir: &Dir, made: &Path, name: &dyn Fn(&str) -> String) {
    let authority = made.join("ca.pem");
    let len = std::fs::metadata(dir.path("a.raw"))
        .expect("the disk")
        .len();
    Far {
        kind: Kind::Given,
        len,
        dir,
        name,
        tool: &|line| {
            let mut command = ours_command(&words(line), dir.root());
            command.env("SSL_CERT_FILE", &authority);
            command.env_remove("SSL_CERT_DIR");
            command
        },
        fetch: &|image, to| curl(&name(image), &authority, to),
    }
    .every_command();
}

#[test]
#[ignore = "takes a minute: make network"]
fn http_and_https() {
    let Some(made) = certificates() else { return };
    if http::server::nginx_is_missing() {
        return;
    }
    let dir = with_images(with_disk());
    let server = http::server::Server::new(&dir, made.path());
    every_command_reads(&dir, made.path(), &|name| server.url(name));
    every_command_reads(&dir, made.path(), &|name| server.tls(name));
}

#[test]
fn every_command_over_http_with_a_gibibyte() {
    let Some(made) = certificates() else { return };
    if http::server::nginx_is_missing() {
        return;
    }
    let dir = with_images(with_thin_disk());
    let server = http::server::Server::new(&dir, made.path());
    every_command_reads(&dir, made.path(), &|name| server.url(name));
}

#[test]
fn every_command_over_ftp_with_a_gibibyte() {
    let Some(made) = certificates() else { return };
    if ftp::server::server_is_left_out() {
        return;
    }
    let dir = with_images(with_thin_disk());
    let server = ftp::server::Server::new(&dir, made.path());
    every_command_reads(&dir, made.path(), &|name| server.url(name));
}

#[test]
#[ignore = "takes a minute: make network"]
fn ftp_and_ftps() {
    let Some(made) = certificates() else { return };
    if ftp::server::server_is_left_out() {
        return;
    }
    let dir = with_images(with_disk());
    let server = ftp::server::Server::new(&dir, made.path());
    every_command_reads(&dir, made.path(), &|name| server.url(name));
    every_command_reads(&dir, made.path(), &|name| server.tls(name));
}

#[test]
#[ignore = "takes a minute: make network"]
fn ssh() {
    if ssh::server::sshd_is_missing() {
        return;
    }
    every_command_over_ssh(with_disk(), LEN);
}

#[test]
fn every_command_over_ssh_with_a_gibibyte() {
    if !ssh::server::sshd_is_missing() {
        every_command_over_ssh(with_thin_disk(), THIN);
    }
}

fn every_command_over_ssh(dir: Dir, len: u64) {
    let server = ssh::server::Server::new(&dir);
    std::fs::create_dir(dir.path("far")).expect("a directory");
    let copy = |name: &str, to: &Path| {
        let mut sftp = Command::new("sftp");
        sftp.args(["-q", "-P", &server.port.to_string(), "-i", &dir.str("id")]);
        sftp.args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ]);
        let from = format!("root@127.0.0.1:{}", dir.path("far").join(name).display());
        done(sftp.arg(from).arg(to));
    };
    Far {
        kind: Kind::Files,
        len,
        dir: &dir,
        name: &|name| server.url(&format!("far/{name}")),
        tool: &|line| ours_command(&words(line), dir.root()),
        fetch: &seldom(len, dir.path("far"), &copy),
    }
    .every_command();
}

#[test]
#[ignore = "takes a minute: make network"]
fn iscsi() {
    if !iscsi::server::tgtd_is_missing() {
        every_command_over_iscsi(&with_disk(), LEN);
    }
}

#[test]
fn every_command_over_iscsi_with_a_gibibyte() {
    if !iscsi::server::tgtd_is_missing() {
        every_command_over_iscsi(&with_thin_disk(), THIN);
    }
}

fn every_command_over_iscsi(dir: &Dir, len: u64) {
    for (name, len) in [("unit.r", len), ("unit.q", len + 128 * MIB)] {
        let file = std::fs::File::create(dir.path(name)).expect("a unit");
        file.set_len(len).expect("its length");
        // What must not be left of what was there.
        std::os::unix::fs::FileExt::write_all_at(&file, &[0xa5; 64 << 10], 2 * MIB + 512)
            .expect("data");
    }
    let server = iscsi::server::Server::new(dir);
    server.unit(1, "unit.r", None, "thin_provisioning=1");
    server.unit(2, "unit.q", Some(4096), "");
    let name = |name: &str| server.url(if name == "r" { 1 } else { 2 });
    Far {
        kind: Kind::Devices,
        len,
        dir,
        name: &name,
        tool: &|line| ours_command(&words(line), dir.root()),
        // No tool of libiscsi's copies: they tell the length, and the bytes are those behind the server.
        fetch: &|image, to| {
            let file = dir.path(&format!("unit.{image}"));
            let told = run_in(dir.root(), "iscsi-readcapacity16", &[name(image)]);
            let len = std::fs::metadata(&file).expect("a unit").len();
            let is_told = told.out.contains(&format!("Total size:{len}"));
            assert!(is_told, "{told:?}");
            done(Command::new("cp").arg(&file).arg(to));
        },
    }
    .every_command();
}

/// A server of NBD.
struct NbdServer {
    program: &'static str,
    /// What it calls its export.
    export: &'static str,
    /// Begins to serve a file.
    start: fn(&Dir, &str) -> nbd::server::Server,
}

const NBD_SERVERS: [NbdServer; 4] = [
    NbdServer {
        program: "qemu-nbd",
        export: "",
        start: |dir, file| {
            let args = ["-f", "raw", "-e", "8", "--discard=unmap", file];
            nbd::server::Server::qemu_nbd(dir, file, &args)
        },
    },
    NbdServer {
        program: "nbdkit",
        export: "",
        start: |dir, file| {
            nbd::server::Server::nbdkit(dir, file, &["file".to_owned(), file.to_owned()])
        },
    },
    NbdServer {
        program: "nbd-server",
        export: "e",
        start: nbd::server::Server::nbd_server,
    },
    NbdServer {
        program: "qemu-storage-daemon",
        export: "e",
        start: nbd::server::Server::qemu_storage_daemon,
    },
];

#[test]
#[ignore = "takes a minute: make network"]
fn nbd() {
    every_command_over_each_nbd_server(&with_disk(), LEN);
}

#[test]
fn every_command_over_nbd_with_a_gibibyte() {
    every_command_over_each_nbd_server(&with_thin_disk(), THIN);
}

fn every_command_over_each_nbd_server(dir: &Dir, len: u64) {
    if nbd::server::is_missing("nbdcopy") {
        return;
    }
    for server in &NBD_SERVERS {
        if !nbd::server::is_missing(server.program) {
            eprintln!("{}", server.program);
            every_command_over_nbd(dir, len, server);
        }
    }
}

fn every_command_over_nbd(dir: &Dir, len: u64, server: &NbdServer) {
    let servers = [("r", len), ("q", len + 128 * MIB)].map(|(name, len)| {
        let file = format!("export.{name}");
        std::fs::write(dir.path(&file), vec![0xa5; 3 << 20]).expect("an export");
        let export = std::fs::OpenOptions::new()
            .write(true)
            .open(dir.path(&file));
        export
            .and_then(|file| file.set_len(len))
            .expect("its length");
        (server.start)(dir, &file)
    });
    let name = |name: &str| servers[usize::from(name == "q")].url(server.export);
    Far {
        kind: Kind::Devices,
        len,
        dir,
        name: &name,
        tool: &|line| ours_command(&words(line), dir.root()),
        fetch: &|image, to| done(Command::new("nbdcopy").arg(name(image)).arg(to)),
    }
    .every_command();
}

#[test]
#[ignore = "takes a minute: make network"]
fn nfs() {
    if !nfs::server::ganesha_is_missing() {
        every_command_over_nfs(&with_disk(), LEN);
    }
}

#[test]
fn every_command_over_nfs_with_a_gibibyte() {
    if !nfs::server::ganesha_is_missing() {
        every_command_over_nfs(&with_thin_disk(), THIN);
    }
}

fn every_command_over_nfs(dir: &Dir, len: u64) {
    let server = nfs::server::Server::new(dir);
    let name = |name: &str| format!("nfs://127.0.0.1{}/exp/{name}", dir.root().display());
    let copy = |image: &str, to: &Path| {
        let to = to.display().to_string();
        done(&mut server.command(dir, "nfs-cp", &[&name(image), &to]));
    };
    Far {
        kind: Kind::Files,
        len,
        dir,
        name: &name,
        tool: &|line| server.tool(dir, line),
        fetch: &seldom(len, dir.path("exp"), &copy),
    }
    .every_command();
}

#[test]
#[ignore = "takes a minute: make network"]
fn rbd() {
    if !rbd::cluster::ceph_is_missing() {
        every_command_over_rbd(&with_disk(), LEN);
    }
}

#[test]
fn every_command_over_rbd_with_a_gibibyte() {
    if !rbd::cluster::ceph_is_missing() {
        every_command_over_rbd(&with_thin_disk(), THIN);
    }
}

fn every_command_over_rbd(dir: &Dir, len: u64) {
    let cluster = rbd::cluster::shared();
    let suffix = rbd::cluster::fresh();
    let own = |name: &str| format!("{name}-{suffix}");
    Far {
        kind: Kind::Images,
        len,
        dir,
        name: &|name| cluster.name(&own(name)),
        tool: &|line| ours_command(&words(line), dir.root()),
        fetch: &|name, to| {
            let name = own(name);
            cluster.rbd(&format!("export --no-progress rbd/{name} {}", to.display()));
        },
    }
    .every_command();
    for name in ["r", "q", "e"] {
        cluster.rbd(&format!("rm --no-progress rbd/{}", own(name)));
    }
}

#[test]
#[ignore = "takes a minute: make network"]
fn gluster() {
    if !gluster::server::gluster_is_missing() {
        every_command_over_gluster(&with_disk(), LEN);
    }
}

#[test]
fn every_command_over_gluster_with_a_gibibyte() {
    if !gluster::server::gluster_is_missing() {
        every_command_over_gluster(&with_thin_disk(), THIN);
    }
}

fn every_command_over_gluster(dir: &Dir, len: u64) {
    let server = gluster::server::Server::new(dir);
    let copy = |name: &str, to: &Path| {
        let mounted = server.seen(&dir.path("mounted").join(name));
        done(Command::new("cp").arg(mounted).arg(to));
    };
    Far {
        kind: Kind::Files,
        len,
        dir,
        name: &|name| format!("gluster://{}/v/{name}", gluster::server::HOST),
        tool: &|line| server.tool(dir, line),
        fetch: &seldom(len, dir.path("brick"), &copy),
    }
    .every_command();
}

/// Transfers over a port of nginx through connections which all end, again and again.
fn transfers(https: bool) {
    let Some(site) = http::site() else { return };
    let port = match https {
        true => site.server.encrypted(),
        false => site.server.plain(),
    };
    let mut random = Random(7);
    let proxy = Proxy::new(port, false);
    let base = match https {
        true => format!("https://localhost:{}", proxy.port),
        false => format!("http://127.0.0.1:{}", proxy.port),
    };
    for number in 0..200 {
        let (image, format) =
            [("a.raw", "raw"), ("a.qcow2", "qcow2"), ("b.qcow2", "qcow2")][number % 3];
        // Now and then, so that something always comes.
        let every = (96 << 10) + random.below(2 << 20);
        proxy.arm(Fault::EndsEach, every);
        let line = format!("convert -f {format} -O raw {base}/{image} out.raw");
        let mut command = ours_command(&words(&line), site.dir.root());
        command
            .env("SSL_CERT_FILE", site.made.path().join("ca.pem"))
            .env_remove("SSL_CERT_DIR")
            .stderr(Stdio::inherit());
        let mut child = command.spawn().expect("the tool");
        let what = format!("run {number}, {line}, each {every} bytes");
        let status = end_of(&mut child, &what);
        assert!(status.success(), "{what}: {status:?}");
        let same = run_in(site.dir.root(), "cmp", &["out.raw", "a.raw"]);
        assert_eq!(same.code, 0, "{what}: {same:?}");
    }
}

#[test]
#[ignore = "takes a minute: make network"]
fn two_hundred_transfers_over_http_whose_connections_end_hang_never_and_are_right() {
    transfers(false);
}

#[test]
#[ignore = "takes a minute: make network"]
fn two_hundred_transfers_over_https_whose_connections_end_hang_never_and_are_right() {
    transfers(true);
}
