//! The guards that users expect on images from elsewhere, each with the attack that it stops: through the
//! library's policy, and through `--untrusted` on every command of the tool.

use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::build;
use crate::common::{Dir, Ran};
use platter::object::Objects;
use platter::ops::convert::{ConvertRequest, convert};
use platter::ops::create::{CreatePlan, CreateRequest};
use platter::ops::inspect::inspect;
use platter::ops::resize::{NewSize, ResizeRequest, resize};
use platter::policy::{HostRule, ImplicitAnswer, ImplicitFiles, ImplicitRole, Probing};
use platter::secret::Secret;
use platter::storage::Preallocation;
use platter::{ErrorKind, Image, Job, Location, OpenOptions, OpenPolicy, Options};

fn make(dir: &Dir, line: &str) {
    dir.qemu_img_ok(&line.split_whitespace().collect::<Vec<_>>());
}

fn options(format: Option<&str>, writable: bool, policy: OpenPolicy) -> OpenOptions {
    OpenOptions {
        format: format.map(str::to_owned),
        writable,
        policy,
        ..OpenOptions::default()
    }
}

fn open(
    dir: &Dir,
    name: &str,
    format: Option<&str>,
    writable: bool,
    policy: OpenPolicy,
) -> platter::Result<Image> {
    let location = Location::from_path(dir.path(name));
    Image::open(&location, &options(format, writable, policy))
}

