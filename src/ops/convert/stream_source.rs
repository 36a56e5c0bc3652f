//! A source that can only be read in order. The worker that claims a range reads its bytes while it is its turn; what
//! follows runs in parallel as for any source.

use std::path::Path;
use std::sync::Arc;

use bstr::{BStr, BString, ByteSlice};
use parking_lot::Mutex;

use crate::codec::container::{Container, Unpacker, known_len};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::filter::decompress;
use crate::format::magic::PROBE_BYTES;
use crate::format::probe;
use crate::format::{FormatDriver, Probe, ReadInOrderFn, registry};
use crate::job::{Job, JobControl};
use crate::location::Node;
use crate::memory::{self, IoBuf};
use crate::policy::OpenPolicy;
use crate::size::round_up_sector;
use crate::storage::stream::{Direction, Stream, is_stream};
use crate::storage::{Identity, LockRequest, NamedStorages, Permissions, Storage, StorageOpen};

use super::checksum::Checksum;
use super::passing_image::PassingImage;
use super::request::ConvertRequest;
use super::runs::{Run, RunKind};
use super::window::{Window, longer_than_output, output_len};

/// Bytes skipped at a time.
const SKIP_CHUNK: u64 = 256 << 10;

/// What a range of the guest turned out to contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    /// Nothing was read: the source can be read at any offset.
    Positional,
    /// This many bytes, ready to be taken.
    Data(u64),
    /// This many zeroes; None means that the input has ended, and the rest of the output is zero.
    Zeroes(Option<u64>),
    /// The input has ended, and the output with it.
    End,
}

/// How many zeroes may be reported at once, if they need not be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Zeroes {
    /// The minimum, unless the input ends with them.
    pub least: u64,
    /// The maximum.
    pub most: u64,
    /// A whole number of steps, unless the input ends with them.
    pub step: u64,
}

/// Where the bytes come from.
struct Origin {
    bytes: Bytes,
    name: BString,
    /// The identity of the file, if it is one.
    identity: Option<Identity>,
    /// The number of bytes, if it is known before the end.
    len: Option<u64>,
    /// The checksum of the compressed bytes, if requested.
    checksum: Option<Arc<Checksum>>,
}

enum Bytes {
    /// The bytes of a stream as they are.
    Plain(Stream),
    /// The decompressed bytes of a compressed file or stream.
    Packed(Box<Mutex<Unpacker>>),
    /// The guest bytes of an image.
    Image(Box<Mutex<PassingImage>>),
}

impl Origin {
    fn plain(stream: Stream) -> Self {
        Self {
            name: stream.name().to_owned(),
            identity: Identity::of_fd(stream.fd()),
            len: stream.remaining(),
            checksum: None,
            bytes: Bytes::Plain(stream),
        }
    }

    fn packed_stream(
        stream: Stream,
        kind: Option<Container>,
        policy: &OpenPolicy,
        control: &Arc<JobControl>,
        checksum: Option<Arc<Checksum>>,
    ) -> Result<Self> {
        let name = stream.name().to_owned();
        let identity = Identity::of_fd(stream.fd());
        let control = control.clone();
        let sum = checksum.clone();
        let source = move |buf: &mut [u8]| {
            let len = stream.read(buf, &|| control.checkpoint())?;
            if let Some(sum) = &sum {
                sum.update(buf.get(..len).unwrap_or_default());
            }
            Ok(len)
        };
        let unpacker = Unpacker::new(Box::new(source), kind, policy);
        Ok(Self {
            bytes: Bytes::Packed(Box::new(Mutex::new(
                unpacker.context(|| format!("'{name}'"))?,
            ))),
            name,
            identity,
            len: None,
            checksum,
        })
    }

    fn packed_file(
        file: &Arc<dyn Storage>,
        kind: Option<Container>,
        policy: &OpenPolicy,
        control: &Arc<JobControl>,
        checksum: Option<Arc<Checksum>>,
    ) -> Result<Self> {
        let sum = checksum.clone();
        let seen = move |bytes: &[u8]| {
            if let Some(sum) = &sum {
                sum.update(bytes);
            }
        };
        let unpacker = decompress::unpacker(file, kind, policy, control, seen)?;
        let read_at = |buf: &mut [u8], at| file.read_at(buf, at);
        let len = known_len(
            unpacker.kind(),
            &read_at,
            file.len()?,
            policy.max_table_bytes,
        )?;
        Ok(Self {
            bytes: Bytes::Packed(Box::new(Mutex::new(unpacker))),
            name: file.name().to_owned(),
            identity: file.identity(),
            len,
            checksum,
        })
    }

