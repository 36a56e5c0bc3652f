//! The operations, as the command line asks for them.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use platter::format::RepairMode;
use platter::ops::amend::{AmendRequest, amend};
use platter::ops::bitmap::{Change, change};
use platter::ops::check::check;
use platter::ops::commit::{CommitRequest, commit};
use platter::ops::compare::compare;
use platter::ops::convert::{ConvertRequest, NamedFd, convert};
use platter::ops::create::{CreatePlan, CreateRequest, TargetFormat};
use platter::ops::dd::{DdEnd, DdRequest, dd};
use platter::ops::info::info;
use platter::ops::inspect::inspect;
use platter::ops::map::map;
use platter::ops::measure::{MeasureSource, measure};
use platter::ops::rebase::{RebaseRequest, rebase};
use platter::ops::resize::{NewSize, ResizeRequest, preallocation_from_name, resize};
use platter::ops::snapshot;
use platter::storage::CacheMode;
use platter::{Image, Job, Location, OpenPolicy, Options, Result};

use super::{At, Content, Operation};

const fn operation(
    line: &'static str,
    touches: &'static [&'static str],
    content: Content,
    run: fn(&At<'_>) -> Result<String>,
) -> Operation {
    Operation {
        line,
        touches,
        content,
        damaged: false,
        verdict: false,
        slow: false,
        run,
    }
}

/// As [`operation`], with a new key slot, whose derivation takes its time.
const fn slow(operation: Operation) -> Operation {
    Operation {
        slow: true,
        ..operation
    }
}

/// One that makes an image, or only reads.
const fn plain(line: &'static str, run: fn(&At<'_>) -> Result<String>) -> Operation {
    operation(line, &[], Content::Same, run)
}

const fn same(
    line: &'static str,
    touches: &'static [&'static str],
    run: fn(&At<'_>) -> Result<String>,
) -> Operation {
    operation(line, touches, Content::Same, run)
}

const fn either(
    line: &'static str,
    touches: &'static [&'static str],
    run: fn(&At<'_>) -> Result<String>,
) -> Operation {
    operation(line, touches, Content::Either, run)
}

fn options(text: &str) -> Options {
    match text {
        "" => Options::new(),
        text => Options::parse(text).expect("options"),
    }
}

fn create(at: &At<'_>, name: &str, format: &str, text: &str) -> Result<String> {
    create_over(at, name, format, text, None)
}

fn create_over(
    at: &At<'_>,
    name: &str,
    format: &str,
    text: &str,
    backing: Option<&str>,
) -> Result<String> {
    let sized = backing.is_none() && !text.contains("detached");
    let request = CreateRequest {
        storages: None,
        location: Location::from_path(at.path(name)),
        format: format.to_owned(),
        size: sized.then_some(200 << 10),
        options: options(text),
        backing_file: backing.map(Into::into),
        backing_format: backing.map(|_| "qcow2".to_owned()),
        backing_unsafe: false,
        exclusive: false,
        objects: at.objects(),
        policy: OpenPolicy::permissive(),
    };
    let mut job = Job::new();
    CreatePlan::new(request, &mut job)?.run(&mut job)?;
    Ok(String::new())
}

