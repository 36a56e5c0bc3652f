//! Guest data in danger from the side: operations of other threads in the middle of a change, and
//! changes that were interrupted. The other thread's call is made from inside a call of the storage.

use std::io::{IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use crate::common::Dir;
use bstr::BStr;
use platter::extent::StorageExtent;
use platter::job::Job;
use platter::object::Objects;
use platter::ops::amend::{AmendRequest, amend};
use platter::storage::memory::MemoryStorage;
use platter::storage::testing::{Calls, Fault, FaultyStorage};
use platter::storage::{
    CacheMode, Durability, HostFile, Identity, Limits, LockRequest, Preallocation, Storage,
    ZeroFlags,
};
use platter::{Error, Image, OpenOptions, OpenPolicy, Options, Result};

/// A call that a hook sees.
enum Call<'a> {
    SetLen,
    Write(&'a [u8], u64),
}

type Hook = Box<dyn Fn(&Image, &Call<'_>) -> Result<bool> + Send + Sync>;

/// A storage in memory that runs a hook before its calls, until the hook says that it is done.
struct Hooked {
    inner: MemoryStorage,
    image: OnceLock<Weak<Image>>,
    hook: Mutex<Option<Arc<Hook>>>,
    busy: AtomicBool,
}

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooked")
    }
}

impl Hooked {
    fn call(&self, call: &Call<'_>) -> Result<()> {
        let hook = self.hook.lock().unwrap().clone();
        let image = self.image.get().and_then(Weak::upgrade);
        let (Some(hook), Some(image)) = (hook, image) else {
            return Ok(());
        };
        if self.busy.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let done = hook(&image, call);
        if !matches!(done, Ok(false)) {
            *self.hook.lock().unwrap() = None;
        }
        self.busy.store(false, Ordering::SeqCst);
        done.map(|_| ())
    }
}

impl Storage for Hooked {
    fn name(&self) -> &BStr {
        self.inner.name()
    }
    fn driver(&self) -> &'static str {
        self.inner.driver()
    }
    fn identity(&self) -> Option<Identity> {
        self.inner.identity()
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.inner.read_at(buf, offset)
    }
    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        self.inner.read_vectored_at(bufs, offset)
    }
    fn try_read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<bool> {
        self.inner.try_read(bufs, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.call(&Call::Write(buf, offset))?;
        self.inner.write_at(buf, offset)
    }
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        self.inner.write_vectored_at(bufs, offset)
    }
    fn len(&self) -> Result<u64> {
        self.inner.len()
    }
    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        self.call(&Call::SetLen)?;
        self.inner.set_len(len, preallocation)
    }
    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.inner.write_zeroes(offset, len, flags)
    }
    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.discard(offset, len)
    }
    fn sync(&self, durability: Durability) -> Result<()> {
        self.inner.sync(durability)
    }
    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        self.inner.extent(offset, len)
    }
    fn limits(&self) -> Limits {
        self.inner.limits()
    }
    fn allocated_size(&self) -> Option<u64> {
        self.inner.allocated_size()
    }
    fn lock(&self, request: LockRequest) -> Result<()> {
        self.inner.lock(request)
    }
    fn host(&self) -> Option<&dyn HostFile> {
        None
    }
}

