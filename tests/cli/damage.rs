//! Every field of the headers of the other products' formats, damaged: what the tools say of it is the same, or stands
//! here with the reason why ours says more.

use crate::given;
use crate::pair::{Loose, Pair, ours, words};
use crate::seal::seal;

/// What QEMU's tool does where ours differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theirs {
    /// Opens an image that ours refuses.
    Opens,
    /// Fails too, in other words.
    Fails,
    /// Refuses an image that ours opens.
    Refuses,
    /// Opens it too, and tells something else of it.
    Shows,
}

/// A difference: the fields, what theirs does, a part of what ours says, and why.
type Own = (&'static [&'static str], Theirs, &'static str, &'static str);

/// A kind of image.
struct Disk {
    driver: &'static str,
    make: fn(&Pair) -> Vec<u8>,
    /// Where the structure stands from the end of the file, if not at its beginning.
    from_end: Option<usize>,
    is_big_endian: bool,
    /// Name, offset and width. The checksums around those that are none themselves are put right.
    fields: &'static [(&'static str, usize, usize)],
    own: &'static [Own],
}

/// Three MiB of which a part is data, as an image of theirs.
fn converted(pair: &Pair, options: &str) -> Vec<u8> {
    pair.theirs().qemu_img_ok(&words("create -q s.raw 3M"));
    let writes = ["write -P 1 0 100k", "write -P 2 1M 64k"];
    pair.theirs().qemu_io("raw", "s.raw", &writes);
    let line = format!("convert {options} s.raw made");
    pair.theirs().qemu_img_ok(&words(&line));
    std::fs::read(pair.theirs().path("made")).expect("the image")
}

fn number(bytes: &[u8], is_big_endian: bool) -> u64 {
    let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
    match is_big_endian {
        true => bytes.iter().fold(0, add),
        false => bytes.iter().rev().fold(0, add),
    }
}

fn put(bytes: &mut [u8], value: u64, is_big_endian: bool) {
    let width = bytes.len();
    match is_big_endian {
        true => bytes.copy_from_slice(&value.to_be_bytes()[8 - width..]),
        false => bytes.copy_from_slice(&value.to_le_bytes()[..width]),
    }
}

/// Copies a field to the second copy of the structure that it stands in, which would be used instead.
fn mirror(driver: &str, bytes: &mut [u8], at: usize, width: usize) {
    let other = match (driver, at) {
        ("vpc", ..512) => bytes.len() - 512 + at,
        ("vhdx", 0x1_0000..0x2_0000 | 0x3_0000..0x4_0000) => at + 0x1_0000,
        _ => return,
    };
    bytes.copy_within(at..at + width, other);
}

