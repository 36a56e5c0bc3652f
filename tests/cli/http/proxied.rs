//! Images behind a proxy that the environment names, and which wants to know who asks.

use super::gate::Gate;
use super::{Site, site};
use crate::beside::{here, peer_has};
use crate::common::Ran;
use crate::faulty::{Fault, Proxy};
use crate::pair::{ours_command, words};
use crate::site::Serves as _;

/// The variables that name proxies, or none of them.
const NAMES: [&str; 7] = [
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
];

/// `joe` and `s3:cr@t` as they stand in a URL, and in a header.
const USER: &str = "joe:s3%3Acr%40t";
const LOGIN: &str = "Basic am9lOnMzOmNyQHQ=";

/// Whatever a password may look like.
const HIDDEN: [&str; 5] = ["s3:cr@t", "s3%3A", "am9lOnMz", "wr0ng", "d3IwbmcK"];

/// Runs a line with these variables and none of the others; nothing that is printed has a password in it.
#[track_caller]
fn run(site: &Site, line: &str, environment: &[(&str, &str)]) -> Ran {
    let mut command = ours_command(&words(&site.server.line(line)), site.dir.root());
    for name in NAMES {
        command.env_remove(name);
    }
    let output = command
        .envs(environment.iter().copied())
        .env("SSL_CERT_FILE", site.made.path().join("ca.pem"))
        .env_remove("SSL_CERT_DIR")
        .output()
        .expect("the tool");
    let ran = Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    for hidden in HIDDEN {
        assert!(
            !ran.out.contains(hidden) && !ran.err.contains(hidden),
            "{line}: {ran:?}"
        );
    }
    ran
}

