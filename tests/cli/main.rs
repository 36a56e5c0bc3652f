//! The command-line tool against the installed `qemu-img`: the same command lines in two equal
//! directories must print the same, end with the same code and leave the same images.

mod bench;
mod bitmap;
mod blkdebug;
mod blklogwrites;
mod blkverify;
mod build;
#[path = "../common/mod.rs"]
mod common;
mod pair;

mod amend;
mod archive;
mod check;
mod checksum;
mod commit;
mod compare;
mod convert;
mod create;
mod crypt;
mod dd;
mod decompress;
mod drivers;
mod examples;
mod filters;
#[path = "../formats/kit/given/mod.rs"]
mod given;
mod header;
mod info;
mod injected;
mod lengths;
mod levels;
mod locks;
mod map;
mod measure;
mod names;
mod nodes;
mod odd;
mod ova;
mod parallels;
mod profiles;
mod progress;
mod qcow;
mod qed;
mod quorum;
mod read_only;
mod rebase;
mod refused;
mod repair;
mod resize;
mod samples;
mod serve;
mod signals;
mod snapshot;
mod standing;
mod strange;
mod surroundings;
mod throttle;
mod tls;
mod trace;
mod usage;
mod vdi;
mod vhdx;
mod vmdk;
mod vpc;
mod vvfat;
