//! Where a server redirects to, and what is sent there.

use super::*;

#[test]
fn redirects_are_followed_once_and_looked_for_again_when_they_fail() {
    let server = Server::new(|asked| match asked.target.as_str() {
        "/a" if asked.number < 3 => (status(302, "Location: /one?key=k\r\n"), true),
        "/a" => (status(307, "Location: two\r\n"), true),
        "/one?key=k" if asked.number > 2 => (status(404, ""), true),
        _ => (asked.answer(), true),
    });
    let storage = server.open().unwrap();
    check(&*storage, 0, 2 << 20);
    check(&*storage, 2 << 20, 1 << 19);
    check(&*storage, 0, 2 << 20);
    let targets: Vec<_> = server
        .asked()
        .iter()
        .map(|text| Asked::new(0, text).target)
        .collect();
    let expected = [
        "/a",
        "/one?key=k",
        "/one?key=k",
        "/one?key=k",
        "/a",
        "/two",
        "/two",
    ];
    assert_eq!(targets, expected);
    let server = Server::new(|_| (status(301, "Location: /a\r\n"), true));
    let found = error(server.open()).to_string();
    assert_eq!(found, "Maximum (10) redirects followed");
    for (to, text) in [
        ("ftp://h/x", "which is no URL of HTTP"),
        (
            "file:///etc/passwd",
            "The server sends on to what is no URL",
        ),
        ("http://h/a b", "The server sends on to what is no URL"),
    ] {
        let server = Server::new(move |_| (status(302, &format!("Location: {to}\r\n")), true));
        let found = error(server.open()).to_string();
        assert!(found.contains(text), "{found}");
        assert_eq!(server.asked().len(), 1);
    }
}

#[test]
fn the_policy_is_asked_for_every_hop() {
    let server = Server::new(|_| {
        (
            status(302, "Location: https://127.0.0.1:1/a?secret\r\n"),
            true,
        )
    });
    let policy = OpenPolicy {
        protocols: vec!["http".to_owned()],
        ..OpenPolicy::default()
    };
    let found = error(open(
        &server.url(),
        "",
        &Objects::new(),
        &policy,
        &Arc::default(),
    ));
    assert_eq!(found.kind(), ErrorKind::Denied);
    assert_eq!(
        found.to_string(),
        "The open policy does not allow the protocol 'https'"
    );
}

#[test]
fn what_an_image_names_leads_to_hosts_that_the_policy_names() {
    let other = Server::new(|asked| (asked.answer(), true));
    let next = other.url();
    let server = Server::new(move |_| (status(302, &format!("Location: {next}\r\n")), true));
    let try_open = |hosts: &[String], named_by_image: bool| {
        let hosts = hosts.iter().map(|host| HostRule::parse(host).unwrap());
        let policy = OpenPolicy {
            implicit_hosts: hosts.collect(),
            ..OpenPolicy::permissive()
        };
        let driver = registry::find("http").unwrap();
        let mut given = Options::new();
        given.set("url", server.url());
        driver.open_storage(&OpenContext {
            target: StorageTarget::Unnamed,
            options: &driver.check_options(&given)?,
            how: StorageOpen {
                named_by_image,
                ..StorageOpen::default()
            },
            objects: &Objects::new(),
            policy: &policy,
            control: &Arc::default(),
        })
    };
    let [own, next] = [&server, &other].map(|server| format!("127.0.0.1:{}", server.port));
    let domain = "*.example.org".to_owned();
    let found = error(try_open(std::slice::from_ref(&domain), true));
    assert_eq!(found.kind(), ErrorKind::Denied);
    assert_eq!(
        found.to_string(),
        format!("The open policy does not allow images to name the server '{own}'")
    );
    assert!(server.asked().is_empty());
    let found = error(try_open(std::slice::from_ref(&own), true)).to_string();
    assert!(found.ends_with(&format!("the server '{next}'")), "{found}");
    assert!(other.asked().is_empty());
    try_open(&[own, next], true).unwrap();
    // The rules do not apply to what the caller itself names.
    try_open(&[domain], false).unwrap();
}

