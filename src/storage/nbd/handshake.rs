//! The handshake: from a fresh stream to an export that takes requests.

use bstr::{BStr, ByteSlice};

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::memory::{self, IoBuf};
use crate::nbd::export::{BlockSizes, Info, InfoCode, InfoRequest};
use crate::nbd::flags::{ClientFlags, HandshakeFlags, TransmissionFlags};
use crate::nbd::greeting::{NewstyleExport, OldstyleExport, PADDING, Style};
use crate::nbd::limits::{MAX_EXPORT, MAX_OPTION};
use crate::nbd::meta::{MetaContext, MetaQuery};
use crate::nbd::option::{OptionCode, OptionHeader, OptionReply, ReplyCode};
use crate::nbd::reply::Headers;
use crate::nbd::violation;
use crate::net::tls::TlsCredentials;
use crate::net::{Stream, Wait};

/// Maximum number of replies to one option.
pub(super) const MAX_REPLIES: usize = 1000;

/// The export as negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Export {
    /// The size in bytes.
    pub(super) size: u64,
    /// Its capabilities.
    pub(super) flags: TransmissionFlags,
    /// The block sizes, if the server sent them.
    pub(super) sizes: Option<BlockSizes>,
    /// The header format of replies.
    pub(super) headers: Headers,
    /// The ID of the metadata context, if the server supports it.
    pub(super) context: Option<u32>,
}

impl Export {
    fn new(size: u64, flags: TransmissionFlags, headers: Headers) -> Result<Self> {
        if size > MAX_EXPORT {
            return Err(violation(format!("The export is too large: {size} bytes")));
        }
        let flags = match flags.contains(TransmissionFlags::HAS_FLAGS) {
            true => flags,
            false => TransmissionFlags::empty(),
        };
        Ok(Self {
            size,
            flags,
            sizes: None,
            headers,
            context: None,
        })
    }
}

/// What to negotiate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// Name of the export.
    pub(super) export: &'a BStr,
    /// Name of the metadata context.
    pub(super) context: &'a BStr,
    /// TLS credentials, if the connection is to be encrypted.
    pub(super) tls: Option<&'a TlsCredentials>,
    /// Host name that the server's certificate must match, if there is one.
    pub(super) tls_host: Option<&'a str>,
}

/// A stream in the option haggling phase.
pub(super) struct Options<'a> {
    pub(super) stream: &'a Stream,
    pub(super) wait: Wait<'a>,
}

/// Negotiates an export with the server.
///
/// # Errors
/// If the server refuses, or the stream or TLS fails.
pub(super) fn negotiate(
    stream: Stream,
    wanted: &Wanted<'_>,
    wait: Wait<'_>,
) -> Result<(Stream, Export)> {
    let (stream, greeted) = begin(stream, wanted.tls, wanted.tls_host, wait)?;
    let export = agree(&stream, greeted, wanted, wait)?;
    Ok((stream, export))
}

/// Exchanges greetings, and starts TLS if there are credentials; there are no flags for an oldstyle server.
///
/// # Errors
/// If the stream or TLS fails, or the server refuses.
pub(super) fn begin(
    stream: Stream,
    tls: Option<&TlsCredentials>,
    tls_host: Option<&str>,
    wait: Wait<'_>,
) -> Result<(Stream, Option<HandshakeFlags>)> {
    let greeted = greet(&stream, wait)?;
    let stream = match tls {
        None => stream,
        Some(credentials) => {
            let fixed = |flags: &HandshakeFlags| flags.contains(HandshakeFlags::FIXED_NEWSTYLE);
            if !greeted.as_ref().is_some_and(fixed) {
                return Err(Error::invalid("Server does not support STARTTLS"));
            }
            let options = Options {
                stream: &stream,
                wait,
            };
            options.start_tls()?;
            stream.with_tls_client(credentials, tls_host, wait)?
        }
    };
    Ok((stream, greeted))
}

fn agree(
    stream: &Stream,
    greeted: Option<HandshakeFlags>,
    wanted: &Wanted<'_>,
    wait: Wait<'_>,
) -> Result<Export> {
    let Some(flags) = greeted else {
        return oldstyle(stream, wanted.export, wait);
    };
    let options = Options { stream, wait };
    let no_zeroes = flags.contains(HandshakeFlags::NO_ZEROES);
    if !flags.contains(HandshakeFlags::FIXED_NEWSTYLE) {
        return options.export_name(wanted, no_zeroes);
    }
    let headers = options.headers()?;
    let context = match headers {
        Headers::Simple => None,
        _ => options.choose_context(wanted)?,
    };
    let agreed = match options.go(wanted, headers)? {
        Some(export) => export,
        None => Export {
            headers,
            ..options.export_name(wanted, no_zeroes)?
        },
    };
    Ok(Export { context, ..agreed })
}

