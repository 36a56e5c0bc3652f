//! What reaches every protocol of the registry: options that were checked, secrets, the policy, a cancel and a deadline.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use platter::job::JobControl;
use platter::storage::registry::drivers;
use platter::storage::{StorageDriver, StorageFeatures};
use platter::{ErrorKind, Image, Location, OpenOptions, OpenPolicy};

/// What opens something of each protocol; the server is at the port `@`.
const LOCATIONS: &[(&str, &str)] = &[
    ("file", "filename=none"),
    ("host_device", "filename=none"),
    ("host_cdrom", "filename=none"),
    ("ftp", "url=ftp://127.0.0.1:@/x,username=u"),
    ("ftps", "url=ftps://127.0.0.1:@/x,username=u"),
    (
        "gluster",
        "server.0.type=inet,server.0.host=127.0.0.1,server.0.port=@,volume=v,path=x",
    ),
    ("http", "url=http://127.0.0.1:@/x,username=u"),
    ("https", "url=https://127.0.0.1:@/x,username=u"),
    (
        "iscsi",
        "transport=tcp,portal=127.0.0.1:@,target=iqn.x,lun=0,user=u",
    ),
    (
        "iser",
        "transport=iser,portal=127.0.0.1:@,target=iqn.x,lun=0,user=u",
    ),
    (
        "nbd",
        "server.type=inet,server.host=127.0.0.1,server.port=@",
    ),
    ("nfs", "server.type=inet,server.host=127.0.0.1,path=/x/y"),
    ("null-co", "size=512"),
    ("null-aio", "size=512"),
    ("nvme", "device=0000:00:00.0,namespace=1"),
    (
        "rbd",
        "pool=p,image=i,user=u,server.0.host=127.0.0.1,server.0.port=@",
    ),
    (
        "ssh",
        "server.host=127.0.0.1,server.port=@,path=/x,user=root,host-key-check.mode=none",
    ),
    ("vvfat", "dir=none"),
];

/// Those that connect to that port while they are opened. The ports of NFS are the server's own affair, and iSER asks
/// for a device of the machine first.
const CONNECTING: &[&str] = &[
    "ftp", "ftps", "gluster", "http", "https", "iscsi", "nbd", "rbd", "ssh",
];

fn location(driver: &StorageDriver, port: u16) -> String {
    let found = LOCATIONS.iter().find(|(name, _)| *name == driver.name);
    let (name, options) =
        found.unwrap_or_else(|| panic!("LOCATIONS has no row for {}", driver.name));
    format!("driver={name},{}", options.replace('@', &port.to_string()))
}

/// The error of opening it.
fn refusal(location: &str, options: &OpenOptions) -> platter::Error {
    let parsed = Location::from_image_opts(location).expect("a location");
    match Image::open(&parsed, options) {
        Ok(_) => panic!("{location} was opened"),
        Err(error) => error,
    }
}

fn permissive() -> OpenOptions {
    OpenOptions {
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    }
}

#[test]
fn a_policy_that_does_not_name_it_is_asked_before_any_protocol_does_something() {
    let mut options = permissive();
    options.policy.protocols = vec!["none".to_owned()];
    for driver in drivers() {
        let error = refusal(&location(driver, 1), &options);
        assert_eq!(error.kind(), ErrorKind::Denied, "{}: {error}", driver.name);
        assert!(error.to_string().contains(driver.name), "{error}");
    }
}

#[test]
fn every_protocol_has_its_options_checked_lists_and_nested_ones_too() {
    let mut lists = 0;
    for driver in drivers() {
        for key in ["x", "x.0.y", "server.0.none"] {
            let text = format!("{},{key}=1", location(driver, 1));
            let error = refusal(&text, &permissive());
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            let words = format!("doesn't support the option '{key}'");
            assert!(error.to_string().ends_with(&words), "{error}");
        }
        for pattern in driver
            .open_options
            .iter()
            .filter(|spec| spec.name.contains('*'))
        {
            lists += 1;
            for number in ["0", "17"] {
                assert!(
                    driver.takes(&pattern.name.replace('*', number)),
                    "{}",
                    pattern.name
                );
            }
        }
    }
    assert!(lists > 5, "{lists}");
}

#[test]
fn every_option_that_names_a_secret_finds_it_missing_before_there_is_a_connection() {
    let mut asked = 0;
    for driver in drivers() {
        for spec in driver.open_options {
            let key = spec.name.replace('*', "0");
            if !(key.ends_with("-secret") || key == "tls-creds") {
                continue;
            }
            // Some secret belongs to a name.
            let with = match &*key {
                "encrypt.key-secret" => ",encrypt.format=luks",
                "proxy-password-secret" => ",proxy-username=u",
                "target-password-secret" => ",target-user=u,password-secret=nope",
                _ => "",
            };
            let text = format!("{},{key}=nope{with}", location(driver, 1));
            let error = refusal(&text, &permissive()).to_string();
            assert!(error.contains(" with id 'nope'"), "{key}: {error}");
            asked += 1;
        }
    }
    assert!(asked > 12, "{asked}");
}

/// What comes of opening where a server takes the connection and never says a word; `met` is called then.
fn silence(
    driver: &StorageDriver,
    control: &Arc<JobControl>,
    met: impl Fn() + Send,
) -> platter::Error {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let options = OpenOptions {
        control: control.clone(),
        ..permissive()
    };
    std::thread::scope(|scope| {
        let (ended, end) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            let client = listener.accept();
            met();
            // Until the open has ended.
            let _ = end.recv();
            drop(client);
        });
        let error = refusal(&location(driver, address.port()), &options);
        // A driver that never came would leave the server waiting.
        let _ = TcpStream::connect(address);
        drop(ended);
        error
    })
}

fn connecting() -> impl Iterator<Item = &'static StorageDriver> {
    let all = drivers().iter().copied();
    all.filter(|driver| CONNECTING.contains(&driver.name))
}

/// The libraries of some protocols are not on every machine.
fn is_missing(driver: &StorageDriver, error: &platter::Error) -> bool {
    let is_loaded = ["gluster", "iscsi", "rbd", "ssh"].contains(&driver.name);
    is_loaded && error.kind() == ErrorKind::Unsupported
}

#[test]
fn a_cancel_reaches_every_protocol_that_waits_for_a_silent_server() {
    for driver in connecting() {
        let control = Arc::new(JobControl::default());
        let error = silence(driver, &control, || control.cancel());
        let ended = error.kind() == ErrorKind::Cancelled || is_missing(driver, &error);
        assert!(ended, "{}: {error}", driver.name);
    }
}

#[test]
fn a_deadline_reaches_every_protocol_that_waits_for_a_silent_server() {
    for driver in connecting() {
        let control = Arc::new(JobControl::default());
        let error = silence(driver, &control, || {
            control.set_deadline(Some(Duration::from_millis(1)));
        });
        let ended = error.kind() == ErrorKind::Cancelled || is_missing(driver, &error);
        assert!(ended, "{}: {error}", driver.name);
    }
}

/// Who creates begins with a claim, which is taken back unless all is done.
#[test]
fn every_protocol_that_creates_has_a_claim_and_says_so() {
    for driver in drivers() {
        let says = driver.features.contains(StorageFeatures::CREATE);
        assert_eq!(driver.create.is_some(), says, "{}", driver.name);
    }
}