pub const MAKE: &[Operation] = &[
    plain("create raw", |at| create(at, "new.raw", "raw", "")),
    plain("create raw full", |at| {
        create(at, "new.raw", "raw", "preallocation=full")
    }),
    plain("create raw falloc", |at| {
        create(at, "new.raw", "raw", "preallocation=falloc")
    }),
    plain("create qcow2", |at| create(at, "new.qcow2", "qcow2", "")),
    plain("create qcow2 version 2", |at| {
        create(at, "new.qcow2", "qcow2", "compat=0.10,cluster_size=512")
    }),
    plain("create qcow2 metadata", |at| {
        let text = "cluster_size=4096,preallocation=metadata";
        create(at, "new.qcow2", "qcow2", text)
    }),
    plain("create qcow2 falloc", |at| {
        let text = "cluster_size=4096,preallocation=falloc,extended_l2=off";
        create(at, "new.qcow2", "qcow2", text)
    }),
    plain("create qcow2 full", |at| {
        let text = "cluster_size=4096,preallocation=full";
        create(at, "new.qcow2", "qcow2", text)
    }),
    plain("create qcow2 with a data file", |at| {
        let text = format!("data_file={}", at.str("part.data"));
        create(at, "new.qcow2", "qcow2", &text)
    }),
    plain("create qcow2 over base.qcow2", |at| {
        create_over(at, "new.qcow2", "qcow2", "", Some("base.qcow2"))
    }),
    // What was never written deciphers to noise, which no two keys have in common.
    slow(plain("create luks", |at| {
        create(at, "part.luks", "luks", "key-secret=s,iter-time=1")
    })),
    slow(plain("create luks header", |at| {
        let text = "key-secret=s,iter-time=1,detached-header=on";
        create(at, "part.luks", "luks", text)
    })),
    slow(plain("create qcow2 encrypted", |at| {
        let text = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1";
        create(at, "new-crypt.qcow2", "qcow2", text)
    })),
];

/// Converts with the defaults of the command line, by one worker.
fn converted(
    at: &At<'_>,
    [source, target, format]: [&str; 3],
    text: &str,
    change: impl FnOnce(&mut ConvertRequest),
) -> Result<String> {
    let target = Location::from_path(at.path(target));
    let mut request = ConvertRequest::new(at.location(source), target);
    request.source.options.format = at.options(source).format;
    request.source.options.objects = at.objects();
    request.source.options.policy = OpenPolicy::permissive();
    request.target.format = Some(format.to_owned());
    request.target.options = options(text);
    request.tuning.parallel = Some(1);
    request.target.objects = at.objects();
    request.target.policy = OpenPolicy::permissive();
    change(&mut request);
    convert(&request, &mut Job::new()).map(|report| format!("{report:?}"))
}

fn dd_between(
    input: DdEnd,
    output: DdEnd,
    at: &At<'_>,
    change: impl FnOnce(&mut DdRequest),
) -> Result<String> {
    let mut request = DdRequest::new(input, output);
    request.input_options = at.options("plain.raw");
    request.policy = OpenPolicy::permissive();
    request.block_size = 64 << 10;
    change(&mut request);
    dd(&request, &mut Job::new()).map(|report| format!("{report:?}"))
}

fn end(at: &At<'_>, name: &str) -> DdEnd {
    DdEnd::Location(Location::from_path(at.path(name)))
}

fn pipe_end(fd: impl Into<OwnedFd>) -> DdEnd {
    DdEnd::Fd(NamedFd {
        fd: Arc::new(fd.into()),
        name: "pipe".to_owned(),
    })
}