#[track_caller]
fn refused<T>(result: platter::Result<T>, kind: ErrorKind, text: &str) {
    match result {
        Ok(_) => panic!("nothing was refused; expected {text}"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}

fn permissive(change: impl FnOnce(&mut OpenPolicy)) -> OpenPolicy {
    let mut policy = OpenPolicy::permissive();
    change(&mut policy);
    policy
}

/// `base.raw`, an overlay `top.qcow2` on it, and `data.qcow2` with the data file `data.raw`.
fn chain(dir: &Dir) {
    make(dir, "create -q base.raw 1M");
    dir.qemu_io("raw", "base.raw", &["write -P 7 0 64k"]);
    make(dir, "create -q -f qcow2 -b base.raw -F raw top.qcow2");
    let data = format!("data_file={}", dir.str("data.raw"));
    dir.qemu_img_ok(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        &data,
        "data.qcow2",
        "1M",
    ]);
}

#[test]
fn a_header_that_a_guest_wrote_is_not_followed() {
    let dir = Dir::new();
    make(
        &dir,
        "create -q -f qcow2 -u -b /etc/passwd -F raw evil.qcow2 1M",
    );
    std::fs::copy(dir.path("evil.qcow2"), dir.path("disk.raw")).expect("a copy");
    let strict = OpenPolicy::strict;
    // Without a format, it is no disk to write to; to read, what it names stays closed.
    let denied = ErrorKind::Denied;
    refused(
        open(&dir, "disk.raw", None, true, strict()),
        denied,
        "name the format",
    );
    refused(
        open(&dir, "disk.raw", None, false, strict()),
        denied,
        "'/etc/passwd'",
    );
    let never = OpenPolicy {
        probing: Probing::Never,
        ..strict()
    };
    refused(
        open(&dir, "disk.raw", None, false, never),
        denied,
        "name the format",
    );
    // With the format it is what it is: the bytes of a disk.
    let image = open(&dir, "disk.raw", Some("raw"), true, strict()).expect("a disk");
    assert_eq!(image.format_name(), "raw");
    let mut magic = [0; 4];
    image.read_at(&mut magic, 0).expect("the first bytes");
    assert_eq!(&magic, b"QFI\xfb");
    // And another format than the one that was asked for is an error.
    let not = ErrorKind::NotAnImage;
    make(&dir, "create -q plain.raw 1M");
    refused(
        open(&dir, "plain.raw", Some("qcow2"), false, strict()),
        not,
        "not in qcow2",
    );
    refused(
        open(&dir, "plain.raw", Some("luks"), false, strict()),
        ErrorKind::NeedsSecret,
        "",
    );
}

#[test]
fn files_that_an_image_names_stay_closed() {
    let dir = Dir::new();
    chain(&dir);
    let (strict, denied) = (OpenPolicy::strict, ErrorKind::Denied);
    for writable in [false, true] {
        let qcow2 = Some("qcow2");
        refused(
            open(&dir, "top.qcow2", qcow2, writable, strict()),
            denied,
            "backing file 'base.raw'",
        );
        refused(
            open(&dir, "data.qcow2", qcow2, writable, strict()),
            denied,
            "data file",
        );
        // Directories: by where the file really is, so that no link leads out.
        let below = |directory: PathBuf| {
            permissive(|p| p.implicit_files = ImplicitFiles::Below(vec![directory]))
        };
        assert!(open(&dir, "top.qcow2", qcow2, writable, below(dir.root().into())).is_ok());
        assert!(
            open(
                &dir,
                "data.qcow2",
                qcow2,
                writable,
                below(dir.root().into())
            )
            .is_ok()
        );
        let elsewhere = || below("/usr".into());
        refused(
            open(&dir, "top.qcow2", qcow2, writable, elsewhere()),
            denied,
            "directory",
        );
        refused(
            open(&dir, "data.qcow2", qcow2, writable, elsewhere()),
            denied,
            "directory",
        );
    }
    std::fs::create_dir(dir.path("in")).expect("a directory");
    std::os::unix::fs::symlink(dir.path("base.raw"), dir.path("in/link")).expect("a link");
    make(&dir, "create -q -f qcow2 -b link -F raw in/top.qcow2");
    let inside = permissive(|p| p.implicit_files = ImplicitFiles::Below(vec![dir.path("in")]));
    refused(
        open(&dir, "in/top.qcow2", Some("qcow2"), false, inside),
        denied,
        "directory",
    );
}

#[test]
fn names_inside_images_are_plain_unless_the_policy_says_otherwise() {
    let dir = Dir::new();
    make(&dir, "create -q base.raw 1M");
    let base = dir.str("base.raw");
    for name in [
        format!(
            "json:{{\"driver\":\"raw\",\"file\":{{\"driver\":\"file\",\"filename\":\"{base}\"}}}}"
        ),
        format!("file:{base}"),
    ] {
        dir.qemu_img_ok(&[
            "create", "-q", "-f", "qcow2", "-u", "-b", &name, "-F", "raw", "t.qcow2", "1M",
        ]);
        let image = open(
            &dir,
            "t.qcow2",
            Some("qcow2"),
            false,
            OpenPolicy::permissive(),
        );
        assert!(image.expect("all is allowed").backing().is_some());
        // The name of a file that is not there, whatever it looks like.
        let plain = permissive(|p| p.implicit_protocols = false);
        let not_found = open(&dir, "t.qcow2", Some("qcow2"), false, plain);
        refused(not_found, ErrorKind::NotFound, "No such file");
        refused(
            open(&dir, "t.qcow2", Some("qcow2"), false, OpenPolicy::strict()),
            ErrorKind::Denied,
            "does not allow",
        );
    }
}

/// A name of something on a host for every protocol, at a port where nobody listens.
const FAR: [&str; 10] = [
    "http://127.0.0.1:1/x",
    "https://127.0.0.1:1/x",
    "ftp://127.0.0.1:1/x",
    "ftps://127.0.0.1:1/x",
    "ssh://me@127.0.0.1:1/x",
    "nbd://127.0.0.1:1/x",
    "iscsi://127.0.0.1:1/iqn.x/1",
    "nfs://127.0.0.1/x/y",
    "rbd:rbd/x:mon_host=127.0.0.1\\:1",
    "gluster://127.0.0.1:1/v/x",
];

#[test]
fn no_image_from_elsewhere_leads_to_a_server() {
    let dir = Dir::new();
    for name in FAR {
        dir.qemu_img_ok(&[
            "create", "-q", "-f", "qcow2", "-u", "-b", name, "-F", "raw", "t.qcow2", "1M",
        ]);
        for policy in [OpenPolicy::default(), OpenPolicy::strict()] {
            let image = open(&dir, "t.qcow2", Some("qcow2"), false, policy);
            refused(image, ErrorKind::Denied, "The open policy does not allow");
        }
        // Where images may name others, the hosts are those that the policy names.
        let elsewhere = permissive(|p| {
            p.implicit_hosts = vec![HostRule::parse("images.example").expect("a host")];
        });
        let image = open(&dir, "t.qcow2", Some("qcow2"), false, elsewhere);
        refused(
            image,
            ErrorKind::Denied,
            "The open policy does not allow images to name",
        );
        // And the protocols too.
        let files = permissive(|p| p.protocols = vec!["file".to_owned()]);
        let image = open(&dir, "t.qcow2", Some("qcow2"), false, files);
        refused(
            image,
            ErrorKind::Denied,
            "The open policy does not allow the protocol",
        );
        let ran = tool(&dir, "convert -f qcow2 --untrusted -O raw t.qcow2 out.raw");
        let says = ran.err.contains("open policy does not allow");
        assert!(ran.code == 1 && says, "{name}: {ran:?}");
    }
}

#[test]
fn servers_that_an_image_names_are_those_that_the_policy_names() {
    let dir = Dir::new();
    let listener = std::os::unix::net::UnixListener::bind(dir.path("socket")).expect("a socket");
    let number = std::os::fd::AsRawFd::as_raw_fd(&listener);
    let socket = dir.str("socket");
    let name = |server: String| {
        format!(
            "json:{{\"driver\":\"raw\",\"file\":{{\"driver\":\"nbd\",\"server\":{{{server}}}}}}}"
        )
    };
    let inet = name("\"type\":\"inet\",\"host\":\"127.0.0.1\",\"port\":\"1\"".to_owned());
    let unix = name(format!("\"type\":\"unix\",\"path\":\"{socket}\""));
    let open_one = |number: i32| name(format!("\"type\":\"fd\",\"str\":\"{number}\""));
    let denied = "The open policy does not allow images to name";
    let allowed = |hosts: &[&str]| {
        let hosts = hosts
            .iter()
            .map(|host| HostRule::parse(host).expect("a host"));
        permissive(|p| p.implicit_hosts = hosts.collect())
    };
    for (name, hosts, kind, text) in [
        (&inet, &["images.example"][..], ErrorKind::Denied, denied),
        (&unix, &["images.example"], ErrorKind::Denied, denied),
        (&inet, &["127.0.0.1:1"], ErrorKind::Os, "Connection refused"),
        (&inet, &[], ErrorKind::Os, "Connection refused"),
        (
            &open_one(number),
            &[],
            ErrorKind::Denied,
            "An image names a socket that this process has open",
        ),
        (
            &"ssh://me@127.0.0.1:1/x".to_owned(),
            &["*.example"],
            ErrorKind::Denied,
            denied,
        ),
        (
            &"ftp://127.0.0.1:1/x".to_owned(),
            &["*.example"],
            ErrorKind::Denied,
            denied,
        ),
        (
            &"https://127.0.0.1:1/x".to_owned(),
            &["*.example"],
            ErrorKind::Denied,
            denied,
        ),
    ] {
        dir.qemu_img_ok(&[
            "create", "-q", "-f", "qcow2", "-u", "-b", name, "-F", "raw", "t.qcow2", "1M",
        ]);
        let image = open(&dir, "t.qcow2", Some("qcow2"), false, allowed(hosts));
        refused(image, kind, text);
    }
}

/// A qcow2 image whose data file has this name.
fn with_data_file(dir: &Dir, name: &str) {
    let data = format!("data_file={}", dir.str("own.raw"));
    let args = ["create", "-q", "-f", "qcow2", "-o", &data, "t.qcow2", "64k"];
    dir.qemu_img_ok(&args);
    dir.qemu_io("qcow2", "t.qcow2", &["write -P 7 0 64k"]);
    let option = format!("data_file={}", name.replace(',', ",,"));
    dir.qemu_img_ok(&["amend", "-o", &option, "t.qcow2"]);
}

#[test]
fn the_name_of_a_data_file_is_always_plain() {
    let dir = Dir::new();
    std::fs::write(dir.path("secret"), vec![1; 65536]).expect("a file");
    let secret = dir.str("secret");
    for name in [
        format!(
            "json:{{\"driver\":\"raw\",\"file\":{{\"driver\":\"file\",\"filename\":\"{secret}\"}}}}"
        ),
        format!("file:{secret}"),
        "null-co://".to_owned(),
        "host_device:/dev/null".to_owned(),
        "nbd:localhost:1".to_owned(),
    ] {
        with_data_file(&dir, &name);
        for writable in [false, true] {
            let opened = open(&dir, "t.qcow2", None, writable, OpenPolicy::permissive());
            // With `./` in front, so that it is the name of the same file wherever it is used.
            let text = format!("Could not open './{name}': No such file or directory");
            refused(opened, ErrorKind::NotFound, &text);
        }
        for line in [
            "convert -O raw t.qcow2 o",
            "map t.qcow2",
            "resize t.qcow2 128k",
        ] {
            let ran = tool(&dir, line);
            assert_eq!(ran.code, 1, "{line}: {ran:?}");
            assert!(ran.err.contains("No such file or directory"), "{ran:?}");
        }
        // What it says is still shown.
        let info = tool(&dir, "info --output=json t.qcow2");
        assert!(info.out.contains(&name.replace('"', "\\\"")), "{info:?}");
    }
    // A file of such a name is that file.
    std::fs::write(dir.path("secret:x"), vec![2; 65536]).expect("a file");
    with_data_file(&dir, &dir.str("secret:x"));
    let image = open(&dir, "t.qcow2", None, false, OpenPolicy::permissive()).expect("its file");
    let mut byte = [0];
    image.read_at(&mut byte, 0).expect("a byte");
    assert_eq!(byte, [2]);
}

/// What no image may name: the process's own secrets, and what hangs or changes when it is opened.
#[test]
fn what_an_image_names_is_a_file_or_a_block_device() {
    let dir = Dir::new();
    let made = Command::new("mkfifo").arg(dir.path("fifo")).status();
    assert!(made.expect("mkfifo").success());
    let kept = std::fs::File::create_new(dir.path("kept")).expect("a file");
    let fd = std::os::fd::AsRawFd::as_raw_fd(&kept);
    let names = [
        "/proc/self/environ".to_owned(),
        "/proc/self/cmdline".to_owned(),
        "/proc/self/mem".to_owned(),
        "/dev/null".to_owned(),
        "/dev/zero".to_owned(),
        format!("/dev/fd/{fd}"),
        format!("/proc/self/fd/{fd}"),
        dir.str("fifo"),
        dir.root().display().to_string(),
    ];
    let ask: Arc<platter::policy::AskFn> = Arc::new(|file: &platter::policy::ImplicitFile<'_>| {
        // A callback that does no more than to open the name.
        let path = file.path.expect("a path");
        let opened = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path);
        Ok(ImplicitAnswer::Fd(opened.expect("an open file").into()))
    });
    let asking = permissive(|p| p.implicit_files = ImplicitFiles::Ask(ask));
    let kind = ErrorKind::Invalid;
    for name in &names {
        with_data_file(&dir, name);
        for writable in [false, true] {
            let opened = open(&dir, "t.qcow2", None, writable, OpenPolicy::permissive());
            refused(opened, kind, "regular file");
        }
        make(
            &dir,
            &format!("create -q -f qcow2 -u -b {name} -F raw b.qcow2 1M"),
        );
        let opened = open(&dir, "b.qcow2", None, false, OpenPolicy::permissive());
        refused(opened, kind, "regular file");
        let tree = format!(
            "json:{{\"driver\":\"raw\",\"file\":{{\"driver\":\"raw\",\"file\":{{\"filename\":\"{name}\"}}}}}}"
        );
        dir.qemu_img_ok(&[
            "create", "-q", "-f", "qcow2", "-u", "-b", &tree, "-F", "raw", "j.qcow2", "1M",
        ]);
        let opened = open(&dir, "j.qcow2", None, false, OpenPolicy::permissive());
        refused(opened, kind, "regular file");
        if !name.contains("/fd/") {
            // There the caller's answer is the file itself.
            let opened = open(&dir, "b.qcow2", None, false, asking.clone());
            refused(opened, kind, "regular file");
        }
    }
    // Who gives the name by an option of one's own decides.
    let own = "convert -O raw --image-opts driver=qcow2,file.filename=b.qcow2,backing.driver=raw,\
               backing.file.filename=/dev/null o";
    assert_eq!(tool(&dir, own).code, 0);
    let own = "json:{\"driver\":\"qcow2\",\"file\":{\"filename\":\"t.qcow2\"},\"data-file\":{\"filename\":\"/proc/self/environ\"}}";
    let ran = tool(&dir, &format!("convert -O raw {own} o"));
    assert_eq!(ran.code, 0, "{ran:?}");
    // Its length is 0: so nothing of it is there.
    assert!(
        std::fs::read(dir.path("o"))
            .expect("a copy")
            .iter()
            .all(|byte| *byte == 0)
    );
}

