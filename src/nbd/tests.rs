use bstr::{BString, ByteSlice};
use proptest::prelude::*;

use super::chunk::*;
use super::export::*;
use super::flags::*;
use super::greeting::*;
use super::limits::*;
use super::meta::*;
use super::option::*;
use super::reply::*;
use super::request::*;
use super::*;

fn name() -> impl Strategy<Value = BString> {
    prop::collection::vec(1..=255u8, 0..50).prop_map(BString::from)
}

proptest! {
    #[test]
    fn requests_come_back_as_they_were_sent(
        flags: u16, command: u16, cookie: u64, offset: u64, len: u64,
    ) {
        let request = Request {
            flags: CommandFlags::from_bits_retain(flags),
            command: Command(command),
            cookie,
            offset,
            len,
        };
        prop_assert_eq!(Request::from_extended(&request.to_extended()).unwrap(), request);
        let short = Request { len: len >> 32, ..request };
        let bytes = short.to_compact().unwrap();
        prop_assert_eq!(Request::from_compact(&bytes).unwrap(), short);
        prop_assert_eq!(request.to_compact().is_some(), u32::try_from(len).is_ok());
    }

    #[test]
    fn replies_come_back_as_they_were_sent(
        error: u32, cookie: u64, flags: u16, kind: u16, len: u32, offset: u64,
    ) {
        let simple = SimpleReply { error, cookie };
        let bytes = simple.to_bytes();
        for headers in [Headers::Simple, Headers::Structured] {
            prop_assert_eq!(Reply::rest_len(headers, &bytes).unwrap(), 0);
        }
        prop_assert!(Reply::rest_len(Headers::Extended, &bytes).is_err());
        prop_assert_eq!(Reply::from_bytes(&bytes).unwrap(), Reply::Simple(simple));

        let chunk = Chunk {
            flags: ChunkFlags::from_bits_retain(flags),
            kind: ChunkType(kind),
            cookie,
            len: u64::from(len),
        };
        let bytes = chunk.to_compact().unwrap();
        let first = &bytes[..Headers::Structured.first_len()];
        let rest = Reply::rest_len(Headers::Structured, first).unwrap();
        prop_assert_eq!(first.len() + rest, bytes.len());
        prop_assert!(Reply::rest_len(Headers::Simple, first).is_err());
        prop_assert_eq!(Reply::from_bytes(&bytes).unwrap(), Reply::Chunk(chunk));

        let long = Chunk { len: offset, ..chunk };
        let bytes = long.to_extended(offset);
        prop_assert_eq!(Reply::rest_len(Headers::Extended, &bytes).unwrap(), 0);
        prop_assert_eq!(Reply::from_bytes(&bytes).unwrap(), Reply::Chunk(long));
    }

    #[test]
    fn options_and_what_they_hold_come_back_as_they_were_sent(
        code: u32, reply: u32, len: u32, name in name(), more in name(),
        numbers in prop::collection::vec(any::<u16>(), 0..20),
    ) {
        let header = OptionHeader { option: OptionCode(code), len };
        prop_assert_eq!(OptionHeader::from_bytes(&header.to_bytes()).unwrap(), header);
        let header = OptionReply { option: OptionCode(code), code: ReplyCode(reply), len };
        prop_assert_eq!(OptionReply::from_bytes(&header.to_bytes()).unwrap(), header);

        let wanted = numbers.iter().copied().map(InfoCode).collect();
        let request = InfoRequest { name: name.clone(), wanted };
        prop_assert_eq!(InfoRequest::from_bytes(&request.to_bytes()).unwrap(), request);
        let listed = Listed { name: name.clone(), description: more.clone() };
        prop_assert_eq!(Listed::from_bytes(&listed.to_bytes()).unwrap(), listed);
        let query = MetaQuery {
            export: name.clone(),
            queries: vec![more.clone(); numbers.len()],
        };
        prop_assert_eq!(MetaQuery::from_bytes(&query.to_bytes()).unwrap(), query);
        let context = MetaContext { id: code, name: more.clone() };
        prop_assert_eq!(MetaContext::from_bytes(&context.to_bytes()).unwrap(), context);
        let flags = TransmissionFlags::from_bits_retain(numbers.len() as u16);
        for info in [
            Info::Export { size: u64::from(len), flags },
            Info::Name(name),
            Info::Description(more),
            Info::Other(InfoCode(77)),
        ] {
            prop_assert_eq!(Info::from_bytes(&info.to_bytes()).unwrap(), info);
        }
    }

    #[test]
    fn payloads_of_chunks_come_back_as_they_were_sent(
        offset: u64, len in 1..=u32::MAX, id: u32, message in name(), at in any::<Option<u64>>(),
        extents in prop::collection::vec((1..=u32::MAX, any::<u32>()), 1..20),
    ) {
        let hole = OffsetHole { offset, len };
        prop_assert_eq!(OffsetHole::from_bytes(&hole.to_bytes()).unwrap(), hole);
        let data = OffsetData { offset };
        prop_assert_eq!(OffsetData::from_bytes(data.to_bytes()), data);
        let error = ErrorChunk { error: len, message, offset: at };
        let bytes = error.to_bytes();
        prop_assert_eq!(ErrorChunk::from_bytes(&bytes, at.is_some()).unwrap(), error);

        let extents: Vec<_> = extents
            .into_iter()
            .map(|(len, flags)| StatusExtent { len: len.into(), flags: flags.into() })
            .collect();
        let head = StatusHead { context: id, count: extents.len() as u32 };
        let mut short = head.to_compact().to_vec();
        let mut long = head.to_extended().to_vec();
        for extent in &extents {
            short.extend(extent.to_compact().unwrap());
            long.extend(extent.to_extended());
        }
        for (bytes, extended) in [(&short, false), (&long, true)] {
            let (context, found) = status_from_bytes(bytes, extended).unwrap();
            prop_assert_eq!(context, id);
            prop_assert_eq!(found.collect::<Vec<_>>(), extents.clone());
            let cut = &bytes[..bytes.len() - 1];
            prop_assert!(status_from_bytes(cut, extended).is_err());
        }
        let payload = StatusPayload { len: offset, contexts: vec![id; extents.len()] };
        prop_assert_eq!(StatusPayload::from_bytes(&payload.to_bytes()).unwrap(), payload);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = InfoRequest::from_bytes(&bytes);
        let _ = Info::from_bytes(&bytes);
        let _ = Listed::from_bytes(&bytes);
        let _ = MetaQuery::from_bytes(&bytes);
        let _ = MetaContext::from_bytes(&bytes);
        let _ = StatusPayload::from_bytes(&bytes);
        let _ = Reply::from_bytes(&bytes);
        let _ = Query::parse(bytes.as_bstr());
        for flag in [false, true] {
            let _ = ErrorChunk::from_bytes(&bytes, flag);
            let _ = status_from_bytes(&bytes, flag).map(|(_, extents)| extents.count());
        }
        for headers in [Headers::Simple, Headers::Structured, Headers::Extended] {
            let _ = Reply::rest_len(headers, &bytes);
        }
    }
}

