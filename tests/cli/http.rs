//! Images on web servers, against nginx and `curl`. What QEMU's tool says there is written down here: its module is
//! in a package of its own, and hangs now and then.

mod gate;
mod proxied;
mod restarted;
pub mod server;

use std::time::{Duration, Instant};

use crate::site::{self, Serves as _};
use server::{Server, nginx_is_missing};

pub type Site = site::Site<Server>;

pub fn site() -> Option<Site> {
    (!nginx_is_missing()).then(Site::new)?
}

#[test]
fn both_tools_tell_the_same() {
    if let Some(site) = site() {
        site.both_tools_tell_the_same("http");
    }
}

#[test]
fn every_command_reads_images_on_a_server() {
    let Some(site) = site() else { return };
    site.every_command_reads();
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
}

#[test]
fn images_on_a_server_are_backing_files() {
    let Some(site) = site() else { return };
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
    let Some(site) = site() else { return };
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
    let Some(site) = site() else { return };
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
    let Some(site) = site() else { return };
    site.ran("convert -O raw --image-opts driver=qcow2,file.driver=http,file.url=U/norange/a.qcow2,file.spool=on out.raw");
    assert!(site.bytes("out.raw") == site.bytes("a.raw"));
    site.ran("compare U/redir/a.qcow2 a.raw");
}

#[test]
fn servers_without_ranges_are_read_in_one_pass_when_that_is_asked_for() {
    let Some(site) = site() else { return };
    // Images that other programs wrote in order, and one that came through a pipe of ours.
    site.ran("convert -O qcow2 a.raw c.qcow2");
    site.ran("convert -O vpc a.qcow2 d.vhd");
    site.ran("convert -O vmdk -o subformat=streamOptimized a.qcow2 e.vmdk");
    for (name, format) in [
        ("a.raw", "raw"),
        ("a.qcow2", "qcow2"),
        ("b.qcow2", "qcow2"),
        ("c.qcow2", "qcow2"),
        ("d.vhd", "vpc"),
        ("e.vmdk", "vmdk"),
    ] {
        let image = format!(
            "--image-opts driver={format},file.driver=http,file.url=U/norange/{name},file.stream=on"
        );
        for target in ["raw", "qcow2"] {
            site.ran(&format!("convert -O {target} {image} out"));
            site.ran(&format!("compare -f {target} -F raw out a.raw"));
        }
        site.ran(&format!("map --output=json {image}"));
        site.ran(&format!("measure -O qcow2 {image}"));
    }
    // What is not asked for in the name is not done.
    site.fails(
        "convert -O raw U/norange/a.raw out",
        "With the option 'stream'",
    );
    // The server logs a request when it sees that the client has gone.
    let asked = || site.server.log().matches("/norange/a.raw").count();
    let deadline = Instant::now() + Duration::from_secs(30);
    while asked() < 5 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(asked(), 5);
}

#[test]
fn servers_over_tls_are_those_that_they_must_be() {
    let Some(site) = site() else { return };
    let files = site.made.path();
    let run = |line: &str, ca| site.trusting(line, ca);
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
fn a_server_that_goes_away_is_an_error() {
    let Some(site) = site() else { return };
    site.ends_when_the_server_is_gone("http");
}
