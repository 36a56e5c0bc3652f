//! The device as the protocol sees it: its features, and the queues that requests arrive in.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackend, VringMutex, VringT};
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{
    GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap,
};
use vmm_sys_util::epoll::EventSet;

use crate::serve::export::Export;
use crate::serve::outbox::{Charge, Load};
use crate::serve::shared::Shared;
use crate::sys::event::Event;

use super::layout::{self, SECTOR, feature};
use super::request::{Chain, Others, QuickReads, carry_out};

/// Number of entries of a queue.
const QUEUE: usize = 1024;
/// Maximum number of requests of one queue in progress.
const MOST_REQUESTS: usize = 256;
/// Maximum number of completions before the guest is notified of them all at once.
const MOST_UNTOLD: usize = 32;
/// Number of requests that a worker handles before it turns to other tasks.
const MOST_IN_A_ROW: usize = 64;
/// Maximum length of the configuration space.
const MOST_CONFIG: usize = 256;

/// A block device for one front end.
pub(super) struct Device {
    shared: Arc<Shared>,
    export: Arc<Export>,
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
    /// What is in progress, by queue.
    loads: Vec<Arc<Load>>,
    accepted: AtomicU64,
    ending: Arc<AtomicBool>,
    /// Ends the threads of the queues.
    end: Event,
}

impl Device {
    pub(super) fn new(
        shared: Arc<Shared>,
        export: Arc<Export>,
        queues: usize,
        memory: GuestMemoryAtomic<GuestMemoryMmap>,
    ) -> io::Result<Self> {
        Ok(Self {
            shared,
            export,
            memory,
            loads: (0..queues).map(|_| Arc::default()).collect(),
            accepted: AtomicU64::new(0),
            ending: Arc::default(),
            end: Event::new()?,
        })
    }

    /// What the queues' threads wait for besides their queues: its descriptor and its index.
    pub(super) fn end_event(&self) -> (i32, u64) {
        (self.end.as_fd().as_raw_fd(), self.loads.len() as u64 + 1)
    }

    /// Ends the threads of the queues.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::Release);
        self.end.signal();
    }

    /// Waits for the requests in progress.
    pub(super) fn rest(&self, deadline: Option<std::time::Instant>) {
        for load in &self.loads {
            load.wait_for_rest(deadline);
        }
    }

    /// Takes the requests waiting in a queue: reads that do not block are carried out immediately, the rest by the
    /// workers.
    fn take(&self, vring: &VringMutex, load: &Arc<Load>) -> io::Result<()> {
        // The queue counts as busy until the guest has been notified of every completion, however this returns.
        let _answering = load.answering();
        let mut answers = Answers { vring, untold: 0 };
        let mut quick = QuickReads::new(&self.shared, &self.export);
        let mut stood = None;
        loop {
            vring.disable_notification().map_err(io::Error::other)?;
            let before = position(vring);
            // Requests that are no longer taken stay in the queue, for the next server.
            while !is_ending(&self.ending, &self.shared) {
                // Charged before it is taken: whoever waits for the queue to become idle misses none.
                let charge = load.charge(0, MOST_REQUESTS, u64::MAX);
                let Some((chain, more)) = next(vring, &self.memory)? else {
                    break;
                };
                let others = match more && load.now().0 == 1 {
                    true => Others::Wait,
                    false => Others::AtWork,
                };
                if let Some(written) = quick.read(&chain, others) {
                    answers.give(chain.head_index(), written);
                    continue;
                }
                // It may wait for a worker that is waiting for memory.
                quick.release();
                self.hand_over(vring, chain, charge);
            }
            answers.tell();
            let more = vring.enable_notification().map_err(io::Error::other)?;
            if !more || is_ending(&self.ending, &self.shared) {
                return Ok(());
            }
            // They arrived after the last check without a notification: once enabled, the guest notifies only of the
            // next one. If they were there on the last pass and none could be taken, the queue is broken.
            let stands = position(vring);
            let still = (stands == before).then_some(stands);
            if still.is_some() && still == stood {
                return Err(io::ErrorKind::InvalidData.into());
            }
            stood = still;
        }
    }

    /// Leaves a request to a worker, along with some of those that follow: waking it takes as long as one request.
    fn hand_over(&self, vring: &VringMutex, chain: Chain, charge: Charge) {
        // Without the feature, the guest does not know that a completed write may be lost.
        let durable = self.accepted.load(Ordering::Relaxed) & feature::FLUSH == 0;
        let (shared, export, vring) = (self.shared.clone(), self.export.clone(), vring.clone());
        let (memory, ending) = (self.memory.clone(), self.ending.clone());
        self.shared.workers.run(Box::new(move || {
            let mut quick = QuickReads::new(&shared, &export);
            let mut chain = chain;
            for left in (0..MOST_IN_A_ROW).rev() {
                let quickly = quick.read(&chain, Others::AtWork);
                let written = quickly.unwrap_or_else(|| {
                    quick.release();
                    carry_out(&shared, &export, durable, &chain)
                });
                let _ = vring.get_mut().add_used(chain.head_index(), written);
                tell(&vring);
                // The guest may have disabled the queue in the meantime.
                let goes_on = left > 0 && vring.get_ref().is_enabled();
                if !goes_on || is_ending(&ending, &shared) {
                    break;
                }
                let Ok(Some((following, _))) = next(&vring, &memory) else {
                    break;
                };
                chain = following;
            }
            drop(charge);
        }));
    }
}