    /// Fills `buf`; fewer bytes only at the end.
    fn read(&self, buf: &mut [u8], control: &JobControl) -> Result<usize> {
        match &self.bytes {
            Bytes::Plain(stream) => stream.read(buf, &|| control.checkpoint()),
            Bytes::Packed(unpacker) => {
                let mut unpacker = unpacker.lock();
                unpacker.read(buf).context(|| format!("'{}'", self.name))
            }
            Bytes::Image(image) => image.lock().read(buf),
        }
    }

    /// Skips the zeroes that come next, if they are known to be zeroes; returns how many.
    fn pass_zeroes(&self, zeroes: Zeroes, left: u64) -> Result<u64> {
        let Bytes::Image(image) = &self.bytes else {
            return Ok(0);
        };
        let mut image = image.lock();
        let most = left.min(zeroes.most);
        let mut len = image.zeroes()?.min(most);
        if len < left {
            len -= len % zeroes.step.max(1);
        }
        if len < zeroes.least.min(left) {
            return Ok(0);
        }
        image.pass(len);
        Ok(len)
    }

    /// After all of it was read: checks that it is complete.
    fn end(&self) -> Result<()> {
        match &self.bytes {
            Bytes::Image(image) => image.lock().end(),
            Bytes::Plain(_) | Bytes::Packed(_) => Ok(()),
        }
    }

    /// The guest bytes of the image in a stream, of which `head` was already read.
    fn of_image(
        self,
        head: IoBuf,
        (driver, open): (&FormatDriver, ReadInOrderFn),
        policy: &OpenPolicy,
        control: &Arc<JobControl>,
    ) -> Result<Self> {
        policy.check_format(driver.name)?;
        let Bytes::Plain(stream) = self.bytes else {
            let text = "Only a plain stream is read as an image that goes by";
            return Err(Error::new(ErrorKind::Internal, text));
        };
        let image = PassingImage::open(open, (stream, head), policy, control)?;
        Ok(Self {
            len: Some(image.virtual_size()),
            bytes: Bytes::Image(Box::new(Mutex::new(image))),
            name: self.name,
            identity: self.identity,
            checksum: None,
        })
    }

    /// Retains the contents of a compressed stream, after the bytes of `head`, for reading in any order.
    fn keep(self, head: &[u8], policy: &OpenPolicy, control: &Arc<JobControl>) -> Result<Opened> {
        let name = self.name.as_bstr();
        match self.bytes {
            Bytes::Packed(unpacker) => {
                let unpacker = unpacker.into_inner();
                let kept = decompress::spooled(name, unpacker, head, policy, control)?;
                Ok(Opened::Kept(kept, self.checksum))
            }
            Bytes::Plain(_) | Bytes::Image(_) => Ok(Opened::Images),
        }
    }

    /// Whether its length is only a claim of the file, and only its last bytes show whether it is complete.
    fn is_packed(&self) -> bool {
        matches!(self.bytes, Bytes::Packed(_))
    }
}

