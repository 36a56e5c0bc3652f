//! Every command on an image of a server that fails in the middle of it: the command goes on and gives what it would
//! have given, or it ends with one line and leaves nothing that looks complete.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::common::{Dir, Ran};
use crate::faulty::{Fault, Proxy};
use crate::pair::{ours, ours_command, words};
use crate::site::disk;
use crate::{ftp, http, iscsi, nfs, ssh};

/// A server, and how the tool is told of what it has behind a proxy.
struct Far<'a> {
    driver: &'static str,
    port: u16,
    /// The options of the protocol for that port and a file name.
    options: &'a (dyn Fn(u16, &str) -> String + Sync),
    /// The files of the server.
    root: &'a Path,
    /// What environment variables the tool gets.
    environment: Vec<(&'static str, String)>,
}

/// What is done with an image: `I` stands for one on the server, `A` for what it holds, here.
const READING: &[&str] = &[
    "info --image-opts I",
    "map --output=json --image-opts I",
    "check --image-opts I",
    "compare --image-opts I driver=raw,file.filename=A",
    "measure -O qcow2 --image-opts I",
    "snapshot -l --image-opts I",
    "convert -O raw --image-opts I out",
    "convert -O qcow2 --image-opts I out",
    "dd -O raw bs=256k --image-opts if=I of=out",
    "create -q -f qcow2 -b J -F qcow2 out",
    "rebase -f qcow2 -b '' over",
];

/// Seconds after which a good server has answered, however busy the machine is.
const LONG: &str = "60";

/// What comes of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Every command does what it would have done.
    Done,
    /// Some fail, and say one of these.
    Failed(&'static [&'static str]),
}

type Row = (Fault, Outcome);