pub const CONVERT: &[Operation] = &[
    plain("convert plain.raw", |at| {
        converted(at, ["plain.raw", "new.qcow2", "qcow2"], "", |_| {})
    }),
    plain("convert top.qcow2 to raw", |at| {
        converted(at, ["top.qcow2", "new.raw", "raw"], "", |_| {})
    }),
    plain("convert top.qcow2 in parallel", |at| {
        let names = ["top.qcow2", "new.qcow2", "qcow2"];
        converted(at, names, "cluster_size=4096", |request| {
            request.tuning.parallel = Some(4);
        })
    }),
    plain("convert -c top.qcow2", |at| {
        let names = ["top.qcow2", "new.qcow2", "qcow2"];
        converted(at, names, "cluster_size=4096", |request| {
            request.target.compress = true;
        })
    }),
    plain("convert -c -W zstd top.qcow2", |at| {
        let names = ["top.qcow2", "new.qcow2", "qcow2"];
        converted(at, names, "compression_type=zstd", |request| {
            request.target.compress = true;
            request.tuning.out_of_order = true;
        })
    }),
    plain("convert -B base.qcow2 top.qcow2", |at| {
        let names = ["top.qcow2", "new.qcow2", "qcow2"];
        converted(at, names, "", |request| {
            request.target.backing_file = Some("base.qcow2".into());
            request.target.backing_format = Some("qcow2".to_owned());
        })
    }),
    plain("convert -l one snap.qcow2", |at| {
        let names = ["snap.qcow2", "new.qcow2", "qcow2"];
        converted(at, names, "", |request| {
            request.source.snapshot = Some("one".into());
        })
    }),
    plain("convert -S 0 top.qcow2", |at| {
        let names = ["top.qcow2", "new.raw", "raw"];
        converted(at, names, "", |request| {
            request.tuning.sparse_size = Some(0)
        })
    }),
    plain("convert top.qcow2 metadata", |at| {
        let names = ["top.qcow2", "new.qcow2", "qcow2"];
        converted(at, names, "preallocation=metadata", |_| {})
    }),
    plain("convert top.qcow2 full", |at| {
        let names = ["top.qcow2", "new.qcow2", "qcow2"];
        converted(at, names, "preallocation=full", |_| {})
    }),
    plain("convert top.qcow2 raw falloc", |at| {
        let names = ["top.qcow2", "new.raw", "raw"];
        converted(at, names, "preallocation=falloc", |_| {})
    }),
    plain("convert top.qcow2 with a data file", |at| {
        let text = format!("data_file={}", at.str("part.data"));
        converted(at, ["top.qcow2", "new.qcow2", "qcow2"], &text, |_| {})
    }),
    plain("convert plain.raw base.qcow2 together", |at| {
        let names = ["plain.raw", "new.qcow2", "qcow2"];
        converted(at, names, "", |request| {
            request.source.images.push(at.location("base.qcow2"));
            request.source.options.format = None;
        })
    }),
    slow(plain("convert plain.raw to luks", |at| {
        let text = "key-secret=s,iter-time=1";
        converted(at, ["plain.raw", "new.luks", "luks"], text, |_| {})
    })),
    slow(plain("convert crypt.qcow2", |at| {
        converted(at, ["crypt.qcow2", "new.qcow2", "qcow2"], "", |_| {})
    })),
    slow(plain("convert disk.luks", |at| {
        converted(at, ["disk.luks", "new.raw", "raw"], "", |_| {})
    })),
    plain("convert --bitmaps bits.qcow2", |at| {
        let names = ["bits.qcow2", "new.qcow2", "qcow2"];
        converted(at, names, "", |request| request.source.bitmaps = true)
    }),
    operation(
        "convert -n plain.raw leaky.qcow2",
        &["leaky.qcow2"],
        Content::Any,
        |at| {
            let names = ["plain.raw", "leaky.qcow2", "qcow2"];
            converted(at, names, "", |request| request.target.exists = true)
        },
    ),
    operation(
        "convert -n -c plain.raw leaky.qcow2",
        &["leaky.qcow2"],
        Content::Any,
        |at| {
            let names = ["plain.raw", "leaky.qcow2", "qcow2"];
            converted(at, names, "", |request| {
                request.target.exists = true;
                request.target.compress = true;
            })
        },
    ),
    operation(
        "convert -n top.qcow2 plain.raw",
        &["plain.raw"],
        Content::Any,
        |at| {
            let names = ["top.qcow2", "plain.raw", "raw"];
            converted(at, names, "", |request| request.target.exists = true)
        },
    ),
    plain("dd plain.raw", |at| {
        dd_between(end(at, "plain.raw"), end(at, "new.raw"), at, |_| {})
    }),
    plain("dd plain.raw to qcow2", |at| {
        let (input, output) = (end(at, "plain.raw"), end(at, "new.qcow2"));
        dd_between(input, output, at, |request| {
            request.output_format = "qcow2".to_owned();
            (request.skip, request.count) = (1, Some(7));
        })
    }),
    plain("dd out of a pipe", |at| {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let bytes: Vec<u8> = (0..150_000u32).map(|n| (n % 251) as u8).collect();
        let feeder = std::thread::spawn(move || writer.write_all(&bytes));
        let done = dd_between(pipe_end(reader), end(at, "new.raw"), at, |_| {});
        // A failed copy reads no further, so that the writes fail.
        let _ = feeder.join().expect("no panic");
        done
    }),
    plain("dd plain.raw into a pipe", |at| {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let drain = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map(|len| (len, bytes))
        });
        let done = dd_between(end(at, "plain.raw"), pipe_end(writer), at, |_| {});
        let drained = drain.join().expect("no panic").expect("to read a pipe");
        done.map(|report| format!("{report} {drained:?}"))
    }),
];

