//! nginx on the loopback interface for the length of a test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::Dir;
use crate::ports;
use crate::site::Serves;

/// A server of what is in a directory; ended when it is dropped.
pub struct Server {
    child: Child,
    plain: u16,
    tls: u16,
    own: u16,
    /// Where its files are.
    state: PathBuf,
    config: String,
}

/// Whether tests with nginx have to be left out.
pub fn nginx_is_missing() -> bool {
    let missing = Command::new("nginx")
        .arg("-v")
        .stderr(Stdio::null())
        .status()
        .is_err();
    if missing {
        eprintln!("SKIPPED: tests of HTTP need nginx (package nginx-light, ci/setup.sh)");
    }
    missing
}

impl Server {
    fn try_new(dir: &Dir, made: &Path) -> Option<Self> {
        let [plain, tls, own] = [(); 3].map(|()| ports::free());
        let root = dir.root().display();
        let made = made.display();
        let state = dir.path("nginx");
        let _ = std::fs::remove_dir_all(&state);
        std::fs::create_dir(&state).unwrap();
        let at = state.display();
        // joe:s3cret
        let password = "joe:{PLAIN}s3cret\n";
        std::fs::write(state.join("users"), password).unwrap();
        let text = format!(
            r#"daemon off; master_process off; worker_processes 1; pid {at}/pid; error_log {at}/error.log info;
events {{ worker_connections 256; }}
http {{
  access_log {at}/access.log; default_type application/octet-stream; sendfile on;
  client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
  ssl_certificate {made}/server-cert.pem; ssl_certificate_key {made}/server-key.pem;
  map $http_cookie $has_key {{ default 0; "~key=42" 1; }}
  server {{ listen 127.0.0.1:{plain}; root {root};
    location /auth/ {{ alias {root}/; auth_basic r; auth_basic_user_file {at}/users; }}
    location /norange/ {{ alias {root}/; max_ranges 0; }}
    location /cookie/ {{ alias {root}/; if ($has_key = 0) {{ return 403; }} }}
    location /redir/ {{ rewrite ^/redir/(.*)$ http://127.0.0.1:{plain}/$1 redirect; }}
    location /down/ {{ return 503; }}
    location /gone/ {{ return 410; }} }}
  server {{ listen 127.0.0.1:{tls} ssl; root {root};
    location /redir/ {{ rewrite ^/redir/(.*)$ http://127.0.0.1:{plain}/$1 redirect; }} }}
  server {{ listen 127.0.0.1:{own} ssl; root {root}; ssl_client_certificate {made}/ca.pem; ssl_verify_client on; }}
}}
"#
        );
        Some(Self {
            child: Self::start(&state, &text)?,
            plain,
            tls,
            own,
            config: text,
            state,
        })
    }

    /// Starts it; None where a port was taken meanwhile.
    fn start(state: &Path, config: &str) -> Option<Child> {
        let at = state.display();
        let file = state.join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let _ = std::fs::remove_file(state.join("pid"));
        let mut child = Command::new("nginx")
            .args(["-p", &at.to_string(), "-c", file.to_str().unwrap()])
            .args(["-e", &format!("{at}/error.log")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        // Written when it listens.
        while std::fs::metadata(state.join("pid")).map_or(0, |meta| meta.len()) == 0 {
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(Instant::now() < deadline, "nginx does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(child)
    }

    /// Ends it, and starts it again with the certificate `NAME-cert.pem` and its key.
    pub fn restart(&mut self, name: &str) {
        self.kill();
        let certificate = format!("/{name}-cert.pem");
        let config = self.config.replace("/server-cert.pem", &certificate);
        let config = config.replace("/server-key.pem", &format!("/{name}-key.pem"));
        let child = Self::start(&self.state, &config);
        self.child = child.expect("nginx listens where it did");
    }

    /// The port without TLS.
    pub fn plain(&self) -> u16 {
        self.plain
    }

    /// The port with TLS.
    pub fn encrypted(&self) -> u16 {
        self.tls
    }

    /// That of one over TLS.
    pub fn tls(&self, path: &str) -> String {
        format!("https://localhost:{}/{path}", self.tls)
    }

    /// That of one over TLS, for clients with a certificate.
    pub fn own(&self, path: &str) -> String {
        format!("https://localhost:{}/{path}", self.own)
    }

    /// What was asked for so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.state.join("access.log")).unwrap()
    }
}

impl Serves for Server {
    fn new(dir: &Dir, made: &Path) -> Self {
        // Another process may take a port before nginx does.
        let started = (0..5).find_map(|_| Self::try_new(dir, made));
        started.expect("nginx does not listen")
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.plain)
    }

    fn line(&self, line: &str) -> String {
        line.replace("U/", &self.url(""))
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