#[test]
fn a_greeting_tells_the_style_or_that_it_is_no_server() {
    for style in [Style::New, Style::Old] {
        assert_eq!(Style::from_bytes(&style.to_bytes()).unwrap(), style);
    }
    assert_eq!(Style::New.to_bytes(), *b"NBDMAGICIHAVEOPT");
    let error = Style::from_bytes(b"HTTP/1.1 400 Bad").unwrap_err();
    assert_eq!(error.errno(), libc::EPROTO);
    assert!(Style::from_bytes(b"NBDMAGIC________").is_err());
    let flags = TransmissionFlags::HAS_FLAGS | TransmissionFlags::READ_ONLY;
    let old = OldstyleExport {
        size: 5 << 40,
        flags,
    };
    assert_eq!(OldstyleExport::from_bytes(&old.to_bytes()), old);
    let new = NewstyleExport {
        size: 5 << 40,
        flags,
    };
    assert_eq!(NewstyleExport::from_bytes(&new.to_bytes()), new);
}

#[test]
fn a_request_stands_on_the_wire_as_the_specification_says() {
    let request = Request {
        flags: CommandFlags::FUA,
        command: Command::WRITE,
        cookie: 0x0102_0304_0506_0708,
        offset: 0x1000,
        len: 0x200,
    };
    let bytes = request.to_compact().unwrap();
    assert_eq!(
        bytes.as_slice(),
        b"\x25\x60\x95\x13\0\x01\0\x01\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\0\0\0\x10\0\0\0\x02\0"
    );
}

