//! Checksums of headers as they go over the wire.

use super::relay::{Change, Relay};
use super::server::{Server, tgtd_is_missing};
use super::{disk, ran};
use crate::common::Dir;

/// Says which digests the target takes: it has none unless it is told to.
fn takes(digests: &str) -> String {
    format!("--mode target --op update --tid 1 --name HeaderDigest --value {digests}")
}

#[test]
fn header_digests_are_agreed_upon_and_checked() {
    if tgtd_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let server = Server::new(&dir);
    server.unit(1, "a.raw", None, "");
    for (digest, taken, agreed) in [
        ("none", "None,CRC32C", "None"),
        ("none-crc32c", "None", "None"),
        ("none-crc32c", "CRC32C", "CRC32C"),
        ("crc32c-none", "None", "None"),
        ("crc32c-none", "CRC32C", "CRC32C"),
        ("crc32c", "None,CRC32C", "CRC32C"),
    ] {
        server.adm(&takes(taken));
        let relay = Relay::new(server.port, Change::Nothing);
        let url = relay.url(&server);
        let name = "initiator-name=iqn.x:me";
        let line = format!("compare -f raw a.raw {url}?header-digest={digest}&{name}");
        ran(&line, &dir);
        let said = relay.said();
        assert!(
            said.contains(&format!("HeaderDigest={agreed}\0")),
            "{digest}, {taken}: {said:?}"
        );
    }
}

#[test]
fn a_header_that_was_changed_on_its_way_is_noticed_by_its_digest_and_read_again() {
    if tgtd_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let server = Server::new(&dir);
    server.unit(1, "a.raw", None, "");
    server.adm(&takes("CRC32C"));
    // The first ones answer what is asked when a unit is opened.
    let relay = Relay::new(server.port, Change::Header(12));
    let url = relay.url(&server);
    let line = format!("convert -f raw -O raw {url}?header-digest=crc32c b.raw");
    ran(&line, &dir);
    assert!(relay.has_changed(), "nothing was changed");
    assert!(super::bytes(&dir, "b.raw") == super::bytes(&dir, "a.raw"));
}
