//! Images that no current program writes: snapshot tables of old programs, header extensions that
//! are repeated, refcounts that are damaged.

use crate::pair::{Pair, ours, words};

const BACKING_FORMAT: u32 = 0xe279_2aca;
const DATA_FILE: u32 = 0x4441_5441;
const BITMAPS: u32 = 0x2385_2875;
const CRYPTO: u32 = 0x0537_be77;

/// An image of our directory, to be changed.
struct Bytes(Vec<u8>);

impl Bytes {
    fn of(pair: &Pair, image: &str) -> Self {
        Self(std::fs::read(pair.ours().path(image)).expect("the image"))
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }

    fn long(&self, at: usize) -> usize {
        let bytes = self.0[at..at + 8].try_into().expect("eight bytes");
        u64::from_be_bytes(bytes) as usize
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        self.0.resize(self.0.len().max(at + bytes.len()), 0);
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn refcount_block(&self) -> usize {
        self.long(self.long(48))
    }

    /// Each snapshot: its fixed part, its extra data, its ID and name.
    fn snapshots(&self) -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
        let mut at = self.long(64);
        (0..self.word(60))
            .map(|_| {
                let fixed = self.0[at..at + 40].to_vec();
                let extra = self.word(at + 36) as usize;
                let names = self.word(at + 12);
                let names = (names >> 16) as usize + (names & 0xffff) as usize;
                let start = at + 40;
                at = (start + extra + names).next_multiple_of(8);
                (
                    fixed,
                    self.0[start..start + extra].to_vec(),
                    self.0[start + extra..start + extra + names].to_vec(),
                )
            })
            .collect()
    }

    /// Cuts the extra data of all snapshots to that length.
    fn shorten_snapshots(&mut self, len: usize) {
        let mut table = Vec::new();
        for (mut fixed, mut extra, names) in self.snapshots() {
            extra.resize(len, 0xee);
            fixed[36..].copy_from_slice(&(len as u32).to_be_bytes());
            table.extend([fixed, extra, names].concat());
            table.resize(table.len().next_multiple_of(8), 0);
        }
        let at = self.long(64);
        self.set(at, &table);
    }

    fn extensions(&self) -> Vec<(u32, Vec<u8>)> {
        let mut at = match self.word(4) {
            2 => 72,
            _ => self.word(100) as usize,
        };
        let mut found = Vec::new();
        while self.word(at) != 0 {
            let len = self.word(at + 4) as usize;
            found.push((self.word(at), self.0[at + 8..at + 8 + len].to_vec()));
            at += 8 + len.next_multiple_of(8);
        }
        found
    }

    /// Puts `first` before the extensions that there are.
    fn prepend(&mut self, first: (u32, Vec<u8>)) {
        let start = self.word(100) as usize;
        let (name_at, name_len) = (self.long(8), self.word(16) as usize);
        let name = self.0[name_at..name_at + name_len].to_vec();
        let mut area = Vec::new();
        for (kind, data) in [vec![first], self.extensions()].concat() {
            area.extend(kind.to_be_bytes());
            area.extend((data.len() as u32).to_be_bytes());
            area.extend(&data);
            area.resize(area.len().next_multiple_of(8), 0);
        }
        area.extend([0; 8]);
        if name_at != 0 {
            let at = (start + area.len()) as u64;
            self.set(8, &at.to_be_bytes());
            area.extend(&name);
        }
        area.resize(4096, 0);
        self.set(start, &area);
    }

    /// Writes the image under that name into both directories.
    fn write(&self, pair: &Pair, image: &str) {
        pair.file(image, &self.0);
    }
}

fn clean(pair: &Pair, image: &str) -> bool {
    let ran = crate::common::run_in(pair.ours().root(), "qemu-img", &["check", "-q", image]);
    ran.code == 0 && ran.err.is_empty()
}