/// Conversions whose target is durable when they are done.
pub const DURABLE: &[Operation] = &[
    plain("convert -t writeback plain.raw", |at| {
        durably(at, ["plain.raw", "new.qcow2", "qcow2"], "", |_| {})
    }),
    plain("convert -t writeback top.qcow2 to raw", |at| {
        durably(at, ["top.qcow2", "new.raw", "raw"], "", |_| {})
    }),
    plain("convert -t writeback top.qcow2 raw falloc", |at| {
        let names = ["top.qcow2", "new.raw", "raw"];
        durably(at, names, "preallocation=falloc", |_| {})
    }),
    plain("convert -t writeback -c top.qcow2", |at| {
        let names = ["top.qcow2", "new.qcow2", "qcow2"];
        durably(at, names, "cluster_size=4096", |request| {
            request.target.compress = true;
        })
    }),
    plain("convert -t writeback top.qcow2 with a data file", |at| {
        let text = format!("data_file={}", at.str("part.data"));
        durably(at, ["top.qcow2", "new.qcow2", "qcow2"], &text, |_| {})
    }),
    plain("convert -t writeback --bitmaps bits.qcow2", |at| {
        let names = ["bits.qcow2", "new.qcow2", "qcow2"];
        durably(at, names, "", |request| request.source.bitmaps = true)
    }),
    plain("convert -t none plain.raw in parallel", |at| {
        let names = ["plain.raw", "new.qcow2", "qcow2"];
        durably(at, names, "cluster_size=4096", |request| {
            request.target.cache = CacheMode::None;
            request.tuning.parallel = Some(4);
        })
    }),
    plain("convert -t writethrough top.qcow2", |at| {
        let names = ["top.qcow2", "new.qcow2", "qcow2"];
        durably(at, names, "", |request| {
            request.target.cache = CacheMode::Writethrough;
        })
    }),
    plain("dd plain.raw", |at| {
        dd_between(end(at, "plain.raw"), end(at, "new.raw"), at, |_| {})
    }),
    plain("dd plain.raw to qcow2", |at| {
        let (input, output) = (end(at, "plain.raw"), end(at, "new.qcow2"));
        dd_between(input, output, at, |request| {
            request.output_format = "qcow2".to_owned();
        })
    }),
];

/// Operations after which other names lead to other files.
pub const NAMES: &[Operation] = &[
    plain("convert --chain -t writeback tip.qcow2", |at| {
        durably(at, ["tip.qcow2", "chain", "qcow2"], "", |request| {
            request.target.whole_chain = true;
        })
    }),
    either("resize parts.vmdk 2049M", VMDK_PARTS, |at| {
        resized(at, "parts.vmdk", 2049 << 20, "off")
    }),
    either("resize two.vmdk 300k", VMDK_TWO, |at| {
        resized(at, "two.vmdk", 300 << 10, "off")
    }),
    // The new descriptor is another file.
    either("rebase -u -b '' far.vmdk", &["far.vmdk"], |at| {
        rebased(at, "far.vmdk", None, |request| request.name_only = true)
    }),
];

fn durably(
    at: &At<'_>,
    names: [&str; 3],
    text: &str,
    change: impl FnOnce(&mut ConvertRequest),
) -> Result<String> {
    converted(at, names, text, |request| {
        request.target.cache = CacheMode::Writeback;
        change(request);
    })
}

