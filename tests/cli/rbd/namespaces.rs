//! Namespaces of pools: images and snapshots in them are others than those of the same name outside.

use super::cluster::{ceph_is_missing, fresh, shared};
use super::{bytes, disk, exported, ran, run};
use crate::common::Dir;

#[test]
fn images_and_snapshots_of_a_namespace_are_its_own() {
    if ceph_is_missing() {
        return;
    }
    let (dir, cluster, image) = (Dir::new(), shared(), fresh());
    let space = format!("n{image}");
    let disk = disk(&dir, "a.raw");
    cluster.rbd(&format!("namespace create rbd/{space}"));
    let inside = format!("rbd:rbd/{space}/{image}:conf={}", cluster.conf());
    let outside = cluster.name(&image);
    ran(&format!("create -q -f raw {outside} 1M"), &dir);
    ran(&format!("convert -f raw -O raw a.raw {inside}"), &dir);
    assert_eq!(
        cluster.rbd(&format!("ls rbd/{space}")),
        format!("{image}\n")
    );
    assert!(exported(cluster, &dir, &format!("{space}/{image}")) == disk);
    assert_eq!(exported(cluster, &dir, &image), vec![0; 1 << 20]);
    ran(&format!("compare -f raw a.raw {inside}"), &dir);
    let options = |snapshot: &str| {
        format!(
            "driver=rbd,pool=rbd,namespace={space},image={image},conf={}{snapshot}",
            cluster.conf()
        )
    };
    let raw = "driver=raw,file.filename=a.raw";
    ran(&format!("compare --image-opts {raw} {}", options("")), &dir);
    // Snapshots.
    ran(&format!("snapshot -f raw -c one {inside}"), &dir);
    let listed = cluster.rbd(&format!("snap ls rbd/{space}/{image}"));
    assert!(listed.contains(" one "), "{listed}");
    assert_eq!(cluster.rbd(&format!("snap ls rbd/{image}")), "");
    let listed = ran(&format!("snapshot -f raw -l {inside}"), &dir).out;
    assert!(listed.contains("\none     one "), "{listed}");
    assert_eq!(ran(&format!("snapshot -f raw -l {outside}"), &dir).out, "");
    ran(&format!("bench -c 10 -w --pattern=7 -f raw {inside}"), &dir);
    assert!(exported(cluster, &dir, &format!("{space}/{image}")) != disk);

    let of = inside.replace(&format!("/{image}:"), &format!("/{image}@one:"));
    ran(&format!("compare -f raw a.raw {of}"), &dir);
    let by_options = options(",snapshot=one");
    ran(
        &format!("convert --image-opts {by_options} -O raw b.raw"),
        &dir,
    );
    assert!(bytes(&dir, "b.raw") == disk);
    ran(&format!("snapshot -f raw -a one {inside}"), &dir);
    assert!(exported(cluster, &dir, &format!("{space}/{image}")) == disk);
    ran(&format!("snapshot -f raw -d one {inside}"), &dir);
    // An image of a namespace is the base of an overlay here.
    ran(
        &format!("create -q -f qcow2 -b {inside} -F raw over.qcow2"),
        &dir,
    );
    ran("compare -f raw a.raw over.qcow2", &dir);
    // What is only in the other one is not found.
    let other = fresh();
    ran(
        &format!("create -q -f raw {} 1M", cluster.name(&other)),
        &dir,
    );
    let name = format!("rbd:rbd/{space}/{other}:conf={}", cluster.conf());
    let failed = run(&format!("info {name}"), &dir);
    let expected = format!(
        "qemu-img: Could not open '{name}': error reading header from {other}: No such file or directory\n"
    );
    assert_eq!((failed.code, failed.err), (1, expected));
    let none = format!("rbd:rbd/none/{other}:conf={}", cluster.conf());
    let failed = run(&format!("create -q -f raw {none} 1M"), &dir);
    assert!(
        failed.code == 1 && failed.err.contains("namespace 'none' does not exist"),
        "{failed:?}"
    );
    assert_eq!(failed.err.lines().count(), 1, "{failed:?}");
}
