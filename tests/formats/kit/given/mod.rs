//! Formats that are only read: images of them are written by the test, from the guest's bytes.

mod asif;
mod bochs;
mod cloop;
mod dmg;
mod ewf;
mod sparseimage;

/// One kind of image.
#[derive(Debug)]
pub struct Given {
    /// For messages.
    pub name: &'static str,
    /// The driver, and what the names of its files end in.
    pub format: &'static str,
    /// QEMU's tools read it.
    pub known_to_peer: bool,
    /// Virtual size in bytes.
    pub size: usize,
    /// Writes the image of a disk.
    write: Write,
}

/// Every kind.
pub const GIVEN: &[Given] = &[
    bochs("bochs", (3 << 20) + 512, |disk| {
        bochs::write(disk, 0x2_0000, 1 << 16, 16)
    }),
    bochs("bochs version 1", 3 << 20, |disk| {
        bochs::write(disk, 0x1_0000, 1 << 13, 513)
    }),
    bochs("bochs of large extents", 9 << 20, |disk| {
        bochs::write(disk, 0x2_0000, 8 << 20, 2048)
    }),
    cloop("cloop", 40 << 16, |disk| cloop::write(disk, 1 << 16)),
    cloop("cloop of odd blocks", 300 * 13 * 512, |disk| {
        cloop::write(disk, 13 * 512)
    }),
    cloop("cloop of large blocks", 6 << 20, |disk| {
        cloop::write(disk, 3 << 20)
    }),
    dmg("dmg", |disk| dmg::write(disk, &packed(5, dmg::zlib))),
    unknown_to_peer(dmg("dmg of bzip2", |disk| {
        dmg::write(disk, &packed(6, dmg::bzip2))
    })),
    unknown_to_peer(dmg("dmg of LZFSE", |disk| {
        dmg::write(disk, &packed(7, dmg::lzfse))
    })),
    unknown_to_peer(dmg("dmg of LZMA", |disk| {
        dmg::write(disk, &packed(8, dmg::xz))
    })),
    unknown_to_peer(dmg("dmg of ADC", |disk| {
        dmg::write(disk, &packed(4, dmg::adc))
    })),
    Given {
        size: 7 << 20,
        ..dmg("dmg with a resource fork", |disk| {
            let layout = dmg::Layout {
                chunk: 3 << 20,
                fork: true,
                ..packed(5, dmg::zlib)
            };
            dmg::write(disk, &layout)
        })
    },
    unknown_to_peer(dmg("dmg of mixed tables", |disk| {
        let layout = dmg::Layout {
            mixed: true,
            ..packed(5, dmg::zlib)
        };
        dmg::write(disk, &layout)
    })),
    sparseimage("sparseimage", (5 << 20) + 512, |disk| {
        sparseimage::write(disk, 1 << 20)
    }),
    sparseimage("sparseimage of several nodes", 12 << 20, |disk| {
        sparseimage::write(disk, 4096)
    }),
    ewf("ewf", |disk| ewf::write(disk, &EWF)),
    ewf("ewf with a base, from the copies of its tables", |disk| {
        let layout = ewf::Layout {
            chunk: 63,
            table: 17,
            based: true,
            second_only: true,
            ..EWF
        };
        ewf::write(disk, &layout)
    }),
    ewf("ewf of SMART", |disk| {
        ewf::write(disk, &ewf::Layout { smart: true, ..EWF })
    }),
    asif("asif", |disk| asif::write(disk, &ASIF)),
    asif("asif of the second directory", |disk| {
        asif::write(disk, &asif::Layout { live: 1, ..ASIF })
    }),
    asif("asif of sectors", |disk| {
        let layout = asif::Layout {
            partly: true,
            ..ASIF
        };
        asif::write(disk, &layout)
    }),
];

/// Writes the image of a disk.
type Write = fn(&[u8]) -> Vec<u8>;

const EWF: ewf::Layout = ewf::Layout {
    chunk: 64,
    table: 40,
    based: false,
    second_only: false,
    smart: false,
};

const ASIF: asif::Layout = asif::Layout {
    live: 0,
    partly: false,
};

const fn asif(name: &'static str, write: Write) -> Given {
    unknown_to_peer(given(name, "asif", (4 << 20) + 512, write))
}

const fn ewf(name: &'static str, write: Write) -> Given {
    unknown_to_peer(given(name, "ewf", 3_000_832, write))
}

const fn sparseimage(name: &'static str, size: usize, write: Write) -> Given {
    unknown_to_peer(given(name, "sparseimage", size, write))
}

const fn bochs(name: &'static str, size: usize, write: Write) -> Given {
    given(name, "bochs", size, write)
}

const fn cloop(name: &'static str, size: usize, write: Write) -> Given {
    given(name, "cloop", size, write)
}

const fn dmg(name: &'static str, write: Write) -> Given {
    given(name, "dmg", 2_000_896, write)
}

const fn packed(kind: u32, pack: dmg::Pack) -> dmg::Layout {
    dmg::Layout {
        kind: 0x8000_0000 | kind,
        pack,
        chunk: 100 << 9,
        fork: false,
        mixed: false,
    }
}

/// A kind that QEMU's tools read too.
const fn given(name: &'static str, format: &'static str, size: usize, write: Write) -> Given {
    Given {
        name,
        format,
        known_to_peer: true,
        size,
        write,
    }
}

/// A kind that QEMU's tools do not read.
const fn unknown_to_peer(given: Given) -> Given {
    Given {
        known_to_peer: false,
        ..given
    }
}

/// The kind of that name.
#[allow(dead_code, reason = "not every binary that has the kinds asks for one")]
pub fn by_name(name: &str) -> &'static Given {
    let mut all = GIVEN.iter();
    all.find(|given| given.name == name).expect(name)
}

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
