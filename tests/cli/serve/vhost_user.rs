//! An image as the block device of a virtual machine, whose driver is here: what it asks is done as through QEMU's
//! server, and what a hostile one asks does no harm.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::guest::{
    AVAIL, BUFFER, BUFFERS, DISCARD, FAILED, FLUSH, Guest, ID, IN, INDIRECT, INDIRECT_DESC, MEMORY,
    NEXT, OK, OUT, PROTOCOL, RO, SYNC, TRIM, UNKNOWN, VERSION_1, WRITE, ZERO, ZEROES, segment,
};
use super::{images, until};
use crate::common::{Dir, Random};

/// A server with a device at a socket; it ends with this.
pub(super) struct Served {
    pub(super) child: Child,
    socket: PathBuf,
}

impl Served {
    pub(super) fn ours(dir: &Dir, args: &[&str]) -> Self {
        let mut command = Command::new(crate::build::tool());
        command
            .args(["serve", "--vhost-user", "v.sock", "--queues", "2"])
            .args(args);
        Self::start(dir, command)
    }

    pub(super) fn theirs(dir: &Dir, format: &str, file: &str) -> Self {
        let mut command = Command::new("qemu-storage-daemon");
        let socket = dir.path("v.sock");
        command
            .arg("--blockdev")
            .arg(format!("file,node-name=f,filename={file},discard=unmap"))
            .arg("--blockdev")
            .arg(format!("{format},node-name=n,file=f,discard=unmap"))
            .arg("--export")
            .arg(format!(
                "vhost-user-blk,id=e,node-name=n,writable=on,num-queues=2,addr.type=unix,addr.path={}",
                socket.display()
            ));
        Self::start(dir, command)
    }

    fn start(dir: &Dir, mut command: Command) -> Self {
        let socket = dir.path("v.sock");
        let _ = fs::remove_file(&socket);
        let child = command
            .current_dir(dir.root())
            .stdin(Stdio::null())
            .spawn()
            .expect("a server");
        let mut served = Self { child, socket };
        until("the socket", || {
            let ended = served.child.try_wait().expect("to look at the server");
            assert!(ended.is_none(), "the server ended: {ended:?}");
            served.socket.exists()
        });
        served
    }

