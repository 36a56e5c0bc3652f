//! The library libiscsi, loaded on first use: sessions with iSCSI targets, and SCSI commands in them.
//!
//! Nothing here blocks: a session is served when its socket is ready. The calling thread must have SIGPIPE blocked,
//! because the library does not suppress it. The library's own handling of lost sessions is turned off: the owner
//! creates another session instead.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_void};
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};

use once_cell::sync::OnceCell;
use zeroize::Zeroizing;

use super::library::{Library, functions};
use super::{IoBuf, Payload};
use crate::secret::Secret;

/// The only version whose interface is supported here, and the package that contains it.
const NAME: &CStr = c"libiscsi.so.7";
const PACKAGE: &str = "libiscsi7";

// From `iscsi/iscsi.h` and `iscsi/scsi-lowlevel.h`.
const TCP: c_int = 0;
const ISER: c_int = 1;
const NORMAL_SESSION: c_int = 2;
const STATUS_GOOD: c_int = 0;
const STATUS_CHECK_CONDITION: c_int = 2;
const STATUS_BUSY: c_int = 8;
const STATUS_RESERVATION_CONFLICT: c_int = 0x18;
const STATUS_TASK_SET_FULL: c_int = 0x28;
const STATUS_REDIRECT: c_int = 0x101;
const STATUS_CANCELLED: c_int = 0x0f00_0000;
const STATUS_TIMEOUT: c_int = 0x0f00_0002;
const XFER_NONE: c_int = 0;
const XFER_READ: c_int = 1;
const XFER_WRITE: c_int = 2;
const NO_RESIDUAL: c_int = 0;
const RESIDUAL_UNDERFLOW: c_int = 1;

/// Used if the library does not say what went wrong.
const UNKNOWN: &str = "The peer ended the connection, or does not keep to the rules of iSCSI";

/// Opaque to us.
type Context = c_void;
type Callback = unsafe extern "C" fn(*mut Context, c_int, *mut c_void, *mut c_void);

/// The beginning of `struct scsi_task`, which is public.
#[repr(C)]
struct Task {
    status: c_int,
    cdb_size: c_int,
    xfer_dir: c_int,
    expxferlen: c_int,
    cdb: [c_uchar; 16],
    residual_status: c_int,
    residual: usize,
    sense: Sense,
}

/// The beginning of `struct scsi_sense`.
#[repr(C)]
struct Sense {
    error_type: c_uchar,
    key: c_int,
    ascq: c_int,
}

functions! {
    iscsi_create_context: (*const c_char) -> *mut Context;
    iscsi_destroy_context: (*mut Context) -> c_int;
    iscsi_init_transport: (*mut Context, c_int) -> c_int;
    iscsi_set_targetname: (*mut Context, *const c_char) -> c_int;
    iscsi_set_session_type: (*mut Context, c_int) -> c_int;
    iscsi_set_header_digest: (*mut Context, c_int) -> c_int;
    iscsi_set_initiator_username_pwd: (*mut Context, *const c_char, *const c_char) -> c_int;
    iscsi_set_target_username_pwd: (*mut Context, *const c_char, *const c_char) -> c_int;
    iscsi_set_isid_random: (*mut Context, u32, u32) -> c_int;
    iscsi_set_noautoreconnect: (*mut Context, c_int);
    iscsi_set_timeout: (*mut Context, c_int) -> c_int;
    iscsi_connect_async: (*mut Context, *const c_char, Callback, *mut c_void) -> c_int;
    iscsi_login_async: (*mut Context, Callback, *mut c_void) -> c_int;
    iscsi_logout_async: (*mut Context, Callback, *mut c_void) -> c_int;
    iscsi_get_target_address: (*mut Context) -> *const c_char;
    iscsi_get_error: (*mut Context) -> *const c_char;
    iscsi_get_fd: (*mut Context) -> c_int;
    iscsi_which_events: (*mut Context) -> c_int;
    iscsi_service: (*mut Context, c_int) -> c_int;
    iscsi_nop_out_async: (*mut Context, Option<Callback>, *mut c_uchar, c_int, *mut c_void) -> c_int;
    iscsi_get_nops_in_flight: (*mut Context) -> c_int;
    iscsi_scsi_command_async: (*mut Context, c_int, *mut Task, Callback, *mut c_void, *mut c_void) -> c_int;
    scsi_create_task: (c_int, *mut c_uchar, c_int, c_int) -> *mut Task;
    scsi_task_add_data_in_buffer: (*mut Task, c_int, *mut c_uchar) -> c_int;
    scsi_task_add_data_out_buffer: (*mut Task, c_int, *mut c_uchar) -> c_int;
    scsi_free_scsi_task: (*mut Task);
}

