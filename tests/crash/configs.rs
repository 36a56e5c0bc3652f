//! The kinds of images whose changes are interrupted: a format adds its lines here.

use std::ops::Range;

use platter::Options;
use platter::format::{NewParent, ParentId};

use uuid::Uuid;

use crate::rig::{Base, New, SECTOR};
use crate::states::Drive;

/// One kind of image.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub name: &'static str,
    pub format: &'static str,
    /// Of creation.
    pub options: &'static str,
    /// Of opening.
    pub opening: &'static str,
    /// Further options of an open to read, for an image whose writer may have crashed.
    pub after_crash: &'static str,
    /// It names a backing file whose bytes are [`Base`].
    pub overlay: bool,
    /// The format of that, and by what the image knows it.
    pub base: (&'static str, Option<ParentId>),
    /// It has another file beside its own.
    pub second: bool,
    /// Guest bytes at first.
    pub size: u64,
    /// Images can become smaller.
    pub shrinks: bool,
    /// Sectors of the model in one of the guest, which the drive below writes whole.
    pub per_sector: usize,
}

impl Config {
    /// Whether an option of creation is given.
    pub fn has(&self, option: &str) -> bool {
        self.options.contains(option)
    }

    /// The options of creation.
    pub fn creation(&self) -> Options {
        match self.options {
            "" => Options::new(),
            options => Options::parse(options).unwrap(),
        }
    }

    /// Nothing of a new one is compressed.
    pub fn stays_plain(&self) -> bool {
        let plain = ["data_file", "encrypt", "preallocation"];
        plain.iter().any(|option| self.has(option))
    }

    /// What opens the image `file`, as with `--image-opts`; to read, whatever its writer left behind.
    pub fn image_opts(&self, file: &str, reads: bool) -> String {
        let mut given = format!("driver={},file.filename={file}", self.format);
        for more in [self.opening, if reads { self.after_crash } else { "" }] {
            if !more.is_empty() {
                given.push(',');
                given.push_str(more);
            }
        }
        given
    }

    /// The image keeps the format of its backing file, not the name alone.
    pub fn keeps_base_format(&self) -> bool {
        self.format != "qcow"
    }

    /// How many files it has.
    pub fn files(&self) -> usize {
        1 + usize::from(self.second)
    }

    /// Sectors at first.
    pub fn sectors(&self) -> usize {
        self.size as usize / SECTOR
    }

    /// The most sectors that it gets.
    pub fn max_sectors(&self) -> usize {
        self.sectors() + self.sectors() / 4
    }

    /// What a drive below such an image writes at once.
    pub fn drive(&self) -> Drive<'_> {
        Drive::of_sectors((self.per_sector * SECTOR) as u64)
    }

    /// These sectors and those that the guest writes with them.
    pub fn whole(&self, sectors: Range<usize>) -> Range<usize> {
        let unit = self.per_sector;
        sectors.start / unit * unit..sectors.end.next_multiple_of(unit)
    }

    /// What lies below.
    pub fn below(&self) -> Base {
        Base(if self.overlay { self.size } else { 0 })
    }

    /// The image that is to be made.
    pub fn new_image(&self) -> New<'_> {
        New {
            format: self.format,
            options: self.options,
            len: self.size,
            backing: self.overlay.then_some(("base", self.base.0)),
        }
    }

    /// What is known of the backing file.
    pub fn parent(&self) -> Option<NewParent> {
        self.overlay.then_some(NewParent {
            size: self.size,
            id: self.base.1,
            ..NewParent::default()
        })
    }
}

pub const fn kind(name: &'static str, format: &'static str, options: &'static str) -> Config {
    Config {
        name,
        format,
        options,
        opening: "",
        after_crash: "",
        overlay: false,
        base: ("raw", None),
        second: false,
        size: 512 << 10,
        shrinks: true,
        per_sector: 1,
    }
}

pub const fn qcow2(name: &'static str, options: &'static str) -> Config {
    kind(name, "qcow2", options)
}

pub const fn over_base(config: Config) -> Config {
    Config {
        overlay: true,
        ..config
    }
}

/// Over a backing file of the same format, which it knows by this.
pub const fn over_its_like(id: ParentId, config: Config) -> Config {
    Config {
        overlay: true,
        base: (config.format, Some(id)),
        ..config
    }
}