fn compared(at: &At<'_>, [a, b]: [&str; 2], strict: bool) -> Result<String> {
    at.with(a, false, |a| {
        at.with(b, false, |b| {
            compare(a, b, strict, &mut Job::new()).map(|report| report.text())
        })
    })
}

fn measured(at: &At<'_>, name: &str, format: &str, text: &str) -> Result<String> {
    let format = TargetFormat::find(format).expect("a format");
    at.with(name, false, |image| {
        let source = MeasureSource::Image(image);
        measure(source, format, &options(text), &mut Job::new()).map(|report| report.text())
    })
}

fn mapped(at: &At<'_>, name: &str) -> Result<String> {
    at.with(name, false, |image| {
        map(image, 0, None, &mut Job::new()).and_then(|report| report.json())
    })
}

fn checked(at: &At<'_>, name: &str, repair: RepairMode) -> Result<String> {
    let options = platter::OpenOptions {
        writable: repair != RepairMode::Report,
        for_check: true,
        ..at.options(name)
    };
    let image = Image::open(&at.location(name), &options)?;
    let done = check(&image, repair, &mut Job::new());
    let closed = image.close();
    let outcome = done.and_then(|outcome| closed.map(|()| outcome))?;
    Ok(format!("{:?}", outcome.report))
}

pub const READ: &[Operation] = &[
    plain("info top.qcow2", |at| {
        let location = at.location("top.qcow2");
        info(&location, &at.options("top.qcow2"), true).and_then(|report| report.json())
    }),
    plain("info bits.qcow2", |at| {
        let location = at.location("bits.qcow2");
        info(&location, &at.options("bits.qcow2"), false).and_then(|report| report.json())
    }),
    plain("info disk.luks", |at| {
        let location = at.location("disk.luks");
        info(&location, &at.options("disk.luks"), false).and_then(|report| report.json())
    }),
    Operation {
        verdict: true,
        ..plain("inspect top.qcow2", |at| {
            let location = at.location("top.qcow2");
            inspect(&location, &at.options("top.qcow2")).and_then(|report| report.json())
        })
    },
    plain("map top.qcow2", |at| mapped(at, "top.qcow2")),
    plain("map plain.raw", |at| mapped(at, "plain.raw")),
    plain("map crypt.qcow2", |at| mapped(at, "crypt.qcow2")),
    plain("measure top.qcow2", |at| {
        measured(at, "top.qcow2", "qcow2", "")
    }),
    plain("measure top.qcow2 for raw", |at| {
        measured(at, "top.qcow2", "raw", "")
    }),
    plain("measure bits.qcow2", |at| {
        measured(at, "bits.qcow2", "qcow2", "cluster_size=4096")
    }),
    plain("snapshot -l snap.qcow2", |at| {
        let list = |image: &Image| Ok(snapshot::list(image)?.text()?.to_string());
        at.with("snap.qcow2", false, list)
    }),
    plain("compare top.qcow2 base.qcow2", |at| {
        compared(at, ["top.qcow2", "base.qcow2"], false)
    }),
    plain("compare -s plain.raw", |at| {
        compared(at, ["plain.raw", "plain.raw"], true)
    }),
    slow(plain("compare disk.luks crypt.qcow2", |at| {
        compared(at, ["disk.luks", "crypt.qcow2"], false)
    })),
    Operation {
        verdict: true,
        ..plain("check top.qcow2", |at| {
            checked(at, "top.qcow2", RepairMode::Report)
        })
    },
    Operation {
        verdict: true,
        ..plain("check bits.qcow2", |at| {
            checked(at, "bits.qcow2", RepairMode::Report)
        })
    },
    Operation {
        verdict: true,
        ..plain("check snap.qcow2", |at| {
            checked(at, "snap.qcow2", RepairMode::Report)
        })
    },
    Operation {
        verdict: true,
        ..plain("check damaged.qcow2", |at| {
            checked(at, "damaged.qcow2", RepairMode::Report)
        })
    },
];

