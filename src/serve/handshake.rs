//! The handshake before the first request: which export, and how ("Newstyle negotiation" of the specification).

use std::sync::Arc;
use std::time::Instant;

use bstr::{BStr, BString};

use crate::error::{Error, ErrorKind, Result};
use crate::nbd::export::{BlockSizes, Info, InfoCode, InfoRequest, Listed};
use crate::nbd::flags::{ClientFlags, HandshakeFlags, TransmissionFlags};
use crate::nbd::greeting::{NewstyleExport, PADDING, Style};
use crate::nbd::limits::{MAX_OPTION, MAX_STRING, PORTABLE_PAYLOAD};
use crate::nbd::meta::{MetaContext, MetaQuery};
use crate::nbd::option::{OptionCode, OptionHeader, OptionReply, ReplyCode};
use crate::nbd::reply::Headers;
use crate::nbd::violation;
use crate::net::{Stream, Wait};
use crate::serve::export::Export;
use crate::serve::input::Input;
use crate::serve::offer::Offer;
use crate::serve::shared::Shared;
use crate::serve::status::Context;

/// Maximum number of options per client: each causes a little work.
const MAX_OPTIONS: usize = 10_000;

/// A client's stream, and the input read from it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) stream: Arc<Stream>,
    pub(super) input: Input,
}

impl Link {
    fn new(stream: Arc<Stream>) -> Self {
        Self {
            input: Input::new(stream.clone()),
            stream,
        }
    }
}

/// The result of the negotiation.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) link: Link,
    pub(super) export: Arc<Export>,
    pub(super) headers: Headers,
    pub(super) contexts: Vec<Context>,
}

/// What to do after an option.
enum Step {
    Next,
    /// Requests follow.
    Begin(Arc<Export>),
    /// TLS begins.
    Tls,
    /// The client leaves.
    End,
}

/// The server's side of the handshake.
pub(super) struct Handshake<'a> {
    shared: &'a Shared,
    offer: &'a Offer,
    /// Identifies the client among those connected.
    id: u64,
    link: Link,
    deadline: Option<Instant>,
    headers: Headers,
    /// The contexts that were selected, and the export that they are for.
    chosen: Option<(BString, Vec<Context>)>,
    no_zeroes: bool,
}

