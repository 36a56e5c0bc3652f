//! Which unit of a target is meant, and who may use it.

use super::server::{Server, tgtd_is_missing};
use super::{disk, ran, refused, unit};
use crate::beside::peer_has;
use crate::common::Dir;
use crate::pair::words;

#[test]
fn each_unit_of_a_target_is_found_by_its_number() {
    if tgtd_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    unit(&dir, "first", 4 << 20);
    unit(&dir, "high", 8 << 20);
    let server = Server::new(&dir);
    server.unit(1, "first", None, "");
    server.unit_of(1, 2, "a.raw", None);
    // One whose number is longer than a byte, and whose last byte is that of the first one.
    server.unit_of(1, 257, "high", Some(4096));
    let url = |number: u32| server.url(1).replace(":1/1", &format!(":1/{number}"));
    ran(&format!("compare -f raw -F raw a.raw {}", url(2)), &dir);
    let options = format!(
        "driver=iscsi,transport=tcp,portal=127.0.0.1:{},target=iqn.2025-01.test:1,lun=2",
        server.port
    );
    let info = ran(&format!("info --image-opts {options}"), &dir).out;
    assert!(info.starts_with(&format!("image: {}\n", url(2))), "{info}");
    ran(
        &format!("convert -n -f raw -O raw a.raw {}", url(257)),
        &dir,
    );
    ran("compare -f raw -F raw a.raw high", &dir);
    // As tools of the library list it, and QEMU's takes it.
    let listed = 0x4000 + 257;
    ran(
        &format!("compare -f raw -F raw a.raw {}", url(listed)),
        &dir,
    );
    if peer_has("iscsi") {
        let options = options.replace("lun=2", &format!("lun={listed}"));
        let raw = "driver=raw,file.filename=a.raw";
        dir.qemu_img_ok(&words(&format!("compare --image-opts {raw} {options}")));
    }
    // The first one was left alone.
    assert!(super::bytes(&dir, "first").iter().all(|byte| *byte == 0xa5));
    for number in [3, 255, 256, 258, 16383] {
        let told = format!("iSCSI: Failed to open unit {number}: The target has no such unit");
        refused(&format!("info {}", url(number)), &dir, &told);
        let line = format!("convert -n -f raw -O raw a.raw {}", url(number));
        refused(&line, &dir, &told);
    }
    // What every target of this kind has there is its controller.
    refused(&format!("info {}", url(0)), &dir, "which is no disk");
}

#[test]
fn a_target_lets_in_whom_it_knows_by_name_and_others_are_told_who_they_were() {
    if tgtd_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let server = Server::new(&dir);
    server.unit(1, "a.raw", None, "");
    server.adm("--mode target --op unbind --tid 1 -I ALL");
    server.adm("--mode target --op bind --tid 1 -Q iqn.2025-01.test:friend");
    let url = server.url(1);
    let as_whom = |name: &str| format!("{url}?initiator-name=iqn.2025-01.test:{name}");
    ran(&format!("compare -f raw a.raw {}", as_whom("friend")), &dir);
    let options = format!(
        "driver=iscsi,transport=tcp,portal=127.0.0.1:{},target=iqn.2025-01.test:1,lun=1",
        server.port
    );
    let friend = "initiator-name=iqn.2025-01.test:friend";
    ran(&format!("info --image-opts {options},{friend}"), &dir);
    for (line, name) in [
        (format!("info {}", as_whom("foe")), "iqn.2025-01.test:foe"),
        (
            format!("convert -n -f raw -O raw a.raw {}", as_whom("foe")),
            "iqn.2025-01.test:foe",
        ),
        (
            format!("info --image-opts {options}"),
            "iqn.2008-11.org.linux-kvm",
        ),
        (format!("info {url}"), "iqn.2008-11.org.linux-kvm"),
    ] {
        let told = format!(
            "iSCSI: Failed to connect to '127.0.0.1:{}': \
             The target iqn.2025-01.test:1 does not let {name} in: ",
            server.port
        );
        refused(&line, &dir, &told);
    }
    // Who is not let in is not told by QEMU's tool either; the code is the same.
    if peer_has("iscsi") {
        let theirs = dir.qemu_img(&words(&format!("info --image-opts {options}")));
        assert_eq!(theirs.code, 1, "{theirs:?}");
    }
}
