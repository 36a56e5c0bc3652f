//! Formats that are only read: images of them are written by the test, from the guest's bytes.

mod asif;
mod bochs;
mod cloop;
mod dmg;
mod ewf;
mod sparseimage;

use dmg::Layout;

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
    /// How the image is written.
    writer: Writer,
}

#[derive(Debug)]
enum Writer {
    Asif(asif::Layout),
    Bochs {
        version: u32,
        extent: usize,
        bitmap: usize,
    },
    Cloop {
        block: usize,
    },
    Dmg(Layout),
    Ewf(ewf::Layout),
    SparseImage {
        band: usize,
    },
}

/// Every kind.
pub const GIVEN: &[Given] = &[
    bochs("bochs", (3 << 20) + 512, [0x2_0000, 1 << 16, 16]),
    bochs("bochs version 1", 3 << 20, [0x1_0000, 1 << 13, 513]),
    bochs("bochs of large extents", 9 << 20, [0x2_0000, 8 << 20, 2048]),
    cloop("cloop", 40 << 16, 1 << 16),
    cloop("cloop of odd blocks", 300 * 13 * 512, 13 * 512),
    cloop("cloop of large blocks", 6 << 20, 3 << 20),
    dmg("dmg", 5, dmg::zlib),
    unknown_to_peer(dmg("dmg of bzip2", 6, dmg::bzip2)),
    unknown_to_peer(dmg("dmg of LZFSE", 7, dmg::lzfse)),
    unknown_to_peer(dmg("dmg of LZMA", 8, dmg::xz)),
    unknown_to_peer(dmg("dmg of ADC", 4, dmg::adc)),
    Given {
        writer: Writer::Dmg(Layout {
            chunk: 3 << 20,
            fork: true,
            ..zlib()
        }),
        size: 7 << 20,
        ..dmg("dmg with a resource fork", 5, dmg::zlib)
    },
    unknown_to_peer(Given {
        writer: Writer::Dmg(Layout {
            mixed: true,
            ..zlib()
        }),
        ..dmg("dmg of mixed tables", 5, dmg::zlib)
    }),
    sparseimage("sparseimage", (5 << 20) + 512, 1 << 20),
    sparseimage("sparseimage of several nodes", 12 << 20, 4096),
    ewf("ewf", EWF),
    ewf(
        "ewf with a base, from the copies of its tables",
        ewf::Layout {
            chunk: 63,
            table: 17,
            based: true,
            second_only: true,
            ..EWF
        },
    ),
    ewf("ewf of SMART", ewf::Layout { smart: true, ..EWF }),
    asif("asif", ASIF),
    asif(
        "asif of the second directory",
        asif::Layout { live: 1, ..ASIF },
    ),
    asif(
        "asif of sectors",
        asif::Layout {
            partly: true,
            ..ASIF
        },
    ),
];

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

const fn asif(name: &'static str, layout: asif::Layout) -> Given {
    Given {
        name,
        format: "asif",
        known_to_peer: false,
        size: (4 << 20) + 512,
        writer: Writer::Asif(layout),
    }
}

const fn ewf(name: &'static str, layout: ewf::Layout) -> Given {
    Given {
        name,
        format: "ewf",
        known_to_peer: false,
        size: 3_000_832,
        writer: Writer::Ewf(layout),
    }
}

const fn sparseimage(name: &'static str, size: usize, band: usize) -> Given {
    Given {
        name,
        format: "sparseimage",
        known_to_peer: false,
        size,
        writer: Writer::SparseImage { band },
    }
}

const fn bochs(name: &'static str, size: usize, numbers: [usize; 3]) -> Given {
    let [version, extent, bitmap] = numbers;
    Given {
        name,
        format: "bochs",
        known_to_peer: true,
        size,
        writer: Writer::Bochs {
            version: version as u32,
            extent,
            bitmap,
        },
    }
}

const fn cloop(name: &'static str, size: usize, block: usize) -> Given {
    Given {
        name,
        format: "cloop",
        known_to_peer: true,
        size,
        writer: Writer::Cloop { block },
    }
}

const fn dmg(name: &'static str, kind: u32, pack: dmg::Pack) -> Given {
    Given {
        name,
        format: "dmg",
        known_to_peer: true,
        size: 2_000_896,
        writer: Writer::Dmg(Layout {
            kind: 0x8000_0000 | kind,
            pack,
            ..zlib()
        }),
    }
}

const fn zlib() -> Layout {
    Layout {
        kind: 0x8000_0005,
        pack: dmg::zlib,
        chunk: 100 << 9,
        fork: false,
        mixed: false,
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
        let image = match &self.writer {
            Writer::Asif(layout) => asif::write(&guest, layout),
            Writer::Bochs {
                version,
                extent,
                bitmap,
            } => bochs::write(&guest, *version, *extent, *bitmap),
            Writer::Cloop { block } => cloop::write(&guest, *block),
            Writer::Dmg(layout) => dmg::write(&guest, layout),
            Writer::Ewf(layout) => ewf::write(&guest, layout),
            Writer::SparseImage { band } => sparseimage::write(&guest, *band),
        };
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