/// The URLs of a file, each with the variable for its proxy and the beginning of what the proxy is asked for.
fn urls(site: &Site, name: &str) -> [(String, &'static str, String); 2] {
    let plain = site.server.url(name);
    let encrypted = site.server.encrypted();
    [
        (plain.clone(), "http_proxy", format!("GET {plain} ")),
        (
            site.server.tls(name),
            "https_proxy",
            format!("CONNECT localhost:{encrypted} "),
        ),
    ]
}

#[test]
fn a_proxy_that_is_told_who_asks_leads_to_servers() {
    let Some(site) = site() else { return };
    let gate = Gate::new(LOGIN);
    let (at, port) = (format!("{USER}@127.0.0.1:{}", gate.port), gate.port);
    for (url, variable, asked) in urls(&site, "a.qcow2") {
        for variable in [variable, "all_proxy", "ALL_PROXY"] {
            for proxy in [at.clone(), format!("http://{at}/")] {
                let line = format!("compare -f qcow2 -F raw {url} a.raw");
                let ran = run(&site, &line, &[(variable, &proxy)]);
                assert_eq!(ran.code, 0, "{line}, {variable}: {ran:?}");
                let all = gate.asked();
                let is_asked = !all.is_empty() && all.iter().all(|line| line.starts_with(&asked));
                assert!(is_asked, "{line}, {variable}: {all:?}");
            }
        }
        // What the tool tells of its work.
        for line in [
            format!("--trace enable=* info {url}"),
            format!("info --output=json {url}"),
            format!("convert -O raw {url} out"),
        ] {
            let ran = run(&site, &line, &[(variable, &at)]);
            assert_eq!(ran.code, 0, "{line}: {ran:?}");
        }
        assert!(site.bytes("out") == site.bytes("a.raw"));
        // By options, which come before what the environment says.
        let driver = url.split(':').next().unwrap_or_default();
        let line = format!(
            "info --object secret,id=s,data=s3:cr@t --image-opts driver=qcow2,file.driver={driver},file.url={url},file.proxy-username=joe,file.proxy-password-secret=s"
        );
        for proxy in [
            format!("http://127.0.0.1:{port}"),
            format!("http://joe:wr0ng@127.0.0.1:{port}"),
        ] {
            let ran = run(&site, &line, &[(variable, &proxy)]);
            assert_eq!(ran.code, 0, "{line}: {ran:?}");
        }
        gate.asked();
        let ran = run(
            &site,
            &format!("info {url}"),
            &[(variable, &at), ("no_proxy", "127.0.0.1,localhost")],
        );
        assert_eq!((ran.code, gate.asked().len()), (0, 0), "{url}: {ran:?}");
    }
}

#[test]
fn a_proxy_that_does_not_know_who_asks_is_told_in_one_line() {
    let Some(site) = site() else { return };
    let gate = Gate::new(LOGIN);
    let has_peer = peer_has("http");
    for (url, variable, asked) in urls(&site, "a.qcow2") {
        for user in ["", "joe:wr0ng@", "joe@"] {
            let proxy = format!("http://{user}127.0.0.1:{}", gate.port);
            let line = format!("convert -O raw {url} out");
            let ran = run(&site, &line, &[(variable, &proxy)]);
            assert_eq!(ran.code, 1, "{line}, {user}: {ran:?}");
            assert!(ran.err.contains("returned error: 407"), "{ran:?}");
            assert!(
                ran.err.contains("The proxy wants to know who asks"),
                "{ran:?}"
            );
            assert_eq!(ran.err.matches("qemu-img: ").count(), 1, "{ran:?}");
            assert!(!site.dir.path("out").exists());
            // Once: who is refused is not let in a moment later.
            let all = gate.asked();
            assert!(
                all.len() == 1 && all[0].starts_with(&asked),
                "{url}: {all:?}"
            );
            if has_peer {
                let theirs = here(
                    site.dir.root(),
                    &[(variable, &proxy)],
                    "qemu-img",
                    &["info", &url],
                );
                let theirs = { theirs }.output().expect("qemu-img");
                let text = String::from_utf8_lossy(&theirs.stderr);
                assert_eq!(theirs.status.code(), Some(1), "{text}");
                // Of a proxy that is to lead on it tells nothing.
                assert!(text.contains("407") || url.starts_with("https"), "{text}");
                gate.asked();
            }
        }
    }
}

#[test]
fn a_proxy_that_is_busy_or_goes_away_is_waited_for_or_told() {
    let Some(site) = site() else { return };
    let gate = Gate::new(LOGIN);
    for (url, variable, _) in urls(&site, "b.qcow2") {
        let driver = url.split(':').next().unwrap_or_default();
        let line = |time| {
            format!(
                "convert -O raw --image-opts driver=qcow2,file.driver={driver},file.url={url},file.retry-timeout={time} out"
            )
        };
        let near = Proxy::new(gate.port, false);
        let proxy = format!("http://{USER}@127.0.0.1:{}", near.port);
        let run = |time| run(&site, &line(time), &[(variable, &proxy)]);
        let done = |what: &str, ran: Ran| {
            assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{url}, {what}");
            assert!(site.bytes("out") == site.bytes("a.raw"), "{url}, {what}");
            std::fs::remove_file(site.dir.path("out")).expect("a file");
        };
        let failed = |what: &str, ran: Ran| {
            let is_told = ran.code == 1 && ran.err.contains(what);
            assert!(is_told, "{url}, {what}: {ran:?}");
            assert_eq!(ran.err.matches("qemu-img: ").count(), 1, "{ran:?}");
            assert!(!site.dir.path("out").exists(), "{url}, {what}");
        };
        near.arm(Fault::None, 0);
        done("nothing", run(30));
        let half = near.came() / 2;
        gate.be_busy(2);
        done("busy twice", run(30));
        gate.be_busy(usize::MAX);
        failed("503", run(1));
        gate.be_busy(0);
        // The connections end in the middle.
        near.arm(Fault::Says(b"", 1), half);
        done("ended", run(30));
        near.arm(
            Fault::Says(
                b"HTTP/1.1 502 Gone\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                2,
            ),
            half,
        );
        done("without a server", run(30));
        near.arm(
            Fault::Says(
                b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                usize::MAX,
            ),
            half,
        );
        failed("407", run(30));
        near.arm(Fault::Says(b"", usize::MAX), half);
        failed("The server ended the connection too early", run(1));
        near.arm(Fault::Gone, half);
        failed("Connection refused", run(1));
    }
}