#[test]
fn an_unknown_feature_is_refused_by_every_way_to_open() {
    let dir = Dir::new();
    make(&dir, "create -q -f qcow2 a.qcow2 1M");
    let mut bytes = std::fs::read(dir.path("a.qcow2")).expect("the image");
    bytes[72] = 0x40;
    std::fs::write(dir.path("a.qcow2"), &bytes).expect("the image");
    for (writable, metadata_only, for_check) in [
        (false, false, false),
        (true, false, false),
        (false, true, false),
        (false, false, true),
    ] {
        let how = OpenOptions {
            metadata_only,
            for_check,
            ..options(Some("qcow2"), writable, OpenPolicy::permissive())
        };
        let image = Image::open(&Location::from_path(dir.path("a.qcow2")), &how);
        refused(
            image,
            ErrorKind::Unsupported,
            "Unknown incompatible feature",
        );
    }
}

#[test]
fn ceilings() {
    let dir = Dir::new();
    chain(&dir);
    make(&dir, "create -q -f qcow2 big.qcow2 1T");
    make(&dir, "create -q -f qcow2 -o cluster_size=2M wide.qcow2 1M");
    let limit = ErrorKind::Limit;
    let qcow2 = Some("qcow2");
    let with = |change: fn(&mut OpenPolicy)| permissive(change);
    for writable in [false, true] {
        let tables = with(|p| p.max_table_bytes = 16383);
        refused(
            open(&dir, "big.qcow2", qcow2, writable, tables),
            limit,
            "L1 table too large",
        );
        let tables = with(|p| p.max_table_bytes = 65535);
        refused(
            open(&dir, "big.qcow2", qcow2, writable, tables),
            limit,
            "count table too large",
        );
        assert!(
            open(
                &dir,
                "big.qcow2",
                qcow2,
                writable,
                with(|p| p.max_table_bytes = 65536)
            )
            .is_ok()
        );
        let size = with(|p| p.max_virtual_size = (1 << 40) - 1);
        refused(
            open(&dir, "big.qcow2", qcow2, writable, size),
            limit,
            "virtual size",
        );
        let size = with(|p| p.max_virtual_size = 1 << 40);
        assert!(open(&dir, "big.qcow2", qcow2, writable, size).is_ok());
        let decoded = with(|p| p.max_decompressed_bytes = (2 << 20) - 1);
        refused(
            open(&dir, "wide.qcow2", qcow2, writable, decoded),
            limit,
            "decode to 2097152",
        );
        let depth = with(|p| p.max_chain_depth = 1);
        refused(
            open(&dir, "top.qcow2", qcow2, writable, depth),
            limit,
            "more than 1 images",
        );
    }
    // Also where only metadata is wanted, and for the layers below.
    let size = with(|p| p.max_virtual_size = 512);
    refused(
        open(&dir, "top.qcow2", qcow2, false, size),
        limit,
        "virtual size",
    );
    make(
        &dir,
        "create -q -f qcow2 -u -b ./loop.qcow2 -F qcow2 loop.qcow2 1M",
    );
    let all = OpenPolicy::permissive();
    refused(
        open(&dir, "loop.qcow2", qcow2, false, all),
        ErrorKind::Invalid,
        "infinite loop",
    );
}