#[test]
fn strings_that_the_protocol_does_not_have_are_refused() {
    assert!(is_string(&[b'x'; MAX_STRING]));
    for bad in [&[b'x'; MAX_STRING + 1][..], b"a\0b"] {
        assert!(!is_string(bad));
        let listed = Listed {
            name: bad.into(),
            description: "".into(),
        };
        assert!(Listed::from_bytes(&listed.to_bytes()).is_err());
        assert!(Info::from_bytes(&Info::Name(bad.into()).to_bytes()).is_err());
    }
    // A name that passes the end of its reply.
    assert!(Listed::from_bytes(b"\0\0\0\x05abcd").is_err());
    assert!(Listed::from_bytes(b"\xff\xff\xff\xffabcd").is_err());
}

#[test]
fn block_sizes_that_cannot_be_are_refused() {
    let sizes = |minimum, preferred, maximum| {
        let sizes = BlockSizes {
            minimum,
            preferred,
            maximum,
        };
        Info::from_bytes(&Info::BlockSizes(sizes).to_bytes())
    };
    for (minimum, preferred, maximum) in [
        (1, 4096, UNLIMITED_BLOCK),
        (512, 512, 512),
        (65536, 1 << 20, 32 << 20),
    ] {
        assert!(sizes(minimum, preferred, maximum).is_ok());
    }
    for (minimum, preferred, maximum) in [
        (0, 4096, 1 << 20),
        (3, 4096, 1 << 20),
        (1 << 17, 1 << 17, 1 << 20),
        (512, 256, 1 << 20),
        (512, 513, 1 << 20),
        (512, 4096, 1000),
        (512, 4096, 0),
    ] {
        assert!(
            sizes(minimum, preferred, maximum).is_err(),
            "{minimum}, {preferred}, {maximum}"
        );
    }
}

#[test]
fn errors_keep_their_meaning_both_ways() {
    for wire in [1, 5, 12, 22, 28, 75, 95, 108] {
        assert_eq!(errno::to_wire(errno::from_wire(wire)), wire);
    }
    assert_eq!(errno::from_wire(9999), libc::EINVAL);
    assert_eq!(errno::to_wire(libc::EROFS), 1);
    assert_eq!(errno::to_wire(libc::EBADF), 5);
    assert_eq!(errno::of_error(&Error::os(libc::ENOSPC)), 28);
}

#[test]
fn queries_for_contexts_are_told_apart() {
    for (text, query) in [
        ("base:allocation", Query::Allocation),
        ("base:", Query::AnyBase),
        ("qemu:allocation-depth", Query::AllocationDepth),
        ("qemu:dirty-bitmap:b0", Query::DirtyBitmap("b0".into())),
        ("qemu:dirty-bitmap:", Query::AnyDirtyBitmap),
        ("qemu:", Query::AnyQemu),
        ("base:allocatio", Query::Other),
        ("", Query::Other),
    ] {
        assert_eq!(Query::parse(text.into()), query);
    }
}
