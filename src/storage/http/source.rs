//! An image on a server: where it really is, whether it is still the same, and how failed requests are handled.

use bstr::{BStr, BString, ByteSlice};
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::memory::{self, IoBuf};
use crate::net::Url;
use crate::policy::{ImplicitAnswer, ImplicitFile, ImplicitRole, OpenPolicy};
use crate::storage::outage::Outage;
use crate::storage::remote::{
    self, Buffer, Counted, Failure, Lanes, Next, Sink, Terms, Tries, absent_at_first, cut, opening,
    violation,
};

use super::client::{Answer, Asking, Client, origin, port};
use super::connection::Piece;
use super::flow::Flow;
use super::head::{Framing, Head, is_busy};
use super::options::WithoutRanges;
use super::proxy::PROXY_HINT;

/// Maximum number of redirects to follow.
const MAX_HOPS: usize = 10;
/// Maximum number of retries when a server no longer has the image.
const MAX_MISSING: u32 = 3;
/// Size of the first request: enough to tell the format of most images.
const FIRST: u64 = 64 << 10;

/// The remedy for a server without byte ranges, whatever is read.
pub(super) const SPOOL_HINT: &str =
    "With the option 'spool', all that the server sends is taken into a temporary file first";

/// What is known of the image; it must not change.
#[derive(Clone, Debug)]
struct Known {
    len: u64,
    etag: Option<Vec<u8>>,
    modified: Option<Vec<u8>>,
    /// The origin of the response that said so.
    origin: String,
}

/// The image.
#[derive(Debug)]
pub(super) struct Source {
    client: Client,
    name: BString,
    policy: OpenPolicy,
    /// It is named by another image.
    named_by_image: bool,
    state: Mutex<State>,
    outage: Outage,
}

#[derive(Debug, Default)]
struct State {
    /// Where redirects led, so that they need not be followed each time.
    found: Option<Url>,
    known: Option<Known>,
}

/// The outcome of the first request.
#[derive(Debug)]
pub(super) enum Opened {
    /// The server supports ranges: the length of the image, and its beginning.
    Ranges(u64, IoBuf),
    /// The server only sends the whole image, to be fetched at once.
    Whole,
    /// The server only sends the whole image, to be read in order: its length, and its bytes from the first on.
    InOrder(u64, Box<Flow>),
}

fn status_error(status: u16) -> Error {
    let error = Error::new(
        match status {
            401 | 403 | 407 => ErrorKind::Denied,
            404 | 410 => ErrorKind::NotFound,
            _ => ErrorKind::Os,
        },
        format!("The requested URL returned error: {status}"),
    );
    match status {
        401 => error.with_hint(
            "The server wants to know who asks: give a user and a secret with the password",
        ),
        407 => error.with_hint(PROXY_HINT),
        _ => error,
    }
}

/// The error for a server without byte ranges.
fn no_ranges() -> Error {
    Error::unsupported("Server does not support 'range' (byte ranges).")
        .with_hint(SPOOL_HINT)
        .with_hint("With the option 'stream', an image that is read from its beginning to its end is taken in one pass")
}

/// The length of the image according to a response with all of it.
fn told_len(head: &Head) -> Option<u64> {
    match head.framing {
        Framing::Length(len) => Some(len),
        _ => None,
    }
}

impl Source {
    pub(super) fn new(
        client: Client,
        name: BString,
        policy: OpenPolicy,
        named_by_image: bool,
    ) -> Self {
        Self {
            client,
            name,
            policy,
            named_by_image,
            state: Mutex::default(),
            outage: Outage::default(),
        }
    }

    pub(super) fn name(&self) -> &BStr {
        self.name.as_bstr()
    }

    /// The terms on which the server is queried.
    pub(super) fn terms(&self) -> &Terms {
        self.client.terms()
    }

