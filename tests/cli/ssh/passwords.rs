//! Users who prove who they are by a password, asked for at once or question by question, alone and beside a key. The
//! server sees a file of passwords that nothing else of this machine does.

use super::server::{Server, sshd_is_missing};
use super::{bytes, ran, run};
use crate::common::{Dir, run_in};
use crate::site::disk;

const PASSWORD: &str = "op3n sesame, $now";

/// A server with these lines of configuration that knows the password of root.
fn server(dir: &Dir, lines: &str) -> Server {
    let hash = run_in(dir.root(), "openssl", &["passwd", "-6", PASSWORD]);
    assert_eq!(hash.code, 0, "{hash:?}");
    let shadow = format!("root:{}:19000:0:99999:7:::\n", hash.out.trim());
    std::fs::write(dir.path("shadow"), shadow).expect("a file of passwords");
    let pam = "auth required pam_unix.so\naccount required pam_permit.so\nsession required pam_permit.so\n";
    std::fs::write(dir.path("pam"), pam).expect("a configuration");
    let private =
        "mount --bind shadow /etc/shadow && mount --bind pam /etc/pam.d/sshd && exec \"$@\"";
    Server::started(
        dir,
        "internal-sftp",
        lines,
        &["unshare", "--mount", "sh", "-c", private, "sh"],
    )
}

#[test]
fn a_password_lets_in_however_it_is_asked_for() {
    if sshd_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    std::fs::write(dir.path("word"), PASSWORD).expect("a secret");
    let root = dir.root().display().to_string();
    let key = format!("&identity={root}/id");
    let password = "PasswordAuthentication yes\n";
    let questions = "UsePAM yes\nKbdInteractiveAuthentication yes\n";
    for (lines, key) in [
        (password.to_owned(), ""),
        (format!("UsePAM yes\n{password}"), ""),
        (questions.to_owned(), ""),
        // One after the other.
        (
            format!("{password}AuthenticationMethods publickey,password\n"),
            &*key,
        ),
        (
            format!("{questions}AuthenticationMethods publickey,keyboard-interactive\n"),
            &*key,
        ),
    ] {
        let server = server(&dir, &lines);
        let url = |name: &str| {
            server.url_with(name, &format!("host_key_check=no&password-secret=s{key}"))
        };
        let secret = "--object secret,id=s,file=word";
        let told = [
            ran(&format!("info {secret} {}", url("a.raw")), &dir),
            ran(
                &format!("info --output=json {secret} {}", url("a.raw")),
                &dir,
            ),
            ran(
                &format!(
                    "convert {secret} -f raw -O raw {} {}",
                    url("a.raw"),
                    url("b.raw")
                ),
                &dir,
            ),
        ];
        assert!(bytes(&dir, "b.raw") == bytes(&dir, "a.raw"), "{lines}");
        let identity = key.replace("&identity=", ",file.identity=");
        let options = format!(
            "driver=raw,file.driver=ssh,file.server.host=127.0.0.1,file.server.port={},file.path={root}/a.raw,file.user=root,file.host-key-check.mode=none,file.password-secret=s{identity}",
            server.port
        );
        let by_options = ran(&format!("info {secret} --image-opts {options}"), &dir);
        for ran in told.iter().chain([&by_options]) {
            let text = format!("{ran:?}");
            assert!(!text.contains("sesame"), "{lines}: {text}");
        }
        let wrong = run(
            &format!("info --object secret,id=s,data=hunter2 {}", url("a.raw")),
            &dir,
        );
        assert!(
            wrong.code == 1
                && wrong
                    .err
                    .contains("failed to authenticate as 'root' using the password"),
            "{lines}: {wrong:?}"
        );
        assert_eq!(wrong.err.lines().count(), 1, "{wrong:?}");
        assert!(!wrong.err.contains("hunter2"), "{wrong:?}");
        if !key.is_empty() {
            // Neither is enough.
            let half = url("a.raw").replace(key, "");
            let ran = run(&format!("info {secret} {half}"), &dir);
            assert!(
                ran.code == 1 && ran.err.contains("failed to authenticate"),
                "{ran:?}"
            );
            let ran = run(&format!("info {}", server.url("a.raw")), &dir);
            assert!(
                ran.code == 1 && ran.err.contains("failed to authenticate"),
                "{ran:?}"
            );
        }
    }
    // Nothing of the machine's own has changed.
    let shadow = std::fs::read_to_string("/etc/shadow").expect("the passwords of the machine");
    assert_ne!(
        shadow,
        std::fs::read_to_string(dir.path("shadow")).expect("a file")
    );
}
