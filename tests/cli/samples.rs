//! The samples beside the tool.

use std::process::Command;

use crate::build;
use crate::common::Dir;

fn images() -> Dir {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "qcow2", "a.qcow2", "64M"]);
    dir.qemu_io(
        "qcow2",
        "a.qcow2",
        &["write -P 0x5a 0 512", "write -P 1 512 20M"],
    );
    dir
}

#[test]
fn the_first_sector() {
    let dir = images();
    let run = |image: &str| {
        Command::new(build::sample("read-sector"))
            .arg(image)
            .current_dir(dir.root())
            .output()
            .expect("the sample runs")
    };
    let output = run("a.qcow2");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, [0x5a; 512]);
    let output = run("nope");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("No such file or directory"));
}

#[test]
fn a_conversion_with_progress() {
    let dir = images();
    let run = |target: &str, format: &str| {
        Command::new(build::sample("convert-progress"))
            .args(["a.qcow2", target, format])
            .current_dir(dir.root())
            .output()
            .expect("the sample runs")
    };
    let output = run("b.raw", "raw");
    assert!(output.status.success(), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).ends_with("\r100 %\n"),
        "{output:?}"
    );
    dir.qemu_img_ok(&["compare", "a.qcow2", "b.raw"]);
    let output = run("/nonexistent/x", "raw");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn an_image_for_clients() {
    let dir = images();
    let mut served = Command::new(build::sample("serve-image"))
        .args(["a.qcow2", "s.sock"])
        .current_dir(dir.root())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the sample runs");
    while !dir.path("s.sock").exists() {
        let ended = served.try_wait().expect("the sample");
        assert!(ended.is_none(), "{ended:?}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let uri = format!("nbd+unix:///?socket={}", dir.str("s.sock"));
    // One client from its beginning to its end.
    let ran = crate::common::run_in(
        dir.root(),
        "qemu-io",
        &["-r", "-f", "raw", "-c", "read -P 0x5a 0 512", &uri],
    );
    assert!(ran.code == 0 && !ran.out.contains("failed"), "{ran:?}");
    let output = served.wait_with_output().expect("its end");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("bytes read"), "{said}");
}