impl Far<'_> {
    /// The image behind that port as it stands in a line: `I`, and `J`, which is a name.
    fn line(&self, line: &str, port: u16, timeout: &str) -> String {
        let options = (self.options)(port, "b.qcow2");
        let options = match (self.driver, timeout) {
            // This one has a time of its own, a minute.
            ("nfs", _) => options,
            ("ssh" | "iscsi", timeout) => format!("{options},timeout={timeout}"),
            // For who waits for ever, the time for which requests are made again is long too.
            (_, "0") => format!("{options},timeout=0,retry-timeout=1000"),
            // What lasts is given up soon, and what passes is waited for.
            (_, LONG) => format!("{options},timeout={LONG},retry-timeout={LONG}"),
            (_, timeout) => format!("{options},timeout={timeout},retry-timeout=1"),
        };
        let own = |prefix: &str| options.replace(',', &format!(",{prefix}"));
        let image = format!(
            "driver=qcow2,file.driver={},file.{}",
            self.driver,
            own("file.")
        );
        let pairs: Vec<String> = options
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| format!("\"file.{key}\":\"{value}\""))
            .collect();
        let name = format!(
            "json:{{\"driver\":\"qcow2\",\"file.driver\":\"{}\",{}}}",
            self.driver,
            pairs.join(",")
        );
        let here = self.root.join("a.raw").display().to_string();
        let put = |word: &str| match word {
            "I" => image.clone(),
            "if=I" => format!("if={image}"),
            "J" => name.clone(),
            word => word.replace("filename=A", &format!("filename={here}")),
        };
        words(line)
            .into_iter()
            .map(|word| {
                if word.is_empty() {
                    "''".into()
                } else {
                    put(word)
                }
            })
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn command(&self, line: &str, dir: &Dir) -> Command {
        let mut command = ours_command(&words(line), dir.root());
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command
    }

    fn run(&self, line: &str, dir: &Dir) -> Ran {
        let output = self.command(line, dir).output().expect("the tool");
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The time for which a server may be silent that is not to be: where it is that of lost sessions too, a short one.
    fn patience(&self, wanted: &'static str) -> &'static str {
        match self.driver {
            "ssh" | "iscsi" | "nfs" => "1",
            _ => wanted,
        }
    }

    /// A directory for a run of `line`, and a proxy for it.
    fn place(&self, line: &str, timeout: &str) -> (Dir, Proxy) {
        let (dir, proxy) = (
            Dir::new(),
            // Behind TLS no proxy sees where data is to come from: it comes from there.
            Proxy::new(
                self.port,
                self.driver == "ftp" && self.environment.is_empty(),
            ),
        );
        if line.starts_with("rebase") {
            let line = self.line("create -q -f qcow2 -b J -F qcow2 over", proxy.port, timeout);
            let ran = self.run(&line, &dir);
            assert_eq!(ran.code, 0, "{line}: {ran:?}");
        }
        (dir, proxy)
    }

    /// Runs a line whose server fails at a share of what it sends; true where the line fails too, and what is wrong
    /// with that.
    fn fail(
        &self,
        line: &str,
        clean: &(Ran, u64),
        eighths: u64,
        (fault, outcome): Row,
    ) -> Result<bool, String> {
        let timeout = match (outcome, fault) {
            (Outcome::Done, _) => self.patience(LONG),
            (Outcome::Failed(_), Fault::Silent) => "1",
            (Outcome::Failed(_), _) => self.patience("30"),
        };
        let (dir, proxy) = self.place(line, timeout);
        proxy.arm(fault, clean.1 * eighths / 8);
        let ran = self.run(&self.line(line, proxy.port, timeout), &dir);
        let wrong = |what: &str| {
            let driver = self.driver;
            Err(format!(
                "{what}: {driver} {line}, {fault:?} at {eighths}/8: {ran:?}"
            ))
        };
        let compare = |format: &str, name: &str| {
            let here = self.root.join("a.raw").display().to_string();
            ours(
                &["compare", "-f", format, "-F", "raw", name, &here],
                dir.root(),
            )
            .code
                == 0
        };
        let has_failed = ran.code != 0;
        match (has_failed, outcome) {
            (false, _) => {
                if ran.out.replace(&proxy.port.to_string(), "PORT") != clean.0.out {
                    return wrong("another output");
                }
                let format = if line.contains("-O qcow2 --image") {
                    "qcow2"
                } else {
                    "raw"
                };
                if line.ends_with(" out") && !line.starts_with("create") && !compare(format, "out")
                {
                    return wrong("other bytes");
                }
            }
            (true, Outcome::Done) => return wrong("failed"),
            (true, Outcome::Failed(texts)) => {
                // Of two images, 1 says that they differ.
                if (ran.code == 1) == line.starts_with("compare") {
                    return wrong("another code");
                }
                // A line of the tool's, with its cause and what helps below.
                if ran.err.matches("qemu-img: ").count() != 1 || ran.err.lines().count() > 3 {
                    return wrong("more than is to be said");
                }
                if !texts.iter().any(|text| ran.err.contains(text)) {
                    return wrong("other words");
                }
                if dir.path("out").exists() {
                    return wrong("a file is left");
                }
            }
        }
        if line.starts_with("rebase") {
            // Whatever came of it, the overlay shows what it showed.
            let base = self.root.join("b.qcow2").display().to_string();
            let put = [
                "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", &base, "over",
            ];
            if has_failed && ours(&put, dir.root()).code != 0 || !compare("qcow2", "over") {
                return wrong("the overlay has changed");
            }
        }
        Ok(has_failed)
    }

    /// What a line prints where nothing fails, and how many bytes the server sends for it.
    fn clean(&self, line: &str) -> (Ran, u64) {
        let timeout = self.patience(LONG);
        let (dir, proxy) = self.place(line, timeout);
        proxy.arm(Fault::None, 0);
        let mut ran = self.run(&self.line(line, proxy.port, timeout), &dir);
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
        ran.out = ran.out.replace(&proxy.port.to_string(), "PORT");
        (ran, proxy.came())
    }

    /// Each fault in the middle of every third line, at a place that is another one from line to line.
    fn table(&self, rows: &[Row]) {
        let clean: Vec<(Ran, u64)> = READING.iter().map(|line| self.clean(line)).collect();
        let mut tasks = VecDeque::new();
        for row in 0..rows.len() {
            for line in (0..READING.len()).filter(|line| (row + line) % 3 == 0) {
                tasks.push_back((row, line, [1, 4, 7][(row + line) % 3]));
            }
        }
        let (tasks, failed) = (Mutex::new(tasks), Mutex::new(vec![0; rows.len()]));
        let wrong = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        let task = tasks.lock().expect("the tasks").pop_front();
                        let Some((row, line, eighths)) = task else {
                            break;
                        };
                        match self.fail(READING[line], &clean[line], eighths, rows[row]) {
                            Ok(has_failed) => {
                                failed.lock().expect("the counts")[row] += usize::from(has_failed);
                            }
                            Err(what) => wrong.lock().expect("what is wrong").push(what),
                        }
                    }
                });
            }
        });
        let wrong = wrong.into_inner().expect("what is wrong");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        let failed = failed.into_inner().expect("the counts");
        for (row, failed) in rows.iter().zip(failed) {
            // A fault that lasts was met by some.
            let is_met = failed > 0 || row.1 == Outcome::Done;
            assert!(is_met, "{}: {row:?}", self.driver);
        }
    }

    /// A signal ends the tool, whatever it waits for.
    fn ends_by_a_signal(&self) {
        let lines = [
            "info --image-opts I",
            "compare --image-opts I driver=raw,file.filename=A",
            "convert -O raw --image-opts I out",
        ];
        let faults = [
            (Fault::Silent, 0),
            (Fault::Silent, 4),
            (Fault::Slow, 3),
            (Fault::Gone, 4),
        ];
        for (number, line) in lines.into_iter().enumerate() {
            let clean = self.clean(line);
            for (fault, eighths) in faults.into_iter().skip(number % 2).step_by(2) {
                let (dir, proxy) = self.place(line, "0");
                proxy.arm(fault, clean.1 * eighths / 8);
                let line = self.line(line, proxy.port, "0");
                let mut command = self.command(&line, &dir);
                command.stdout(Stdio::null()).stderr(Stdio::null());
                let mut child = command.spawn().expect("the tool");
                let met = proxy.wait(|| child.try_wait().expect("its state").is_some());
                if met {
                    let pid = child.id().to_string();
                    let _ = Command::new("kill").args(["-TERM", &pid]).status();
                }
                let what = format!("{line}, {fault:?} at {eighths}/8");
                let status = end_of(&mut child, &what);
                assert!(met || status.success(), "{what}: {status:?}");
                if !status.success() {
                    // A server that is gone may be told before the signal comes.
                    let by_signal = status.signal() == Some(15);
                    assert!(by_signal || fault == Fault::Gone, "{what}: {status:?}");
                    assert!(!dir.path("out").exists(), "{what}");
                }
            }
        }
    }
}

