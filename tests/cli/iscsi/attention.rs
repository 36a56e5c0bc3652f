//! Units that become something else while they are in use: what they say of it is heard, and no byte is of another unit.
//! This target says nothing of it until another initiator resets the unit.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::relay::{Change, Relay};
use super::server::{Server, tgtd_is_missing};
use super::{bytes, disk, unit};
use crate::build;
use crate::common::{Dir, Random};
use crate::pair::{ours_command, words};
use crate::remote_faults::end_of;

/// The length of the unit.
const LEN: usize = 32 << 20;
/// What is said where the unit is not used any more.
const CHANGED: &str = "is not what it was before";

/// A unit, and a command that is in the middle of it and stands still.
struct Middle {
    dir: Dir,
    server: Server,
    child: Child,
}

/// What a unit holds at the beginning; no two blocks are alike.
fn content() -> Vec<u8> {
    let mut random = Random(3);
    (0..LEN / 8)
        .flat_map(|_| random.next().to_le_bytes())
        .collect()
}

impl Middle {
    /// A copy from the unit to `out`, or from `in` to the unit.
    fn new(writes: bool) -> Self {
        Self::of(writes, "", |server| server.url(1))
    }

    /// Of a unit with a medium that can be changed. What it says when it was reset becomes what one says that has another
    /// medium, which this target does not say by itself.
    fn of_medium(writes: bool) -> Self {
        Self::of(writes, "removable=1", |server| {
            Relay::new(server.port, Change::Attention).url(server)
        })
    }

    fn of(writes: bool, params: &str, url: impl Fn(&Server) -> String) -> Self {
        let dir = Dir::new();
        let from = if writes { "in" } else { "unit" };
        std::fs::write(dir.path(from), content()).expect("a disk");
        if writes {
            unit(&dir, "unit", LEN);
        }
        let server = Server::new(&dir);
        server.unit(1, "unit", None, params);
        let url = url(&server);
        let line = match writes {
            // A unit says it to one command: others that are on their way to it may be carried out.
            true => format!("convert -m 1 -n -f raw -O raw -r 8M in {url}"),
            false => format!("convert -f raw -O raw -r 8M {url} out"),
        };
        let mut command = ours_command(&words(&line), dir.root());
        let child = command.stderr(Stdio::piped()).spawn().expect("the tool");
        let this = Self { dir, server, child };
        let deadline = Instant::now() + Duration::from_secs(60);
        let has_begun = || match writes {
            true => bytes(&this.dir, "unit")[1 << 20] != 0xa5,
            false => std::fs::metadata(this.dir.path("out")).is_ok_and(|meta| meta.len() > 0),
        };
        while !has_begun() {
            assert!(Instant::now() < deadline, "it does not begin");
            std::thread::sleep(Duration::from_millis(5));
        }
        this.signal("-STOP");
        this
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.expect("kill").success(), "it has ended");
    }

    /// Takes the unit away from the one that stands still, which goes on for a moment where a command of it is under way:
    /// from then on there is none.
    fn take(&self, line: &str) {
        self.retry(line, || {
            self.signal("-CONT");
            std::thread::sleep(Duration::from_millis(5));
            self.signal("-STOP");
        });
    }

    /// Does something with the target.
    fn adm(&self, line: &str) {
        self.retry(line, || std::thread::sleep(Duration::from_millis(5)));
    }

    fn retry(&self, line: &str, pause: impl Fn()) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.server.try_adm(line) {
            assert!(Instant::now() < deadline, "tgtadm {line}");
            pause();
        }
    }

    /// Another file becomes the unit of that number, with other names where it is to have them.
    fn replace(&self, file: &str, other_names: bool) {
        let unit = "--tid 1 --lun 1";
        self.take(&format!("--mode logicalunit --op delete {unit}"));
        let place = self.dir.str(file);
        self.adm(&format!("--mode logicalunit --op new {unit} -b {place}"));
        if other_names {
            let params = "scsi_id=other,scsi_sn=other";
            self.adm(&format!(
                "--mode logicalunit --op update {unit} --params {params}"
            ));
        }
        self.reset();
    }

    /// Another initiator resets the unit.
    #[track_caller]
    fn reset(&self) {
        let portal = format!("127.0.0.1:{}", self.server.port);
        let reset = Command::new(build::lun_reset())
            .args([&portal, "iqn.2025-01.test:1"])
            .output()
            .expect("the program");
        assert!(reset.status.success(), "{reset:?}");
    }

    /// Another medium is put into the unit.
    fn put_in(&self, file: &str) {
        let update = "--mode logicalunit --op update --tid 1 --lun 1 --params";
        self.take(&format!("{update} online=0"));
        self.adm(&format!("{update} path={}", self.dir.str(file)));
        self.adm(&format!("{update} online=1"));
        self.reset();
    }

    /// The command goes on, and its end: its code and what it says.
    fn ends(mut self) -> (Dir, Option<i32>, String) {
        self.signal("-CONT");
        let status = end_of(&mut self.child, "the copy");
        let output = self.child.wait_with_output().expect("its end");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (self.dir, status.code(), text)
    }

    #[track_caller]
    fn ends_refused(self) -> Dir {
        let (dir, code, text) = self.ends();
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(CHANGED), "{text}");
        assert!(!dir.path("out").exists(), "{text}");
        dir
    }

    #[track_caller]
    fn ends_well(self) {
        let (dir, code, text) = self.ends();
        assert_eq!(code, Some(0), "{text}");
        assert!(bytes(&dir, "out") == content());
    }
}

