//! A proxy of HTTP that serves those alone who give a user and a password.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The proxy; it takes no further connections once it is dropped.
pub struct Gate {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    /// The header value that opens it.
    login: String,
    /// The first lines of what was asked for.
    asked: Mutex<Vec<String>>,
    /// How many requests it is still too busy for.
    busy: AtomicUsize,
    stopped: AtomicBool,
}

impl Gate {
    pub fn new(login: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("its port").port();
        let shared = Arc::new(Shared {
            login: login.to_owned(),
            asked: Mutex::default(),
            busy: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let own = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if own.stopped.load(Ordering::SeqCst) {
                    break;
                }
                let own = own.clone();
                // A client may be gone.
                std::thread::spawn(move || own.serve(stream?));
            }
        });
        Self { port, shared }
    }

    /// From now on it is too busy for so many requests.
    pub fn be_busy(&self, times: usize) {
        self.shared.busy.store(times, Ordering::SeqCst);
    }

    /// What was asked for since this was called last.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.asked.lock().expect("what was asked for"))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.lines();
        let first = lines.next().unwrap_or_default().to_owned();
        let mut asked = self.asked.lock().expect("what was asked for");
        asked.push(first.clone());
        drop(asked);
        let login = format!("Proxy-Authorization: {}", self.login);
        if !head.lines().any(|line| line == login) {
            let text = "Proxy-Authenticate: Basic realm=\"gate\"\r\n";
            return self.refuse(client, "407 Who Are You", text);
        }
        let is_busy = |left: usize| left.checked_sub(1);
        let busy = &self.busy;
        if busy
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_busy)
            .is_ok()
        {
            return self.refuse(client, "503 Busy", "");
        }
        let words: Vec<&str> = first.split(' ').collect();
        if words[0] == "CONNECT" {
            let server = TcpStream::connect(words[1])?;
            client.write_all(b"HTTP/1.1 200 Go On\r\n\r\n")?;
            return both_ways(client, server);
        }
        let place = words[1].strip_prefix("http://").unwrap_or_default();
        let (host, path) = place.split_once('/').unwrap_or_default();
        let mut server = TcpStream::connect(host)?;
        let own = |line: &&str| !line.starts_with("Proxy-") && !line.is_empty();
        let kept: Vec<&str> = lines.filter(own).collect();
        let head = kept.join("\r\n");
        let text = format!("GET /{path} HTTP/1.1\r\n{head}\r\nConnection: close\r\n\r\n");
        server.write_all(text.as_bytes())?;
        both_ways(client, server)
    }

    fn refuse(&self, mut client: TcpStream, status: &str, more: &str) -> std::io::Result<()> {
        let text =
            format!("HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n");
        client.write_all(text.as_bytes())
    }
}

fn both_ways(client: TcpStream, server: TcpStream) -> std::io::Result<()> {
    let mut up = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut up.0, &mut up.1);
        let _ = up.1.shutdown(Shutdown::Write);
    });
    let (mut client, mut server) = (client, server);
    let copied = std::io::copy(&mut server, &mut client);
    client.shutdown(Shutdown::Both)?;
    copied.map(|_| ())
}
