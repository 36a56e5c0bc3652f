//! The library libssh, loaded on first use: encrypted connections to SSH servers, and authentication of both ends.
//!
//! Nothing here blocks: a call that is not complete is repeated when the socket is ready. The calling thread must have
//! SIGPIPE blocked, because the library does not suppress it.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;

use once_cell::sync::OnceCell;
use zeroize::Zeroizing;

use super::attr;
use super::fd::duplicate;
use super::library::{Library, functions};
use crate::secret::Secret;

/// The only version whose interface is supported here, and the package that contains it.
const NAME: &CStr = c"libssh.so.4";
const PACKAGE: &str = "libssh-4";

// From `libssh/libssh.h`.
const SSH_OK: c_int = 0;
const SSH_AGAIN: c_int = -2;
const SSH_WRITE_PENDING: c_int = 0x08;
const SSH_OPTIONS_HOST: c_int = 0;
const SSH_OPTIONS_PORT: c_int = 1;
const SSH_OPTIONS_FD: c_int = 3;
const SSH_OPTIONS_USER: c_int = 4;
const SSH_OPTIONS_KNOWNHOSTS: c_int = 8;
const SSH_OPTIONS_CIPHERS_C_S: c_int = 15;
const SSH_OPTIONS_CIPHERS_S_C: c_int = 16;
const SSH_OPTIONS_GLOBAL_KNOWNHOSTS: c_int = 35;
const SSH_AUTH_SUCCESS: c_int = 0;
const SSH_AUTH_DENIED: c_int = 1;
const SSH_AUTH_PARTIAL: c_int = 2;
const SSH_AUTH_INFO: c_int = 3;
const SSH_AUTH_AGAIN: c_int = 4;
const SSH_KNOWN_HOSTS_NOT_FOUND: c_int = -1;
const SSH_KNOWN_HOSTS_UNKNOWN: c_int = 0;
const SSH_KNOWN_HOSTS_OK: c_int = 1;
const SSH_KNOWN_HOSTS_CHANGED: c_int = 2;
const SSH_KNOWN_HOSTS_OTHER: c_int = 3;

/// Ciphers, ordered by speed on processors with instructions for them.
const CIPHERS: &CStr =
    c"aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,\
aes128-ctr,aes192-ctr,aes256-ctr";

/// Opaque to us.
type Ssh = c_void;
type Channel = c_void;
type Key = c_void;

functions! {
    ssh_new: () -> *mut Ssh;
    ssh_free: (*mut Ssh);
    ssh_options_set: (*mut Ssh, c_int, *const c_void) -> c_int;
    ssh_set_blocking: (*mut Ssh, c_int);
    ssh_connect: (*mut Ssh) -> c_int;
    ssh_disconnect: (*mut Ssh);
    ssh_get_error: (*mut c_void) -> *const c_char;
    ssh_get_poll_flags: (*mut Ssh) -> c_int;
    ssh_get_server_publickey: (*mut Ssh, *mut *mut Key) -> c_int;
    ssh_get_publickey_hash: (*const Key, c_int, *mut *mut u8, *mut usize) -> c_int;
    ssh_clean_pubkey_hash: (*mut *mut u8);
    ssh_key_free: (*mut Key);
    ssh_key_type: (*const Key) -> c_int;
    ssh_key_type_to_char: (c_int) -> *const c_char;
    ssh_session_is_known_server: (*mut Ssh) -> c_int;
    ssh_userauth_none: (*mut Ssh, *const c_char) -> c_int;
    ssh_userauth_publickey: (*mut Ssh, *const c_char, *const Key) -> c_int;
    ssh_userauth_publickey_auto: (*mut Ssh, *const c_char, *const c_char) -> c_int;
    ssh_userauth_password: (*mut Ssh, *const c_char, *const c_char) -> c_int;
    ssh_userauth_kbdint: (*mut Ssh, *const c_char, *const c_char) -> c_int;
    ssh_userauth_kbdint_getnprompts: (*mut Ssh) -> c_int;
    ssh_userauth_kbdint_setanswer: (*mut Ssh, c_uint, *const c_char) -> c_int;
    ssh_pki_import_privkey_file: (*const c_char, *const c_char, *const c_void, *mut c_void, *mut *mut Key) -> c_int;
    ssh_channel_new: (*mut Ssh) -> *mut Channel;
    ssh_channel_free: (*mut Channel);
    ssh_channel_open_session: (*mut Channel) -> c_int;
    ssh_channel_request_subsystem: (*mut Channel, *const c_char) -> c_int;
    ssh_channel_read_timeout: (*mut Channel, *mut c_void, u32, c_int, c_int) -> c_int;
    ssh_channel_write: (*mut Channel, *const c_void, u32) -> c_int;
    ssh_channel_is_eof: (*mut Channel) -> c_int;
}

