//! Clients that read 4 KiB here and there, many at once, as virtual machines do.

use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;

/// What this program is called with to be the client of an NBD server.
pub const ARGUMENT: &str = "--random-reads";
/// What this program is called with to read a file.
pub const FILE: &str = "--random-reads-of-a-file";
/// Threads that read a file.
const THREADS: u64 = 8;
/// Bytes of a read.
pub const BLOCK: u64 = 4096;
/// Reads that are under way at once.
const DEPTH: u64 = 64;
/// The beginning of a simple reply.
const HEAD: usize = 16;

/// Blocks here and there.
pub struct Places(u64);

impl Places {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one, below `blocks`.
    pub fn next(&mut self, blocks: u64) -> u64 {
        // Knuth's generator; its upper bits are the good ones.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 24) % blocks
    }
}

/// Reads so many blocks of a file, past the page cache.
pub fn read_file(path: &str, count: u64) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{path}: {e}");
    let file = std::fs::File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .map_err(failed)?;
    let blocks = (file.metadata().map_err(failed)?.len() / BLOCK).max(1);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (1..=THREADS)
            .map(|seed| {
                let file = &file;
                scope.spawn(move || {
                    let mut places = Places::new(seed);
                    let mut buffer = Aligned([0; BLOCK as usize]);
                    (0..count / THREADS).try_for_each(|_| {
                        file.read_exact_at(&mut buffer.0, places.next(blocks) * BLOCK)
                    })
                })
            })
            .collect();
        readers.into_iter().try_for_each(|reader| {
            let read = reader
                .join()
                .map_err(|_| format!("{path}: a reader ended"))?;
            read.map_err(failed)
        })
    })
}

/// A block as requests without the page cache want it.
#[repr(align(4096))]
struct Aligned([u8; BLOCK as usize]);

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
    let mut places = Places::new(1);
    let mut requests = Vec::new();
    let mut ask = |requests: &mut Vec<u8>| {
        let place = places.next(blocks);
        requests.extend(0x2560_9513u32.to_be_bytes());
        requests.extend([0; 4]);
        requests.extend(place.to_be_bytes());
        requests.extend((place * BLOCK).to_be_bytes());
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
