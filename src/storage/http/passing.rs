//! An image on a server without byte ranges, read in one pass. A read past what has been received receives more, and
//! what has been received stays cached for a while.

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::storage::remote::{self, Failure, Lanes, Next, Sink, cut};

use super::flow::Flow;
use super::source::{SPOOL_HINT, Source, changed};
use super::window::{UNIT, Window};

/// The image.
#[derive(Debug)]
pub(super) struct Passing {
    source: Source,
    len: u64,
    /// Only one, because the bytes arrive in order.
    lanes: Lanes,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What remains to be received; None if the connection was lost.
    flow: Option<Box<Flow>>,
    window: Window,
    /// Digest of all bytes received so far: over another connection, the image must begin with the same bytes.
    sum: Sha256,
}

impl Passing {
    /// For an image of `len` bytes, all of which `flow` will deliver.
    pub(super) fn new(source: Source, len: u64, flow: Box<Flow>) -> Self {
        Self {
            source,
            len,
            lanes: Lanes::new(1),
            state: Mutex::new(State {
                flow: Some(flow),
                window: Window::default(),
                sum: Sha256::new(),
            }),
        }
    }

    /// Receives the next unit, over another connection if one is lost.
    fn forward(&self, state: &mut State, control: &JobControl) -> Result<()> {
        let mut tries = self.source.tries();
        loop {
            let Err(failure) = self.try_forward(state, control) else {
                tries.succeeded();
                return Ok(());
            };
            state.flow = None;
            control.check()?;
            if failure.next == Next::Nothing || !tries.wait(failure.after, control)? {
                return Err(failure.error);
            }
            self.source.forget_place();
        }
    }

    fn try_forward(&self, state: &mut State, control: &JobControl) -> Result<(), Failure> {
        let State { flow, window, sum } = state;
        let flow = match flow {
            Some(flow) => flow,
            None => flow.insert(Box::new(self.again(window.end(), sum, control)?)),
        };
        let mut unit = window.room()?;
        let left = usize::try_from(self.len - window.end()).unwrap_or(usize::MAX);
        unit.resize(left.min(UNIT))?;
        if flow.fill(&mut unit, self.source.terms(), control)? < unit.len() {
            return Err(cut().into());
        }
        sum.update(&unit);
        window.push(unit)?;
        Ok(())
    }

    /// Starts over, and advances to where the image was read up to.
    fn again(&self, to: u64, sum: &Sha256, control: &JobControl) -> Result<Flow, Failure> {
        let mut flow = self.source.ask_all(control)?;
        let mut again = Sha256::new();
        let mut unit = crate::memory::zeroed(UNIT)?;
        let mut at = 0;
        while at < to {
            let most = usize::try_from(to - at).unwrap_or(UNIT).min(UNIT);
            let part = unit.get_mut(..most).unwrap_or_default();
            if flow.fill(part, self.source.terms(), control)? < most {
                return Err(cut().into());
            }
            again.update(part);
            at += most as u64;
        }
        match again.finalize() == sum.clone().finalize() {
            true => Ok(flow),
            false => Err(Failure::last(changed())),
        }
    }

    fn gone(&self) -> Error {
        Error::unsupported("The server knows no byte ranges, and these bytes went by already")
            .with_hint(SPOOL_HINT)
    }
}

impl remote::Source for Passing {
    fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    fn read(
        &self,
        (start, end): (u64, u64),
        sink: &mut dyn Sink,
        control: &JobControl,
    ) -> Result<()> {
        let mut state = self.state.lock();
        let mut at = start;
        let failed = |error: Error, at: u64| match error.kind() {
            ErrorKind::Cancelled => error,
            _ => error.context(format!(
                "Could not read '{}' at offset {at}",
                self.source.name()
            )),
        };
        while at < end {
            if at >= state.window.end() {
                control.check()?;
                self.forward(&mut state, control)
                    .map_err(|error| failed(error, at))?;
                continue;
            }
            let kept = state.window.at(at);
            let kept = kept.ok_or_else(|| failed(self.gone(), at))?;
            let room = sink.room()?;
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let len = kept.len().min(room.len()).min(left);
            let both = room.get_mut(..len).zip(kept.get(..len));
            if let Some((room, kept)) = both.filter(|_| len > 0) {
                room.copy_from_slice(kept);
            } else {
                return Err(Error::new(
                    ErrorKind::Internal,
                    "There is no room for what comes",
                ));
            }
            sink.came(len)?;
            at += len as u64;
        }
        Ok(())
    }
}