fn functions() -> Result<&'static Functions, String> {
    static FUNCTIONS: OnceCell<Functions> = OnceCell::new();
    FUNCTIONS.get_or_try_init(|| {
        let library = Library::needed(NAME, "iSCSI needs", PACKAGE)?;
        // SAFETY: opened just now, by the name of its version.
        unsafe { Functions::load(&library) }
    })
}

/// Checks that the library can be loaded.
///
/// # Errors
/// One line that says what to install.
pub(crate) fn check() -> Result<(), String> {
    functions().map(|_| ())
}

/// Whether packet headers have checksums, in the order of the library's constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderDigest {
    None = 0,
    PreferNone = 1,
    PreferCrc32c = 2,
    Crc32c = 3,
}

/// A user name, and the secret that proves it.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: Secret,
}

/// The settings of a session.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) initiator: String,
    pub(crate) target: String,
    pub(crate) digest: HeaderDigest,
    /// Our credentials for the target, and those that it must present to us.
    pub(crate) login: Option<Login>,
    pub(crate) target_login: Option<Login>,
    /// Use RDMA rather than TCP.
    pub(crate) iser: bool,
    /// Distinguishes the session from others of the initiator; a new one with the same number replaces the old one.
    pub(crate) number: u32,
    /// Timeout in seconds for the response to a command; 0 for none.
    pub(crate) timeout: u32,
}

/// The data of a command, which the session owns while it is in flight.
#[derive(Debug)]
pub(crate) enum Data {
    None,
    /// To be filled by the target; initially zero.
    In(IoBuf),
    Out(Payload),
}

/// A SCSI command.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) cdb: [u8; 16],
    pub(crate) cdb_len: usize,
    pub(crate) data: Data,
}

/// The outcome of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Success, with this many bytes fewer than there is space for.
    Good {
        missing: usize,
    },
    /// Failure with sense data: its key, and the additional code with its qualifier.
    Sense {
        key: u8,
        code: u16,
    },
    Busy,
    Full,
    Reserved,
    Cancelled,
    TimedOut,
    Other(i32),
}

/// A completed command.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) token: u64,
    pub(crate) status: Status,
    pub(crate) command: Command,
}

/// The outcome of connecting, logging in or logging out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Good,
    /// The target has moved to another address.
    Moved,
    Failed,
}

/// Results left by callbacks.
#[derive(Default)]
struct Outcome {
    step: Cell<Option<Step>>,
    /// The library's message when a step failed, which it soon forgets.
    reason: RefCell<Option<String>>,
    done: RefCell<Vec<Done>>,
}

/// A command that the library owns.
struct Flight {
    f: &'static Functions,
    outcome: NonNull<Outcome>,
    task: *mut Task,
    token: u64,
    command: Command,
}

/// A session with a target.
pub(crate) struct Session {
    f: &'static Functions,
    context: *mut Context,
    outcome: NonNull<Outcome>,
}

// SAFETY: the library keeps no thread-local data for a context; all calls that change one take `&mut self`.
unsafe impl Send for Session {}