fn functions() -> Result<&'static Functions, String> {
    static FUNCTIONS: OnceCell<Functions> = OnceCell::new();
    FUNCTIONS.get_or_try_init(|| {
        let library = Library::needed(NAME, "ssh needs", PACKAGE)?;
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

/// The result of a non-blocking call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<T> {
    Done(T),
    /// The call must be repeated when the socket is ready.
    Again,
}

/// The server's response to an authentication attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Success,
    Denied,
    /// Further authentication is required.
    Partial,
}

/// Whether the user knows a host key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Yes,
    /// Another key of the same type is known.
    Changed,
    /// Only keys of other types are known.
    OtherType,
    /// None is known.
    No,
}

/// Hashes of host keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha1 = 0,
    Md5 = 1,
    Sha256 = 2,
}

/// A connection to a server.
pub(crate) struct Session {
    f: &'static Functions,
    session: *mut Ssh,
    /// The descriptor that the library has.
    number: RawFd,
    /// A duplicate of it for the same socket.
    socket: OwnedFd,
    connected: bool,
    channel: *mut Channel,
    /// The channel is open, so that the subsystem can be requested.
    channel_open: bool,
    /// The key being offered, retained until the server has responded.
    key: *mut Key,
}

// SAFETY: the library keeps no thread-local data for a session; all calls that change one take `&mut self`.
unsafe impl Send for Session {}

impl Session {
    /// Creates a session over a connected, non-blocking socket, before anything was sent.
    pub(crate) fn new(
        socket: OwnedFd,
        host: &CStr,
        port: u16,
        user: &CStr,
        known_hosts: Option<&CStr>,
    ) -> Result<Self, String> {
        let f = functions()?;
        let io = |error: std::io::Error| error.to_string();
        let own = duplicate(socket.as_fd()).map_err(io)?;
        // SAFETY: no arguments.
        let session = unsafe { (f.ssh_new)() };
        if session.is_null() {
            return Err("libssh cannot make a session".to_owned());
        }
        let mut made = Self {
            f,
            session,
            number: socket.into_raw_fd(),
            socket: own,
            connected: false,
            channel: ptr::null_mut(),
            channel_open: false,
            key: ptr::null_mut(),
        };
        made.set(SSH_OPTIONS_HOST, host.as_ptr().cast())?;
        let port = c_uint::from(port);
        made.set(SSH_OPTIONS_PORT, (&raw const port).cast())?;
        made.set(SSH_OPTIONS_USER, user.as_ptr().cast())?;
        if let Some(file) = known_hosts {
            made.set(SSH_OPTIONS_KNOWNHOSTS, file.as_ptr().cast())?;
            made.set(SSH_OPTIONS_GLOBAL_KNOWNHOSTS, file.as_ptr().cast())?;
        }
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("aes") {
            for way in [SSH_OPTIONS_CIPHERS_C_S, SSH_OPTIONS_CIPHERS_S_C] {
                // If the library may not use all of them, its own order is good enough.
                let _ = made.set(way, CIPHERS.as_ptr().cast());
            }
        }
        let number = made.number;
        made.set(SSH_OPTIONS_FD, (&raw const number).cast())?;
        // SAFETY: its own session.
        unsafe { (f.ssh_set_blocking)(session, 0) };
        made.connect()?;
        Ok(made)
    }