/// Whether no more requests are taken.
fn is_ending(ending: &AtomicBool, shared: &Shared) -> bool {
    ending.load(Ordering::Acquire) || shared.offer.is_ending()
}

/// The next request of a queue, and whether more are waiting. The thread that takes it has been charged already.
fn next(
    vring: &VringMutex,
    memory: &GuestMemoryAtomic<GuestMemoryMmap>,
) -> io::Result<Option<(Chain, bool)>> {
    let memory = memory.memory();
    let mut state = vring.get_mut();
    let queue = state.get_queue_mut();
    let chain = queue.iter(memory.clone()).map_err(io::Error::other)?.next();
    let last = queue.avail_idx(&*memory, Ordering::Acquire);
    let more = last.is_ok_and(|last| last.0 != queue.next_avail());
    Ok(chain.map(|chain| (chain, more)))
}

/// Index of the next request of a queue; the workers take requests as well.
fn position(vring: &VringMutex) -> u16 {
    vring.get_ref().get_queue().next_avail()
}

/// Completions of a queue: the guest is notified of several at once, and of the remaining ones on drop.
struct Answers<'a> {
    vring: &'a VringMutex,
    untold: usize,
}

impl Answers<'_> {
    fn give(&mut self, head: u16, written: u32) {
        // A guest without a used ring gets no completions.
        let _ = self.vring.get_mut().add_used(head, written);
        self.untold += 1;
        if self.untold == MOST_UNTOLD {
            self.tell();
        }
    }

    fn tell(&mut self) {
        if self.untold > 0 {
            tell(self.vring);
            self.untold = 0;
        }
    }
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        self.tell();
    }
}

/// Notifies the guest of completions, if it wants that.
fn tell(vring: &VringMutex) {
    let wanted = vring.get_mut().needs_notification();
    if wanted.unwrap_or(true) {
        let _ = vring.signal_used_queue();
    }
}

/// Whether all of a region is within its file: accessing memory past the end would kill the process. The length of a
/// device, such as persistent memory, cannot be seen.
fn is_there(region: &GuestRegionMmap) -> bool {
    let Some(place) = region.file_offset() else {
        return true;
    };
    let end = place.start().checked_add(region.len());
    place
        .file()
        .metadata()
        .is_ok_and(|found| !found.is_file() || end.is_some_and(|end| end <= found.len()))
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("export", &self.export)
            .finish_non_exhaustive()
    }
}

impl VhostUserBackend for Device {
    type Bitmap = ();
    type Vring = VringMutex;

    fn num_queues(&self) -> usize {
        self.loads.len()
    }

    fn max_queue_size(&self) -> usize {
        QUEUE
    }

    fn features(&self) -> u64 {
        let kind = match self.export.writable() {
            true => feature::DISCARD | feature::WRITE_ZEROES,
            false => feature::RO,
        };
        let queues = match self.loads.len() {
            1 => 0,
            _ => feature::MQ,
        };
        kind | queues
            | feature::SEG_MAX
            | feature::BLK_SIZE
            | feature::FLUSH
            | feature::TOPOLOGY
            | feature::INDIRECT_DESC
            | feature::EVENT_IDX
            | feature::PROTOCOL_FEATURES
            | feature::VERSION_1
    }

    fn acked_features(&self, features: u64) {
        self.accepted.store(features, Ordering::Relaxed);
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
    }

    fn set_event_idx(&self, _enabled: bool) {
        // The queues handle it by themselves.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let (offset, size) = (offset as usize, size as usize);
        let queues = u16::try_from(self.loads.len()).unwrap_or(u16::MAX);
        let sectors = self.export.len() / SECTOR;
        let mut config = layout::config(sectors, queues, self.export.writable());
        // Fields added by later versions are 0.
        config.resize(MOST_CONFIG, 0);
        let end = offset.saturating_add(size);
        config.get(offset..end).unwrap_or_default().to_vec()
    }

    fn update_memory(&self, _memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        // It is the memory that the device was created with, and already has the new regions.
        if self.memory.memory().iter().all(is_there) {
            return Ok(());
        }
        let memory = self.memory.lock().map_err(|_| io::ErrorKind::Other)?;
        memory.replace(GuestMemoryMmap::new());
        Err(io::Error::other(
            "the front end shares more memory than its file has",
        ))
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        (0..self.loads.len()).map(|queue| 1 << queue).collect()
    }

    fn stop_vring(&self, queue: u32) -> io::Result<()> {
        if let Some(load) = self.loads.get(queue as usize) {
            load.wait_for_rest(None);
        }
        Ok(())
    }

    fn handle_event(
        &self,
        event: u16,
        _events: EventSet,
        vrings: &[VringMutex],
        thread: usize,
    ) -> io::Result<()> {
        if usize::from(event) > self.loads.len() {
            return Err(io::Error::other("the device ends"));
        }
        let (Some(vring), Some(load)) = (vrings.first(), self.loads.get(thread)) else {
            return Ok(());
        };
        if vring.get_ref().is_enabled() {
            // A broken queue is not processed any further.
            let _ = self.take(vring, load);
        }
        Ok(())
    }
}
