//! Decompression of a whole file, in order.

use std::fmt;
use std::io::{self, Read};
use std::mem;
use std::sync::Arc;

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::MtStreamBuilder;
use lz4_flex::frame::FrameDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

use super::bzip2_blocks::Bzip2Blocks;
use super::input::{Input, Source, Told};
use super::lz4_blocks::Lz4Blocks;
use super::members_ahead;
use super::ready::Ready;
use super::{Container, FREE, GZIP, LZ4, LZ4_LEGACY, fault, is_skipped};
use crate::bytes::le32;
use crate::crew;
use crate::error::{Error, Result};
use crate::policy::OpenPolicy;

/// Length of the shortest header of an lz4 frame.
const LZ4_HEADER: usize = 7;

/// The minimum and maximum window sizes of zstd.
const WINDOW_LOGS: std::ops::RangeInclusive<u32> = 10..=31;

/// A compressed file that is read from beginning to end.
pub struct Unpacker {
    kind: Container,
    state: State,
    told: Arc<Told>,
    /// Number of bytes returned.
    given: u64,
    /// Number of members begun.
    members: u64,
    max_memory: u64,
    max_expansion: u64,
}

enum State {
    /// Between members.
    Between(Input),
    /// After members that have been unpacked ahead.
    Ahead(Input, Ready),
    Xz(XzDecoder<Input>),
    Gzip(Box<GzDecoder<Input>>),
    Bzip2(BzDecoder<Input>),
    Bzip2Blocks(Input, Box<Bzip2Blocks>),
    Zstd(ZstdDecoder<'static, Input>),
    Lz4(Box<FrameDecoder<Input>>, Lz4Kind),
    Lz4Blocks(Input, Box<Lz4Blocks>),
    Ended,
    /// It was refused; what a decoder returned after that could not be relied on.
    Refused(Error),
}

/// How an lz4 frame ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lz4Kind {
    /// With an end mark.
    Marked,
    /// With the end of the file: the legacy format.
    Open,
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker")
            .field("kind", &self.kind)
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}

impl Unpacker {
    /// Unpacks a file; its kind is recognised from its beginning unless given. Needs no more memory, and expands by no
    /// more, than the policy allows.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if it is of no known kind; if reading fails.
    pub fn new(source: Source, kind: Option<Container>, policy: &OpenPolicy) -> Result<Self> {
        let mut input = Input::new(source)?;
        let kind = match kind {
            Some(kind) => kind,
            None => {
                let found = Container::recognise(input.peek(super::HEAD)?);
                found.ok_or_else(|| {
                    let names = Container::ALL.map(Container::name).join(", ");
                    Error::invalid(format!("It is no file of any of {names}"))
                })?
            }
        };
        Ok(Self {
            kind,
            told: input.told().clone(),
            state: State::Between(input),
            given: 0,
            members: 0,
            max_memory: policy.max_decoder_bytes,
            max_expansion: policy.max_expansion,
        })
    }

    /// The kind of the file.
    pub fn kind(&self) -> Container {
        self.kind
    }

