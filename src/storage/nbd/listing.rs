//! The list of a server's exports.

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, ErrorKind, Result};
use crate::memory;
use crate::nbd::export::{BlockSizes, Listed};
use crate::nbd::flags::{HandshakeFlags, TransmissionFlags};
use crate::nbd::meta::{MetaContext, MetaQuery};
use crate::nbd::option::{OptionCode, ReplyCode};
use crate::nbd::reply::Headers;
use crate::nbd::violation;
use crate::net::{Stream, Wait};
use crate::storage::exports::{ExportBlocks, ExportDetails, ExportInfo};

use super::handshake::{Export, MAX_REPLIES, Options, begin, oldstyle, refusal};
use super::options::Settings;

/// Maximum number of exports of one server.
const MAX_EXPORTS: usize = 16_384;
/// Maximum total size of their names, descriptions and contexts, in bytes.
const MAX_BYTES: usize = 16 << 20;

/// The names of the flags in lists.
const ABILITIES: &[(TransmissionFlags, &str)] = &[
    (TransmissionFlags::READ_ONLY, "readonly"),
    (TransmissionFlags::SEND_FLUSH, "flush"),
    (TransmissionFlags::SEND_FUA, "fua"),
    (TransmissionFlags::ROTATIONAL, "rotational"),
    (TransmissionFlags::SEND_TRIM, "trim"),
    (TransmissionFlags::SEND_WRITE_ZEROES, "zeroes"),
    (TransmissionFlags::SEND_DF, "df"),
    (TransmissionFlags::CAN_MULTI_CONN, "multi"),
    (TransmissionFlags::SEND_RESIZE, "resize"),
    (TransmissionFlags::SEND_CACHE, "cache"),
    (TransmissionFlags::SEND_FAST_ZERO, "fast-zero"),
    (
        TransmissionFlags::BLOCK_STATUS_PAYLOAD,
        "block-status-payload",
    ),
];

/// The number of bytes that a list may still take.
struct Budget(usize);

impl Budget {
    fn take(&mut self, bytes: usize) -> Result<()> {
        let left = self.0.checked_sub(bytes).ok_or_else(|| {
            Error::new(
                ErrorKind::Limit,
                format!("The server's list of exports is longer than {MAX_BYTES} bytes"),
            )
        });
        self.0 = left?;
        Ok(())
    }
}

/// Queries the server for all exports, and for the details of each. The connection is unusable afterwards.
///
/// # Errors
/// If the server refuses, the stream or TLS fails, or the list exceeds a limit.
pub(super) fn list(stream: Stream, settings: &Settings, wait: Wait<'_>) -> Result<Vec<ExportInfo>> {
    let (stream, greeted) = begin(
        stream,
        settings.tls.as_ref(),
        settings.tls_host.as_deref(),
        wait,
    )?;
    let Some(flags) = greeted else {
        let export = oldstyle(&stream, BStr::new(""), wait)?;
        return Ok(vec![ExportInfo {
            details: Some(details(&export)),
            length_bits: length_bits(Headers::Simple),
            ..ExportInfo::default()
        }]);
    };
    if !flags.contains(HandshakeFlags::FIXED_NEWSTYLE) {
        return Err(Error::unsupported("Server does not support export lists"));
    }
    let options = Options {
        stream: &stream,
        wait,
    };
    let headers = options.headers()?;
    let mut budget = Budget(MAX_BYTES);
    let mut exports = options.list(&mut budget)?;
    let mut tells = true;
    for export in &mut exports {
        export.length_bits = length_bits(headers);
        if tells {
            tells = options.describe(export, headers)?;
        }
        if headers != Headers::Simple && export.refusal.is_none() {
            export.contexts = options.contexts(&export.name, &mut budget)?;
        }
    }
    // Everything is known by now, so it does not matter if this fails.
    let _ = options.send(OptionCode::ABORT, &[]);
    Ok(exports)
}

impl Options<'_> {
    fn list(&self, budget: &mut Budget) -> Result<Vec<ExportInfo>> {
        const OPTION: OptionCode = OptionCode::LIST;
        self.send(OPTION, &[])?;
        let mut exports = Vec::new();
        loop {
            let (code, data) = self.reply(OPTION)?;
            match code {
                ReplyCode::SERVER if exports.len() == MAX_EXPORTS => {
                    return Err(Error::new(
                        ErrorKind::Limit,
                        format!("The server lists more than {MAX_EXPORTS} exports"),
                    ));
                }
                ReplyCode::SERVER => {
                    let listed = Listed::from_bytes(&data)?;
                    budget.take(data.len())?;
                    let export = ExportInfo {
                        name: listed.name,
                        description: listed.description,
                        ..ExportInfo::default()
                    };
                    memory::push(&mut exports, export)?;
                }
                ReplyCode::ACK if data.is_empty() => return Ok(exports),
                code => return Err(self.refusal(OPTION, code, &data)),
            }
        }
    }

    /// Queries the details of the export; false if the server does not support the option.
    fn describe(&self, export: &mut ExportInfo, headers: Headers) -> Result<bool> {
        const OPTION: OptionCode = OptionCode::INFO;
        match self.tell(OPTION, export.name.as_bstr(), headers)? {
            Ok(told) => export.details = Some(details(&told)),
            Err((ReplyCode::ERR_UNSUP, _)) => return Ok(false),
            Err((code, message)) if code.is_error() => {
                let error = refusal(OPTION, code, message.as_bstr());
                let lines = std::iter::once(error.message());
                let lines: Vec<_> = lines
                    .chain(error.hints().iter().map(String::as_str))
                    .collect();
                export.refusal = Some(lines.join(": "));
            }
            Err((code, data)) => return Err(self.refusal(OPTION, code, &data)),
        }
        Ok(true)
    }

    /// Queries the metadata contexts of an export; none if the server refuses.
    fn contexts(&self, export: &BString, budget: &mut Budget) -> Result<Vec<BString>> {
        const OPTION: OptionCode = OptionCode::LIST_META_CONTEXT;
        let query = MetaQuery {
            export: export.clone(),
            queries: Vec::new(),
        };
        self.send(OPTION, &query.to_bytes())?;
        let mut contexts = Vec::new();
        for _ in 0..MAX_REPLIES {
            let (code, data) = self.reply(OPTION)?;
            match code {
                ReplyCode::META_CONTEXT => {
                    let context = MetaContext::from_bytes(&data)?;
                    budget.take(data.len())?;
                    memory::push(&mut contexts, context.name)?;
                }
                ReplyCode::ACK if data.is_empty() => return Ok(contexts),
                // The export may have gone away in the meantime, for example.
                code if code.is_error() => return Ok(Vec::new()),
                code => return Err(self.refusal(OPTION, code, &data)),
            }
        }
        Err(violation("The server sends metadata contexts without end"))
    }
}

fn length_bits(headers: Headers) -> u32 {
    match headers {
        Headers::Extended => u64::BITS,
        Headers::Simple | Headers::Structured => u32::BITS,
    }
}

fn details(export: &Export) -> ExportDetails {
    let known = ABILITIES
        .iter()
        .filter(|(flag, _)| export.flags.contains(*flag));
    ExportDetails {
        size: export.size,
        read_only: export.flags.contains(TransmissionFlags::READ_ONLY),
        flags: export.flags.bits().into(),
        abilities: known.map(|(_, name)| *name).collect(),
        blocks: export.sizes.map(|sizes: BlockSizes| ExportBlocks {
            minimum: sizes.minimum,
            preferred: sizes.preferred,
            maximum: sizes.maximum,
        }),
    }
}
