//! A client of NBD servers that reads 4 KiB here and there, many at once, as virtual machines do.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// What this program is called with to be that client.
pub const ARGUMENT: &str = "--random-reads";
/// Bytes of a read.
const BLOCK: u64 = 4096;
/// Reads that are under way at once.
const DEPTH: u64 = 64;
/// The beginning of a simple reply.
const HEAD: usize = 16;

/// Connects to a socket and reads so many blocks of its export without a name.
pub fn read(socket: &str, count: u64) -> Result<(), String> {
    run(socket, count).map_err(|e| format!("{socket}: {e}"))
}

fn run(socket: &str, count: u64) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.read_exact(&mut [0; 18])?;
    // NBD_FLAG_C_FIXED_NEWSTYLE, NBD_FLAG_C_NO_ZEROES, NBD_OPT_EXPORT_NAME.
    stream.write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\0")?;
    let mut export = [0; 10];
    stream.read_exact(&mut export)?;
    let [size @ .., _, _] = export;
    let blocks = (u64::from_be_bytes(size) / BLOCK).max(1);
    let mut place = 1u64;
    let mut requests = Vec::new();
    let mut ask = |requests: &mut Vec<u8>| {
        // Knuth's generator; its upper bits are the good ones.
        place = place
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        requests.extend(0x2560_9513u32.to_be_bytes());
        requests.extend([0; 4]);
        requests.extend(place.to_be_bytes());
        requests.extend(((place >> 24) % blocks * BLOCK).to_be_bytes());
        requests.extend((BLOCK as u32).to_be_bytes());
    };
    let (mut asked, mut taken) = (DEPTH.min(count), 0);
    (0..asked).for_each(|_| ask(&mut requests));
    let reply = HEAD + BLOCK as usize;
    let mut buffer = vec![0; reply * DEPTH as usize];
    let mut filled = 0;
    while taken < count {
        stream.write_all(&requests)?;
        requests.clear();
        let free = buffer.get_mut(filled..).unwrap_or_default();
        match stream.read(free)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            len => filled += len,
        }
        let whole = filled / reply;
        for head in buffer.chunks(reply).take(whole) {
            if head.get(..8) != Some(b"\x67\x44\x66\x98\0\0\0\0") {
                return Err(std::io::Error::other("a request failed"));
            }
            taken += 1;
            if asked < count {
                asked += 1;
                ask(&mut requests);
            }
        }
        buffer.copy_within(whole * reply..filled, 0);
        filled -= whole * reply;
    }
    Ok(())
}
