//! Between a client and a target: what the target sends is looked at, and changed.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::server::Server;

/// The opcodes of what a target sends.
const RESPONSE: u8 = 0x21;
const LOGGED_IN: u8 = 0x23;
const DATA: u8 = 0x25;

/// What becomes of what a target sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Nothing,
    /// The header of that PDU with data is another one, of the first client that gets one.
    Header(usize),
    /// Units that were reset may have another medium.
    Attention,
}

pub struct Relay {
    pub port: u16,
    /// What the target has said while clients logged in.
    said: Arc<Mutex<Vec<u8>>>,
    /// A header was changed.
    changed: Arc<AtomicBool>,
}

impl Relay {
    pub fn new(to: u16, change: Change) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (said, changed) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let this = Self {
            port,
            said: Arc::clone(&said),
            changed: changed.clone(),
        };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let target = TcpStream::connect(("127.0.0.1", to)).expect("the target");
                let ends = |end: &TcpStream| end.try_clone().expect("an end");
                let (mut from, mut into) = (ends(&client), ends(&target));
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut into);
                    let _ = into.shutdown(std::net::Shutdown::Both);
                });
                let (said, changed) = (said.clone(), changed.clone());
                std::thread::spawn(move || {
                    let _ = pass(&target, &client, change, &said, &changed);
                    let _ = client.shutdown(std::net::Shutdown::Both);
                });
            }
        });
        this
    }

    /// The name of unit 1 of target 1 by way of this.
    pub fn url(&self, server: &Server) -> String {
        let (from, to) = (format!(":{}/", server.port), format!(":{}/", self.port));
        server.url(1).replacen(&from, &to, 1)
    }

    pub fn has_changed(&self) -> bool {
        self.changed.load(Ordering::Relaxed)
    }

    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().expect("what was said")).into_owned()
    }
}

/// Passes on what a target sends, PDU by PDU.
fn pass(
    mut from: &TcpStream,
    mut to: &TcpStream,
    change: Change,
    said: &Mutex<Vec<u8>>,
    changed: &AtomicBool,
) -> std::io::Result<()> {
    let (mut digest, mut seen) = (0, 0);
    loop {
        let mut header = vec![0; 48];
        from.read_exact(&mut header)?;
        let len = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
        let mut rest = vec![0; 4 * usize::from(header[4]) + digest + len.next_multiple_of(4)];
        from.read_exact(&mut rest)?;
        match header[0] & 0x3f {
            LOGGED_IN => {
                let mut said = said.lock().expect("what was said");
                said.extend(&rest);
                let agreed = b"HeaderDigest=CRC32C\0";
                let agreed = said.windows(agreed.len()).any(|text| text == agreed);
                // It goes on to the last stage, where they are used.
                if agreed && header[1] & 0x83 == 0x83 {
                    digest = 4;
                }
            }
            DATA if len > 0 => {
                if change == Change::Header(seen) && !changed.swap(true, Ordering::Relaxed) {
                    // Where in the buffer the data belongs.
                    header[42] ^= 0x10;
                }
                seen += 1;
            }
            // Fixed sense data behind its length: the key of UNIT ATTENTION, and the code.
            RESPONSE
                if change == Change::Attention
                    && rest.get(4) == Some(&6)
                    && rest.get(14) == Some(&0x29) =>
            {
                rest[14] = 0x28;
            }
            _ => {}
        }
        to.write_all(&header)?;
        to.write_all(&rest)?;
    }
}