/// Damages each field in three ways; the exceptions must be all those that there are.
fn damage(disk: &Disk) {
    let pair = Pair::new();
    let good = (disk.make)(&pair);
    let base = disk.from_end.map_or(0, |back| good.len() - back);
    let mut used = vec![false; disk.own.len()];
    let mut wrong = Vec::new();
    for (field, at, width) in disk.fields {
        let place = base + at..base + at + width;
        let old = number(&good[place.clone()], disk.is_big_endian);
        let top = u64::MAX >> (64 - 8 * width);
        let mut values = vec![0, old.wrapping_add(1) & top, top];
        values.retain(|value| *value != old);
        values.dedup();
        for value in values {
            let mut bytes = good.clone();
            put(&mut bytes[place.clone()], value, disk.is_big_endian);
            mirror(disk.driver, &mut bytes, place.start, *width);
            if !field.ends_with("checksum") {
                seal(disk.driver, &mut bytes);
            }
            pair.file("b", &bytes);
            let (theirs, ours, same) = pair.both(&["info", "-f", disk.driver, "b"], Loose::Exact);
            if same {
                continue;
            }
            let done = match (theirs.code, ours.code) {
                (0, 0) => Theirs::Shows,
                (0, 1) => Theirs::Opens,
                (_, 1) => Theirs::Fails,
                _ => Theirs::Refuses,
            };
            let said = format!("{}{}", ours.out, ours.err);
            let known = disk.own.iter().position(|(fields, what, says, _)| {
                fields.contains(field) && *what == done && said.contains(says)
            });
            let lines = ours
                .err
                .lines()
                .filter(|line| line.starts_with("qemu-img: "));
            match known {
                Some(known) if lines.count() == usize::from(ours.code != 0) => used[known] = true,
                _ => wrong.push(format!(
                    "{field} = {value:#x}: {done:?}\n  theirs: {theirs:?}\n  ours: {ours:?}"
                )),
            }
        }
    }
    for (own, _) in disk.own.iter().zip(used).filter(|(_, used)| !used) {
        wrong.push(format!("there is no such difference any more: {own:?}"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

use Theirs::{Fails, Opens, Refuses, Shows};

const NO_CRASH: &str = "theirs reads other bytes as the table, or shows wrong data";
const A_REASON: &str = "theirs names no reason";
const PARENTS: &str = "theirs knows no differencing images of the format";

const VMDK: &[(&str, usize, usize)] = &[
    ("magic", 0, 4),
    ("version", 4, 4),
    ("flags", 8, 4),
    ("capacity", 12, 8),
    ("grain size", 20, 8),
    ("descriptor offset", 28, 8),
    ("descriptor size", 36, 8),
    ("entries of a grain table", 44, 4),
    ("redundant directory", 48, 8),
    ("directory", 56, 8),
    ("overhead", 64, 8),
    ("unclean shutdown", 72, 1),
    ("line end 1", 73, 1),
    ("line end 2", 74, 1),
    ("line end 3", 75, 1),
    ("line end 4", 76, 1),
    ("compression", 77, 2),
];

/// Differences that every hosted sparse extent has.
const VMDK_OWN: &[Own] = &[
    (
        &["magic"],
        Fails,
        "invalid VMDK image descriptor: there is no version",
        "ours adds what is wrong with it",
    ),
    (
        &["version"],
        Opens,
        "Unsupported VMDK version 0",
        "there is no such version",
    ),
    (
        &["flags"],
        Opens,
        "features that are not known: flags 0xfffc0000",
        "the specification keeps these bits for what changes the format",
    ),
    (
        &["capacity"],
        Refuses,
        "virtual size: 0 B",
        "theirs makes such images and cannot open them",
    ),
    (
        &["capacity"],
        Fails,
        "A capacity of 18446744073709551615 sectors",
        A_REASON,
    ),
    (
        &["grain size"],
        Opens,
        "Invalid granularity of 129 sectors",
        "grains are powers of two",
    ),
    (
        &["grain size"],
        Fails,
        "Invalid granularity of 18446744073709551615 sectors, image may be corrupt",
        "ours adds the number",
    ),
    (
        &["descriptor offset"],
        Opens,
        "has no descriptor in it",
        "theirs opens a disk whose content ID and parent it cannot know",
    ),
    (
        &["descriptor offset", "descriptor size"],
        Opens,
        "The descriptor is said to have",
        "theirs opens a disk whose content ID and parent it cannot know",
    ),
    (
        &["descriptor size"],
        Opens,
        "Image not in VMDK format",
        "theirs opens a disk whose content ID and parent it cannot know",
    ),
    (
        &["descriptor size"],
        Opens,
        "a grain directory stands in the place of the descriptor",
        "a change of the content ID would overwrite it",
    ),
    (
        &["entries of a grain table"],
        Refuses,
        "virtual size: 3 MiB",
        "ours reads tables of other lengths, which COWD and newer products have",
    ),
    (
        &["redundant directory"],
        Fails,
        "The grain directory at 18446744073709551615 lies outside of any file",
        A_REASON,
    ),
    (
        &["directory"],
        Opens,
        "a grain directory stands in the place of the header",
        NO_CRASH,
    ),
    (
        &["directory"],
        Fails,
        "The stream has no footer",
        "ours says how such a file comes to be",
    ),
    (
        &["overhead"],
        Fails,
        "File truncated, expecting at least 9444732965739290426880 bytes",
        "theirs prints -512",
    ),
    (
        &["unclean shutdown"],
        Shows,
        "cleanly shut down: no",
        "ours tells of it",
    ),
    (
        &["line end 1", "line end 2", "line end 3", "line end 4"],
        Opens,
        "The file was changed by a transfer as text",
        "that is what the field is for: the data is damaged",
    ),
];

#[test]
fn every_field_of_a_sparse_vmdk() {
    let own = [
        VMDK_OWN,
        &[(
            &["compression"],
            Shows,
            "virtual size: 3 MiB",
            "the flag says whether grains are compressed",
        )],
    ];
    damage(&Disk {
        driver: "vmdk",
        make: |pair| converted(pair, "-O vmdk"),
        from_end: None,
        is_big_endian: false,
        fields: VMDK,
        own: Box::leak(own.concat().into_boxed_slice()),
    });
}

#[test]
fn every_field_of_a_stream() {
    let own = [
        VMDK_OWN,
        &[
            (
                &["flags"],
                Shows,
                "virtual size: 3 MiB",
                "the flag says whether grains are compressed",
            ),
            (
                &["compression"],
                Opens,
                "Unsupported compression",
                "there is no such method",
            ),
        ],
    ];
    damage(&Disk {
        driver: "vmdk",
        make: |pair| converted(pair, "-O vmdk -o subformat=streamOptimized"),
        from_end: None,
        is_big_endian: false,
        fields: VMDK,
        own: Box::leak(own.concat().into_boxed_slice()),
    });
}

#[test]
fn every_field_of_a_vdi() {
    damage(&Disk {
        driver: "vdi",
        make: |pair| converted(pair, "-O vdi"),
        from_end: None,
        is_big_endian: false,
        fields: &[
            ("signature", 64, 4),
            ("version", 68, 4),
            ("header size", 72, 4),
            ("type", 76, 4),
            ("flags", 80, 4),
            ("block map", 0x154, 4),
            ("data", 0x158, 4),
            ("cylinders", 0x15c, 4),
            ("heads", 0x160, 4),
            ("sectors", 0x164, 4),
            ("sector size", 0x168, 4),
            ("unused", 0x16c, 4),
            ("disk size", 0x170, 8),
            ("block size", 0x178, 4),
            ("extra bytes", 0x17c, 4),
            ("blocks", 0x180, 4),
            ("allocated blocks", 0x184, 4),
            ("image UUID", 0x188, 4),
            ("snapshot UUID", 0x198, 4),
            ("link UUID", 0x1a8, 4),
            ("parent UUID", 0x1b8, 4),
        ],
        own: &[
            (
                &["type"],
                Opens,
                "unsupported VDI image (type ",
                "theirs never looks at it, and shows what a differencing image lacks as zeroes",
            ),
            (
                &["block map", "data"],
                Opens,
                "The block map of the VDI image overlaps the header or the data",
                NO_CRASH,
            ),
            (
                &["block size"],
                Fails,
                "unsupported VDI image (block size ",
                "ours reads blocks of other sizes",
            ),
            (&["extra bytes"], Opens, "extra bytes per block)", NO_CRASH),
            (
                &["link UUID", "parent UUID"],
                Refuses,
                "virtual size: 3 MiB",
                PARENTS,
            ),
        ],
    });
}

#[test]
fn every_field_of_a_qcow() {
    damage(&Disk {
        driver: "qcow",
        make: |pair| converted(pair, "-O qcow"),
        from_end: None,
        is_big_endian: true,
        fields: &[
            ("magic", 0, 4),
            ("version", 4, 4),
            ("backing file offset", 8, 8),
            ("backing file size", 16, 4),
            ("modification time", 20, 4),
            ("size", 24, 8),
            ("cluster bits", 32, 1),
            ("L2 bits", 33, 1),
            ("padding", 34, 2),
            ("encryption", 36, 4),
            ("L1 table", 40, 8),
        ],
        own: &[
            (
                &["backing file offset"],
                Refuses,
                "virtual size: 3 MiB",
                "a name of no bytes stands nowhere",
            ),
            (
                &["L1 table"],
                Opens,
                "The L1 table stands in the place of the header",
                NO_CRASH,
            ),
            (
                &["L1 table"],
                Fails,
                "The L1 table lies outside of any file",
                A_REASON,
            ),
        ],
    });
}

#[test]
fn every_field_of_a_qed() {
    damage(&Disk {
        driver: "qed",
        make: |pair| converted(pair, "-O qed"),
        from_end: None,
        is_big_endian: false,
        fields: &[
            ("magic", 0, 4),
            ("cluster size", 4, 4),
            ("table size", 8, 4),
            ("header size", 12, 4),
            ("features", 16, 8),
            ("compatible features", 24, 8),
            ("autoclear features", 32, 8),
            ("L1 table", 40, 8),
            ("size", 48, 8),
            ("backing file offset", 56, 4),
            ("backing file size", 60, 4),
        ],
        own: &[],
    });
}

#[test]
fn every_field_of_a_parallels_image() {
    damage(&Disk {
        driver: "parallels",
        make: |pair| converted(pair, "-O parallels"),
        from_end: None,
        is_big_endian: false,
        fields: &[
            ("magic", 0, 4),
            ("version", 16, 4),
            ("heads", 20, 4),
            ("cylinders", 24, 4),
            ("cluster size", 28, 4),
            ("entries", 32, 4),
            ("sectors", 36, 8),
            ("in use", 44, 4),
            ("data offset", 48, 4),
            ("flags", 52, 4),
            ("extension", 56, 8),
        ],
        own: &[
            (
                &["entries", "sectors"],
                Opens,
                "The BAT of the Parallels image has room for ",
                "theirs ends in an assertion where the disk is read",
            ),
            (
                &["sectors"],
                Fails,
                "The BAT of the Parallels image has room for ",
                "ours says what is wrong with the size",
            ),
            (
                &["extension"],
                Refuses,
                "virtual size: 3 MiB",
                "of an image of a program that does not keep it up to date, the extension does not count",
            ),
        ],
    });
}

const FOOTER: &[(&str, usize, usize)] = &[
    ("cookie", 0, 4),
    ("features", 8, 4),
    ("version", 12, 4),
    ("data offset", 16, 8),
    ("timestamp", 24, 4),
    ("creator", 28, 4),
    ("creator's version", 32, 4),
    ("creator's host", 36, 4),
    ("original size", 40, 8),
    ("current size", 48, 8),
    ("cylinders", 56, 2),
    ("heads", 58, 1),
    ("sectors", 59, 1),
    ("type", 60, 4),
    ("footer's checksum", 64, 4),
    ("UUID", 68, 4),
    ("saved state", 84, 1),
];

const VHD_OWN: &[Own] = &[
    (
        &["version"],
        Opens,
        "Unsupported VPC image (version ",
        "a new major version is a new format",
    ),
    (
        &["cylinders", "heads", "sectors"],
        Shows,
        "virtual size: ",
        "a geometry without sectors says nothing; theirs shows a disk of no bytes",
    ),
];

#[test]
fn every_field_of_a_dynamic_vhd() {
    const FIELDS: &[(&str, usize, usize)] = &[
        ("header's cookie", 512, 4),
        ("header's data offset", 520, 8),
        ("table", 528, 8),
        ("header's version", 536, 4),
        ("entries", 540, 4),
        ("block size", 544, 4),
        ("header's checksum", 548, 4),
        ("parent's UUID", 552, 4),
    ];
    let own: &[Own] = &[
        (
            &["type"],
            Opens,
            "Unsupported VPC image (disk type ",
            "theirs reads any type but the fixed one as a dynamic disk",
        ),
        (
            &["table"],
            Fails,
            "The table of blocks overlaps the headers",
            "theirs speaks of an end of the file that is where it was",
        ),
        (
            &["table"],
            Fails,
            "The table of blocks is said to be at 1537, within a sector",
            "theirs speaks of an end of the file that is where it was",
        ),
        (
            &["table"],
            Fails,
            "The file ends within the table of blocks",
            "ours says where it ends",
        ),
        (
            &["entries"],
            Fails,
            "Max Table Entries too large (4294967295)",
            "theirs prints -1",
        ),
        (
            &["header's checksum"],
            Opens,
            "Incorrect checksum of the dynamic disk header",
            "the specification asks for it",
        ),
    ];
    damage(&Disk {
        driver: "vpc",
        make: |pair| converted(pair, "-O vpc"),
        from_end: None,
        is_big_endian: true,
        fields: Box::leak([FOOTER, FIELDS].concat().into_boxed_slice()),
        own: Box::leak([VHD_OWN, own].concat().into_boxed_slice()),
    });
}

#[test]
fn every_field_of_a_fixed_vhd() {
    let own: &[Own] = &[
        (
            &["cylinders", "heads", "sectors"],
            Opens,
            "The file has 3168256 bytes of a disk of ",
            "theirs shows the bytes of the footer as the guest's",
        ),
        (
            &["type"],
            Fails,
            "Error reading dynamic VHD header",
            "ours takes the footer at the end for that of a disk with blocks",
        ),
        (
            &["type"],
            Fails,
            "Unsupported VPC image (disk type ",
            "ours says what is wrong with the footer",
        ),
    ];
    damage(&Disk {
        driver: "vpc",
        make: |pair| converted(pair, "-O vpc -o subformat=fixed"),
        from_end: Some(512),
        is_big_endian: true,
        fields: FOOTER,
        own: Box::leak([VHD_OWN, own].concat().into_boxed_slice()),
    });
}

#[test]
fn every_field_of_a_vhdx() {
    damage(&Disk {
        driver: "vhdx",
        make: |pair| converted(pair, "-O vhdx -o block_size=1M"),
        from_end: None,
        is_big_endian: false,
        fields: &[
            ("file identifier", 0, 4),
            ("header's signature", 0x1_0000, 4),
            ("header's checksum", 0x1_0004, 4),
            ("sequence number", 0x1_0008, 8),
            ("log's GUID", 0x1_0030, 4),
            ("log's version", 0x1_0040, 2),
            ("version", 0x1_0042, 2),
            ("log's length", 0x1_0044, 4),
            ("log's offset", 0x1_0048, 8),
            ("region table's signature", 0x3_0000, 4),
            ("region table's checksum", 0x3_0004, 4),
            ("regions", 0x3_0008, 4),
            ("first region", 0x3_0010, 4),
            ("first region's offset", 0x3_0020, 8),
            ("first region's length", 0x3_0028, 4),
            ("first region's bits", 0x3_002c, 4),
            ("second region", 0x3_0030, 4),
            ("second region's offset", 0x3_0040, 8),
            ("second region's length", 0x3_0048, 4),
            ("metadata's signature", 3 << 20, 8),
            ("metadata's items", (3 << 20) + 10, 2),
        ],
        own: &[
            (
                &["file identifier"],
                Fails,
                "Image is not in VHDX format",
                A_REASON,
            ),
            (
                &["sequence number"],
                Fails,
                "Both VHDX headers have the same sequence number",
                "ours says what is wrong with them",
            ),
            (&["log's version"], Fails, "of the VHDX log", A_REASON),
            (
                &["version"],
                Fails,
                "Unsupported VHDX version",
                "ours says what is wrong with it",
            ),
            (
                &["log's length"],
                Fails,
                "is out of place",
                "theirs says it in two lines",
            ),
            (&["log's offset"], Fails, "is out of place", A_REASON),
            (
                &["region table's signature", "region table's checksum"],
                Fails,
                "No valid VHDX region table found",
                A_REASON,
            ),
            (
                &["regions"],
                Opens,
                "The VHDX region table places the region",
                "a region that starts at 0 is none",
            ),
            (
                &["regions", "first region", "second region"],
                Fails,
                "The VHDX region table ",
                A_REASON,
            ),
            (
                &[
                    "first region's offset",
                    "first region's length",
                    "second region's offset",
                    "second region's length",
                ],
                Fails,
                "The VHDX region table places the region",
                "theirs names no reason, or says it in two lines",
            ),
            (
                &["second region's length"],
                Opens,
                "The VHDX region table places the region",
                "regions are whole mebibytes",
            ),
            (
                &["metadata's signature", "metadata's items"],
                Fails,
                "The VHDX metadata ",
                A_REASON,
            ),
        ],
    });
}

#[test]
fn every_field_of_a_bochs_disk() {
    damage(&Disk {
        driver: "bochs",
        make: |_| given::by_name("bochs").make().1,
        from_end: None,
        is_big_endian: false,
        fields: &[
            ("magic", 0, 4),
            ("type", 32, 4),
            ("subtype", 48, 4),
            ("version", 64, 4),
            ("header", 68, 4),
            ("catalog", 72, 4),
            ("bitmap", 76, 4),
            ("extent", 80, 4),
            ("reserved", 84, 4),
            ("size", 88, 8),
        ],
        own: &[
            (
                &["header"],
                Opens,
                "The file ends within the catalog",
                NO_CRASH,
            ),
            (
                &["bitmap"],
                Opens,
                "A bitmap of 0 bytes is too small for an extent of 65536",
                NO_CRASH,
            ),
            (
                &["subtype"],
                Fails,
                "It is a redo log of the kind",
                "ours adds what the file is",
            ),
        ],
    });
}

#[test]
fn every_field_of_a_cloop() {
    damage(&Disk {
        driver: "cloop",
        make: |_| given::by_name("cloop").make().1,
        from_end: None,
        is_big_endian: true,
        fields: &[
            ("magic", 0, 4),
            ("block size", 128, 4),
            ("blocks", 132, 4),
            ("first offset", 136, 8),
            ("second offset", 144, 8),
        ],
        own: &[],
    });
}

#[test]
fn every_field_of_a_dmg() {
    damage(&Disk {
        driver: "dmg",
        make: |_| given::by_name("dmg").make().1,
        from_end: Some(512),
        is_big_endian: true,
        fields: &[
            ("signature", 0, 4),
            ("version", 4, 4),
            ("header size", 8, 4),
            ("flags", 12, 4),
            ("running offset", 16, 8),
            ("data offset", 24, 8),
            ("data length", 32, 8),
            ("resource fork's offset", 40, 8),
            ("resource fork's length", 48, 8),
            ("property list's offset", 216, 8),
            ("property list's length", 224, 8),
            ("variant", 488, 4),
            ("sectors", 492, 8),
        ],
        own: &[
            (
                &["data offset", "resource fork's offset"],
                Refuses,
                "virtual size: ",
                "what has no bytes stands nowhere, and a read says which piece is outside of the file",
            ),
            (
                &["resource fork's length"],
                Fails,
                "The resource fork is ",
                A_REASON,
            ),
            (
                &["property list's offset"],
                Opens,
                "The property list is damaged",
                "theirs shows a disk without any data",
            ),
            (
                &["property list's offset", "property list's length"],
                Fails,
                "The property list is said to be at",
                A_REASON,
            ),
            (
                &["property list's length"],
                Fails,
                "neither a property list nor a resource fork",
                A_REASON,
            ),
            (&["sectors"], Fails, "sectors is too large", A_REASON),
        ],
    });
}

/// What was cut off from a file must not become zeroes of the disk: it is damage, until a repair gives it up.
#[test]
fn a_disk_that_was_cut_off_is_never_taken_for_a_whole_one() {
    for options in [
        "-O vmdk",
        "-O vdi",
        "-O qcow",
        "-O qed",
        "-O parallels",
        "-O vpc",
        "-O vhdx -o block_size=1M",
    ] {
        let pair = Pair::new();
        let model: Vec<u8> = (0..3_u32 << 20)
            .map(|n| (n / 512 % 251) as u8 + 1)
            .collect();
        std::fs::write(pair.theirs().path("s.raw"), &model).expect("the disk");
        let line = format!("convert {options} s.raw made");
        pair.theirs().qemu_img_ok(&words(&line));
        let good = std::fs::read(pair.theirs().path("made")).expect("the image");
        let driver = options.split(' ').nth(1).expect("a driver");
        let run = |line: &str| ours(&words(line), pair.ours().root());
        let convert = format!("convert -f {driver} -O raw b out.raw");
        let out = || std::fs::read(pair.ours().path("out.raw")).expect("the disk");
        let mut failed = 0;
        for len in (1..8).map(|part| good.len() * part / 8) {
            std::fs::write(pair.ours().path("b"), &good[..len]).expect("the image");
            if run(&convert).code == 0 {
                assert!(out().starts_with(&model), "{options}: {len} bytes are left");
                continue;
            }
            failed += 1;
            let ran = run(&format!("check -f {driver} b"));
            assert!([1, 2].contains(&ran.code), "{options}, {len}: {ran:?}");
            if ran.code == 1 {
                continue;
            }
            let ran = run(&format!("check -q -r all -f {driver} b"));
            assert_eq!(ran.code, 0, "{options}, {len}: {ran:?}");
            let ran = run(&convert);
            assert_eq!(ran.code, 0, "{options}, {len}: {ran:?}");
            // Each byte is what it was, or zero.
            let out = out();
            let mut both = out.iter().zip(&model);
            assert!(both.all(|(now, was)| now == was || *now == 0), "{options}");
        }
        assert!(failed > 0, "{options}: nothing was missed");
    }
}
