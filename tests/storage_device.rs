//! Block devices. Needs root and loop devices, so it runs on request: `cargo test -- --ignored`.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::Dir;
use platter::object::Objects;
use platter::ops::convert::{ConvertRequest, convert};
use platter::ops::create::{CreatePlan, CreateRequest};
use platter::secret::Secret;
use platter::storage::file::{self, FileCreate, FileOpen, FileStorage};
use platter::storage::{
    CacheMode, Durability, NewStorage, Preallocation, Storage, ZeroFlags, set_len_or_fit,
};
use platter::{Job, Location, OpenPolicy, Options};

/// A loop device over a file, detached when dropped.
struct Loop(PathBuf);

impl Loop {
    fn over(file: &Path, args: &[&str]) -> Self {
        let output = Command::new("losetup")
            .args(["-f", "--show"])
            .args(args)
            .arg(file)
            .output()
            .expect("losetup must be installed for this test");
        assert!(output.status.success(), "{output:?}");
        Self(String::from_utf8(output.stdout).unwrap().trim().into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

const LEN: u64 = 8 << 20;

fn open(path: &Path, cache: CacheMode) -> FileStorage {
    let options = FileOpen {
        writable: true,
        cache,
        ..FileOpen::default()
    };
    file::open(path, &options).unwrap()
}

#[test]
#[ignore = "needs root and a loop device"]
fn a_device_reads_back_what_was_written_in_every_mode() {
    let dir = Dir::new();
    for sector in ["512", "4096"] {
        let backing = dir.path("disk");
        std::fs::write(&backing, vec![0xee; LEN as usize]).unwrap();
        let device = Loop::over(&backing, &["--sector-size", sector]);
        let mut model = vec![0xee; LEN as usize];
        for (n, cache) in [
            CacheMode::None,
            CacheMode::Writeback,
            CacheMode::Writethrough,
            CacheMode::Directsync,
            CacheMode::Unsafe,
        ]
        .into_iter()
        .enumerate()
        {
            let storage = open(&device.0, cache);
            assert_eq!(storage.driver(), "host_device");
            assert_eq!(storage.len().unwrap(), LEN);
            let base = n << 20;
            for (at, len) in [(1, 5), (511, 2000), (8192, 4096), (100_001, 300_000)] {
                let bytes = vec![n as u8 + 1; len];
                storage.write_at(&bytes, (base + at) as u64).unwrap();
                model[base + at..base + at + len].copy_from_slice(&bytes);
            }
            for (at, len, flags) in [
                (600, 100, ZeroFlags::empty()),
                (110_000, 50_000, ZeroFlags::MAY_UNMAP),
                (200_000, 12_345, ZeroFlags::empty()),
                (262_144, 65_536, ZeroFlags::empty()),
            ] {
                let start = base + at;
                storage
                    .write_zeroes(start as u64, len as u64, flags)
                    .unwrap();
                model[start..start + len].fill(0);
            }
            storage.sync(Durability::Synced).unwrap();
            let mut got = vec![0; LEN as usize + 100];
            storage.read_at(&mut got, 0).unwrap();
            assert!(got[..LEN as usize] == model, "{cache:?} {sector}");
            assert_eq!(got[LEN as usize..], [0; 100]);
            assert!(storage.write_at(&[1; 10], LEN - 5).is_err());
            let run = storage.extent(0, u64::MAX / 2).unwrap();
            assert_eq!((run.len, run.zero), (LEN, false));
        }
    }
}

/// Creates an image and, apart, converts a raw file of `size` bytes to one. The errors.
fn made_on(
    device: &Path,
    dir: &Dir,
    format: &str,
    options: &str,
    size: u64,
) -> [Option<String>; 2] {
    let mut objects = Objects::default();
    objects.add_secret("s", Secret::new("password")).unwrap();
    let options = match options {
        "" => Options::new(),
        text => Options::parse(text).unwrap(),
    };
    let request = CreateRequest {
        location: Location::from_path(device),
        format: format.to_owned(),
        size: Some(size),
        options: options.clone(),
        backing_file: None,
        backing_format: None,
        backing_unsafe: false,
        exclusive: false,
        objects: objects.clone(),
        policy: OpenPolicy::permissive(),
        storages: None,
    };
    let mut job = Job::default();
    let created = CreatePlan::new(request, &mut job).and_then(|plan| plan.run(&mut job));
    let source = dir.path("source");
    std::fs::File::create(&source)
        .unwrap()
        .set_len(size)
        .unwrap();
    let mut request = ConvertRequest::new(Location::from_path(source), Location::from_path(device));
    request.source.options.format = Some("raw".to_owned());
    request.source.options.policy = OpenPolicy::permissive();
    request.target.format = Some(format.to_owned());
    request.target.options = options;
    request.target.objects = objects;
    request.target.policy = OpenPolicy::permissive();
    let converted = convert(&request, &mut Job::default()).map(drop);
    [created, converted].map(|done| done.err().map(|error| error.to_string()))
}

#[test]
#[ignore = "needs root and a loop device"]
fn a_device_on_which_an_image_is_refused_is_untouched() {
    let dir = Dir::new();
    let backing = dir.path("disk");
    std::fs::write(&backing, vec![0xee; LEN as usize]).unwrap();
    let device = Loop::over(&backing, &[]);
    for (format, options, size, reason) in [
        ("raw", "", LEN + 512, "Cannot grow device files"),
        (
            "luks",
            "key-secret=s,iter-time=1",
            LEN,
            "Cannot grow device files",
        ),
        (
            "luks",
            "key-secret=none,iter-time=1",
            512,
            "No secret with id 'none'",
        ),
        (
            "qcow2",
            "preallocation=metadata",
            LEN,
            "No space left on device",
        ),
        (
            "qcow2",
            "data_file=no/such/file",
            512,
            "No such file or directory",
        ),
        (
            "qcow2",
            "encrypt.format=luks,encrypt.key-secret=none",
            512,
            "No secret with id 'none'",
        ),
    ] {
        for error in made_on(&device.0, &dir, format, options, size) {
            let error = error.expect("a refusal");
            assert!(error.contains(reason), "{format} {options}: {error}");
        }
        let mut bytes = vec![0; LEN as usize];
        open(&device.0, CacheMode::Writeback)
            .read_at(&mut bytes, 0)
            .unwrap();
        assert!(bytes == vec![0xee; LEN as usize], "{format} {options}");
    }
    // Neither is a data file that is too small, nor the image that was to have it.
    let image = dir.path("image");
    std::fs::write(&image, "what was here").unwrap();
    let options = format!("data_file={}", device.0.display());
    for error in made_on(&image, &dir, "qcow2", &options, LEN + 65536) {
        assert!(
            error
                .expect("a refusal")
                .contains("Cannot grow device files")
        );
    }
    assert_eq!(std::fs::read(&image).unwrap(), b"what was here");
    let mut first = [0; 512];
    open(&device.0, CacheMode::Writeback)
        .read_at(&mut first, 0)
        .unwrap();
    assert_eq!(first, [0xee; 512]);
}

#[test]
#[ignore = "needs root and a loop device"]
fn images_fit_on_devices_that_are_larger() {
    let dir = Dir::new();
    let backing = dir.path("disk");
    for (format, options) in [
        ("raw", ""),
        ("qcow2", ""),
        ("qcow2", "preallocation=metadata"),
        ("luks", "key-secret=s,iter-time=1"),
    ] {
        std::fs::write(&backing, vec![0xee; LEN as usize]).unwrap();
        let device = Loop::over(&backing, &[]);
        let done = made_on(&device.0, &dir, format, options, 1 << 20);
        assert_eq!(done, [None, None], "{format} {options}");
    }
}

#[test]
#[ignore = "needs root and a loop device"]
fn a_device_keeps_its_length() {
    let dir = Dir::new();
    let backing = dir.path("disk");
    std::fs::write(&backing, vec![0xee; LEN as usize]).unwrap();
    let device = Loop::over(&backing, &[]);
    let made = file::claim_device(&device.0, &FileCreate::default()).unwrap();
    let file = made.storage();
    assert!(!made.is_made() && file.limits().fixed_len);
    made.check_room(LEN).unwrap();
    let error = made.check_room(LEN + 1).unwrap_err();
    assert_eq!(error.to_string(), "Cannot grow device files");
    let mut first = [9; 1024];
    file.read_at(&mut first, 0).unwrap();
    assert_eq!(first, [0xee; 1024]);
    made.empty().unwrap();
    file.read_at(&mut first, 0).unwrap();
    assert_eq!(first[..512], [0; 512]);
    assert_eq!(first[512..], [0xee; 512]);
    let text = |result: platter::Result<()>| result.unwrap_err().to_string();
    set_len_or_fit(&**file, 1 << 20, Preallocation::Off).unwrap();
    assert_eq!(
        text(set_len_or_fit(&**file, LEN + 512, Preallocation::Off)),
        "Cannot grow device files"
    );
    assert_eq!(
        text(set_len_or_fit(&**file, 1 << 20, Preallocation::Falloc)),
        "Unsupported preallocation mode 'falloc'"
    );
    assert_eq!(
        text(file.set_len(1 << 20, Preallocation::Off)),
        "Cannot resize device files"
    );
    file.discard(4096, 1 << 20).unwrap();
    drop(made);
    drop(device);

    let device = Loop::over(&backing, &["-r"]);
    let options = FileOpen {
        writable: true,
        ..FileOpen::default()
    };
    assert_eq!(
        text(file::open(&device.0, &options).map(drop)),
        "The device is not writable: Permission denied"
    );
    assert!(file::open(&device.0, &FileOpen::default()).is_ok());
}

#[test]
#[ignore = "needs root and a loop device"]
fn a_loop_device_is_the_file_that_it_shows() {
    let dir = Dir::new();
    let file = dir.path("disk");
    std::fs::write(&file, vec![0x5a; LEN as usize]).unwrap();
    std::fs::write(dir.path("other"), vec![0x5a; LEN as usize]).unwrap();
    let [first, second] = [0; 2].map(|_| Loop::over(&file, &[]));
    let other = Loop::over(&dir.path("other"), &[]);
    let part = Loop::over(&file, &["--offset", "4096"]);
    let identity = |path: &Path| {
        let read = FileOpen::default();
        file::open(path, &read).unwrap().identity().unwrap()
    };
    assert_eq!(identity(&first.0), identity(&file));
    assert_eq!(identity(&first.0), identity(&second.0));
    for different in [&other, &part] {
        assert_ne!(identity(&different.0), identity(&file));
    }
    // A file of its own chain is no target, whatever leads to it.
    let before = std::fs::read(&file).unwrap();
    for (source, target) in [(&file, &first.0), (&first.0, &file), (&first.0, &second.0)] {
        let location = |path: &Path| Location::from_path(path);
        let mut request = ConvertRequest::new(location(source), location(target));
        request.source.options.format = Some("raw".to_owned());
        request.source.options.policy = OpenPolicy::permissive();
        request.target.policy = OpenPolicy::permissive();
        let refused = convert(&request, &mut Job::new()).unwrap_err().to_string();
        assert!(
            refused.ends_with("Failed to get \"write\" lock"),
            "{refused}"
        );
        assert!(std::fs::read(&file).unwrap() == before);
    }
}

#[test]
#[ignore = "needs root and a loop device"]
fn what_a_device_had_before_it_became_shorter_does_not_read_as_zeroes() {
    let dir = Dir::new();
    let backing = dir.path("disk");
    for cache in [CacheMode::Writeback, CacheMode::None] {
        std::fs::write(&backing, vec![0xee; LEN as usize]).unwrap();
        let device = Loop::over(&backing, &[]);
        let storage = open(&device.0, cache);
        let mut bytes = [1; 1024];
        // What was never there does.
        storage.read_at(&mut bytes, LEN - 512).unwrap();
        assert_eq!(
            (bytes[..512].to_vec(), bytes[512..].to_vec()),
            (vec![0xee; 512], vec![0; 512])
        );
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(&backing)
            .unwrap();
        file.set_len(LEN / 2).unwrap();
        let output = Command::new("losetup")
            .arg("-c")
            .arg(&device.0)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let mut halves = [vec![1; 512], vec![1; 512]];
        for _ in 0..2 {
            let error = storage
                .read_at(&mut bytes, LEN / 2 - 512)
                .unwrap_err()
                .to_string();
            assert!(
                error.ends_with("has become shorter than it was: 8388608 bytes"),
                "{error}"
            );
            let mut bufs = halves.each_mut().map(|half| std::io::IoSliceMut::new(half));
            storage.read_vectored_at(&mut bufs, LEN - 1024).unwrap_err();
            assert!(!storage.try_read(&mut bufs, LEN - 1024).unwrap_or(false));
            // Its length is that of now.
            assert_eq!(storage.len().unwrap(), LEN / 2);
        }
        storage.read_at(&mut bytes, LEN / 2 - 1024).unwrap();
        assert_eq!(
            storage.write_at(&[1; 512], LEN / 2).unwrap_err().os_errno(),
            Some(libc::ENOSPC)
        );
    }
}

/// What [`the_kernel_zeroes_and_discards_where_qemus_tools_have_it_do_that`] watches.
#[test]
#[ignore = "a part of another test"]
fn zeroes_and_discards() {
    let Some(device) = std::env::var_os("PLATTER_ZEROED") else {
        return;
    };
    for cache in [CacheMode::None, CacheMode::Writeback] {
        let storage = open(Path::new(&device), cache);
        storage.write_zeroes(0, 65536, ZeroFlags::empty()).unwrap();
        storage
            .write_zeroes(65536, 65536, ZeroFlags::MAY_UNMAP)
            .unwrap();
        storage
            .write_zeroes(131_272, 10_000, ZeroFlags::empty())
            .unwrap();
        let flags = ZeroFlags::MAY_UNMAP | ZeroFlags::NO_FALLBACK;
        storage.write_zeroes(196_608, 65536, flags).unwrap();
        storage
            .write_zeroes(0, 512, ZeroFlags::NO_FALLBACK)
            .unwrap_err();
        storage.discard(262_144, 65536).unwrap();
        storage.discard(327_780, 10_000).unwrap();
    }
}

#[test]
#[ignore = "needs root, a loop device and strace"]
fn the_kernel_zeroes_and_discards_where_qemus_tools_have_it_do_that() {
    let dir = Dir::new();
    let backing = dir.path("disk");
    std::fs::write(&backing, vec![0xee; LEN as usize]).unwrap();
    let device = Loop::over(&backing, &[]);
    let watched = |program: &Path, args: &[&str]| {
        let output = Command::new("strace")
            .args(["-f", "-qq", "-o"])
            .arg(dir.path("calls"))
            .args(["-e", "trace=ioctl,fallocate"])
            .arg(program)
            .args(args)
            .env("PLATTER_ZEROED", &device.0)
            .output()
            .expect("strace must be installed for this test");
        assert!(output.status.success(), "{output:?}");
        let calls = std::fs::read_to_string(dir.path("calls")).unwrap();
        let lines = calls.lines().filter_map(|line| {
            let known = ["BLKZEROOUT", "BLKDISCARD", "FALLOC_FL"];
            known.iter().find(|name| line.contains(**name))?;
            // Without the number of the thread and of the descriptor.
            line.split_once(", ").map(|(_, rest)| rest.to_owned())
        });
        lines.collect::<Vec<String>>()
    };
    let ours = watched(
        &std::env::current_exe().unwrap(),
        &["--ignored", "--exact", "zeroes_and_discards"],
    );
    let device = device.0.to_str().unwrap();
    let theirs = ["none", "writeback"].map(|cache| {
        let commands = [
            "write -z 0 64k",
            "write -z -u 64k 64k",
            "write -z -u -n 192k 64k",
            "discard 256k 64k",
        ];
        let mut args = vec!["-f", "raw", "-t", cache];
        commands
            .iter()
            .for_each(|command| args.extend(["-c", command]));
        args.push(device);
        watched(Path::new("qemu-io"), &args)
    });
    for call in theirs.concat() {
        assert!(ours.contains(&call), "{call}\n{ours:#?}");
    }
    // Whole sectors of a range that is not whole, and in a cache what QEMU's tools write as data.
    let zeroed = "BLKZEROOUT, [131584, 9216]) = 0";
    for call in [
        zeroed,
        "FALLOC_FL_KEEP_SIZE|FALLOC_FL_ZERO_RANGE, 0, 65536) = 0",
        "BLKDISCARD, [328192, 9216]) = 0",
    ] {
        assert!(ours.iter().any(|ours| ours == call), "{call}\n{ours:#?}");
    }
    let bytes = std::fs::read(&backing).unwrap();
    assert_eq!(bytes[131_272..141_272], [0; 10_000]);
    for (at, byte) in [(131_271, 0xee), (141_272, 0xee), (327_779, 0xee)] {
        assert_eq!(bytes[at], byte, "{at}");
    }
}

#[test]
#[ignore = "needs root and a loop device"]
fn a_drive_of_discs_is_no_other_device() {
    let dir = Dir::new();
    let backing = dir.path("disk");
    std::fs::write(&backing, vec![0xee; LEN as usize]).unwrap();
    let device = Loop::over(&backing, &[]);
    let by = |path: &Path, driver| {
        let options = FileOpen {
            driver: Some(driver),
            ..FileOpen::default()
        };
        file::open(path, &options).map(|storage| storage.driver())
    };
    assert_eq!(by(&device.0, "host_device").unwrap(), "host_device");
    for path in [&device.0, Path::new("/dev/null")] {
        let error = by(path, "host_cdrom").unwrap_err().to_string();
        let wanted = format!(
            "'host_cdrom' driver requires '{}' to be a drive of discs",
            path.display()
        );
        assert_eq!(error, wanted);
    }
    let error = by(&backing, "host_cdrom").unwrap_err().to_string();
    assert!(
        error.ends_with("to be either a character or block device"),
        "{error}"
    );
}

/// A file system over a file, unmounted when dropped.
struct Mount {
    at: PathBuf,
    _device: Loop,
}

impl Mount {
    /// An XFS whose files can share blocks.
    fn xfs(dir: &Dir) -> Self {
        let backing = dir.path("disk");
        let file = std::fs::File::create(&backing).unwrap();
        file.set_len(400 << 20).unwrap();
        let device = Loop::over(&backing, &[]);
        let at = dir.path("mount");
        std::fs::create_dir(&at).unwrap();
        let made = Command::new("mkfs.xfs")
            .args(["-q", "-m", "reflink=1"])
            .arg(&device.0)
            .status()
            .expect("mkfs.xfs must be installed for this test");
        assert!(made.success());
        let mounted = Command::new("mount")
            .args(["-t", "xfs"])
            .args([&device.0, &at])
            .status()
            .unwrap();
        assert!(mounted.success());
        Self {
            at,
            _device: device,
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).status();
    }
}

/// How many bytes of a file are in blocks that it shares with others.
fn shared(path: &Path) -> u64 {
    let output = Command::new("xfs_io")
        .args(["-r", "-c", "fsync", "-c", "fiemap -v"])
        .arg(path)
        .output()
        .expect("xfs_io must be installed for this test");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    // Each extent has its length in sectors before its flags.
    let extents = text.lines().filter_map(|line| {
        let (rest, flags) = line.trim_end().rsplit_once("0x")?;
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let sectors: u64 = rest.split_whitespace().last()?.parse().ok()?;
        const SHARED: u32 = 0x2000;
        (flags & SHARED != 0).then_some(sectors * 512)
    });
    extents.sum()
}

#[test]
#[ignore = "needs root, a loop device and XFS"]
fn flat_images_share_the_blocks_of_a_raw_disk_where_the_file_system_can() {
    const DISK: u64 = 32 << 20;
    let dir = Dir::new();
    let mount = Mount::xfs(&dir);
    let source = mount.at.join("source");
    let bytes: Vec<u8> = (0..DISK).map(|at| (at / 512 % 251) as u8 + 1).collect();
    std::fs::write(&source, &bytes).unwrap();
    for (format, options, target, data) in [
        ("raw", "", "copy.raw", "copy.raw"),
        (
            "vpc",
            "subformat=fixed,force_size=on",
            "disk.vhd",
            "disk.vhd",
        ),
        (
            "vmdk",
            "subformat=monolithicFlat",
            "flat.vmdk",
            "flat-flat.vmdk",
        ),
        (
            "vmdk",
            "subformat=twoGbMaxExtentFlat",
            "part.vmdk",
            "part-f001.vmdk",
        ),
    ] {
        let [path, data] = [target, data].map(|name| mount.at.join(name));
        let mut request =
            ConvertRequest::new(Location::from_path(&source), Location::from_path(&path));
        request.source.options.format = Some("raw".to_owned());
        request.source.options.policy = OpenPolicy::permissive();
        request.target.format = Some(format.to_owned());
        if !options.is_empty() {
            request.target.options = Options::parse(options).unwrap();
        }
        request.target.policy = OpenPolicy::permissive();
        convert(&request, &mut Job::default()).unwrap();
        let shared = shared(&data);
        // What the file is recognized by at its ends may have been written.
        assert!(
            shared >= DISK - (64 << 10),
            "{target}: {shared} bytes are shared"
        );
        let written = std::fs::read(&data).unwrap();
        assert!(written[..DISK as usize] == bytes, "{target}");
    }
}
