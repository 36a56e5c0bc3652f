//! Images on web servers, against nginx and `curl`. What QEMU's tool says there is written down here: its module is
//! in a package of its own, and hangs now and then.

mod server;

use tempfile::TempDir;

use crate::common::{Dir, Ran, Random};
use crate::pair::{ours, ours_command, words};
use crate::tls::certificates;
use server::{Server, nginx_is_missing};

struct Site {
    server: Server,
    dir: Dir,
    made: TempDir,
}

impl Site {
    /// A server of `a.raw` and of `a.qcow2`, which is compressed, and of `b.qcow2`, which is not.
    fn new() -> Option<Self> {
        if nginx_is_missing() {
            return None;
        }
        let made = certificates()?;
        let dir = Dir::new();
        let mut random = Random(11);
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

    /// Runs a line in which `U/` stands for the server's URL.
    fn run(&self, line: &str) -> Ran {
        let line = line.replace("U/", &self.server.url(""));
        ours(&words(&line), self.dir.root())
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
        let text = text.replace("U/", &self.server.url(""));
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
        // Whatever is said of the file is said of the image there, except for where it lies.
        for command in [
            "map --output=json",
            "check",
            "measure -O qcow2",
            "snapshot -l",
        ] {
            let here = site.run(&format!("{command} {name}"));
            let there = site.run(&format!("{command} U/{name}"));
            if !(command.starts_with("map") && name == "a.raw") {
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
    let len = site.bytes("b.qcow2").len();
    for line in [
        &format!("image: {url}"),
        "file format: qcow2",
        "disk size: unavailable",
        "    protocol type: http",
        &format!("({len} bytes)"),
    ] {
        assert!(info.contains(line), "{info}");
    }
    assert!(!site.server.log().contains("HEAD"), "{}", site.server.log());
    let curl = std::process::Command::new("curl")
        .args(["-sS", "--fail", "-o", "curl.raw", &site.server.url("a.raw")])
        .current_dir(site.dir.root())
        .status();
    if curl.is_ok_and(|status| status.success()) {
        assert!(site.bytes("curl.raw") == site.bytes("a.raw"));
    }
}

#[test]
fn images_on_a_server_are_backing_files() {
    let Some(site) = Site::new() else { return };
    site.ran("create -q -f qcow2 -b U/a.qcow2 -F qcow2 top.qcow2");
    site.ran("compare top.qcow2 a.raw");
    let info = site.ran("info --backing-chain top.qcow2");
    let url = site.server.url("a.qcow2");
    assert!(info.contains(&format!("backing file: {url}\n")), "{info}");
    assert!(info.contains(&format!("image: {url}\n")), "{info}");
    site.ran("rebase -f qcow2 -F qcow2 -b U/b.qcow2 top.qcow2");
    site.ran("compare top.qcow2 a.raw");
    site.ran("rebase -f qcow2 -b '' top.qcow2");
    site.ran("compare top.qcow2 a.raw");
}

#[test]
fn what_cannot_be_is_told_in_the_words_of_the_peer() {
    let Some(site) = Site::new() else { return };
    for (line, text) in [
        (
            "resize U/b.qcow2 9M",
            "Could not open 'U/b.qcow2': curl driver does not support writes",
        ),
        (
            "check -r all U/b.qcow2",
            "Could not open 'U/b.qcow2': curl driver does not support writes",
        ),
        (
            "snapshot -c s U/b.qcow2",
            "Could not open 'U/b.qcow2': curl driver does not support writes",
        ),
        (
            "convert -n -O raw a.raw U/a.raw",
            "Could not open 'U/a.raw': curl driver does not support writes",
        ),
        (
            "create -f raw U/x 1M",
            "U/x: Protocol driver 'http' does not support image creation",
        ),
        (
            "create -f qcow2 U/x 1M",
            "U/x: Protocol driver 'http' does not support image creation",
        ),
        (
            "convert -O raw a.raw U/x",
            "Protocol driver 'http' does not support image creation",
        ),
        (
            "info U/none",
            "Could not open 'U/none': The requested URL returned error: 404",
        ),
        ("info U/gone/x", "The requested URL returned error: 410"),
        ("info U/down/x", "The requested URL returned error: 503"),
        ("info U/auth/a.raw", "The requested URL returned error: 401"),
        (
            "info U/cookie/a.raw",
            "The requested URL returned error: 403",
        ),
        (
            "info U/norange/a.raw",
            "Server does not support 'range' (byte ranges).",
        ),
        (
            "info http:foo",
            "Could not open 'http:foo': http curl driver cannot handle the URL 'http:foo' (does not start with 'http://')",
        ),
        ("info http://127.0.0.1:1/x", "Connection refused"),
        (
            "info --image-opts driver=http",
            "Could not open 'driver=http': curl block driver requires an 'url' option",
        ),
        (
            "info --image-opts driver=http,url=U/a.raw,bogus=1",
            "Block protocol 'http' doesn't support the option 'bogus'",
        ),
        (
            "info --image-opts driver=https,url=U/a.raw",
            "https curl driver cannot handle the URL 'U/a.raw' (does not start with 'https://')",
        ),
        (
            "info --image-opts driver=http,url=U/a.raw,password-secret=s",
            "No secret with id 's'",
        ),
    ] {
        site.fails(line, text);
    }
}

#[test]
fn who_asks_is_told_by_secrets_and_shown_nowhere() {
    let Some(site) = Site::new() else { return };
    let secret = "--object secret,id=s,data=s3cret --object secret,id=k,data=key=42";
    let image = "driver=raw,file.driver=http,file.url=U";
    for (options, path) in [
        ("file.username=joe,file.password-secret=s", "auth"),
        ("file.cookie-secret=k", "cookie"),
        ("file.cookie=key=42", "cookie"),
    ] {
        let info = site.ran(&format!(
            "info {secret} --image-opts {image}/{path}/a.raw,{options}"
        ));
        assert!(
            !info.contains("s3cret") && !info.contains("key=42"),
            "{info}"
        );
    }
    let url = site.server.url("auth/a.raw").replace("//", "//joe:s3cret@");
    let info = site.ran(&format!("info -f raw {url}"));
    assert!(info.contains("image: http://joe@127.0.0.1"), "{info}");
    assert!(!info.contains("s3cret"), "{info}");
    let missing = url.replace("a.raw", "none");
    for line in [
        format!("info {missing}"),
        format!("info --image-opts driver=http,url={missing}"),
        format!("create -f raw {missing} 1M"),
    ] {
        let ran = site.run(&line);
        assert_eq!(ran.code, 1, "{line}: {ran:?}");
        assert!(ran.err.contains("http://joe@127.0.0.1"), "{line}: {ran:?}");
        assert!(!ran.err.contains("s3cret"), "{line}: {ran:?}");
    }
}

#[test]
fn servers_without_ranges_are_taken_whole_when_that_is_asked_for() {
    let Some(site) = Site::new() else { return };
    site.ran("convert -O raw --image-opts driver=qcow2,file.driver=http,file.url=U/norange/a.qcow2,file.spool=on out.raw");
    assert!(site.bytes("out.raw") == site.bytes("a.raw"));
    site.ran("compare U/redir/a.qcow2 a.raw");
}

#[test]
fn servers_over_tls_are_those_that_they_must_be() {
    let Some(site) = Site::new() else { return };
    let files = site.made.path();
    let run = |line: &str, ca: &str| {
        let mut command = ours_command(&words(line), site.dir.root());
        command
            .env("SSL_CERT_FILE", files.join(ca))
            .env_remove("SSL_CERT_DIR");
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text)
    };
    let url = site.server.tls("a.qcow2");
    let good = (Some(0), String::new());
    assert_eq!(run(&format!("compare {url} a.raw"), "ca.pem"), good);
    let (code, text) = run(&format!("info {url}"), "other.pem");
    assert_eq!(code, Some(1));
    assert!(
        text.contains("The certificate hasn't got a known issuer"),
        "{text}"
    );
    let number = url.replace("localhost", "127.0.0.1");
    let (code, text) = run(&format!("info {number}"), "ca.pem");
    assert_eq!(code, Some(1));
    assert!(
        text.contains("Certificate does not match the hostname 127.0.0.1"),
        "{text}"
    );
    let off = format!("info --image-opts driver=https,url={number},sslverify=off");
    assert_eq!(run(&off, "other.pem"), good);
    let (code, text) = run(
        &format!("info {}", site.server.tls("redir/a.qcow2")),
        "ca.pem",
    );
    assert_eq!(code, Some(1));
    assert!(text.contains("which is not encrypted"), "{text}");
    // Those who have a certificate of their own.
    let own = site.server.own("a.qcow2");
    assert_eq!(run(&format!("info {own}"), "ca.pem").0, Some(1));
    std::fs::copy(files.join("ca.pem"), files.join("ca-cert.pem")).unwrap();
    let object = format!("--object tls-creds-x509,id=t,dir={}", files.display());
    let line = format!("info {object} --image-opts driver=https,url={own},tls-creds=t");
    assert_eq!(run(&line, "other.pem"), good);
}

#[test]
fn a_server_that_goes_away_is_an_error_in_time() {
    let Some(mut site) = Site::new() else { return };
    let options =
        "driver=raw,file.driver=http,file.timeout=1,file.retry-timeout=1,file.url=U/a.raw";
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
