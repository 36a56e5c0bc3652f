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

/// An image with two snapshots, and `count` more that have no L1 table and long names.
fn with_table(pair: &Pair, name: &str, count: usize, name_len: usize, claimed: u32) {
    let mut image = Bytes::of(pair, "made.qcow2");
    let mut table = Vec::new();
    for (fixed, extra, names) in image.snapshots() {
        table.extend([fixed, extra, names].concat());
        table.resize(table.len().next_multiple_of(8), 0);
    }
    for number in 0..count {
        let id = (number + 10).to_string();
        let mut entry = vec![0; 40 + 24];
        entry[12..14].copy_from_slice(&(id.len() as u16).to_be_bytes());
        entry[14..16].copy_from_slice(&(name_len as u16).to_be_bytes());
        entry[36..40].copy_from_slice(&24u32.to_be_bytes());
        entry[48..56].copy_from_slice(&(1u64 << 20).to_be_bytes());
        entry.extend(id.as_bytes());
        entry.resize(entry.len() + name_len, b'x');
        entry.resize(entry.len().next_multiple_of(8), 0);
        table.extend(entry);
    }
    let at = image.0.len().next_multiple_of(65536);
    image.set(at, &table);
    image.set(64, &(at as u64).to_be_bytes());
    image.set(60, &claimed.to_be_bytes());
    image.write(pair, name);
}