/// What the beginning of a stream shows.
enum Start {
    /// A plain disk.
    Disk(Box<StreamSource>),
    /// An image in the format with that name, and what was read of it.
    Image(&'static str, Origin, IoBuf),
}

/// The source of a request.
pub(super) enum Opened {
    /// A source that is read in order.
    Stream(Box<StreamSource>),
    /// The contents of a compressed stream, to be opened as an image, and the checksum of the stream.
    Kept(Arc<dyn Storage>, Option<Arc<Checksum>>),
    /// Images at their locations.
    Images,
}

/// The stream, and what was read of it but not yet taken.
pub(super) struct StreamSource {
    origin: Origin,
    window: Window,
    /// The number of bytes to copy, if it is known before the end.
    known: Option<u64>,
    control: Arc<JobControl>,
    max_size: u64,
    state: Mutex<State>,
    pieces: Mutex<Pieces>,
}

#[derive(Default)]
struct State {
    /// Data of the part to be copied that was already read.
    ahead: IoBuf,
    /// How much of it was passed on.
    used: usize,
    taken: u64,
    ended: bool,
}

#[derive(Default)]
struct Pieces {
    ready: Vec<(u64, IoBuf)>,
    spare: Vec<IoBuf>,
}

/// The source of a request: a stream, possibly decompressed, or something else. Skips what is to be skipped.
pub(super) fn open(request: &ConvertRequest, job: &mut Job) -> Result<Opened> {
    let control = job.control().clone();
    let options = &request.source.options;
    let kind = options.decompress.as_deref();
    let kind = kind.map(decompress::kind_named).transpose()?;
    let mut window = request.source.window;
    if window.output_size.is_none() {
        // A caller that knows the length of a stream may give it where an image's size is given.
        let size = request.target.options.get("size");
        window.output_size = size.and_then(|size| crate::size::parse_size(&size.to_str_lossy()));
    }
    let Some(stream) = open_stream(request, &control)? else {
        return match kind {
            Some(kind) => open_packed_file(request, kind, window, &control),
            None => Ok(Opened::Images),
        };
    };
    if let Some((key, _)) = options.driver_options.iter().next() {
        return Err(Error::invalid(format!(
            "'{}' is read in order, as the bytes that it holds, and has no option '{key}'",
            stream.name()
        )));
    }
    stream.lock(locks(request))?;
    if let Some(kind) = kind {
        return open_packed_stream(request, stream, kind, window, control);
    }
    let named = options.format.as_deref();
    refuse_format(&stream, named, request.source.snapshot.is_some())?;
    let policy = &options.policy;
    let origin = Origin::plain(stream);
    let (origin, head, driver) = match named.and_then(reader_in_order) {
        Some(driver) => (origin, IoBuf::new(), driver),
        None => match StreamSource::start(origin, window, control.clone(), named, policy)? {
            Start::Disk(source) => return Ok(Opened::Stream(source)),
            Start::Image(name, origin, head) => {
                let driver = reader_in_order(name).ok_or_else(|| Error::unsupported(format!(
                    "'{}' looks like a {name} image, which cannot be read in order; save it to a file first, or name the format 'raw' to copy its bytes as they are",
                    origin.name
                )))?;
                policy.check_probing(false)?;
                (origin, head, driver)
            }
        },
    };
    let origin = origin.of_image(head, driver, policy, &control)?;
    let source = StreamSource::begin(origin, IoBuf::new(), window, control, policy)?;
    Ok(Opened::Stream(source))
}

/// The format with that name, if its images can be read in order.
fn reader_in_order(name: &str) -> Option<(&'static FormatDriver, ReadInOrderFn)> {
    let driver = registry::by_name(name)?;
    Some((driver, driver.read_in_order?))
}

/// The descriptor, pipe or device that a request reads in order.
fn open_stream(request: &ConvertRequest, control: &JobControl) -> Result<Option<Stream>> {
    match (&request.source.fd, request.source.images.as_slice()) {
        (Some(named), _) => named.stream(Direction::Read).map(Some),
        (None, sources) => {
            let is_one = |location: &&crate::location::Location| match location.node() {
                Node::Path(path) => {
                    !is_kept(path, request.source.options.storages.as_ref())
                        && is_stream(path, request.source.devices)
                }
                _ => false,
            };
            let Some(location) = sources.iter().find(is_one) else {
                return Ok(None);
            };
            if sources.len() > 1 {
                return Err(Error::unsupported(format!(
                    "'{}' is read in order and cannot be put together with other sources",
                    location.display()
                )));
            }
            let Node::Path(path) = location.node() else {
                return Ok(None);
            };
            Stream::open(path, Direction::Read, &|| control.checkpoint()).map(Some)
        }
    }
}

/// Whether the caller provides a storage under that name, which is used instead of any file.
pub(super) fn is_kept(path: &Path, storages: Option<&Arc<dyn NamedStorages>>) -> bool {
    storages.is_some_and(|storages| storages.find(path, &StorageOpen::default()).is_some())
}

/// Starts the checksum of what is decompressed, if it is requested and all of it is read.
fn of_container(request: &ConvertRequest) -> Option<Arc<Checksum>> {
    let window = &request.source.window;
    let whole = window.limit.is_none() && window.input_size.is_none();
    (request.tuning.checksum && whole).then(Arc::default)
}

fn locks(request: &ConvertRequest) -> LockRequest {
    let mut denies = Permissions::empty();
    if request.source.options.deny_writers && !request.source.options.force_share {
        denies = Permissions::WRITE | Permissions::RESIZE;
    }
    LockRequest {
        uses: Permissions::CONSISTENT_READ,
        denies,
    }
}

/// Whether more is requested than the bytes of a plain disk in order.
fn asks_for_more(request: &ConvertRequest) -> bool {
    let source = &request.source;
    let format = source.options.format.as_deref();
    source.snapshot.is_some()
        || source.bitmaps
        || source.salvage
        || source.options.policy.probe_footers
        || !source.options.driver_options.is_empty()
        || format.is_some_and(|name| name != registry::plain().name)
}

/// A compressed stream that holds a plain disk is read in one pass. If it holds an image, if more than its bytes is
/// requested, or if the target needs a length, its contents are retained.
fn open_packed_stream(
    request: &ConvertRequest,
    stream: Stream,
    kind: Option<Container>,
    window: Window,
    control: Arc<JobControl>,
) -> Result<Opened> {
    let options = &request.source.options;
    let (policy, format) = (&options.policy, options.format.as_deref());
    let sum = of_container(request);
    let origin = Origin::packed_stream(stream, kind, policy, &control, sum)?;
    if asks_for_more(request) || (window.output_size.is_none() && needs_length(request)) {
        return origin.keep(&[], policy, &control);
    }
    match StreamSource::start(origin, window, control.clone(), format, policy)? {
        Start::Disk(source) => Ok(Opened::Stream(source)),
        Start::Image(_, origin, head) => origin.keep(&head, policy, &control),
    }
}

/// A compressed file that holds a plain disk, which needs no temporary file: it is read in one pass. Images if it holds
/// an image, if more than its bytes is requested, or if the target needs a length that the file does not state.
fn open_packed_file(
    request: &ConvertRequest,
    kind: Option<Container>,
    window: Window,
    control: &Arc<JobControl>,
) -> Result<Opened> {
    let options = &request.source.options;
    let plain = registry::plain().name;
    let may_probe = options.format.is_some() || options.policy.allows_probing(false);
    let [location] = request.source.images.as_slice() else {
        return Ok(Opened::Images);
    };
    if asks_for_more(request) || !may_probe {
        return Ok(Opened::Images);
    }
    // Any error is found again, and reported, when the image is opened.
    let Ok((file, format)) = crate::image::open_file(location, options) else {
        return Ok(Opened::Images);
    };
    if format.as_deref().is_some_and(|name| name != plain) {
        return Ok(Opened::Images);
    }
    file.lock(locks(request))?;
    let origin = Origin::packed_file(&file, kind, &options.policy, control, of_container(request))?;
    if origin.len.is_none() && window.output_size.is_none() && needs_length(request) {
        return Ok(Opened::Images);
    }
    let format = options.format.as_deref();
    match StreamSource::start(origin, window, control.clone(), format, &options.policy)? {
        Start::Disk(source) => Ok(Opened::Stream(source)),
        Start::Image(..) => Ok(Opened::Images),
    }
}

/// Whether the target must know its length from the beginning.
fn needs_length(request: &ConvertRequest) -> bool {
    let target = &request.target;
    let format = target.format.as_deref().unwrap_or(registry::plain().name);
    let takes_any = registry::by_name(format).is_some_and(|driver| driver.is_stream);
    target.exists || target.profile.is_some() || !takes_any || !target.options.is_empty()
}

fn refuse_format(stream: &Stream, format: Option<&str>, snapshot: bool) -> Result<()> {
    let refused = match format {
        _ if snapshot => "a snapshot".to_owned(),
        None => return Ok(()),
        Some(name) if name == registry::plain().name || reader_in_order(name).is_some() => {
            return Ok(());
        }
        Some(name) => format!("an image in the format '{name}'"),
    };
    Err(Error::unsupported(format!(
        "'{}' is read in order, and {refused} cannot be; save it to a file first",
        stream.name()
    )))
}

impl StreamSource {
    /// The checksum of what is decompressed.
    pub fn container_checksum(&self) -> Option<Arc<Checksum>> {
        self.origin.checksum.clone()
    }

