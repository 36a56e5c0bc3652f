//! A session: the control connection, and the transfer in progress.

use bstr::ByteSlice;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::memory;
use crate::net::{Address, Stream, connect};
use crate::storage::remote::{Failure, Next, Sink, cut, ended, violation};

use super::options::{Encryption, Settings};
use super::reply::{Lines, MAX_LINE, Reply};

/// Size of the kernel's buffers for a transfer.
const KERNEL_BUFFER: usize = 1 << 20;
/// Maximum number of replies to read until the server is ready.
const MAX_PRELIMINARY: usize = 8;
/// Bytes to read at a time when they are discarded.
const SCRAP: usize = 16 << 10;

/// A session of a user who has logged in, and the file as it was at that time.
#[derive(Debug)]
pub(super) struct Session {
    stream: Stream,
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// The IP address of the server.
    host: String,
    transfer: Option<Transfer>,
    /// The server has yet to report how the last transfer ended.
    owed: bool,
    pub(super) file: File,
}

/// What the server reports about the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) len: u64,
    /// The modification time, if the server reports it.
    modified: Option<String>,
}

/// A transfer in progress, and the offset of the next byte to be received.
#[derive(Debug)]
struct Transfer {
    stream: Stream,
    at: u64,
}

/// The context of an operation on a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking<'a> {
    pub(super) settings: &'a Settings,
    pub(super) control: &'a JobControl,
}

impl Session {
    /// Connects, logs in and looks up the file.
    ///
    /// # Errors
    /// Errors of the server.
    pub(super) fn begin(asking: Asking<'_>) -> Result<Self, Failure> {
        let Asking { settings, control } = asking;
        let address = settings.url.address(settings.port);
        let stream = connect(&address, settings.terms.wait(control))
            .map_err(|error| settings.terms.silent(error, control))?;
        let mut session = Self {
            host: host(&stream)?,
            stream,
            input: memory::filled(MAX_LINE, 0)?,
            start: 0,
            end: 0,
            transfer: None,
            owed: false,
            file: File {
                len: 0,
                modified: None,
            },
        };
        if settings.encryption == Encryption::Implicit {
            session = session.encrypted(asking)?;
        }
        session.greeting(asking)?;
        if settings.encryption == Encryption::Explicit {
            let reply = session.command("AUTH", b"TLS", asking)?;
            if !matches!(reply.code, 234 | 334) {
                return Err(reply.denial("TLS"));
            }
            session = session.encrypted(asking)?;
        }
        session.come_in(asking)?;
        session.look(asking)?;
        Ok(session)
    }

    /// The same session with TLS from the next byte on.
    fn encrypted(mut self, asking: Asking<'_>) -> Result<Self> {
        if self.start != self.end {
            // It is not known who sent these bytes.
            return Err(violation("The server sent more than it was asked for"));
        }
        self.stream = over_tls(self.stream, asking)?;
        Ok(self)
    }

    fn greeting(&mut self, asking: Asking<'_>) -> Result<(), Failure> {
        for _ in 0..MAX_PRELIMINARY {
            let reply = self.reply(asking)?;
            match reply.code {
                120 => {}
                _ if reply.is_done() => return Ok(()),
                _ => return Err(reply.refusal("a session")),
            }
        }
        Err(violation("The server is never ready").into())
    }

    fn come_in(&mut self, asking: Asking<'_>) -> Result<(), Failure> {
        let settings = asking.settings;
        let mut reply = self.command("USER", settings.user.as_bytes(), asking)?;
        if reply.code == 331 {
            reply = self.command("PASS", settings.password.bytes(), asking)?;
            reply.conceal(settings.password.bytes());
        }
        if !reply.is_done() {
            let doing = "the user or the password";
            return Err(match reply.code {
                // The server requires more than a user name and a password.
                331 | 332 => reply.denial(doing),
                _ => reply.refusal(doing),
            });
        }
        if settings.encryption != Encryption::Never {
            for (verb, argument) in [("PBSZ", b"0"), ("PROT", b"P")] {
                let reply = self.command(verb, argument, asking)?;
                if !reply.is_done() {
                    return Err(reply.denial("encrypted transfers"));
                }
            }
        }
        let reply = self.command("TYPE", b"I", asking)?;
        match reply.is_done() {
            true => Ok(()),
            false => Err(reply.refusal("transfers of bytes as they are")),
        }
    }

    fn look(&mut self, asking: Asking<'_>) -> Result<(), Failure> {
        let path = &asking.settings.path;
        let reply = self.command("SIZE", path, asking)?;
        if reply.code != 213 {
            return Err(reply.refusal("the length of the file"));
        }
        let len = reply.size();
        let len = len.ok_or_else(|| violation("The server tells a length that is no number"))?;
        let reply = self.command("MDTM", path, asking)?;
        if reply.is_for_now() {
            // If only some sessions got the time, the file would seem to have changed.
            return Err(reply.refusal("the time of the file"));
        }
        self.file = File {
            len,
            modified: (reply.code == 213).then_some(reply.text),
        };
        Ok(())
    }

