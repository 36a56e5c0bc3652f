use std::io::IoSlice;

use super::pki::{self, define, tree, x509};
use crate::error::{ErrorKind, Result};
use crate::net::TlsCredentials;
use crate::net::tls::session::{Plain, Session};

pub(super) type Ends = [Box<dyn Session>; 2];

/// Moves bytes between two sessions until neither has any left, `step` at a time; stops with the error if a session
/// rejects its peer.
pub(super) fn talk(ends: &mut Ends, step: usize) -> Result<()> {
    let mut ways = [Vec::new(), Vec::new()];
    loop {
        let mut idle = true;
        for (from, way) in ways.iter_mut().enumerate() {
            ends[from].take(way)?;
            let n = way.len().min(step);
            if n > 0 {
                let taken = ends[1 - from].feed(&way[..n])?;
                way.drain(..taken);
                idle &= taken == 0;
            }
        }
        if idle {
            return Ok(());
        }
    }
}

fn ends(client: &TlsCredentials, server: &TlsCredentials) -> Ends {
    let client = client.client_session(Some("localhost")).unwrap();
    [client, server.server_session().unwrap()]
}

#[test]
fn two_sessions_agree_however_their_bytes_are_cut() {
    if pki::dir().is_none() {
        return;
    }
    let server = x509("server", "ca", "server", &[]);
    for priority in ["NORMAL:-VERS-TLS1.3", "NORMAL:-VERS-TLS1.2"] {
        let client = x509("client", "ca", "client", &[("priority", priority)]);
        for step in [1, 2, 3, 5, 100, 1 << 20] {
            let mut both = ends(&client, &server);
            talk(&mut both, step).unwrap();
            assert!(both.iter().all(|end| !end.is_handshaking()));
            assert_eq!(
                both[1].identity().unwrap(),
                "C=DE,O=Example\\, Inc.,CN=client1"
            );
            assert_eq!(both[0].identity().unwrap(), "CN=localhost");
            let n = both[0]
                .write(&[IoSlice::new(b"hel"), IoSlice::new(b"lo")])
                .unwrap();
            assert_eq!(n, 5);
            talk(&mut both, step).unwrap();
            let mut buf = [0; 10];
            assert_eq!(both[1].read(&mut buf).unwrap(), Plain::Bytes(5));
            assert_eq!(&buf[..5], b"hello");
            assert_eq!(both[1].read(&mut buf).unwrap(), Plain::Nothing);
            both[0].close();
            talk(&mut both, step).unwrap();
            assert_eq!(both[1].read(&mut buf).unwrap(), Plain::End);
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_is_an_error_and_never_other_bytes() {
    if pki::dir().is_none() {
        return;
    }
    let server = x509("server", "ca", "server", &[("verify-peer", "off")]);
    let client = x509("client", "ca", "", &[]);
    let mut hello = Vec::new();
    ends(&client, &server)[0].take(&mut hello).unwrap();
    for at in 0..hello.len() {
        let mut bad = hello.clone();
        bad[at] ^= 0x10;
        let mut end = server.server_session().unwrap();
        // Some bits of a first message have no meaning; none may complete the handshake.
        if end.feed(&bad).is_ok() {
            assert!(end.is_handshaking());
        }
    }
    let mut both = ends(&client, &server);
    talk(&mut both, 1 << 20).unwrap();
    both[0].write(&[IoSlice::new(b"secret")]).unwrap();
    let mut record = Vec::new();
    both[0].take(&mut record).unwrap();
    let last = record.len() - 1;
    record[last] ^= 1;
    let error = both[1].feed(&record).unwrap_err();
    assert_eq!(error.errno(), libc::EPROTO);
}

#[test]
fn peers_that_are_not_who_they_should_be_are_refused_in_known_words() {
    if pki::dir().is_none() {
        return;
    }
    let off = &[("sanity-check", "off")][..];
    let fails = |client: &TlsCredentials, server: &TlsCredentials, host| {
        let client = client.client_session(host).unwrap();
        let mut both = [client, server.server_session().unwrap()];
        let error = talk(&mut both, 1 << 20).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        error.to_string()
    };
    let open = x509("server", "ca", "server", &[("verify-peer", "off")]);
    let client = x509("client", "ca", "client", &[]);
    let trusting_others = x509("client", "other", "", &[]);
    assert_eq!(
        fails(&trusting_others, &open, Some("localhost")),
        "The certificate hasn't got a known issuer"
    );
    assert_eq!(
        fails(&client, &open, Some("other.example")),
        "Certificate does not match the hostname other.example"
    );
    assert_eq!(
        fails(&client, &open, Some("127.0.0.2")),
        "Certificate does not match the hostname 127.0.0.2"
    );
    let late = x509("server", "ca", "late", &[("verify-peer", "off"), off[0]]);
    assert_eq!(
        fails(&client, &late, Some("localhost")),
        "The certificate has expired"
    );
    let strict = x509("server", "ca", "server", &[]);
    assert_eq!(
        fails(&x509("client", "ca", "", &[]), &strict, Some("localhost")),
        "Verify failed: No certificate was found."
    );
    let mut stranger = vec![off[0]];
    stranger.push(("verify-peer", "off"));
    assert_eq!(
        fails(
            &x509("client", "other", "stranger", &stranger),
            &strict,
            Some("localhost")
        ),
        "The certificate hasn't got a known issuer"
    );
    let crl = pki::pem("ca-crl");
    let listed = x509("server", "ca", "server", &[("ca-crl", &crl)]);
    assert_eq!(
        fails(
            &x509("client", "ca", "gone", &[]),
            &listed,
            Some("localhost")
        ),
        "The certificate has been revoked"
    );
    // Other certificates of that authority are as good as before.
    talk(&mut ends(&client, &listed), 1 << 20).unwrap();
}

#[test]
fn names_are_those_of_the_list_or_without_one_that_of_the_subject() {
    if pki::dir().is_none() {
        return;
    }
    let meet = |server: &str, host: Option<&str>| {
        let server = x509("server", "ca", server, &[("verify-peer", "off")]);
        let client = x509("client", "ca", "", &[]).client_session(host)?;
        talk(&mut [client, server.server_session().unwrap()], 1 << 20)
    };
    for host in ["localhost", "LOCALHOST", "127.0.0.1", "::1", "::1%lo"] {
        meet("server", Some(host)).unwrap();
    }
    assert_eq!(
        meet("server", None).unwrap_err().to_string(),
        "No hostname for certificate validation"
    );
    meet("plain", Some("plain.example.org")).unwrap();
    assert!(meet("plain", Some("other.example.org")).is_err());
    assert!(meet("server", Some("not a name")).is_err());
    assert!(meet("server", Some("")).is_err());
}

#[test]
fn a_directory_is_read_as_other_tools_do() {
    if pki::dir().is_none() {
        return;
    }
    let (_made, dir) = tree(&[
        ("ca-cert", "ca-cert"),
        ("server-cert", "server-cert"),
        ("server-key", "server-key"),
        ("client-cert", "client-cert"),
        ("locked-key", "client-key"),
    ]);
    let dir = dir.to_str().unwrap();
    define(&[("dir", dir), ("endpoint", "server")]).unwrap();
    let locked = define(&[("dir", dir)]).unwrap_err();
    assert_eq!(locked.kind(), ErrorKind::NeedsSecret, "{locked}");
    // The secret with an ID is the ID itself here.
    define(&[("dir", dir), ("passwordid", "letmein")]).unwrap();
    let wrong = define(&[("dir", dir), ("passwordid", "letmeout")]).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::WrongSecret, "{wrong}");
    for (pairs, words) in [
        (&[][..], "Missing 'dir' property value"),
        (
            &[("dir", "/nonexistent")],
            "Unable to access credentials /nonexistent/ca-cert.pem: No such file or directory",
        ),
        (
            &[("endpoint", "middle")],
            "Parameter 'endpoint' does not accept value 'middle'",
        ),
        (
            &[("dir", dir), ("verify-peer", "maybe")],
            "Parameter 'verify-peer' expects 'on' or 'off'",
        ),
        (
            &[("dir", dir), ("foo", "1")],
            "Parameter 'foo' is unexpected",
        ),
        (
            &[("dir", dir), ("ca-cert", "x")],
            "'dir' and 'ca-cert' are mutually exclusive",
        ),
        (
            &[("ca-cert", "garbage")],
            "Unable to import CA certificate list ca-cert",
        ),
    ] {
        assert_eq!(define(pairs).unwrap_err().to_string(), words);
    }
}

#[test]
fn certificates_that_every_peer_would_refuse_are_refused_at_once() {
    if pki::dir().is_none() {
        return;
    }
    let [ca, other, cert, key, strange_key] = [
        "ca-cert",
        "other-cert",
        "client-cert",
        "client-key",
        "stranger-key",
    ]
    .map(pki::pem);
    let mismatch = define(&[("ca-cert", &ca), ("cert", &cert), ("key", &strange_key)]);
    assert_eq!(
        mismatch.unwrap_err().to_string(),
        "Cannot load certificate 'cert' & key 'key': The certificate and the given key do not match."
    );
    let foreign = [("ca-cert", other.as_str()), ("cert", &cert), ("key", &key)];
    assert_eq!(
        define(&foreign).unwrap_err().to_string(),
        "Our own certificate cert failed validation against ca-cert: The certificate hasn't got a known issuer"
    );
    define(&[&foreign[..], &[("sanity-check", "off")]].concat()).unwrap();
}
