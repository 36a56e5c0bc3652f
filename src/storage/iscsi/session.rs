//! Sessions with a target.

use std::ffi::c_int;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::net::{Address, Wait, numbers};
use crate::storage::engine::{Engine, Link, serve_until};
use crate::sys::libiscsi::{self, Command, Data, Done, Session, Status, Step};

use super::options::{Settings, portal};

/// Timeout for connecting and logging in to one address of a host.
const LOGIN: Duration = Duration::from_secs(20);
/// Maximum number of portals to try in a row while the target redirects logins.
const MOVES: usize = 4;
/// Interval of pings to a target that owes replies, and how many of them may go unanswered in a row.
const ASK: Duration = Duration::from_secs(5);
const QUIET: u32 = 3;

/// A session that is served by one thread.
pub(super) struct Initiator {
    session: Session,
    /// The LUN as encoded in commands.
    lun: u16,
    asked: Instant,
    /// Completed commands that have not been fetched yet.
    done: Vec<Done>,
}

/// A session that accepts commands.
pub(super) type Connection = Link<Initiator>;

fn lost(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::Os, reason).with_errno(libc::ECONNRESET)
}

impl Engine for Initiator {
    type Request = Command;
    type Reply = (Status, Data);

    fn submit(&mut self, token: u64, request: Command) -> Result<()> {
        let done = self.session.submit(self.lun, token, request);
        done.map_err(lost)
    }

    fn events(&self) -> (RawFd, c_int) {
        self.session.events()
    }

    fn serve(&mut self, ready: c_int) -> Result<()> {
        self.session.serve(ready).map_err(lost)?;
        self.done.extend(self.session.done());
        // The library cancels all commands when it loses the target, and goes on as if nothing had happened: whoever
        // notices has to find the connection lost.
        if self
            .done
            .iter()
            .any(|done| done.status == Status::Cancelled)
        {
            return Err(lost("The target ended the connection"));
        }
        let gone = c_int::from(libc::POLLERR | libc::POLLHUP | libc::POLLNVAL);
        match ready & gone != 0 || self.session.events().0 < 0 {
            true => Err(lost("The target ended the connection")),
            false => Ok(()),
        }
    }

    fn replies(&mut self) -> Vec<(u64, (Status, Data))> {
        let mut done = std::mem::take(&mut self.done);
        done.extend(self.session.done());
        let done = done.into_iter();
        done.map(
            |Done {
                 token,
                 status,
                 command,
             }| (token, (status, command.data)),
        )
        .collect()
    }

    fn tick(&mut self, under_way: usize) -> Result<()> {
        if under_way == 0 || self.asked.elapsed() < ASK {
            return Ok(());
        }
        if self.session.unanswered() >= QUIET {
            return Err(
                Error::new(ErrorKind::Os, "The target does not answer").with_errno(libc::ETIMEDOUT)
            );
        }
        self.asked = Instant::now();
        self.session.ask().map_err(lost)
    }

    fn part(&mut self) -> bool {
        self.session.log_out().is_ok()
    }

    fn is_over(&mut self) -> bool {
        self.session.step().is_some()
    }
}

/// Establishes a session. All addresses of the host are tried in turn, and redirects by the target are followed.
///
/// # Errors
/// If the connection fails, the target refuses, or `control` ends the wait.
pub(super) fn connect(settings: &Settings, control: &JobControl) -> Result<Connection> {
    libiscsi::check().map_err(Error::unsupported)?;
    let mut at = (settings.host.clone(), settings.port);
    for _ in 0..MOVES {
        let address = Address::inet(at.0.clone(), at.1);
        let mut failed = None;
        for number in numbers(&at.0, at.1, Wait::new(control))? {
            match connect_to(settings, number, control) {
                Ok(Reached::Target(initiator)) => return Link::new("iscsi", *initiator),
                Ok(Reached::Moved(place)) => {
                    failed = None;
                    at = portal(&place)?;
                    if let Some(policy) = &settings.policy {
                        policy.check_host(Some(&at.0), Some(at.1))?;
                    }
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            return Err(error.context(format!("iSCSI: Failed to connect to '{address}'")));
        }
    }
    Err(lost("iSCSI: The target has moved too many times"))
}

enum Reached {
    Target(Box<Initiator>),
    /// The target redirects to another portal.
    Moved(String),
}

fn connect_to(settings: &Settings, number: SocketAddr, control: &JobControl) -> Result<Reached> {
    let session = Session::new(&settings.wanted()).map_err(Error::invalid)?;
    let mut initiator = Initiator {
        session,
        lun: settings.address,
        asked: Instant::now(),
        done: Vec::new(),
    };
    let wait = Wait::new(control).at_most(LOGIN);
    let begun = initiator.session.connect(&number.to_string());
    begun.map_err(lost)?;
    let failed = |initiator: &Initiator| Error::new(ErrorKind::Os, initiator.session.reason());
    let connected = |initiator: &mut Initiator| {
        Ok(match initiator.session.step() {
            None => None,
            Some(Step::Good) => Some(()),
            Some(_) => return Err(failed(initiator).with_errno(libc::ECONNREFUSED)),
        })
    };
    serve_until(&mut initiator, || wait.check(), connected)?;
    initiator.session.log_in().map_err(lost)?;
    let logged_in = |initiator: &mut Initiator| {
        Ok(match initiator.session.step() {
            None => None,
            Some(Step::Good) => Some(None),
            Some(Step::Moved) => Some(Some(initiator.session.moved_to())),
            Some(Step::Failed) => {
                let error = failed(initiator).with_errno(libc::EACCES);
                return Err(error.context(settings.refusal()));
            }
        })
    };
    match serve_until(&mut initiator, || wait.check(), logged_in)? {
        None => Ok(Reached::Target(Box::new(initiator))),
        Some(Some(place)) => Ok(Reached::Moved(place)),
        Some(None) => Err(lost("The target has moved and does not say where to")),
    }
}
