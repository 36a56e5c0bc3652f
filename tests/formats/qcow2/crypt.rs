//! Encrypted qcow2 images: they cross between Platter and QEMU's tools in both directions, and
//! random writes leave what a plain array holds.

use crate::common::Dir;
use platter::image::OpenOptions;
use platter::object::Objects;
use platter::ops::convert::{ConvertRequest, convert};
use platter::ops::create::{CreatePlan, CreateRequest};
use platter::secret::Secret;
use platter::storage::ZeroFlags;
use platter::{Image, Job, Location, OpenPolicy, Options};

const PASS: &str = "correct horse";
const OBJECT: &str = "secret,id=s,data=correct horse";
const PLAIN: &str = "driver=raw,file.filename=plain.raw";
const AES: &str = "encrypt.format=aes,encrypt.key-secret=s";
const LUKS: &str = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";

fn objects() -> Objects {
    let mut objects = Objects::new();
    objects.add_secret("s", Secret::new(PASS)).unwrap();
    objects
}

/// 3 MiB and a half sector more than a cluster's part, with text, zeroes and noise.
fn contents() -> Vec<u8> {
    (0..(3u32 << 20) + 512)
        .map(|i| match i >> 15 {
            n if n % 3 == 1 => 0,
            n => (i.wrapping_mul(2_654_435_761) >> (n % 24)) as u8,
        })
        .collect()
}

fn image_opts(name: &str) -> String {
    format!("driver=qcow2,encrypt.key-secret=s,file.filename={name}")
}

