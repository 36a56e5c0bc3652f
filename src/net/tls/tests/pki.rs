//! Certificates for tests, created once by `openssl`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bstr::{BStr, ByteSlice};

use crate::error::Result;
use crate::net::tls::TlsCredentials;
use crate::net::{Address, Stream, Wait, connect};
use crate::secret::Secret;

const SCRIPT: &str = r#"
set -e
new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $1-key.pem -out $1.csr -subj "$2"; }
sign() { # NAME CA EXTENSION...
  printf '%s\n' 'basicConstraints=critical,CA:FALSE' "$@" | grep = > $1.ext
  openssl x509 -req -in $1.csr -CA $2-cert.pem -CAkey $2-key.pem -CAcreateserial -days 30 -extfile $1.ext -out $1-cert.pem; }
for ca in ca other; do
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout $ca-key.pem -out $ca-cert.pem \
    -subj "/CN=Test $ca" -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
done
new server /CN=localhost; sign server ca extendedKeyUsage=serverAuth subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1
new plain /CN=plain.example.org; sign plain ca extendedKeyUsage=serverAuth
new client '/C=DE/O=Example, Inc./CN=client1'; sign client ca extendedKeyUsage=clientAuth
new stranger /CN=client1; sign stranger other extendedKeyUsage=clientAuth
new late /CN=localhost
new gone /CN=gone; sign gone ca extendedKeyUsage=clientAuth
printf '[ca]\ndefault_ca=d\n[d]\ndatabase=index\nserial=serial\ncrlnumber=number\ndefault_md=sha256\ndefault_crl_days=30\npolicy=p\n[p]\ncommonName=supplied\n' > crl.conf
: > index; echo 01 > number; echo 77 > serial
printf 'basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost\n' > late.ext
openssl ca -config crl.conf -batch -notext -outdir . -in late.csr -out late-cert.pem -keyfile ca-key.pem -cert ca-cert.pem \
  -startdate 20200101000000Z -enddate 20200102000000Z -extfile late.ext
openssl ca -config crl.conf -revoke gone-cert.pem -keyfile ca-key.pem -cert ca-cert.pem
openssl ca -config crl.conf -gencrl -keyfile ca-key.pem -cert ca-cert.pem -out ca-crl.pem
openssl pkcs8 -topk8 -v2 aes-256-cbc -in client-key.pem -passout pass:letmein -out locked-key.pem
"#;

/// The directory with all of them; None if `openssl` is missing.
pub(super) fn dir() -> Option<&'static Path> {
    static DIR: OnceLock<Option<tempfile::TempDir>> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        if Command::new("openssl").arg("version").output().is_err() {
            eprintln!("SKIPPED: tests of TLS need the command openssl");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let made = Command::new("sh")
            .args(["-c", SCRIPT])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        Some(dir)
    });
    dir.as_ref().map(|dir| dir.path())
}

pub(super) fn pem(name: &str) -> String {
    let path = dir().unwrap().join(format!("{name}.pem"));
    std::fs::read_to_string(path).unwrap()
}

pub(super) fn define(pairs: &[(&str, &str)]) -> Result<TlsCredentials> {
    let map: BTreeMap<&str, &BStr> = pairs.iter().map(|(k, v)| (*k, BStr::new(*v))).collect();
    TlsCredentials::x509(&map, &|id| Ok(Secret::new(id)))
}

/// Credentials from texts; `own` is the name of a certificate, or empty.
pub(super) fn x509(endpoint: &str, ca: &str, own: &str, more: &[(&str, &str)]) -> TlsCredentials {
    let ca = pem(&format!("{ca}-cert"));
    let mut pairs = vec![("endpoint", endpoint), ("ca-cert", &ca)];
    let texts = ["cert", "key"].map(|what| match own {
        "" => String::new(),
        own => pem(&format!("{own}-{what}")),
    });
    if !own.is_empty() {
        pairs.extend([("cert", texts[0].as_str()), ("key", texts[1].as_str())]);
    }
    pairs.extend(more);
    define(&pairs).unwrap()
}

/// A directory laid out as for other tools, with these files under their new names.
pub(super) fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let made = tempfile::tempdir().unwrap();
    for (from, to) in files {
        let from = dir().unwrap().join(format!("{from}.pem"));
        std::fs::copy(from, made.path().join(format!("{to}.pem"))).unwrap();
    }
    let path = made.path().to_owned();
    (made, path)
}

/// Connects to a server that is about to listen on this socket.
pub(super) fn connected(socket: &Path) -> Stream {
    let address = Address::unix(socket.as_os_str().as_encoded_bytes().as_bstr());
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let error = match connect(&address, Wait::forever()) {
            Ok(stream) => return stream,
            Err(error) => error,
        };
        let early = matches!(error.errno(), libc::ENOENT | libc::ECONNREFUSED);
        assert!(early && Instant::now() < deadline, "{error}");
        std::thread::yield_now();
    }
}
