//! Images on FTP servers, against pyftpdlib and `curl`.

mod server;

use tempfile::TempDir;

use crate::common::{Dir, Ran, Random};
use crate::pair::{ours, ours_command, words};
use crate::tls::certificates;
use server::{Server, server_is_left_out};

struct Site {
    server: Server,
    dir: Dir,
    made: TempDir,
}

impl Site {
    /// A server of `a.raw` and of `a.qcow2`, which is compressed, and of `b.qcow2`, which is not.
    fn new() -> Option<Self> {
        if server_is_left_out() {
            return None;
        }
        let made = certificates()?;
        let dir = Dir::new();
        let mut random = Random(12);
        let mut bytes = vec![0; 8 << 20];
        for piece in bytes.chunks_mut(256 << 10).step_by(3) {
            for word in piece.chunks_exact_mut(8) {
                word.copy_from_slice(&(random.next() & 0xffff_ffff).to_le_bytes());
            }
        }
        std::fs::write(dir.path("a.raw"), bytes).unwrap();
        dir.qemu_img_ok(&words("convert -f raw -O qcow2 -c a.raw a.qcow2"));
        dir.qemu_img_ok(&words("convert -f raw -O qcow2 a.raw b.qcow2"));
        let server = Server::new(&dir, made.path());
        Some(Self { server, dir, made })
    }

    /// Runs a line in which `U/`, `A/` and `T/` stand for the server's URLs.
    fn run(&self, line: &str) -> Ran {
        ours(&words(&self.line(line)), self.dir.root())
    }

    fn line(&self, line: &str) -> String {
        line.replace("U/", &self.server.url(""))
            .replace("A/", &self.server.asked(""))
            .replace("T/", &self.server.tls(""))
    }

    #[track_caller]
    fn ran(&self, line: &str) -> String {
        let ran = self.run(line);
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
        ran.out
    }

    #[track_caller]
    fn fails(&self, line: &str, text: &str) {
        let ran = self.run(line);
        let text = self.line(text);
        assert_eq!(ran.code, 1, "{line}: {ran:?}");
        assert!(ran.err.contains(&text), "{line}: {ran:?}");
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.dir.path(name)).unwrap()
    }
}

#[test]
fn every_command_reads_images_on_a_server() {
    let Some(site) = Site::new() else { return };
    for name in ["a.raw", "a.qcow2", "b.qcow2"] {
        for command in [
            "map --output=json",
            "check",
            "measure -O qcow2",
            "snapshot -l",
        ] {
            // Where plain files have holes, a server does not tell.
            if !(command.starts_with("map") && name == "a.raw") {
                let here = site.run(&format!("{command} {name}"));
                let there = site.run(&format!("{command} U/{name}"));
                assert_eq!(here, there, "{command} {name}");
            }
        }
        site.ran(&format!("compare U/{name} a.raw"));
        site.ran(&format!("convert -O raw U/{name} out.raw"));
        assert!(site.bytes("out.raw") == site.bytes("a.raw"), "{name}");
        site.ran(&format!("dd -O raw bs=64k if=U/{name} of=out.raw"));
    }
    let info = site.ran("info U/b.qcow2");
    let url = site.server.url("b.qcow2");
    for line in [
        &format!("image: {url}"),
        "file format: qcow2",
        "disk size: unavailable",
        "    protocol type: ftp",
    ] {
        assert!(info.contains(line), "{info}");
    }
    site.ran("create -q -f qcow2 -b U/a.qcow2 -F qcow2 top.qcow2");
    site.ran("compare top.qcow2 a.raw");
    site.ran("rebase -f qcow2 -b '' top.qcow2");
    site.ran("compare top.qcow2 a.raw");
    let curl = std::process::Command::new("curl")
        .args(["-sS", "--fail", "-o", "curl.raw", &site.server.url("a.raw")])
        .current_dir(site.dir.root())
        .status();
    if curl.is_ok_and(|status| status.success()) {
        assert!(site.bytes("curl.raw") == site.bytes("a.raw"));
    }
}