#[test]
fn every_writer_of_the_snapshot_table_completes_the_entries_of_old_programs() {
    for (compat, lens) in [("0.10", [0, 8, 20]), ("1.1", [0, 12, 30])] {
        let pair = Pair::new();
        let create = format!("create -q -f qcow2 -o compat={compat} made.qcow2 1M");
        for line in [
            &create[..],
            "snapshot -c one made.qcow2",
            "snapshot -c two made.qcow2",
        ] {
            pair.qemu(line);
        }
        for len in lens {
            let mut old = Bytes::of(&pair, "made.qcow2");
            old.shorten_snapshots(len);
            for line in [
                "snapshot -c three x.qcow2",
                "snapshot -d two x.qcow2",
                "snapshot -a one x.qcow2",
                "amend -o compat=1.1 x.qcow2",
                "amend -o compat=0.10 x.qcow2",
                "resize x.qcow2 2M",
                "resize --shrink x.qcow2 512k",
            ] {
                let what = format!("{compat}, {len} bytes of extra data: {line}");
                old.write(&pair, "x.qcow2");
                let code = ours(&words(line), pair.ours().root()).code;
                let theirs = pair.theirs().qemu_img(&words(line)).code;
                assert_eq!(code, theirs, "{what}");
                let extra = |directory: &crate::common::Dir| {
                    let bytes = std::fs::read(directory.path("x.qcow2")).expect("the image");
                    let entries = Bytes(bytes).snapshots().into_iter();
                    entries.map(|(_, extra, _)| extra).collect::<Vec<_>>()
                };
                if line.starts_with("resize") && code == 0 && len < 16 {
                    // QEMU's tool lets such entries take the new size for theirs.
                    for extra in extra(pair.ours()) {
                        assert_eq!(extra[8..16], (1u64 << 20).to_be_bytes(), "{what}");
                    }
                } else {
                    assert_eq!(extra(pair.ours()), extra(pair.theirs()), "{what}");
                }
                let writes = !line.starts_with("snapshot -a") && !line.contains("compat=1.1");
                if writes || compat == "0.10" || len >= 16 {
                    assert!(clean(&pair, "x.qcow2"), "{what}");
                }
            }
        }
    }
}

#[test]
fn a_size_that_a_snapshot_lacks_is_the_one_before_the_amendment() {
    let pair = Pair::with(&["create -q -f qcow2 a.qcow2 1M", "snapshot -c one a.qcow2"]);
    let mut old = Bytes::of(&pair, "a.qcow2");
    old.shorten_snapshots(0);
    old.write(&pair, "a.qcow2");
    let ran = ours(
        &words("amend -o compat=0.10,size=2M a.qcow2"),
        pair.ours().root(),
    );
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.err.contains("Internal snapshots prevent downgrade"),
        "{ran:?}"
    );
    let unchanged = std::fs::read(pair.ours().path("a.qcow2")).expect("the image");
    assert!(unchanged == old.0);
}

/// Two images that differ in which of two extensions of one type comes last.
fn repeated(pair: &Pair) {
    pair.qemu_io("raw", "one.raw", &["write -P 1 0 64k"]);
    pair.qemu_io("raw", "two.raw", &["write -P 2 0 64k"]);
    pair.qemu_io("qcow2", "base.qcow2", &["write -P 3 0 64k"]);
    let first = |image: &str, kind: u32, data: &[u8]| {
        let mut bytes = Bytes::of(pair, image);
        bytes.prepend((kind, data.to_vec()));
        bytes.write(pair, image);
    };
    first("backing.qcow2", BACKING_FORMAT, b"raw");
    first("backing-raw.qcow2", BACKING_FORMAT, b"qcow2");
    first("data.qcow2", DATA_FILE, b"one.raw");
    let mut bitmaps = Bytes::of(pair, "bitmaps.qcow2");
    let (_, data) = bitmaps
        .extensions()
        .into_iter()
        .find(|(kind, _)| *kind == BITMAPS)
        .expect("bitmaps");
    let mut less = data.clone();
    less[..4].copy_from_slice(&1u32.to_be_bytes());
    let half = u64::from_be_bytes(data[8..16].try_into().expect("eight bytes")) / 2;
    less[8..16].copy_from_slice(&half.to_be_bytes());
    bitmaps.prepend((BITMAPS, less));
    bitmaps.write(pair, "bitmaps.qcow2");
}

