//! Images on a server that only gives, and the tool beside it: what tests of HTTP and FTP share.

use std::path::Path;

use tempfile::TempDir;

use crate::beside::{Beside, here, peer_has};
use crate::common::{Dir, Ran, Random};
use crate::pair::{ours, ours_command, words};
use crate::tls::certificates;

/// A server of what is in a directory.
pub trait Serves {
    /// Over the files of `dir`, with the certificates of `made`.
    fn new(dir: &Dir, made: &Path) -> Self;

    /// The URL of a file.
    fn url(&self, path: &str) -> String;

    /// A line in which short names of the server's URLs, such as `U/`, stand for them.
    fn line(&self, line: &str) -> String;

    /// Ends it as if the machine were switched off.
    fn kill(&mut self);
}

/// A server and the files that it serves.
pub struct Site<S> {
    pub server: S,
    pub dir: Dir,
    pub made: TempDir,
}

/// A disk of 8 MiB with data and zeroes.
pub fn disk(dir: &Dir, name: &str) {
    let mut random = Random(11);
    let mut bytes = vec![0; 8 << 20];
    for piece in bytes.chunks_mut(256 << 10).step_by(3) {
        for word in piece.chunks_exact_mut(8) {
            word.copy_from_slice(&(random.next() & 0xffff_ffff).to_le_bytes());
        }
    }
    std::fs::write(dir.path(name), bytes).expect("a disk");
}

impl<S: Serves> Site<S> {
    /// A server of `a.raw` and of `a.qcow2`, which is compressed, and of `b.qcow2`, which is not.
    pub fn new() -> Option<Self> {
        let made = certificates()?;
        let dir = Dir::new();
        disk(&dir, "a.raw");
        dir.qemu_img_ok(&words("convert -f raw -O qcow2 -c a.raw a.qcow2"));
        dir.qemu_img_ok(&words("convert -f raw -O qcow2 a.raw b.qcow2"));
        let server = S::new(&dir, made.path());
        Some(Self { server, dir, made })
    }

    /// Beside QEMU's tool, where that has the driver.
    pub fn both_tools_tell_the_same(&self, driver: &str) {
        if !peer_has(driver) {
            return;
        }
        for (from, to) in [("a.raw", "r"), ("b.qcow2", "q")] {
            std::fs::hard_link(self.dir.path(from), self.dir.path(to)).expect("an image");
        }
        let beside = Beside {
            dir: &self.dir,
            command: &|program, args| here(self.dir.root(), &[], program, args),
            name: &|name| self.server.url(name),
            options: &|name| format!("driver={driver},url={}", self.server.url(name)),
            renamed: &|text| text,
        };
        beside.tells();
        beside.same(&[
            "create -f raw U/new 1M",
            "resize -f raw U/r 9M",
            &format!("info {driver}:x"),
        ]);
    }

    pub fn run(&self, line: &str) -> Ran {
        ours(&words(&self.server.line(line)), self.dir.root())
    }

    #[track_caller]
    pub fn ran(&self, line: &str) -> String {
        let ran = self.run(line);
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
        ran.out
    }

    #[track_caller]
    pub fn fails(&self, line: &str, text: &str) {
        let ran = self.run(line);
        let text = self.server.line(text);
        assert_eq!(ran.code, 1, "{line}: {ran:?}");
        assert!(ran.err.contains(&text), "{line}: {ran:?}");
    }

    /// Exit code and messages where the authorities of that file are trusted.
    pub fn trusting(&self, line: &str, authorities: &str) -> (Option<i32>, String) {
        let mut command = ours_command(&words(&self.server.line(line)), self.dir.root());
        command
            .env("SSL_CERT_FILE", self.made.path().join(authorities))
            .env_remove("SSL_CERT_DIR");
        let output = command.output().expect("the tool");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text)
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.dir.path(name)).expect("a file")
    }

    /// Whatever is said of the files here is said of those there, except for where they lie.
    #[track_caller]
    pub fn every_command_reads(&self) {
        for name in ["a.raw", "a.qcow2", "b.qcow2"] {
            for command in [
                "map --output=json",
                "check",
                "measure -O qcow2",
                "snapshot -l",
            ] {
                // Where plain files have holes, a server does not tell.
                if !(command.starts_with("map") && name == "a.raw") {
                    let here = self.run(&format!("{command} {name}"));
                    let there = self.run(&format!("{command} U/{name}"));
                    assert_eq!(here, there, "{command} {name}");
                }
            }
            self.ran(&format!("compare U/{name} a.raw"));
            self.ran(&format!("convert -O raw U/{name} out.raw"));
            assert!(self.bytes("out.raw") == self.bytes("a.raw"), "{name}");
            self.ran(&format!("dd -O raw bs=64k if=U/{name} of=out.raw"));
        }
        let curl = std::process::Command::new("curl")
            .args(["-sS", "--fail", "-o", "curl.raw", &self.server.url("a.raw")])
            .current_dir(self.dir.root())
            .status();
        if curl.is_ok_and(|status| status.success()) {
            assert!(self.bytes("curl.raw") == self.bytes("a.raw"));
        }
    }

    /// An image of a server that is gone is an error, and nothing is left of what it was to become.
    #[track_caller]
    pub fn ends_when_the_server_is_gone(mut self, driver: &str) {
        let options = format!(
            "driver=raw,file.driver={driver},file.timeout=1,file.retry-timeout=1,file.url=U/a.raw"
        );
        self.ran(&format!("info --image-opts {options}"));
        self.server.kill();
        self.fails(
            &format!("convert -O raw --image-opts {options} out.raw"),
            "Connection refused",
        );
        assert!(!self.dir.path("out.raw").exists());
    }
}
