//! Names and options that cannot be opened: the library says what `qemu-img` says.

mod common;

use std::sync::OnceLock;

use platter::{Image, Location, OpenOptions, OpenPolicy};

/// One directory for the process, which works in it.
fn dir() -> &'static common::Dir {
    static DIR: OnceLock<common::Dir> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = common::Dir::new();
        std::env::set_current_dir(dir.root()).expect("the directory is there");
        std::fs::create_dir(dir.path("sub")).expect("a directory");
        dir.qemu_img_ok(&["create", "-q", "-f", "raw", "a.raw", "1M"]);
        dir
    })
}

fn ours(name: &str, format: Option<&str>, image_opts: bool) -> String {
    let options = OpenOptions {
        format: format.map(str::to_owned),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let location = match image_opts {
        true => Location::from_image_opts(name),
        false => Location::parse(name),
    };
    match location.and_then(|location| Image::open(&location, &options)) {
        Ok(image) => format!("ok {}", image.filename()),
        Err(error) => {
            let mut text = error.to_string();
            // The list of valid keys is ours.
            let hints = error.hints().iter();
            for hint in hints.filter(|hint| !hint.starts_with("Valid parameters: ")) {
                text.push('\n');
                text.push_str(hint);
            }
            text
        }
    }
}

fn theirs(name: &str, format: Option<&str>, image_opts: bool) -> String {
    let mut args = vec!["info"];
    if let Some(format) = format {
        args.extend(["-f", format]);
    }
    if image_opts {
        args.push("--image-opts");
    }
    args.push(name);
    let ran = dir().qemu_img(&args);
    if ran.code == 0 {
        let name = ran.out.lines().next().unwrap_or_default();
        return name.replace("image: ", "ok ");
    }
    common::said_once(&ran.err.trim_end().replacen("qemu-img: ", "", 1))
}

#[track_caller]
fn same(name: &str, format: Option<&str>, image_opts: bool) {
    let expected = theirs(name, format, image_opts);
    assert_eq!(
        ours(name, format, image_opts),
        expected,
        "{name} {format:?}"
    );
}

#[test]
fn file_names() {
    dir();
    for name in [
        "a.raw",
        "./a.raw",
        "nope",
        "",
        "foo:x",
        ":x",
        "a b:x",
        "./a:b",
        "x/a:b",
        "file:a.raw",
        "file:nope",
        "file:///nope",
        "file:",
        "FILE:a.raw",
        "raw:a.raw",
        "host_device:a.raw",
        "sub",
        "a.raw/",
        "null-co://",
        "null-co:x",
        "é:x",
    ] {
        same(name, None, false);
    }
    for (name, format) in [
        ("nope", "bogus"),
        ("nope", "raw"),
        ("a.raw", "bogus"),
        ("a.raw", "file"),
        ("a.raw", "null-co"),
        ("null-co://", "null-co"),
    ] {
        same(name, Some(format), false);
    }
}

#[test]
fn json_names() {
    dir();
    for json in [
        "",
        "{",
        "{}",
        "[]",
        "null",
        "x",
        "{'driver':'raw'}",
        "{'driver':'raw','file':{'driver':'file','filename':'a.raw'}}",
        "{'driver':'raw','file.filename':'a.raw'}",
        "{'file.filename':'a.raw'}",
        "{'driver':'bogus','file.filename':'a.raw'}",
        "{'driver':'raw','file.filename':'a.raw','bogus':1}",
        "{'driver':'raw','file.filename':'a.raw','a':{'b':[1]}}",
        "{'driver':'raw','file':'foo'}",
        "{'driver':'raw','file':null}",
        "{'driver':'raw','file':{}}",
        "{'driver':'raw','file.filename':null}",
        "{'filename':'a.raw'}",
        "{'driver':'file','filename':'a.raw'}",
        "{'driver':'raw','filename':'a.raw'}",
        "{'driver':'raw','file.filename':'a.raw'} x",
        "{'file.filename':'a','file.filename':'b'}",
        "{'driver':'raw','file.filename':'x','file':{'filename':'y'}}",
        "{'driver':1,'file.filename':'a.raw'}",
        "{'driver':'raw','offset':512,'size':1024,'file.filename':'a.raw'}",
        "{'driver':'raw','offset':'512','size':'1k','file.filename':'a.raw'}",
        "{'driver':'raw','offset':true,'file.filename':'a.raw'}",
        "{'driver':'raw','offset':-1,'file.filename':'a.raw'}",
        "{'driver':'raw','offset':1.5,'file.filename':'a.raw'}",
        "{'driver':'raw','size':1e3,'file.filename':'a.raw'}",
        "{'driver':'raw','file':{'driver':'file','filename':'nope'}}",
        "{'driver':'raw','file':{'driver':'raw','file':{'filename':'a.raw'}}}",
        "{'driver':'raw','file':{'driver':'file','filename':123}}",
        "{'driver':'raw','file':{'driver':'file','filename':'a.raw','locking':'off'}}",
        "{'driver':'','file.filename':'a.raw'}",
        "{'file':'x','file.filename':'a.raw'}",
    ] {
        same(&format!("json:{json}"), None, false);
    }
    same("json:{'file.filename':'a.raw'}", Some("raw"), false);
}

#[test]
fn image_opts() {
    dir();
    for opts in [
        "file.filename=a.raw",
        "driver=raw,file.filename=a.raw",
        "driver=file,filename=a.raw",
        "driver=raw,offset=511,file.filename=a.raw",
        "driver=raw,offset=512,size=1k,file.filename=a.raw",
        "driver=raw,size=1000,file.filename=a.raw",
        "driver=raw,offset=2M,file.filename=a.raw",
        "driver=raw,size=2M,file.filename=a.raw",
        "driver=raw,offset=x,file.filename=a.raw",
        "a.raw",
        "foo=bar",
        "",
        ",",
        "driver=raw",
        "driver=raw,file=a.raw",
        "file=a.raw",
        "filename=a.raw",
        "driver=bogus,file.filename=a.raw",
        "driver=raw,file.driver=bogus,file.filename=a.raw",
        "driver=raw,file.driver=file,file.filename=a.raw,file.bogus=1",
        "driver=raw,bogus=1,file.filename=a.raw",
        "driver=raw,file.filename=a.raw,file=foo",
        "driver=raw,file.driver=raw,file.file.filename=a.raw",
        "driver=raw,file.filename=a.raw,read-only=on",
        "driver=raw,file.filename=a.raw,cache.direct=x",
        "driver=raw,file.filename=a.raw,cache.x=on",
        "driver=raw,file.filename=a.raw,read-only=x",
        "driver=raw,file.filename=a.raw,discard=x",
        "driver=raw,file.filename=a.raw,detect-zeroes=x",
        "driver=raw,file.filename=a.raw,node-name=1x",
        "driver=raw,file.filename=a.raw,node-name=foo,discard=unmap,detect-zeroes=on",
        "driver=raw,file.filename=a.raw,file.locking=off",
        "driver=raw,file.filename=a.raw,file.locking=x",
        "driver=raw,file.filename=a,,b",
        "driver=null-co,size=1M",
        "driver=raw,file.driver=null-co,file.size=1M",
        "driver=file",
        "driver=file,filename=",
        "driver=raw,file.0=x",
        "file.filename=a.raw,offset=512",
        "driver=host_device,filename=a.raw",
        "driver,file.filename=a.raw",
        "file.filename=./a.raw",
        "driver=raw,file.filename=a.raw,data-file.filename=a.raw",
    ] {
        same(opts, None, true);
    }
    // Ours shows a name that can be used again: without "./" these would be protocols.
    for name in ["file:a.raw", "foo:a.raw"] {
        let opts = format!("file.filename={name}");
        let open = |name: &str| format!("Could not open '{name}': ");
        let expected = theirs(&opts, None, true).replace(&open(name), &open(&format!("./{name}")));
        assert_eq!(ours(&opts, None, true), expected, "{opts}");
    }
}

#[test]
fn what_fails_below_a_data_file_is_told_by_its_name() {
    let root = dir().root();
    dir().qemu_img_ok(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "data_file=told.data,preallocation=metadata",
        "told.qcow2",
        "1M",
    ]);
    let rule = "[inject-error]\nevent = \"none\"\nerrno = \"5\"\nonce = \"off\"\nsector = \"8\"\n";
    std::fs::write(root.join("told.rules"), rule).expect("the rules are written");
    let tree = "driver=qcow2,file.filename=told.qcow2,data-file.driver=blkdebug,\
                data-file.config=told.rules,data-file.image.driver=file,data-file.image.filename=told.data";
    let options = OpenOptions {
        writable: true,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let location = Location::from_image_opts(tree).expect("a tree of nodes");
    let image = Image::open(&location, &options).expect("the image opens");
    let read = image.read_at(&mut [0; 512], 4096).expect_err("a read");
    let written = image.write_at(&[1; 512], 4096).expect_err("a write");
    for error in [read, written] {
        assert_eq!(error.file(), Some("told.data".into()), "{error}");
    }
}
