//! The driver of a block device over vhost-user, as in a virtual machine.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub const MEMORY: usize = 32 << 20;
pub const ENTRIES: u16 = 128;
/// The rings of a queue.
pub const RINGS: u64 = 64 << 10;
pub const AVAIL: u64 = 0x4000;
pub const USED: u64 = 0x8000;
/// Where the buffers of requests are.
pub const BUFFERS: u64 = 1 << 20;
pub const BUFFER: u64 = 256 << 10;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

pub const RO: u64 = 1 << 5;
pub const FLUSH: u64 = 1 << 9;
pub const DISCARD: u64 = 1 << 13;
pub const ZEROES: u64 = 1 << 14;
pub const INDIRECT_DESC: u64 = 1 << 28;
pub const EVENT_IDX: u64 = 1 << 29;
pub const VERSION_1: u64 = 1 << 32;
pub const PROTOCOL: u64 = 1 << 30;

pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const SYNC: u32 = 4;
pub const ID: u32 = 8;
pub const TRIM: u32 = 11;
pub const ZERO: u32 = 13;

pub const OK: u8 = 0;
pub const FAILED: u8 = 1;
pub const UNKNOWN: u8 = 2;

/// What the driver has said to a queue.
pub struct Queue {
    pub kick: EventFd,
    call: EventFd,
    calls: Epoll,
    pub avail: u16,
    /// Where the device was last told of requests.
    told: u16,
    /// The next descriptor.
    pub next: u16,
}

/// A machine with its driver.
pub struct Guest {
    pub frontend: Frontend,
    pub memory: GuestMemoryMmap,
    pub queues: Vec<Queue>,
    pub offered: u64,
}

impl Guest {
    /// Connects to the device at a socket; `file` becomes the memory that both have.
    pub fn new(file: &Path, socket: &Path) -> Self {
        // A device may still look at the memory of the machine before: cut short, it would end its process.
        let _ = fs::remove_file(file);
        let file = fs::File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(file)
            .expect("memory");
        file.set_len(MEMORY as u64).expect("memory");
        let ranges = [(GuestAddress(0), MEMORY, Some(FileOffset::new(file, 0)))];
        let memory = GuestMemoryMmap::from_ranges_with_files(ranges).expect("memory");

        let mut frontend = Frontend::connect(socket, 2).expect("a connection");
        frontend.set_owner().expect("to own it");
        let offered = frontend.get_features().expect("features");
        let ring = INDIRECT_DESC | EVENT_IDX | VERSION_1;
        let wanted = FLUSH | DISCARD | ZEROES | RO | PROTOCOL | ring;
        assert_eq!(offered & ring, ring);
        let protocol = frontend.get_protocol_features().expect("features");
        let ours = VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::MQ;
        frontend
            .set_protocol_features(protocol & ours)
            .expect("to set features");
        frontend
            .set_features(offered & wanted)
            .expect("to set features");
        let region = memory.iter().next().expect("a region");
        let region = VhostUserMemoryRegionInfo::from_guest_region(region).expect("a region");
        frontend.set_mem_table(&[region]).expect("to share memory");
        let mut guest = Self {
            frontend,
            memory,
            queues: Vec::new(),
            offered,
        };
        for index in 0..2 {
            guest.start(index, region.userspace_addr);
        }
        guest
    }

    /// Has the device rest, as where the machine is stopped, and goes on from there; whether it has told of all answers.
    pub fn rest(&mut self, index: usize, before: u16) -> bool {
        let base = self
            .frontend
            .get_vring_base(index)
            .expect("to stop the queue");
        let queue = &self.queues[index];
        let told = queue.call.read().is_ok();
        let answered = self.used(index) != before;
        let frontend = &mut self.frontend;
        frontend.set_vring_base(index, base as u16).expect("a base");
        frontend.set_vring_call(index, &queue.call).expect("a call");
        frontend.set_vring_kick(index, &queue.kick).expect("a kick");
        frontend
            .set_vring_enable(index, true)
            .expect("to enable it");
        // What came meanwhile is looked for.
        queue.kick.write(1).expect("a kick");
        told || !answered
    }

