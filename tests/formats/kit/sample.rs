//! The table of samples: each format of the registry with the options that make it another format.

use std::collections::BTreeSet;

use platter::format::{FormatDriver, registry};
use platter::object::Objects;
use platter::secret::Secret;

/// One kind of image.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// For messages.
    pub name: &'static str,
    /// The driver.
    pub format: &'static str,
    /// Options of creation. `DATA` stands for the name of a second file.
    pub options: &'static str,
    /// Options of opening.
    pub opening: &'static str,
    /// Further options of an open to read, for an image whose writer may have crashed.
    pub after_crash: &'static str,
    /// It stands over a backing file.
    pub overlay: bool,
    /// The format of the backing file.
    pub base_format: &'static str,
    /// The name that the image gives to its second file, where it is not an option that does.
    pub second: Option<&'static str>,
    /// QEMU's tools know the variant.
    pub known_to_peer: bool,
    /// What was never written reads as zeroes, or as what is below. LUKS has no such promise: what is
    /// never written is decrypted too.
    pub zeroes_when_new: bool,
    /// A discard goes to the host as it is, and what a power cut leaves of the range is not defined.
    pub discards_to_host: bool,
    /// Its data is compressed: how long the file gets is not known before, and QEMU's tools write each unit
    /// once and as a whole.
    pub is_stream: bool,
    /// The virtual size cannot be changed.
    pub keeps_size: bool,
    /// Virtual size in bytes.
    pub size: u64,
    /// Virtual sizes are multiples of this.
    pub sector: u64,
    /// Images can become smaller, not only larger.
    pub shrinks: bool,
}

/// The passphrase of encrypted samples; its ID is `s`.
pub const PASSPHRASE: &str = "correct horse";

const fn sample(name: &'static str, format: &'static str, options: &'static str) -> Sample {
    Sample {
        name,
        format,
        options,
        opening: "",
        after_crash: "",
        overlay: false,
        base_format: "raw",
        second: None,
        known_to_peer: true,
        zeroes_when_new: true,
        discards_to_host: false,
        is_stream: false,
        keeps_size: false,
        size: (3 << 20) + 512,
        sector: 512,
        shrinks: true,
    }
}

const fn over_base(sample: Sample) -> Sample {
    Sample {
        overlay: true,
        ..sample
    }
}

/// Over a backing file of the same format.
const fn over_its_like(sample: Sample) -> Sample {
    Sample {
        overlay: true,
        base_format: sample.format,
        ..sample
    }
}

/// With another file beside its own, whose name follows from that.
const fn with_second(second: &'static str, sample: Sample) -> Sample {
    Sample {
        second: Some(second),
        ..sample
    }
}

const fn stream(sample: Sample) -> Sample {
    Sample {
        is_stream: true,
        keeps_size: true,
        ..sample
    }
}

/// One that may leave a log behind, which reading replays in memory.
const fn vhdx(name: &'static str, options: &'static str) -> Sample {
    Sample {
        after_crash: "replay-log=on",
        ..sample(name, "vhdx", options)
    }
}

const fn qed(name: &'static str, options: &'static str) -> Sample {
    Sample {
        shrinks: false,
        ..sample(name, "qed", options)
    }
}

const fn qcow(name: &'static str, options: &'static str) -> Sample {
    Sample {
        keeps_size: true,
        ..sample(name, "qcow", options)
    }
}

const fn opened_with(opening: &'static str, sample: Sample) -> Sample {
    Sample { opening, ..sample }
}

