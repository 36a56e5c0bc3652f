//! Text from images for people: it can neither control a terminal nor hide anything on it.

use std::borrow::Cow;
use std::fmt::Write;
use std::io;
use std::ops::Range;

use bstr::{BString, ByteSlice};

/// Text with its control characters escaped, NUL and newline included, and with those that change the writing direction
/// or have no width. Everything else is unchanged.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if steers(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// As [`printable`], for a name, which need not be UTF-8: invalid bytes are unchanged.
pub fn printable_name(name: &[u8]) -> Cow<'_, [u8]> {
    // Bytes that are not UTF-8 count as a character that controls nothing.
    if !name.chars().any(steers) {
        return Cow::Borrowed(name);
    }
    let mut out = Vec::with_capacity(name.len() + 8);
    for (start, end, c) in name.char_indices() {
        if steers(c) {
            out.extend(c.escape_unicode().map(|c| c as u8));
        } else {
            out.extend_from_slice(name.get(start..end).unwrap_or_default());
        }
    }
    Cow::Owned(out)
}

/// URL schemes whose logins have the form `user%password`.
const PERCENT: [&[u8]; 2] = [b"iscsi", b"iser"];

/// Options whose value is a credential.
const CREDENTIALS: [&str; 2] = ["password", "cookie"];

/// A name without the passwords in URLs, whether it is a URL or contains some, as lists of options do; without access
/// tokens in the query of a URL; without the keys in names in which every part after a colon is `KEY=VALUE`; and
/// without the values of options that are credentials.
pub fn without_passwords(name: &[u8]) -> Cow<'_, [u8]> {
    let mut shown = Cow::Borrowed(name);
    for without in [
        without_logins,
        without_keys,
        without_credentials,
        without_tokens,
    ] {
        if let Cow::Owned(shorter) = without(&shown) {
            shown = Cow::Owned(shorter);
        }
    }
    shown
}

/// As [`without_passwords`], for a name that is kept for reports.
pub fn shown_name(name: &[u8]) -> BString {
    without_passwords(name).into_owned().into()
}

/// Removes the values of [`CREDENTIALS`] from a list of options or from JSON.
fn without_credentials(name: &[u8]) -> Cow<'_, [u8]> {
    let mut cuts = Vec::new();
    for key in CREDENTIALS {
        for at in name.find_iter(key) {
            let before = at.checked_sub(1).and_then(|at| name.get(at));
            let begins = before.is_none_or(|byte| b",.\"'".contains(byte));
            let start = at + key.len();
            let rest = name.get(start..).unwrap_or_default();
            if begins && let Some((skipped, len)) = value_behind(rest) {
                cuts.push(start + skipped..start + skipped + len);
            }
        }
    }
    cut_out(name, cuts)
}

/// Removes some ranges from a name.
fn cut_out(name: &[u8], mut cuts: Vec<Range<usize>>) -> Cow<'_, [u8]> {
    cuts.retain(|cut| !cut.is_empty());
    if cuts.is_empty() {
        return Cow::Borrowed(name);
    }
    cuts.sort_unstable_by_key(|cut| cut.start);
    let mut out = Vec::new();
    let mut kept = 0;
    for cut in cuts {
        out.extend_from_slice(name.get(kept..cut.start).unwrap_or_default());
        kept = cut.end.max(kept);
    }
    out.extend_from_slice(name.get(kept..).unwrap_or_default());
    Cow::Owned(out)
}

/// The start and length of the value after a key: `=VALUE` up to a comma that is not doubled, or `": "VALUE"`.
fn value_behind(rest: &[u8]) -> Option<(usize, usize)> {
    if let Some(value) = rest.strip_prefix(b"=") {
        let mut end = 0;
        while let Some(byte) = value.get(end) {
            match (byte, value.get(end + 1)) {
                (b',', Some(b',')) => end += 2,
                (b',', _) => break,
                _ => end += 1,
            }
        }
        return Some((1, end));
    }
    let colon = rest.strip_prefix(b"\"").or(rest.strip_prefix(b"'"))?;
    let value = colon
        .trim_ascii_start()
        .strip_prefix(b":")?
        .trim_ascii_start();
    let open = value.first().filter(|byte| b"\"'".contains(byte))?;
    let value = value.get(1..)?;
    let mut end = 0;
    while let Some(byte) = value.get(end).filter(|byte| *byte != open) {
        end += if *byte == b'\\' { 2 } else { 1 };
    }
    Some((rest.len() - value.len(), end.min(value.len())))
}

