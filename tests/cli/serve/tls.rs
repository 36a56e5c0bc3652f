//! Clients by TLS: certificates, keys that both ends know, and who is authorised.

use super::Served;
use crate::common::Dir;
use crate::pair::ours;
use crate::tls::certificates;

/// What QEMU's client says, by those credentials, of a server; ours comes in where that does.
fn said(dir: &Dir, served: &Served, credentials: &str, more: &str) -> (i32, String) {
    let object = format!("{credentials},id=c,endpoint=client");
    let socket = served.socket.display();
    let image = format!("driver=raw,file.driver=nbd,file.path={socket},file.tls-creds=c{more}");
    let args = ["info", "--object", &object, "--image-opts", &image];
    let theirs = dir.qemu_img(&args);
    let ours = ours(&args, dir.root());
    assert_eq!(ours.code, theirs.code, "{ours:?} {theirs:?}");
    (theirs.code, theirs.err)
}

const NAMED: &str = ",file.tls-hostname=localhost";

#[test]
fn clients_by_certificate_come_in_and_strangers_do_not() {
    let Some(made) = certificates() else {
        return;
    };
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "a.raw", "1M"]);
    let files = made.path();
    std::fs::copy(files.join("ca.pem"), files.join("ca-cert.pem")).expect("a copy");
    let stranger = dir.path("stranger");
    std::fs::create_dir(&stranger).expect("a directory");
    std::fs::copy(files.join("ca.pem"), stranger.join("ca-cert.pem")).expect("a copy");
    let own = format!("tls-creds-x509,dir={}", files.display());
    let server = format!("{own},id=t,endpoint=server");
    let args = [
        "-f",
        "raw",
        "--object",
        &server,
        "--tls-creds",
        "t",
        "a.raw",
    ];
    let served = Served::ours(&dir, &args);
    assert_eq!(said(&dir, &served, &own, NAMED), (0, String::new()));
    let (code, text) = said(&dir, &served, &own, ",file.tls-hostname=other.example");
    assert_eq!(code, 1);
    assert!(text.contains("does not match the hostname"), "{text}");
    let none = format!("tls-creds-x509,dir={}", stranger.display());
    assert_eq!(said(&dir, &served, &none, NAMED).0, 1);
    served.end();
    for (name, code) in [("CN=localhost", 0), ("CN=nobody", 1)] {
        let rule = format!("authz-simple,id=a,identity={name}");
        let more = ["--object", &rule, "--tls-authz", "a"];
        let served = Served::ours(&dir, &[&more[..], &args[..]].concat());
        assert_eq!(said(&dir, &served, &own, NAMED).0, code, "{name}");
        served.end();
    }
}

#[test]
fn clients_by_key_come_in_and_those_with_another_do_not() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "a.raw", "1M"]);
    let keys = |name: &str, key: &str| {
        let path = dir.path(name);
        std::fs::create_dir(&path).expect("a directory");
        std::fs::write(path.join("keys.psk"), format!("alice:{key}\n")).expect("a file");
        format!("tls-creds-psk,dir={}", path.display())
    };
    let right = keys("right", &"0123456789abcdef".repeat(4));
    let wrong = keys("wrong", &"fedcba9876543210".repeat(4));
    let server = format!("{right},id=t,endpoint=server");
    let args = [
        "-f",
        "raw",
        "--object",
        &server,
        "--tls-creds",
        "t",
        "a.raw",
    ];
    let served = Served::ours(&dir, &args);
    let alice = |keys: &str| said(&dir, &served, &format!("{keys},username=alice"), "");
    assert_eq!(alice(&right), (0, String::new()));
    assert_eq!(alice(&wrong).0, 1);
    served.end();
}
