//! Lists of options, and values checked against their tables.

use super::*;

fn parsed(list: &str) -> Vec<(String, String)> {
    let options = Options::parse(list).unwrap();
    options
        .iter()
        .map(|(k, v)| (k.to_owned(), v.to_string()))
        .collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

#[test]
fn lists_with_flags_and_doubled_commas() {
    assert_eq!(
        parsed("a=1,b,noc,d=x,,y,,,e=,f="),
        pairs(&[
            ("a", "1"),
            ("b", "on"),
            ("c", "off"),
            ("d", "x,y,"),
            ("e", ""),
            ("f", "")
        ])
    );
    assert_eq!(parsed("a=1,a=2"), pairs(&[("a", "2")]));
    // Keys have no commas: a doubled one is an empty key between two flags.
    assert_eq!(parsed("a,,=b"), pairs(&[("a", "on"), ("", "b")]));
    assert_eq!(
        parsed("a,,,b"),
        pairs(&[("a", "on"), ("", "on"), ("b", "on")])
    );
    assert_eq!(parsed("no"), pairs(&[("", "off")]));
    assert_eq!(parsed("a=b=c"), pairs(&[("a", "b=c")]));
    for bad in ["", ",", "a,", ",a", "a=1,,,"] {
        assert_eq!(
            Options::parse(bad).unwrap_err().to_string(),
            format!("Invalid option list: {bad}")
        );
    }
}

#[test]
fn later_lists_add_to_earlier_ones() {
    let mut options = Options::parse("a=1,b=2").unwrap();
    options.parse_into("b=3").unwrap();
    assert_eq!(options.get("b"), Some(BStr::new("3")));
    assert_eq!(options.get("a"), Some(BStr::new("1")));
}

#[test]
fn help_is_asked_for_by_a_whole_element() {
    for list in ["help", "?", "a=b,help", "help,x"] {
        assert!(asks_for_help(list).unwrap(), "{list}");
    }
    for list in ["help=on", "nohelp", "helpx", "a=b,,help"] {
        assert!(!asks_for_help(list).unwrap(), "{list}");
    }
    assert!(asks_for_help(",help").is_err());
}

#[test]
fn names_are_bytes_and_words_are_not() {
    let options = Options::parse(b"data_file=b\xe9,,d,compat=\xff").unwrap();
    assert_eq!(options.get("data_file"), Some(BStr::new(b"b\xe9,d")));
    let file = option("data_file", OptionKind::Name, "Name of a file");
    let value = parse_value(&file, options.get("data_file").unwrap()).unwrap();
    assert_eq!(value, OptionValue::Name(b"b\xe9,d".into()));
    for kind in [
        OptionKind::Str,
        OptionKind::Num,
        OptionKind::Size,
        OptionKind::Bool,
    ] {
        assert!(parse_value(&option("compat", kind, ""), BStr::new(b"\xff")).is_err());
    }
    assert_eq!(double_commas(b"\xe9,x"), b"\xe9,,x".as_bstr());
}

const TABLE: &[OptionSpec] = &[
    option("data_file_raw", OptionKind::Bool, "Stays raw"),
    option("refcount_bits", OptionKind::Num, "Width"),
    option("size", OptionKind::Size, "Virtual disk size"),
];

#[test]
fn values_are_checked_by_type() {
    let check = |list| Values::check(&Options::parse(list).unwrap(), TABLE);
    let values = check("size=1.5k,refcount_bits=0x10,data_file_raw").unwrap();
    assert_eq!(values.num("size"), Some(1536));
    assert_eq!(values.num("refcount_bits"), Some(16));
    assert_eq!(values.bool("data_file_raw"), Some(true));
    for (list, message) in [
        (
            "size=x",
            "Parameter 'size' expects a non-negative number below 2^64",
        ),
        (
            "size=16E",
            "Value '16E' is out of range for parameter 'size'",
        ),
        (
            "refcount_bits=16k",
            "Parameter 'refcount_bits' expects a number",
        ),
        (
            "refcount_bits=18446744073709551616",
            "Value '18446744073709551616' is too large for parameter 'refcount_bits'",
        ),
        (
            "data_file_raw=1",
            "Parameter 'data_file_raw' expects 'on' or 'off'",
        ),
        ("bogus", "Invalid parameter 'bogus'"),
    ] {
        assert_eq!(check(list).unwrap_err().to_string(), message);
    }
    assert_eq!(
        check("bogus").unwrap_err().hints(),
        ["Valid parameters: data_file_raw, refcount_bits, size"]
    );
}

#[test]
fn an_option_of_a_list_is_matched_at_every_place() {
    let host = option("server.*.host", OptionKind::Str, "");
    for key in ["server.0.host", "server.17.host"] {
        assert!(host.matches(key), "{key}");
    }
    for key in [
        "server.host",
        "server.*.host",
        "server.01.host",
        "server.+1.host",
        "server.-1.host",
        "server.0.host.x",
        "server.0",
        "server..host",
    ] {
        assert!(!host.matches(key), "{key}");
    }
}

#[test]
fn lists_come_in_order_and_without_gaps() {
    let table = [
        option("server.*.host", OptionKind::Str, ""),
        option("server.*.port", OptionKind::Num, ""),
        option("server.type", OptionKind::Str, ""),
    ];
    let check = |list| Values::check(&Options::parse(list).unwrap(), &table);
    let values = check("server.1.host=b,server.0.host=a,server.0.port=7,server.type=x").unwrap();
    let servers = values.list("server").unwrap();
    let hosts: Vec<_> = servers.iter().map(|server| server.str("host")).collect();
    assert_eq!(hosts, [Some("a"), Some("b")]);
    assert_eq!(servers[0].num("port"), Some(7));
    assert_eq!(values.list("serve").unwrap().len(), 0);
    let gap = check("server.0.host=a,server.2.host=c").unwrap();
    let text = gap.list("server").unwrap_err().to_string();
    assert_eq!(text, "Parameter 'server.1' missing");
    let text = check("server.3.port=x").unwrap_err().to_string();
    assert_eq!(text, "Parameter 'port' expects a number");
}

#[test]
fn help_lines_stand_in_columns_and_overflow() {
    let more = [option("backing_fmt", OptionKind::Str, "Image format")];
    assert_eq!(
        help_table(&[TABLE, &more, TABLE], &[]),
        "  backing_fmt=<str>      - Image format\n\
         \x20 data_file_raw=<bool (on/off)> - Stays raw\n\
         \x20 refcount_bits=<num>    - Width\n\
         \x20 size=<size>            - Virtual disk size\n"
    );
}

proptest::proptest! {
    #[test]
    fn no_list_panics(list in "[a-c=,no?]{0,40}", any in ".*") {
        for list in [&list, &any] {
            let _ = (Options::parse(list), asks_for_help(list));
        }
    }

    #[test]
    fn any_value_survives_doubling(value in ".+", more in "[a-z]*") {
        let list = format!("k={},m={more}", double_commas(&value));
        let options = Options::parse(&list);
        if let Ok(options) = options {
            proptest::prop_assert_eq!(options.get("k"), Some(value.as_bytes().as_bstr()));
            proptest::prop_assert_eq!(options.get("m"), Some(more.as_bytes().as_bstr()));
        }
    }
}