    /// The identity of the file, if it is one, and its name.
    pub fn file(&self) -> Option<(Identity, &BStr)> {
        Some((self.origin.identity.clone()?, self.origin.name.as_bstr()))
    }

    fn start(
        origin: Origin,
        window: Window,
        control: Arc<JobControl>,
        format: Option<&str>,
        policy: &OpenPolicy,
    ) -> Result<Start> {
        let size = window.input_size.or(origin.len);
        let wanted = size.map_or(PROBE_BYTES as u64, |size| size.min(PROBE_BYTES as u64));
        let mut ahead = memory::zeroed(wanted as usize)?;
        let got = origin.read(&mut ahead, &control)?;
        ahead.truncate(got);
        if format.is_none()
            && let Some(name) = recognised(&ahead)
        {
            return Ok(Start::Image(name, origin, ahead));
        }
        policy.check_format(registry::plain().name)?;
        Self::begin(origin, ahead, window, control, policy).map(Start::Disk)
    }

    /// Skips what is to be skipped; `ahead` was already read.
    fn begin(
        origin: Origin,
        ahead: IoBuf,
        window: Window,
        control: Arc<JobControl>,
        policy: &OpenPolicy,
    ) -> Result<Box<Self>> {
        let got = ahead.len();
        let size = window.input_size.or(origin.len);
        if let (Bytes::Image(_), Some(len), Some(size)) = (&origin.bytes, origin.len, size)
            && size > len
        {
            return Err(Error::invalid(format!(
                "'{}' holds {len} bytes, fewer than the {size} that are to be read",
                origin.name
            )));
        }
        let cannot_skip =
            || Error::invalid("cannot skip to specified offset").context(origin.name.to_string());
        let known = match size {
            Some(size) => {
                let left = size.checked_sub(window.skip).ok_or_else(cannot_skip)?;
                Some(window.limit.map_or(left, |limit| limit.min(left)))
            }
            None => None,
        };
        let in_head = window.skip.min(got as u64);
        let mut skipped = in_head;
        let mut buf = IoBuf::new();
        while skipped < window.skip {
            let len = (window.skip - skipped).min(SKIP_CHUNK);
            let got = origin.read(buf.room(len as usize)?, &control)?;
            if (got as u64) < len {
                return Err(cannot_skip());
            }
            skipped += len;
        }
        Ok(Box::new(Self {
            origin,
            window,
            known,
            control,
            max_size: policy.max_virtual_size,
            state: Mutex::new(State {
                ahead,
                used: in_head as usize,
                ..State::default()
            }),
            pieces: Mutex::default(),
        }))
    }

