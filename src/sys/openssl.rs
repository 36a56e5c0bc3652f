//! The library of OpenSSL 3, loaded on first use: for TLS with pre-shared keys.

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::ptr;
use std::sync::Arc;

use once_cell::sync::OnceCell;
use parking_lot::Mutex;

use super::library::{Library, functions};
use crate::secret::Secret;

/// The only version whose interface is supported here.
const NAME: &CStr = c"libssl.so.3";

// From `openssl/ssl.h`, `openssl/tls1.h` and `openssl/bio.h`.
const SSL_ERROR_WANT_READ: c_int = 2;
const SSL_ERROR_WANT_WRITE: c_int = 3;
const SSL_ERROR_ZERO_RETURN: c_int = 6;
const SSL_CTRL_SET_SESS_CACHE_MODE: c_int = 44;
const SSL_CTRL_SET_DH_AUTO: c_int = 118;
const SSL_CTRL_SET_MIN_PROTO_VERSION: c_int = 123;
const SSL_CTRL_SET_MAX_PROTO_VERSION: c_int = 124;
const TLS1_2_VERSION: c_long = 0x0303;
const TLS1_3_VERSION: c_long = 0x0304;
const SSL_OP_NO_TICKET: u64 = 1 << 14;
const SSL_OP_NO_COMPRESSION: u64 = 1 << 17;
const SSL_OP_NO_RENEGOTIATION: u64 = 1 << 30;
const SSL_VERIFY_PEER: c_int = 1;

/// TLS 1.2 cipher suites in which both ends prove that they have the key; those with forward secrecy first.
const SUITES_1_2: &CStr = c"kECDHEPSK:kDHEPSK:kPSK:!eNULL:!3DES";
/// TLS 1.3 cipher suites with SHA-256, which is the default hash of pre-shared keys.
const SUITES_1_3: &CStr = c"TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256";

/// Opaque to us.
type Ssl = c_void;
type Context = c_void;
type Bio = c_void;

type ClientCallback =
    unsafe extern "C" fn(*mut Ssl, *const c_char, *mut c_char, c_uint, *mut u8, c_uint) -> c_uint;
type ServerCallback = unsafe extern "C" fn(*mut Ssl, *const c_char, *mut u8, c_uint) -> c_uint;

functions! {
    TLS_method: () -> *const c_void;
    SSL_CTX_new: (*const c_void) -> *mut Context;
    SSL_CTX_free: (*mut Context);
    SSL_CTX_ctrl: (*mut Context, c_int, c_long, *mut c_void) -> c_long;
    SSL_CTX_set_options: (*mut Context, u64) -> u64;
    SSL_CTX_set_num_tickets: (*mut Context, usize) -> c_int;
    SSL_CTX_set_verify: (*mut Context, c_int, *const c_void);
    SSL_CTX_set_cipher_list: (*mut Context, *const c_char) -> c_int;
    SSL_CTX_set_ciphersuites: (*mut Context, *const c_char) -> c_int;
    SSL_CTX_set_psk_client_callback: (*mut Context, ClientCallback);
    SSL_CTX_set_psk_server_callback: (*mut Context, ServerCallback);
    SSL_new: (*mut Context) -> *mut Ssl;
    SSL_free: (*mut Ssl);
    SSL_set_ex_data: (*mut Ssl, c_int, *mut c_void) -> c_int;
    SSL_get_ex_data: (*const Ssl, c_int) -> *mut c_void;
    SSL_set_bio: (*mut Ssl, *mut Bio, *mut Bio);
    SSL_set_connect_state: (*mut Ssl);
    SSL_set_accept_state: (*mut Ssl);
    SSL_do_handshake: (*mut Ssl) -> c_int;
    SSL_is_init_finished: (*const Ssl) -> c_int;
    SSL_session_reused: (*const Ssl) -> c_int;
    SSL_version: (*const Ssl) -> c_int;
    SSL_read_ex: (*mut Ssl, *mut c_void, usize, *mut usize) -> c_int;
    SSL_write_ex: (*mut Ssl, *const c_void, usize, *mut usize) -> c_int;
    SSL_shutdown: (*mut Ssl) -> c_int;
    SSL_get_error: (*const Ssl, c_int) -> c_int;
    BIO_new: (*const c_void) -> *mut Bio;
    BIO_s_mem: () -> *const c_void;
    BIO_free: (*mut Bio) -> c_int;
    BIO_read: (*mut Bio, *mut c_void, c_int) -> c_int;
    BIO_write: (*mut Bio, *const c_void, c_int) -> c_int;
    BIO_ctrl_pending: (*mut Bio) -> usize;
    ERR_clear_error: ();
    ERR_get_error: () -> c_ulong;
    ERR_reason_error_string: (c_ulong) -> *const c_char;
}

