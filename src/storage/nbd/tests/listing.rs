//! Lists of a server's exports.

use super::*;

/// The replies of a server to an option with its data.
type Replies = fn(OptionCode, &[u8]) -> Vec<(ReplyCode, Vec<u8>)>;

/// The list that results from these replies.
fn listed(replies: Replies) -> Result<Vec<ExportInfo>> {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("s")).unwrap();
    let server = std::thread::spawn(move || {
        let mut peer = Peer(listener.accept().unwrap().0);
        let flags = HandshakeFlags::FIXED_NEWSTYLE | HandshakeFlags::NO_ZEROES;
        peer.send(&[&Style::New.to_bytes(), &flags.to_bytes()]);
        peer.read::<4>()?;
        loop {
            let header = OptionHeader::from_bytes(&peer.read()?).unwrap();
            let mut data = vec![0; header.len as usize];
            peer.0.read_exact(&mut data).ok()?;
            if header.option == OptionCode::ABORT {
                return Some(());
            }
            for (code, data) in replies(header.option, &data) {
                let reply = OptionReply {
                    option: header.option,
                    code,
                    len: data.len() as u32,
                };
                peer.send(&[&reply.to_bytes(), &data]);
            }
        }
    });
    let list = format!("path={}/s", dir.path().display());
    let values = Values::check(&Options::parse(&list)?, OPTIONS)?;
    let found = pool::list(
        &Settings::of(&values, &Objects::new())?,
        &JobControl::default(),
    );
    server.join().unwrap();
    found
}

fn server_reply(name: &[u8], description: &[u8]) -> (ReplyCode, Vec<u8>) {
    let listed = Listed {
        name: name.into(),
        description: description.into(),
    };
    (ReplyCode::SERVER, listed.to_bytes())
}

const ACK: (ReplyCode, Vec<u8>) = (ReplyCode::ACK, Vec::new());

#[test]
fn a_list_has_what_the_server_tells_of_each_export() {
    let exports = listed(|option, data| match option {
        OptionCode::STRUCTURED_REPLY => vec![ACK],
        OptionCode::LIST => vec![
            server_reply(b"a\xff", b"not \xfe UTF-8"),
            server_reply(b"gone", b""),
            ACK,
        ],
        OptionCode::INFO if data[4..].starts_with(b"gone") => {
            vec![(ReplyCode::ERR_UNKNOWN, b"it \x1b went".to_vec())]
        }
        OptionCode::INFO => {
            let info = Info::Export {
                size: SIZE,
                flags: TransmissionFlags::HAS_FLAGS | TransmissionFlags::READ_ONLY,
            };
            vec![(ReplyCode::INFO, info.to_bytes()), ACK]
        }
        OptionCode::LIST_META_CONTEXT => {
            let context = MetaContext {
                id: 0,
                name: ALLOCATION.into(),
            };
            vec![(ReplyCode::META_CONTEXT, context.to_bytes()), ACK]
        }
        _ => vec![(ReplyCode::ERR_UNSUP, Vec::new())],
    });
    let exports = exports.unwrap();
    let [first, gone] = &exports[..] else {
        panic!("{exports:?}");
    };
    assert_eq!(first.name, BString::from(b"a\xff"));
    assert_eq!(first.description, BString::from(b"not \xfe UTF-8"));
    let details = first.details.as_ref().unwrap();
    assert_eq!(
        (details.size, details.flags, details.read_only),
        (SIZE, 3, true)
    );
    assert_eq!(details.abilities, ["readonly"]);
    assert_eq!((first.length_bits, details.blocks), (32, None));
    assert_eq!(first.contexts, [ALLOCATION]);
    assert_eq!(
        gone.refusal.as_deref(),
        Some("Requested export not available: server reported: it \\u{1b} went")
    );
    assert!(gone.details.is_none() && gone.contexts.is_empty());
}

#[test]
fn a_server_that_cannot_describe_exports_still_lists_them() {
    let exports = listed(|option, _| match option {
        OptionCode::LIST => vec![server_reply(b"a", b""), server_reply(b"b", b""), ACK],
        _ => vec![(ReplyCode::ERR_UNSUP, Vec::new())],
    });
    let names: Vec<_> = exports.unwrap().into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn hostile_lists_are_refused_in_one_line() {
    let cases: [(Replies, ErrorKind, &str); 8] = [
        (
            |_, _| vec![(ReplyCode::ERR_POLICY, b"no".to_vec())],
            ErrorKind::Denied,
            "Denied by server for option 3 (list)",
        ),
        (
            |_, _| vec![(ReplyCode::ERR_UNSUP, Vec::new())],
            ErrorKind::Unsupported,
            "Unsupported option type 3 (list)",
        ),
        (
            |option, _| match option {
                OptionCode::LIST => (0..17_000).map(|_| server_reply(b"a", b"")).collect(),
                _ => vec![(ReplyCode::ERR_UNSUP, Vec::new())],
            },
            ErrorKind::Limit,
            "more than 16384 exports",
        ),
        (
            |option, _| match option {
                OptionCode::LIST => (0..3000)
                    .map(|_| server_reply(&[b'n'; 4096], &[b'd'; 4096]))
                    .collect(),
                _ => vec![(ReplyCode::ERR_UNSUP, Vec::new())],
            },
            ErrorKind::Limit,
            "longer than 16777216 bytes",
        ),
        (
            |option, _| match option {
                OptionCode::LIST => vec![server_reply(&[b'n'; 4097], b"")],
                _ => vec![(ReplyCode::ERR_UNSUP, Vec::new())],
            },
            ErrorKind::Os,
            "is 4097 bytes long",
        ),
        (
            |option, _| match option {
                OptionCode::LIST => vec![(ReplyCode::SERVER, vec![0, 0, 1, 0, b'a'])],
                _ => vec![(ReplyCode::ERR_UNSUP, Vec::new())],
            },
            ErrorKind::Os,
            "passes its reply",
        ),
        (
            |option, _| match option {
                OptionCode::LIST => vec![(ReplyCode::ACK, vec![0])],
                _ => vec![(ReplyCode::ERR_UNSUP, Vec::new())],
            },
            ErrorKind::Os,
            "it should be empty",
        ),
        (
            |option, _| match option {
                OptionCode::STRUCTURED_REPLY => vec![ACK],
                OptionCode::LIST => vec![server_reply(b"a", b""), ACK],
                OptionCode::LIST_META_CONTEXT => {
                    let context = MetaContext {
                        id: 0,
                        name: "x:y".into(),
                    };
                    vec![(ReplyCode::META_CONTEXT, context.to_bytes()); 1001]
                }
                _ => vec![(ReplyCode::ERR_UNSUP, Vec::new())],
            },
            ErrorKind::Os,
            "contexts without end",
        ),
    ];
    for (replies, kind, says) in cases {
        let error = listed(replies).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}