    /// The length of the output, if it is known already.
    pub fn output_len(&self) -> Result<Option<u64>> {
        match (self.known, self.window.output_size) {
            (None, None) => Ok(None),
            (known, _) => output_len(known.unwrap_or(0), &self.window).map(Some),
        }
    }

    /// The number of bytes to copy, if it or the size of the output is known already.
    pub fn known_data(&self) -> Option<u64> {
        self.known.or(self.window.output_size)
    }

    /// Maximum number of bytes to copy.
    fn most(&self) -> u64 {
        let size = self.window.output_size;
        self.known
            .or(self.window.limit)
            .unwrap_or(u64::MAX)
            .min(size.unwrap_or(u64::MAX))
    }

    /// Reads on: the `len` bytes of the output at `offset`. Called in order, one call at a time.
    pub fn fetch(&self, offset: u64, len: u64, zeroes: Zeroes) -> Result<Fetched> {
        let mut state = self.state.lock();
        let left = self.most() - state.taken;
        if !state.ended && left > 0 {
            let passed = self.origin.pass_zeroes(zeroes, left)?;
            if passed > 0 {
                state.taken += passed;
                return Ok(Fetched::Zeroes(Some(passed)));
            }
        }
        let wanted = len.min(self.most() - state.taken);
        if !state.ended && wanted > 0 {
            let mut piece = self.pieces.lock().spare.pop().unwrap_or_default();
            let got = self.read(&mut state, piece.room(wanted as usize)?)?;
            if got < wanted {
                self.end(&mut state, got)?;
            }
            state.taken += got;
            if state.taken > self.max_size {
                return Err(Error::new(
                    ErrorKind::Limit,
                    format!(
                        "'{}' is longer than the open policy allows ({})",
                        self.origin.name, self.max_size
                    ),
                ));
            }
            if got > 0 {
                // Disks consist of whole sectors; if the output continues, of whole pieces.
                let whole = match self.output_len()? {
                    Some(_) => len,
                    None => round_up_sector(got).unwrap_or(got),
                };
                piece.truncate(got as usize);
                piece.resize(whole as usize)?;
                self.pieces.lock().ready.push((offset, piece));
                return Ok(Fetched::Data(whole));
            }
        }
        Ok(if self.output_len()?.is_some() {
            Fetched::Zeroes(None)
        } else {
            Fetched::End
        })
    }