/// Loaded once and never unloaded.
fn functions() -> Result<&'static Functions, String> {
    static FUNCTIONS: OnceCell<Functions> = OnceCell::new();
    FUNCTIONS.get_or_try_init(|| {
        let library = Library::needed(NAME, "TLS with pre-shared keys needs", "libssl3")?;
        // SAFETY: opened just now, by the name of its version.
        unsafe { Functions::load(&library) }
    })
}

/// The keys of one end.
#[derive(Clone, Debug)]
pub(crate) enum Keys {
    /// The client's own name, and its key.
    Client(CString, Secret),
    /// The keys of all clients that may be admitted, by name.
    Server(Arc<std::collections::BTreeMap<Vec<u8>, Secret>>),
}

/// The versions of the protocol that may be used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Versions {
    pub tls12: bool,
    pub tls13: bool,
}

/// Data for the callbacks of a session.
struct Shared {
    keys: Keys,
    /// The name of the key requested last.
    asked: Mutex<Option<Vec<u8>>>,
}

/// Creates sessions for one end.
#[derive(Debug)]
pub(crate) struct Maker {
    context: *mut Context,
    keys: Keys,
}

// SAFETY: a context may be used by several threads; it is not changed after its creation.
unsafe impl Send for Maker {}
// SAFETY: as above.
unsafe impl Sync for Maker {}

impl Maker {
    pub(crate) fn new(keys: Keys, versions: Versions) -> Result<Self, String> {
        let f = functions()?;
        let lowest = if versions.tls12 {
            TLS1_2_VERSION
        } else {
            TLS1_3_VERSION
        };
        let highest = if versions.tls13 {
            TLS1_3_VERSION
        } else {
            TLS1_2_VERSION
        };
        // SAFETY: every function gets the arguments that its manual requires; the context is checked.
        unsafe {
            let context = (f.SSL_CTX_new)((f.TLS_method)());
            if context.is_null() {
                return Err(reason(f));
            }
            let maker = Self { context, keys };
            let set = |what, value| (f.SSL_CTX_ctrl)(context, what, value, ptr::null_mut());
            let options = SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION;
            (f.SSL_CTX_set_options)(context, options);
            set(SSL_CTRL_SET_SESS_CACHE_MODE, 0);
            set(SSL_CTRL_SET_DH_AUTO, 1);
            let made = set(SSL_CTRL_SET_MIN_PROTO_VERSION, lowest) == 1
                && set(SSL_CTRL_SET_MAX_PROTO_VERSION, highest) == 1
                && (f.SSL_CTX_set_num_tickets)(context, 0) == 1
                && (f.SSL_CTX_set_cipher_list)(context, SUITES_1_2.as_ptr()) == 1
                && (f.SSL_CTX_set_ciphersuites)(context, SUITES_1_3.as_ptr()) == 1;
            if !made {
                return Err(reason(f));
            }
            // No authority is known, so a certificate instead of the key is rejected.
            if let Keys::Client(..) = maker.keys {
                (f.SSL_CTX_set_verify)(context, SSL_VERIFY_PEER, ptr::null());
                (f.SSL_CTX_set_psk_client_callback)(context, give_client_key);
            } else {
                (f.SSL_CTX_set_psk_server_callback)(context, give_server_key);
            }
            Ok(maker)
        }
    }

