//! VHDX beyond what every format promises: logs that were left over, parents, odd tables, damage.

mod chain;
mod check;
mod crash;
mod foreign;
mod log;
mod running;
mod sectors;
mod tables;

use std::path::Path;

use platter::ops::create::{CreatePlan, CreateRequest};
use platter::{Error, Image, Job, Location, OpenOptions, OpenPolicy, Options};

use crate::common::Dir;
use crate::common::vhdx::{HEADERS, seal, set_entry, table};

/// How images are opened here.
fn options(writable: bool) -> OpenOptions {
    OpenOptions {
        format: Some("vhdx".to_owned()),
        writable,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    }
}

fn open(path: &Path, writable: bool) -> Result<Image, Error> {
    Image::open(&Location::from_path(path), &options(writable))
}

/// Opens what an open to read refuses because of its log.
fn open_replayed(path: &Path) -> Result<Image, Error> {
    let text = format!("driver=vhdx,replay-log=on,file.filename={}", path.display());
    let options = OpenOptions {
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    Image::open(&Location::from_image_opts(&text)?, &options)
}

/// Creates an image; `base` is the name of its parent.
fn create(
    dir: &Dir,
    name: &str,
    size: u64,
    options: &str,
    base: Option<&str>,
) -> Result<(), Error> {
    let request = CreateRequest {
        location: Location::from_path(dir.path(name)),
        format: "vhdx".to_owned(),
        size: Some(size),
        options: match options {
            "" => Options::new(),
            options => Options::parse(options)?,
        },
        backing_file: base.map(Into::into),
        backing_format: base.map(|_| "vhdx".to_owned()),
        backing_unsafe: false,
        exclusive: false,
        objects: Default::default(),
        policy: OpenPolicy::permissive(),
        storages: None,
    };
    let mut job = Job::new();
    CreatePlan::new(request, &mut job)?.run(&mut job)
}

fn contents(image: &Image) -> Vec<u8> {
    let mut bytes = vec![0; image.len() as usize];
    image.read_at(&mut bytes, 0).expect("a read");
    bytes
}

/// What QEMU's tools read.
fn contents_by_peer(dir: &Dir, name: &str) -> Vec<u8> {
    dir.qemu_img_ok(&["convert", "-f", "vhdx", "-O", "raw", name, "peer.raw"]);
    std::fs::read(dir.path("peer.raw")).expect("what QEMU read")
}

/// An entry of the table.
fn entry(file: &[u8], index: usize) -> u64 {
    let at = table(file) + index * 8;
    u64::from_le_bytes(file[at..at + 8].try_into().expect("eight bytes"))
}