    /// The retries of a request for bytes of the image.
    pub(super) fn tries(&self) -> Tries<'_> {
        Tries::new(&self.outage, self.terms().retry)
    }

    pub(super) fn policy(&self) -> &OpenPolicy {
        &self.policy
    }

    /// Requests the beginning of the image, and learns its length.
    ///
    /// # Errors
    /// Errors of the server.
    pub(super) fn open(&self, control: &JobControl) -> Result<Opened> {
        self.opening(control, || self.try_open(control))
    }

    /// Retries an attempt if the server may only have been busy.
    pub(super) fn opening<T>(
        &self,
        control: &JobControl,
        attempt: impl Fn() -> Result<T, Failure>,
    ) -> Result<T> {
        opening(self.client.terms().retry_opening, control, || {
            attempt().inspect_err(|_| self.forget_place())
        })
    }

    fn try_open(&self, control: &JobControl) -> Result<Opened, Failure> {
        let asking = Asking {
            range: Some((0, FIRST)),
            afresh: false,
        };
        let _lane = self.client.lanes().take(control)?;
        let (url, mut answer) = self.follow(asking, control)?;
        let range = answer.head.range;
        let (end, len) = match answer.head.status {
            206 => {
                let range = range.ok_or_else(|| {
                    violation("The server does not tell which part of the image it sends")
                })?;
                let len = range
                    .whole
                    .ok_or_else(|| violation("The server does not tell how long the image is"))?;
                match range.part {
                    Some((0, end)) if end <= FIRST => (end, len),
                    _ => return Err(other_range(&answer.head, 0).into()),
                }
            }
            // An empty image has no range.
            416 if range.is_some_and(|range| range.whole == Some(0)) => (0, 0),
            200 if answer.body.has_ended() => (0, 0),
            200 => return self.without_ranges(url, answer),
            status => return Err(refused(status, &answer.head, true)),
        };
        check_body(&answer, end)?;
        let mut first = memory::zeroed(usize::try_from(end).unwrap_or(0))?;
        self.body(&mut answer, &mut Buffer::new(&mut first), end, control)?;
        self.keep(&url, &answer.head, len);
        self.client.give_back(&url, answer, control);
        Ok(Opened::Ranges(len, first))
    }

    fn keep(&self, url: &Url, head: &Head, len: u64) {
        let mut state = self.state.lock();
        state.known = Some(Known {
            len,
            etag: head.etag.clone(),
            modified: head.modified.clone(),
            origin: origin(url),
        });
        state.found = Some(url.clone());
    }

    /// Requests the whole image; what is known of it must still be true.
    ///
    /// # Errors
    /// Errors of the server.
    pub(super) fn ask_all(&self, control: &JobControl) -> Result<Flow, Failure> {
        let asking = Asking {
            range: None,
            afresh: false,
        };
        let (url, answer) = self.follow(asking, control)?;
        if answer.head.status != 200 {
            return Err(refused(answer.head.status, &answer.head, true));
        }
        let known = self.state.lock().known.clone();
        if let Some(known) = known {
            check_same(&known, told_len(&answer.head), &answer.head, &url)?;
        }
        self.flow(answer)
    }

    /// The body of a response with the whole image.
    fn flow(&self, answer: Answer) -> Result<Flow, Failure> {
        if answer.head.coded {
            return Err(violation("The server sends the image in another coding").into());
        }
        if answer.head.framing == Framing::Close {
            let message = "The server tells neither ranges nor the end of the image: a part could not be told from all";
            return Err(Failure::last(violation(message)));
        }
        Ok(Flow::new(answer))
    }

    /// How to go on after the response of a server without byte ranges.
    fn without_ranges(&self, url: Url, answer: Answer) -> Result<Opened, Failure> {
        match self.client.settings().without_ranges {
            WithoutRanges::Refused => Err(Failure::last(no_ranges())),
            WithoutRanges::Spooled => {
                self.state.lock().found = Some(url);
                Ok(Opened::Whole)
            }
            WithoutRanges::InOrder => {
                let len = told_len(&answer.head).ok_or_else(|| {
                    let error = Error::unsupported(
                        "The server does not tell how long the image is, which is read in order",
                    );
                    Failure::last(error.with_hint(SPOOL_HINT))
                })?;
                self.keep(&url, &answer.head, len);
                Ok(Opened::InOrder(len, Box::new(self.flow(answer)?)))
            }
        }
    }

    /// From now on the image is looked up from its own URL, because another server may have it.
    pub(super) fn forget_place(&self) {
        self.state.lock().found = None;
    }

    /// One request, for what remains of a range.
    fn attempt(
        &self,
        at: &mut u64,
        end: u64,
        afresh: bool,
        sink: &mut dyn Sink,
        control: &JobControl,
    ) -> Result<(), Failure> {
        let asking = Asking {
            range: Some((*at, end)),
            afresh,
        };
        let (url, mut answer) = self.follow(asking, control)?;
        let known = self.state.lock().known.clone();
        let known = known
            .ok_or_else(|| Error::new(ErrorKind::Internal, "Nothing is known of the image"))?;
        let (status, range) = (answer.head.status, answer.head.range);
        let until = match (status, range) {
            (206, Some(range)) => {
                check_same(&known, range.whole, &answer.head, &url)?;
                match range.part {
                    Some((from, until)) if from == *at && until <= end => until,
                    _ => return Err(other_range(&answer.head, *at).into()),
                }
            }
            (206, None) => return Err(other_range(&answer.head, *at).into()),
            // The whole image is what was requested.
            (200, _) if (*at, end) == (0, known.len) => {
                check_same(&known, told_len(&answer.head), &answer.head, &url)?;
                end
            }
            (200, _) => {
                check_same(&known, told_len(&answer.head), &answer.head, &url)?;
                return Err(Failure {
                    error: no_ranges(),
                    next: Next::Elsewhere,
                    after: None,
                });
            }
            (416, _) => {
                let whole = range.and_then(|range| range.whole);
                if whole.is_some_and(|whole| whole != known.len) {
                    check_same(&known, whole, &answer.head, &url)?;
                }
                return Err(Failure {
                    error: status_error(416).context(format!(
                        "{} for the bytes {}-{} of {}",
                        url.without_query(),
                        *at,
                        end - 1,
                        known.len
                    )),
                    next: Next::Elsewhere,
                    after: None,
                });
            }
            (status, _) => return Err(refused(status, &answer.head, false)),
        };
        check_body(&answer, until - *at)?;
        let from = *at;
        let mut counted = Counted { sink, at };
        self.body(&mut answer, &mut counted, until - from, control)?;
        self.state.lock().found = Some(url.clone());
        self.client.give_back(&url, answer, control);
        Ok(())
    }

    /// Receives a body of `len` bytes.
    fn body(
        &self,
        answer: &mut Answer,
        sink: &mut dyn Sink,
        len: u64,
        control: &JobControl,
    ) -> Result<()> {
        let over = self.client.terms().body_end(len);
        let mut left = len;
        while left > 0 {
            let room = sink.room()?;
            let most = room.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let room = room.get_mut(..most).unwrap_or_default();
            let wait = self.client.terms().wait(control).until(over);
            let read = answer.connection.read(&mut answer.body, room, wait);
            let n = match read.map_err(|error| self.client.terms().silent(error, control))? {
                Piece::Bytes(0) => {
                    return Err(Error::new(
                        ErrorKind::Internal,
                        "There is no room for what comes",
                    ));
                }
                Piece::Bytes(n) => n,
                Piece::End => return Err(cut()),
            };
            left = left.saturating_sub(n as u64);
            sink.came(n)?;
        }
        Ok(())
    }

    /// Sends the request to where the image was last found, and follows redirects from there.
    fn follow(&self, asking: Asking, control: &JobControl) -> Result<(Url, Answer), Failure> {
        let own = &self.client.settings().url;
        let (found, is_first) = {
            let state = self.state.lock();
            (state.found.clone(), state.known.is_none())
        };
        let mut is_own = found.is_none();
        let mut url = found.unwrap_or_else(|| own.clone());
        for _ in 0..=MAX_HOPS {
            let answer = self.client.ask(&url, asking, control);
            let answer = answer.map_err(|error| match is_first && is_own {
                true => absent_at_first(error.into()),
                false => error.into(),
            })?;
            if !matches!(answer.head.status, 301 | 302 | 303 | 307 | 308) {
                // A location that was found earlier may have moved, or may have been valid for a limited time.
                if !is_own && answer.head.status >= 400 && answer.head.status != 416 {
                    let mut failure = refused(answer.head.status, &answer.head, false);
                    if failure.next == Next::Nothing && !is_first {
                        failure.next = Next::Elsewhere;
                    }
                    return Err(failure);
                }
                return Ok((url, answer));
            }
            let location = answer.head.location.clone();
            let location = location.ok_or_else(|| violation("The server sends on to nowhere"))?;
            let next = url.join(location.as_bstr()).map_err(|error| Failure {
                error: error.context("The server sends on to what is no URL"),
                next: Next::Nothing,
                after: None,
            })?;
            self.check_hop(&url, &next)?;
            self.client.give_back(&url, answer, control);
            url = next;
            is_own = false;
        }
        Err(Failure {
            error: violation(format!("Maximum ({MAX_HOPS}) redirects followed")),
            next: Next::Nothing,
            after: None,
        })
    }

    /// Checks whether one server may redirect to another.
    fn check_hop(&self, from: &Url, to: &Url) -> Result<(), Failure> {
        let denied = |message: String| Failure::from(Error::new(ErrorKind::Denied, message));
        let shown = to.without_query();
        if to.scheme != "http" && to.scheme != "https" {
            return Err(denied(format!(
                "The server sends on to '{shown}', which is no URL of HTTP"
            )));
        }
        if from.scheme == "https" && to.scheme == "http" {
            return Err(denied(format!(
                "The server sends on to '{shown}', which is not encrypted"
            )));
        }
        self.policy.check_protocol(&to.scheme)?;
        if self.named_by_image && origin(from) != origin(to) {
            self.policy.check_host(Some(&to.host), Some(port(to)))?;
            let answer = self.policy.check_implicit(&ImplicitFile {
                role: ImplicitRole::Backing,
                name: shown.as_bytes().as_bstr(),
                named_by: self.name(),
                path: None,
                writable: false,
            })?;
            if !matches!(answer, ImplicitAnswer::Open) {
                return Err(denied(format!("The open policy does not allow '{shown}'")));
            }
        }
        Ok(())
    }
}