fn committed(at: &At<'_>, name: &str, base: Option<&str>, keep: bool) -> Result<String> {
    let request = CommitRequest {
        location: at.location(name),
        options: at.options(name),
        base: base.map(|base| at.str(base).into()),
        keep,
    };
    commit(&request, &mut Job::new())?;
    Ok(String::new())
}

fn rebased(
    at: &At<'_>,
    name: &str,
    backing: Option<&str>,
    change: impl FnOnce(&mut RebaseRequest),
) -> Result<String> {
    let mut request = RebaseRequest {
        location: at.location(name),
        options: at.options(name),
        backing: backing.map(Into::into),
        backing_format: backing.and(at.options(name).format),
        backing_cache: CacheMode::Writeback,
        share_backing: false,
        name_only: false,
        compress: false,
    };
    change(&mut request);
    rebase(&request, &mut Job::new())?;
    Ok(String::new())
}

const TOP: &[&str] = &["top.qcow2"];

pub const CHAIN: &[Operation] = &[
    same("commit top.qcow2", &["top.qcow2", "base.qcow2"], |at| {
        committed(at, "top.qcow2", None, false)
    }),
    same("commit -d top.qcow2", &["top.qcow2", "base.qcow2"], |at| {
        committed(at, "top.qcow2", None, true)
    }),
    same(
        "commit -b base.qcow2 tip.qcow2",
        &["tip.qcow2", "base.qcow2"],
        |at| committed(at, "tip.qcow2", Some("base.qcow2"), true),
    ),
    same(
        "commit over.qcow2 into a shorter base",
        &["over.qcow2", "other.qcow2"],
        |at| committed(at, "over.qcow2", None, false),
    ),
    same("rebase top.qcow2 other.qcow2", TOP, |at| {
        rebased(at, "top.qcow2", Some("other.qcow2"), |_| {})
    }),
    same("rebase -c top.qcow2 other.qcow2", TOP, |at| {
        rebased(at, "top.qcow2", Some("other.qcow2"), |request| {
            request.compress = true;
        })
    }),
    either("rebase -u top.qcow2 other.qcow2", TOP, |at| {
        rebased(at, "top.qcow2", Some("other.qcow2"), |request| {
            request.name_only = true;
        })
    }),
    same("rebase -b '' top.qcow2", TOP, |at| {
        rebased(at, "top.qcow2", None, |_| {})
    }),
    either("rebase -u -b '' top.qcow2", TOP, |at| {
        rebased(at, "top.qcow2", None, |request| request.name_only = true)
    }),
    same("rebase -c -b '' tip.qcow2", &["tip.qcow2"], |at| {
        rebased(at, "tip.qcow2", None, |request| request.compress = true)
    }),
];

const VMDK_DISK: &[&str] = &["disk.vmdk"];
const VMDK_CHILD: &[&str] = &["child.vmdk"];
const VMDK_PARTS: &[&str] = &["parts.vmdk", "parts-s001.vmdk"];
const VMDK_TWO: &[&str] = &["two.vmdk", "two-s001.vmdk", "two-s002.vmdk"];
const VMDK_LONG: &[&str] = &["long.vmdk", "long-s001.vmdk"];

/// Of disks of VMware.
pub const VMDK: &[Operation] = &[
    plain("create vmdk", |at| create(at, "new.vmdk", "vmdk", "")),
    plain("create vmdk in parts", |at| {
        create(at, "new.vmdk", "vmdk", "subformat=twoGbMaxExtentSparse")
    }),
    plain("convert -t writeback plain.raw to vmdk", |at| {
        durably(at, ["plain.raw", "new.vmdk", "vmdk"], "", |_| {})
    }),
    plain("convert -t writeback plain.raw to a stream", |at| {
        let names = ["plain.raw", "new.vmdk", "vmdk"];
        durably(at, names, "subformat=streamOptimized", |_| {})
    }),
    either("resize disk.vmdk 3M", VMDK_DISK, |at| {
        resized(at, "disk.vmdk", 3 << 20, "off")
    }),
    either("resize disk.vmdk 65M", VMDK_DISK, |at| {
        resized(at, "disk.vmdk", 65 << 20, "off")
    }),
    either("resize disk.vmdk 300k", VMDK_DISK, |at| {
        resized(at, "disk.vmdk", 300 << 10, "off")
    }),
    same("rebase child.vmdk other.vmdk", VMDK_CHILD, |at| {
        rebased(at, "child.vmdk", Some("other.vmdk"), |_| {})
    }),
    same("rebase -b '' child.vmdk", VMDK_CHILD, |at| {
        rebased(at, "child.vmdk", None, |_| {})
    }),
    same("rebase -b '' long.vmdk", VMDK_LONG, |at| {
        rebased(at, "long.vmdk", None, |_| {})
    }),
];