fn open(storage: Arc<dyn Storage>) -> Image {
    let options = OpenOptions {
        format: Some("qcow2".to_owned()),
        writable: true,
        cache: CacheMode::Unsafe,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    Image::open_storage(storage, &options).unwrap()
}

/// The image in memory, and its storage without a hook yet.
fn hooked(bytes: Vec<u8>) -> (Arc<Image>, Arc<Hooked>) {
    let storage = Arc::new(Hooked {
        inner: MemoryStorage::with_bytes("image", bytes),
        image: OnceLock::new(),
        hook: Mutex::new(None),
        busy: AtomicBool::new(false),
    });
    let image = Arc::new(open(storage.clone()));
    assert!(storage.image.set(Arc::downgrade(&image)).is_ok());
    (image, storage)
}

fn set_hook(
    storage: &Hooked,
    hook: impl Fn(&Image, &Call<'_>) -> Result<bool> + Send + Sync + 'static,
) {
    *storage.hook.lock().unwrap() = Some(Arc::new(Box::new(hook)));
}

fn make(dir: &Dir, args: &[&str], commands: &[&str]) -> Vec<u8> {
    let mut all = vec!["create", "-q", "-f", "qcow2"];
    all.extend(args);
    dir.qemu_img_ok(&all);
    if !commands.is_empty() {
        dir.qemu_io("qcow2", "image", commands);
    }
    std::fs::read(dir.path("image")).unwrap()
}

fn read(image: &Image, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    image.read_at(&mut bytes, offset).unwrap();
    bytes
}

fn change(image: &Image, options: &str) -> Result<()> {
    let options = Options::parse(options)?;
    let request = AmendRequest::new(image, &options, &Objects::default(), false)?;
    amend(image, &request, &mut Job::new())
}

fn check(dir: &Dir, storage: &MemoryStorage) {
    std::fs::write(dir.path("image"), storage.to_vec()).unwrap();
    let check = dir.qemu_img(&["check", "image"]);
    assert_eq!(check.code, 0, "{check:?}");
}

/// A crash after the smaller size was stored, before what lies behind it was given up.
#[test]
fn growing_shows_nothing_that_an_interrupted_shrink_left() {
    for options in [
        "cluster_size=64k",
        "cluster_size=4k",
        "cluster_size=16k,extended_l2=on",
        "cluster_size=4k,compat=0.10",
    ] {
        let dir = Dir::new();
        let writes = [
            "write -P 7 0 1M",
            "write -P 8 3M 64k",
            "write -c -P 9 9M 64k",
        ];
        let writes = if options.contains("0.10") {
            &writes[..2]
        } else {
            &writes
        };
        let mut bytes = make(&dir, &["-o", options, "image", "10M"], writes);
        bytes[24..32].copy_from_slice(&(1u64 << 20).to_be_bytes());
        let storage = Arc::new(MemoryStorage::with_bytes("image", bytes));
        let image = open(storage.clone());
        image.resize(10 << 20, Preallocation::Off).unwrap();
        assert!(read(&image, 0, 1 << 20).iter().all(|byte| *byte == 7));
        let grown = read(&image, 1 << 20, 9 << 20);
        assert!(grown.iter().all(|byte| *byte == 0), "{options}");
        image.close().unwrap();
        check(&dir, &storage);
    }
}

/// The file grows by another thread's write between the look at its length and its change.
#[test]
fn preallocation_does_not_cut_off_what_others_write() {
    let dir = Dir::new();
    let bytes = make(&dir, &["image", "1M"], &[]);
    let (image, storage) = hooked(bytes);
    let len = storage.inner.len().unwrap();
    set_hook(&storage, move |image, call| {
        if !matches!(call, Call::SetLen) {
            return Ok(false);
        }
        image.write_at(&[5; 65536], 0)?;
        Ok(true)
    });
    image.resize(2 << 20, Preallocation::Metadata).unwrap();
    assert!(storage.inner.len().unwrap() > len);
    if storage.hook.lock().unwrap().is_none() {
        assert!(read(&image, 0, 65536) == [5; 65536]);
    }
    image.format().close().unwrap();
    check(&dir, &storage.inner);
}

/// The last cluster is not all in the file; a write in place lengthens it.
#[test]
fn a_failed_amendment_does_not_cut_off_what_others_write() {
    let dir = Dir::new();
    let bytes = make(&dir, &["image", "1M"], &[]);
    let (image, storage) = hooked(bytes);
    image.write_at(&[1; 512], 0).unwrap();
    image.flush().unwrap();
    let len = storage.inner.len().unwrap();
    set_hook(&storage, move |image, call| {
        match call {
            // The new structures, which go behind all else.
            Call::Write(_, offset) if *offset >= len => {}
            _ => return Ok(false),
        }
        image.write_at(&[2; 512], 4096)?;
        Err(Error::os(libc::EIO))
    });
    change(&image, "refcount_bits=64").unwrap_err();
    assert!(read(&image, 4096, 512) == [2; 512]);
    image.format().close().unwrap();
    check(&dir, &storage.inner);
}

#[test]
fn an_amended_size_does_not_show_more_of_the_backing_file() {
    for options in ["size=1M", "size=1M,compat=0.10"] {
        let dir = Dir::new();
        dir.qemu_img_ok(&["create", "-q", "-f", "raw", "base", "1M"]);
        dir.qemu_io("raw", "base", &["write -P 0xbb 0 1M"]);
        let base = dir.str("base");
        let bytes = make(&dir, &["-b", &base, "-F", "raw", "image", "256k"], &[]);
        let storage = Arc::new(MemoryStorage::with_bytes("image", bytes));
        let image = open(storage.clone());
        change(&image, options).unwrap();
        assert!(read(&image, 0, 256 << 10).iter().all(|byte| *byte == 0xbb));
        let grown = read(&image, 256 << 10, 768 << 10);
        assert!(grown.iter().all(|byte| *byte == 0), "{options}");
        image.close().unwrap();
        check(&dir, &storage);
        // QEMU does the same.
        dir.qemu_img_ok(&[
            "create", "-q", "-f", "qcow2", "-b", &base, "-F", "raw", "image", "256k",
        ]);
        dir.qemu_img_ok(&["amend", "-o", options, "image"]);
        dir.qemu_io("qcow2", "image", &["read -P 0 256k 768k"]);
    }
}

/// A thread zeroes while version 2, which knows no zero clusters, comes.
#[test]
fn zeroes_hide_the_backing_file_while_the_version_changes() {
    let dir = Dir::new();
    dir.qemu_img_ok(&["create", "-q", "-f", "raw", "base", "1M"]);
    dir.qemu_io("raw", "base", &["write -P 0xbb 0 1M"]);
    let base = dir.str("base");
    let bytes = make(
        &dir,
        &["-b", &base, "-F", "raw", "image", "1M"],
        &["write -P 1 0 256k"],
    );
    let (image, storage) = hooked(bytes);
    let (send, receive) = std::sync::mpsc::channel();
    let send = Mutex::new(send);
    // What comes before the first write has been done.
    image.write_at(&[1; 512], 0).unwrap();
    let shared = Arc::downgrade(&image);
    set_hook(&storage, move |_, call| {
        match call {
            Call::Write(bytes, 0) if bytes.starts_with(b"QFI\xfb\0\0\0\x02") => {}
            _ => return Ok(false),
        }
        let image = shared.upgrade().unwrap();
        let other = std::thread::spawn(move || {
            image
                .write_zeroes(0, 128 << 10, ZeroFlags::MAY_UNMAP)
                .unwrap();
        });
        send.lock().unwrap().send(other).unwrap();
        // It waits for the amendment now; were it late, it would find version 2.
        std::thread::sleep(std::time::Duration::from_millis(200));
        Ok(true)
    });
    change(&image, "compat=0.10").unwrap();
    receive.recv().unwrap().join().unwrap();
    assert!(read(&image, 0, 128 << 10).iter().all(|byte| *byte == 0));
    assert!(
        read(&image, 128 << 10, 128 << 10)
            .iter()
            .all(|byte| *byte == 1)
    );
    image.format().close().unwrap();
    check(&dir, &storage.inner);
}

/// A thread writes past the end that a shrink is about to set.
#[test]
fn a_write_that_waited_for_a_shrink_is_refused() {
    let dir = Dir::new();
    let bytes = make(&dir, &["image", "1M"], &[]);
    let (image, storage) = hooked(bytes);
    let (send, receive) = std::sync::mpsc::channel();
    let send = Mutex::new(send);
    let shared = Arc::downgrade(&image);
    set_hook(&storage, move |_, call| {
        if !matches!(call, Call::Write(_, 24)) {
            return Ok(false);
        }
        let image = shared.upgrade().unwrap();
        let other = std::thread::spawn(move || image.write_at(&[9; 512], 900 << 10));
        send.lock().unwrap().send(other).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        Ok(true)
    });
    image.resize(512 << 10, Preallocation::Off).unwrap();
    receive.recv().unwrap().join().unwrap().unwrap_err();
    image.format().close().unwrap();
    check(&dir, &storage.inner);
}

/// The image grows, and the rest of its last cluster is written, before a thread that zeroes up to
/// the old end comes to that cluster.
#[test]
fn zeroes_up_to_the_old_end_spare_what_is_behind_it() {
    for discard in [false, true] {
        let dir = Dir::new();
        let bytes = make(&dir, &["image", "160k"], &["write -P 1 0 160k"]);
        let (image, storage) = hooked(bytes);
        set_hook(&storage, move |image, call| {
            if !matches!(call, Call::Write(_, _)) {
                return Ok(false);
            }
            image.resize(256 << 10, Preallocation::Off)?;
            image.write_at(&[2; 8192], 160 << 10)?;
            Ok(true)
        });
        if discard {
            // Its own first write: the one that keeps the L2 table of another place.
            image.write_at(&[1; 512], 0).unwrap();
            image
                .format()
                .writer()
                .unwrap()
                .discard(64 << 10, 96 << 10)
                .unwrap();
        } else {
            image
                .write_zeroes(1024, (160 << 10) - 1024, ZeroFlags::MAY_UNMAP)
                .unwrap();
            assert!(
                read(&image, 1024, (160 << 10) - 1024)
                    .iter()
                    .all(|byte| *byte == 0)
            );
        }
        assert!(
            read(&image, 160 << 10, 8192) == [2; 8192],
            "discard {discard}"
        );
        image.format().close().unwrap();
        check(&dir, &storage.inner);
    }
}

/// The header cannot be written: the data file is still as long as the image.
#[test]
fn a_failed_shrink_keeps_the_data_of_a_raw_data_file() {
    let dir = Dir::new();
    let options = format!("data_file={},data_file_raw=on", dir.str("data"));
    let bytes = make(&dir, &["-o", &options, "image", "1M"], &["write -P 6 0 1M"]);
    let memory = Arc::new(MemoryStorage::with_bytes("image", bytes));
    let faulty = Arc::new(FaultyStorage::new(memory));
    let image = open(faulty.clone());
    faulty.set_fault(Some(Fault {
        calls: Calls::WRITE,
        nth: 0,
        errno: libc::EIO,
        for_good: false,
        torn: false,
    }));
    image.resize(512 << 10, Preallocation::Off).unwrap_err();
    assert_eq!(image.len(), 1 << 20);
    assert!(read(&image, 0, 1 << 20).iter().all(|byte| *byte == 6));
    image.resize(512 << 10, Preallocation::Off).unwrap();
    image.close().unwrap();
    assert_eq!(
        std::fs::metadata(dir.path("data")).unwrap().len(),
        512 << 10
    );
}

/// A shrink comes while another thread makes the image larger: one is done after the other.
#[test]
fn two_resizes_take_turns() {
    const SMALL: u64 = (512 << 10) + 512;
    let dir = Dir::new();
    let bytes = make(&dir, &["image", "1049088"], &["write -P 0xaa 0 1049088"]);
    let (image, storage) = hooked(bytes);
    // Behind the end stands what the growth has to zero.
    storage
        .inner
        .write_at(&[0xaa; 65536 - 512], storage.inner.len().unwrap())
        .unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    let send = Mutex::new(send);
    let shared = Arc::downgrade(&image);
    set_hook(&storage, move |_, call| {
        if !matches!(call, Call::Write(_, _)) {
            return Ok(false);
        }
        let image = shared.upgrade().unwrap();
        let other = std::thread::spawn(move || image.resize(SMALL, Preallocation::Off));
        send.lock().unwrap().send(other).unwrap();
        // It would come this far by now if nothing held it.
        std::thread::sleep(std::time::Duration::from_millis(200));
        Ok(true)
    });
    image.resize(8 << 20, Preallocation::Off).unwrap();
    receive.recv().unwrap().join().unwrap().unwrap();
    assert_eq!(image.len(), SMALL, "the shrink came last");
    image.resize(8 << 20, Preallocation::Off).unwrap();
    assert!(
        read(&image, 0, SMALL as usize)
            .iter()
            .all(|byte| *byte == 0xaa)
    );
    let grown = read(&image, SMALL, (8 << 20) - SMALL as usize);
    assert!(grown.iter().all(|byte| *byte == 0));
    image.format().close().unwrap();
    check(&dir, &storage.inner);
}