    /// The offset that the transfer has reached, if there is one.
    pub(super) fn position(&self) -> Option<u64> {
        self.transfer.as_ref().map(|transfer| transfer.at)
    }

    /// Aborts the transfer, wherever it is.
    fn break_off(&mut self) {
        // The server notices that its connection is closed.
        if self.transfer.take().is_some() {
            self.owed = true;
        }
    }

    /// Starts a transfer. `extended` says whether the server supports `EPSV`; it is cleared if it does not.
    ///
    /// # Errors
    /// Errors of the server.
    pub(super) fn retrieve(
        &mut self,
        start: u64,
        extended: &std::sync::atomic::AtomicBool,
        asking: Asking<'_>,
    ) -> Result<(), Failure> {
        use std::sync::atomic::Ordering::Relaxed;
        let Asking { settings, control } = asking;
        self.break_off();
        let port = match extended.load(Relaxed) {
            true => {
                let reply = self.command("EPSV", b"", asking)?;
                match reply.code {
                    229 => Some(reply.extended_port()),
                    _ if reply.is_unknown() => {
                        extended.store(false, Relaxed);
                        None
                    }
                    _ => return Err(reply.refusal("a transfer")),
                }
            }
            false => None,
        };
        let port = match port {
            Some(port) => port,
            None => {
                let reply = self.command("PASV", b"", asking)?;
                if reply.code != 227 {
                    return Err(reply.refusal("a transfer"));
                }
                reply.port()
            }
        };
        let port = port.ok_or_else(|| violation("The server names no port for the transfer"))?;
        // Whatever address the reply gives, connect to the server's own.
        let address = Address::inet(self.host.clone(), port);
        let wait = settings.terms.wait(control);
        let stream = connect(&address, wait)
            .map_err(|error| settings.terms.silent(error, control))
            .map_err(|error| Failure {
                error: error.context("The server's transfer cannot be reached"),
                next: Next::Again,
                after: None,
            })?;
        stream.set_buffers(KERNEL_BUFFER);
        if start > 0 {
            let reply = self.command("REST", start.to_string().as_bytes(), asking)?;
            if reply.code != 350 {
                return Err(reply.refusal("reading from the middle of a file"));
            }
        }
        let reply = self.command("RETR", &settings.path, asking)?;
        if !reply.is_begun() {
            return Err(reply.refusal("the file"));
        }
        let stream = match settings.encryption {
            Encryption::Never => stream,
            Encryption::Implicit | Encryption::Explicit => {
                let secured = over_tls(stream, asking);
                secured.map_err(|error| self.unsecured(error, asking))?
            }
        };
        self.transfer = Some(Transfer { stream, at: start });
        Ok(())
    }

    /// Why a transfer could not be encrypted: a server that closes it gives the reason on the control connection.
    fn unsecured(&mut self, error: Error, asking: Asking<'_>) -> Failure {
        if !ended(&error) {
            return error.into();
        }
        match self.reply(asking) {
            Ok(reply) if !reply.is_done() => reply.refusal("the file"),
            _ => error.into(),
        }
    }

    /// Receives the bytes up to `end`; the transfer stays open if the file continues after that.
    ///
    /// # Errors
    /// Errors of the server.
    pub(super) fn take(
        &mut self,
        end: u64,
        sink: &mut dyn Sink,
        asking: Asking<'_>,
    ) -> Result<(), Failure> {
        let Asking { settings, control } = asking;
        let position = self.position();
        let position =
            position.ok_or_else(|| Error::new(ErrorKind::Internal, "No transfer has begun"))?;
        let len = end.saturating_sub(position);
        let over = settings.terms.body_end(len);
        while let Some(transfer) = self.transfer.as_mut().filter(|transfer| transfer.at < end) {
            let room = sink.room()?;
            let most = usize::try_from(end - transfer.at).unwrap_or(usize::MAX);
            let most = most.min(room.len());
            let wait = settings.terms.wait(control).until(over);
            let read = transfer.stream.read(&mut room[..most], wait);
            let n = match read {
                Err(error) if ended(&error) => 0,
                read => read.map_err(|error| settings.terms.silent(error, control))?,
            };
            if n == 0 {
                return Err(self.cut_off(asking));
            }
            transfer.at += n as u64;
            if transfer.at == self.file.len {
                // Only now are the bytes known to be what they should be.
                self.finish(asking)?;
            }
            sink.came(n)?;
        }
        Ok(())
    }

