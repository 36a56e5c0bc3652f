//! Transfers that end too early, without TLS and with it, and servers that can do nothing for now.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::{Site, site};

/// The options of an image of a server without TLS, of one that is asked for it, and of one with it from the first
/// byte on.
const KINDS: [&str; 3] = [
    "file.driver=ftp,file.url=U/a.raw",
    "file.driver=ftp,file.tls=on,file.url=A/a.raw",
    "file.driver=ftps,file.url=T/a.raw",
];

/// A user of the server, whose name says what fails, and what is said of that where the command fails.
struct Case {
    kind: &'static str,
    user: String,
    error: Option<String>,
}

/// Converts an image of each of the servers, some at once.
fn converts(site: &Site, cases: VecDeque<Case>) {
    let cases = Mutex::new(cases.into_iter().enumerate().collect::<VecDeque<_>>());
    let next = || cases.lock().expect("the cases").pop_front();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((number, case)) = next() {
                    convert(site, &format!("out{number}"), &case);
                }
            });
        }
    });
}

fn convert(site: &Site, out: &str, case: &Case) {
    let Case { kind, user, error } = case;
    // What lasts is given up soon.
    let time = if error.is_some() { 1 } else { 30 };
    let line = format!(
        "convert -O raw --image-opts driver=raw,{kind},file.username={user},file.retry-timeout={time} {out}"
    );
    let (code, text) = site.trusting(&line, "ca.pem");
    match error {
        None => {
            assert_eq!((code, text.as_str()), (Some(0), ""), "{line}");
            assert!(site.bytes(out) == site.bytes("a.raw"), "{line}");
            std::fs::remove_file(site.dir.path(out)).expect("a file");
        }
        Some(error) => {
            assert_eq!(code, Some(1), "{line}: {text}");
            assert!(text.contains(error), "{line}: {text}");
            assert_eq!(text.matches("qemu-img: ").count(), 1, "{line}: {text}");
            assert!(!site.dir.path(out).exists(), "{line}");
        }
    }
}

#[test]
fn what_ends_too_early_is_never_taken_for_a_whole_file() {
    let Some(site) = site() else { return };
    let mut cases = VecDeque::new();
    for kind in KINDS {
        // The server says that all went well, that it did not, and nothing; with an end of TLS and without one.
        for (how, text) in [
            ("nice", "The server sent 1 bytes of a file that has 8388608"),
            ("226", "The server sent 1 bytes of a file that has 8388608"),
            ("426", "426 Broken off."),
            ("gone", ""),
        ] {
            let mut case = |times: u32, bytes: u32, error: Option<&str>| {
                let (user, error) = (
                    format!("cut-{times}-{bytes}-{how}"),
                    error.map(str::to_owned),
                );
                cases.push_back(Case { kind, user, error });
            };
            case(1, 0, None);
            case(1, 300_000, None);
            case(9999, 3_000_000, None);
            case(9999, 1, Some(text));
        }
    }
    converts(&site, cases);
}

#[test]
fn what_a_server_cannot_do_for_now_is_waited_for_and_told_in_its_words() {
    let Some(site) = site() else { return };
    let mut cases = VecDeque::new();
    for kind in KINDS {
        let is_encrypted = kind != KINDS[0];
        for verb in [
            "TYPE", "SIZE", "MDTM", "EPSV", "REST", "RETR", "PBSZ", "PROT",
        ] {
            if matches!(verb, "PBSZ" | "PROT") && !is_encrypted {
                continue;
            }
            for code in [421, 450] {
                let user = |times| format!("busy-{times}-{code}-{verb}");
                let (once, always) = (user(2), user(9999));
                cases.push_back(Case {
                    kind,
                    user: once,
                    error: None,
                });
                // A single transfer that goes on from the first byte never needs it.
                if verb != "REST" {
                    let error = Some(format!("{code} Come back later."));
                    cases.push_back(Case {
                        kind,
                        user: always,
                        error,
                    });
                }
            }
        }
    }
    converts(&site, cases);
}
