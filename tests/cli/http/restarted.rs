//! A server over TLS that is started again in the middle of a command, with another certificate.

use std::process::{Command, Stdio};

use super::{Site, site};
use crate::faulty::{Fault, Proxy};
use crate::pair::{ours_command, words};
use crate::remote_faults::end_of;

/// Makes further certificates of servers: NAME, AUTHORITY, HOST and the time of its end.
const SCRIPT: &str = r#"
set -e
made() {
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $1-key.pem -out $1.csr -subj /CN=$3
  printf 'basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName=DNS:%s\n' $3 > $1.ext
  printf '[ca]\ndefault_ca=d\n[d]\ndatabase=%s.db\nnew_certs_dir=.\nrand_serial=yes\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n' $1 > $1.cnf
  : > $1.db
  openssl ca -batch -notext -config $1.cnf -cert $2.pem -keyfile $2.key -in $1.csr -out $1-cert.pem -extfile $1.ext \
    -startdate 20200101000000Z -enddate $4
}
made again ca localhost 20991231000000Z
made elsewhere ca elsewhere.example 20991231000000Z
made foreign other localhost 20991231000000Z
made old ca localhost 20200102000000Z
"#;

/// The tool, which trusts the authority of the server.
fn tool(site: &Site, line: &str) -> Command {
    let mut command = ours_command(&words(line), site.dir.root());
    command
        .env("SSL_CERT_FILE", site.made.path().join("ca.pem"))
        .env_remove("SSL_CERT_DIR");
    command
}

/// Runs a line whose server ends when it has sent half of what it would send, and comes back with that certificate.
/// Gives the exit code and the messages.
fn restarted(site: &mut Site, line: &str, certificate: &str) -> (Option<i32>, String) {
    site.server.restart("server");
    let proxy = Proxy::new(site.server.encrypted(), false);
    let line = line.replace("PORT", &proxy.port.to_string());
    proxy.arm(Fault::None, 0);
    let clean = tool(site, &line).output().expect("the tool");
    assert!(clean.status.success(), "{line}: {clean:?}");
    let _ = std::fs::remove_file(site.dir.path("out"));
    // Whoever comes before the server is back is sent away.
    proxy.arm(Fault::Says(b"", usize::MAX), proxy.came() / 2);
    let errors = site.dir.path("errors");
    let mut child = tool(site, &line)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&errors).expect("a file"))
        .spawn()
        .expect("the tool");
    let met = proxy.wait(|| child.try_wait().expect("its state").is_some());
    assert!(met, "{line}");
    site.server.restart(certificate);
    proxy.arm(Fault::None, 0);
    let status = end_of(&mut child, &format!("{line}, {certificate}"));
    (
        status.code(),
        std::fs::read_to_string(errors).expect("its errors"),
    )
}

#[test]
fn a_server_that_comes_back_with_another_certificate_is_asked_who_it_is() {
    let Some(mut site) = site() else { return };
    let made = Command::new("sh")
        .args(["-c", SCRIPT])
        .current_dir(site.made.path())
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    assert!(made.status.success(), "{made:?}");
    let image = "driver=qcow2,file.driver=https,file.url=https://localhost:PORT/b.qcow2";
    let base = format!("--image-opts {image}");
    let compare = format!("compare {base} driver=raw,file.filename=a.raw");
    for (certificate, text) in [
        ("again", ""),
        (
            "elsewhere",
            "Certificate does not match the hostname localhost",
        ),
        ("foreign", "The certificate hasn't got a known issuer"),
        ("old", "The certificate has expired"),
    ] {
        for (line, format) in [
            (format!("convert -O raw {base} out"), "raw"),
            (format!("convert -O qcow2 {base} out"), "qcow2"),
            (compare.clone(), ""),
        ] {
            let (code, errors) = restarted(&mut site, &line, certificate);
            let out = site.dir.path("out");
            if text.is_empty() {
                assert_eq!(
                    (code, errors.as_str()),
                    (Some(0), ""),
                    "{line}, {certificate}"
                );
                if !format.is_empty() {
                    site.ran(&format!("compare -f {format} -F raw out a.raw"));
                    std::fs::remove_file(out).expect("a file");
                }
                continue;
            }
            // Of two images, 1 says that they differ.
            let has_failed = match format {
                "" => code > Some(1),
                _ => code == Some(1),
            };
            assert!(has_failed, "{line}, {certificate}: {code:?} {errors}");
            assert!(errors.contains(text), "{line}, {certificate}: {errors}");
            let lines = errors.matches("qemu-img: ").count();
            assert_eq!(lines, 1, "{line}, {certificate}: {errors}");
            assert!(!out.exists(), "{line}, {certificate}");
        }
    }
    // Whoever is not asked who it is may be anybody.
    let line = format!("convert -O raw {base},file.sslverify=off out");
    let (code, errors) = restarted(&mut site, &line, "foreign");
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{line}");
    assert!(site.bytes("out") == site.bytes("a.raw"));
}