/// Endings of the names of query parameters that grant access to whoever knows them: those of signed URLs of object
/// stores, and of tokens.
const TOKENS: [&[u8]; 9] = [
    b"token",
    b"sig",
    b"signature",
    b"credential",
    b"secret",
    b"password",
    b"passwd",
    b"auth",
    b"key",
];

/// Removes the values of [`TOKENS`] from the queries of URLs.
fn without_tokens(name: &[u8]) -> Cow<'_, [u8]> {
    let mut cuts = Vec::new();
    for at in name.find_iter("://") {
        let url = name.get(at..).unwrap_or_default();
        let end = url.find_byteset("#,\"' ").unwrap_or(url.len());
        let url = url.get(..end).unwrap_or_default();
        let Some(query) = url.find_byte(b'?') else {
            continue;
        };
        let mut start = at + query + 1;
        for part in url.get(query + 1..).unwrap_or_default().split_str("&") {
            let next = start + part.len() + 1;
            if let Some((key, value)) = part.split_once_str("=") {
                let key = key.to_ascii_lowercase();
                if TOKENS.iter().any(|token| key.ends_with(token)) {
                    cuts.push(next - 1 - value.len()..next - 1);
                }
            }
            start = next;
        }
    }
    cut_out(name, cuts)
}

fn without_keys(name: &[u8]) -> Cow<'_, [u8]> {
    const KEY: &[u8] = b":key=";
    let mut out = Vec::new();
    let mut kept = 0;
    for at in name.find_iter(KEY) {
        let start = at + KEY.len();
        if start < kept {
            continue;
        }
        let rest = name.get(start..).unwrap_or_default();
        let mut end = 0;
        while let Some(byte) = rest.get(end) {
            match byte {
                b':' | b',' | b'"' | b'\'' | b' ' => break,
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        let end = end.min(rest.len());
        if end > 0 {
            out.extend_from_slice(name.get(kept..start).unwrap_or_default());
            kept = start + end;
        }
    }
    if kept == 0 {
        return Cow::Borrowed(name);
    }
    out.extend_from_slice(name.get(kept..).unwrap_or_default());
    Cow::Owned(out)
}

fn without_logins(name: &[u8]) -> Cow<'_, [u8]> {
    let mut out = Vec::new();
    let mut kept = 0;
    for at in name.find_iter("://") {
        let start = at + 3;
        let rest = name.get(start..).unwrap_or_default();
        let end = rest.find_byteset("/?#,\"' ").unwrap_or(rest.len());
        let authority = rest.get(..end).unwrap_or_default();
        let Some((login, _)) = authority.rsplit_once_str("@") else {
            continue;
        };
        // Where a password begins: some protocols use the sign with which others encode characters.
        let before = name.get(..at).unwrap_or_default();
        let mark = match PERCENT.iter().any(|scheme| before.ends_with(scheme)) {
            true => "%",
            false => ":",
        };
        let Some((user, _)) = login.split_once_str(mark) else {
            continue;
        };
        out.extend_from_slice(name.get(kept..start + user.len()).unwrap_or_default());
        kept = start + login.len();
    }
    if kept == 0 {
        return Cow::Borrowed(name);
    }
    out.extend_from_slice(name.get(kept..).unwrap_or_default());
    Cow::Owned(out)
}

/// Writes [`printable_name`], which can be long, without building it in memory; returns its length.
///
/// # Errors
/// If the writer fails.
pub fn write_name<W: io::Write + ?Sized>(out: &mut W, name: &[u8]) -> io::Result<usize> {
    let mut plain = 0;
    let mut len = 0;
    for (start, end, c) in name.char_indices().filter(|(_, _, c)| steers(*c)) {
        let before = name.get(plain..start).unwrap_or_default();
        out.write_all(before)?;
        let escaped = c.escape_unicode();
        write!(out, "{escaped}")?;
        len += before.len() + escaped.len();
        plain = end;
    }
    let rest = name.get(plain..).unwrap_or_default();
    out.write_all(rest)?;
    Ok(len + rest.len())
}