/// How a child ends, which would else wait for ever.
pub fn end_of(child: &mut Child, what: &str) -> ExitStatus {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(status) = child.try_wait().expect("its state") {
            return status;
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{what}: no end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

const END: Fault = Fault::Says(b"", 0);
const ALWAYS: usize = usize::MAX;

/// That a server says this, so many times.
const fn http(answer: &'static [u8], times: usize) -> Fault {
    Fault::Says(answer, times)
}

#[test]
fn commands_on_images_of_web_servers_end_well_or_with_one_line() {
    let Some(site) = http::site() else { return };
    let far = Far {
        driver: "http",
        port: site.server.plain(),
        options: &|port, name| format!("url=http://127.0.0.1:{port}/{name}"),
        root: site.dir.root(),
        environment: Vec::new(),
    };
    far.table(&[
        (END, Outcome::Done),
        (
            http(b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", 1),
            Outcome::Done,
        ),
        (
            http(b"HTTP/1.1 500 X\r\nContent-Length: 5\r\n\r\nsorry", 1),
            Outcome::Done,
        ),
        (http(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 1), Outcome::Done),
        (
            http(b"HTTP/1.1 206 X\r\nContent-Range: bytes 0-", 1),
            Outcome::Done,
        ),
        (
            http(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", ALWAYS),
            Outcome::Failed(&["The server"]),
        ),
        (
            http(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", ALWAYS),
            Outcome::Failed(&["error: 500"]),
        ),
        (
            http(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n", ALWAYS),
            Outcome::Failed(&["error: 404"]),
        ),
        (
            http(b"HTTP/1.1 416 X\r\nContent-Length: 0\r\n\r\n", ALWAYS),
            Outcome::Failed(&["error: 416"]),
        ),
        (
            http(b"HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n", ALWAYS),
            Outcome::Failed(&["error: 401"]),
        ),
        (
            http(b"HTTP/1.1 200 X\r\nContent-Length: 999\r\n\r\n", ALWAYS),
            Outcome::Failed(&["not what it was before", "byte ranges"]),
        ),
        (Fault::Gone, Outcome::Failed(&["Connection refused"])),
        (
            Fault::Silent,
            Outcome::Failed(&["has not answered within 1 seconds"]),
        ),
    ]);
    far.ends_by_a_signal();
}

#[test]
fn commands_on_images_of_web_servers_over_tls_end_well_or_with_one_line() {
    let (Some(site), Some(other)) = (http::site(), http::site()) else {
        return;
    };
    let far = Far {
        driver: "https",
        port: site.server.encrypted(),
        options: &|port, name| format!("url=https://localhost:{port}/{name}"),
        root: site.dir.root(),
        environment: vec![(
            "SSL_CERT_FILE",
            site.made.path().join("ca.pem").display().to_string(),
        )],
    };
    far.table(&[
        (END, Outcome::Done),
        (Fault::Says(b"HTTP/1.1 400 X\r\n\r\n", 1), Outcome::Done),
        (
            Fault::Says(b"HTTP/1.1 400 X\r\n\r\n", ALWAYS),
            Outcome::Failed(&["TLS", "HTTP"]),
        ),
        // Another server, with a certificate of another authority.
        (
            Fault::Elsewhere(other.server.encrypted()),
            Outcome::Failed(&["ertificate"]),
        ),
    ]);
}

#[test]
fn commands_on_images_of_ftp_servers_end_well_or_with_one_line() {
    let Some(site) = ftp::site() else { return };
    let far = Far {
        driver: "ftp",
        port: site.server.plain(),
        options: &|port, name| format!("url=ftp://127.0.0.1:{port}/{name}"),
        root: site.dir.root(),
        environment: Vec::new(),
    };
    far.table(&[
        (END, Outcome::Done),
        (Fault::Says(b"421 Busy.\r\n", 1), Outcome::Done),
        (Fault::Says(b"HTTP/1.1 400 X\r\n\r\n", 1), Outcome::Done),
        (
            Fault::Says(b"421 Busy.\r\n", ALWAYS),
            Outcome::Failed(&["421"]),
        ),
        (
            Fault::Says(b"530 No.\r\n", ALWAYS),
            Outcome::Failed(&["530"]),
        ),
        (
            Fault::Says(b"HTTP/1.1 400 X\r\n\r\n", ALWAYS),
            Outcome::Failed(&["The server"]),
        ),
        (Fault::Gone, Outcome::Failed(&["Connection refused"])),
        (
            Fault::Silent,
            Outcome::Failed(&["has not answered within 1 seconds"]),
        ),
    ]);
    far.ends_by_a_signal();
}

#[test]
fn commands_on_images_of_ftp_servers_over_tls_end_well_or_with_one_line() {
    let (Some(site), Some(other)) = (ftp::site(), ftp::site()) else {
        return;
    };
    let authority = site.made.path().join("ca.pem").display().to_string();
    let of = |driver, port, options| Far {
        driver,
        port,
        options,
        root: site.dir.root(),
        environment: vec![("SSL_CERT_FILE", authority.clone())],
    };
    // Nobody says that a session over TLS has ended: none of these does.
    let far = of("ftp", site.server.ports()[1], &|port, name| {
        format!("url=ftp://localhost:{port}/{name},tls=on")
    });
    far.table(&[
        (END, Outcome::Done),
        (Fault::Says(b"421 Busy.\r\n", 1), Outcome::Done),
        (
            Fault::Says(b"421 Busy.\r\n", ALWAYS),
            Outcome::Failed(&["421 Busy."]),
        ),
        (
            Fault::Says(b"220 Hello.\r\n431 No key.\r\n", ALWAYS),
            Outcome::Failed(&["what was not asked for"]),
        ),
        (
            Fault::Elsewhere(other.server.ports()[1]),
            Outcome::Failed(&["ertificate"]),
        ),
        (Fault::Gone, Outcome::Failed(&["Connection refused"])),
        (
            Fault::Silent,
            Outcome::Failed(&["has not answered within 1 seconds"]),
        ),
    ]);
    far.ends_by_a_signal();
    let far = of("ftps", site.server.ports()[2], &|port, name| {
        format!("url=ftps://localhost:{port}/{name}")
    });
    far.table(&[
        (END, Outcome::Done),
        (Fault::Says(b"421 Busy.\r\n", 1), Outcome::Done),
        (
            Fault::Says(b"421 Busy.\r\n", ALWAYS),
            Outcome::Failed(&["TLS"]),
        ),
        (
            Fault::Elsewhere(other.server.ports()[2]),
            Outcome::Failed(&["ertificate"]),
        ),
        (Fault::Gone, Outcome::Failed(&["Connection refused"])),
        (
            Fault::Silent,
            Outcome::Failed(&["has not answered within 1 seconds"]),
        ),
    ]);
    far.ends_by_a_signal();
}

#[test]
fn commands_on_images_of_ssh_servers_end_well_or_with_one_line() {
    if ssh::server::sshd_is_missing() {
        return;
    }
    let (dir, stranger) = (Dir::new(), Dir::new());
    disk(&dir, "a.raw");
    dir.qemu_img_ok(&words("convert -f raw -O qcow2 a.raw b.qcow2"));
    let server = ssh::server::Server::new(&dir);
    let other = ssh::server::Server::new(&stranger);
    let hash = ssh::fingerprint(&dir, "sha256sum");
    let root = dir.root().display().to_string();
    let far = Far {
        driver: "ssh",
        port: server.port,
        options: &|port, name| {
            format!(
                "server.host=127.0.0.1,server.port={port},user=root,path={root}/{name},identity={root}/id,host_key_check=sha256:{hash}"
            )
        },
        root: dir.root(),
        environment: Vec::new(),
    };
    far.table(&[
        (
            Fault::Says(b"SSH-9.9-nonsense\r\n", ALWAYS),
            Outcome::Failed(SSH),
        ),
        (Fault::Gone, Outcome::Failed(SSH)),
        (Fault::Elsewhere(other.port), Outcome::Failed(SSH)),
        (
            Fault::Silent,
            Outcome::Failed(&["has not answered within 1 seconds"]),
        ),
    ]);
    far.ends_by_a_signal();
}

#[test]
#[ignore = "a session that is lost is looked for for 15 seconds: make network"]
fn commands_on_units_of_targets_end_well_or_with_one_line() {
    if iscsi::server::tgtd_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    dir.qemu_img_ok(&words("convert -f raw -O qcow2 a.raw b.qcow2"));
    std::fs::copy(dir.path("b.qcow2"), dir.path("unit")).expect("a unit");
    let unit = std::fs::OpenOptions::new()
        .write(true)
        .open(dir.path("unit"));
    unit.and_then(|unit| unit.set_len(12 << 20))
        .expect("its length");
    let server = iscsi::server::Server::new(&dir);
    server.unit(1, "unit", None, "");
    let far = Far {
        driver: "iscsi",
        port: server.port,
        options: &|port, _| {
            format!("transport=tcp,portal=127.0.0.1:{port},target=iqn.2025-01.test:1,lun=1")
        },
        root: dir.root(),
        environment: Vec::new(),
    };
    let failed = Outcome::Failed(&["iSCSI", "session", "target", "The unit does not answer"]);
    far.table(&[
        (END, Outcome::Done),
        (Fault::Says(b"HTTP/1.1 400 X\r\n\r\n", 1), Outcome::Done),
        (Fault::Says(b"HTTP/1.1 400 X\r\n\r\n", ALWAYS), failed),
        (Fault::Gone, failed),
        (Fault::Silent, failed),
    ]);
    far.ends_by_a_signal();
}

/// An NFS server with the images of the table, and how it is reached through a proxy.
fn with_nfs(test: impl FnOnce(&Far<'_>)) {
    if nfs::server::ganesha_is_missing() {
        return;
    }
    let dir = Dir::new();
    let server = nfs::server::Alone::new(&dir);
    disk(&dir, "exp/a.raw");
    dir.qemu_img_ok(&words("convert -f raw -O qcow2 exp/a.raw exp/b.qcow2"));
    test(&Far {
        driver: "nfs",
        port: server.port,
        options: &|port, name| {
            format!("server.type=inet,server.host=127.0.0.1,version=4,port={port},path=/exp/{name}")
        },
        root: &dir.path("exp"),
        environment: Vec::new(),
    });
}

/// What is said of an NFS server that fails.
const NFS: Outcome = Outcome::Failed(&[
    "Failed to mount nfs share",
    "The server ended the connection",
    "The server does not answer",
]);

#[test]
#[ignore = "takes a minute: make network"]
fn commands_on_files_of_nfs_servers_go_on_end_with_one_line_or_by_a_signal() {
    with_nfs(|far| {
        far.table(&[
            (END, Outcome::Done),
            (Fault::Says(b"HTTP/1.1 400 X\r\n\r\n", 1), Outcome::Done),
            // Records of a reply: refused, and of a length that is never sent.
            (
                Fault::Says(
                    b"\x80\0\0\x18\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0\0",
                    1,
                ),
                Outcome::Done,
            ),
            (Fault::Says(b"\xff\xff\xff\xff\0\0\0\x01", 1), Outcome::Done),
            (Fault::Gone, NFS),
        ]);
        far.ends_by_a_signal();
    });
}

/// What is said of an SSH server that fails.
const SSH: &[&str] = &[
    "Connection refused",
    "No version of SSH protocol usable",
    "does not match host_key_check",
    "failed to establish SSH session",
];