#[test]
fn who_asks_is_told_to_the_server_of_the_url_alone() {
    let other = Server::new(|asked| (asked.answer(), true));
    let port = other.port;
    let server = Server::new(move |asked| {
        let to = format!("Location: http://127.0.0.1:{port}/b\r\n");
        match asked.target.as_str() {
            "/a" => (status(302, "Location: /c\r\n"), true),
            _ => (status(302, &to), true),
        }
    });
    let mut objects = Objects::new();
    objects.add_secret("p", Secret::new("s3cret")).unwrap();
    objects.add_secret("k", Secret::new("key=42\n")).unwrap();
    objects
        .add_secret("h", Secret::new("X-Token: abc\nx-other:  d\n"))
        .unwrap();
    let options = "username=joe,password-secret=p,cookie-secret=k,headers-secret=h";
    let storage = server.open_with(options, &objects).unwrap();
    check(&*storage, 0, 1000);
    for text in server.asked() {
        for line in [
            "Authorization: Basic am9lOnMzY3JldA==",
            "Cookie: key=42",
            "X-Token: abc",
            "x-other: d",
        ] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{text}");
        }
    }
    for text in other.asked() {
        for word in ["Authorization", "Cookie", "oken", "other"] {
            assert!(!text.contains(word), "{text}");
        }
    }
    assert!(!format!("{storage:?}").contains("am9lOn"));
    objects.add_secret("t", Secret::new("tok\n")).unwrap();
    let server = Server::new(|asked| (asked.answer(), true));
    server.open_with("bearer-secret=t", &objects).unwrap();
    assert!(server.asked()[0].contains("\r\nAuthorization: Bearer tok\r\n"));
    objects.add_secret("bad", Secret::new("a\r\nb")).unwrap();
    for (options, text) in [
        (
            "bearer-secret=t,username=joe",
            "A user and 'bearer-secret' are mutually exclusive",
        ),
        (
            "cookie-secret=bad",
            "The value of the header 'Cookie' has a control character",
        ),
        (
            "headers-secret=bad",
            "The secret of 'headers-secret' has a line that is not 'NAME: VALUE'",
        ),
        ("password-secret=none", "No secret with id 'none'"),
        (
            "cookie=a,cookie-secret=k",
            "curl driver cannot handle both cookie and cookie secret",
        ),
        (
            "readahead=100",
            "HTTP_READAHEAD_SIZE 100 is not a multiple of 512",
        ),
        (
            "timeout=20000",
            "timeout parameter is too large or negative",
        ),
        (
            "connections=0",
            "Parameter 'connections' expects a number from 1 to 16",
        ),
    ] {
        assert_eq!(error(server.open_with(options, &objects)).to_string(), text);
    }
}

/// One of several mirrors lacks the image, forbids access to it, or is not reachable.
#[test]
fn another_mirror_is_asked_when_the_first_one_has_no_image() {
    // Nothing listens on a port that only root can bind.
    let gone = "Location: http://127.0.0.1:9/x\r\n";
    for code in [403, 404, 410, 503] {
        let server = Server::new(move |asked| match (&*asked.target, asked.number) {
            ("/a", 0 | 3) => (status(302, "Location: /lacks\r\n"), true),
            ("/a", 2) => (status(302, gone), true),
            ("/a", _) => (status(302, "Location: /has\r\n"), true),
            ("/lacks", _) => (status(code, ""), true),
            _ => (asked.answer(), true),
        });
        let storage = server
            .open_with("retry-timeout=60", &Objects::new())
            .unwrap();
        check(&*storage, 0, 1000);
        let asked = server.asked().len();
        // Two attempts at a mirror that lacks it, one at a mirror that is gone, and one at the mirror that has it.
        assert_eq!(asked, 7, "{code}");
    }
    // If no mirror has it, the error comes after a few attempts.
    let server = Server::new(|asked| match &*asked.target {
        "/a" => (status(302, "Location: /lacks\r\n"), true),
        _ => (status(404, ""), true),
    });
    let found = error(server.open()).to_string();
    assert_eq!(found, "The requested URL returned error: 404");
    assert_eq!(server.asked().len(), 8);
}

#[test]
fn a_busy_server_is_waited_for_when_an_image_is_opened() {
    let busy = |asked: &Asked, times: usize, line: &str| match asked.number < times {
        true => (status(503, line), true),
        false => (asked.answer(), true),
    };
    // Retries are limited by time rather than number, and come as late as the server says.
    for (times, line) in [(5, ""), (1, "Retry-After: 1\r\n")] {
        let server = Server::new(move |asked| busy(asked, times, line));
        let storage = server
            .open_with("retry-timeout=60", &Objects::new())
            .unwrap();
        check(&*storage, 0, 1000);
        assert_eq!(server.asked().len(), times + 1);
    }
    // Later than the retry timeout.
    let server = Server::new(move |asked| busy(asked, 1, "Retry-After: 3600\r\n"));
    assert_eq!(
        error(server.open()).to_string(),
        "The requested URL returned error: 503"
    );
    assert_eq!(server.asked().len(), 1);
    let server = Server::new(move |asked| busy(asked, usize::MAX, ""));
    let found = error(server.open_with("retry-timeout=3", &Objects::new()));
    assert_eq!(found.to_string(), "The requested URL returned error: 503");
    assert!(server.asked().len() >= 3, "{}", server.asked().len());
    // A job that is cancelled, or past its deadline, does not wait.
    for deadline in [false, true] {
        let server = Server::new(move |asked| busy(asked, usize::MAX, ""));
        let control = Arc::new(JobControl::default());
        if deadline {
            control.set_deadline(Some(Duration::from_millis(300)));
        }
        let waiting = std::thread::scope(|scope| {
            let opened = scope.spawn(|| {
                let policy = OpenPolicy::default();
                let options = "retry-timeout=3600";
                open(&server.url(), options, &Objects::new(), &policy, &control)
            });
            while server.asked().is_empty() {
                std::thread::sleep(Duration::from_millis(5));
            }
            if !deadline {
                control.cancel();
            }
            opened.join().unwrap()
        });
        let found = error(waiting);
        let errno = match deadline {
            true => libc::ETIMEDOUT,
            false => libc::ECANCELED,
        };
        assert_eq!((found.kind(), found.errno()), (ErrorKind::Cancelled, errno));
    }
}