#[test]
fn what_cannot_be_is_told_in_one_line() {
    let Some(site) = Site::new() else { return };
    for (line, text) in [
        (
            "resize U/b.qcow2 9M",
            "Could not open 'U/b.qcow2': curl driver does not support writes",
        ),
        (
            "create -f raw U/x 1M",
            "U/x: Protocol driver 'ftp' does not support image creation",
        ),
        (
            "info U/none",
            "Could not open 'U/none': The server refuses the length of the file: 550",
        ),
        ("info U/", "The URL names a directory"),
        ("info U/a.raw;type=a", "another type than an image"),
        ("info U/%0d%0aDELE", "The path has the end of a line"),
        (
            "info ftp:foo",
            "ftp curl driver cannot handle the URL 'ftp:foo' (does not start with 'ftp://')",
        ),
        ("info ftp://127.0.0.1:1/x", "Connection refused"),
        (
            "info --image-opts driver=ftp",
            "curl block driver requires an 'url' option",
        ),
        (
            "info --image-opts driver=ftp,url=U/a.raw,cookie=1",
            "Block protocol 'ftp' doesn't support the option 'cookie'",
        ),
        (
            "info --image-opts driver=ftp,url=U/a.raw,tls=on",
            "The server cannot do TLS",
        ),
        (
            "info --image-opts driver=ftps,url=T/a.raw,tls=off",
            "wants every byte encrypted",
        ),
        // A server of TLS alone.
        (
            "info A/a.raw",
            "The server refuses the user or the password: 550",
        ),
    ] {
        site.fails(line, text);
    }
}

#[test]
fn who_asks_is_told_by_secrets_and_shown_nowhere() {
    let Some(site) = Site::new() else { return };
    let secret = "--object secret,id=s,data=s3cret --object secret,id=w,data=wr0ng";
    let image = "--image-opts driver=raw,file.driver=ftp,file.url=U/a.raw,file.username=joe";
    let info = site.ran(&format!("info {secret} {image},file.password-secret=s"));
    assert!(!info.contains("s3cret"), "{info}");
    let ran = site.run(&format!("info {secret} {image},file.password-secret=w"));
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.err
            .contains("The server refuses the user or the password: 530"),
        "{ran:?}"
    );
    assert!(!ran.err.contains("wr0ng"), "{ran:?}");
    let url = site.server.url("a.raw").replace("//", "//joe:s3cret@");
    let info = site.ran(&format!("info -f raw {url}"));
    assert!(info.contains("image: ftp://joe@127.0.0.1"), "{info}");
    assert!(!info.contains("s3cret"), "{info}");
    assert!(site.server.log().contains("USER 'joe' logged in."));
}

#[test]
fn servers_over_tls_are_those_that_they_must_be() {
    let Some(site) = Site::new() else { return };
    let run = |line: &str, ca: &str| {
        let mut command = ours_command(&words(&site.line(line)), site.dir.root());
        command
            .env("SSL_CERT_FILE", site.made.path().join(ca))
            .env_remove("SSL_CERT_DIR");
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text)
    };
    let good = (Some(0), String::new());
    let asked = "--image-opts driver=qcow2,file.driver=ftp,file.tls=on,file.url=A/b.qcow2";
    for image in ["T/b.qcow2", asked] {
        assert_eq!(run(&format!("check -q {image}"), "ca.pem"), good, "{image}");
        assert_eq!(
            run(&format!("convert -O raw {image} out.raw"), "ca.pem"),
            good
        );
        assert!(site.bytes("out.raw") == site.bytes("a.raw"));
        let (code, text) = run(&format!("info {image}"), "other.pem");
        assert_eq!(code, Some(1));
        assert!(
            text.contains("The certificate hasn't got a known issuer"),
            "{text}"
        );
    }
    let number = site.server.tls("a.raw").replace("localhost", "127.0.0.1");
    let (code, text) = run(&format!("info {number}"), "ca.pem");
    assert_eq!(code, Some(1));
    assert!(text.contains("does not match the hostname"), "{text}");
    let off = format!("info --image-opts driver=ftps,url={number},sslverify=off");
    assert_eq!(run(&off, "other.pem"), good);
}

#[test]
fn a_server_that_goes_away_is_an_error_in_time() {
    let Some(mut site) = Site::new() else { return };
    let options = "driver=raw,file.driver=ftp,file.timeout=1,file.retry-timeout=1,file.url=U/a.raw";
    site.ran(&format!("info --image-opts {options}"));
    site.server.kill();
    let begun = std::time::Instant::now();
    site.fails(
        &format!("convert -O raw --image-opts {options} out.raw"),
        "Connection refused",
    );
    assert!(begun.elapsed().as_secs() < 20);
    assert!(!site.dir.path("out.raw").exists());
}