    /// Discards the bytes up to `end`.
    ///
    /// # Errors
    /// Errors of the server.
    pub(super) fn skip(&mut self, end: u64, asking: Asking<'_>) -> Result<(), Failure> {
        struct Nowhere(Vec<u8>);
        impl Sink for Nowhere {
            fn room(&mut self) -> Result<&mut [u8]> {
                Ok(&mut self.0)
            }
            fn came(&mut self, _len: usize) -> Result<()> {
                Ok(())
            }
        }
        self.take(end, &mut Nowhere(memory::filled(SCRAP, 0)?), asking)
    }

    /// Why the transfer ended too early.
    fn cut_off(&mut self, asking: Asking<'_>) -> Failure {
        let at = self.position().unwrap_or(0);
        self.transfer = None;
        match self.reply(asking) {
            Ok(reply) if !reply.is_done() => reply.refusal("the rest of the file"),
            Ok(_) => violation(format!(
                "The server sent {at} bytes of a file that has {}",
                self.file.len
            ))
            .into(),
            Err(error) => error.into(),
        }
    }

    /// Checks that the transfer ends with the file, and successfully.
    fn finish(&mut self, asking: Asking<'_>) -> Result<(), Failure> {
        let Asking { settings, control } = asking;
        let Some(transfer) = self.transfer.take() else {
            return Ok(());
        };
        let mut byte = [0];
        match transfer
            .stream
            .read(&mut byte, settings.terms.wait(control))
        {
            Ok(0) => {}
            Err(error) if ended(&error) => {}
            Ok(_) => {
                let message = format!(
                    "The server sends more than the {} bytes that it says there are",
                    self.file.len
                );
                return Err(Failure::last(violation(message)));
            }
            Err(error) => return Err(settings.terms.silent(error, control).into()),
        }
        drop(transfer);
        let reply = self.reply(asking)?;
        match reply.is_done() {
            true => Ok(()),
            false => Err(reply.refusal("the end of the file")),
        }
    }

    /// Sends a command and receives the reply to it.
    fn command(&mut self, verb: &str, argument: &[u8], asking: Asking<'_>) -> Result<Reply> {
        if self.owed {
            // The last transfer is over, whatever its outcome.
            self.owed = false;
            let reply = self.reply(asking)?;
            if reply.code == 421 {
                return Ok(reply);
            }
        }
        if self.start != self.end {
            // A server that closes the connection announces it unasked.
            let reply = self.reply(asking)?;
            return match reply.code {
                421 => Ok(reply),
                _ => Err(violation("The server sent what was not asked for")),
            };
        }
        let mut line = Zeroizing::new(Vec::new());
        memory::reserve(&mut line, verb.len() + argument.len() + 3)?;
        line.extend_from_slice(verb.as_bytes());
        if !argument.is_empty() || verb == "PASS" {
            line.push(b' ');
            line.extend_from_slice(argument);
        }
        line.extend_from_slice(b"\r\n");
        let Asking { settings, control } = asking;
        let wait = settings.terms.wait(control);
        let sent = self.stream.write_all(&line, wait);
        match sent.map_err(|error| settings.terms.silent(error, control)) {
            // What it sent before it closed the connection may still be readable.
            Err(error) if ended(&error) => self.reply(asking).map_err(|_| error),
            Err(error) => Err(error),
            Ok(()) => self.reply(asking),
        }
    }

    /// Receives the next reply, all of which must arrive within the timeout.
    fn reply(&mut self, asking: Asking<'_>) -> Result<Reply> {
        let Asking { settings, control } = asking;
        let wait = settings.terms.wait(control);
        let mut lines = Lines::default();
        loop {
            let waiting = self.input.get(self.start..self.end).unwrap_or_default();
            if let Some(len) = waiting.find_byte(b'\n') {
                let line = waiting.get(..len).unwrap_or_default();
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                self.start += len + 1;
                if let Some(reply) = lines.take(line)? {
                    return Ok(reply);
                }
                continue;
            }
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            let room = self.input.get_mut(self.end..).unwrap_or_default();
            if room.is_empty() {
                return Err(violation("The server sends a line without end"));
            }
            let read = self.stream.read(room, wait);
            match read.map_err(|error| settings.terms.silent(error, control))? {
                0 => return Err(cut()),
                n => self.end += n,
            }
        }
    }
}

/// The IP address of the server.
fn host(stream: &Stream) -> Result<String> {
    let reached = stream.reached()?;
    let host = reached.host().map(str::to_owned);
    host.ok_or_else(|| Error::new(ErrorKind::Internal, "The server is no machine"))
}

fn over_tls(stream: Stream, asking: Asking<'_>) -> Result<Stream> {
    let Asking { settings, control } = asking;
    let trust = settings.terms.trust()?;
    let wait = settings.terms.wait(control);
    stream
        .with_tls_client(&trust, Some(&settings.url.host), wait)
        .map_err(|error| settings.terms.silent(error, control))
}
