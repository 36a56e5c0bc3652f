//! Formats that are only read: images of them are written by the test, from the guest's bytes.

mod bochs;
mod cloop;

/// One kind of image.
#[derive(Debug)]
pub struct Given {
    /// For messages.
    pub name: &'static str,
    /// The driver.
    pub format: &'static str,
    /// What the names of its files end in.
    pub suffix: &'static str,
    /// QEMU's tools read it.
    pub known_to_peer: bool,
    /// Virtual size in bytes.
    pub size: usize,
    /// Writes the image of a disk of that size.
    pub write: fn(&[u8]) -> Vec<u8>,
}

/// Every kind.
pub const GIVEN: &[Given] = &[
    Given {
        name: "bochs",
        format: "bochs",
        suffix: "bochs",
        known_to_peer: true,
        size: (3 << 20) + 512,
        write: |guest| bochs::write(guest, 0x2_0000, 1 << 16, 16),
    },
    Given {
        name: "bochs version 1",
        format: "bochs",
        suffix: "bochs",
        known_to_peer: true,
        size: 3 << 20,
        write: |guest| bochs::write(guest, 0x1_0000, 1 << 13, 513),
    },
    Given {
        name: "bochs of large extents",
        format: "bochs",
        suffix: "bochs",
        known_to_peer: true,
        size: 9 << 20,
        write: |guest| bochs::write(guest, 0x2_0000, 8 << 20, 2048),
    },
    Given {
        name: "cloop",
        format: "cloop",
        suffix: "cloop",
        known_to_peer: true,
        size: 40 << 16,
        write: |guest| cloop::write(guest, 1 << 16),
    },
    Given {
        name: "cloop of odd blocks",
        format: "cloop",
        suffix: "cloop",
        known_to_peer: true,
        size: 300 * 13 * 512,
        write: |guest| cloop::write(guest, 13 * 512),
    },
    Given {
        name: "cloop of large blocks",
        format: "cloop",
        suffix: "cloop",
        known_to_peer: true,
        size: 6 << 20,
        write: |guest| cloop::write(guest, 3 << 20),
    },
];

impl Given {
    /// A disk with holes, text and noise, and the image of it.
    pub fn make(&self) -> (Vec<u8>, Vec<u8>) {
        let guest = disk(self.size);
        let image = (self.write)(&guest);
        (guest, image)
    }
}

/// Guest bytes: of each five pieces two are zeroes, two compress and one does not.
pub fn disk(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for (n, piece) in bytes.chunks_mut(48 << 10).enumerate() {
        match n % 5 {
            0 | 2 => {
                for (at, byte) in piece.iter_mut().enumerate() {
                    *byte = b"every block has a line of its own; "[(at * (n + 3) / 7) % 35];
                }
            }
            3 => {
                for byte in piece {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    *byte = state as u8;
                }
            }
            _ => {}
        }
    }
    bytes
}
