//! LUKS images cross between Platter and QEMU's tools in both directions.

use crate::common::Dir;
use crate::kit::sample::SAMPLES;
use crate::kit::shelf;
use crate::random::Random;
use platter::image::{ImageStorage, OpenOptions};
use platter::object::Objects;
use platter::ops::convert::{ConvertRequest, convert};
use platter::secret::Secret;
use platter::storage::{Preallocation, Storage};
use platter::{ErrorKind, Image, Job, Location, OpenPolicy, Options};

const PASS: &str = "correct horse";

/// Every cipher option that the installed `qemu-img` takes, in turn.
const VARIANTS: &[&str] = &[
    "",
    "cipher-alg=aes-128",
    "cipher-alg=aes-192",
    "cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256",
    "cipher-alg=serpent-256",
    "cipher-alg=serpent-128,cipher-mode=cbc,ivgen-alg=plain",
    "cipher-alg=twofish-256,hash-alg=sha512",
    "cipher-alg=twofish-128,cipher-mode=ctr",
    "cipher-alg=cast5-128,cipher-mode=cbc",
    "cipher-alg=cast5-128,cipher-mode=ctr",
    "cipher-mode=ecb,hash-alg=sha1",
    "hash-alg=ripemd160",
    "hash-alg=sha384",
    "hash-alg=sha224",
    "hash-alg=md5",
];

fn objects(pass: &str) -> Objects {
    let mut objects = Objects::new();
    objects.add_secret("s", Secret::new(pass)).unwrap();
    objects
}

fn image_opts(dir: &Dir, name: &str) -> Location {
    let path = dir.str(name);
    Location::from_image_opts(&format!("driver=luks,key-secret=s,file.filename={path}")).unwrap()
}

fn open(dir: &Dir, name: &str, pass: &str) -> platter::Result<Image> {
    let options = OpenOptions {
        objects: objects(pass),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    Image::open(&image_opts(dir, name), &options)
}

/// 3 MiB with text, zeroes and noise.
fn contents() -> Vec<u8> {
    (0..3u32 << 20)
        .map(|i| match i >> 16 {
            n if n % 3 == 1 => 0,
            n => (i.wrapping_mul(2_654_435_761) >> (n % 24)) as u8,
        })
        .collect()
}

#[test]
fn what_qemu_encrypts_platter_reads() {
    let dir = Dir::new();
    std::fs::write(dir.path("plain.raw"), contents()).unwrap();
    // Each takes qemu-img seconds to measure the machine; the other direction has them all.
    for variant in VARIANTS.iter().step_by(3) {
        let options = format!("key-secret=s,iter-time=10,{variant}");
        let object = format!("secret,id=s,data={PASS}");
        dir.qemu_img_ok(&[
            "convert",
            "--object",
            &object,
            "-f",
            "raw",
            "-O",
            "luks",
            "-o",
            options.trim_end_matches(','),
            "plain.raw",
            "q.luks",
        ]);
        let image = open(&dir, "q.luks", PASS).unwrap();
        let mut bytes = vec![0; image.len() as usize];
        image.read_at(&mut bytes, 0).unwrap();
        assert!(bytes == contents(), "{variant}");
        // Unaligned reads decrypt the sectors around them.
        let mut part = vec![0; 1000];
        image.read_at(&mut part, 12_345).unwrap();
        assert!(part == contents()[12_345..13_345], "{variant}");
    }
    let wrong = open(&dir, "q.luks", "wrong").unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::WrongSecret);
}

#[test]
fn what_platter_encrypts_qemu_reads() {
    let dir = Dir::new();
    std::fs::write(dir.path("plain.raw"), contents()).unwrap();
    for variant in VARIANTS {
        let mut request = ConvertRequest::new(
            Location::from_path(dir.path("plain.raw")),
            Location::from_path(dir.path("p.luks")),
        );
        request.source.options.format = Some("raw".into());
        request.target.format = Some("luks".into());
        let options = format!("key-secret=s,iter-time=10,{variant}");
        request.target.options = Options::parse(options.trim_end_matches(',')).unwrap();
        request.target.objects = objects(PASS);
        convert(&request, &mut Job::new()).unwrap_or_else(|e| panic!("{variant}: {e:?}"));
        let object = format!("secret,id=s,data={PASS}");
        dir.qemu_img_ok(&[
            "compare",
            "--object",
            &object,
            "--image-opts",
            "driver=luks,key-secret=s,file.filename=p.luks",
            "driver=raw,file.filename=plain.raw",
        ]);
    }
}

