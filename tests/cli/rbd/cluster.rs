//! A cluster of Ceph with one monitor and one object store, in memory unless it is to be started again. One in memory is
//! started by the first test that needs it and ended with the process of the tests.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Ran, run_in};
use crate::ports;

/// What the tests use of Ceph.
const PROGRAMS: [&str; 6] = [
    "ceph",
    "ceph-authtool",
    "ceph-mon",
    "ceph-osd",
    "monmaptool",
    "rbd",
];

/// Whether tests with a cluster have to be left out.
pub fn ceph_is_missing() -> bool {
    let found = |name: &&str| {
        ["/usr/bin", "/usr/sbin", "/bin"]
            .iter()
            .any(|directory| Path::new(directory).join(name).exists())
    };
    let missing = !PROGRAMS.iter().all(found);
    if missing {
        eprintln!(
            "LEFT OUT: tests of rbd need ceph-mon, ceph-osd, ceph-common and librbd1 (ci/setup.sh)"
        );
    }
    missing
}

/// Where an object store has its objects.
#[derive(Clone, Copy)]
enum Store {
    Memory,
    /// From where another process takes them up.
    Disk,
}

impl Store {
    fn settings(self) -> &'static str {
        match self {
            Self::Memory => "osd objectstore = memstore\nmemstore device bytes = 2147483648\n",
            Self::Disk => "osd objectstore = bluestore\nbluestore block size = 2147483648\n",
        }
    }
}

/// A server, which ends with its keeper.
struct Server {
    keeper: Child,
    pid: String,
}

/// A running cluster.
pub struct Cluster {
    root: PathBuf,
    port: u16,
    servers: Vec<Server>,
}

/// The cluster that the tests share; only what the test made itself is to be touched.
pub fn shared() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::new)
}