/// Exchanges the initial greetings; None for an oldstyle server.
fn greet(stream: &Stream, wait: Wait<'_>) -> Result<Option<HandshakeFlags>> {
    let mut bytes = [0; Style::LEN];
    stream
        .read_exact(&mut bytes, wait)
        .context(|| "Failed to read initial magic".to_owned())?;
    if Style::from_bytes(&bytes)? == Style::Old {
        return Ok(None);
    }
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes, wait)?;
    let flags = HandshakeFlags::from_bytes(bytes);
    let mut answer = ClientFlags::empty();
    answer.set(
        ClientFlags::FIXED_NEWSTYLE,
        flags.contains(HandshakeFlags::FIXED_NEWSTYLE),
    );
    answer.set(
        ClientFlags::NO_ZEROES,
        flags.contains(HandshakeFlags::NO_ZEROES),
    );
    stream.write_all(&answer.to_bytes(), wait)?;
    Ok(Some(flags))
}

/// The only export of an oldstyle server, which has no name.
///
/// # Errors
/// If the stream fails, or `name` is not empty.
pub(super) fn oldstyle(stream: &Stream, name: &BStr, wait: Wait<'_>) -> Result<Export> {
    if !name.is_empty() {
        return Err(Error::invalid(
            "Server does not support non-empty export names",
        ));
    }
    let mut bytes = [0; OldstyleExport::LEN];
    stream.read_exact(&mut bytes, wait)?;
    stream.read_exact(&mut [0; PADDING], wait)?;
    let export = OldstyleExport::from_bytes(&bytes);
    Export::new(export.size, export.flags, Headers::Simple)
}

impl Options<'_> {
    pub(super) fn send(&self, option: OptionCode, data: &[u8]) -> Result<()> {
        let len = u32::try_from(data.len()).ok();
        let len = len.filter(|len| *len <= MAX_OPTION);
        let len = len.ok_or_else(|| Error::invalid("The names are too long for the server"))?;
        let header = OptionHeader { option, len }.to_bytes();
        self.stream.write_all(&[&header, data].concat(), self.wait)
    }

    /// Receives one reply, with its data.
    pub(super) fn reply(&self, option: OptionCode) -> Result<(ReplyCode, IoBuf)> {
        let mut bytes = [0; OptionReply::LEN];
        let unread = || "Failed to read option reply".to_owned();
        let read = self.stream.read_exact(&mut bytes, self.wait);
        read.context(unread)?;
        let reply = OptionReply::from_bytes(&bytes)?;
        if reply.option != option {
            return Err(violation(format!(
                "Unexpected option type {}, expected {option}",
                reply.option
            )));
        }
        if reply.len > MAX_OPTION {
            return Err(violation(format!(
                "The reply to option {option} is {} bytes long",
                reply.len
            )));
        }
        let mut data = memory::zeroed(reply.len as usize)?;
        let read = self.stream.read_exact(&mut data, self.wait);
        read.context(unread)?;
        Ok((reply.code, data))
    }

    /// Sends an option without data; returns whether the server accepts it.
    fn ask(&self, option: OptionCode) -> Result<bool> {
        self.send(option, &[])?;
        match self.reply(option)? {
            (ReplyCode::ACK, data) if data.is_empty() => Ok(true),
            (code, data) => self.passed_over(option, code, &data).map(|()| false),
        }
    }

    /// Asks the server to start TLS.
    fn start_tls(&self) -> Result<()> {
        const OPTION: OptionCode = OptionCode::STARTTLS;
        self.send(OPTION, &[])?;
        match self.reply(OPTION)? {
            (ReplyCode::ACK, data) if data.is_empty() => Ok(()),
            (code, data) => Err(self.refusal(OPTION, code, &data)),
        }
    }

    /// Ignores the refusal of something optional; what matters is reported again when the export is opened.
    fn passed_over(&self, option: OptionCode, code: ReplyCode, data: &[u8]) -> Result<()> {
        match code.is_error() {
            true => Ok(()),
            false => Err(self.refusal(option, code, data)),
        }
    }

    /// The error for a refusal; aborts the session properly.
    pub(super) fn refusal(&self, option: OptionCode, code: ReplyCode, data: &[u8]) -> Error {
        if !code.is_error() {
            return match (code, data.len()) {
                (ReplyCode::ACK, len @ 1..) => violation(format!(
                    "The reply to option {option} is {len} bytes long (it should be empty)"
                )),
                _ => violation(format!(
                    "Server answered option {option} with unexpected reply {code}"
                )),
            };
        }
        // The refusal is the error to report.
        let _ = self.send(OptionCode::ABORT, &[]);
        refusal(option, code, data.as_bstr())
    }

    /// Negotiates the header format of replies: the best that the server supports.
    pub(super) fn headers(&self) -> Result<Headers> {
        if self.ask(OptionCode::EXTENDED_HEADERS)? {
            return Ok(Headers::Extended);
        }
        Ok(match self.ask(OptionCode::STRUCTURED_REPLY)? {
            true => Headers::Structured,
            false => Headers::Simple,
        })
    }

    /// Selects the metadata context; returns its ID if the server supports it.
    fn choose_context(&self, wanted: &Wanted<'_>) -> Result<Option<u32>> {
        const OPTION: OptionCode = OptionCode::SET_META_CONTEXT;
        let query = MetaQuery {
            export: wanted.export.to_owned(),
            queries: vec![wanted.context.to_owned()],
        };
        self.send(OPTION, &query.to_bytes())?;
        let mut chosen = None;
        for _ in 0..MAX_REPLIES {
            let (code, data) = self.reply(OPTION)?;
            match code {
                ReplyCode::ACK => return Ok(chosen),
                ReplyCode::META_CONTEXT => {
                    let context = MetaContext::from_bytes(&data)?;
                    if context.name != wanted.context || chosen.is_some() {
                        return Err(violation(format!(
                            "Failed to negotiate meta context '{}', server answered with different context '{}'",
                            wanted.context, context.name
                        )));
                    }
                    chosen = Some(context.id);
                }
                code => return self.passed_over(OPTION, code, &data).map(|()| None),
            }
        }
        Err(violation("The server sends metadata contexts without end"))
    }

    /// Opens the export; None if the server does not support the option.
    fn go(&self, wanted: &Wanted<'_>, headers: Headers) -> Result<Option<Export>> {
        const OPTION: OptionCode = OptionCode::GO;
        match self.tell(OPTION, wanted.export, headers)? {
            Ok(export) => Ok(Some(export)),
            Err((ReplyCode::ERR_UNSUP, _)) => Ok(None),
            Err((code, data)) => Err(self.refusal(OPTION, code, &data)),
        }
    }

    /// The description of the export in reply to [`OptionCode::GO`] or [`OptionCode::INFO`], or what the server replies
    /// instead.
    ///
    /// # Errors
    /// If the stream fails, or the server violates the protocol.
    pub(super) fn tell(
        &self,
        option: OptionCode,
        name: &BStr,
        headers: Headers,
    ) -> Result<std::result::Result<Export, (ReplyCode, IoBuf)>> {
        let request = InfoRequest {
            name: name.to_owned(),
            wanted: vec![InfoCode::BLOCK_SIZE],
        };
        self.send(option, &request.to_bytes())?;
        let (mut export, mut sizes) = (None, None);
        for _ in 0..MAX_REPLIES {
            let (code, data) = self.reply(option)?;
            match code {
                ReplyCode::INFO => match Info::from_bytes(&data)? {
                    Info::Export { size, flags } => {
                        export = Some(Export::new(size, flags, headers)?);
                    }
                    Info::BlockSizes(found) => sizes = Some(found),
                    _ => {}
                },
                ReplyCode::ACK => {
                    let export =
                        export.ok_or_else(|| violation("broken server omitted NBD_INFO_EXPORT"))?;
                    return Ok(Ok(Export { sizes, ..export }));
                }
                code => return Ok(Err((code, data))),
            }
        }
        Err(violation("The server describes the export without end"))
    }

    /// Opens the export of a server without [`OptionCode::GO`], which ends the session if the export does not exist.
    fn export_name(&self, wanted: &Wanted<'_>, no_zeroes: bool) -> Result<Export> {
        self.send(OptionCode::EXPORT_NAME, wanted.export)?;
        let mut bytes = [0; NewstyleExport::LEN];
        if !self.stream.read_exact_or_end(&mut bytes, self.wait)? {
            return Err(unavailable());
        }
        if !no_zeroes {
            self.stream.read_exact(&mut [0; PADDING], self.wait)?;
        }
        let export = NewstyleExport::from_bytes(&bytes);
        Export::new(export.size, export.flags, Headers::Simple)
    }
}