#[test]
fn a_snapshot_table_past_its_limits_is_refused_with_the_remedy_and_repaired() {
    let pair = Pair::with(&["create -q -f qcow2 made.qcow2 1M"]);
    pair.qemu_io("qcow2", "made.qcow2", &["write -P 1 0 128k"]);
    pair.qemu("snapshot -c one made.qcow2");
    pair.qemu("snapshot -c two made.qcow2");
    for (what, count, name_len, claimed) in [
        ("one entry too many bytes", 1118, 60_000, 1120),
        ("a few entries too many bytes", 1130, 60_000, 1132),
        ("too many entries", 65_540, 8, 65_542),
        ("too many of both", 65_540, 1200, 65_542),
    ] {
        with_table(&pair, "x.qcow2", count, name_len, claimed);
        for line in ["info", "snapshot -l", "check", "check --output=json"] {
            assert_eq!(pair.same(&format!("{line} x.qcow2")).code, 1, "{what}");
        }
        let repair = |pair: &Pair| ours(&["check", "-r", "all", "x.qcow2"], pair.ours().root());
        let ran = repair(&pair);
        let theirs = pair.theirs().qemu_img(&["check", "-r", "all", "x.qcow2"]);
        assert_eq!((ran.code, theirs.code), (0, 0), "{what}: {ran:?}");
        let told = |text: &str| {
            let lines = text.lines().filter(|line| line.starts_with("Discarding"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(told(&ran.err), told(&theirs.err), "{what}");
        assert!(!told(&ran.err).is_empty(), "{what}");
        // The snapshots that are left are the same; and the image opens.
        assert!(clean(&pair, "x.qcow2"), "{what}");
        let list = ["snapshot", "-l", "x.qcow2"];
        let (mine, theirs) = (
            ours(&list, pair.ours().root()),
            pair.theirs().qemu_img(&list),
        );
        let ids = |text: &str| {
            let ids = text
                .lines()
                .map(|line| line.split(' ').next().map(str::to_owned));
            ids.collect::<Vec<_>>()
        };
        // The peer cuts long names.
        assert_eq!((mine.code, ids(&mine.out)), (0, ids(&theirs.out)), "{what}");
        let once = Bytes::of(&pair, "x.qcow2").0;
        let again = repair(&pair);
        assert_eq!((again.code, again.err.as_str()), (0, ""), "{what}");
        assert!(Bytes::of(&pair, "x.qcow2").0 == once, "{what}");
    }
}

#[test]
fn damaged_tables_are_told_with_the_file_and_the_remedy() {
    let pair = Pair::with(&[
        "create -q -f qcow2 made.qcow2 1M",
        "snapshot -c one made.qcow2",
        "bitmap --add made.qcow2 b0",
        "bitmap --add made.qcow2 b1",
    ]);
    let made = Bytes::of(&pair, "made.qcow2");
    let mut extra = Bytes(made.0.clone());
    extra.set(extra.long(64) + 36, &2000u32.to_be_bytes());
    extra.write(&pair, "extra.qcow2");
    let mut counted = Bytes(made.0.clone());
    let mut at = counted.word(100) as usize;
    while counted.word(at) != BITMAPS {
        at += 8 + (counted.word(at + 4) as usize).next_multiple_of(8);
    }
    counted.set(at + 8, &3u32.to_be_bytes());
    counted.write(&pair, "counted.qcow2");
    for image in ["extra.qcow2", "counted.qcow2"] {
        for line in [
            "info",
            "snapshot -l",
            "convert -O raw -l one",
            "measure -O qcow2 -l one",
        ] {
            let target = if line.starts_with("convert") {
                " out.raw"
            } else {
                ""
            };
            let ran = pair.same(&format!("{line} {image}{target}"));
            assert_eq!(ran.code, 1, "{line} {image}");
        }
    }
}

#[test]
fn a_cut_off_snapshot_table_keeps_nothing_else_from_being_read() {
    let pair = Pair::with(&["create -q -f qcow2 made.qcow2 1M"]);
    pair.qemu_io("qcow2", "made.qcow2", &["write -P 1 0 128k"]);
    pair.qemu("snapshot -c one made.qcow2");
    pair.qemu("snapshot -c two made.qcow2");
    let made = Bytes::of(&pair, "made.qcow2");
    let entry = made.snapshots().remove(0);
    let first = (entry.0.len() + entry.1.len() + entry.2.len()).next_multiple_of(8);
    // What is cut of an entry with names reads as zeroes, which are shown in other ways.
    for (kept, whole) in [(0, true), (20, false), (first, true), (first + 20, false)] {
        let mut cut = Bytes(made.0.clone());
        let table = cut.0[cut.long(64)..][..kept].to_vec();
        let at = cut.0.len().next_multiple_of(65536);
        cut.set(64, &(at as u64).to_be_bytes());
        cut.set(at, &table);
        cut.0.resize(at + kept, 0);
        cut.write(&pair, "cut.qcow2");
        for line in [
            "info cut.qcow2",
            "snapshot -l cut.qcow2",
            "map --output=json cut.qcow2",
            "measure -O qcow2 cut.qcow2",
            "convert -O raw cut.qcow2 out.raw",
            "convert -O raw -l one cut.qcow2 one.raw",
            "compare made.qcow2 cut.qcow2",
        ] {
            let mine = ours(&words(line), pair.ours().root());
            let theirs = pair.theirs().qemu_img(&words(line));
            assert_eq!(mine.code, theirs.code, "{line}: {mine:?}");
            if whole {
                let shown = |text: &str| {
                    let lines = text.lines().filter(|line| !line.contains("disk size"));
                    lines.map(str::to_owned).collect::<Vec<_>>()
                };
                assert_eq!(shown(&mine.out), shown(&theirs.out), "{line}");
            }
        }
    }
    // Without the table of the current contents those of a snapshot are still there.
    let mut lost = Bytes(made.0.clone());
    lost.set(40, &(1u64 << 40).to_be_bytes());
    lost.write(&pair, "lost.qcow2");
    for line in [
        "info lost.qcow2",
        "snapshot -l lost.qcow2",
        "measure -O qcow2 -l one lost.qcow2",
        "convert -O raw -l one lost.qcow2 one.raw",
    ] {
        assert_eq!(pair.same(line).code, 0, "{line}");
    }
    // QEMU's tool takes them for zeroes.
    for line in ["map lost.qcow2", "convert -O raw lost.qcow2 none.raw"] {
        let ran = ours(&words(line), pair.ours().root());
        assert_eq!(ran.code, 1, "{line}: {ran:?}");
        assert!(ran.err.contains("lies past the end of the file"), "{ran:?}");
    }
    // A table of many entries, of which the virtual size needs one.
    let mut long = Bytes(made.0);
    long.set(36, &(4u32 << 20).to_be_bytes());
    long.write(&pair, "long.qcow2");
    for line in ["info", "map", "measure -O qcow2", "compare made.qcow2"] {
        assert_eq!(pair.same(&format!("{line} long.qcow2")).code, 0, "{line}");
    }
}

#[test]
fn a_repair_takes_out_what_keeps_an_image_from_being_opened() {
    let pair = Pair::with(&["create -q -f qcow2 made.qcow2 1M"]);
    pair.qemu_io("qcow2", "made.qcow2", &["write -P 1 0 256k"]);
    pair.qemu("snapshot -c one made.qcow2");
    pair.qemu("bitmap --add made.qcow2 b0");
    let made = Bytes::of(&pair, "made.qcow2");
    let mut at = made.word(100) as usize;
    while made.word(at) != BITMAPS {
        at += 8 + (made.word(at + 4) as usize).next_multiple_of(8);
    }
    let bitmaps = at + 8;
    let table = made.long(48) as u64;
    for (what, place, bytes) in [
        (
            "a refcount table off its cluster",
            48,
            &(table + 512).to_be_bytes()[..],
        ),
        (
            "a refcount table at no offset",
            48,
            &(u64::MAX << 16).to_be_bytes(),
        ),
        ("a long refcount table", 56, &200u32.to_be_bytes()),
        ("a very long refcount table", 56, &u32::MAX.to_be_bytes()),
        ("no refcount table", 56, &0u32.to_be_bytes()),
        ("too many bitmaps", bitmaps, &70_000u32.to_be_bytes()),
        ("no bitmaps", bitmaps, &0u32.to_be_bytes()),
        ("a reserved field", bitmaps + 4, &1u32.to_be_bytes()),
        ("a long directory", bitmaps + 8, &(1u64 << 40).to_be_bytes()),
        (
            "a directory off its cluster",
            bitmaps + 16,
            &512u64.to_be_bytes(),
        ),
    ] {
        let mut bad = Bytes(made.0.clone());
        bad.set(place, bytes);
        bad.write(&pair, "x.qcow2");
        let root = pair.ours().root();
        // As it is it opens for nobody, and leaks alone are not repaired.
        pair.same("check x.qcow2");
        assert_eq!(
            ours(&["check", "-r", "leaks", "x.qcow2"], root).code,
            1,
            "{what}"
        );
        assert!(Bytes::of(&pair, "x.qcow2").0 == bad.0, "{what}");
        let ran = ours(&["check", "-r", "all", "x.qcow2"], root);
        assert_eq!(ran.code, 0, "{what}: {ran:?}");
        assert!(clean(&pair, "x.qcow2"), "{what}");
        let same = ours(&["compare", "made.qcow2", "x.qcow2"], root);
        assert_eq!(same.code, 0, "{what}: {same:?}");
        let listed = pair.ours().qemu_img(&["snapshot", "-l", "x.qcow2"]);
        assert!(listed.out.contains("one"), "{what}: {listed:?}");
        let once = Bytes::of(&pair, "x.qcow2").0;
        assert_eq!(
            ours(&["check", "-r", "all", "x.qcow2"], root).err,
            "",
            "{what}"
        );
        assert!(Bytes::of(&pair, "x.qcow2").0 == once, "{what}");
    }
}

#[test]
fn a_repair_of_a_cut_image_takes_no_cluster_that_an_entry_names() {
    let pair = Pair::with(&["create -q -f qcow2 made.qcow2 1M"]);
    pair.qemu_io("qcow2", "made.qcow2", &["write -P 1 0 512k"]);
    let mut cut = Bytes::of(&pair, "made.qcow2");
    // The refcounts need a new place, and the entries name what would be it.
    cut.0.truncate(8 * 65536);
    let table = cut.long(48);
    cut.set(table + 8, &0x200u64.to_be_bytes());
    cut.write(&pair, "x.qcow2");
    let root = pair.ours().root();
    for _ in 0..2 {
        let ran = ours(&["check", "-r", "all", "x.qcow2"], root);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(
            ran.err.contains("refcount structures cannot be rebuilt"),
            "{ran:?}"
        );
        assert_eq!(Bytes::of(&pair, "x.qcow2").0.len(), cut.0.len());
    }
}
