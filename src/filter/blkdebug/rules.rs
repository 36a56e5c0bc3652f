//! When to fail: rules that events switch on, and a state that events change.

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::options::Values;
use crate::storage::Step;

/// Kinds of requests, by the names of `iotype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Read,
    Write,
    WriteZeroes,
    Discard,
    Flush,
    BlockStatus,
}

impl Request {
    /// All names.
    pub(super) const NAMES: &'static [&'static str] = &[
        "read",
        "write",
        "write-zeroes",
        "discard",
        "flush",
        "block-status",
    ];

    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "read" => Self::Read,
            "write" => Self::Write,
            "write-zeroes" => Self::WriteZeroes,
            "discard" => Self::Discard,
            "flush" => Self::Flush,
            "block-status" => Self::BlockStatus,
            _ => return None,
        })
    }
}

/// Fails requests once its event has occurred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Injection {
    event: Step,
    /// The state that it needs; 0: any.
    state: u64,
    /// The requests that it fails; None: all.
    request: Option<Request>,
    errno: i32,
    /// The byte that a request must touch to fail.
    at: Option<u64>,
    once: bool,
}

/// Changes the state when its event occurs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    event: Step,
    state: u64,
    new_state: u64,
}

/// All rules, in the order in which they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) injections: Vec<Injection>,
    pub(super) transitions: Vec<Transition>,
}

fn event(values: &Values) -> Result<Step> {
    let name = values
        .str("event")
        .ok_or_else(|| Error::invalid("Missing event name for rule"))?;
    Step::from_name(name).ok_or_else(|| not_accepted(name))
}

pub(super) fn not_accepted(value: &str) -> Error {
    Error::invalid_value(value)
}

impl Injection {
    /// From the values of an `inject-error` rule.
    pub(super) fn new(values: &Values) -> Result<Self> {
        let request = values.str("iotype");
        Ok(Self {
            event: event(values)?,
            state: values.num("state").unwrap_or(0),
            request: request
                .map(|name| Request::from_name(name).ok_or_else(|| not_accepted(name)))
                .transpose()?,
            // A number that no call can fail with fails none.
            errno: (values.num("errno"))
                .map_or(libc::EIO, |errno| i32::try_from(errno).unwrap_or_default()),
            // The largest number stands for any sector.
            at: (values.num("sector").filter(|sector| *sector != u64::MAX))
                .map(|sector| sector.saturating_mul(512)),
            once: values.bool("once").unwrap_or(false),
        })
    }

    fn fails(&self, request: Request, offset: u64, len: u64) -> bool {
        let is_meant = match self.request {
            Some(wanted) => wanted == request,
            // A question changes nothing: it fails only where the rule names its kind.
            None => request != Request::BlockStatus,
        };
        is_meant && self.at.is_none_or(|at| at >= offset && at - offset < len)
    }
}

impl Transition {
    /// From the values of a `set-state` rule.
    pub(super) fn new(values: &Values) -> Result<Self> {
        Ok(Self {
            event: event(values)?,
            state: values.num("state").unwrap_or(0),
            new_state: values.num("new_state").unwrap_or(0),
        })
    }
}

#[derive(Debug)]
struct State {
    state: u64,
    /// The injections that the last event to switch any on has left on.
    on: Vec<usize>,
    /// Those that fail only one request, and have done so.
    spent: Vec<bool>,
}

/// The rules at work.
#[derive(Debug)]
pub(super) struct Engine {
    rules: Rules,
    state: Mutex<State>,
}

impl Engine {
    /// In its first state, in which rules of no event are on.
    pub(super) fn new(rules: Rules) -> Self {
        let engine = Self {
            state: Mutex::new(State {
                state: 1,
                on: Vec::new(),
                spent: vec![false; rules.injections.len()],
            }),
            rules,
        };
        engine.occurs(Step::None);
        engine
    }