fn resized(at: &At<'_>, name: &str, size: u64, preallocation: &str) -> Result<String> {
    let request = ResizeRequest {
        size: NewSize::Exactly(size),
        preallocation: preallocation_from_name(preallocation)?,
        shrink: true,
    };
    at.with(name, true, |image| {
        resize(image, &request, &mut Job::new()).map(|size| size.to_string())
    })
}

fn amended(at: &At<'_>, name: &str, text: &str, force: bool) -> Result<String> {
    at.with(name, true, |image| {
        let request = AmendRequest::new(image, &options(text), &at.objects(), force)?;
        amend(image, &request, &mut Job::new())?;
        Ok(String::new())
    })
}

fn bitmap(at: &At<'_>, changes: &[(&str, Change<'_>)]) -> Result<String> {
    at.with("bits.qcow2", true, |image| {
        changes
            .iter()
            .try_for_each(|(name, one)| change(image, name, one))?;
        Ok(String::new())
    })
}

fn with_snapshots(
    at: &At<'_>,
    name: &str,
    work: impl FnOnce(&Image, &mut Job) -> Result<()>,
) -> Result<String> {
    at.with(name, true, |image| work(image, &mut Job::new()))?;
    Ok(String::new())
}

const SNAP: &[&str] = &["snap.qcow2"];
const BITS: &[&str] = &["bits.qcow2"];
const CRYPT: &[&str] = &["crypt.qcow2"];
const LUKS: &[&str] = &["disk.luks"];
const PLAIN: &[&str] = &["plain.raw"];

