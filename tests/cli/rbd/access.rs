//! Clusters that options alone describe, and those whom they do not let in.

use super::cluster::{ceph_is_missing, fresh, shared};
use super::{bytes, disk, ran, run};
use crate::common::Dir;

/// A key of the right form that no user has.
const WRONG: &str = "AQBAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAA==";

#[test]
fn monitors_users_and_keys_come_by_options_without_a_file_of_settings() {
    if ceph_is_missing() {
        return;
    }
    let (dir, cluster, image) = (Dir::new(), shared(), fresh());
    let disk = disk(&dir, "a.raw");
    ran(
        &format!("convert -f raw -O raw a.raw {}", cluster.name(&image)),
        &dir,
    );
    std::fs::write(dir.path("none.conf"), "").expect("a file");
    let key = cluster.key("client.img");
    std::fs::write(dir.path("key"), &key).expect("a key");
    std::fs::write(dir.path("wrong"), WRONG).expect("a key");
    let none = dir.str("none.conf");
    let server = |list: &str, conf: &str| {
        format!("driver=rbd,pool=rbd,image={image},user=img,key-secret=k,{list}{conf}")
    };
    let port = cluster.port();
    let one = format!("server.0.host=127.0.0.1,server.0.port={port}");
    // The first one is not there.
    let two = format!(
        "server.0.host=127.0.0.1,server.0.port=1,server.1.host=127.0.0.1,server.1.port={port}"
    );
    let secret = "--object secret,id=k,file=key";
    for options in [
        server(&one, ""),
        server(&one, &format!(",conf={none}")),
        server(&two, ""),
        server(&one, ",auth-client-required.0=cephx"),
    ] {
        ran(
            &format!("convert {secret} --image-opts {options} -O raw b.raw"),
            &dir,
        );
        assert!(bytes(&dir, "b.raw") == disk, "{options}");
        std::fs::remove_file(dir.path("b.raw")).expect("a file");
        let info = ran(&format!("info {secret} --image-opts {options}"), &dir).out;
        assert!(!info.contains(&key), "{info}");
    }
    // By a name, in which the monitor is a setting.
    let name = format!("rbd:rbd/{image}:id=img:key={key}:mon_host=127.0.0.1\\:{port}");
    ran(&format!("compare -f raw a.raw {name}"), &dir);
    let refused = |line: &str, told: &str| {
        let ran = run(line, &dir);
        assert_eq!(ran.code, 1, "{line}: {ran:?}");
        assert!(ran.err.contains(told), "{line}: {ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{line}: {ran:?}");
        for word in [key.as_str(), WRONG] {
            assert!(!ran.err.contains(word), "{line}: {ran:?}");
        }
    };
    // By the one protocol that this monitor speaks: where both are tried a refusal by one is no answer.
    let v2 = format!("[v2:127.0.0.1:{port}/0]");
    let with = server(&format!("settings.0=mon_host={v2}"), "");
    ran(&format!("info {secret} --image-opts {with}"), &dir);
    let wrong = secret.replace("file=key", "file=wrong");
    refused(
        &format!("info {wrong} --image-opts {with}"),
        "error connecting: Permission denied",
    );
    let nobody = with.replace("user=img", "user=nobody");
    refused(
        &format!("info {secret} --image-opts {nobody}"),
        "error connecting: Permission denied",
    );
    // Without a key there is none to be found.
    let no_key = with.replace("key-secret=k,", "");
    refused(&format!("info --image-opts {no_key}"), "error connecting: ");
    // A cluster that wants a key is not entered without one.
    let open = format!("{with},auth-client-required.0=none");
    refused(
        &format!("info {secret} --image-opts {open}"),
        "error connecting: ",
    );
    for (list, told) in [
        ("server.0.host=127.0.0.1", "server.0.port"),
        ("server.0.port=1", "server.0.host"),
    ] {
        refused(
            &format!("info {secret} --image-opts {}", server(list, "")),
            told,
        );
    }
    // Making one: with the wrong key nothing is made.
    let other = fresh();
    let escaped = v2.replace(':', "\\:");
    let name = |key: &str| format!("rbd:rbd/{other}:id=img:key={key}:mon_host={escaped}");
    refused(
        &format!("create -q -f raw {} 1M", name(WRONG)),
        "error connecting: Permission denied",
    );
    ran(&format!("create -q -f raw {} 1M", name(&key)), &dir);
    assert!(cluster.rbd("ls rbd").lines().any(|line| line == other));
}