pub const fn with_second(config: Config) -> Config {
    Config {
        second: true,
        ..config
    }
}

pub const fn encrypted(config: Config) -> Config {
    Config {
        opening: "encrypt.key-secret=s",
        ..config
    }
}

/// Of so many MiB: several units of the format.
const fn of_size(mib: u64, config: Config) -> Config {
    Config {
        size: mib << 20,
        ..config
    }
}

/// Whose log is replayed in memory after a crash.
pub const fn replayed(config: Config) -> Config {
    Config {
        after_crash: "replay-log=on",
        ..config
    }
}

/// Whose guest has sectors of 4096 bytes, as the drive below it.
pub const fn of_large_sectors(config: Config) -> Config {
    Config {
        per_sector: 4096 / SECTOR,
        ..config
    }
}

/// That cannot become smaller.
pub const fn growing(config: Config) -> Config {
    Config {
        shrinks: false,
        ..config
    }
}

const CID: ParentId = ParentId::ContentId(0x1234_5678);
const DATA_WRITE: ParentId = ParentId::DataWriteGuid(Uuid::from_u128(0x8765_4321));

const VDI_UUID: ParentId = ParentId::UuidAndModification {
    uuid: Uuid::from_u128(0x1234_5678),
    modification: Uuid::from_u128(0x8765_4321),
};

const VHD_UUID: ParentId = ParentId::Uuid(Uuid::from_u128(0x1357_2468));

/// Those whose changes are interrupted.
pub const CONFIGS: &[Config] = &[
    qcow2("v3", "cluster_size=4096"),
    over_base(qcow2("overlay", "cluster_size=4096")),
    over_base(qcow2("small", "cluster_size=512,refcount_bits=64")),
    qcow2("narrow", "cluster_size=1024,refcount_bits=1"),
    over_base(qcow2("v2", "cluster_size=4096,compat=0.10")),
    over_base(qcow2("extended", "cluster_size=16384,extended_l2=on")),
    over_base(qcow2("default", "")),
    qcow2("lazy", "cluster_size=4096,lazy_refcounts=on"),
    over_base(qcow2(
        "lazy extended",
        "cluster_size=16384,extended_l2=on,lazy_refcounts=on",
    )),
    with_second(over_base(qcow2(
        "extended data",
        "cluster_size=16384,extended_l2=on,lazy_refcounts=on,data_file=data",
    ))),
    over_base(qcow2("zstd", "cluster_size=4096,compression_type=zstd")),
    with_second(over_base(qcow2("data", "cluster_size=4096,data_file=data"))),
    with_second(qcow2(
        "raw data",
        "cluster_size=4096,data_file=data,data_file_raw=on",
    )),
    encrypted(over_base(qcow2(
        "aes",
        "cluster_size=4096,encrypt.format=aes,encrypt.key-secret=s",
    ))),
    kind("vmdk", "vmdk", ""),
    over_its_like(CID, kind("vmdk overlay", "vmdk", "")),
    over_its_like(CID, kind("vmdk zeroed", "vmdk", "zeroed_grain=on")),
    with_second(kind("vmdk flat", "vmdk", "subformat=monolithicFlat")),
    with_second(over_its_like(
        CID,
        kind("vmdk parts", "vmdk", "subformat=twoGbMaxExtentSparse"),
    )),
    Config {
        shrinks: false,
        ..over_its_like(
            CID,
            kind("vmdk stream", "vmdk", "subformat=streamOptimized"),
        )
    },
    kind("vdi", "vdi", ""),
    over_its_like(VDI_UUID, kind("vdi overlay", "vdi", "")),
    kind("vpc", "vpc", "force_size=on"),
    over_its_like(VHD_UUID, kind("vpc overlay", "vpc", "force_size=on")),
    kind("vdi static", "vdi", "static=on"),
    replayed(kind("vhdx", "vhdx", "block_size=1M")),
    replayed(kind("vhdx fixed", "vhdx", "subformat=fixed,block_size=1M")),
    replayed(over_its_like(
        DATA_WRITE,
        kind("vhdx overlay", "vhdx", "block_size=1M"),
    )),
    of_large_sectors(replayed(kind(
        "vhdx 4k",
        "vhdx",
        "block_size=1M,logical_sector_size=4096",
    ))),
    of_large_sectors(replayed(kind(
        "vhdx 4k fixed",
        "vhdx",
        "subformat=fixed,block_size=1M,logical_sector_size=4096",
    ))),
    of_large_sectors(replayed(over_its_like(
        DATA_WRITE,
        kind(
            "vhdx 4k overlay",
            "vhdx",
            "block_size=1M,logical_sector_size=4096",
        ),
    ))),
    growing(kind("qed", "qed", "cluster_size=4096,table_size=1")),
    growing(over_base(kind(
        "qed overlay",
        "qed",
        "cluster_size=4096,table_size=2",
    ))),
    growing(kind("qcow", "qcow", "")),
    growing(over_base(kind("qcow overlay", "qcow", ""))),
    growing(encrypted(kind(
        "qcow aes",
        "qcow",
        "encrypt.format=aes,encrypt.key-secret=s",
    ))),
    kind("parallels", "parallels", "cluster_size=4096"),
    // Clusters that are no power of two, and end within a sector of the file.
    kind("parallels odd", "parallels", "cluster_size=31k"),
];