#[test]
fn writes_of_any_alignment_keep_their_neighbours() {
    let dir = Dir::new();
    let object = format!("secret,id=s,data={PASS}");
    dir.qemu_img_ok(&[
        "create",
        "--object",
        &object,
        "-f",
        "luks",
        "-o",
        "key-secret=s,iter-time=10",
        "w.luks",
        "3M",
    ]);
    let options = OpenOptions {
        writable: true,
        objects: objects(PASS),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let image = Image::open(&image_opts(&dir, "w.luks"), &options).unwrap();
    let mut model = contents();
    image.write_at(&model, 0).unwrap();
    for (offset, len) in [
        (0, 1),
        (511, 2),
        (700, 100),
        (1024, 512),
        (2_000_000, 70_001),
    ] {
        let data: Vec<u8> = (0..len).map(|i| (i * 3 + offset) as u8).collect();
        image.write_at(&data, offset as u64).unwrap();
        model[offset..offset + len].copy_from_slice(&data);
    }
    image
        .write_zeroes(100_000, 5_000, platter::storage::ZeroFlags::empty())
        .unwrap();
    model[100_000..105_000].fill(0);
    image.close().unwrap();
    std::fs::write(dir.path("model.raw"), &model).unwrap();
    dir.qemu_img_ok(&[
        "compare",
        "--object",
        &object,
        "--image-opts",
        "driver=luks,key-secret=s,file.filename=w.luks",
        "driver=raw,file.filename=model.raw",
    ]);
}

/// The header area in an open file.
struct Area(std::fs::File);

impl platter::crypto::luks::HeaderIo for Area {
    fn read(&self, buf: &mut [u8], offset: u64) -> platter::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, buf, offset).unwrap();
        Ok(())
    }

    fn write(&self, buf: &[u8], offset: u64) -> platter::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, buf, offset).unwrap();
        Ok(())
    }

    fn sync(&self) -> platter::Result<()> {
        Ok(())
    }
}

#[test]
fn a_key_slot_whose_passphrase_is_no_text_opens_and_can_be_erased() {
    use platter::crypto::luks::{AmendState, KeyslotChange, Volume};
    const BINARY: &[u8] = &[0xff, 0, 0xfe];
    let dir = Dir::new();
    let object = format!("secret,id=s,data={PASS}");
    let create = "create -q -f luks -o key-secret=s,iter-time=10 l.luks 1M --object";
    let create: Vec<&str> = create.split(' ').chain([object.as_str()]).collect();
    dir.qemu_img_ok(&create);
    // Made by a tool that takes key files.
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(dir.path("l.luks"))
        .unwrap();
    let change = KeyslotChange {
        state: AmendState::Active,
        keyslot: None,
        old_secret: None,
        new_secret: Some(BINARY),
        iter_time: Some(std::time::Duration::ZERO),
        force: false,
    };
    let idle = platter::job::JobControl::default();
    Volume::amend(&Area(file), &change, PASS.as_bytes(), &idle).unwrap();

    let mut both = objects(PASS);
    both.add_secret("b", Secret::new(BINARY)).unwrap();
    let opened_by = |id: &str| {
        let path = dir.str("l.luks");
        let options = OpenOptions {
            objects: both.clone(),
            writable: true,
            policy: OpenPolicy::permissive(),
            ..OpenOptions::default()
        };
        let location = format!("driver=luks,key-secret={id},file.filename={path}");
        Image::open(&Location::from_image_opts(&location).unwrap(), &options)
    };
    opened_by("b").unwrap().close().unwrap();
    let image = opened_by("s").unwrap();
    let erase = Options::parse("state=inactive,old-secret=b").unwrap();
    let erase = platter::ops::amend::AmendRequest::new(&image, &erase, &both, false).unwrap();
    platter::ops::amend::amend(&image, &erase, &mut Job::new()).unwrap();
    image.close().unwrap();
    assert_eq!(opened_by("b").unwrap_err().kind(), ErrorKind::WrongSecret);
}

/// Threads that write behind the end of a container, each in stretches of its own: it grows under them, and what nobody
/// wrote is zero, not noise.
#[test]
fn a_container_that_serves_as_a_file_grows_by_zeroes() {
    const THREADS: usize = 4;
    const PIECE: usize = 10_000;
    const PIECES: usize = 200;
    let sample = SAMPLES
        .iter()
        .find(|sample| sample.name == "luks")
        .expect("a sample");
    let files = shelf::created(sample);
    let image = shelf::open(sample, &files, shelf::Access::Write).expect("a container");
    let old = image.len();
    let storage = ImageStorage::new(image);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let storage = &storage;
            scope.spawn(move || {
                let mut random = Random(thread as u64 + 1);
                for _ in 0..PIECES / 2 {
                    let piece = random.below(PIECES / THREADS) * THREADS + thread;
                    // Half of it.
                    let at = old + (piece * PIECE) as u64;
                    let bytes = [thread as u8 + 1; PIECE / 2];
                    storage.write_at(&bytes, at).expect("a write");
                }
            });
        }
    });
    storage
        .set_len(old + 3_000_000, Preallocation::Off)
        .expect("a length");
    let mut bytes = vec![9; 3_000_000];
    storage.read_at(&mut bytes, old).expect("a read");
    for (piece, bytes) in bytes.chunks(PIECE).enumerate() {
        let (written, behind) = bytes.split_at(PIECE / 2);
        let byte = written[0];
        assert!(
            byte == 0 || (byte as usize == piece % THREADS + 1 && piece < PIECES),
            "{piece}"
        );
        assert!(written.iter().all(|other| *other == byte), "{piece}");
        assert!(behind.iter().all(|byte| *byte == 0), "{piece}");
    }
}
