//! Images of other makers.

use crate::common::Dir;
use crate::products::unpack_bzip2;

use super::{contents_by_peer, open};

#[test]
fn an_image_of_hyper_v_reads_as_with_qemu_and_takes_writes() {
    let dir = Dir::new();
    unpack_bzip2(&dir, "iotest-dynamic-1G.vhdx");
    std::fs::rename(dir.path("iotest-dynamic-1G.vhdx"), dir.path("a.vhdx")).expect("a name");
    dir.qemu_img_ok(&["convert", "-f", "vhdx", "-O", "raw", "a.vhdx", "a.raw"]);
    let peer = std::fs::File::open(dir.path("a.raw")).expect("what QEMU read");
    let image = open(&dir.path("a.vhdx"), false).expect("it opens");
    assert_eq!(image.len(), 1 << 30);
    let mut ours = vec![0; 4 << 20];
    let mut theirs = vec![0; 4 << 20];
    let mut at = 0;
    while at < image.len() {
        image.read_at(&mut ours, at).expect("a read");
        std::os::unix::fs::FileExt::read_exact_at(&peer, &mut theirs, at).expect("a read");
        assert!(ours == theirs, "the bytes at {at}");
        at += ours.len() as u64;
    }
    drop(image);
    let image = open(&dir.path("a.vhdx"), true).expect("it opens to be written");
    image.write_at(&[7; 5000], 900 << 20).expect("a write");
    image.write_at(&[8; 5000], 34_000_000).expect("a write");
    image.close().expect("a close");
    dir.qemu_img_ok(&["check", "-f", "vhdx", "a.vhdx"]);
    let read = contents_by_peer(&dir, "a.vhdx");
    assert_eq!(read[900 << 20..][..5000], [7; 5000]);
    assert_eq!(read[34_000_000..][..5000], [8; 5000]);
}