/// Nothing but a footer at the end: where a file system lets the file become longer and loses what was written
/// there, there is no image. So no power cuts.
pub const FIXED_VHD: Config = kind("vpc fixed", "vpc", "subformat=fixed,force_size=on");

/// Keys take a while to derive: fewer states.
pub const LUKS: Config = encrypted(over_base(qcow2(
    "luks",
    "cluster_size=4096,encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1",
)));

/// Those whose making is interrupted.
pub const FRESH: &[Config] = &[
    qcow2("qcow2", "cluster_size=4096"),
    qcow2("qcow2 small", "cluster_size=512,refcount_bits=64"),
    qcow2("qcow2 v2", "cluster_size=4096,compat=0.10"),
    qcow2("qcow2 extended", "cluster_size=16384,extended_l2=on"),
    qcow2("qcow2 metadata", "cluster_size=4096,preallocation=metadata"),
    qcow2("qcow2 full", "cluster_size=4096,preallocation=full"),
    with_second(qcow2("qcow2 data", "cluster_size=4096,data_file=data")),
    with_second(qcow2(
        "qcow2 raw data",
        "cluster_size=4096,data_file=data,data_file_raw=on",
    )),
    encrypted(qcow2(
        "qcow2 aes",
        "encrypt.format=aes,encrypt.key-secret=s",
    )),
    encrypted(qcow2(
        "qcow2 luks",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1",
    )),
    Config {
        opening: "key-secret=s",
        ..kind("luks", "luks", "key-secret=s,iter-time=1")
    },
    kind("vmdk", "vmdk", ""),
    kind("vmdk zeroed", "vmdk", "zeroed_grain=on"),
    kind("vmdk stream", "vmdk", "subformat=streamOptimized"),
    of_size(2, kind("vdi", "vdi", "")),
    of_size(5, over_its_like(VDI_UUID, kind("vdi overlay", "vdi", ""))),
    of_size(4, kind("vpc", "vpc", "force_size=on")),
    of_size(2, kind("vhdx", "vhdx", "block_size=1M")),
    kind("qed", "qed", "cluster_size=4096,table_size=1"),
    kind("qcow", "qcow", ""),
    of_size(2, kind("parallels", "parallels", "")),
    with_second(kind("vmdk flat", "vmdk", "subformat=monolithicFlat")),
    with_second(kind("vmdk parts", "vmdk", "subformat=twoGbMaxExtentSparse")),
    with_second(kind(
        "vmdk flat parts",
        "vmdk",
        "subformat=twoGbMaxExtentFlat",
    )),
    over_its_like(CID, kind("vmdk overlay", "vmdk", "")),
    kind("vdi static", "vdi", "static=on"),
    kind("vpc fixed", "vpc", "subformat=fixed,force_size=on"),
    of_size(
        5,
        over_its_like(VHD_UUID, kind("vpc overlay", "vpc", "force_size=on")),
    ),
    kind("vhdx fixed", "vhdx", "subformat=fixed,block_size=1M"),
    of_size(
        5,
        over_its_like(DATA_WRITE, kind("vhdx overlay", "vhdx", "block_size=1M")),
    ),
    of_size(
        5,
        of_large_sectors(over_its_like(
            DATA_WRITE,
            kind(
                "vhdx 4k overlay",
                "vhdx",
                "block_size=1M,logical_sector_size=4096",
            ),
        )),
    ),
];