#[test]
fn another_unit_in_the_place_of_one_that_is_read_is_no_wrong_byte() {
    if tgtd_is_missing() {
        return;
    }
    let middle = Middle::new(false);
    unit(&middle.dir, "other", LEN);
    middle.replace("other", true);
    middle.ends_refused();
}

#[test]
fn another_unit_in_the_place_of_one_that_is_written_is_left_alone() {
    if tgtd_is_missing() {
        return;
    }
    let middle = Middle::new(true);
    unit(&middle.dir, "other", LEN);
    middle.replace("other", true);
    let dir = middle.ends_refused();
    assert!(bytes(&dir, "other").iter().all(|byte| *byte == 0xa5));
}

#[test]
fn another_medium_in_a_unit_is_no_wrong_byte() {
    if tgtd_is_missing() {
        return;
    }
    let middle = Middle::of_medium(false);
    unit(&middle.dir, "other", LEN);
    middle.put_in("other");
    middle.ends_refused();
    let middle = Middle::of_medium(true);
    unit(&middle.dir, "other", LEN);
    middle.put_in("other");
    let dir = middle.ends_refused();
    assert!(bytes(&dir, "other").iter().all(|byte| *byte == 0xa5));
}

#[test]
fn a_unit_that_becomes_shorter_is_no_wrong_byte() {
    if tgtd_is_missing() {
        return;
    }
    let middle = Middle::new(false);
    std::fs::write(middle.dir.path("shorter"), &content()[..LEN / 2]).expect("a unit");
    middle.replace("shorter", false);
    middle.ends_refused();
}

#[test]
fn a_unit_that_becomes_longer_is_read_on() {
    if tgtd_is_missing() {
        return;
    }
    let middle = Middle::new(false);
    let mut longer = content();
    longer.resize(LEN + (4 << 20), 0xa5);
    std::fs::write(middle.dir.path("longer"), longer).expect("a unit");
    middle.replace("longer", false);
    middle.ends_well();
}

#[test]
fn a_unit_that_is_reset_is_read_on() {
    if tgtd_is_missing() {
        return;
    }
    let middle = Middle::new(false);
    middle.reset();
    middle.ends_well();
}

#[test]
fn writes_go_through_to_a_target_that_is_started_anew() {
    if tgtd_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    unit(&dir, "unit", 8 << 20);
    let mut server = Server::new(&dir);
    server.unit(1, "unit", None, "");
    // Each write is durable, so that nothing can be lost.
    let line = format!(
        "convert -n -t writethrough -S 0 -f raw -O raw -r 2M a.raw {}",
        server.url(1)
    );
    let mut child = ours_command(&words(&line), dir.root())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool");
    let deadline = Instant::now() + Duration::from_secs(60);
    while bytes(&dir, "unit")[0] == 0xa5 {
        assert!(Instant::now() < deadline, "it does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    server.kill();
    let port = server.port;
    let server = loop {
        if let Some(server) = Server::at(&dir, port, deadline) {
            break server;
        }
        assert!(Instant::now() < deadline, "the port is taken");
    };
    server.unit(1, "unit", None, "");
    let status = end_of(&mut child, &line);
    let told = child.wait_with_output().expect("its end");
    assert!(status.success(), "{told:?}");
    assert!(bytes(&dir, "unit") == bytes(&dir, "a.raw"));
}