impl Session {
    /// Creates a session that is not connected yet.
    pub(crate) fn new(wanted: &Wanted) -> Result<Self, String> {
        let f = functions()?;
        let initiator = text(&wanted.initiator)?;
        // SAFETY: a NUL-terminated text, which is copied.
        let context = unsafe { (f.iscsi_create_context)(initiator.as_ptr()) };
        if context.is_null() {
            return Err("libiscsi cannot make a session".to_owned());
        }
        let outcome = Box::leak(Box::<Outcome>::default()).into();
        let made = Self {
            f,
            context,
            outcome,
        };
        let target = text(&wanted.target)?;
        // SAFETY: its own context; texts are copied.
        unsafe {
            made.set((f.iscsi_init_transport)(
                context,
                if wanted.iser { ISER } else { TCP },
            ))?;
            (f.iscsi_set_noautoreconnect)(context, 1);
            made.set((f.iscsi_set_targetname)(context, target.as_ptr()))?;
            made.set((f.iscsi_set_session_type)(context, NORMAL_SESSION))?;
            made.set((f.iscsi_set_header_digest)(context, wanted.digest as c_int))?;
            let (number, qualifier) = (wanted.number >> 8, wanted.number & 0xff);
            made.set((f.iscsi_set_isid_random)(context, number, qualifier))?;
            let timeout = c_int::try_from(wanted.timeout).unwrap_or(c_int::MAX);
            made.set((f.iscsi_set_timeout)(context, timeout))?;
        }
        let logins = [
            (&wanted.login, f.iscsi_set_initiator_username_pwd),
            (&wanted.target_login, f.iscsi_set_target_username_pwd),
        ];
        for (login, set) in logins {
            let Some(login) = login else { continue };
            let (user, password) = (text(&login.user)?, password(&login.password)?);
            // SAFETY: its own context; NUL-terminated texts, which are copied.
            made.set(unsafe { set(context, user.as_ptr(), password.as_ptr().cast()) })?;
        }
        Ok(made)
    }

    fn set(&self, code: c_int) -> Result<(), String> {
        match code {
            0 => Ok(()),
            _ => Err(self.reason()),
        }
    }

    /// The library's error message in one line: that of the step that failed, otherwise the last one.
    pub(crate) fn reason(&self) -> String {
        let kept = self.outcome().reason.borrow().clone();
        // SAFETY: its own context.
        kept.unwrap_or_else(|| unsafe { reason(self.f, self.context) })
    }

    fn outcome(&self) -> &Outcome {
        // SAFETY: created with the session and freed with it; only shared references to it ever exist.
        unsafe { self.outcome.as_ref() }
    }

    /// The outcome of the last [`Session::connect`], [`Session::log_in`] or [`Session::log_out`], if it has finished.
    pub(crate) fn step(&self) -> Option<Step> {
        self.outcome().step.take()
    }

    /// The commands that have completed since the last call.
    pub(crate) fn done(&self) -> Vec<Done> {
        self.outcome().done.take()
    }

    fn begin(
        &mut self,
        call: impl FnOnce(*mut Context, *mut c_void) -> c_int,
    ) -> Result<(), String> {
        self.outcome().step.set(None);
        self.outcome().reason.replace(None);
        let code = call(self.context, self.outcome.as_ptr().cast());
        self.set(code)
    }

    /// Starts to connect to an IP address and port.
    pub(crate) fn connect(&mut self, portal: &str) -> Result<(), String> {
        let (f, portal) = (self.f, text(portal)?);
        self.begin(|context, outcome| {
            // SAFETY: its own context, a NUL-terminated text; the outcome lives as long as the context.
            unsafe { (f.iscsi_connect_async)(context, portal.as_ptr(), on_step, outcome) }
        })
    }

    /// Starts to log in to the target.
    pub(crate) fn log_in(&mut self) -> Result<(), String> {
        let f = self.f;
        self.begin(|context, outcome| {
            // SAFETY: its own context; the outcome lives as long.
            unsafe { (f.iscsi_login_async)(context, on_step, outcome) }
        })
    }