pub const CHANGE: &[Operation] = &[
    either("resize top.qcow2", TOP, |at| {
        resized(at, "top.qcow2", 3 << 20, "off")
    }),
    either("resize --shrink top.qcow2", TOP, |at| {
        resized(at, "top.qcow2", 300 << 10, "off")
    }),
    either("resize metadata base.qcow2", &["base.qcow2"], |at| {
        resized(at, "base.qcow2", 1200 << 10, "metadata")
    }),
    either("resize falloc snap.qcow2", SNAP, |at| {
        resized(at, "snap.qcow2", 1200 << 10, "falloc")
    }),
    either("resize full bits.qcow2", BITS, |at| {
        resized(at, "bits.qcow2", 1200 << 10, "full")
    }),
    either("resize --shrink bits.qcow2", BITS, |at| {
        resized(at, "bits.qcow2", 300 << 10, "off")
    }),
    either("resize full plain.raw", PLAIN, |at| {
        resized(at, "plain.raw", 1200 << 10, "full")
    }),
    either("resize falloc plain.raw", PLAIN, |at| {
        resized(at, "plain.raw", 1200 << 10, "falloc")
    }),
    either("resize --shrink plain.raw", PLAIN, |at| {
        resized(at, "plain.raw", 300 << 10, "off")
    }),
    slow(either("resize disk.luks", LUKS, |at| {
        resized(at, "disk.luks", 1200 << 10, "off")
    })),
    same("snapshot -c snap.qcow2", SNAP, |at| {
        with_snapshots(at, "snap.qcow2", |image, job| {
            snapshot::create(image, "two", job).map(drop)
        })
    }),
    either("snapshot -a snap.qcow2", SNAP, |at| {
        with_snapshots(at, "snap.qcow2", |image, job| {
            snapshot::apply(image, "one", job)
        })
    }),
    same("snapshot -d snap.qcow2", SNAP, |at| {
        with_snapshots(at, "snap.qcow2", |image, job| {
            snapshot::delete(image, "one", job)
        })
    }),
    same("snapshot -c bits.qcow2", BITS, |at| {
        with_snapshots(at, "bits.qcow2", |image, job| {
            snapshot::create(image, "two", job).map(drop)
        })
    }),
    slow(same("snapshot -c crypt.qcow2", CRYPT, |at| {
        with_snapshots(at, "crypt.qcow2", |image, job| {
            snapshot::create(image, "two", job).map(drop)
        })
    })),
    same("amend refcount_bits=64 snap.qcow2", SNAP, |at| {
        amended(at, "snap.qcow2", "refcount_bits=64", false)
    }),
    same("amend refcount_bits=1 top.qcow2", TOP, |at| {
        amended(at, "top.qcow2", "refcount_bits=1", false)
    }),
    same("amend compat=0.10 top.qcow2", TOP, |at| {
        amended(at, "top.qcow2", "compat=0.10", false)
    }),
    same("amend compat=1.1 old.qcow2", &["old.qcow2"], |at| {
        amended(at, "old.qcow2", "compat=1.1", false)
    }),
    same("amend lazy_refcounts=on top.qcow2", TOP, |at| {
        amended(at, "top.qcow2", "lazy_refcounts=on", false)
    }),
    either("amend size=2M top.qcow2", TOP, |at| {
        amended(at, "top.qcow2", "size=2M", false)
    }),
    slow(same("amend disk.luks", LUKS, |at| {
        let text = "state=active,new-secret=n,iter-time=1";
        amended(at, "disk.luks", text, false)
    })),
    slow(same("amend --force disk.luks", LUKS, |at| {
        let text = "state=active,keyslot=0,new-secret=s,iter-time=1";
        amended(at, "disk.luks", text, true)
    })),
    slow(same(
        "amend disk.luks state=inactive,keyslot=1",
        LUKS,
        |at| amended(at, "disk.luks", "state=inactive,keyslot=1", false),
    )),
    slow(same("amend crypt.qcow2", CRYPT, |at| {
        let text = "encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=1";
        amended(at, "crypt.qcow2", text, false)
    })),
    same("bitmap --add bits.qcow2", BITS, |at| {
        bitmap(at, &[("b2", Change::Add(Some(64 << 10)))])
    }),
    same("bitmap --remove bits.qcow2", BITS, |at| {
        bitmap(at, &[("b0", Change::Remove)])
    }),
    same("bitmap --clear bits.qcow2", BITS, |at| {
        bitmap(at, &[("b0", Change::Clear)])
    }),
    same("bitmap --disable bits.qcow2", BITS, |at| {
        bitmap(at, &[("b0", Change::Disable)])
    }),
    same("bitmap --enable bits.qcow2", BITS, |at| {
        bitmap(at, &[("b1", Change::Enable)])
    }),
    same("bitmap --merge bits.qcow2", BITS, |at| {
        bitmap(at, &[("b0", Change::Merge(None, "b1".into()))])
    }),
    same("bitmap --merge -b more.qcow2 bits.qcow2", BITS, |at| {
        at.with("more.qcow2", false, |more| {
            bitmap(at, &[("b0", Change::Merge(Some(more), "c0".into()))])
        })
    }),
    Operation {
        verdict: true,
        ..same("check -r leaks leaky.qcow2", &["leaky.qcow2"], |at| {
            checked(at, "leaky.qcow2", RepairMode::Leaks)
        })
    },
    Operation {
        verdict: true,
        damaged: true,
        ..same("check -r all damaged.qcow2", &["damaged.qcow2"], |at| {
            checked(at, "damaged.qcow2", RepairMode::All)
        })
    },
];
