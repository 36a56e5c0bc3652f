//! The block allocation table: borders of its pages, entries of bitmaps, and a table that grows.

use platter::storage::Preallocation;

use crate::common::Dir;

use super::{contents_by_peer, create, entry, open, set_entry, table};

/// An entry that is the first or the last of a page was once lost.
#[test]
fn entries_at_the_borders_of_pages_are_kept() {
    let dir = Dir::new();
    create(&dir, "a.vhdx", 1100 << 20, "block_size=1M", None).expect("an image");
    let blocks = [0u64, 510, 511, 512, 513, 1023, 1024, 1099];
    let image = open(&dir.path("a.vhdx"), true).expect("it opens");
    for (n, block) in (1u8..).zip(blocks) {
        image.write_at(&[n; 4096], block << 20).expect("a write");
        image.flush().expect("a flush");
    }
    image.close().expect("a close");
    dir.qemu_img_ok(&["check", "-f", "vhdx", "a.vhdx"]);
    let read = contents_by_peer(&dir, "a.vhdx");
    for (n, block) in (1u8..).zip(blocks) {
        assert_eq!(
            read[(block << 20) as usize..][..4096],
            [n; 4096],
            "block {block}"
        );
    }
}

/// Old versions of QEMU left what they liked there.
#[test]
fn entries_of_bitmaps_mean_nothing_without_a_parent() {
    let dir = Dir::new();
    create(&dir, "a.vhdx", 17 << 28, "block_size=256M", None).expect("an image");
    let mut file = std::fs::read(dir.path("a.vhdx")).expect("the image");
    assert_eq!(
        (entry(&file, 15), entry(&file, 16), entry(&file, 17)),
        (2, 0, 2)
    );
    set_entry(&mut file, 16, 0xdead_beef_0000_0005);
    std::fs::write(dir.path("a.vhdx"), file).expect("the image");
    let image = open(&dir.path("a.vhdx"), true).expect("it opens");
    image.write_at(&[7; 512], 16 << 28).expect("a write");
    image.close().expect("a close");
    let image = open(&dir.path("a.vhdx"), false).expect("it opens");
    let mut bytes = [0; 512];
    image.read_at(&mut bytes, 16 << 28).expect("a read");
    assert_eq!(bytes, [7; 512]);
}

#[test]
fn a_table_that_is_too_short_for_a_larger_disk_moves() {
    let dir = Dir::new();
    create(&dir, "a.vhdx", 100 << 30, "block_size=1M", None).expect("an image");
    let before = std::fs::read(dir.path("a.vhdx")).expect("the image");
    let image = open(&dir.path("a.vhdx"), true).expect("it opens");
    image.write_at(&[1; 4096], 5 << 20).expect("a write");
    image
        .resize(300 << 30, Preallocation::Off)
        .expect("a larger size");
    image.write_at(&[2; 4096], 299 << 30).expect("a write");
    image.write_at(&[3; 4096], 6 << 20).expect("a write");
    image.close().expect("a close");
    let after = std::fs::read(dir.path("a.vhdx")).expect("the image");
    assert_ne!(table(&before), table(&after));
    dir.qemu_img_ok(&["check", "-f", "vhdx", "a.vhdx"]);
    assert!(dir.qemu_img_ok(&["info", "a.vhdx"]).contains("300 GiB"));
    dir.qemu_io(
        "vhdx",
        "a.vhdx",
        &[
            "read -P 1 5M 4k",
            "read -P 3 6M 4k",
            "read -P 2 299G 4k",
            "read -P 0 200G 4k",
        ],
    );
    // What is cut off is gone, and its room in the file as well.
    let image = open(&dir.path("a.vhdx"), true).expect("it opens");
    image
        .resize(5 << 20, Preallocation::Off)
        .expect("a smaller size");
    image.close().expect("a close");
    let cut = std::fs::metadata(dir.path("a.vhdx"))
        .expect("the image")
        .len();
    assert!(cut < after.len() as u64, "{cut} of {}", after.len());
    let image = open(&dir.path("a.vhdx"), true).expect("it opens");
    image
        .resize(8 << 20, Preallocation::Off)
        .expect("a larger size");
    let mut bytes = [9; 4096];
    image.read_at(&mut bytes, 5 << 20).expect("a read");
    assert_eq!(bytes, [0; 4096]);
}

/// Copies that leave out what is zero at the end of a file end within its last block.
#[test]
fn a_file_that_ends_within_its_last_block_keeps_the_place_of_all_of_it() {
    let dir = Dir::new();
    create(&dir, "a.vhdx", 5 << 20, "block_size=32M", None).expect("an image");
    let image = open(&dir.path("a.vhdx"), true).expect("it opens");
    image.write_at(&[1; 4096], 0).expect("a write");
    image.close().expect("a close");
    let whole = std::fs::read(dir.path("a.vhdx")).expect("the image");
    let block = whole.len() - (32 << 20);
    std::fs::write(dir.path("a.vhdx"), &whole[..block + (5 << 20)]).expect("the image");

    let image = open(&dir.path("a.vhdx"), true).expect("it opens");
    image
        .resize(80 << 20, Preallocation::Off)
        .expect("a larger size");
    for (byte, at) in [(2, 20 << 20), (3, 40 << 20), (4, 31 << 20), (5, 70 << 20)] {
        image.write_at(&[byte; 4096], at).expect("a write");
    }
    let mut model = vec![0; 80 << 20];
    for (byte, at) in [
        (1, 0),
        (2, 20 << 20),
        (3, 40 << 20),
        (4, 31 << 20),
        (5, 70 << 20),
    ] {
        model[at..at + 4096].fill(byte);
    }
    let mut bytes = vec![9; 80 << 20];
    image.read_at(&mut bytes, 0).expect("a read");
    assert!(bytes == model);
    image.close().expect("a close");
    dir.qemu_img_ok(&["check", "-f", "vhdx", "a.vhdx"]);
    assert!(contents_by_peer(&dir, "a.vhdx") == model);
}