    /// Starts to log out.
    pub(crate) fn log_out(&mut self) -> Result<(), String> {
        let f = self.f;
        self.begin(|context, outcome| {
            // SAFETY: its own context; the outcome lives as long.
            unsafe { (f.iscsi_logout_async)(context, on_step, outcome) }
        })
    }

    /// The address that the target has moved to.
    pub(crate) fn moved_to(&self) -> Option<String> {
        // SAFETY: its own context; the text is copied.
        unsafe {
            let text = (self.f.iscsi_get_target_address)(self.context);
            if text.is_null() {
                return None;
            }
            let text = CStr::from_ptr(text).to_str().ok()?;
            (!text.is_empty()).then(|| text.to_owned())
        }
    }

    /// The descriptor to wait on, and for which events; a negative number or no events if there is nothing to wait for.
    pub(crate) fn events(&self) -> (RawFd, c_int) {
        // SAFETY: its own context, which is only read.
        unsafe {
            let fd = (self.f.iscsi_get_fd)(self.context);
            (fd, (self.f.iscsi_which_events)(self.context))
        }
    }

    /// Sends and receives what is possible without blocking. Must be called at least once per second, because the
    /// library has no timers of its own.
    pub(crate) fn serve(&mut self, ready: c_int) -> Result<(), String> {
        // SAFETY: its own context. What callbacks are given lives until they have run.
        let code = unsafe { (self.f.iscsi_service)(self.context, ready) };
        self.set(code)
    }

    /// Pings the target.
    pub(crate) fn ask(&mut self) -> Result<(), String> {
        let none = ptr::null_mut();
        // SAFETY: its own context; without data, and without a callback, which the library allows.
        let code =
            unsafe { (self.f.iscsi_nop_out_async)(self.context, None, ptr::null_mut(), 0, none) };
        self.set(code)
    }

    /// How many pings in a row the target has not answered.
    pub(crate) fn unanswered(&self) -> u32 {
        // SAFETY: its own context, which is only read.
        let count = unsafe { (self.f.iscsi_get_nops_in_flight)(self.context) };
        u32::try_from(count).unwrap_or(0)
    }