    /// Ends it by a signal, as users do.
    pub(super) fn end(mut self) {
        let sent = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        assert!(sent.expect("kill").success());
        let status = self.child.wait().expect("the end of the server");
        assert!(status.success(), "{status:?}");
        assert!(!self.socket.exists(), "the socket stays");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The driver of a machine whose memory is a file in `dir`.
fn driver(dir: &Dir, served: &Served) -> Guest {
    Guest::new(&dir.path("memory"), &served.socket)
}

#[test]
fn a_guest_sees_the_same_through_qemus_server() {
    let dir = Dir::new();
    for (format, file) in [("raw", "a.raw"), ("qcow2", "b.qcow2"), ("qcow2", "f.qcow2")] {
        let results = [true, false].map(|ours| {
            images(&dir);
            let served = match ours {
                true => Served::ours(&dir, &["-w", "-f", format, file]),
                false => Served::theirs(&dir, format, file),
            };
            let mut guest = driver(&dir, &served);
            let wanted = FLUSH | DISCARD | ZEROES | INDIRECT_DESC | VERSION_1;
            assert_eq!(guest.offered & (wanted | RO), wanted);
            let config = guest.config();
            assert_eq!(config[..8], ((24u64 << 20) / 512).to_le_bytes());
            assert_eq!(config[20..24], 512u32.to_le_bytes());
            assert_eq!(config[34..36], [2, 0]);
            let mut answers = vec![
                guest.ask(OUT, 3, &[7; 3072]),
                guest.ask(OUT, (24 << 11) - 1, &[8; 512]),
                guest.ask(OUT, 24 << 11, &[8; 512]),
                guest.ask(OUT, u64::MAX / 512, &[8; 512]),
                guest.ask(OUT, 0, &[8; 500]),
                guest.ask(IN, (24 << 11) - 1, &[0; 1024]),
                guest.ask(TRIM, 0, &segment(20 << 11, 2048, 0)),
                guest.ask(ZERO, 0, &segment(2 << 11, 100, 1)),
                guest.ask(ZERO, 0, &segment(1 << 11, 100, 0)),
                guest.ask(ZERO, 0, &segment(24 << 11, 1, 0)),
                guest.ask(ZERO, 0, &segment(0, 1, 2)),
                guest.ask(TRIM, 0, &segment(0, 1, 1)),
                guest.ask(99, 0, &[0; 512]),
                guest.ask(SYNC, 0, &[]),
                guest.ask(ID, 0, &[0; 20]),
            ];
            for sector in [0, 1 << 11, 2 << 11, 5 << 11, 20 << 11] {
                answers.extend(guest.read(sector, 64 << 10));
            }
            drop(guest);
            match ours {
                true => served.end(),
                false => drop(served),
            }
            dir.qemu_img_ok(&["convert", "-f", format, "-O", "raw", file, "after.raw"]);
            (answers, fs::read(dir.path("after.raw")).expect("the bytes"))
        });
        assert_eq!(results[0].0[..15], results[1].0[..15], "{file}");
        assert!(results[0] == results[1], "{file}");
        if format == "qcow2" {
            dir.qemu_img_ok(&["check", "-f", "qcow2", file]);
        }
    }
}

#[test]
fn reads_of_all_lengths_that_wait_together_are_each_answered_right() {
    let dir = Dir::new();
    let mut bytes = vec![0; 8 << 20];
    for sector in [0..3000, 4000..4001, 9000..9128, 12000..16384]
        .into_iter()
        .flatten()
    {
        let place = &mut bytes[sector * 512..(sector + 1) * 512];
        place.fill(1 + (sector % 255) as u8);
        place[..8].copy_from_slice(&sector.to_le_bytes());
    }
    fs::write(dir.path("a.raw"), &bytes).expect("an image");
    dir.qemu_img_ok(&["convert", "-f", "raw", "-O", "qcow2", "a.raw", "b.qcow2"]);
    dir.qemu_img_ok(&[
        "convert", "-c", "-f", "raw", "-O", "qcow2", "a.raw", "c.qcow2",
    ]);
    let over = "create -q -f qcow2 -F qcow2 -b b.qcow2 d.qcow2";
    dir.qemu_img_ok(&over.split(' ').collect::<Vec<_>>());
    dir.qemu_io(
        "qcow2",
        "d.qcow2",
        &["write -z 500k 300k", "write -P 9 7M 64k"],
    );
    for (format, file) in [
        ("raw", "a.raw"),
        ("qcow2", "b.qcow2"),
        ("qcow2", "c.qcow2"),
        ("qcow2", "d.qcow2"),
    ] {
        if file == "d.qcow2" {
            bytes[500 << 10..800 << 10].fill(0);
            bytes[7 << 20..(7 << 20) + (64 << 10)].fill(9);
        }
        let served = Served::ours(&dir, &["-r", "-f", format, file]);
        let mut guest = driver(&dir, &served);
        let mut random = Random(7);
        for _ in 0..20 {
            // Whole stretches of one kind, pieces of them, and what crosses their borders; longer than is read at once.
            let reads: Vec<(usize, usize)> = (0..25)
                .map(|_| {
                    let len = match random.below(4) {
                        0 => 1,
                        1 => 8,
                        2 => 1 + random.below(100) as usize,
                        _ => 511 - random.below(100) as usize,
                    };
                    let last = (bytes.len() / 512 - len) as u64;
                    (random.below(last + 1) as usize, len)
                })
                .collect();
            for (number, (sector, len)) in reads.iter().enumerate() {
                guest.request(0, number as u64, IN, *sector as u64, &vec![0xaa; len * 512]);
            }
            // Past the end among the others.
            guest.request(0, 25, IN, bytes.len() as u64 / 512, &[0; 512]);
            guest.kick(0);
            guest.wait(0);
            for (number, (sector, len)) in reads.iter().enumerate() {
                assert_eq!(guest.status(number as u64), OK, "{file}");
                let expected = &bytes[sector * 512..(sector + len) * 512];
                let same = guest.data(number as u64, len * 512) == expected;
                assert!(same, "{file}: sector {sector}, {len} sectors");
            }
            assert_eq!(guest.status(25), FAILED);
        }
        drop(guest);
        served.end();
    }
}

#[test]
fn many_requests_on_two_queues_equal_a_model() {
    let dir = Dir::new();
    images(&dir);
    let mut model = fs::read(dir.path("a.raw")).expect("the bytes");
    let served = Served::ours(&dir, &["-w", "-f", "qcow2", "b.qcow2"]);
    let mut guest = driver(&dir, &served);
    let mut random = Random(7);
    for round in 0..40u8 {
        // Sixteen at once, each in a stripe of its own.
        let mut reads = Vec::new();
        for number in 0..16u64 {
            let sector = number * 3000 + random.below(2000);
            let len = (1 + random.below(200) as usize) * 512;
            let place = sector as usize * 512..sector as usize * 512 + len;
            let queue = (number % 2) as usize;
            match random.below(4) {
                0 => {
                    reads.push((number, model[place].to_vec()));
                    guest.request(queue, number, IN, sector, &vec![0; len]);
                }
                1 => {
                    model[place].fill(0);
                    let sectors = (len / 512) as u32;
                    let bytes = segment(sector, sectors, u32::from(round % 2));
                    guest.request(queue, number, ZERO, 0, &bytes);
                }
                _ => {
                    model[place].fill(round + 1);
                    guest.request(queue, number, OUT, sector, &vec![round + 1; len]);
                }
            }
        }
        guest.kick(0);
        guest.kick(1);
        guest.wait(0);
        guest.wait(1);
        for number in 0..16 {
            assert_eq!(guest.status(number), OK);
        }
        for (number, wanted) in reads {
            assert!(guest.data(number, wanted.len()) == wanted);
        }
    }
    assert_eq!(guest.ask(SYNC, 0, &[]), OK);
    drop(guest);
    // Another machine comes, and what it leaves under way is carried out.
    let mut guest = driver(&dir, &served);
    assert!(guest.read(0, 128 << 10) == model[..128 << 10]);
    for number in 0..8 {
        guest.request(1, number, OUT, number * 512, &vec![0xee; 128 << 10]);
        model[number as usize * 512 * 512..][..128 << 10].fill(0xee);
    }
    guest.kick(1);
    // The ring rests when this returns.
    guest.wait(1);
    guest.frontend.get_vring_base(1).expect("to stop the queue");
    served.end();
    drop(guest);
    dir.qemu_img_ok(&["convert", "-O", "raw", "b.qcow2", "after.raw"]);
    assert!(fs::read(dir.path("after.raw")).expect("the bytes") == model);
    dir.qemu_img_ok(&["check", "-f", "qcow2", "b.qcow2"]);
}

/// Requests that come one by one while others are at work, each when another one is answered: none is forgotten, though
/// the device is told of those alone that it wants to be told of, and the driver likewise.
#[test]
fn requests_that_come_while_others_are_answered_are_not_forgotten() {
    let dir = Dir::new();
    images(&dir);
    let served = Served::ours(&dir, &["-w", "-f", "qcow2", "b.qcow2"]);
    let mut guest = driver(&dir, &served);
    for at_once in 1..6u16 {
        let mut answered = guest.used(0);
        for number in 0..8000u16 {
            if number >= at_once {
                guest.wait_for_more(0, answered);
                answered = answered.wrapping_add(1);
            }
            // Written by workers: a read may be answered at once.
            let place = u64::from(number % 8);
            guest.request(0, place, OUT, place * 8, &[1; 512]);
            guest.kick(0);
        }
        guest.wait(0);
    }
    drop(guest);
    served.end();
}

/// A machine that is stopped and goes on: of what was answered before the queue rests, the driver is told.
#[test]
fn a_queue_rests_when_all_answers_were_told_of() {
    let dir = Dir::new();
    images(&dir);
    let served = Served::ours(&dir, &["-f", "raw", "a.raw"]);
    let mut guest = driver(&dir, &served);
    for round in 0..1500 {
        let before = guest.used(0);
        guest.want(0, before);
        for number in 0..8 {
            // Answered at once.
            guest.request(0, number, IN, number * 8, &[0; 512]);
        }
        guest.kick(0);
        assert!(guest.rest(0, before), "round {round}: nobody told of them");
        guest.wait(0);
        // What is left of that is of the past.
        guest.calm(0);
    }
    drop(guest);
    served.end();
}

#[test]
fn a_front_end_that_shares_more_memory_than_its_file_has_is_refused() {
    let dir = Dir::new();
    images(&dir);
    let served = Served::ours(&dir, &["-f", "qcow2", "b.qcow2"]);
    let file = fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(dir.path("short"))
        .expect("a file");
    file.set_len(4096).expect("a length");
    let ranges = [(GuestAddress(0), MEMORY, Some(FileOffset::new(file, 0)))];
    let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges_with_files(ranges).expect("memory");
    {
        let mut frontend = Frontend::connect(&served.socket, 2).expect("a connection");
        frontend.set_owner().expect("to own it");
        frontend.get_features().expect("features");
        frontend
            .set_features(VERSION_1 | PROTOCOL)
            .expect("to set features");
        let protocol = frontend.get_protocol_features().expect("features");
        frontend
            .set_protocol_features(protocol & VhostUserProtocolFeatures::REPLY_ACK)
            .expect("to set features");
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        let region = memory.iter().next().expect("a region");
        let region = VhostUserMemoryRegionInfo::from_guest_region(region).expect("a region");
        frontend.set_mem_table(&[region]).expect_err("too short");
    }
    // The next one is served.
    let mut guest = driver(&dir, &served);
    assert!(guest.read((20 << 20) / 512, 512) == [4; 512]);
}

#[test]
fn a_hostile_guest_harms_nobody() {
    let dir = Dir::new();
    images(&dir);
    let served = Served::ours(&dir, &["-f", "qcow2", "b.qcow2"]);
    let mut guest = driver(&dir, &served);
    assert_eq!(guest.offered & (RO | DISCARD | ZEROES), RO);
    for kind in [OUT, TRIM, ZERO] {
        assert_eq!(guest.ask(kind, 0, &segment(0, 1, 0).repeat(32)), FAILED);
    }
    assert_eq!(guest.ask(99, 0, &[0; 512]), UNKNOWN);
    assert_eq!(guest.ask(ID, 0, &[]), OK);

    let outside = MEMORY as u64;
    let chains: [&[(u64, u32, bool)]; 8] = [
        // No status, no head, a short head.
        &[(BUFFERS, 16, false)],
        &[(BUFFERS + 16, 1, true)],
        &[(BUFFERS, 15, false), (BUFFERS + 16, 1, true)],
        &[(BUFFERS, 0, false), (BUFFERS + 16, 0, true)],
        // Places that are no memory.
        &[(outside, 16, false), (BUFFERS + 16, 1, true)],
        &[
            (BUFFERS, 16, false),
            (outside - 1, 512, true),
            (BUFFERS + 16, 1, true),
        ],
        &[
            (BUFFERS, 16, false),
            (u64::MAX - 1, 512, true),
            (BUFFERS + 16, 1, true),
        ],
        &[
            (BUFFERS, 16, false),
            (BUFFERS + 512, u32::MAX, true),
            (BUFFERS + 16, 1, true),
        ],
    ];
    for chain in chains {
        guest.put(0, chain);
        guest.kick(0);
        guest.wait(0);
    }
    // Chains without an end, and tables within tables.
    let first = guest.queues[0].next;
    guest.descriptor(u64::from(first) * 16, (BUFFERS, 16, NEXT, first));
    guest.put_head(0, first);
    guest.kick(0);
    guest.wait(0);
    for (addr, len, flags) in [
        (BUFFERS, 17, 0),
        (outside, 4096, 0),
        (0, 16 * 128, 0),
        (BUFFERS, !15u32, 0),
        (0, 0, 0),
    ] {
        let place = u64::from(first) * 16;
        guest.descriptor(place, (addr, len, INDIRECT | flags, 0));
        guest.put_head(0, first);
        guest.kick(0);
        guest.wait(0);
    }
    // A table as it should be.
    let table = BUFFERS + 15 * BUFFER;
    guest.request(0, 0, IN, 5 << 11, &[0; 512]);
    guest.kick(0);
    guest.wait(0);
    guest.descriptor(table, (BUFFERS, 16, NEXT, 1));
    guest.descriptor(table + 16, (BUFFERS + 512, 512, NEXT | WRITE, 2));
    guest.descriptor(table + 32, (BUFFERS + 16, 1, WRITE, 0));
    guest.descriptor(u64::from(first) * 16, (table, 48, INDIRECT, 0));
    guest.put_head(0, first);
    guest.kick(0);
    guest.wait(0);
    assert_eq!((guest.status(0), guest.data(0, 512)), (OK, vec![2; 512]));

    // A descriptor that the table does not have, and an index that runs away.
    guest.put_head(0, 60_000);
    guest.kick(0);
    let ring = GuestAddress(AVAIL + 2);
    let far = guest.queues[0].avail.wrapping_add(30_000);
    guest
        .memory
        .write_slice(&far.to_le_bytes(), ring)
        .expect("the ring");
    guest.queues[0].kick.write(1).expect("a kick");
    // The other queue and the next machine are served as ever.
    guest.request(1, 3, IN, 5 << 11, &[0; 512]);
    guest.kick(1);
    guest.wait(1);
    assert_eq!((guest.status(3), guest.data(3, 512)), (OK, vec![2; 512]));
    drop(guest);
    let mut guest = driver(&dir, &served);
    assert_eq!(guest.read(5 << 11, 512), vec![2; 512]);
    served.end();
}

#[test]
fn command_lines_that_make_no_sense_are_refused() {
    let dir = Dir::new();
    images(&dir);
    let tool = crate::build::tool().to_string_lossy().into_owned();
    for (args, says) in [
        (&["--vhost-user", "v", "-k", "s"][..], "mutually exclusive"),
        (&["--vhost-user", "v", "--fuse", "m"], "mutually exclusive"),
        (
            &["--vhost-user", "v", "--queues", "0"],
            "it must be 1 to 64",
        ),
        (
            &["--vhost-user", "v", "--queues", "65"],
            "it must be 1 to 64",
        ),
        (&["--queues", "2"], "without --vhost-user"),
        (
            &["--vhost-user", "x/v"],
            "Failed to bind socket to x/v: No such file",
        ),
        (
            &["--vhost-user", "a.raw"],
            "Failed to bind socket to a.raw: Address already in use",
        ),
    ] {
        let all = [&["serve", "-f", "qcow2"][..], args, &["b.qcow2"]].concat();
        let refused = crate::common::run_in(dir.root(), &tool, &all);
        assert_eq!(refused.code, 1, "{args:?}: {refused:?}");
        assert!(refused.err.contains(says), "{args:?}: {refused:?}");
    }
}
