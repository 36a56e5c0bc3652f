//! Objects of TLS: certificates, keys that both ends know, and who is authorised by them.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::pair::{Loose, Pair};

/// What a directory of certificates is made by.
const SCRIPT: &str = r#"
set -e
for ca in ca other; do
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout $ca.key -out $ca.pem \
    -subj "/CN=Test $ca" -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
done
for end in server client; do
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $end-key.pem -out $end.csr -subj /CN=localhost
  printf 'basicConstraints=critical,CA:FALSE\nextendedKeyUsage=%sAuth\nsubjectAltName=DNS:localhost\n' $end > $end.ext
  openssl x509 -req -in $end.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile $end.ext -out $end-cert.pem
done
"#;

/// The files of a directory as objects have it; None where there is no `openssl`.
pub(crate) fn certificates() -> Option<tempfile::TempDir> {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("SKIPPED: tests of TLS need the command openssl");
        return None;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let made = Command::new("sh")
        .args(["-c", SCRIPT])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    assert!(made.status.success(), "{made:?}");
    Some(dir)
}

/// Copies files of `from` into a directory of both tools, under the names that stand behind a colon.
fn place(pair: &Pair, from: &Path, directory: &str, files: &[&str]) {
    pair.directory(directory);
    for file in files {
        let (name, to) = file.split_once(':').unwrap_or((file, file));
        let content = std::fs::read(from.join(name)).expect("a file");
        pair.file(&format!("{directory}/{to}"), &content);
    }
}

fn images() -> Pair {
    Pair::with(&["create -f raw a.raw 1M"])
}

#[test]
fn certificates_are_taken_and_refused_alike() {
    let Some(made) = certificates() else {
        return;
    };
    let pair = images();
    let ca = "ca.pem:ca-cert.pem";
    let own = ["client-cert.pem", "client-key.pem"];
    place(
        &pair,
        made.path(),
        "all",
        &[ca, own[0], own[1], "server-cert.pem", "server-key.pem"],
    );
    place(&pair, made.path(), "ca", &[ca]);
    place(&pair, made.path(), "cert", &[ca, own[0]]);
    place(&pair, made.path(), "key", &[ca, own[1]]);
    place(&pair, made.path(), "none", &[]);
    place(
        &pair,
        made.path(),
        "foreign",
        &["other.pem:ca-cert.pem", own[0], own[1]],
    );
    place(
        &pair,
        made.path(),
        "mixed",
        &[ca, own[0], "server-key.pem:client-key.pem"],
    );
    place(&pair, made.path(), "garbage", &["client.ext:ca-cert.pem"]);
    for properties in [
        "",
        ",dir=all",
        ",dir=all,endpoint=client",
        ",dir=all,endpoint=server,verify-peer=off",
        ",dir=all,endpoint=server,priority=NORMAL:-VERS-TLS1.3",
        ",dir=all,endpoint=middle",
        ",dir=all,verify-peer=maybe",
        ",dir=all,foo=1",
        ",dir=all,passwordid=nobody",
        ",dir=ca",
        ",dir=ca,endpoint=server",
        ",dir=cert",
        ",dir=key",
        ",dir=none",
        ",dir=none,endpoint=server",
        ",dir=nowhere",
        ",dir=foreign",
        ",dir=foreign,sanity-check=off",
        ",dir=mixed",
        ",dir=garbage",
    ] {
        let object = format!("tls-creds-x509,id=t{properties}");
        pair.same_args(&["info", "--object", &object, "a.raw"], Loose::DiskSize);
    }
}

#[test]
fn keys_are_taken_and_refused_alike() {
    let pair = images();
    pair.directory("keys");
    pair.file("keys/keys.psk", b"alice:00112233\n");
    for properties in [
        "",
        ",dir=keys",
        ",dir=keys,username=alice",
        ",dir=keys,username=alice,endpoint=client",
        ",dir=keys,endpoint=server",
        ",dir=keys,endpoint=server,username=alice",
        ",dir=nowhere",
        ",dir=keys,foo=1",
    ] {
        let object = format!("tls-creds-psk,id=t{properties}");
        pair.same_args(&["info", "--object", &object, "a.raw"], Loose::DiskSize);
    }
}

#[test]
fn who_is_authorised_is_taken_and_refused_alike() {
    let pair = images();
    for object in [
        "authz-simple,id=a,identity=CN=client",
        "authz-simple,id=a",
        "authz-list,id=a",
        "authz-list,id=a,policy=allow",
        "authz-list,id=a,policy=deny,rules.0.match=CN=*,rules.0.policy=allow,rules.0.format=glob",
        "authz-list,id=a,policy=maybe",
    ] {
        pair.same_args(&["info", "--object", object, "a.raw"], Loose::DiskSize);
    }
    for kind in [
        "tls-creds-x509",
        "tls-creds-psk",
        "authz-simple",
        "authz-list",
        "secret",
        "throttle-group",
    ] {
        let help = format!("{kind},help");
        pair.same_args(&["info", "--object", &help, "a.raw"], Loose::Exact);
    }
}
