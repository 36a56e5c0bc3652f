//! A program in C over the header, with the real servers of these tests.

use std::process::Command;

use crate::build::program;
use crate::common::Dir;
use crate::rbd::cluster::{ceph_is_missing, fresh, shared};
use crate::{http, site};

#[test]
fn a_disk_moves_from_a_web_server_to_a_cluster() {
    if ceph_is_missing() {
        return;
    }
    let Some(site) = http::site() else { return };
    let (dir, cluster, image) = (Dir::new(), shared(), fresh());
    let output = Command::new(program("remote_workflow"))
        .args([site.server.tls("a.raw"), cluster.name(&image)])
        .arg((8 << 20).to_string())
        .env("SSL_CERT_FILE", site.made.path().join("ca.pem"))
        .env_remove("SSL_CERT_DIR")
        .current_dir(dir.root())
        .output()
        .expect("the program");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"ok\n");
    // Ceph's own tool sees the base with what was written over it.
    site::disk(&dir, "wanted.raw");
    let mut wanted = std::fs::read(dir.path("wanted.raw")).expect("the disk");
    let len = wanted.len();
    wanted[..512].fill(1);
    wanted[1_000_000..1_300_000].fill(2);
    wanted[len - 512..].fill(3);
    cluster.rbd(&format!(
        "export --no-progress rbd/{image} {}",
        dir.str("out.raw")
    ));
    assert!(std::fs::read(dir.path("out.raw")).expect("the image") == wanted);
    cluster.rbd(&format!("rm --no-progress rbd/{image}"));
}