impl remote::Source for Source {
    fn lanes(&self) -> &Lanes {
        self.client.lanes()
    }

    fn read(
        &self,
        (start, end): (u64, u64),
        sink: &mut dyn Sink,
        control: &JobControl,
    ) -> Result<()> {
        let mut at = start;
        let mut tries = self.tries();
        let mut missing = 0;
        let mut afresh = false;
        while at < end {
            let before = at;
            let attempt = self.attempt(&mut at, end, afresh, sink, control);
            if at > before {
                tries.succeeded();
            }
            let Err(failure) = attempt else {
                continue;
            };
            control.check()?;
            let error = failure.error;
            missing += u32::from(failure.next == Next::Elsewhere);
            afresh |= failure.next == Next::Elsewhere;
            let over = failure.next == Next::Nothing || missing > MAX_MISSING;
            if over || !tries.wait(failure.after, control)? {
                return Err(match error.kind() {
                    ErrorKind::Cancelled => error,
                    _ => error.context(format!("Could not read '{}' at offset {at}", self.name)),
                });
            }
            self.forget_place();
        }
        Ok(())
    }
}

/// The failure for a status without data.
fn refused(status: u16, head: &Head, first: bool) -> Failure {
    let next = match status {
        _ if is_busy(status) => Next::Again,
        403 | 404 | 410 if !first => Next::Elsewhere,
        _ => Next::Nothing,
    };
    Failure {
        error: status_error(status),
        next,
        after: head.retry_after,
    }
}

