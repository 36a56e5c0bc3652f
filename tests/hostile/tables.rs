//! Images whose tables have as many entries as their headers claim, all of them wrong in the same way: looking at one
//! takes no system call, no line of its own beyond those that anyone reads, and no memory that stays.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::{Bench, Ended, MAX_CPU, MAX_KIB, OF_BLOCKS, SECONDS};

/// Entries of a table here: more than the lines that a check tells.
const ENTRIES: u32 = 1 << 18;

/// Lines of a check: those that are told one by one, and what stands around them.
const MOST_LINES: usize = 100_000 + 20;

/// A table of one format: what the image is made from, where its entries stand, and how long the file is.
struct Table {
    format: &'static str,
    what: &'static str,
    /// What the file begins with.
    head: Vec<u8>,
    at: u64,
    entry: Vec<u8>,
    len: u64,
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// The first bytes of an image that QEMU's tool makes.
fn made(bench: &Bench, args: &[&str], len: usize) -> Vec<u8> {
    let mut line = vec!["create", "-q", "-f"];
    line.extend(args.iter().take(1));
    line.extend(args.iter().skip(2));
    line.extend(["made", args[1]]);
    bench.dir.qemu_img_ok(&line);
    let mut bytes = std::fs::read(bench.dir.path("made")).expect("the image");
    bytes.truncate(len);
    bytes
}

fn vpc(bench: &Bench, what: &'static str, (entry, count): (u32, u32)) -> Table {
    let mut head = made(bench, &["vpc", "1M"], 1536);
    put(&mut head, 512 + 0x1c, &count.to_be_bytes());
    put(&mut head, 512 + 0x20, &(64_u32 << 10).to_be_bytes());
    put(&mut head, 512 + 0x24, &[0; 4]);
    let sum = !head[512..].iter().map(|byte| u32::from(*byte)).sum::<u32>();
    put(&mut head, 512 + 0x24, &sum.to_be_bytes());
    Table {
        format: "vpc",
        what,
        head,
        at: 1536,
        entry: entry.to_be_bytes().to_vec(),
        len: 1536 + u64::from(count) * 4 + (1 << 20),
    }
}

fn vdi(bench: &Bench, what: &'static str, (entry, count): (u32, u32)) -> Table {
    let mut head = made(bench, &["vdi", "1M"], 512);
    put(&mut head, 0x180, &count.to_le_bytes());
    let data = (512 + count * 4).next_multiple_of(1 << 20);
    put(&mut head, 0x158, &data.to_le_bytes());
    Table {
        format: "vdi",
        what,
        head,
        at: 512,
        entry: entry.to_le_bytes().to_vec(),
        len: u64::from(data) + (1 << 20),
    }
}

fn parallels(bench: &Bench, what: &'static str, (entry, count): (u32, u32)) -> Table {
    let mut head = made(bench, &["parallels", "4M"], 64);
    put(&mut head, 32, &count.to_le_bytes());
    let start = (64 + count * 4).next_multiple_of(2 << 20);
    put(&mut head, 48, &(start / 512).to_le_bytes());
    Table {
        format: "parallels",
        what,
        head,
        at: 64,
        entry: entry.to_le_bytes().to_vec(),
        len: 3 << 20,
    }
}

fn qcow(what: &'static str, entry: u64) -> Table {
    const TABLES: u64 = ENTRIES as u64 / 512;
    const BODY: u64 = 8192;
    let mut head = vec![0; BODY as usize];
    put(&mut head, 0, b"QFI\xfb\0\0\0\x01");
    put(&mut head, 24, &(u64::from(ENTRIES) << 12).to_be_bytes());
    put(&mut head, 32, &[12, 9]);
    put(&mut head, 40, &48_u64.to_be_bytes());
    for table in 0..TABLES {
        let host = (BODY + table * 4096).to_be_bytes();
        put(&mut head, 48 + 8 * table as usize, &host);
    }
    Table {
        format: "qcow",
        what,
        head,
        at: BODY,
        entry: entry.to_be_bytes().to_vec(),
        len: BODY + TABLES * 4096,
    }
}

/// Lower tables of a QED image here.
const PARTS: u32 = 1 << 16;

/// With tables of 512 KiB; the upper one says the same of each lower one.
fn qed(what: &'static str, entry: u64) -> Table {
    let mut head = vec![0; 1 << 15];
    put(&mut head, 0, b"QED\0");
    for (at, value) in [(4, 1 << 15), (8, 16), (12, 1_u32)] {
        put(&mut head, at, &value.to_le_bytes());
    }
    put(&mut head, 40, &(1_u64 << 15).to_le_bytes());
    let size = u64::from(PARTS) * (u64::from(PARTS) << 15);
    put(&mut head, 48, &size.to_le_bytes());
    Table {
        format: "qed",
        what,
        head,
        at: 1 << 15,
        entry: entry.to_le_bytes().to_vec(),
        len: 2 << 20,
    }
}

fn vhdx(bench: &Bench, what: &'static str, (entry, count): (u64, u32)) -> Table {
    let size = format!("{count}M");
    let head = made(bench, &["vhdx", &size, "-o", "block_size=1M"], usize::MAX);
    let regions = &head[192 << 10..][16..16 + 64];
    let table = regions
        .chunks(32)
        .find(|region| region[..4] == [0x66, 0x77, 0xc2, 0x2d]);
    let table = table.expect("the region of the table");
    let at = u64::from_le_bytes(table[16..24].try_into().expect("8 bytes"));
    let len = head.len() as u64;
    Table {
        format: "vhdx",
        what,
        head,
        at,
        entry: entry.to_le_bytes().to_vec(),
        len,
    }
}

fn vmdk(bench: &Bench, what: &'static str, entry: u32) -> Table {
    let size = format!("{}k", u64::from(ENTRIES) * 64);
    let mut head = made(bench, &["vmdk", &size], usize::MAX);
    let directory = u64::from_le_bytes(head[56..64].try_into().expect("8 bytes")) * 512;
    let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("4 bytes"));
    let at = u64::from(word(directory as usize)) * 512;
    // The redundant copies say the same.
    let copies = u64::from_le_bytes(head[48..56].try_into().expect("8 bytes")) * 512;
    let copy = word(copies as usize) as usize * 512;
    for place in head[copy..copy + 4 * ENTRIES as usize].chunks_mut(4) {
        place.copy_from_slice(&entry.to_le_bytes());
    }
    let len = head.len() as u64;
    Table {
        format: "vmdk",
        what,
        head,
        at,
        entry: entry.to_le_bytes().to_vec(),
        len,
    }
}