    /// Fills `buf`; fewer bytes only at the end.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] with the offset in the file if that is damaged or truncated,
    /// [`crate::ErrorKind::Limit`] if it needs more than the policy allows; if reading fails. Once refused, it stays
    /// refused.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let step = self.step(rest);
            match step.and_then(|len| self.check_expansion().map(|()| len)) {
                Ok(Some(len)) => done += len,
                Ok(None) => break,
                Err(error) => {
                    self.state = State::Refused(error.again());
                    return Err(error);
                }
            }
        }
        Ok(done)
    }

    /// Reads some bytes, possibly none; None at the end.
    fn step(&mut self, buf: &mut [u8]) -> Result<Option<usize>> {
        let read = match &mut self.state {
            State::Between(_) => {
                self.begin()?;
                return Ok((!matches!(self.state, State::Ended)).then_some(0));
            }
            State::Ahead(_, ready) => Ok(ready.read(buf)),
            State::Bzip2Blocks(input, blocks) => Ok(blocks.read(input, buf)?),
            State::Lz4Blocks(input, blocks) => Ok(blocks.read(input, buf)?),
            State::Xz(decoder) => decoder.read(buf),
            State::Gzip(decoder) => decoder.read(buf),
            State::Bzip2(decoder) => decoder.read(buf),
            State::Zstd(decoder) => decoder.read(buf),
            State::Lz4(decoder, _) => decoder.read(buf),
            State::Ended => return Ok(None),
            State::Refused(error) => return Err(error.again()),
        };
        match read {
            // The decoder takes a frame without its end mark for a complete one.
            Ok(0)
                if matches!(self.state, State::Lz4(_, Lz4Kind::Marked)) && self.told.past_end() =>
            {
                Err(self.ends_early())
            }
            Ok(0) => {
                self.state = match mem::replace(&mut self.state, State::Ended) {
                    State::Gzip(decoder) => State::Between(decoder.into_inner()),
                    State::Bzip2(decoder) => State::Between(decoder.into_inner()),
                    State::Lz4(decoder, _) => State::Between(decoder.into_inner()),
                    State::Xz(decoder) => State::Between(decoder.into_inner()),
                    State::Zstd(decoder) => State::Between(decoder.finish()),
                    State::Ahead(input, _)
                    | State::Bzip2Blocks(input, _)
                    | State::Lz4Blocks(input, _) => State::Between(input),
                    other => other,
                };
                Ok(Some(0))
            }
            Ok(len) => {
                self.given += len as u64;
                Ok(Some(len))
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Begins the next member, or recognises the end.
    fn begin(&mut self) -> Result<()> {
        let State::Between(mut input) = mem::replace(&mut self.state, State::Ended) else {
            return Ok(());
        };
        let first = self.members == 0;
        self.members += 1;
        if self.kind == Container::Xz && !first && !input.skip_zeroes()?.is_multiple_of(4) {
            return Err(self.damaged("the padding behind a stream is not a multiple of four bytes"));
        }
        let head = input.peek(super::HEAD)?;
        if head.is_empty() {
            return match first {
                true => Err(self.ends_early()),
                false => Ok(()),
            };
        }
        let max_memory = self.max_memory;
        if let Some(ready) = members_ahead::unpack(self.kind, &mut input, max_memory)? {
            self.state = State::Ahead(input, ready);
            return Ok(());
        }
        if self.kind == Container::Bzip2
            && let Some(blocks) = Bzip2Blocks::begin(&mut input, max_memory)?
        {
            self.state = State::Bzip2Blocks(input, Box::new(blocks));
            return Ok(());
        }
        if self.kind == Container::Lz4
            && let Some(blocks) = Lz4Blocks::begin(&mut input, max_memory)?
        {
            self.state = State::Lz4Blocks(input, Box::new(blocks));
            return Ok(());
        }
        let head = input.peek(super::HEAD)?;
        self.state = match self.kind {
            Container::Xz => State::Xz(XzDecoder::new_stream(input, self.xz()?)),
            Container::Zstd => State::Zstd(self.zstd(input)?),
            // Data after the last member is ignored, as by the tools.
            Container::Gzip if first || head.starts_with(GZIP) => {
                State::Gzip(Box::new(GzDecoder::new(input)))
            }
            Container::Bzip2 if first || head.starts_with(super::BZIP2) => {
                State::Bzip2(BzDecoder::new(input))
            }
            Container::Gzip | Container::Bzip2 => {
                input.skip(u64::MAX)?;
                State::Ended
            }
            Container::Lz4 => match le32(head, 0) {
                Some(mark) if is_skipped(mark) => {
                    let len = le32(head, 4).ok_or_else(|| self.ends_early())?;
                    let whole = 8 + u64::from(len);
                    if input.skip(whole)? < whole {
                        return Err(self.ends_early());
                    }
                    State::Between(input)
                }
                // The decoder takes a truncated header for the end.
                Some(LZ4) if head.len() < LZ4_HEADER => return Err(self.ends_early()),
                Some(LZ4) => State::Lz4(Box::new(FrameDecoder::new(input)), Lz4Kind::Marked),
                Some(LZ4_LEGACY) => State::Lz4(Box::new(FrameDecoder::new(input)), Lz4Kind::Open),
                Some(_) => return Err(self.damaged("no frame is where one should be")),
                None => return Err(self.ends_early()),
            },
        };
        Ok(())
    }

    /// A multi-threaded decoder, for blocks that record their length.
    fn xz(&self) -> Result<liblzma::stream::Stream> {
        MtStreamBuilder::new()
            .threads(crew::processors() as u32)
            // Above this limit it uses one thread, above the other one it fails.
            .memlimit_threading(self.max_memory)
            .memlimit_stop(self.max_memory)
            .decoder()
            .map_err(|error| self.failed(&error.into()))
    }

    fn zstd(&self, input: Input) -> Result<ZstdDecoder<'static, Input>> {
        let made = ZstdDecoder::with_buffer(input).and_then(|mut decoder| {
            // Half of the memory is for input and output.
            let log = (self.max_memory / 2).max(1).ilog2();
            let log = log.clamp(*WINDOW_LOGS.start(), *WINDOW_LOGS.end());
            decoder.window_log_max(log)?;
            Ok(decoder.single_frame())
        });
        made.map_err(|error| self.failed(&error))
    }

    fn check_expansion(&self) -> Result<()> {
        let allowed = self.told.used().saturating_mul(self.max_expansion);
        if self.given <= FREE || self.given <= allowed {
            return Ok(());
        }
        Err(fault::too_long(
            self.kind,
            self.told.used(),
            self.max_expansion,
        ))
    }

    fn failed(&self, error: &io::Error) -> Error {
        if let Some(failure) = self.told.failure() {
            return failure;
        }
        fault::of_decoder(self.kind, self.told.used(), self.max_memory, error)
    }

    fn ends_early(&self) -> Error {
        fault::ends_early(self.kind, self.told.used())
    }

    fn damaged(&self, why: &str) -> Error {
        fault::damaged(self.kind, self.told.used(), why)
    }
}