#[test]
fn unlocking_takes_no_more_work_than_allowed() {
    let dir = Dir::new();
    let secret = ["--object", "secret,id=s,data=x"];
    let mut line = vec!["create", "-q"];
    line.extend(secret);
    line.extend([
        "-f",
        "luks",
        "-o",
        "key-secret=s,iter-time=10",
        "a.luks",
        "1M",
    ]);
    dir.qemu_img_ok(&line);
    let mut line = vec!["create", "-q"];
    line.extend(secret);
    let encrypt = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    line.extend(["-f", "qcow2", "-o", encrypt, "a.qcow2", "1M"]);
    dir.qemu_img_ok(&line);
    // As many iterations as a header can ask for, in a slot that looks active.
    for (name, key) in [("a.luks", "key-secret"), ("a.qcow2", "encrypt.key-secret")] {
        let mut bytes = std::fs::read(dir.path(name)).expect("the image");
        let magic = b"LUKS\xba\xbe";
        let at = bytes
            .windows(6)
            .position(|w| w == magic)
            .expect("a LUKS header");
        bytes[at + 212..at + 216].copy_from_slice(&(1u32 << 28).to_be_bytes());
        std::fs::write(dir.path(name), &bytes).expect("the image");
        let driver = name.rsplit_once('.').expect("a suffix").1;
        let text = format!("driver={driver},{key}=s,file.filename={}", dir.str(name));
        let location = Location::from_image_opts(&text).expect("a location");
        let mut objects = Objects::default();
        objects.add_secret("s", Secret::new("x")).expect("a secret");
        let how = OpenOptions {
            objects,
            ..options(None, false, OpenPolicy::strict())
        };
        refused(
            Image::open(&location, &how),
            ErrorKind::Limit,
            "268435456 iterations",
        );
    }
}