    /// Passes a command to the library; [`Session::done`] returns it.
    pub(crate) fn submit(
        &mut self,
        lun: u16,
        token: u64,
        mut command: Command,
    ) -> Result<(), String> {
        let f = self.f;
        let (direction, len) = match &command.data {
            Data::None => (XFER_NONE, 0),
            Data::In(data) => (XFER_READ, data.len()),
            Data::Out(data) => (XFER_WRITE, data.len()),
        };
        let len = c_int::try_from(len).map_err(|_| "the command is too long".to_owned())?;
        let cdb_len = command.cdb_len.min(command.cdb.len());
        // SAFETY: `cdb_len` bytes, at most 16, which are copied. The data stays in place when its owner is moved, and
        // is freed after the task. What the library did not take is freed here.
        unsafe {
            let cdb = command.cdb.as_mut_ptr();
            // The length is at most 16.
            let task = (f.scsi_create_task)(cdb_len as c_int, cdb, direction, len);
            if task.is_null() {
                return Err("libiscsi lacks memory".to_owned());
            }
            let added = match &mut command.data {
                Data::In(data) if len > 0 => {
                    (f.scsi_task_add_data_in_buffer)(task, len, data.as_mut_ptr())
                }
                Data::Out(data) if len > 0 => {
                    (f.scsi_task_add_data_out_buffer)(task, len, data.as_ptr().cast_mut())
                }
                _ => 0,
            };
            if added != 0 {
                (f.scsi_free_scsi_task)(task);
                return Err("libiscsi lacks memory".to_owned());
            }
            let flight = Box::into_raw(Box::new(Flight {
                f,
                outcome: self.outcome,
                task,
                token,
                command,
            }));
            let none = ptr::null_mut();
            let code = (f.iscsi_scsi_command_async)(
                self.context,
                c_int::from(lun),
                task,
                on_command,
                none,
                flight.cast(),
            );
            if code != 0 {
                drop(Box::from_raw(flight));
                (f.scsi_free_scsi_task)(task);
                return Err(self.reason());
            }
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: its own; the library completes the commands that it owns, whose callbacks need the outcome.
        unsafe {
            (self.f.iscsi_destroy_context)(self.context);
            drop(Box::from_raw(self.outcome.as_ptr()));
        }
    }
}

/// # Safety
/// Called by the library with the outcome of a session that still exists.
unsafe extern "C" fn on_step(
    context: *mut Context,
    status: c_int,
    _data: *mut c_void,
    outcome: *mut c_void,
) {
    // SAFETY: passed by `Session::begin`; the session exists as long as its context does.
    let outcome = unsafe { &*outcome.cast::<Outcome>() };
    outcome.step.set(Some(match status {
        STATUS_GOOD => Step::Good,
        STATUS_REDIRECT => Step::Moved,
        _ => {
            if let Ok(f) = functions() {
                // SAFETY: the context of this call.
                let text = unsafe { reason(f, context) };
                outcome.reason.borrow_mut().get_or_insert(text);
            }
            Step::Failed
        }
    }));
}

/// # Safety
/// Called by the library once for each command that it took.
unsafe extern "C" fn on_command(
    _context: *mut Context,
    status: c_int,
    _data: *mut c_void,
    flight: *mut c_void,
) {
    // SAFETY: passed by `Session::submit`, which gave up ownership; the library calls once, and leaves the task to us.
    // The session exists as long as its context does.
    unsafe {
        let flight = Box::from_raw(flight.cast::<Flight>());
        let task = &*flight.task;
        let status = match status {
            STATUS_GOOD => match task.residual_status {
                NO_RESIDUAL => Status::Good { missing: 0 },
                RESIDUAL_UNDERFLOW => Status::Good {
                    missing: task.residual,
                },
                _ => Status::Good { missing: 0 },
            },
            STATUS_CHECK_CONDITION => Status::Sense {
                // Keys have four bits, codes sixteen.
                key: (task.sense.key & 0xf) as u8,
                code: (task.sense.ascq & 0xffff) as u16,
            },
            STATUS_BUSY => Status::Busy,
            STATUS_TASK_SET_FULL => Status::Full,
            STATUS_RESERVATION_CONFLICT => Status::Reserved,
            STATUS_CANCELLED => Status::Cancelled,
            STATUS_TIMEOUT => Status::TimedOut,
            other => Status::Other(other),
        };
        (flight.f.scsi_free_scsi_task)(flight.task);
        let outcome = flight.outcome.as_ref();
        let Flight { token, command, .. } = *flight;
        outcome.done.borrow_mut().push(Done {
            token,
            status,
            command,
        });
    }
}

/// The last error message.
///
/// # Safety
/// The context must exist.
unsafe fn reason(f: &Functions, context: *mut Context) -> String {
    // SAFETY: by the caller; the text is copied before the next call.
    let text = unsafe {
        let text = (f.iscsi_get_error)(context);
        if text.is_null() {
            return UNKNOWN.to_owned();
        }
        CStr::from_ptr(text).to_string_lossy()
    };
    let words: Vec<_> = text.split_whitespace().collect();
    // It refers to reconnecting, which is turned off.
    match words.is_empty() || text.contains("reconnect") {
        true => UNKNOWN.to_owned(),
        false => words.join(" "),
    }
}

/// A text in the form that the library takes.
fn text(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| "a name has a NUL in it".to_owned())
}

/// A password in the form that the library takes; wiped on drop.
fn password(secret: &Secret) -> Result<Zeroizing<Vec<u8>>, String> {
    if secret.bytes().contains(&0) {
        return Err("the password has a NUL in it".to_owned());
    }
    let mut text = Zeroizing::new(Vec::with_capacity(secret.bytes().len() + 1));
    text.extend_from_slice(secret.bytes());
    text.push(0);
    Ok(text)
}