fn repeated_pair() -> Pair {
    let pair = Pair::with(&[
        "create -q one.raw 1M",
        "create -q two.raw 1M",
        "create -q -f qcow2 base.qcow2 1M",
        "create -q -f qcow2 -b base.qcow2 -F qcow2 backing.qcow2",
        "create -q -f qcow2 -b base.qcow2 -F raw backing-raw.qcow2",
        "create -q -f qcow2 -o data_file=two.raw,data_file_raw=on data.qcow2 1M",
        "create -q -f qcow2 bitmaps.qcow2 1M",
        "bitmap --add bitmaps.qcow2 b0",
        "bitmap --add bitmaps.qcow2 b1",
    ]);
    repeated(&pair);
    pair
}

#[test]
fn of_extensions_that_are_repeated_the_last_one_counts() {
    let pair = repeated_pair();
    for image in [
        "backing.qcow2",
        "backing-raw.qcow2",
        "data.qcow2",
        "bitmaps.qcow2",
    ] {
        pair.same(&format!("info {image}"));
        pair.same(&format!("map --output=json {image}"));
        pair.same(&format!("convert -O raw {image} out.raw"));
        pair.same_image("out.raw", "raw");
        let (mine, theirs) = (
            ours(&["check", image], pair.ours().root()),
            pair.theirs().qemu_img(&["check", image]),
        );
        assert_eq!(
            (mine.code, &mine.out),
            (theirs.code, &theirs.out),
            "{image}"
        );
        assert!(
            mine.err.contains("is repeated; the last one counts"),
            "{mine:?}"
        );
    }
}

#[test]
fn a_repair_and_a_new_header_keep_only_the_extension_that_counts() {
    let pair = repeated_pair();
    for (image, kind) in [
        ("backing.qcow2", BACKING_FORMAT),
        ("data.qcow2", DATA_FILE),
        ("bitmaps.qcow2", BITMAPS),
    ] {
        let before = Bytes::of(&pair, image).extensions();
        let ran = ours(&["check", "-r", "all", image], pair.ours().root());
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.err.starts_with("Repairing header extension"), "{ran:?}");
        assert_eq!(Bytes::of(&pair, image).extensions(), before[1..], "{image}");
        assert!(clean(&pair, image), "{image}");
        assert_eq!(before[0].0, kind);
        let again = ours(&["check", image], pair.ours().root());
        assert_eq!((again.code, again.err.as_str()), (0, ""));
    }
    let line = "rebase -u -b base.qcow2 -F raw backing-raw.qcow2";
    assert_eq!(ours(&words(line), pair.ours().root()).code, 0);
    let formats = Bytes::of(&pair, "backing-raw.qcow2").extensions();
    let formats: Vec<_> = formats
        .iter()
        .filter(|(kind, _)| *kind == BACKING_FORMAT)
        .collect();
    assert_eq!(formats, [&(BACKING_FORMAT, b"raw".to_vec())]);
}