    pub fn start(&mut self, index: usize, base: u64) {
        let rings = index as u64 * RINGS;
        let (kick, call) = (
            EventFd::new(EFD_NONBLOCK).expect("an event"),
            EventFd::new(EFD_NONBLOCK).expect("an event"),
        );
        let calls = Epoll::new().expect("an epoll");
        let readable = EpollEvent::new(EventSet::IN, 0);
        calls
            .ctl(ControlOperation::Add, call.as_raw_fd(), readable)
            .expect("to watch an event");
        let data = VringConfigData {
            queue_max_size: ENTRIES,
            queue_size: ENTRIES,
            flags: 0,
            desc_table_addr: base + rings,
            avail_ring_addr: base + rings + AVAIL,
            used_ring_addr: base + rings + USED,
            log_addr: None,
        };
        let frontend = &mut self.frontend;
        frontend.set_vring_num(index, ENTRIES).expect("a size");
        frontend.set_vring_base(index, 0).expect("a base");
        frontend.set_vring_addr(index, &data).expect("addresses");
        frontend.set_vring_call(index, &call).expect("a call");
        frontend.set_vring_kick(index, &kick).expect("a kick");
        frontend
            .set_vring_enable(index, true)
            .expect("to enable it");
        self.queues.push(Queue {
            kick,
            call,
            calls,
            avail: 0,
            told: 0,
            next: 0,
        });
    }

    pub fn config(&mut self) -> Vec<u8> {
        let flags = VhostUserConfigFlags::WRITABLE;
        let config = self.frontend.get_config(0, 60, flags, &[0; 60]);
        config.expect("the configuration").1
    }

    pub fn descriptor(&self, at: u64, (addr, len, flags, next): (u64, u32, u16, u16)) {
        let mut bytes = addr.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.memory
            .write_slice(&bytes, GuestAddress(at))
            .expect("a descriptor");
    }

    /// Puts a chain into a queue, without a kick; each piece is an address, a length and whether the device
    /// writes it.
    pub fn put(&mut self, index: usize, pieces: &[(u64, u32, bool)]) {
        let head = self.queues[index].next;
        for (number, (addr, len, write)) in pieces.iter().enumerate() {
            let at = self.queues[index].next;
            let next = (at + 1) % ENTRIES;
            let last = number + 1 == pieces.len();
            let flags = if *write { WRITE } else { 0 } | if last { 0 } else { NEXT };
            let place = index as u64 * RINGS + u64::from(at) * 16;
            self.descriptor(place, (*addr, *len, flags, next));
            self.queues[index].next = next;
        }
        self.put_head(index, head);
    }

    pub fn put_head(&mut self, index: usize, head: u16) {
        let queue = &mut self.queues[index];
        let slot = u64::from(queue.avail % ENTRIES);
        let ring = index as u64 * RINGS + AVAIL;
        queue.avail = queue.avail.wrapping_add(1);
        let avail = queue.avail;
        self.set_ring(ring + 4 + slot * 2, head);
        self.set_ring(ring + 2, avail);
    }

    /// Tells the device of what was put into a queue, if it wants to know: a driver that tells it always would find no
    /// device that looks too seldom.
    pub fn kick(&mut self, index: usize) {
        fence(Ordering::SeqCst);
        let wanted = self.ring(index, USED + 4 + 8 * u64::from(ENTRIES));
        let queue = &mut self.queues[index];
        let new = queue.avail.wrapping_sub(queue.told);
        queue.told = queue.avail;
        if queue.avail.wrapping_sub(wanted).wrapping_sub(1) < new {
            queue.kick.write(1).expect("a kick");
        }
    }

    /// A word of the rings of a queue, read at once: the device may write it meanwhile.
    fn ring(&self, index: usize, place: u64) -> u16 {
        let at = GuestAddress(index as u64 * RINGS + place);
        let word = self.memory.load(at, Ordering::Acquire);
        u16::from_le(word.expect("the ring"))
    }