/// A name that no other test uses.
pub fn fresh() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("i{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Cluster {
    /// A new one, on the loopback interface, with users and files of its own.
    pub fn new() -> Self {
        Self::with(Store::Memory)
    }

    /// One whose object store can be killed and started again.
    pub fn on_disk() -> Self {
        Self::with(Store::Disk)
    }

    fn with(store: Store) -> Self {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match Self::try_new(store, deadline) {
                Ok(cluster) => return cluster,
                Err(reason) => assert!(Instant::now() < deadline, "no cluster: {reason}"),
            }
        }
    }

    fn try_new(store: Store, deadline: Instant) -> Result<Self, String> {
        // Short, for the names of its sockets are.
        let root = tempfile::Builder::new()
            .prefix("platter-ceph-")
            .tempdir_in("/tmp")
            .map_err(|error| error.to_string())?
            .keep();
        let mut cluster = Self {
            root,
            port: ports::free(),
            servers: Vec::new(),
        };
        let id = "5d1d2c4e-6f0a-4a3c-8a44-3a8d5b9b7c01";
        let uuid = "0b8d4a52-2f0c-4d53-9a0e-0d5f4d2a9e02";
        cluster.configure(id, store)?;
        let root = cluster.root.display().to_string();
        let keyring = format!("{root}/keyring");
        for (first, rest) in [
            ("--create-keyring", "-n mon. --cap mon allow_*"),
            ("", "-n client.admin --cap mon allow_* --cap osd allow_*"),
            ("", "-n osd.0 --cap mon allow_profile_osd --cap osd allow_*"),
            (
                "",
                "-n client.img --cap mon profile_rbd --cap osd profile_rbd",
            ),
        ] {
            let mut args = vec![keyring.clone(), "--gen-key".to_owned()];
            args.extend(first.split_whitespace().map(str::to_owned));
            args.extend(rest.split_whitespace().map(|word| word.replace('_', " ")));
            cluster.done("ceph-authtool", &args)?;
        }
        let address = format!("[v2:127.0.0.1:{}/0]", cluster.port);
        let map = format!("{root}/monmap");
        cluster.line(
            "monmaptool",
            &format!("--create --fsid {id} --addv a {address} {map}"),
        )?;
        let made = format!("-i a --mkfs --monmap {map} --keyring {keyring}");
        cluster.line("ceph-mon", &made)?;
        let monitor = cluster.start("ceph-mon", &["-f", "-i", "a"])?;
        cluster.servers.push(monitor);
        cluster.line("ceph", &format!("osd new {uuid} 0"))?;
        cluster.line("ceph-osd", &format!("-i 0 --mkfs --osd-uuid {uuid}"))?;
        let store = cluster.start("ceph-osd", &["-f", "-i", "0"])?;
        cluster.servers.push(store);
        while !cluster.line("ceph", "osd stat")?.contains("1 up") {
            if Instant::now() >= deadline {
                return Err("the object store does not come up".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        cluster.line("ceph", "osd pool create rbd 8 8")?;
        cluster.line("rbd", "pool init rbd")?;
        Ok(cluster)
    }

    fn configure(&self, id: &str, store: Store) -> Result<(), String> {
        let (root, port, store) = (self.root.display(), self.port, store.settings());
        for directory in ["mon", "osd", "run"] {
            std::fs::create_dir(self.root.join(directory)).map_err(|error| error.to_string())?;
        }
        let text = format!(
            "[global]\nfsid = {id}\nmon host = [v2:127.0.0.1:{port}/0]\n\
             public network = 127.0.0.0/8\nauth cluster required = cephx\n\
             auth service required = cephx\nauth client required = cephx\n\
             osd pool default size = 1\nosd pool default min size = 1\n\
             osd pool default pg autoscale mode = off\nosd crush chooseleaf type = 0\n\
             mon allow pool delete = true\nmon warn on pool no redundancy = false\n\
             ms bind ipv6 = false\nms bind msgr1 = false\nms max backoff = 1\nrun dir = {root}/run\n\
             admin socket = {root}/run/$name.$pid.asok\nlog file = {root}/$name.log\n\
             pid file = {root}/run/$name.pid\nkeyring = {root}/keyring\n\
             [client]\nadmin socket =\nlog file =\n\
             [mon]\nmon data = {root}/mon\nmon initial members = a\nmon data avail warn = 1\n\
             mon data avail crit = 1\npaxos propose interval = 0.05\npaxos min wait = 0.01\n\
             mon osd min down reporters = 1\nauth allow insecure global id reclaim = false\n\
             [mon.a]\nhost = localhost\n\
             [osd]\nosd data = {root}/osd\n{store}[osd.0]\nhost = localhost\n"
        );
        std::fs::write(self.root.join("ceph.conf"), text).map_err(|error| error.to_string())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("CEPH_CONF", self.root.join("ceph.conf"))
            .env_remove("CEPH_ARGS")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir(&self.root)
            .stdin(Stdio::null());
        command
    }

    fn start(&self, program: &str, args: &[&str]) -> Result<Server, String> {
        // Its keeper ends it when this process has ended in whatever way, for then the pipe is closed.
        let script = format!(
            "\"$@\" </dev/null >/dev/null 2>&1 & echo $!; read -r how && {{ wait; exit; }}; \
             kill -9 $! 2>/dev/null; wait; rm -rf {}",
            self.root.display()
        );
        let mut keeper = self.command("sh");
        keeper.args(["-c", &script, "sh", program]).args(args);
        keeper.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = keeper.spawn().map_err(|error| error.to_string())?;
        let mut number = String::new();
        let out = keeper.stdout.take().ok_or("no output")?;
        let mut out = BufReader::new(out);
        out.read_line(&mut number)
            .map_err(|error| error.to_string())?;
        Ok(Server {
            keeper,
            pid: number.trim().to_owned(),
        })
    }

    fn done(&self, program: &str, args: &[String]) -> Result<String, String> {
        let out = self.command(program).args(args).output();
        let out = out.map_err(|error| format!("{program}: {error}"))?;
        match out.status.success() {
            true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
            false => Err(format!(
                "{program} {args:?}: {}",
                String::from_utf8_lossy(&out.stderr)
            )),
        }
    }

    fn line(&self, program: &str, line: &str) -> Result<String, String> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        self.done(program, &args)
    }

    /// Runs Ceph's own tool; what it prints.
    #[track_caller]
    pub fn rbd(&self, line: &str) -> String {
        self.line("rbd", line).expect("the tool of rbd")
    }

    /// Removes an image; whoever had it open and was ended counts as there for up to half a minute.
    #[track_caller]
    pub fn remove(&self, image: &str) {
        let late = Instant::now() + Duration::from_secs(90);
        let line = format!("rm --no-progress rbd/{image}");
        while let Err(told) = self.line("rbd", &line) {
            assert!(told.contains("still has watchers"), "{told}");
            assert!(Instant::now() < late, "{told}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The file with its settings.
    pub fn conf(&self) -> String {
        self.root.join("ceph.conf").display().to_string()
    }

    /// The name of an image in the pool `rbd`.
    pub fn name(&self, image: &str) -> String {
        format!("rbd:rbd/{image}:conf={}", self.conf())
    }

    /// The port of the monitor, which is on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The key of a user.
    pub fn key(&self, user: &str) -> String {
        let keyring = self.root.join("keyring").display().to_string();
        let key = self.line("ceph-authtool", &format!("-p -n {user} {keyring}"));
        key.expect("a key").trim().to_owned()
    }

    /// Sends a signal to the object store.
    pub fn signal_store(&self, signal: &str) {
        let store = self.servers.last().expect("the object store");
        self.signal(store, signal);
    }

    /// Sends a signal to the monitor.
    pub fn signal_monitor(&self, signal: &str) {
        let monitor = self.servers.first().expect("the monitor");
        self.signal(monitor, signal);
    }

    /// Kills the object store, then the monitor.
    pub fn kill(&self) {
        for server in self.servers.iter().rev() {
            self.signal(server, "-KILL");
        }
    }

    fn signal(&self, server: &Server, signal: &str) {
        let ran: Ran = run_in(&self.root, "kill", &[signal, &server.pid]);
        assert_eq!(ran.code, 0, "{ran:?}");
    }

    /// Starts the object store again that was killed.
    #[track_caller]
    pub fn start_store_again(&mut self) {
        let mut killed = self.servers.pop().expect("the object store");
        let mut keeper = killed.keeper.stdin.take().expect("an input");
        keeper.write_all(b"killed\n").expect("a keeper");
        // The next one takes its files, which it holds until it has ended.
        killed.keeper.wait().expect("its end");
        let store = self.start("ceph-osd", &["-f", "-i", "0"]);
        self.servers.push(store.expect("the object store"));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in &mut self.servers {
            drop(server.keeper.stdin.take());
            let _ = server.keeper.wait();
        }
    }
}