    /// An event occurs.
    pub(super) fn occurs(&self, event: Step) {
        super::EVENT.emit(|| format!("event={}", event.name()));
        let mut state = self.state.lock();
        let fits = |rule: u64, state: u64| rule == 0 || rule == state;
        let injections = self.rules.injections.iter().enumerate();
        let on: Vec<usize> = injections
            .filter(|(at, rule)| {
                rule.event == event && fits(rule.state, state.state) && !state.spent[*at]
            })
            .map(|(at, _)| at)
            .collect();
        if !on.is_empty() {
            state.on = on;
        }
        let now = state.state;
        let mut transitions = self.rules.transitions.iter();
        // Of several, the first one counts.
        if let Some(rule) = transitions.find(|rule| rule.event == event && fits(rule.state, now)) {
            state.state = rule.new_state;
        }
    }

    /// Fails a request where a rule says so.
    pub(super) fn check(&self, request: Request, offset: u64, len: u64) -> Result<()> {
        let mut state = self.state.lock();
        let injections = &self.rules.injections;
        let found = state
            .on
            .iter()
            .position(|at| injections[*at].fails(request, offset, len));
        let Some(found) = found else {
            return Ok(());
        };
        let at = state.on[found];
        if injections[at].once {
            state.on.remove(found);
            state.spent[at] = true;
        }
        match injections[at].errno {
            0 => Ok(()),
            errno => Err(Error::os(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::config;
    use super::*;

    fn engine(text: &str) -> Engine {
        Engine::new(config::parse(text.as_bytes()).unwrap())
    }

    fn errno(engine: &Engine, request: Request, offset: u64) -> Option<i32> {
        let outcome = engine.check(request, offset, 512);
        outcome.err().and_then(|error| error.os_errno())
    }

    #[test]
    fn a_rule_stays_on_until_another_event_switches_rules_on() {
        let rules = engine(
            "[inject-error]\nevent = \"read_aio\"\nerrno = \"28\"\n\
             [inject-error]\nevent = \"write_aio\"\nonce = \"on\"\n",
        );
        assert_eq!(errno(&rules, Request::Read, 0), None);
        rules.occurs(Step::ReadAio);
        assert_eq!(errno(&rules, Request::Read, 0), Some(28));
        rules.occurs(Step::L2Load);
        assert_eq!(errno(&rules, Request::Flush, 0), Some(28));
        rules.occurs(Step::WriteAio);
        assert_eq!(errno(&rules, Request::Write, 0), Some(5));
        assert_eq!(errno(&rules, Request::Write, 0), None);
        rules.occurs(Step::WriteAio);
        assert_eq!(errno(&rules, Request::Write, 0), None);
        rules.occurs(Step::ReadAio);
        assert_eq!(errno(&rules, Request::Write, 0), Some(28));
    }

    #[test]
    fn states_tell_events_of_one_name_apart() {
        let rules = engine(
            "[set-state]\nevent = \"read_aio\"\nstate = \"1\"\nnew_state = \"2\"\n\
             [inject-error]\nevent = \"read_aio\"\nstate = \"1\"\nonce = \"on\"\n\
             [inject-error]\nevent = \"read_aio\"\nstate = \"2\"\nerrno = \"28\"\nonce = \"on\"\n",
        );
        let mut seen = Vec::new();
        for _ in 0..3 {
            rules.occurs(Step::ReadAio);
            seen.push(errno(&rules, Request::Read, 0));
        }
        assert_eq!(seen, [Some(5), Some(28), None]);
    }

    #[test]
    fn a_rule_can_want_a_kind_of_request_and_a_sector() {
        let rules = engine(
            "[inject-error]\nevent = \"none\"\niotype = \"read\"\nsector = \"3\"\n\
             [inject-error]\nevent = \"none\"\niotype = \"flush\"\nerrno = \"0\"\n",
        );
        assert_eq!(errno(&rules, Request::Write, 1536), None);
        assert_eq!(errno(&rules, Request::Read, 1024), None);
        assert_eq!(errno(&rules, Request::Read, 1025), Some(5));
        assert_eq!(errno(&rules, Request::Read, 1537), None);
        assert_eq!(errno(&rules, Request::Flush, 0), None);
    }
}
