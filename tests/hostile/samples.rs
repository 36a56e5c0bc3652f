//! Images of every sample of the conformance kit with damaged structures: wherever a file of the format
//! holds something other than guest data, numbers are replaced by those that are most likely to be
//! trusted too far.

use std::fs;

use crate::given::GIVEN;
use crate::sample::{PASSPHRASE, Sample, samples};
use crate::seal::seal;
use crate::{Bench, Ended, MAX_CPU, SECONDS, Sequence};

/// Damaged images of each sample.
const IMAGES: usize = 20;
/// The guest data, which damage leaves alone.
const DATA: u8 = 0x5a;
/// Seconds for a command with a key derivation: the number of rounds is from the header, and may take for ever.
const CRYPT_SECONDS: &str = "1";

/// The bytes of a valid image of a sample.
struct Image {
    bytes: Vec<u8>,
}

impl Image {
    /// Its own file, and its second one where the name of that follows from its own.
    fn new(bench: &Bench, sample: &Sample) -> Vec<(String, Self)> {
        let options = sample.options("second");
        let secret = format!("secret,id=s,data={PASSPHRASE}");
        let mut args = vec!["convert", "-f", "raw", "-O", sample.format];
        if sample.encrypted() {
            args.extend(["--object", &secret]);
        }
        if !options.is_empty() {
            args.extend(["-o", &options]);
        }
        args.extend(["data.raw", "bad"]);
        let Ended { ran, .. } = bench.run_for(SECONDS, &args);
        assert_eq!(ran.code, 0, "{}: {ran:?}", sample.name);
        let second = sample.second.map(|name| name.replace("image", "bad"));
        let names = std::iter::once("bad".to_owned()).chain(second);
        let read = |name: String| {
            let bytes = fs::read(bench.dir.path(&name)).expect("the new image");
            (name, Self { bytes })
        };
        names.map(read).collect()
    }

    /// Places of 4 bytes that hold something other than data: those of the header, and all.
    fn places(&self) -> [Vec<usize>; 2] {
        let held = |at: &usize| {
            let word = &self.bytes[*at..*at + 4];
            word != [DATA; 4] && word != [0; 4]
        };
        let end = self.bytes.len() & !3;
        let all = |end: usize| (0..end).step_by(4);
        // Of the first ones also those that are zero: fields that are not used yet.
        let first = all(end.min(192)).chain(all(end.min(4096)).filter(held));
        [first.collect(), all(end).filter(held).collect()]
    }

    /// The image with a number or two replaced, or cut off; of most the checksums are right again.
    fn damaged(&self, format: &str, places: &[Vec<usize>; 2], sequence: &mut Sequence) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        if sequence.below(8) == 0 {
            bytes.truncate(sequence.below(bytes.len()));
            return bytes;
        }
        for _ in 0..1 + sequence.below(2) {
            let among = &places[sequence.below(2)];
            if among.is_empty() {
                continue;
            }
            let at = among[sequence.below(among.len())];
            let other = among[sequence.below(among.len())];
            let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4"));
            let (old, other) = (word(at), word(other));
            let new = match sequence.below(10) {
                0 => 0,
                1 => u32::MAX,
                2 => 0x7fff_ffff,
                3 => 1 << sequence.below(32),
                4 => (1u32 << sequence.below(32)).swap_bytes(),
                5 => old.wrapping_add(1),
                6 => old.swap_bytes().wrapping_sub(1).swap_bytes(),
                7 => other,
                8 => (bytes.len() as u32).swap_bytes(),
                _ => old ^ 1 << sequence.below(32),
            };
            bytes[at..at + 4].copy_from_slice(&new.to_le_bytes());
        }
        if sequence.below(8) != 0 {
            seal(format, &mut bytes);
        }
        bytes
    }
}

/// Runs what looks at an image; tells of all that is wrong with how that ends.
fn try_all(bench: &Bench, sample: &Sample, what: &str) {
    let secret = format!("secret,id=s,data={PASSPHRASE}");
    let opts = sample.image_opts("bad");
    match sample.encrypted() {
        true => {
            let named = ["--object", &secret, "--image-opts", &opts];
            try_commands(bench, (sample.name, sample.format), &named, what);
        }
        false => try_plain(bench, (sample.name, sample.format), what),
    }
}

/// As [`try_all`] for an image that takes no secret.
fn try_plain(bench: &Bench, (name, format): (&str, &str), what: &str) {
    try_commands(bench, (name, format), &["-f", format, "bad"], what);
}