    pub(crate) fn session(&self) -> Result<Session, String> {
        let f = functions()?;
        let shared = Box::new(Shared {
            keys: self.keys.clone(),
            asked: Mutex::new(None),
        });
        // SAFETY: every result is checked before it is used; what the session takes ownership of is not freed here.
        unsafe {
            (f.ERR_clear_error)();
            let ssl = (f.SSL_new)(self.context);
            if ssl.is_null() {
                return Err(reason(f));
            }
            let input = (f.BIO_new)((f.BIO_s_mem)());
            let output = (f.BIO_new)((f.BIO_s_mem)());
            if input.is_null() || output.is_null() {
                (f.BIO_free)(input);
                (f.BIO_free)(output);
                (f.SSL_free)(ssl);
                return Err(reason(f));
            }
            (f.SSL_set_bio)(ssl, input, output);
            let session = Session {
                ssl,
                input,
                output,
                shared,
            };
            let seen = ptr::from_ref(&*session.shared).cast_mut().cast();
            if (f.SSL_set_ex_data)(ssl, 0, seen) != 1 {
                return Err(reason(f));
            }
            match self.keys {
                Keys::Client(..) => (f.SSL_set_connect_state)(ssl),
                Keys::Server(_) => (f.SSL_set_accept_state)(ssl),
            }
            Ok(session)
        }
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        if let Ok(f) = functions() {
            // SAFETY: its own context; sessions hold references to it.
            unsafe { (f.SSL_CTX_free)(self.context) };
        }
    }
}

/// The result of reading from a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Bytes(usize),
    Nothing,
    End,
}

/// One end of a connection, over memory buffers.
pub(crate) struct Session {
    ssl: *mut Ssl,
    /// Input from the peer; the session owns both.
    input: *mut Bio,
    output: *mut Bio,
    /// At a fixed address, which the callbacks know.
    shared: Box<Shared>,
}

// SAFETY: a session may move between threads; all calls except the one in `pending` take `&mut self`, and that one only
// reads.
unsafe impl Send for Session {}

impl Session {
    fn functions() -> Result<&'static Functions, String> {
        functions()
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        // SAFETY: its own session.
        Self::functions().is_ok_and(|f| unsafe { (f.SSL_is_init_finished)(self.ssl) } == 0)
    }

    /// Continues the handshake, as far as possible without further input.
    pub(crate) fn handshake(&mut self) -> Result<(), String> {
        let f = Self::functions()?;
        // SAFETY: its own session.
        unsafe {
            (f.ERR_clear_error)();
            let done = (f.SSL_do_handshake)(self.ssl);
            if done != 1 {
                return match (f.SSL_get_error)(self.ssl, done) {
                    SSL_ERROR_WANT_READ | SSL_ERROR_WANT_WRITE => Ok(()),
                    _ => Err(reason(f)),
                };
            }
            // TLS 1.3 treats the key as resumption of an earlier session.
            let by_key = (f.SSL_version)(self.ssl) < TLS1_3_VERSION as c_int
                || (f.SSL_session_reused)(self.ssl) == 1;
            if by_key {
                Ok(())
            } else {
                Err("the peer does not use the key".to_owned())
            }
        }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let f = Self::functions()?;
        let len = c_int::try_from(bytes.len()).unwrap_or(c_int::MAX);
        // SAFETY: `len` readable bytes, which are copied.
        let n = unsafe { (f.BIO_write)(self.input, bytes.as_ptr().cast(), len) };
        usize::try_from(n).map_err(|_| reason(f))
    }

    pub(crate) fn pending(&self) -> usize {
        // SAFETY: its own memory, which is only read.
        Self::functions().map_or(0, |f| unsafe { (f.BIO_ctrl_pending)(self.output) })
    }

    /// Takes up to `buf.len()` bytes for the peer.
    pub(crate) fn take(&mut self, buf: &mut [u8]) -> usize {
        let Ok(f) = Self::functions() else {
            return 0;
        };
        let len = c_int::try_from(buf.len()).unwrap_or(c_int::MAX);
        // SAFETY: `len` writable bytes.
        let n = unsafe { (f.BIO_read)(self.output, buf.as_mut_ptr().cast(), len) };
        usize::try_from(n).unwrap_or(0)
    }

    pub(crate) fn read(&mut self, buf: &mut [u8]) -> Result<Outcome, String> {
        let f = Self::functions()?;
        let mut n = 0;
        // SAFETY: the buffer is writable for its length, and so is `n`.
        unsafe {
            (f.ERR_clear_error)();
            let buffer = buf.as_mut_ptr().cast();
            let done = (f.SSL_read_ex)(self.ssl, buffer, buf.len(), &raw mut n);
            if done == 1 {
                return Ok(Outcome::Bytes(n));
            }
            match (f.SSL_get_error)(self.ssl, done) {
                SSL_ERROR_WANT_READ | SSL_ERROR_WANT_WRITE => Ok(Outcome::Nothing),
                SSL_ERROR_ZERO_RETURN => Ok(Outcome::End),
                _ => Err(reason(f)),
            }
        }
    }

    /// Returns how many bytes were written: all of them, because the memory buffer grows.
    pub(crate) fn write(&mut self, buf: &[u8]) -> Result<usize, String> {
        let f = Self::functions()?;
        let mut n = 0;
        // SAFETY: the buffer is readable for its length; `n` is writable.
        unsafe {
            (f.ERR_clear_error)();
            let buffer = buf.as_ptr().cast();
            if (f.SSL_write_ex)(self.ssl, buffer, buf.len(), &raw mut n) == 1 {
                return Ok(n);
            }
            Err(reason(f))
        }
    }

    pub(crate) fn close(&mut self) {
        if let Ok(f) = Self::functions() {
            // SAFETY: its own session; its output goes to memory.
            unsafe {
                (f.SSL_shutdown)(self.ssl);
                (f.ERR_clear_error)();
            }
        }
    }

    /// The name of the client's key, on either end.
    pub(crate) fn identity(&self) -> Option<Vec<u8>> {
        self.shared.asked.lock().clone()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Ok(f) = functions() {
            // SAFETY: its own session, which frees its memory too. The callbacks' data still exists.
            unsafe { (f.SSL_free)(self.ssl) };
        }
    }
}

