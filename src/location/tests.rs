//! Tests of the names of images.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::json;

use super::*;

fn tree_of(location: &Location) -> Value {
    match location.node() {
        Node::Tree(tree) => Value::Object(tree.clone()),
        node => panic!("no tree: {node:?}"),
    }
}

fn opts(text: &str) -> Value {
    tree_of(&Location::from_image_opts(text).unwrap())
}

#[test]
fn plain_names_and_protocols() {
    for (text, path) in [
        ("a.raw", "a.raw"),
        ("./a:b", "./a:b"),
        ("x/a:b", "x/a:b"),
        ("", ""),
        ("file:a%2e", "a%2e"),
        ("file:///x", "///x"),
        ("file:", ""),
        ("file:a:b", "./a:b"),
        ("file:x/a:b", "x/a:b"),
        ("file:file:a", "./file:a"),
        ("/abs", "/abs"),
    ] {
        let location = Location::parse(text).unwrap();
        assert_eq!(location.node(), &Node::Path(path.into()), "{text}");
        assert_eq!(location.display(), text);
    }
    for (text, name) in [
        ("foo:x", "foo"),
        (":x", ""),
        ("a b:x", "a b"),
        ("FILE:x", "FILE"),
        ("nbd://h/x", "nbd"),
        ("é:x", "é"),
    ] {
        let location = Location::parse(text).unwrap();
        let Node::Uri { protocol, uri } = location.node() else {
            panic!("{text}: {location:?}");
        };
        assert_eq!((protocol.as_str(), uri), (name, &BString::from(text)));
    }
}

#[test]
fn names_are_bytes() {
    let name = OsStr::from_bytes(b"\xff\xfe.raw");
    let location = Location::parse(name).unwrap();
    assert_eq!(location.path(), Some(Path::new(name)));
    assert_eq!(location.text(), name);
    let resolved = resolve_name(OsStr::from_bytes(b"d\xff/o"), name);
    assert_eq!(resolved.as_bytes(), b"d\xff/\xff\xfe.raw");
    let opts = OsStr::from_bytes(b"driver=raw,file.filename=b\xe9d,offset=0");
    let Node::Tree(tree) = Location::from_image_opts(opts).unwrap().node else {
        panic!("no tree");
    };
    let file = &tree["file"];
    assert_eq!(
        file.get("filename").and_then(Value::as_name),
        Some(b"b\xe9d".as_bstr())
    );
    assert_eq!(
        json_name(&tree),
        r#"json:{"driver": "raw", "file": {"filename": "b\uFFFDd"}, "offset": "0"}"#
    );
}

#[test]
fn a_plain_name_with_a_colon_stays_a_file_name() {
    for (name, plain) in [("a:b", "./a:b"), ("d/a:b", "d/a:b"), ("", ""), ("a", "a")] {
        let location = Location::from_path(name);
        assert_eq!(location.text(), plain);
        assert_eq!(
            Location::parse(location.text()).unwrap().node(),
            location.node()
        );
    }
}

#[test]
fn json_names_become_trees() {
    let location = Location::parse("json:{'driver':'raw','file.filename':'a'}").unwrap();
    assert_eq!(
        tree_of(&location),
        json!({"driver": "raw", "file": {"filename": "a"}}).into()
    );
    let merged = Location::parse(
        "json:{'file.filename':'a','file':{'filename':'b','driver':'file'},'l':[1,{'x':2}]}",
    );
    assert_eq!(
        tree_of(&merged.unwrap()),
        json!({"file": {"filename": "b", "driver": "file"}, "l": {"0": 1, "1": {"x": 2}}}).into()
    );
    for (text, message) in [
        (
            "json:{",
            "Could not open 'json:{': Could not parse the JSON options: JSON parse error, premature EOI",
        ),
        (
            "json:[]",
            "Could not open 'json:[]': Invalid JSON object given",
        ),
        (
            "json:",
            "Could not open 'json:': Could not parse the JSON options: Expecting a JSON value",
        ),
        (
            "json:{'file':'x','file.filename':'a'}",
            "Could not open 'json:{'file':'x','file.filename':'a'}': Cannot reference an existing \
             block device with additional options or a new filename",
        ),
    ] {
        assert_eq!(Location::parse(text).unwrap_err().to_string(), message);
    }
    assert!(matches!(
        Location::for_target("json:{}").node(),
        Node::Uri { protocol, .. } if protocol == "json"
    ));
}

#[test]
fn image_opts_become_trees() {
    assert_eq!(
        opts("driver=qcow2,file.driver=file,file.filename=a,,b,lazy-refcounts"),
        json!({
            "driver": "qcow2",
            "file": {"driver": "file", "filename": "a,b"},
            "lazy-refcounts": "on",
        })
        .into()
    );
    assert_eq!(opts("a.raw"), json!({"file": "a.raw"}).into());
    assert_eq!(opts(""), json!({}).into());
    assert_eq!(
        opts("file.filename=x,file.filename=y"),
        json!({"file": {"filename": "y"}}).into()
    );
    assert!(Location::from_image_opts("driver,file.filename=a").is_err());
}

#[test]
fn deep_keys_are_refused_not_followed() {
    let deep = format!("{}=1", vec!["a"; 200_000].join("."));
    assert!(Location::from_image_opts(&deep).is_err());
    let json = format!("json:{{'{}':1}}", vec!["a"; 200_000].join("."));
    assert!(Location::parse(&json).is_err());
}

#[test]
fn names_in_images_are_relative_to_them() {
    for (overlay, name, full) in [
        ("sub/o", "a.raw", "sub/a.raw"),
        ("./sub/o", "../a.raw", "./sub/../a.raw"),
        ("o", "a.raw", "a.raw"),
        ("./o", "a.raw", "./a.raw"),
        ("/d/o", "/x/a", "/x/a"),
        ("sub/o", "file:a", "file:a"),
        ("sub/o", "nbd://h/x", "nbd://h/x"),
        ("sub/o", "./a:b", "sub/./a:b"),
        ("nbd://h/x", "y", "nbd://h/y"),
        ("foo:o", "y", "foo:y"),
        ("sub/o", "", ""),
    ] {
        assert_eq!(
            resolve_name(overlay.as_ref(), name.as_ref()),
            full,
            "{overlay} {name}"
        );
    }
    assert_eq!(
        resolve_plain_name("sub/o".as_ref(), "a:b".as_ref()),
        "sub/a:b"
    );
}

#[test]
fn trees_are_printed_on_one_line() {
    let location = Location::parse("json:{'offset':512,'driver':'raw','file':{'filename':'a\"b'}}");
    let location = location.unwrap();
    let Node::Tree(tree) = location.node() else {
        panic!()
    };
    assert_eq!(
        json_name(tree),
        r#"json:{"offset": 512, "driver": "raw", "file": {"filename": "a\"b"}}"#
    );
}

proptest::proptest! {
    #[test]
    fn no_name_panics(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60),
                      json in "json:[{}'\":.,a-c0-9\\[\\]]{0,40}", opts in "[a-c.,=no]{0,40}") {
        let name = OsStr::from_bytes(&text);
        let _ = Location::parse(name);
        let _ = resolve_name(name, name);
        let _ = Location::parse(&json);
        let _ = Location::from_image_opts(&opts);
    }
}