impl Table {
    fn write(&self, bench: &Bench, count: u32) {
        let file = File::create(bench.dir.path("w.qcow2")).expect("the image");
        file.write_all_at(&self.head, 0).expect("the image");
        let entries = self.entry.repeat(count as usize);
        file.write_all_at(&entries, self.at).expect("the image");
        let len = self.len.max(self.at + entries.len() as u64);
        file.set_len(len).expect("the image");
    }

    /// Runs a command on the image; it is within the limits.
    fn run(&self, bench: &Bench, args: &[&str], most_kib: u64) -> Ended {
        let mut line = vec![args[0], "-f", self.format];
        line.extend(&args[1..]);
        let ended = bench.run_for(SECONDS, &line);
        let Self { format, what, .. } = self;
        let lines = ended.ran.out.lines().count() + ended.ran.err.lines().count();
        let (kib, cpu) = (ended.kib, ended.cpu);
        if ended.signal != 0 || cpu > MAX_CPU || kib > most_kib || lines > MOST_LINES {
            bench.problems.borrow_mut().push(format!(
                "{format}, {what}: {args:?}: {kib} KiB, {cpu} ms, signal {}, {lines} lines",
                ended.signal
            ));
        }
        ended
    }
}

#[test]
fn entries_without_end_cost_little_each() {
    let bench = Bench::new();
    let bare = bench.run_for(SECONDS, &["check", "plain.qcow2"]).kib;
    // Some bytes for each entry at most: its own, and a few bits of what is known of it.
    let most_kib = bare + (ENTRIES as u64 >> 10) * 12 + (8 << 10);
    let nowhere = 0x7fff_ffff;
    for (table, codes) in [
        (vpc(&bench, "behind the end", (nowhere, ENTRIES)), [2, 0]),
        (vpc(&bench, "over the footer", (0, ENTRIES)), [2, 0]),
        (
            vpc(&bench, "one place", (ENTRIES / 128 + 16, ENTRIES)),
            [2, 0],
        ),
        (vdi(&bench, "behind the end", (nowhere, ENTRIES)), [2, 0]),
        (vdi(&bench, "one place", (0, ENTRIES)), [2, 0]),
        (
            parallels(&bench, "behind the end", (nowhere, ENTRIES)),
            [2, 0],
        ),
        (parallels(&bench, "one place", (2, ENTRIES)), [2, 0]),
        (qcow("behind the end", 1 << 40), [2, 0]),
        (qed("no place for a table", 3), [2, 0]),
        (vhdx(&bench, "no such state", (5, ENTRIES)), [2, 0]),
        (
            vhdx(&bench, "behind the end", (1 << 40 | 6, ENTRIES)),
            [2, 0],
        ),
        (vmdk(&bench, "behind the end", nowhere), [2, 0]),
        (vmdk(&bench, "over the header", 5), [2, 0]),
    ] {
        let count = match table.format {
            "qed" => PARTS,
            _ => ENTRIES,
        };
        table.write(&bench, count);
        for (args, code) in [
            (&["check", "w.qcow2"][..], codes[0]),
            (&["check", "-q", "-r", "all", "w.qcow2"], codes[1]),
            (&["check", "-q", "w.qcow2"], 0),
        ] {
            let ended = table.run(&bench, args, most_kib);
            if ended.ran.code != code {
                bench.problems.borrow_mut().push(format!(
                    "{}, {}: {args:?}: {}, {}",
                    table.format,
                    table.what,
                    ended.ran.code,
                    ended.ran.err.lines().last().unwrap_or_default()
                ));
            }
        }
    }
}