impl<'a> Handshake<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        id: u64,
        stream: Arc<Stream>,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            shared,
            offer: &shared.offer,
            id,
            link: Link::new(stream),
            deadline,
            headers: Headers::Simple,
            chosen: None,
            no_zeroes: false,
        }
    }

    /// Negotiates with the client; None if it leaves without entering the transmission phase.
    ///
    /// # Errors
    /// If the connection fails, the deadline passes, or the client violates the protocol.
    pub(super) fn run(mut self) -> Result<Option<Agreed>> {
        let ours = HandshakeFlags::FIXED_NEWSTYLE | HandshakeFlags::NO_ZEROES;
        self.send(&[&Style::New.to_bytes(), &ours.to_bytes()])?;
        let mut flags = [0; 4];
        if !self.message(&mut flags)? {
            return Ok(None);
        }
        let flags = ClientFlags::from_bytes(flags);
        let known = ClientFlags::FIXED_NEWSTYLE | ClientFlags::NO_ZEROES;
        if !known.contains(flags) {
            return Err(violation(format!(
                "The client sent flags that are not known: {:#x}",
                flags.bits()
            )));
        }
        self.no_zeroes = flags.contains(ClientFlags::NO_ZEROES);
        let fixed = flags.contains(ClientFlags::FIXED_NEWSTYLE);
        for _ in 0..MAX_OPTIONS {
            let mut header = [0; OptionHeader::LEN];
            if !self.message(&mut header)? {
                return Ok(None);
            }
            let header = OptionHeader::from_bytes(&header)?;
            if !fixed && header.option != OptionCode::EXPORT_NAME {
                return Err(violation(format!(
                    "The client sent option {}, which takes fixed newstyle",
                    header.option
                )));
            }
            match self.option(header)? {
                Step::Next => {}
                Step::End => return Ok(None),
                Step::Tls => {
                    let Link { stream, input } = self.link;
                    drop(input);
                    self.link = Link::new(under_tls(self.shared, self.id, stream, self.deadline)?);
                    // Everything negotiated before is void.
                    self.headers = Headers::Simple;
                    self.chosen = None;
                }
                Step::Begin(export) => {
                    let chosen = self.chosen.take();
                    let chosen = chosen.filter(|(name, _)| name == export.name());
                    return Ok(Some(Agreed {
                        link: self.link,
                        export,
                        headers: self.headers,
                        contexts: chosen.map_or_else(Vec::new, |(_, contexts)| contexts),
                    }));
                }
            }
        }
        Err(violation("The client sends options without end"))
    }

    fn option(&mut self, header: OptionHeader) -> Result<Step> {
        let OptionHeader { option, len } = header;
        if len > MAX_OPTION {
            if option == OptionCode::EXPORT_NAME {
                return Err(violation(
                    "The client asked for an export with too long a name",
                ));
            }
            let wait = self.wait();
            self.link.input.skip(u64::from(len), wait)?;
            return self.refuse(option, ReplyCode::ERR_TOO_BIG, "The option is too long");
        }
        let mut data = crate::memory::zeroed(len as usize)?;
        let wait = self.wait();
        self.link.input.rest(&mut data, wait)?;
        let plain = self.offer.tls().is_some() && !self.link.stream.has_tls();
        if option == OptionCode::EXPORT_NAME {
            if plain {
                return Err(violation("The client asked for an export without TLS"));
            }
            return self.export_name(BStr::new(&*data));
        }
        if option == OptionCode::ABORT {
            // A client that leaves may not wait for the reply.
            let _ = self.reply(option, ReplyCode::ACK, &[]);
            return Ok(Step::End);
        }
        if self.offer.is_ending() {
            return self.refuse(option, ReplyCode::ERR_SHUTDOWN, "The server ends");
        }
        if plain && option != OptionCode::STARTTLS {
            return self.refuse(
                option,
                ReplyCode::ERR_TLS_REQD,
                "The server takes TLS alone",
            );
        }
        match option {
            OptionCode::LIST if data.is_empty() => self.list(),
            OptionCode::INFO | OptionCode::GO => self.info(option, &data),
            OptionCode::STRUCTURED_REPLY if data.is_empty() => match self.headers {
                Headers::Extended => self.refuse(
                    option,
                    ReplyCode::ERR_EXT_HEADER_REQD,
                    "Extended headers are agreed on already",
                ),
                _ => self.agree(option, Headers::Structured),
            },
            OptionCode::EXTENDED_HEADERS if data.is_empty() => {
                self.agree(option, Headers::Extended)
            }
            OptionCode::LIST_META_CONTEXT | OptionCode::SET_META_CONTEXT => {
                self.contexts(option, &data)
            }
            OptionCode::STARTTLS if data.is_empty() => self.start_tls(),
            OptionCode::LIST
            | OptionCode::STRUCTURED_REPLY
            | OptionCode::EXTENDED_HEADERS
            | OptionCode::STARTTLS => {
                self.refuse(option, ReplyCode::ERR_INVALID, "The option takes no data")
            }
            _ => self.refuse(option, ReplyCode::ERR_UNSUP, "The option is not known"),
        }
    }

    fn start_tls(&mut self) -> Result<Step> {
        let option = OptionCode::STARTTLS;
        if self.offer.tls().is_none() {
            return self.refuse(option, ReplyCode::ERR_POLICY, "TLS is not configured");
        }
        if self.link.stream.has_tls() {
            return self.refuse(option, ReplyCode::ERR_INVALID, "TLS has begun already");
        }
        // What was sent before must not count as sent under TLS.
        if self.link.input.buffered() > 0 {
            return Err(violation("The client went on before TLS had begun"));
        }
        self.acknowledge(option)?;
        Ok(Step::Tls)
    }

    /// The old way to select an export, which can be refused only by closing the connection.
    fn export_name(&mut self, name: &BStr) -> Result<Step> {
        let export = self
            .offer
            .export(name)
            .filter(|export| !self.offer.is_ending() && self.shared.choose(self.id, export));
        let Some(export) = export else {
            return Err(violation(
                "The client asked for an export that is not there",
            ));
        };
        let reply = NewstyleExport {
            size: export.len(),
            flags: self.flags(&export),
        };
        let padding = [0; PADDING];
        let padding = if self.no_zeroes { &[][..] } else { &padding };
        self.send(&[&reply.to_bytes(), padding])?;
        Ok(Step::Begin(export))
    }

    fn list(&mut self) -> Result<Step> {
        // No export is held while waiting for a client, unless that client has selected it.
        let listed = self.offer.exports().into_iter().map(|export| Listed {
            name: export.name().to_owned(),
            description: export.options().description.clone(),
        });
        for listed in listed.collect::<Vec<_>>() {
            self.reply(OptionCode::LIST, ReplyCode::SERVER, &listed.to_bytes())?;
        }
        self.acknowledge(OptionCode::LIST)
    }

    fn info(&mut self, option: OptionCode, data: &[u8]) -> Result<Step> {
        let request = match InfoRequest::from_bytes(data) {
            Ok(request) => request,
            Err(error) => return self.refuse(option, ReplyCode::ERR_INVALID, error.message()),
        };
        let takes = option == OptionCode::GO;
        let export = self.offer.export(BStr::new(&request.name));
        let export = export.filter(|export| !takes || self.shared.choose(self.id, export));
        let Some(export) = export else {
            return self.no_export(option, BStr::new(&request.name));
        };
        let wants = |code| request.wanted.contains(&code);
        let mut replies = vec![Info::Export {
            size: export.len(),
            flags: self.flags(&export),
        }];
        if wants(InfoCode::NAME) {
            replies.push(Info::Name(export.name().to_owned()));
        }
        if wants(InfoCode::DESCRIPTION) && !export.options().description.is_empty() {
            replies.push(Info::Description(export.options().description.clone()));
        }
        if wants(InfoCode::BLOCK_SIZE) {
            replies.push(Info::BlockSizes(BlockSizes {
                minimum: 1,
                preferred: 4096,
                maximum: PORTABLE_PAYLOAD,
            }));
        }
        let export = takes.then_some(export);
        for reply in replies {
            self.reply(option, ReplyCode::INFO, &reply.to_bytes())?;
        }
        self.acknowledge(option)?;
        Ok(export.map_or(Step::Next, Step::Begin))
    }

    fn contexts(&mut self, option: OptionCode, data: &[u8]) -> Result<Step> {
        let listing = option == OptionCode::LIST_META_CONTEXT;
        if !listing {
            // A failed request also discards the previous selection.
            self.chosen = None;
        }
        if self.headers == Headers::Simple && !listing {
            return self.refuse(
                option,
                ReplyCode::ERR_INVALID,
                "Metadata contexts take structured replies",
            );
        }
        let query = match MetaQuery::from_bytes(data) {
            Ok(query) => query,
            Err(error) => return self.refuse(option, ReplyCode::ERR_INVALID, error.message()),
        };
        let Some(export) = self.offer.export(BStr::new(&query.export)) else {
            return self.no_export(option, BStr::new(&query.export));
        };
        let all = listing && query.queries.is_empty();
        let contexts = Context::all(&export).filter(|context| {
            let mut queries = query.queries.iter();
            all || queries.any(|query| context.matches(&export, BStr::new(query), listing))
        });
        let contexts: Vec<Context> = contexts.collect();
        let replies = contexts.iter().map(|context| MetaContext {
            // Listing selects nothing that an ID could be used for.
            id: if listing { 0 } else { context.id() },
            name: context.name(&export),
        });
        let replies: Vec<_> = replies.collect();
        if !listing {
            self.chosen = Some((export.name().to_owned(), contexts));
        }
        drop(export);
        for reply in replies {
            self.reply(option, ReplyCode::META_CONTEXT, &reply.to_bytes())?;
        }
        self.acknowledge(option)
    }

    fn agree(&mut self, option: OptionCode, headers: Headers) -> Result<Step> {
        self.headers = headers;
        self.acknowledge(option)
    }

    fn flags(&self, export: &Export) -> TransmissionFlags {
        let mut flags = TransmissionFlags::HAS_FLAGS
            | TransmissionFlags::SEND_FLUSH
            | TransmissionFlags::SEND_FUA
            | TransmissionFlags::CAN_MULTI_CONN
            | TransmissionFlags::SEND_CACHE;
        match export.writable() {
            true => {
                flags |= TransmissionFlags::SEND_TRIM
                    | TransmissionFlags::SEND_WRITE_ZEROES
                    | TransmissionFlags::SEND_FAST_ZERO;
            }
            false => flags |= TransmissionFlags::READ_ONLY,
        }
        flags.set(TransmissionFlags::SEND_DF, self.headers != Headers::Simple);
        flags.set(
            TransmissionFlags::BLOCK_STATUS_PAYLOAD,
            self.headers == Headers::Extended,
        );
        flags
    }

    fn no_export(&mut self, option: OptionCode, name: &BStr) -> Result<Step> {
        self.refuse(
            option,
            ReplyCode::ERR_UNKNOWN,
            &format!("export '{name}' not present"),
        )
    }

    fn acknowledge(&mut self, option: OptionCode) -> Result<Step> {
        self.reply(option, ReplyCode::ACK, &[])?;
        Ok(Step::Next)
    }

    fn refuse(&mut self, option: OptionCode, code: ReplyCode, message: &str) -> Result<Step> {
        let message = message.as_bytes();
        let cut = message.len().min(MAX_STRING);
        self.reply(option, code, message.get(..cut).unwrap_or_default())?;
        Ok(Step::Next)
    }

    fn reply(&mut self, option: OptionCode, code: ReplyCode, data: &[u8]) -> Result<()> {
        let len = u32::try_from(data.len()).map_err(|_| violation("A reply is too long"))?;
        let header = OptionReply { option, code, len };
        self.send(&[&header.to_bytes(), data])
    }

    fn send(&mut self, parts: &[&[u8]]) -> Result<()> {
        let mut parts: Vec<_> = parts
            .iter()
            .map(|part| std::io::IoSlice::new(part))
            .collect();
        self.link.stream.write_all_vectored(&mut parts, self.wait())
    }

    fn message(&mut self, buf: &mut [u8]) -> Result<bool> {
        let wait = self.wait();
        self.link.input.message(buf, wait)
    }

    fn wait(&self) -> Wait<'static> {
        Wait::forever().until(self.deadline)
    }
}

/// Wraps the stream in TLS, for which the client starts the handshake now.
fn under_tls(
    shared: &Shared,
    id: u64,
    stream: Arc<Stream>,
    deadline: Option<Instant>,
) -> Result<Arc<Stream>> {
    let lost = || Error::new(ErrorKind::Internal, "The stream of a client is in use");
    let tls = shared.offer.tls().ok_or_else(lost)?;
    shared.set_stream(id, None)?;
    let stream = Arc::into_inner(stream).ok_or_else(lost)?;
    let wait = Wait::new(&shared.taking).until(deadline);
    let stream = stream.with_tls_server(&tls.credentials, tls.authorization.as_deref(), wait)?;
    let stream = Arc::new(stream);
    shared.set_stream(id, Some(stream.clone()))?;
    Ok(stream)
}