/// Every sample. Two of a format at least where it has options that change what is on disk.
pub const SAMPLES: &[Sample] = &[
    Sample {
        discards_to_host: true,
        ..sample("raw", "raw", "")
    },
    sample("qcow2", "qcow2", ""),
    over_base(sample("qcow2 overlay", "qcow2", "cluster_size=4k")),
    over_base(sample("qcow2 version 2", "qcow2", "compat=0.10")),
    sample("qcow2 small", "qcow2", "cluster_size=512,refcount_bits=64"),
    sample("qcow2 narrow", "qcow2", "cluster_size=1k,refcount_bits=1"),
    over_base(sample(
        "qcow2 subclusters",
        "qcow2",
        "extended_l2=on,cluster_size=32k",
    )),
    sample("qcow2 lazy", "qcow2", "lazy_refcounts=on"),
    sample(
        "qcow2 zstd",
        "qcow2",
        "compression_type=zstd,compression_level=1",
    ),
    sample("qcow2 data file", "qcow2", "data_file=DATA"),
    sample(
        "qcow2 raw data file",
        "qcow2",
        "data_file=DATA,data_file_raw=on",
    ),
    sample("qcow2 preallocated", "qcow2", "preallocation=metadata"),
    opened_with(
        "encrypt.key-secret=s",
        sample("qcow2 aes", "qcow2", "encryption=on,encrypt.key-secret=s"),
    ),
    opened_with(
        "encrypt.key-secret=s",
        over_base(sample(
            "qcow2 luks",
            "qcow2",
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1,encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256,encrypt.hash-alg=sha1",
        )),
    ),
    sample("vmdk", "vmdk", ""),
    over_its_like(sample(
        "vmdk overlay",
        "vmdk",
        "adapter_type=lsilogic,hwversion=7,toolsversion=9",
    )),
    over_its_like(sample(
        "vmdk zeroed grains",
        "vmdk",
        "zeroed_grain=on,compat6=on",
    )),
    stream(sample(
        "vmdk stream",
        "vmdk",
        "subformat=streamOptimized,compression_level=1",
    )),
    stream(over_its_like(sample(
        "vmdk stream overlay",
        "vmdk",
        "subformat=streamOptimized,zeroed_grain=on",
    ))),
    with_second(
        "image-flat",
        sample("vmdk flat", "vmdk", "subformat=monolithicFlat"),
    ),
    // QEMU's tools read it, and make none.
    with_second(
        "image-flat",
        Sample {
            known_to_peer: false,
            ..sample("vmdk datastore", "vmdk", "subformat=vmfs")
        },
    ),
    with_second(
        "image-f001",
        sample("vmdk flat parts", "vmdk", "subformat=twoGbMaxExtentFlat"),
    ),
    with_second(
        "image-s001",
        over_its_like(sample(
            "vmdk sparse parts",
            "vmdk",
            "subformat=twoGbMaxExtentSparse",
        )),
    ),
    opened_with(
        "key-secret=s",
        Sample {
            zeroes_when_new: false,
            ..sample("luks", "luks", "key-secret=s,iter-time=1")
        },
    ),
    opened_with(
        "key-secret=s",
        Sample {
            zeroes_when_new: false,
            ..sample(
                "luks other ciphers",
                "luks",
                "key-secret=s,iter-time=1,cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha1",
            )
        },
    ),
    sample("vdi", "vdi", ""),
    sample("vdi static", "vdi", "static=on"),
    // It has no name for its parent.
    opened_with(
        "backing.driver=vdi,backing.file.filename=base",
        Sample {
            known_to_peer: false,
            ..over_its_like(sample("vdi differencing", "vdi", ""))
        },
    ),
    vhdx("vhdx", "block_size=1M"),
    vhdx(
        "vhdx not zero",
        "block_state_zero=off,block_size=1M,log_size=2M",
    ),
    vhdx("vhdx fixed", "subformat=fixed,block_size=1M"),
    Sample {
        size: (5 << 20) + 4096,
        sector: 4096,
        known_to_peer: false,
        ..vhdx(
            "vhdx large sectors",
            "logical_sector_size=4096,physical_sector_size=4096,block_size=4M",
        )
    },
    Sample {
        known_to_peer: false,
        ..over_its_like(vhdx("vhdx overlay", "block_size=1M"))
    },
    sample("vpc", "vpc", "force_size=on"),
    Sample {
        known_to_peer: false,
        ..over_its_like(sample("vpc differencing", "vpc", ""))
    },
    sample("vpc fixed", "vpc", "subformat=fixed,force_size=on"),
    sample("parallels", "parallels", ""),
    sample("parallels small", "parallels", "cluster_size=31k"),
    qed("qed", ""),
    over_base(qed("qed overlay", "")),
    over_base(qed("qed small", "cluster_size=4096,table_size=2")),
    // QEMU's tools cannot open what they make of this.
    Sample {
        known_to_peer: false,
        ..qed(
            "qed tables of one cluster",
            "cluster_size=4096,table_size=1",
        )
    },
    qcow("qcow", "compression_level=1"),
    over_base(qcow("qcow overlay", "")),
    opened_with(
        "encrypt.key-secret=s",
        qcow("qcow aes", "encryption=on,encrypt.key-secret=s"),
    ),
    opened_with(
        "encrypt.key-secret=s",
        over_base(qcow(
            "qcow aes overlay",
            "encrypt.format=aes,encrypt.key-secret=s",
        )),
    ),
];

/// What names one format, whose samples alone the tests of the kit go through then.
pub const ONLY: &str = "PLATTER_SAMPLES";

/// The one format, where there is such.
pub fn only() -> Option<String> {
    let format = std::env::var(ONLY).ok()?;
    let is_known = SAMPLES.iter().any(|sample| sample.format == format);
    assert!(is_known, "{ONLY}: there is no sample of '{format}'");
    Some(format)
}

/// The samples that tests go through.
pub fn samples() -> impl Iterator<Item = &'static Sample> {
    let only = only();
    let is_wanted = move |sample: &&Sample| only.as_ref().is_none_or(|it| *it == sample.format);
    SAMPLES.iter().filter(is_wanted)
}

/// The formats of these samples of which the driver says something.
pub fn formats(says: impl Fn(&FormatDriver) -> bool) -> BTreeSet<&'static str> {
    let formats = samples().map(|sample| sample.format);
    let is_so = |name: &&str| registry::by_name(name).is_some_and(&says);
    formats.filter(is_so).collect()
}

impl Sample {
    /// Whether the image has a second file.
    pub fn has_data_file(&self) -> bool {
        self.options.contains("DATA") || self.second.is_some()
    }

    /// Whether guest bytes are encrypted.
    pub fn encrypted(&self) -> bool {
        self.opening.contains("secret")
    }

    /// What opens the image `file` to be read, whatever its writer left behind.
    pub fn reading_opts(&self, file: &str) -> String {
        match self.after_crash {
            "" => self.image_opts(file),
            options => format!("{},{options}", self.image_opts(file)),
        }
    }

    /// The options of creation, with `data` as the name of the second file.
    pub fn options(&self, data: &str) -> String {
        self.options.replace("DATA", data)
    }

    /// The same without those that QEMU's tools do not have.
    pub fn options_of_peer(&self, data: &str) -> String {
        let options = self.options(data);
        let known = options
            .split(',')
            .filter(|option| !option.starts_with("compression_level="));
        known.collect::<Vec<_>>().join(",")
    }

    /// What opens the image `file`, as with `--image-opts`.
    pub fn image_opts(&self, file: &str) -> String {
        let opening = match self.opening {
            "" => String::new(),
            opening => format!(",{opening}"),
        };
        format!("driver={},file.filename={file}{opening}", self.format)
    }
}

/// The secret of encrypted samples.
pub fn objects() -> Objects {
    let mut objects = Objects::new();
    objects
        .add_secret("s", Secret::new(PASSPHRASE))
        .expect("an ID that is not taken");
    objects
}