#[test]
fn the_virtual_size_is_checked_before_anything_is_written() {
    let dir = Dir::new();
    make(&dir, "create -q -f qcow2 source.qcow2 1P");
    make(&dir, "create -q -f qcow2 small.qcow2 1M");
    let policy = permissive(|p| p.max_virtual_size = 1 << 30);
    let mut job = Job::new();
    for format in ["raw", "qcow2"] {
        let request = CreateRequest {
            location: Location::from_path(dir.path("new")),
            format: format.to_owned(),
            size: Some(1 << 40),
            options: Options::new(),
            backing_file: None,
            backing_format: None,
            backing_unsafe: false,
            exclusive: false,
            objects: Objects::default(),
            policy: policy.clone(),
            storages: None,
        };
        let created = CreatePlan::new(request, &mut job).and_then(|plan| plan.run(&mut job));
        refused(created, ErrorKind::Limit, "virtual size");
        assert!(!dir.path("new").exists());
        // The source is allowed any size, the target is not.
        let source = Location::from_path(dir.path("source.qcow2"));
        let mut request = ConvertRequest::new(source, Location::from_path(dir.path("new")));
        request.target.format = Some(format.to_owned());
        request.target.policy = policy.clone();
        refused(
            convert(&request, &mut job),
            ErrorKind::Limit,
            "virtual size",
        );
        assert!(!dir.path("new").exists());
    }
    let before = std::fs::read(dir.path("small.qcow2")).expect("the image");
    let image = open(&dir, "small.qcow2", Some("qcow2"), true, policy).expect("the image");
    let request = ResizeRequest {
        size: NewSize::Exactly(1 << 40),
        preallocation: Preallocation::Off,
        shrink: false,
    };
    refused(
        resize(&image, &request, &mut job),
        ErrorKind::Limit,
        "virtual size",
    );
    image.close().expect("the image closes");
    assert_eq!(
        std::fs::read(dir.path("small.qcow2")).expect("the image"),
        before
    );
}

