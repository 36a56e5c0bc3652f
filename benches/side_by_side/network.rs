//! Images on servers of HTTP, FTP and SSH on the loopback interface, against QEMU's tool with its modules.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::rows::{Row, measure_row, wanted};
use crate::{Setup, run};

/// What a relay that is late adds to each way.
const LATE: Duration = Duration::from_millis(10);
/// The option of the peer that keeps it from hanging.
const ONE: [&str; 2] = ["-m", "1"];

/// A process, ended when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    Ok(address.port())
}

/// Starts `argv`, which is to listen at `port`, and waits until it does.
fn start(argv: &[&str], port: u16) -> Result<Running, String> {
    let (program, args) = argv.split_first().ok_or("nothing to run")?;
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("{program}: {e}"))?;
    let mut running = Running(child);
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let ended = running.0.try_wait().map_err(|e| e.to_string())?;
        if ended.is_some() || Instant::now() > deadline {
            return Err(format!("{} does not listen", argv.join(" ")));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(running)
}

/// Passes on what it gets, later. Stays until the program ends.
fn late(to: u16) -> Result<u16, String> {
    fn pass(mut from: TcpStream, mut to: TcpStream) {
        let (sender, receiver) = mpsc::sync_channel::<(Instant, Vec<u8>)>(1024);
        thread::spawn(move || {
            while let Ok((due, bytes)) = receiver.recv() {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if to.write_all(&bytes).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(std::net::Shutdown::Both);
        });
        let mut buf = vec![0; 256 << 10];
        while let Ok(n) = from.read(&mut buf) {
            if n == 0
                || sender
                    .send((Instant::now() + LATE, buf[..n].to_vec()))
                    .is_err()
            {
                break;
            }
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    let port = listener.local_addr().map_err(|e| e.to_string())?.port();
    thread::spawn(move || {
        for one in listener.incoming().flatten() {
            let Ok(other) = TcpStream::connect(("127.0.0.1", to)) else {
                continue;
            };
            let _ = one.set_nodelay(true);
            let _ = other.set_nodelay(true);
            if let (Ok(back), Ok(forth)) = (one.try_clone(), other.try_clone()) {
                thread::spawn(move || pass(one, forth));
                thread::spawn(move || pass(other, back));
            }
        }
    });
    Ok(port)
}

/// The files of this run.
struct Site {
    dir: PathBuf,
    image: String,
}

impl Site {
    fn new(setup: &Setup) -> Result<Self, String> {
        let disk = setup.disk.display().to_string();
        let image = format!("{}.plain.qcow2", disk.trim_end_matches(".raw"));
        let image = std::fs::canonicalize(image).map_err(|e| e.to_string())?;
        let dir = std::env::temp_dir().join(format!("platter-bench-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("files")).map_err(|e| e.to_string())?;
        std::os::unix::fs::symlink(&image, dir.join("files/image")).map_err(|e| e.to_string())?;
        Ok(Self {
            dir,
            image: image.display().to_string(),
        })
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        std::fs::write(self.dir.join(name), text).map_err(|e| e.to_string())
    }

    /// A server of HTTP at the first port, and of HTTPS at the second one.
    fn nginx(&self) -> Result<(Running, u16, u16), String> {
        let (key, certificate) = (self.path("key.pem"), self.path("cert.pem"));
        run::quiet(&[
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/CN=localhost",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ])?;
        let (plain, tls) = (free_port()?, free_port()?);
        let at = self.dir.display();
        let config = self.path("nginx.conf");
        self.write(
            "nginx.conf",
            &format!(
                "daemon off; master_process off; worker_processes 1; pid {at}/pid; error_log {at}/error.log;
events {{ worker_connections 256; }}
http {{ access_log off; sendfile on; keepalive_requests 100000;
  client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
  ssl_certificate {certificate}; ssl_certificate_key {key};
  server {{ listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl; root {at}/files; }} }}
"
            ),
        )?;
        let log = self.path("error.log");
        let argv = ["nginx", "-p", &self.path(""), "-c", &config, "-e", &log];
        Ok((start(&argv, plain)?, plain, tls))
    }

    fn ftpd(&self) -> Result<(Running, u16), String> {
        let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
        let mut child = Command::new(format!("{target}/witnesses/bin/python"))
            // The server follows no link that leads out of its directory.
            .args([
                "tests/tools/ftpd.py",
                self.image.rsplit_once('/').map_or("/", |(dir, _)| dir),
                "",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("pyftpdlib (ci/setup.sh): {e}"))?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out)
                .read_line(&mut line)
                .map_err(|e| e.to_string())?;
        }
        let running = Running(child);
        let port = line
            .split_whitespace()
            .next()
            .and_then(|port| port.parse().ok());
        Ok((
            running,
            port.ok_or("pyftpdlib does not listen (ci/setup.sh)")?,
        ))
    }

    fn sshd(&self) -> Result<(Running, u16), String> {
        for name in ["host", "id"] {
            run::quiet(&[
                "ssh-keygen",
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-f",
                &self.path(name),
            ])?;
        }
        let port = free_port()?;
        let at = self.dir.display();
        self.write(
            "sshd.conf",
            &format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {at}/host\nPidFile none\nAuthorizedKeysFile {at}/id.pub\n\
                 UsePAM no\nStrictModes no\nMaxStartups 100\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n"
            ),
        )?;
        std::fs::create_dir_all("/run/sshd").map_err(|e| e.to_string())?;
        let argv = ["/usr/sbin/sshd", "-D", "-f", &self.path("sshd.conf")];
        Ok((start(&argv, port)?, port))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// An agent with one key, for all that this program starts.
fn agent(site: &Site) -> Result<Running, String> {
    let socket = site.path("agent");
    let child = Command::new("ssh-agent")
        .args(["-D", "-a", &socket])
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| format!("ssh-agent: {e}"))?;
    let running = Running(child);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !std::path::Path::new(&socket).exists() {
        if Instant::now() > deadline {
            return Err("ssh-agent does not listen".to_owned());
        }
        thread::sleep(Duration::from_millis(5));
    }
    let env = format!("SSH_AUTH_SOCK={socket}");
    run::quiet(&["env", &env, "ssh-add", "-q", &site.path("id")])?;
    Ok(running)
}

/// Measures what of all that is wanted and here.
pub fn measure(setup: &Setup) -> Result<(), String> {
    let names = [
        "http to raw",
        "https to raw",
        "http to raw, late",
        "https to raw, late",
        "ftp to raw",
        "ssh to raw",
        "raw to ssh",
    ];
    if !names.iter().any(|name| wanted(setup, name)) {
        return Ok(());
    }
    let site = Site::new(setup)?;
    let nginx = site.nginx();
    if let Some((_, plain, tls)) = left_out("HTTP", nginx) {
        let http = format!("driver=qcow2,file.driver=http,file.url=http://127.0.0.1:{plain}/image");
        let https = format!(
            "driver=qcow2,file.driver=https,file.sslverify=off,file.url=https://127.0.0.1:{tls}/image"
        );
        let (plain, tls) = (late(plain)?, late(tls)?);
        let late = format!("driver=qcow2,file.driver=http,file.url=http://127.0.0.1:{plain}/image");
        let late_tls = format!(
            "driver=qcow2,file.driver=https,file.sslverify=off,file.url=https://127.0.0.1:{tls}/image"
        );
        reading(setup, names[0], &http, &[], 0.7)?;
        reading(setup, names[1], &https, &[], 0.7)?;
        reading(setup, names[2], &late, &[], 0.2)?;
        reading(setup, names[3], &late_tls, &[], 0.2)?;
    }
    if let Some((_server, port)) = left_out("FTP", site.ftpd()) {
        let (_, image) = site.image.rsplit_once('/').unwrap_or_default();
        let ftp = format!("driver=qcow2,file.driver=ftp,file.url=ftp://127.0.0.1:{port}/{image}");
        reading(setup, names[4], &ftp, &[], 0.8)?;
    }
    let server = site.sshd();
    if let Some((_server, port)) = left_out("SSH", server) {
        let agent = agent(&site)?;
        let env = format!("SSH_AUTH_SOCK={}", site.path("agent"));
        let node = |format: &str, path: &str| {
            format!(
                "driver={format},file.driver=ssh,file.server.host=127.0.0.1,file.server.port={port},\
                 file.host-key-check.mode=none,file.user=root,file.path={path}"
            )
        };
        reading(setup, names[5], &node("qcow2", &site.image), &[&env], 0.5)?;
        writing(setup, names[6], &node("raw", &setup.path("out.raw")), &env)?;
        drop(agent);
    }
    Ok(())
}

fn left_out<T>(what: &str, server: Result<T, String>) -> Option<T> {
    server
        .inspect_err(|why| println!("\nLEFT OUT: the rows of {what}: {why}"))
        .ok()
}

/// Whether QEMU's tool has the module for a protocol.
pub fn peer_has(setup: &Setup, name: &str, driver: &str) -> bool {
    let asked = Command::new(&setup.qemu)
        .args(["info", "--image-opts", &format!("driver={driver}")])
        .output();
    let has = asked
        .is_ok_and(|told| !String::from_utf8_lossy(&told.stderr).contains("Unable to load module"));
    if !has {
        println!(
            "\nLEFT OUT: {} in the row '{name}' (ci/modules.sh)",
            setup.qemu
        );
    }
    has
}

/// Whether QEMU's tool has what it needs to read an image.
fn has_module(setup: &Setup, name: &str, probe: &[&str]) -> bool {
    let has = run::quiet(probe).is_ok();
    if !has {
        println!(
            "\nLEFT OUT: the row '{name}': {} cannot read the image (ci/modules.sh)",
            setup.qemu
        );
    }
    has
}

/// From a server into a file.
fn reading(
    setup: &Setup,
    name: &str,
    image: &str,
    env: &[&str],
    target: f64,
) -> Result<(), String> {
    if !wanted(setup, name) {
        return Ok(());
    }
    let (p, q) = (setup.platter.as_str(), setup.qemu.as_str());
    let probe = [&["env"], env, &[q, "info", "--image-opts", image]].concat();
    if !has_module(setup, name, &probe) {
        return Ok(());
    }
    let out = setup.path("out.raw");
    let last = ["-O", "raw", "--image-opts", image, out.as_str()];
    let ours = [&["env"], env, &[p, "convert"], last.as_slice()].concat();
    let theirs = [&["env"], env, &[q, "convert"], &ONE, last.as_slice()].concat();
    measure_row(
        setup,
        &Row {
            name,
            ours,
            theirs: vec![("-m 1", theirs, target)],
            output: Some(&out),
            format: None,
            equals: None,
            over: false,
            before: vec![],
        },
    )
}

/// From a file over an empty one on the server.
fn writing(setup: &Setup, name: &str, target: &str, env: &str) -> Result<(), String> {
    if !wanted(setup, name) {
        return Ok(());
    }
    let (p, q) = (setup.platter.as_str(), setup.qemu.as_str());
    let disk = setup.disk.display().to_string();
    let out = setup.path("out.raw");
    let size = std::fs::metadata(&setup.disk)
        .map_err(|e| e.to_string())?
        .len();
    let file = std::fs::File::create(&out).map_err(|e| e.to_string())?;
    file.set_len(size).map_err(|e| e.to_string())?;
    if !has_module(
        setup,
        name,
        &["env", env, q, "info", "--image-opts", target],
    ) {
        return crate::rows::remove(&out);
    }
    let line = |program| {
        vec![
            "env",
            env,
            program,
            "convert",
            "-n",
            "-f",
            "raw",
            "--target-image-opts",
            &disk,
            target,
        ]
    };
    let theirs = [line(q).as_slice()].concat();
    measure_row(
        setup,
        &Row {
            name,
            ours: line(p),
            theirs: vec![("", theirs, 0.5)],
            output: None,
            format: None,
            equals: None,
            over: true,
            before: vec![],
        },
    )?;
    run::quiet(&[q, "compare", "-q", "-f", "raw", "-F", "raw", &disk, &out])?;
    crate::rows::remove(&out)
}