#[test]
fn the_encryption_header_that_counts_is_the_last_one() {
    let pair = Pair::new();
    let secret = ["--object", "secret,id=s,data=x"];
    for dir in [pair.ours(), pair.theirs()] {
        dir.qemu_img_ok(&[
            "create",
            "-q",
            "-f",
            "qcow2",
            secret[0],
            secret[1],
            "-o",
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
            "a.qcow2",
            "1M",
        ]);
    }
    let mut bytes = Bytes::of(&pair, "a.qcow2");
    bytes.prepend((
        CRYPTO,
        [0x30000u64.to_be_bytes(), 1000u64.to_be_bytes()].concat(),
    ));
    bytes.write(&pair, "a.qcow2");
    let name = "driver=qcow2,encrypt.key-secret=s,file.filename=a.qcow2";
    let check = |repair: &[&str]| {
        let line = [
            &["check", secret[0], secret[1]],
            repair,
            &["--image-opts", name],
        ]
        .concat();
        ours(&line, pair.ours().root())
    };
    // QEMU's tool refuses the first header, too.
    assert_eq!(check(&[]).code, 0);
    assert_eq!(check(&["-r", "all"]).code, 0);
    let checked = pair
        .ours()
        .qemu_img(&["check", secret[0], secret[1], "--image-opts", name]);
    assert_eq!(checked.code, 0, "{checked:?}");
}

fn damaged_refcounts() -> Pair {
    let pair = Pair::with(&["create -q -f qcow2 made.qcow2 4M"]);
    pair.qemu_io("qcow2", "made.qcow2", &["write -P 1 0 1M"]);
    let made = Bytes::of(&pair, "made.qcow2");
    let (table, block) = (made.long(48), made.refcount_block());
    for (name, at, bytes) in [
        ("clusters.qcow2", 56, &2u32.to_be_bytes()[..]),
        ("entry.qcow2", table, &(1u64 << 40).to_be_bytes()),
        (
            "negative.qcow2",
            table,
            &0xffff_ffff_ffff_0000u64.to_be_bytes(),
        ),
        (
            "unaligned.qcow2",
            table,
            &(block as u64 + 512).to_be_bytes(),
        ),
        ("lost.qcow2", block + 2 * 6, &[0, 0]),
        ("low.qcow2", block + 2 * 6, &[0, 9]),
    ] {
        let mut bytes_of = Bytes::of(&pair, "made.qcow2");
        bytes_of.set(at, bytes);
        bytes_of.write(&pair, name);
    }
    pair
}

#[test]
fn reading_needs_no_refcounts() {
    let pair = damaged_refcounts();
    for image in [
        "clusters.qcow2",
        "entry.qcow2",
        "negative.qcow2",
        "lost.qcow2",
    ] {
        for line in [
            "map --output=json",
            "map",
            "compare made.qcow2",
            "compare -s made.qcow2",
            "measure -O qcow2",
        ] {
            let ran = pair.same(&format!("{line} {image}"));
            assert_eq!(ran.code, 0, "{line} {image}");
        }
    }
}

#[test]
fn a_part_that_cannot_be_checked_is_an_internal_error() {
    let pair = damaged_refcounts();
    for line in [
        "check",
        "check -q",
        "check --output=json",
        "check -q --output=json",
    ] {
        let ran = pair.same(&format!("{line} unaligned.qcow2"));
        assert_eq!(ran.code, 1, "{line}");
    }
    let ran = ours(&["check", "unaligned.qcow2"], pair.ours().root());
    assert!(
        ran.out
            .contains("internal errors have occurred during the check."),
        "{ran:?}"
    );
    assert!(ran.err.ends_with("qemu-img: Check failed\n"), "{ran:?}");
}

#[test]
fn leaks_alone_are_not_repaired_where_references_are_lost() {
    let pair = damaged_refcounts();
    let before = Bytes::of(&pair, "lost.qcow2").0;
    for line in [
        "check -r leaks",
        "check -q -r leaks",
        "check -r leaks --output=json",
    ] {
        let ran = pair.same(&format!("{line} lost.qcow2"));
        assert_eq!(ran.code, 1, "{line}");
        assert!(Bytes::of(&pair, "lost.qcow2").0 == before, "{line}");
    }
    pair.same("check -r leaks low.qcow2");
    assert_eq!(
        ours(&["check", "-r", "all", "lost.qcow2"], pair.ours().root()).code,
        0
    );
    assert!(clean(&pair, "lost.qcow2"));
}