/// The oldest error of this thread, in the library's words.
fn reason(f: &Functions) -> String {
    // SAFETY: the text is static where it is not NULL.
    unsafe {
        let text = (f.ERR_reason_error_string)((f.ERR_get_error)());
        (f.ERR_clear_error)();
        if text.is_null() {
            return "unknown error of OpenSSL".to_owned();
        }
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}

/// # Safety
/// `ssl` must be a session of [`Maker::session`], during one of its calls.
unsafe fn shared<'a>(ssl: *mut Ssl) -> Option<&'a Shared> {
    let f = functions().ok()?;
    // SAFETY: set when the session was created, to data that lives as long as it does.
    unsafe { (f.SSL_get_ex_data)(ssl, 0).cast::<Shared>().as_ref() }
}

/// # Safety
/// `to` must have space for `room` bytes.
unsafe fn give(key: &Secret, to: *mut u8, room: c_uint) -> c_uint {
    let bytes = key.bytes();
    match c_uint::try_from(bytes.len()) {
        Ok(len) if len <= room => {
            // SAFETY: by the contract of this function.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
            len
        }
        _ => 0,
    }
}

unsafe extern "C" fn give_client_key(
    ssl: *mut Ssl,
    _hint: *const c_char,
    name: *mut c_char,
    name_room: c_uint,
    key: *mut u8,
    key_room: c_uint,
) -> c_uint {
    // SAFETY: called by the library for one of our sessions.
    let Some(Shared {
        keys: Keys::Client(own, secret),
        asked,
    }) = (unsafe { shared(ssl) })
    else {
        return 0;
    };
    let bytes = own.as_bytes_with_nul();
    if bytes.len() > name_room as usize {
        return 0;
    }
    *asked.lock() = Some(own.as_bytes().to_vec());
    // SAFETY: both have the space that the library specifies.
    unsafe {
        ptr::copy_nonoverlapping(bytes.as_ptr().cast(), name, bytes.len());
        give(secret, key, key_room)
    }
}

unsafe extern "C" fn give_server_key(
    ssl: *mut Ssl,
    name: *const c_char,
    key: *mut u8,
    key_room: c_uint,
) -> c_uint {
    // SAFETY: called by the library for one of our sessions.
    let Some(Shared {
        keys: Keys::Server(known),
        asked,
    }) = (unsafe { shared(ssl) })
    else {
        return 0;
    };
    if name.is_null() {
        return 0;
    }
    // SAFETY: a NUL-terminated text, valid during the call.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    *asked.lock() = Some(name.to_vec());
    match known.get(name) {
        // SAFETY: the space is what the library specifies.
        Some(secret) => unsafe { give(secret, key, key_room) },
        None => 0,
    }
}
