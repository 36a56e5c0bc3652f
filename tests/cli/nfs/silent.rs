//! Servers that listen and say nothing.

use std::net::TcpListener;
use std::process::Stdio;

use super::server::ganesha_is_missing;
use crate::build::program;
use crate::common::Dir;
use crate::pair::ours_command;
use crate::remote_faults::end_of;

#[test]
fn a_server_that_says_nothing_is_waited_for_as_long_as_the_deadline_says() {
    if ganesha_is_missing() {
        return;
    }
    let dir = Dir::new();
    let program = program("remote_deadline");
    // Nobody accepts: the kernel lets clients in, and takes what they say.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    for query in [
        format!("version=4&nfsport={port}"),
        format!("nfsport={port}&mountport={port}"),
    ] {
        let url = format!("nfs://127.0.0.1/exp/x?{query}");
        let mut child = std::process::Command::new(&program)
            .args(["convert", &url, "first"])
            .current_dir(dir.root())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program");
        let status = end_of(&mut child, &url);
        let told = child.wait_with_output().expect("its end");
        assert!(status.success(), "{url}: {told:?}");
        assert!(!dir.path("late.raw").exists(), "{url}");
    }
}

#[test]
#[ignore = "a server is given 20 seconds to let us in: make network"]
fn a_server_that_says_nothing_is_given_up() {
    if ganesha_is_missing() {
        return;
    }
    let dir = Dir::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let queries = [
        format!("version=4&nfsport={port}"),
        format!("nfsport={port}&mountport={port}"),
    ];
    let begun = queries.map(|query| {
        let url = format!("nfs://127.0.0.1/exp/x?{query}");
        let mut command = ours_command(&["info", url.as_str()], dir.root());
        let child = command.stderr(Stdio::piped()).spawn().expect("the tool");
        (child, url)
    });
    for (mut child, url) in begun {
        let status = end_of(&mut child, &url);
        let told = child.wait_with_output().expect("its end");
        let text = String::from_utf8_lossy(&told.stderr);
        assert_eq!(status.code(), Some(1), "{url}: {text}");
        assert!(text.contains("Failed to mount nfs share"), "{url}: {text}");
        assert_eq!(text.lines().count(), 1, "{url}: {text}");
    }
}
