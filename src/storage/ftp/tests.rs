//! Tests the client against scripted servers.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::reply::{Lines, Reply};
use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::object::Objects;
use crate::options::Options;
use crate::policy::OpenPolicy;
use crate::secret::Secret;
use crate::storage::driver::{OpenContext, StorageOpen, StorageTarget};
use crate::storage::{Storage, registry};

const LEN: usize = 5_000_000;

/// The bytes of the image.
fn data(range: std::ops::Range<usize>) -> Vec<u8> {
    range.map(|at| ((at / 251) ^ at) as u8).collect()
}

/// A command as the server sees it.
struct Asked {
    verb: String,
    /// How many commands with this verb came before, in all sessions.
    number: usize,
    /// The number of the session, counted from 0.
    session: usize,
    /// The offset at which a transfer is to start.
    start: usize,
}

/// How a server differs from a correct one.
enum Act {
    Say(&'static str),
    Bytes(Vec<u8>),
    /// Sends these bytes of the file and then this reply.
    Send(usize, usize, &'static str),
    HangUp,
    /// Stops sending.
    Silence,
}

type Script = dyn Fn(&Asked) -> Option<Act> + Send + Sync;

struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn new(script: impl Fn(&Asked) -> Option<Act> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let script: Arc<Script> = Arc::new(script);
        let thread = std::thread::spawn({
            let (asked, stop) = (asked.clone(), stop.clone());
            move || {
                for (session, stream) in listener.incoming().enumerate() {
                    if stop.load(SeqCst) {
                        break;
                    }
                    let (asked, script) = (asked.clone(), script.clone());
                    let stream = stream.unwrap();
                    std::thread::spawn(move || {
                        // The client may already have closed the connection.
                        let _ = serve(stream, session, &asked, &*script);
                    });
                }
            }
        });
        Self {
            port,
            asked,
            stop,
            thread: Some(thread),
        }
    }

    fn good() -> Self {
        Self::new(|_| None)
    }

    fn count(&self, verb: &str) -> usize {
        let asked = self.asked.lock();
        asked.iter().filter(|line| line.starts_with(verb)).count()
    }

    fn open(&self) -> Result<Arc<dyn Storage>> {
        self.open_with("", &Objects::new(), &Arc::default())
    }

    fn open_with(
        &self,
        options: &str,
        objects: &Objects,
        control: &Arc<JobControl>,
    ) -> Result<Arc<dyn Storage>> {
        let driver = registry::find("ftp").unwrap();
        let mut given = Options::new();
        if !options.is_empty() {
            given = Options::parse(options)?;
        }
        given.set("url", format!("ftp://127.0.0.1:{}/d/a%20b", self.port));
        driver.open_storage(&OpenContext {
            target: StorageTarget::Unnamed,
            options: &driver.check_options(&given)?,
            how: StorageOpen::default(),
            objects,
            policy: &OpenPolicy::default(),
            control,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn line(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        text.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
}

fn serve(
    mut stream: TcpStream,
    session: usize,
    all: &Mutex<Vec<String>>,
    script: &Script,
) -> std::io::Result<()> {
    let mut passive: Option<TcpListener> = None;
    let mut start = 0;
    let mut text = "HELLO".to_owned();
    loop {
        let (verb, argument) = text.split_once(' ').unwrap_or((&text, ""));
        let number = {
            let mut all = all.lock();
            let number = all.iter().filter(|line| line.starts_with(verb)).count();
            all.push(text.clone());
            number
        };
        let asked = Asked {
            verb: verb.to_owned(),
            number,
            session,
            start,
        };
        let mut open = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            passive = Some(listener);
            port
        };
        let answer = match (script(&asked), verb) {
            (Some(Act::Say(text)), _) => text.to_owned(),
            (Some(Act::Bytes(bytes)), _) => {
                stream.write_all(&bytes)?;
                String::new()
            }
            (Some(Act::HangUp), _) => return Ok(()),
            (Some(Act::Silence), _) => {
                let _ = stream.read_to_end(&mut Vec::new());
                return Ok(());
            }
            (act, "RETR") => {
                let (from, until, end) = match act {
                    Some(Act::Send(from, until, end)) => (from, until, end),
                    _ => (start, LEN, "226 Done."),
                };
                start = 0;
                stream.write_all(b"150-Here\r\n it\r\n150 comes.\r\n")?;
                let (mut to, _) = passive.take().unwrap().accept()?;
                let sent = to.write_all(&data(from..until));
                drop(to);
                match sent {
                    Ok(()) => end.to_owned(),
                    Err(_) => "426 Broken off.".to_owned(),
                }
            }
            (_, "HELLO") => "220 Ready.".to_owned(),
            (_, "USER") => "331 Who is that?".to_owned(),
            (_, "PASS") => "230 Come in.".to_owned(),
            (_, "SIZE") => format!("213 {LEN}"),
            (_, "MDTM") => "213 20260101000000".to_owned(),
            (_, "EPSV") => format!("229 Extended (|||{}|)", open()),
            (_, "PASV") => {
                let port = open();
                format!("227 Passive (192,0,2,1,{},{})", port / 256, port % 256)
            }
            (_, "REST") => {
                start = argument.parse().unwrap();
                "350 From there.".to_owned()
            }
            _ => "200 Well.".to_owned(),
        };
        if !answer.is_empty() {
            stream.write_all(answer.as_bytes())?;
            stream.write_all(b"\r\n")?;
        }
        text = line(&mut stream)?;
    }
}

#[track_caller]
fn check(storage: &dyn Storage, offset: usize, len: usize) {
    let mut buf = vec![1; len];
    storage.read_at(&mut buf, offset as u64).unwrap();
    let end = (offset + len).min(LEN);
    let mut expected = data(offset.min(end)..end);
    expected.resize(len, 0);
    assert!(buf == expected, "{offset} {len}");
}

fn error<T: std::fmt::Debug>(outcome: Result<T>) -> Error {
    outcome.unwrap_err()
}

/// The error of a read from the middle of the file.
fn read_error(storage: &dyn Storage) -> Error {
    error(storage.read_at(&mut [0; 100], 1_000_000))
}

const SHORT: &str = "timeout=1,retry-timeout=0";

#[test]
fn replies_are_taken_apart_and_those_that_lie_are_refused() {
    let whole = |text: &str| {
        let mut lines = Lines::default();
        text.split('\n')
            .find_map(|line| lines.take(line.as_bytes()).transpose())
    };
    let of = |code, text: &str| Reply {
        code,
        text: text.to_owned(),
    };
    for (text, reply) in [
        ("220 Hello", of(220, "Hello")),
        ("220", of(220, "")),
        ("220-a\n221 b\n 220 c\n220-d\n220 e", of(220, "e")),
    ] {
        assert_eq!(whole(text).unwrap().unwrap(), reply, "{text}");
    }
    assert!(whole("220-a\n220-b").is_none());
    for text in ["", "HTTP/1.1 200", "22", "020 a", "700 a"] {
        assert!(whole(text).unwrap().is_err(), "{text}");
    }
    let many = format!("220-{}", "\n".repeat(200));
    assert!(whole(&many).unwrap().is_err());
    for (text, port) in [
        ("x (|||6446|)", Some(6446)),
        ("(!!!7!)", Some(7)),
        ("(|||0|)", None),
        ("(|||70000|)", None),
        ("(|1|127.0.0.1|5|)", None),
        ("|||5|", None),
        ("()", None),
    ] {
        assert_eq!(of(229, text).extended_port(), port, "{text}");
    }
    for (text, port) in [
        ("Passive (1,2,3,4,5,6).", Some(5 * 256 + 6)),
        ("=1,2,3,4,0,9", Some(9)),
        ("(1,2,3,4,0,0)", None),
        ("(1,2,3,4,5)", None),
        ("(1,2,3,4,256,1)", None),
        ("none", None),
    ] {
        assert_eq!(of(227, text).port(), port, "{text}");
    }
    assert_eq!(of(213, "12").size(), Some(12));
    for text in [
        "",
        "-1",
        "1x",
        "99999999999999999999",
        "9223372036854775808",
    ] {
        assert_eq!(of(213, text).size(), None, "{text}");
    }
}

#[test]
fn reading_forward_is_one_transfer_that_goes_on() {
    let server = Server::good();
    let storage = server.open().unwrap();
    assert_eq!(storage.len().unwrap(), LEN as u64);
    for at in (0..LEN).step_by(100_000) {
        check(&*storage, at, 100_000);
    }
    check(&*storage, LEN - 5, 10);
    assert_eq!((server.count("RETR"), server.count("REST")), (1, 0));
    let lines = [
        "HELLO",
        "USER anonymous",
        "PASS ftp@example.com",
        "TYPE I",
        "SIZE d/a b",
        "MDTM d/a b",
        "EPSV",
        "RETR d/a b",
    ];
    assert_eq!(*server.asked.lock(), lines);
}

#[test]
fn reading_from_elsewhere_begins_there() {
    let server = Server::good();
    let storage = server.open().unwrap();
    check(&*storage, 3_000_000, 1000);
    check(&*storage, 1_000_000, 200_000);
    check(&*storage, 0, LEN);
    check(&*storage, LEN - 1, 1);
    // Whether the server starts where it is told to is checked with its last byte, once.
    let last = format!("REST {}", LEN - 1);
    assert_eq!(server.count(&last), 1);
    assert_eq!(server.count("USER"), 1);
}

#[test]
fn threads_read_by_several_sessions_as_many_as_the_server_allows() {
    for most in [4, 2, 1] {
        let server = Server::new(move |asked| {
            let too_many = asked.verb == "HELLO" && asked.session >= most;
            too_many.then_some(Act::Say("421 Too many connections."))
        });
        let storage = server.open().unwrap();
        assert_eq!(storage.limits().in_flight, 4);
        std::thread::scope(|scope| {
            for part in 0..8 {
                let storage = &storage;
                scope.spawn(move || check(&**storage, part * 600_000, 600_000));
            }
        });
    }
}

#[test]
fn cut_transfers_are_resumed_where_they_ended() {
    let server = Server::new(|asked| match (asked.verb.as_str(), asked.number) {
        ("RETR", 0) => Some(Act::Send(0, 200_000, "426 Cut.")),
        ("RETR", 2) => Some(Act::Send(asked.start, asked.start + 100_000, "226 Done.")),
        ("RETR", 3) => Some(Act::HangUp),
        ("EPSV", 5) => Some(Act::Say("421 Tired.")),
        _ => None,
    });
    let storage = server.open().unwrap();
    check(&*storage, 0, 1_000_000);
    assert!(server.count("USER") > 2);
}

#[test]
fn what_a_server_cannot_do_for_now_is_asked_for_again() {
    let verbs = [
        "HELLO", "USER", "PASS", "TYPE", "SIZE", "MDTM", "EPSV", "RETR", "REST",
    ];
    std::thread::scope(|scope| {
        for verb in verbs {
            for answer in ["421 Tired.", "450 Busy.", "431 No key."] {
                scope.spawn(move || asks_again(verb, answer));
            }
        }
    });
}

/// Checks that a command is retried after this answer.
fn asks_again(verb: &'static str, answer: &'static str) {
    // On the first such command, and on the second one.
    for turn in [0, 1] {
        let server = Server::new(move |asked| {
            let is_due = asked.verb == verb && asked.number == turn;
            match (is_due, asked.verb.as_str(), asked.number) {
                (true, ..) => Some(Act::Say(answer)),
                (_, "RETR", 0) => Some(Act::Send(0, 200_000, "426 Cut.")),
                _ => None,
            }
        });
        let storage = server.open().unwrap();
        check(&*storage, 0, 1_000_000);
        check(&*storage, 2_000_000, 1000);
        assert!(server.count(verb) > turn + 1, "{verb} {answer} {turn}");
    }
    let server = Server::new(move |asked| (asked.verb == verb).then_some(Act::Say(answer)));
    let opened = server.open_with(SHORT, &Objects::new(), &Arc::default());
    let found = error(opened.and_then(|storage| storage.read_at(&mut [0; 9], 1_000_000)));
    assert!(found.to_string().ends_with(answer), "{verb}: {found}");
}

#[test]
fn a_server_that_cannot_encrypt_for_now_is_asked_again() {
    let server = Server::new(|asked| (asked.verb == "AUTH").then_some(Act::Say("431 No key.")));
    let options = "tls=on,retry-timeout=1";
    let found = error(server.open_with(options, &Objects::new(), &Arc::default()));
    assert!(found.to_string().ends_with("431 No key."), "{found}");
    assert!(server.count("AUTH") > 1);
    let server = Server::new(|asked| (asked.verb == "AUTH").then_some(Act::Say("502 What?")));
    let found = error(server.open_with(options, &Objects::new(), &Arc::default()));
    assert_eq!(found.kind(), ErrorKind::Denied, "{found}");
    assert_eq!(server.count("AUTH"), 1);
}

#[test]
fn once_retries_were_in_vain_each_read_connects_once_until_one_succeeds() {
    let is_up = Arc::new(AtomicBool::new(true));
    let server = Server::new({
        let is_up = is_up.clone();
        move |_| (!is_up.load(SeqCst)).then_some(Act::HangUp)
    });
    let options = "retry-timeout=1";
    let storage = server
        .open_with(options, &Objects::new(), &Arc::default())
        .unwrap();
    let times = || {
        let before = server.count("HELLO");
        read_error(&*storage);
        server.count("HELLO") - before
    };
    is_up.store(false, SeqCst);
    assert!(times() > 1);
    for _ in 0..3 {
        assert_eq!(times(), 1);
    }
    is_up.store(true, SeqCst);
    check(&*storage, 3_000_000, 1000);
    is_up.store(false, SeqCst);
    assert!(times() > 1);
}

#[test]
fn what_a_server_says_before_it_goes_is_told() {
    // Unasked, after the reply to a command.
    let server = Server::new(|asked| {
        let is_late = asked.session == 0 && asked.verb == "REST";
        is_late.then_some(Act::Bytes(b"350 From there.\r\n421 Tired.\r\n".to_vec()))
    });
    let storage = server.open().unwrap();
    check(&*storage, 1_000_000, 1000);
    let server = Server::new(|asked| match asked.verb.as_str() {
        "TYPE" => Some(Act::Bytes(b"200 Well.\r\n421 Tired.\r\n".to_vec())),
        _ => None,
    });
    let found = error(server.open_with(SHORT, &Objects::new(), &Arc::default()));
    assert!(found.to_string().ends_with("421 Tired."), "{found}");
    let server = Server::new(|asked| match asked.verb.as_str() {
        "PASS" => Some(Act::Say("530 Too many of you, S3CRET and SECRETS alike.")),
        _ => None,
    });
    let mut objects = Objects::new();
    for (password, shown) in [("s3cret", false), ("", true), ("other", true)] {
        let id = format!("s{}", password.len());
        objects.add_secret(&id, Secret::new(password)).unwrap();
        let options = format!("username=joe,password-secret={id}");
        let found = error(server.open_with(&options, &objects, &Arc::default())).to_string();
        assert_eq!(found.contains("Too many of you"), shown, "{found}");
    }
}

#[test]
fn a_server_that_begins_elsewhere_than_it_is_told_is_refused() {
    let server = Server::new(|asked| match asked.verb.as_str() {
        "RETR" => Some(Act::Send(0, LEN, "226 Done.")),
        _ => None,
    });
    let storage = server.open().unwrap();
    check(&*storage, 0, 1000);
    let found = read_error(&*storage).to_string();
    assert!(
        found.contains("The server does not begin where it is told to"),
        "{found}"
    );
    let server = Server::new(|asked| (asked.verb == "REST").then_some(Act::Say("502 What?")));
    let storage = server.open().unwrap();
    let found = read_error(&*storage);
    assert!(
        found
            .to_string()
            .contains("cannot do reading from the middle of a file: 502 What?"),
        "{found}"
    );
}

#[test]
fn a_length_that_is_not_the_files_is_an_error() {
    for (size, text) in [
        (
            "213 5000001",
            "The server sent 5000000 bytes of a file that has 5000001",
        ),
        ("213 4999999", "longer than the 4999999 bytes that it says"),
    ] {
        let server = Server::new(move |asked| (asked.verb == "SIZE").then_some(Act::Say(size)));
        let storage = server
            .open_with("retry-timeout=0", &Objects::new(), &Arc::default())
            .unwrap();
        let len = usize::try_from(storage.len().unwrap()).unwrap();
        let found = error(storage.read_at(&mut vec![0; len], 0)).to_string();
        assert!(found.ends_with(text), "{found}");
    }
}

#[test]
fn a_file_that_changes_is_an_error() {
    let server = Server::new(|asked| match (asked.verb.as_str(), asked.number) {
        ("RETR", 1) => Some(Act::HangUp),
        ("MDTM", 1) => Some(Act::Say("213 20260101000001")),
        _ => None,
    });
    let storage = server.open().unwrap();
    let found = read_error(&*storage);
    assert_eq!(found.errno(), libc::ESTALE, "{found}");
}

#[test]
fn servers_without_epsv_are_asked_for_pasv_and_their_address_is_of_no_matter() {
    let server = Server::new(|asked| (asked.verb == "EPSV").then_some(Act::Say("500 What?")));
    let storage = server.open().unwrap();
    check(&*storage, 2_000_000, 1000);
    assert_eq!(server.count("EPSV"), 1);
    assert!(server.count("PASV") > 1);
}

#[test]
fn who_asks_is_told_by_options_and_shown_nowhere() {
    let server = Server::new(|asked| (asked.verb == "PASS").then_some(Act::Say("530 No: s3cret")));
    let mut objects = Objects::new();
    objects.add_secret("s", Secret::new("s3cret")).unwrap();
    objects.add_secret("t", Secret::new("a\r\nDELE x")).unwrap();
    let options = "username=joe,password-secret=s";
    let found = error(server.open_with(options, &objects, &Arc::default()));
    assert_eq!(found.kind(), ErrorKind::Denied);
    assert_eq!(
        found.to_string(),
        "The server refuses the user or the password: 530"
    );
    assert!(server.asked.lock().contains(&"PASS s3cret".to_owned()));
    assert!(server.asked.lock().contains(&"USER joe".to_owned()));
    let options = "username=joe,password-secret=t";
    let found = error(server.open_with(options, &objects, &Arc::default()));
    assert!(found.to_string().contains("end of a line"), "{found}");
}

#[test]
fn what_no_server_may_send_is_refused() {
    let long = || Act::Bytes([b"220 ", &[b'x'; 10_000][..], b"\r\n"].concat());
    let lines = || Act::Bytes("220-more\r\n".repeat(300).into_bytes());
    type Make = Box<dyn Fn() -> Act + Send + Sync>;
    let lies: Vec<(&str, Make, &str)> = vec![
        ("HELLO", Box::new(long), "a line without end"),
        ("HELLO", Box::new(lines), "reply has no end"),
        (
            "HELLO",
            Box::new(|| Act::Say("SSH-2.0-x")),
            "does not speak FTP",
        ),
        (
            "HELLO",
            Box::new(|| Act::HangUp),
            "ended the connection too early",
        ),
        (
            "HELLO",
            Box::new(|| Act::Silence),
            "has not answered within 1 seconds",
        ),
        (
            "SIZE",
            Box::new(|| Act::Say("213 many")),
            "a length that is no number",
        ),
        ("SIZE", Box::new(|| Act::Say("550 None.")), "550 None."),
        (
            "SIZE",
            Box::new(|| Act::Say("500 What?")),
            "cannot do the length of the file: 500 What?",
        ),
        (
            "EPSV",
            Box::new(|| Act::Say("229 (|||x|)")),
            "names no port",
        ),
        (
            "EPSV",
            Box::new(|| Act::Say("229 (|||1|)")),
            "cannot be reached",
        ),
        (
            "RETR",
            Box::new(|| Act::Say("550 Not yours.")),
            "refuses the file: 550 Not yours.",
        ),
        (
            "RETR",
            Box::new(|| Act::Say("226 Done.")),
            "answers the file with '226 Done.'",
        ),
        // The transfer never begins.
        (
            "RETR",
            Box::new(|| Act::Say("150 Soon.")),
            "has not answered within 1 seconds",
        ),
        (
            "TYPE",
            Box::new(|| Act::Say("200 A\r\n200 B")),
            "what was not asked for",
        ),
        (
            "AUTH",
            Box::new(|| Act::Say("502 No.")),
            "cannot do TLS: 502 No.",
        ),
        // What arrives before TLS could come from anybody.
        (
            "AUTH",
            Box::new(|| Act::Say("234 Go.\r\n220 Evil.")),
            "more than it was asked for",
        ),
    ];
    for (verb, make, text) in lies {
        let server = Server::new(move |asked| (asked.verb == verb).then(&make));
        let options = match verb {
            "AUTH" => "timeout=1,retry-timeout=0,tls=on",
            _ => SHORT,
        };
        let found = server.open_with(options, &Objects::new(), &Arc::default());
        let found = error(found).to_string();
        assert!(found.contains(text), "{verb}: {found}");
    }
}

#[test]
fn slow_servers_end_by_deadline_and_by_cancelling() {
    let server = Server::new(|asked| {
        let later = asked.verb == "REST" && asked.number > 0;
        later.then_some(Act::Silence)
    });
    let storage = server
        .open_with(SHORT, &Objects::new(), &Arc::default())
        .unwrap();
    let found = read_error(&*storage).to_string();
    assert!(
        found.ends_with("The server has not answered within 1 seconds"),
        "{found}"
    );
    let seen = Arc::new(AtomicUsize::new(0));
    let server = Server::new({
        let seen = seen.clone();
        move |asked| {
            let later = asked.verb == "REST";
            seen.fetch_add(usize::from(later), SeqCst);
            later.then_some(Act::Silence)
        }
    });
    let control = Arc::new(JobControl::default());
    let storage = server
        .open_with("timeout=0", &Objects::new(), &control)
        .unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| storage.read_at(&mut [0; 100], 1_000_000));
        while seen.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        let begun = Instant::now();
        control.cancel();
        assert_eq!(error(reader.join().unwrap()).kind(), ErrorKind::Cancelled);
        assert!(begun.elapsed() < Duration::from_secs(2));
    });
}