#[test]
fn what_was_made_of_an_untrusted_image_can_be_inspected_again() {
    let dir = Dir::new();
    make(&dir, "create -q source.raw 4M");
    dir.qemu_io("raw", "source.raw", &["write -P 5 0 1M"]);
    // The guest of this disk holds another image.
    make(
        &dir,
        "create -q -f qcow2 -u -b /etc/passwd -F raw inner.qcow2 1M",
    );
    let mut disk = std::fs::read(dir.path("inner.qcow2")).expect("the image");
    disk.resize(4 << 20, 0);
    std::fs::write(dir.path("disk.raw"), disk).expect("the disk");
    for (source, target_format, passes) in [
        ("source.raw", "qcow2", true),
        ("source.raw", "raw", true),
        ("disk.raw", "qcow2", true),
        ("disk.raw", "raw", false),
    ] {
        let target = Location::from_path(dir.path("out"));
        let mut request =
            ConvertRequest::new(Location::from_path(dir.path(source)), target.clone());
        request.target.format = Some(target_format.to_owned());
        request.source.options = options(Some("raw"), false, OpenPolicy::strict());
        convert(&request, &mut Job::new()).expect("the conversion");
        let how = options(Some(target_format), false, OpenPolicy::strict());
        let report = inspect(&target, &how).expect("a report");
        assert_eq!(
            report.passed(),
            passes,
            "{source} {target_format}: {}",
            report.text().unwrap()
        );
        std::fs::remove_file(dir.path("out")).expect("the output");
    }
}