fn other_range(head: &Head, at: u64) -> Error {
    let given = match head.range.and_then(|range| range.part) {
        Some((from, until)) => format!("the bytes {from}-{until}"),
        None => "no range".to_owned(),
    };
    violation(format!(
        "The server sent {given} where those from {at} on were asked for"
    ))
}

/// Checks whether a body can be what was requested.
fn check_body(answer: &Answer, len: u64) -> Result<()> {
    if answer.head.coded {
        return Err(violation("The server sends the image in another coding"));
    }
    match answer.head.framing {
        Framing::Length(told) if answer.head.status != 416 && told != len => Err(violation(
            format!("The server sends {told} bytes where it says that they are {len}"),
        )),
        _ => Ok(()),
    }
}

/// Checks whether a response is for the same image.
fn check_same(known: &Known, len: Option<u64>, head: &Head, url: &Url) -> Result<()> {
    let differs = |was: &Option<Vec<u8>>, is: &Option<Vec<u8>>| match (was, is) {
        (Some(was), Some(is)) => was != is,
        _ => false,
    };
    let modified = differs(&known.modified, &head.modified);
    let etag = differs(&known.etag, &head.etag);
    // Mirrors of the same files have ETags of their own.
    let elsewhere = known.origin != origin(url);
    let same_time = known.modified.is_some() && known.modified == head.modified;
    let differs =
        len.is_some_and(|len| len != known.len) || modified || (etag && !(elsewhere && same_time));
    match differs {
        false => Ok(()),
        true => Err(changed()),
    }
}

/// The error for an image that has changed.
pub(super) fn changed() -> Error {
    Error::new(
        ErrorKind::Os,
        "The image on the server is not what it was before",
    )
    .with_errno(libc::ESTALE)
}
