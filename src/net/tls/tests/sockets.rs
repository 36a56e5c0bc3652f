use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::pki::{self, x509};
use crate::error::ErrorKind;
use crate::job::JobControl;
use crate::net::tls::Authorization;
use crate::net::{Stream, Wait};

const FOREVER: Wait<'_> = Wait::forever();

fn pair() -> (Stream, Stream) {
    let server = x509("server", "ca", "server", &[]);
    let client = x509("client", "ca", "client", &[]);
    let (near, far) = Stream::pair().unwrap();
    std::thread::scope(|scope| {
        let far = scope.spawn(|| far.with_tls_server(&server, None, FOREVER).unwrap());
        let near = near
            .with_tls_client(&client, Some("localhost"), FOREVER)
            .unwrap();
        (near, far.join().unwrap())
    })
}

#[test]
fn both_ways_at_once_and_the_end_is_announced() {
    if pki::dir().is_none() {
        return;
    }
    let (near, far) = pair();
    assert!(near.has_tls() && near.descriptor().is_none());
    assert_eq!(far.identity(), Some("C=DE,O=Example\\, Inc.,CN=client1"));
    let data: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
    std::thread::scope(|scope| {
        for end in [&near, &far] {
            scope.spawn(|| {
                let mut parts: Vec<_> = data.chunks(70_001).map(std::io::IoSlice::new).collect();
                end.write_all_vectored(&mut parts, FOREVER).unwrap();
            });
            scope.spawn(|| {
                let mut got = vec![0; data.len()];
                end.read_exact(&mut got, FOREVER).unwrap();
                assert!(got == data);
            });
        }
    });
    near.shutdown();
    assert!(!far.read_exact_or_end(&mut [0], FOREVER).unwrap());
}

#[test]
fn an_end_that_nobody_announced_is_an_error() {
    if pki::dir().is_none() {
        return;
    }
    let server = x509("server", "ca", "server", &[("verify-peer", "off")]);
    let client = x509("client", "ca", "", &[]);
    let (near, far) = Stream::pair().unwrap();
    let cutter = crate::sys::fd::duplicate(near.descriptor().unwrap()).unwrap();
    std::thread::scope(|scope| {
        let far = scope.spawn(|| far.with_tls_server(&server, None, FOREVER).unwrap());
        let near = near
            .with_tls_client(&client, Some("localhost"), FOREVER)
            .unwrap();
        let far = far.join().unwrap();
        let cutter = std::os::unix::net::UnixStream::from(cutter);
        cutter.shutdown(std::net::Shutdown::Both).unwrap();
        let cut = far.read(&mut [0], FOREVER).unwrap_err();
        assert_eq!(cut.errno(), libc::ECONNRESET);
        drop(near);
    });
}

#[test]
fn whoever_is_not_authorised_is_sent_away() {
    if pki::dir().is_none() {
        return;
    }
    let server = x509("server", "ca", "server", &[]);
    let client = x509("client", "ca", "client", &[]);
    for (name, fits) in [
        ("C=DE,O=Example\\, Inc.,CN=client1", true),
        ("CN=client1", false),
    ] {
        let (near, far) = Stream::pair().unwrap();
        let authorization = Authorization::of(name);
        std::thread::scope(|scope| {
            let far = scope.spawn(|| far.with_tls_server(&server, Some(&authorization), FOREVER));
            let near = near
                .with_tls_client(&client, Some("localhost"), FOREVER)
                .unwrap();
            let far = far.join().unwrap();
            assert_eq!(far.is_ok(), fits);
            if let Err(error) = far {
                assert_eq!(error.kind(), ErrorKind::Denied);
                assert!(!near.read_exact_or_end(&mut [0], FOREVER).unwrap_or(false));
            }
        });
    }
}

#[test]
fn garbage_silence_and_floods_end_a_handshake() {
    if pki::dir().is_none() {
        return;
    }
    let handshake = |write: &dyn Fn(&Stream), wait: Wait<'_>| {
        let (near, far) = Stream::pair().unwrap();
        std::thread::scope(|scope| {
            let far = scope.spawn(move || {
                far.with_tls_server(&x509("server", "ca", "server", &[]), None, wait)
            });
            write(&near);
            far.join().unwrap().unwrap_err()
        })
    };
    let garbage = handshake(
        &|near| near.write_all(b"GET / HTTP/1.0\r\n\r\n", FOREVER).unwrap(),
        FOREVER,
    );
    assert_eq!(
        garbage.to_string(),
        "TLS handshake failed: An unexpected TLS packet was received."
    );
    let control = JobControl::default();
    let wait = Wait::new(&control).at_most(Duration::from_millis(20));
    assert_eq!(handshake(&|_| (), wait).errno(), libc::ETIMEDOUT);
    // Empty fragments of a message that never ends.
    let flood = [
        &[22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff][..],
        &[22, 3, 1, 0, 1, 0].repeat(100_000),
    ]
    .concat();
    let error = handshake(
        &|near| {
            // The other end hangs up in the middle.
            let _ = near.write_all(&flood, FOREVER);
        },
        FOREVER,
    );
    assert!(
        error.to_string().starts_with("TLS handshake failed"),
        "{error}"
    );
}

#[test]
fn openssl_is_a_peer_in_both_versions() {
    let Some(dir) = pki::dir() else {
        return;
    };
    let server = x509("server", "ca", "server", &[]);
    for version in ["-tls1_2", "-tls1_3"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut other = Command::new("openssl")
            .args([
                "s_client",
                "-quiet",
                "-verify_return_error",
                "-CAfile",
                "ca-cert.pem",
            ])
            .args([
                "-cert",
                "client-cert.pem",
                "-key",
                "client-key.pem",
                version,
            ])
            .args(["-verify_hostname", "localhost", "-connect"])
            .arg(format!("127.0.0.1:{port}"))
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stream = Stream::from_socket(listener.accept().unwrap().0.into()).unwrap();
        let stream = stream.with_tls_server(&server, None, FOREVER).unwrap();
        assert_eq!(stream.identity(), Some("C=DE,O=Example\\, Inc.,CN=client1"));
        stream.write_all(b"from us", FOREVER).unwrap();
        let mut got = [0; 7];
        other.stdout.take().unwrap().read_exact(&mut got).unwrap();
        assert_eq!(&got, b"from us");
        std::io::Write::write_all(other.stdin.as_mut().unwrap(), b"from it").unwrap();
        stream.read_exact(&mut got, FOREVER).unwrap();
        assert_eq!(&got, b"from it");
        drop(other.stdin.take());
        other.kill().unwrap();
        other.wait().unwrap();
    }
    let client = x509("client", "ca", "client", &[]);
    let own = tempfile::tempdir().unwrap();
    let socket = own.path().join("s");
    let mut other = Command::new("openssl")
        .args([
            "s_server",
            "-Verify",
            "1",
            "-verify_return_error",
            "-CAfile",
            "ca-cert.pem",
        ])
        .args([
            "-cert",
            "server-cert.pem",
            "-key",
            "server-key.pem",
            "-rev",
            "-unix",
        ])
        .arg(&socket)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stream = pki::connected(&socket);
    let stream = stream
        .with_tls_client(&client, Some("127.0.0.1"), FOREVER)
        .unwrap();
    stream.write_all(b"abc\n", FOREVER).unwrap();
    let mut got = [0; 4];
    stream.read_exact(&mut got, FOREVER).unwrap();
    assert_eq!(&got, b"cba\n");
    other.kill().unwrap();
    other.wait().unwrap();
}