/// As [`printable`], for a name in text: each byte that is not UTF-8 is escaped, too.
pub fn printable_bytes(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        out.push_str(&printable(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

fn steers(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c), 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfeff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_left_out() {
        for (name, shown) in [
            ("http://joe:pw@h/x?a=b:c@d", "http://joe@h/x?a=b:c@d"),
            ("ftp://joe:p@w@h", "ftp://joe@h"),
            ("http://:pw@h/", "http://@h/"),
            ("iscsi://joe%ab@cd:e@h/t/1", "iscsi://joe@h/t/1"),
            ("http://j%40e:pw@h/", "http://j%40e@h/"),
            (
                "driver=raw,file.url=http://joe:pw@h/,file.timeout=1,backing.url=https://a:b@c",
                "driver=raw,file.url=http://joe@h/,file.timeout=1,backing.url=https://a@c",
            ),
            (
                "json:{\"url\":\"http://a:b@c\"}",
                "json:{\"url\":\"http://a@c\"}",
            ),
            (
                "rbd:p/i:id=x:key=A\\:Q==:conf=c",
                "rbd:p/i:id=x:key=:conf=c",
            ),
            (
                "driver=raw,file.filename=rbd:p/i:key=AQ==,size=1",
                "driver=raw,file.filename=rbd:p/i:key=,size=1",
            ),
            (
                "driver=iscsi,portal=h,user=joe,password=s3c,,ret,lun=1",
                "driver=iscsi,portal=h,user=joe,password=,lun=1",
            ),
            (
                "driver=raw,file.driver=http,file.cookie=a=b,file.password-secret=id",
                "driver=raw,file.driver=http,file.cookie=,file.password-secret=id",
            ),
            (
                r#"json:{"file": {"password": "s\"x", "user": "joe"}, "file.cookie":'y'}"#,
                r#"json:{"file": {"password": "", "user": "joe"}, "file.cookie":''}"#,
            ),
            (
                "https://h/x?part=1&X-Amz-Signature=0a/b&n=2#sig=a",
                "https://h/x?part=1&X-Amz-Signature=&n=2#sig=a",
            ),
            (
                "driver=http,url=http://h/x?sv=2&sig=a%2B,timeout=1",
                "driver=http,url=http://h/x?sv=2&sig=,timeout=1",
            ),
            (
                r#"json:{"url":"http://h/?access_token=t&u=http://g/?token=s&sig=q","n":1}"#,
                r#"json:{"url":"http://h/?access_token=&u=http://g/?token=&sig=","n":1}"#,
            ),
            ("http://h/?token", "http://h/?token"),
            ("http://h/?a=token&key", "http://h/?a=token&key"),
            ("ssh://h/x?host_key_check=no", "ssh://h/x?host_key_check=no"),
            ("the.password", "the.password"),
            ("http://joe@h/", "http://joe@h/"),
            ("http://h:80/a@b", "http://h:80/a@b"),
            ("a:b@c", "a:b@c"),
        ] {
            assert_eq!(
                without_passwords(name.as_bytes()),
                shown.as_bytes(),
                "{name}"
            );
        }
    }

    #[test]
    fn bytes_of_a_name_that_are_no_utf8_stay() {
        assert_eq!(
            &*printable_name(b"b\xe9d\n\xff\x1b"),
            b"b\xe9d\\u{a}\xff\\u{1b}"
        );
        assert!(matches!(printable_name(b"b\xe9d"), Cow::Borrowed(_)));
        for name in [&b"b\xe9d\n\xff\x1b"[..], b"\0\0x", b"", b"plain"] {
            let mut out = Vec::new();
            let len = write_name(&mut out, name).unwrap();
            assert_eq!((len, &out[..]), (out.len(), &*printable_name(name)));
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_show_in_text() {
        assert_eq!(printable_bytes(b"b\xe9d\n\xff"), "b\\xe9d\\u{a}\\xff");
        assert_eq!(printable_bytes("'é'".as_bytes()), "'é'");
    }

    #[test]
    fn what_steers_a_terminal_is_escaped_and_all_else_is_not() {
        assert_eq!(printable("a\0b\n\u{1b}[2J"), "a\\u{0}b\\u{a}\\u{1b}[2J");
        assert_eq!(printable("x\u{85}\u{202e}y"), "x\\u{85}\\u{202e}y");
        let plain = "plain \\ 'é' \u{1f600} \u{fffd}";
        assert!(matches!(printable(plain), Cow::Borrowed(same) if same == plain));
    }
}