    /// Writes a word of the rings at once, behind all that was written before it and before all that is read after it.
    fn set_ring(&self, at: u64, word: u16) {
        fence(Ordering::SeqCst);
        let written = self
            .memory
            .store(word.to_le(), GuestAddress(at), Ordering::Release);
        written.expect("the ring");
        fence(Ordering::SeqCst);
    }

    /// How many requests of a queue were answered.
    pub fn used(&self, index: usize) -> u16 {
        self.ring(index, USED + 2)
    }

    /// Waits for the answers to all that was put into a queue.
    pub fn wait(&mut self, index: usize) {
        loop {
            // Read once: the last answer may come at any time, and none comes behind it.
            let answered = self.used(index);
            if answered == self.queues[index].avail {
                break;
            }
            self.wait_for_more(index, answered);
        }
        fence(Ordering::SeqCst);
    }

    /// The device is to tell of the answer behind so many.
    pub fn want(&self, index: usize, answered: u16) {
        let place = index as u64 * RINGS + AVAIL + 4 + 2 * u64::from(ENTRIES);
        self.set_ring(place, answered);
    }

    /// Waits until more than so many requests of a queue were answered.
    pub fn wait_for_more(&self, index: usize, answered: u16) {
        self.want(index, answered);
        let queue = &self.queues[index];
        let late = Instant::now() + Duration::from_secs(60);
        while self.used(index) == answered {
            assert!(Instant::now() < late, "waited in vain for the device");
            let left = late.saturating_duration_since(Instant::now());
            queue
                .calls
                .wait(left.as_millis() as i32, &mut [EpollEvent::default()])
                .expect("to wait");
            // Nothing to read is as good: the ring is what counts.
            let _ = queue.call.read();
        }
    }

    /// Forgets what the device has told.
    pub fn calm(&self, index: usize) {
        let _ = self.queues[index].call.read();
    }

    /// Writes the head of a request at `at`, and a status behind it that no device gives.
    pub fn prepare(&self, at: u64, kind: u32, sector: u64) {
        let mut head = kind.to_le_bytes().to_vec();
        head.extend([0; 4]);
        head.extend(sector.to_le_bytes());
        head.push(0xff);
        let written = self.memory.write_slice(&head, GuestAddress(at));
        written.expect("a buffer");
    }

    /// Prepares a request in buffer `number`, and puts it into a queue.
    pub fn request(&mut self, index: usize, number: u64, kind: u32, sector: u64, data: &[u8]) {
        let at = BUFFERS + number * BUFFER;
        self.prepare(at, kind, sector);
        let written = self.memory.write_slice(data, GuestAddress(at + 512));
        written.expect("a buffer");
        let reads = kind == IN || kind == ID;
        let len = data.len() as u32;
        let mut pieces = vec![(at, 16, false)];
        if len > 1024 {
            pieces.push((at + 512, 1000, reads));
            pieces.push((at + 1512, len - 1000, reads));
        } else if len > 0 {
            pieces.push((at + 512, len, reads));
        }
        pieces.push((at + 16, 1, true));
        self.put(index, &pieces);
    }

    pub fn status(&self, number: u64) -> u8 {
        let mut status = [0];
        let at = BUFFERS + number * BUFFER + 16;
        let read = self.memory.read_slice(&mut status, GuestAddress(at));
        read.expect("a status");
        status[0]
    }

    pub fn data(&self, number: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        let at = BUFFERS + number * BUFFER + 512;
        let read = self.memory.read_slice(&mut data, GuestAddress(at));
        read.expect("data");
        data
    }

    /// One request, and its status.
    pub fn ask(&mut self, kind: u32, sector: u64, data: &[u8]) -> u8 {
        self.request(0, 0, kind, sector, data);
        self.kick(0);
        self.wait(0);
        self.status(0)
    }

    pub fn read(&mut self, sector: u64, len: usize) -> Vec<u8> {
        assert_eq!(self.ask(IN, sector, &vec![0; len]), OK);
        self.data(0, len)
    }
}

pub fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}