fn open(dir: &Dir, name: &str, writable: bool) -> Image {
    let options = OpenOptions {
        writable,
        objects: objects(),
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let location = Location::from_image_opts(&image_opts(&dir.str(name))).unwrap();
    Image::open(&location, &options).unwrap_or_else(|error| panic!("{name}: {error:?}"))
}

fn convert_ours(dir: &Dir, options: &str, name: &str, backing: Option<&str>) {
    let mut request = ConvertRequest::new(
        Location::from_path(dir.path("plain.raw")),
        Location::from_path(dir.path(name)),
    );
    request.source.options.format = Some("raw".into());
    request.source.options.policy = OpenPolicy::permissive();
    request.target.policy = OpenPolicy::permissive();
    request.target.format = Some("qcow2".into());
    request.target.options = Options::parse(options).unwrap();
    request.target.objects = objects();
    if let Some(backing) = backing {
        request.target.backing_file = Some(dir.str(backing).into());
        request.target.backing_format = Some("raw".into());
    }
    convert(&request, &mut Job::new()).unwrap_or_else(|e| panic!("{options}: {e:?}"));
}

/// QEMU's tool opens the image, finds it clean and equal to the plain disk.
fn theirs_agrees(dir: &Dir, name: &str, about: &str) {
    let args = [
        "check",
        "--object",
        OBJECT,
        "--image-opts",
        &image_opts(name),
    ];
    let check = dir.qemu_img(&args);
    assert!(
        check.code == 0 && !check.out.contains("leaked"),
        "{about}: {check:?}"
    );
    let args = [
        "compare",
        "--object",
        OBJECT,
        "--image-opts",
        &image_opts(name),
        PLAIN,
    ];
    let compare = dir.qemu_img(&args);
    assert_eq!(
        compare.out, "Images are identical.\n",
        "{about}: {compare:?}"
    );
}

/// Options of images, each with every kind of encryption.
const SHAPES: &[&str] = &[
    "cluster_size=512",
    "cluster_size=1k",
    "cluster_size=4k",
    "cluster_size=16k,extended_l2=on",
    "cluster_size=64k",
    "cluster_size=64k,extended_l2=on",
    "cluster_size=64k,compat=0.10",
    "cluster_size=64k,data_file=data",
    "cluster_size=64k,preallocation=metadata",
    "cluster_size=64k,preallocation=full",
    "cluster_size=64k,extended_l2=on,preallocation=metadata",
    "cluster_size=64k,refcount_bits=1",
    "cluster_size=2M",
];

#[test]
fn what_platter_encrypts_qemu_reads() {
    let dir = Dir::new();
    std::fs::write(dir.path("plain.raw"), contents()).unwrap();
    for encryption in [AES, LUKS] {
        for shape in SHAPES {
            let data = dir.str("data");
            let options = format!(
                "{encryption},{}",
                shape.replace("=data", &format!("={data}"))
            );
            convert_ours(&dir, &options, "p.qcow2", None);
            theirs_agrees(&dir, "p.qcow2", &options);
            let image = open(&dir, "p.qcow2", false);
            let mut bytes = vec![0; image.len() as usize];
            image.read_at(&mut bytes, 0).unwrap();
            assert!(bytes == contents(), "{options}");
            let mut part = vec![0; 70_001];
            image.read_at(&mut part, 12_345).unwrap();
            assert!(part == contents()[12_345..82_346], "{options}");
        }
    }
}

#[test]
fn the_file_holds_no_plain_text() {
    let dir = Dir::new();
    let needle = b"the quick brown fox jumps over the lazy dog";
    let mut plain = vec![0; 1 << 20];
    plain[70_000..70_000 + needle.len()].copy_from_slice(needle);
    std::fs::write(dir.path("plain.raw"), &plain).unwrap();
    for encryption in [AES, LUKS] {
        convert_ours(&dir, encryption, "p.qcow2", None);
        let image = open(&dir, "p.qcow2", true);
        image.write_at(needle, 900_000).unwrap();
        image.close().unwrap();
        let file = std::fs::read(dir.path("p.qcow2")).unwrap();
        assert!(
            !file.windows(needle.len()).any(|w| w == needle),
            "{encryption}"
        );
        // Zeroes leave no holes in clusters that hold data, and read back as zeroes.
        let image = open(&dir, "p.qcow2", false);
        let mut bytes = vec![1; 65_536];
        image.read_at(&mut bytes, 65_536).unwrap();
        assert!(bytes == plain[65_536..131_072]);
    }
}

#[test]
fn what_qemu_encrypts_platter_reads() {
    let dir = Dir::new();
    std::fs::write(dir.path("plain.raw"), contents()).unwrap();
    for encryption in [AES, LUKS] {
        for shape in [
            "cluster_size=512",
            "cluster_size=64k",
            "cluster_size=64k,data_file=data",
        ] {
            let data = dir.str("data");
            let options = format!(
                "{encryption},{}",
                shape.replace("=data", &format!("={data}"))
            );
            dir.qemu_img_ok(&[
                "convert",
                "--object",
                OBJECT,
                "-f",
                "raw",
                "-O",
                "qcow2",
                "-o",
                &options,
                "plain.raw",
                "q.qcow2",
            ]);
            let image = open(&dir, "q.qcow2", false);
            let mut bytes = vec![0; image.len() as usize];
            image.read_at(&mut bytes, 0).unwrap();
            assert!(bytes == contents(), "{options}");
        }
    }
}

#[test]
fn random_writes_leave_what_an_array_holds() {
    let shapes = SHAPES.iter().copied().chain(["backing"]);
    for (n, shape) in shapes.enumerate() {
        for encryption in [AES, LUKS] {
            let dir = Dir::new();
            let mut model = vec![0; contents().len()];
            std::fs::write(dir.path("plain.raw"), &model).unwrap();
            let data = dir.str("data");
            let has_backing = shape == "backing";
            let options = match shape {
                "backing" => encryption.to_owned(),
                _ => format!(
                    "{encryption},{}",
                    shape.replace("=data", &format!("={data}"))
                ),
            };
            if has_backing {
                model = contents();
                std::fs::write(dir.path("base.raw"), &model).unwrap();
            }
            let request = CreateRequest {
                location: Location::from_path(dir.path("p.qcow2")),
                format: "qcow2".into(),
                size: Some(model.len() as u64),
                options: Options::parse(&options).unwrap(),
                backing_file: has_backing.then(|| dir.str("base.raw").into()),
                backing_format: has_backing.then(|| "raw".into()),
                backing_unsafe: false,
                exclusive: false,
                objects: objects(),
                policy: OpenPolicy::permissive(),
                storages: None,
            };
            let mut job = Job::new();
            CreatePlan::new(request, &mut job)
                .unwrap()
                .run(&mut job)
                .unwrap();
            let image = open(&dir, "p.qcow2", true);
            if shape.contains("preallocation") {
                // What was never written is noise there, as with QEMU's tool.
                image.write_at(&model, 0).unwrap();
            }
            let mut state = 0x9E37_79B9_7F4A_7C15 ^ n as u64;
            let mut random = |below: usize| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state % below as u64) as usize
            };
            for step in 0..60 {
                let at = random(model.len());
                let len = random(if step % 4 == 0 { 400_000 } else { 3_000 }) + 1;
                let end = (at + len).min(model.len());
                match step % 5 {
                    0 => {
                        image
                            .write_zeroes(at as u64, (end - at) as u64, ZeroFlags::MAY_UNMAP)
                            .unwrap();
                        model[at..end].fill(0);
                    }
                    1 => {
                        image
                            .write_zeroes(at as u64, (end - at) as u64, ZeroFlags::empty())
                            .unwrap();
                        model[at..end].fill(0);
                    }
                    _ => {
                        let bytes: Vec<u8> = (at..end).map(|i| (i * 7 + step) as u8 | 1).collect();
                        image.write_at(&bytes, at as u64).unwrap();
                        model[at..end].copy_from_slice(&bytes);
                    }
                }
            }
            let mut bytes = vec![0; model.len()];
            image.read_at(&mut bytes, 0).unwrap();
            assert!(bytes == model, "{options}");
            image.close().unwrap();
            std::fs::write(dir.path("plain.raw"), &model).unwrap();
            theirs_agrees(&dir, "p.qcow2", &options);
        }
    }
}

#[test]
fn a_new_image_over_a_backing_file_holds_the_difference() {
    let dir = Dir::new();
    std::fs::write(dir.path("plain.raw"), contents()).unwrap();
    let mut base = contents();
    base[100_000..200_000].fill(9);
    std::fs::write(dir.path("base.raw"), &base).unwrap();
    for encryption in [AES, LUKS] {
        convert_ours(&dir, encryption, "p.qcow2", Some("base.raw"));
        theirs_agrees(&dir, "p.qcow2", encryption);
    }
}
