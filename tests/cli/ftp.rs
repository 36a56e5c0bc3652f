//! Images on FTP servers, against pyftpdlib and `curl`.

mod ends;
pub mod server;

use crate::site::{self, Serves as _};
use server::{Server, server_is_left_out};

pub type Site = site::Site<Server>;

pub fn site() -> Option<Site> {
    (!server_is_left_out()).then(Site::new)?
}

#[test]
fn both_tools_tell_the_same() {
    if let Some(site) = site() {
        site.both_tools_tell_the_same("ftp");
    }
}

#[test]
fn every_command_reads_images_on_a_server() {
    let Some(site) = site() else { return };
    site.every_command_reads();
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
}

#[test]
fn what_cannot_be_is_told_in_one_line() {
    let Some(site) = site() else { return };
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
    let Some(site) = site() else { return };
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
    let Some(site) = site() else { return };
    let run = |line: &str, ca| site.trusting(line, ca);
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
fn a_server_that_goes_away_is_an_error() {
    let Some(site) = site() else { return };
    site.ends_when_the_server_is_gone("ftp");
}
