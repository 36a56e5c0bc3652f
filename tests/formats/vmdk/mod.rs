//! VMDK: the subformats of other products, streams, chains, and what a check repairs.

mod by_hand;
mod chain;
mod check;
mod foreign;
mod made;
mod parts;
mod size;

use platter::ops::convert::{ConvertRequest, convert};
use platter::{Image, Job, Location, OpenOptions, OpenPolicy, Options, Result};

use crate::common::Dir;

/// The image of that name in the directory.
fn open(dir: &Dir, name: &str, writable: bool) -> Result<Image> {
    let options = OpenOptions {
        format: Some("vmdk".to_owned()),
        writable,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    Image::open(&Location::from_path(dir.path(name)), &options)
}

/// Its guest bytes.
fn contents(image: &Image) -> Vec<u8> {
    let mut bytes = vec![0; image.len() as usize];
    image.read_at(&mut bytes, 0).expect("a read");
    bytes
}

/// Bytes that compress somewhat, with gaps of zeroes.
fn sample_bytes(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (n, chunk) in bytes.chunks_mut(40_000).enumerate() {
        match n % 4 {
            0 => {}
            1 => chunk.fill(n as u8),
            2 => chunk
                .iter_mut()
                .enumerate()
                .for_each(|(i, b)| *b = (i / 7) as u8),
            _ => {
                let mut random = crate::random::Random(n as u64 + 1);
                chunk.iter_mut().for_each(|b| *b = random.next() as u8);
            }
        }
    }
    bytes
}

/// Converts a raw file of the directory.
fn convert_raw(dir: &Dir, from: &str, to: &str, options: &str) -> Result<()> {
    let mut request = ConvertRequest::new(
        Location::from_path(dir.path(from)),
        Location::from_path(dir.path(to)),
    );
    request.source.options = OpenOptions {
        format: Some("raw".to_owned()),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    request.target.format = Some("vmdk".to_owned());
    request.target.options = match options {
        "" => Options::new(),
        options => Options::parse(options)?,
    };
    request.target.policy = OpenPolicy::permissive();
    convert(&request, &mut Job::new()).map(drop)
}
