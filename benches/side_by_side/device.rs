//! The driver of a block device over vhost-user.

#[path = "../../tests/cli/serve/guest.rs"]
#[expect(dead_code, reason = "the tests ask for more")]
mod guest;

use std::path::Path;

use guest::{BUFFER, BUFFERS, Guest, IN, OK};

use crate::random::{BLOCK, Places};
use crate::rows::remove;

/// What this program is called with to be that driver.
pub const ARGUMENT: &str = "--device-reads";
/// Bytes of a read of the whole device.
const PIECE: u64 = 256 << 10;
/// Reads of the whole device that are under way at once.
const PIECES: u64 = 16;
/// Small reads that are under way at once: what the descriptors of a queue allow.
const BLOCKS: u64 = 40;
const SECTOR: u64 = 512;

/// Reads so many blocks here and there, or the whole device if `count` is 0.
pub fn read(socket: &str, count: u64) -> Result<(), String> {
    let memory = format!("{socket}.memory");
    let mut guest = Guest::new(Path::new(&memory), Path::new(socket));
    remove(&memory)?;
    let config = guest.config();
    let sectors = config.first_chunk().ok_or("no capacity")?;
    let size = u64::from_le_bytes(*sectors) * SECTOR;
    if count == 0 {
        let mut at = 0;
        while at < size {
            let end = (at + PIECE * PIECES).min(size);
            let places = (at..end).step_by(PIECE as usize);
            batch(&mut guest, places, |place| PIECE.min(size - place))?;
            at = end;
        }
        return Ok(());
    }
    let mut places = Places::new(1);
    let mut left = count;
    while left > 0 {
        let now = left.min(BLOCKS);
        let chosen = (0..now).map(|_| places.next(size / BLOCK) * BLOCK);
        batch(&mut guest, chosen, |_| BLOCK)?;
        left -= now;
    }
    Ok(())
}

/// Asks for what lies at `places` at once, and waits for all of it.
fn batch(
    guest: &mut Guest,
    places: impl Iterator<Item = u64>,
    len: impl Fn(u64) -> u64,
) -> Result<(), String> {
    let mut asked = 0;
    for place in places {
        // A buffer for the head, the status and a page's border, and one for the data.
        let at = BUFFERS + asked * 2 * BUFFER;
        guest.prepare(at, IN, place / SECTOR);
        let data = (at + BUFFER, len(place) as u32, true);
        guest.put(0, &[(at, 16, false), data, (at + 16, 1, true)]);
        asked += 1;
    }
    guest.kick(0);
    guest.wait(0);
    match (0..asked).all(|number| guest.status(number * 2) == OK) {
        true => Ok(()),
        false => Err("a read failed".to_owned()),
    }
}
