use std::collections::BTreeMap;
use std::io::IoSlice;
use std::process::{Command, Stdio};

use bstr::BStr;

use super::pki;
use super::sessions::{Ends, talk};
use crate::error::{ErrorKind, Result};
use crate::net::tls::session::Plain;
use crate::net::{Stream, TlsCredentials, Wait};

const ALICE: &str = "alice:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const OTHER: &str = "alice:ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const FOREVER: Wait<'_> = Wait::forever();

fn psk(pairs: &[(&str, &str)]) -> Result<TlsCredentials> {
    let map: BTreeMap<&str, &BStr> = pairs.iter().map(|(k, v)| (*k, BStr::new(*v))).collect();
    TlsCredentials::psk(&map)
}

/// None if the system lacks the library for it.
fn client(keys: &str, priority: &str) -> Option<TlsCredentials> {
    let pairs = [
        ("keys", keys),
        ("username", "alice"),
        ("priority", priority),
    ];
    match psk(&pairs) {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            eprintln!("SKIPPED: {error}");
            None
        }
        made => Some(made.unwrap()),
    }
}

fn server(keys: &str) -> TlsCredentials {
    psk(&[("endpoint", "server"), ("keys", keys)]).unwrap()
}

fn ends(client: &TlsCredentials, server: &TlsCredentials) -> Ends {
    [
        client.client_session(None).unwrap(),
        server.server_session().unwrap(),
    ]
}

const VERSIONS: [&str; 2] = ["NORMAL:-VERS-TLS1.3", "NORMAL:-VERS-TLS1.2"];

#[test]
fn a_key_that_both_know_makes_a_session_however_its_bytes_are_cut() {
    for priority in VERSIONS {
        for step in [1, 2, 3, 5, 100, 1 << 20] {
            let Some(client) = client(ALICE, priority) else {
                return;
            };
            let mut both = ends(&client, &server(&format!("bob:00\n# none\n{ALICE}\n")));
            talk(&mut both, step).unwrap();
            assert!(both.iter().all(|end| !end.is_handshaking()));
            assert_eq!(both[1].identity().unwrap(), "alice");
            let data = vec![7; 100_000];
            let n = both[1]
                .write(&[IoSlice::new(b"head"), IoSlice::new(&data)])
                .unwrap();
            assert_eq!(n, 64 << 10);
            talk(&mut both, step).unwrap();
            let mut got = Vec::new();
            let mut buf = [0; 5000];
            while let Plain::Bytes(n) = both[0].read(&mut buf).unwrap() {
                got.extend_from_slice(&buf[..n]);
            }
            assert_eq!(&got[..5], b"head\x07");
            assert_eq!(got.len(), 64 << 10);
            both[1].close();
            talk(&mut both, step).unwrap();
            assert_eq!(both[0].read(&mut buf).unwrap(), Plain::End);
        }
    }
}

#[test]
fn another_key_and_an_unknown_name_are_refused() {
    for priority in VERSIONS {
        let Some(client) = client(ALICE, priority) else {
            return;
        };
        for keys in [OTHER, "bob:00ff"] {
            let error = talk(&mut ends(&client, &server(keys)), 1 << 20).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        }
    }
}

#[test]
fn a_certificate_in_the_place_of_the_key_is_refused() {
    if super::pki::dir().is_none() {
        return;
    }
    for priority in VERSIONS {
        let Some(client) = client(ALICE, priority) else {
            return;
        };
        let server = super::pki::x509("server", "ca", "server", &[("verify-peer", "off")]);
        talk(&mut ends(&client, &server), 1 << 20).unwrap_err();
    }
}

#[test]
fn keys_are_found_by_name_and_must_be_digits() {
    for (pairs, words) in [
        (&[][..], "Missing 'dir' property value"),
        (
            &[("keys", ALICE)],
            "Username qemu not found in PSK file keys",
        ),
        (
            &[("dir", "/nonexistent")],
            "Unable to access credentials /nonexistent/keys.psk: No such file or directory",
        ),
        (
            &[("keys", ALICE), ("endpoint", "server"), ("username", "x")],
            "username should not be set when endpoint=server",
        ),
        (
            &[("keys", "qemu:nothex")],
            "The key of 'qemu' in keys is not in hexadecimal digits",
        ),
        (&[("foo", "1")], "Parameter 'foo' is unexpected"),
    ] {
        assert_eq!(psk(pairs).unwrap_err().to_string(), words);
    }
}

#[test]
fn openssl_is_a_peer_by_key_in_both_versions() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("SKIPPED: tests of TLS need the command openssl");
        return;
    }
    let (_, key) = ALICE.split_once(':').unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        let Some(client) = client(ALICE, "NORMAL") else {
            return;
        };
        let own = tempfile::tempdir().unwrap();
        let socket = own.path().join("s");
        let mut other = Command::new("openssl")
            .args([
                "s_server",
                "-nocert",
                "-psk",
                key,
                "-psk_identity",
                "alice",
                version,
            ])
            .args(["-rev", "-unix"])
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stream = pki::connected(&socket);
        let stream = stream.with_tls_client(&client, None, FOREVER).unwrap();
        stream.write_all(b"abc\n", FOREVER).unwrap();
        let mut got = [0; 4];
        stream.read_exact(&mut got, FOREVER).unwrap();
        assert_eq!(&got, b"cba\n");
        other.kill().unwrap();
        other.wait().unwrap();
    }
}

#[test]
fn both_ways_at_once() {
    let Some(client) = client(ALICE, "NORMAL") else {
        return;
    };
    let server = server(ALICE);
    let (near, far) = Stream::pair().unwrap();
    std::thread::scope(|scope| {
        let far = scope.spawn(|| far.with_tls_server(&server, None, FOREVER).unwrap());
        let near = near.with_tls_client(&client, None, FOREVER).unwrap();
        let far = far.join().unwrap();
        assert_eq!(far.identity(), Some("alice"));
        let data: Vec<u8> = (0..2_000_000u32).map(|n| (n / 7) as u8).collect();
        std::thread::scope(|scope| {
            for end in [&near, &far] {
                scope.spawn(|| end.write_all(&data, FOREVER).unwrap());
                scope.spawn(|| {
                    let mut got = vec![0; data.len()];
                    end.read_exact(&mut got, FOREVER).unwrap();
                    assert!(got == data);
                });
            }
        });
    });
}