fn unavailable() -> Error {
    Error::new(ErrorKind::NotFound, "Requested export not available")
}

/// The error message for a refusal, followed by that of the server.
pub(super) fn refusal(option: OptionCode, code: ReplyCode, message: &BStr) -> Error {
    let error = match code {
        ReplyCode::ERR_UNSUP => Error::unsupported(format!("Unsupported option type {option}")),
        ReplyCode::ERR_POLICY => Error::new(
            ErrorKind::Denied,
            format!("Denied by server for option {option}"),
        ),
        ReplyCode::ERR_INVALID => Error::invalid(format!("Invalid parameters for option {option}")),
        ReplyCode::ERR_PLATFORM => {
            Error::unsupported(format!("Server lacks support for option {option}"))
        }
        ReplyCode::ERR_TLS_REQD => Error::new(
            ErrorKind::Denied,
            format!("TLS negotiation required before option {option}"),
        )
        .with_hint("Did you forget a valid tls-creds?"),
        ReplyCode::ERR_UNKNOWN => unavailable(),
        ReplyCode::ERR_SHUTDOWN => Error::new(
            ErrorKind::Os,
            format!("Server shutting down before option {option}"),
        )
        .with_errno(libc::ESHUTDOWN),
        ReplyCode::ERR_BLOCK_SIZE_REQD => Error::unsupported(format!(
            "Server requires INFO_BLOCK_SIZE for option {option}"
        )),
        _ => Error::new(
            ErrorKind::Os,
            format!("Unknown error code when asking for option {option}"),
        ),
    };
    match message.is_empty() {
        true => error,
        false => error.with_hint(format!(
            "server reported: {}",
            crate::printable::printable(&message.to_str_lossy())
        )),
    }
}