    fn read(&self, state: &mut State, buf: &mut [u8]) -> Result<u64> {
        let ahead = &state.ahead[state.used..];
        let head = ahead.len().min(buf.len());
        let (first, rest) = buf.split_at_mut(head);
        first.copy_from_slice(&ahead[..head]);
        state.used += head;
        let got = self.origin.read(rest, &self.control)?;
        Ok((head + got) as u64)
    }

    /// Handles the end of the stream, `got` bytes after what was taken.
    fn end(&self, state: &mut State, got: u64) -> Result<()> {
        state.ended = true;
        match self.known {
            Some(known) if state.taken + got < known => Err(Error::new(
                ErrorKind::Os,
                format!(
                    "'{}' ended after {} of {} bytes",
                    self.origin.name,
                    self.window.skip + state.taken + got,
                    self.window.skip + known
                ),
            )),
            _ => Ok(()),
        }
    }

    /// What is at `offset`: bytes that were read, or the zeroes after them.
    pub fn map(&self, offset: u64, len: u64) -> Run<'static> {
        let pieces = self.pieces.lock();
        let found = pieces.ready.iter().find_map(|(start, piece)| {
            let end = start + piece.len() as u64;
            (*start <= offset && offset < end).then(|| end - offset)
        });
        match found {
            Some(held) => Run {
                len: len.min(held),
                kind: RunKind::Data { plain: None },
            },
            None => Run {
                len,
                kind: RunKind::Zero,
            },
        }
    }

    /// Hands out the bytes at `offset`; those of a piece are taken in order.
    pub fn take(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut pieces = self.pieces.lock();
        let at = pieces.ready.iter().position(|(start, piece)| {
            *start <= offset && offset + buf.len() as u64 <= start + piece.len() as u64
        });
        let Some(at) = at else {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("Offset {offset} of the stream was not read"),
            ));
        };
        let (start, piece) = pieces.ready.swap_remove(at);
        drop(pieces);
        let from = (offset - start) as usize;
        buf.copy_from_slice(&piece[from..from + buf.len()]);
        let mut pieces = self.pieces.lock();
        if from + buf.len() < piece.len() {
            pieces.ready.push((start, piece));
        } else {
            pieces.spare.push(piece);
        }
        Ok(())
    }

    /// After everything was copied: the input must not continue. Returns the length of the output.
    pub fn finish(&self) -> Result<u64> {
        let mut state = self.state.lock();
        let cut = self.known.is_none() && self.window.limit.is_none_or(|l| l > state.taken);
        if let (Some(size), true, false) = (self.window.output_size, cut, state.ended)
            && (self.read(&mut state, &mut [0])? > 0)
        {
            return Err(longer_than_output(size));
        }
        // Only the end of a compressed file shows whether it is complete.
        let whole = self.window.limit.is_none() && self.window.input_size.is_none();
        if whole {
            self.origin.end()?;
        }
        if self.origin.is_packed() && whole && !state.ended && self.read(&mut state, &mut [0])? > 0
        {
            let text = format!("'{}' holds more bytes than it says", self.origin.name);
            return Err(Error::corrupt(text));
        }
        match self.output_len()? {
            Some(len) => Ok(len),
            None => output_len(state.taken, &self.window),
        }
    }
}

/// The format of the image that begins like this; it was hardly meant to be copied as a disk.
fn recognised(head: &[u8]) -> Option<&'static str> {
    probe::recognise(&Probe {
        head,
        name: BStr::new(""),
    })
}