#[test]
fn what_was_allowed_is_what_is_used_whatever_happens_to_its_name() {
    let dir = Dir::new();
    chain(&dir);
    let secret = vec![0x99; 1 << 20];
    std::fs::write(dir.path("secret"), &secret).expect("a file");
    let swapped = Arc::new(Mutex::new(Vec::new()));
    for (image, role, writable) in [
        ("top.qcow2", ImplicitRole::Backing, false),
        ("data.qcow2", ImplicitRole::DataFile, false),
        ("data.qcow2", ImplicitRole::DataFile, true),
    ] {
        let list = swapped.clone();
        let ask = move |file: &platter::policy::ImplicitFile<'_>| {
            let path = file.path.expect("a plain name").to_owned();
            assert_eq!((file.role, file.writable), (role, writable));
            let handle = std::fs::OpenOptions::new()
                .read(true)
                .write(file.writable)
                .open(&path)
                .expect("the file");
            // Right after the check, the name leads elsewhere.
            std::fs::rename(&path, path.with_extension("moved")).expect("a move");
            std::os::unix::fs::symlink(path.with_file_name("secret"), &path).expect("a link");
            list.lock().expect("a lock").push(path);
            Ok(ImplicitAnswer::Fd(OwnedFd::from(handle)))
        };
        let policy = OpenPolicy {
            implicit_files: ImplicitFiles::Ask(Arc::new(ask)),
            ..OpenPolicy::strict()
        };
        let image = open(&dir, image, Some("qcow2"), writable, policy).expect("the image");
        let mut got = vec![1; 65536];
        image.read_at(&mut got, 0).expect("guest bytes");
        assert!(got.iter().all(|b| *b != 0x99));
        if writable {
            image.write_at(&[3; 65536], 0).expect("a write");
            image.flush().expect("a flush");
            image.read_at(&mut got, 0).expect("guest bytes");
            assert_eq!(got, [3; 65536]);
        }
        image.close().expect("the image closes");
        let path = swapped.lock().expect("a lock").pop().expect("it was asked");
        assert_eq!(std::fs::read(dir.path("secret")).expect("the file"), secret);
        std::fs::rename(path.with_extension("moved"), path).expect("a move back");
    }
}

#[test]
fn formats_can_be_switched_off() {
    let dir = Dir::new();
    chain(&dir);
    make(&dir, "create -q -f qcow2 -b top.qcow2 -F qcow2 third.qcow2");
    let only = |format: &str| permissive(|p| p.formats = vec![format.to_owned()]);
    let denied = ErrorKind::Denied;
    for format in [None, Some("qcow2")] {
        refused(
            open(&dir, "top.qcow2", format, false, only("raw")),
            denied,
            "format 'qcow2'",
        );
        // A layer below is no way around it.
        refused(
            open(&dir, "third.qcow2", format, false, only("qcow2")),
            denied,
            "format 'raw'",
        );
    }
    assert!(open(&dir, "base.raw", Some("raw"), true, only("raw")).is_ok());
    // Nor is making one.
    let mut job = Job::new();
    let mut request = ConvertRequest::new(
        Location::from_path(dir.path("base.raw")),
        Location::from_path(dir.path("new")),
    );
    request.target.format = Some("qcow2".to_owned());
    request.target.policy = only("raw");
    refused(convert(&request, &mut job), denied, "format 'qcow2'");
    assert!(!dir.path("new").exists());
}