fn try_commands(bench: &Bench, (name, format): (&str, &str), named: &[&str], what: &str) {
    let encrypted = named.contains(&"--object");
    for (command, rest, codes) in [
        ("info", &[][..], &[0, 1][..]),
        ("check", &[], &[0, 1, 2, 3, 63]),
        ("map", &[], &[0, 1]),
        ("convert", &["-O", "qcow2", "out"], &[0, 1]),
        ("inspect", &[], &[0, 1, 2]),
        // The last one: it changes the image.
        ("repair", &[], &[0, 1, 2, 3, 63]),
    ] {
        let mut args = match command {
            "repair" => vec!["check", "-q", "-r", "all"],
            command => vec![command],
        };
        match rest.split_last() {
            // Options come before the source, the target behind it.
            Some((target, options)) => {
                args.extend(options);
                args.extend(named);
                args.push(target);
            }
            None => args.extend(named),
        }
        if command == "inspect" {
            args = vec!["inspect", "-f", format, "bad"];
        }
        let (seconds, max_cpu) = match encrypted {
            true => (CRYPT_SECONDS, u64::MAX),
            false => (SECONDS, MAX_CPU),
        };
        let ended = bench.run_for(seconds, &args);
        let excess = ended.excess(max_cpu);
        let Ended { ran, signal, .. } = ended;
        let _ = fs::remove_file(bench.dir.path("out"));
        let ended = signal == 0 || signal == 9 && encrypted;
        let messages = ran.err.lines().filter(|line| {
            line.starts_with("qemu-img: ")
                && !line.contains("warning: ")
                && !line.contains("ERROR ")
        });
        let count = messages.count();
        let one = signal != 0 || ["check", "inspect", "repair"].contains(&command) || {
            count == usize::from(ran.code != 0)
        };
        let defect = ran.err.contains("panic") || ran.err.contains("Internal error");
        let known = signal != 0 || codes.contains(&ran.code);
        if !ended || !one || !known || defect || excess.is_some() {
            let mut problems = bench.problems.borrow_mut();
            problems.push(format!(
                "{name}, {what}: {command}: {excess:?}, signal {signal}, {ran:?}"
            ));
        }
    }
}

#[test]
fn structures_of_every_format_with_numbers_that_lie() {
    let bench = Bench::new();
    let mut data = vec![0; 1 << 20];
    for block in [0, 5, 6, 13] {
        data[block << 16..(block + 1) << 16].fill(DATA);
    }
    fs::write(bench.dir.path("data.raw"), data).expect("the data");
    for sample in samples() {
        let files = Image::new(&bench, sample);
        let mut sequence = Sequence(sample.name.len() as u64);
        let count = match sample.encrypted() {
            true => IMAGES / 4,
            false => IMAGES,
        };
        for (file, image) in &files {
            let places = image.places();
            for n in 0..count {
                let bytes = image.damaged(sample.format, &places, &mut sequence);
                fs::write(bench.dir.path(file), bytes).expect("the image");
                try_all(&bench, sample, &format!("damage {n} of {file}"));
                // A repair may have changed all of them.
                for (file, image) in &files {
                    fs::write(bench.dir.path(file), &image.bytes).expect("the image");
                }
            }
        }
        for name in files
            .iter()
            .map(|(name, _)| name.as_str())
            .chain(["second"])
        {
            let _ = fs::remove_file(bench.dir.path(name));
        }
    }
}

#[test]
fn structures_of_formats_that_are_only_read_with_numbers_that_lie() {
    let bench = Bench::new();
    for given in GIVEN {
        let image = Image {
            bytes: given.make().1,
        };
        let places = image.places();
        let mut sequence = Sequence(given.name.len() as u64);
        for n in 0..IMAGES {
            let bytes = image.damaged(given.format, &places, &mut sequence);
            fs::write(bench.dir.path("bad"), bytes).expect("the image");
            try_plain(&bench, (given.name, given.format), &format!("damage {n}"));
        }
    }
}

/// A log that waits to be replayed, with numbers that lie.
#[test]
fn logs_with_numbers_that_lie() {
    let bench = Bench::new();
    let path = bench.dir.path("bad");
    bench.dir.qemu_img_ok(&[
        "create",
        "-q",
        "-f",
        "vhdx",
        "-o",
        "block_size=1M",
        "bad",
        "9M",
    ]);
    let open = platter::OpenOptions {
        writable: true,
        format: Some("vhdx".to_owned()),
        ..platter::OpenOptions::default()
    };
    let live = {
        let image = platter::Image::open(&platter::Location::from_path(&path), &open);
        let image = image.expect("the image");
        for at in [0, 3 << 20, 5 << 20] {
            image.write_at(&[DATA; 4096], at).expect("to write");
            image.flush().expect("to flush");
        }
        // Until it is closed, the header names the log.
        fs::read(&path).expect("the image")
    };
    let image = Image { bytes: live };
    let mut places = image.places();
    places[0] = (1 << 20..2 << 20)
        .step_by(4)
        .filter(|at| image.bytes[*at..*at + 4] != [0; 4])
        .collect();
    assert!(!places[0].is_empty(), "there is no log");
    let mut sequence = Sequence(77);
    for n in 0..3 * IMAGES {
        let bytes = image.damaged("vhdx", &places, &mut sequence);
        fs::write(&path, bytes).expect("the image");
        let opts = "driver=vhdx,replay-log=on,file.filename=bad";
        let named = ["--image-opts", opts];
        try_commands(&bench, ("a log", "vhdx"), &named, &format!("damage {n}"));
    }
}