/// Each of as many lower tables as there are entries of an upper one is the same: they are counted, and not walked.
#[test]
fn a_table_that_each_entry_of_the_upper_one_names() {
    let bench = Bench::new();
    let table = qed("one lower table", (1 << 15) + (512 << 10));
    table.write(&bench, PARTS);
    let ended = table.run(&bench, &["check", "w.qcow2"], MAX_KIB);
    assert_eq!(ended.ran.code, 2, "{:?}", ended.ran);
    // Nothing is written where it would be a change of all.
    let ended = table.run(&bench, &["bench", "-w", "-c", "1", "w.qcow2"], MAX_KIB);
    let err = &ended.ran.err;
    assert!(
        ended.ran.code == 1 && err.contains("check the image first"),
        "{err}"
    );
}

#[test]
fn tables_of_blocks_without_end_that_all_are_nowhere() {
    let bench = Bench::new();
    let count = 1 << 22;
    let bare = bench.run_for(SECONDS, &["check", "plain.qcow2"]).kib;
    // Every entry is 0: over the footer of a VHD, and the same block of a VDI.
    for table in [vpc(&bench, "", (0, count)), vdi(&bench, "", (0, count))] {
        let file = File::create(bench.dir.path("all.qcow2")).expect("the image");
        file.write_all_at(&table.head, 0).expect("the image");
        file.set_len(table.len).expect("a sparse file");
        bench.commands((OF_BLOCKS, SECONDS), "all.qcow2", (MAX_KIB >> 2) + bare);
    }
}

/// Entries of a table whose blocks are strewn.
const STREWN: u32 = 1 << 20;

/// The place of a block, which none of those near it has.
fn strewn(index: u32) -> u32 {
    index.wrapping_mul(0x9e37_79b1) % STREWN
}

/// Nothing in the order of the entries helps to find out which place is taken: neither the processor time nor the
/// memory grows with the file, in which almost nothing stands.
#[test]
fn blocks_strewn_over_a_large_file_cost_little_each() {
    type Entry = fn(u32) -> Vec<u8>;
    let bench = Bench::new();
    let bare = bench.run_for(SECONDS, &["check", "plain.qcow2"]).kib;
    let most_kib = bare + (MAX_KIB >> 1);
    let tables: [(Table, Entry, i32); 4] = [
        // Without a footer at the end.
        (
            vpc(&bench, "strewn", (0, STREWN)),
            |at| ((1 << 15) + at * 600).to_be_bytes().to_vec(),
            3,
        ),
        // With another number of blocks in the header.
        (
            vdi(&bench, "strewn", (0, STREWN)),
            |at| at.to_le_bytes().to_vec(),
            2,
        ),
        // With space behind the last one.
        (
            parallels(&bench, "strewn", (0, STREWN)),
            |at| (at + 16).to_le_bytes().to_vec(),
            3,
        ),
        (
            vhdx(&bench, "strewn", (0, STREWN)),
            |at| {
                ((u64::from(at) + (1 << 10)) << 20 | 6)
                    .to_le_bytes()
                    .to_vec()
            },
            0,
        ),
    ];
    for (mut table, entry, found) in tables {
        // A disk that has all of the blocks, for it does not grow over any behind its end.
        let (place, size) = match table.format {
            "parallels" => (36, u64::from(STREWN) * 2048),
            "vdi" => (0x170, u64::from(STREWN) << 20),
            _ => (0, 0),
        };
        if size > 0 {
            put(&mut table.head, place, &size.to_le_bytes());
        }
        table.write(&bench, 0);
        let entries: Vec<u8> = (0..STREWN).map(strewn).flat_map(entry).collect();
        let file = File::options().write(true).open(bench.dir.path("w.qcow2"));
        let file = file.expect("the image");
        file.write_all_at(&entries, table.at).expect("the image");
        file.set_len(u64::from(STREWN + (2 << 10)) << 20)
            .expect("a sparse file");
        for (args, code) in [
            (&["check", "-q", "w.qcow2"][..], found),
            (&["resize", "-q", "w.qcow2", "+64M"], 0),
            (&["bench", "-w", "-c", "1", "w.qcow2"], 0),
        ] {
            let ended = table.run(&bench, args, most_kib);
            assert_eq!(
                ended.ran.code, code,
                "{}: {args:?}: {:?}",
                table.format, ended.ran
            );
        }
    }
}