/// Runs the tool; one that hangs, for it has opened the FIFO, is killed.
fn tool(dir: &Dir, line: &str) -> Ran {
    let usage = dir.path("usage");
    let output = Command::new(build::limited())
        .arg("20")
        .arg(&usage)
        .arg(build::tool())
        .args(line.split_whitespace())
        .current_dir(dir.root())
        .env("LC_ALL", "C")
        .output()
        .expect("the tool runs");
    let text = std::fs::read_to_string(&usage).expect("how it ended");
    let signal = text.split_whitespace().nth(1);
    assert_eq!(signal, Some("0"), "{line} was killed: {text}");
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn untrusted_opens_nothing_that_is_named_in_any_command() {
    let dir = Dir::new();
    chain(&dir);
    make(&dir, "create -q -f qcow2 plain.qcow2 1M");
    let mkfifo = |name: &str| {
        let made = Command::new("mkfifo").arg(dir.path(name)).status();
        assert!(made.expect("mkfifo").success());
    };
    // Whatever opens these waits for a writer that never comes, or leaves a trace in the access time.
    mkfifo("fifo");
    make(&dir, "create -q -f qcow2 -u -b fifo -F raw evil.qcow2 1M");
    let mut data = std::fs::read(dir.path("data.qcow2")).expect("the image");
    let name = dir.str("data.raw");
    let at = data
        .windows(name.len())
        .position(|w| w == name.as_bytes())
        .expect("the name");
    let fifo = dir.str("fifo");
    data[at..at + name.len()].fill(0);
    data[at..at + fifo.len()].copy_from_slice(fifo.as_bytes());
    std::fs::write(dir.path("evil-data.qcow2"), &data).expect("the image");
    let contents = |name: &str| std::fs::read(dir.path(name)).expect("the image");
    for image in ["evil.qcow2", "evil-data.qcow2"] {
        let before = contents(image);
        for (line, code) in [
            (format!("info -f qcow2 --untrusted {image}"), 0),
            (format!("inspect -f qcow2 --untrusted {image}"), 2),
            (format!("map -f qcow2 --untrusted {image}"), 1),
            (
                format!("convert -f qcow2 --untrusted -O raw {image} out.raw"),
                1,
            ),
            (format!("convert --untrusted -O raw {image} out.raw"), 1),
            (
                format!("compare -f qcow2 -F qcow2 --untrusted {image} plain.qcow2"),
                2,
            ),
            (
                format!("compare -f qcow2 -F qcow2 --untrusted plain.qcow2 {image}"),
                2,
            ),
            (format!("measure -f qcow2 --untrusted -O qcow2 {image}"), 1),
            (format!("commit -f qcow2 --untrusted {image}"), 1),
            (
                format!("rebase -f qcow2 --untrusted -b plain.qcow2 -F qcow2 {image}"),
                1,
            ),
            (
                format!("convert -n -f qcow2 --untrusted -O qcow2 plain.qcow2 {image}"),
                1,
            ),
        ] {
            let ran = tool(&dir, &line);
            assert_eq!(ran.code, code, "{line}: {ran:?}");
            let says = ran.err.contains("open policy does not allow");
            assert_eq!(
                says,
                code != 0 && !line.starts_with("inspect"),
                "{line}: {ran:?}"
            );
            assert!(!dir.path("out.raw").exists(), "{line}");
            assert!(contents(image) == before, "{line} changed the image");
        }
        // These need no other file, or are refused; they never wait for one.
        for line in [
            format!("check -f qcow2 --untrusted {image}"),
            format!("resize -f qcow2 --untrusted {image} 2M"),
            format!("snapshot -l --untrusted {image}"),
            format!("snapshot -f qcow2 -c one --untrusted {image}"),
            format!("create -q --untrusted -f qcow2 -b {image} -F qcow2 new.qcow2"),
            format!("create -q --untrusted -f qcow2 -b {image} -F qcow2 -u new.qcow2 1M"),
        ] {
            let ran = tool(&dir, &line);
            assert!(
                ran.code == 0 || ran.err.contains("open policy does not allow"),
                "{line}: {ran:?}"
            );
        }
    }
    let ran = tool(&dir, "info -b -f qcow2 --untrusted evil.qcow2");
    assert_eq!(ran.code, 1, "{ran:?}");
    // What is written to has a format that somebody named.
    for line in [
        "resize --untrusted plain.qcow2 2M",
        "snapshot -c one --untrusted plain.qcow2",
        "commit --untrusted top.qcow2",
        "rebase -u --untrusted -b x -F raw top.qcow2",
    ] {
        let before = contents(
            line.split_whitespace()
                .find(|w| w.ends_with(".qcow2"))
                .expect("it"),
        );
        let ran = tool(&dir, line);
        assert!(
            ran.code == 1 && ran.err.contains("name the format"),
            "{line}: {ran:?}"
        );
        let name = line
            .split_whitespace()
            .find(|w| w.ends_with(".qcow2"))
            .expect("it");
        assert!(contents(name) == before, "{line} changed the image");
    }
}

#[test]
fn every_command_that_there_is_takes_untrusted() {
    let dir = Dir::new();
    let help = tool(&dir, "--help").out;
    let commands: Vec<&str> = help
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_once(" - "))
        .map(|(name, _)| name)
        .filter(|name| !name.contains(' '))
        .collect();
    assert!(
        commands.len() >= 12 && commands.contains(&"inspect"),
        "{commands:?}"
    );
    for command in commands {
        let ran = tool(&dir, &format!("{command} --help"));
        assert!(
            ran.out.contains("--untrusted"),
            "{command} does not take --untrusted"
        );
    }
}