    /// The socket to wait on.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn set(&mut self, option: c_int, value: *const c_void) -> Result<(), String> {
        // SAFETY: its own session, and a value of the option's type, which is copied.
        match unsafe { (self.f.ssh_options_set)(self.session, option, value) } {
            SSH_OK => Ok(()),
            _ => Err(self.reason()),
        }
    }

    /// The library's last error message.
    fn reason(&self) -> String {
        // SAFETY: its own session; the text is copied before the next call.
        unsafe {
            let text = (self.f.ssh_get_error)(self.session);
            if text.is_null() || *text == 0 {
                return "unknown error of libssh".to_owned();
            }
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    }

    fn step(&self, code: c_int) -> Result<Step<()>, String> {
        match code {
            SSH_OK => Ok(Step::Done(())),
            SSH_AGAIN => Ok(Step::Again),
            _ => Err(self.reason()),
        }
    }

    fn answer(&self, code: c_int) -> Result<Step<Answer>, String> {
        Ok(match code {
            SSH_AUTH_SUCCESS => Step::Done(Answer::Success),
            SSH_AUTH_DENIED => Step::Done(Answer::Denied),
            SSH_AUTH_PARTIAL => Step::Done(Answer::Partial),
            SSH_AUTH_AGAIN => Step::Again,
            _ => return Err(self.reason()),
        })
    }

    /// Whether output is waiting for space in the socket.
    pub(crate) fn wants_write(&self) -> bool {
        // SAFETY: its own session, which is only read.
        unsafe { (self.f.ssh_get_poll_flags)(self.session) & SSH_WRITE_PENDING != 0 }
    }

    /// Performs the key exchange with the server.
    pub(crate) fn connect(&mut self) -> Result<Step<()>, String> {
        if self.connected {
            return Ok(Step::Done(()));
        }
        // SAFETY: its own session.
        let code = unsafe { (self.f.ssh_connect)(self.session) };
        let step = self.step(code)?;
        self.connected = step == Step::Done(());
        Ok(step)
    }

    /// Whether the user knows the server's key; after the connection is established.
    pub(crate) fn known(&mut self) -> Result<Known, String> {
        // SAFETY: its own session.
        Ok(
            match unsafe { (self.f.ssh_session_is_known_server)(self.session) } {
                SSH_KNOWN_HOSTS_OK => Known::Yes,
                SSH_KNOWN_HOSTS_CHANGED => Known::Changed,
                SSH_KNOWN_HOSTS_OTHER => Known::OtherType,
                SSH_KNOWN_HOSTS_UNKNOWN | SSH_KNOWN_HOSTS_NOT_FOUND => Known::No,
                _ => return Err(self.reason()),
            },
        )
    }

    /// The type of the server's key, and its hash; after the connection is established.
    pub(crate) fn host_key(&mut self, hash: Hash) -> Result<(String, Vec<u8>), String> {
        let f = self.f;
        let mut key = ptr::null_mut();
        // SAFETY: its own session; every result is checked before it is used, and freed once.
        unsafe {
            if (f.ssh_get_server_publickey)(self.session, &raw mut key) != SSH_OK || key.is_null() {
                return Err(self.reason());
            }
            let kind = (f.ssh_key_type_to_char)((f.ssh_key_type)(key));
            let kind = match kind.is_null() {
                true => "unknown".to_owned(),
                false => CStr::from_ptr(kind).to_string_lossy().into_owned(),
            };
            let (mut bytes, mut len) = (ptr::null_mut(), 0);
            let code = (f.ssh_get_publickey_hash)(key, hash as c_int, &raw mut bytes, &raw mut len);
            (f.ssh_key_free)(key);
            if code != SSH_OK || bytes.is_null() {
                return Err("the host key cannot be hashed".to_owned());
            }
            let copy = std::slice::from_raw_parts(bytes, len).to_vec();
            (f.ssh_clean_pubkey_hash)(&raw mut bytes);
            Ok((kind, copy))
        }
    }

    /// Tries to authenticate without credentials.
    pub(crate) fn log_in_by_nothing(&mut self) -> Result<Step<Answer>, String> {
        // SAFETY: its own session; the user is an option of it.
        let code = unsafe { (self.f.ssh_userauth_none)(self.session, ptr::null()) };
        self.answer(code)
    }

    /// Tries the keys of the agent, and those in the user's key directory.
    pub(crate) fn log_in_by_default_keys(&mut self) -> Result<Step<Answer>, String> {
        let none = ptr::null();
        // SAFETY: its own session; no passphrase.
        let code = unsafe { (self.f.ssh_userauth_publickey_auto)(self.session, none, none) };
        self.answer(code)
    }

    /// Loads the key in a file, decrypting it with the passphrase if it is encrypted.
    pub(crate) fn take_key(&mut self, file: &CStr, passphrase: Option<&Secret>) -> Result<(), ()> {
        let text = passphrase.map(text).transpose()?;
        let text = text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        let mut key = ptr::null_mut();
        // SAFETY: NUL-terminated texts; no user is prompted for a passphrase; the key is owned by this session.
        let code = unsafe {
            let (ask, data) = (ptr::null(), ptr::null_mut());
            let file = file.as_ptr();
            (self.f.ssh_pki_import_privkey_file)(file, text.cast(), ask, data, &raw mut key)
        };
        if code != SSH_OK || key.is_null() {
            return Err(());
        }
        self.drop_key();
        self.key = key;
        Ok(())
    }

    /// Tries the key that was loaded.
    pub(crate) fn log_in_by_key(&mut self) -> Result<Step<Answer>, String> {
        if self.key.is_null() {
            return Ok(Step::Done(Answer::Denied));
        }
        // SAFETY: its own session and key.
        let code = unsafe { (self.f.ssh_userauth_publickey)(self.session, ptr::null(), self.key) };
        self.answer(code)
    }

    /// Tries a password.
    pub(crate) fn log_in_by_password(&mut self, password: &Secret) -> Result<Step<Answer>, String> {
        let Ok(text) = text(password) else {
            return Ok(Step::Done(Answer::Denied));
        };
        // SAFETY: its own session and a NUL-terminated text, which is copied.
        let code = unsafe {
            (self.f.ssh_userauth_password)(self.session, ptr::null(), text.as_ptr().cast())
        };
        self.answer(code)
    }

    /// Tries a password as the answer to whatever the server asks.
    pub(crate) fn log_in_by_answers(&mut self, password: &Secret) -> Result<Step<Answer>, String> {
        let Ok(text) = text(password) else {
            return Ok(Step::Done(Answer::Denied));
        };
        let none = ptr::null();
        // The number of rounds is limited, in case a server never stops asking.
        for _ in 0..8 {
            // SAFETY: its own session.
            let code = unsafe { (self.f.ssh_userauth_kbdint)(self.session, none, none) };
            if code != SSH_AUTH_INFO {
                return self.answer(code);
            }
            // SAFETY: as above; the questions are counted by the library, and the answers are copied.
            unsafe {
                let count = (self.f.ssh_userauth_kbdint_getnprompts)(self.session);
                for number in 0..c_uint::try_from(count).unwrap_or(0).min(16) {
                    let answer = text.as_ptr().cast();
                    (self.f.ssh_userauth_kbdint_setanswer)(self.session, number, answer);
                }
            }
        }
        Ok(Step::Done(Answer::Denied))
    }

    /// Opens a channel to a subsystem of the server.
    pub(crate) fn open_subsystem(&mut self, name: &CStr) -> Result<Step<()>, String> {
        let f = self.f;
        if self.channel.is_null() {
            // SAFETY: its own session, which outlives the channel.
            self.channel = unsafe { (f.ssh_channel_new)(self.session) };
            if self.channel.is_null() {
                return Err(self.reason());
            }
        }
        if !self.channel_open {
            // SAFETY: its own channel.
            let code = unsafe { (f.ssh_channel_open_session)(self.channel) };
            if self.step(code)? == Step::Again {
                return Ok(Step::Again);
            }
            self.channel_open = true;
        }
        // SAFETY: its own channel, which is open.
        let code = unsafe { (f.ssh_channel_request_subsystem)(self.channel, name.as_ptr()) };
        self.step(code)
    }

    /// Reads what the channel has; 0 if there is nothing at the moment, None at its end. A long buffer lets the server
    /// send that much ahead.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> Result<Option<usize>, String> {
        if self.channel.is_null() {
            return Ok(None);
        }
        let len = u32::try_from(buf.len()).unwrap_or(u32::MAX);
        // SAFETY: its own channel; `len` writable bytes.
        let n = unsafe {
            let data = buf.as_mut_ptr().cast();
            (self.f.ssh_channel_read_timeout)(self.channel, data, len, 0, 0)
        };
        match n {
            SSH_AGAIN => Ok(Some(0)),
            // SAFETY: its own channel.
            0 if unsafe { (self.f.ssh_channel_is_eof)(self.channel) } != 0 => Ok(None),
            n => usize::try_from(n).map(Some).map_err(|_| self.reason()),
        }
    }

    /// Writes to the channel; returns how many bytes it accepted.
    pub(crate) fn write(&mut self, buf: &[u8]) -> Result<usize, String> {
        if self.channel.is_null() || buf.is_empty() {
            return Ok(0);
        }
        let len = u32::try_from(buf.len()).unwrap_or(u32::MAX);
        // SAFETY: its own channel; `len` readable bytes, which are copied.
        let n = unsafe { (self.f.ssh_channel_write)(self.channel, buf.as_ptr().cast(), len) };
        match n {
            SSH_AGAIN => Ok(0),
            n => usize::try_from(n).map_err(|_| self.reason()),
        }
    }

    fn drop_key(&mut self) {
        if !self.key.is_null() {
            // SAFETY: its own key, freed once.
            unsafe { (self.f.ssh_key_free)(self.key) };
            self.key = ptr::null_mut();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.drop_key();
        // SAFETY: its own; the channel is freed before the session that it belongs to.
        unsafe {
            if !self.channel.is_null() {
                (self.f.ssh_channel_free)(self.channel);
            }
            (self.f.ssh_disconnect)(self.session);
            (self.f.ssh_free)(self.session);
        }
        // Versions from 0.10 on close it only after some errors, older ones always. While the duplicate is open, no
        // other file has the same identity.
        // SAFETY: only read; if nothing is open under that number, the call fails.
        let left = attr::stat(unsafe { BorrowedFd::borrow_raw(self.number) });
        let own = attr::stat(self.socket.as_fd());
        if let (Ok(left), Ok(own)) = (left, own)
            && left.identity == own.identity
        {
            // SAFETY: it was handed only to the library, which is done with it.
            drop(unsafe { OwnedFd::from_raw_fd(self.number) });
        }
    }
}

/// A secret in the form that the library takes; wiped on drop.
fn text(secret: &Secret) -> Result<Zeroizing<Vec<u8>>, ()> {
    if secret.bytes().contains(&0) {
        return Err(());
    }
    let mut text = Zeroizing::new(Vec::with_capacity(secret.bytes().len() + 1));
    text.extend_from_slice(secret.bytes());
    text.push(0);
    Ok(text)
}

/// A name in the form that the library takes.
pub(crate) fn name(bytes: &[u8]) -> Option<CString> {
    CString::new(bytes).ok()
}
