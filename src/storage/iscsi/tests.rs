//! Tests of the client with peers that are not proper targets.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{ErrorKind, Result};
use crate::job::JobControl;
use crate::object::Objects;
use crate::options::Values;
use crate::policy::OpenPolicy;
use crate::storage::driver::{OpenContext, StorageOpen, StorageTarget};
use crate::sys::libiscsi;

/// Opens a unit of a server that calls `peer` with each connection; None if the library is not available.
fn open(
    peer: impl Fn(TcpStream) + Send + 'static,
    control: &Arc<JobControl>,
) -> Option<Result<()>> {
    if let Err(reason) = libiscsi::check() {
        eprintln!("LEFT OUT: {reason}");
        return None;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            peer(stream);
        }
    });
    let name = format!("iscsi://127.0.0.1:{port}/iqn.x/1");
    let opened = (super::ISCSI.open)(&OpenContext {
        target: StorageTarget::Uri(name.as_str().into()),
        options: &Values::default(),
        how: StorageOpen::default(),
        objects: &Objects::new(),
        policy: &OpenPolicy::default(),
        control,
    });
    Some(opened.map(drop))
}

/// The header of a PDU and its data.
fn pdu(opcode: u8, flags: u8, rest: &[u8; 36], data: &[u8]) -> Vec<u8> {
    let mut pdu = vec![opcode, flags, 0, 0, 0];
    pdu.extend(&(data.len() as u32).to_be_bytes()[1..]);
    pdu.extend([0; 4]);
    pdu.extend(&rest[..]);
    pdu.truncate(48);
    pdu.resize(48, 0);
    pdu.extend(data);
    pdu.resize(pdu.len().next_multiple_of(4), 0);
    pdu
}

#[test]
fn a_silent_peer_is_left_when_the_time_is_over_or_the_work_is_cancelled() {
    let silent = |mut stream: TcpStream| {
        std::thread::spawn(move || while stream.read(&mut [0; 512]).is_ok_and(|len| len > 0) {});
    };
    let control = Arc::new(JobControl::default());
    control.set_deadline(Some(Duration::from_millis(100)));
    let begun = Instant::now();
    let Some(opened) = open(silent, &control) else {
        return;
    };
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::Cancelled);
    let control = Arc::new(JobControl::default());
    let other = control.clone();
    std::thread::spawn(move || other.cancel());
    let opened = open(silent, &control).unwrap();
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn peers_that_do_not_keep_to_the_rules_are_left() {
    // Parts of a valid login, and replies that are nothing of the kind.
    let login = pdu(0x23, 0x87, &[0; 36], b"");
    for answer in [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        vec![0xff; 4096],
        vec![0; 4096],
        Vec::new(),
        login[..20].to_vec(),
        login.repeat(3),
        pdu(0x23, 0x87, &[0xff; 36], b"TargetPortalGroupTag=1\0"),
        pdu(0x25, 0x81, &[0; 36], &[7; 4096]),
        pdu(0x3f, 0x80, &[0; 36], &[7; 4096]),
        pdu(0x20, 0x80, &[0; 36], b""),
    ] {
        let control = Arc::new(JobControl::default());
        let sent = answer.clone();
        let peer = move |mut stream: TcpStream| {
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(&sent);
        };
        let Some(opened) = open(peer, &control) else {
            return;
        };
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Os, "{answer:x?}: {error}");
    }
}
