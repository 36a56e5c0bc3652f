//! Encrypted images and the secrets that open them.

use crate::pair::{Loose, Pair};

const S: &str = "--object secret,id=s,data=letmein";
const LUKS: &str = "driver=luks,key-secret=s,file.filename=l.luks";

/// Both directories hold the same files: images differ in salt and UUID each time they are made.
fn pair(setup: &[&str], shared: &[&str]) -> Pair {
    let pair = Pair::new();
    for line in setup {
        let args: Vec<&str> = line.split_whitespace().collect();
        pair.theirs().qemu_img_ok(&args);
    }
    for name in shared {
        let bytes = std::fs::read(pair.theirs().path(name)).expect("an image of the test");
        pair.file(name, &bytes);
    }
    pair
}

fn luks() -> Pair {
    let create = format!("create {S} -f luks -o key-secret=s,iter-time=10 l.luks 1M");
    pair(&[&create], &["l.luks"])
}

#[test]
fn luks_images_are_reported_as_qemu_img_does() {
    let pair = luks();
    for line in [
        "info l.luks".to_owned(),
        "info -f luks l.luks".to_owned(),
        "info --output=json l.luks".to_owned(),
        format!("info {S} --image-opts {LUKS}"),
    ] {
        pair.same_but(&line, Loose::DiskSize);
    }
    pair.all_same(&[
        "check -f luks l.luks",
        "check l.luks",
        "map l.luks",
        "compare l.luks l.luks",
        "convert l.luks o.raw",
        &format!("check {S} --image-opts {LUKS}"),
        &format!("map {S} --image-opts {LUKS}"),
        &format!("map {S} --output=json --image-opts {LUKS}"),
        &format!("map --image-opts {LUKS}"),
        &format!("map --object secret,id=s,data=wrong --image-opts {LUKS}"),
        &format!("convert --object secret,id=t,data=letmein --image-opts {LUKS} o.raw"),
        &format!("compare {S} --image-opts {LUKS} {LUKS}"),
        "create -f luks -o key-secret=t new.luks 1M",
        "create -f luks new.luks 1M",
        "convert -f raw -O luks l.luks new.luks",
        "convert -f raw -O luks -o key-secret=t l.luks new.luks",
        &format!("create {S} -f luks -o key-secret=s,cipher-alg=rot13 new.luks 1M"),
        &format!("create {S} -f luks -o key-secret=s,iter-time=10 new.luks 1M"),
    ]);
}

/// QEMU's tool opens detached headers but cannot make them.
#[test]
fn a_detached_header_is_made_and_opened_by_both() {
    use crate::pair::{ours, words};
    const DETACHED: &str = "driver=luks,key-secret=s,file.filename=p.img,header.filename=h.img";
    let pair = Pair::with(&["create -q p.img 1M", "create -q wrong.img 1M"]);
    let plain: Vec<u8> = (0..1u32 << 20).map(|i| (i >> 7) as u8).collect();
    pair.file("a.raw", &plain);
    let dir = pair.ours();
    let run = |line: &str| {
        let ran = ours(&words(line), dir.root());
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
        ran.out
    };
    run(&format!(
        "create {S} -q -f luks -o key-secret=s,iter-time=10,detached-header=on h.img"
    ));
    run(&format!(
        "convert {S} -n --target-image-opts -f raw a.raw {DETACHED}"
    ));
    for name in ["h.img", "p.img"] {
        std::fs::copy(dir.path(name), pair.theirs().path(name)).expect("a copy");
    }
    for line in [
        format!("info {S} --image-opts {DETACHED}"),
        format!("info --output=json --image-opts {DETACHED}"),
    ] {
        pair.same_but(&line, Loose::DiskSize);
    }
    let json = "json:{\"driver\":\"luks\",\"key-secret\":\"s\",\"file\":{\"driver\":\"file\",\"filename\":\"p.img\"},\"header\":{\"driver\":\"file\",\"filename\":\"h.img\"}}";
    pair.all_same(&[
        &format!("compare {S} --image-opts driver=raw,file.filename=a.raw {DETACHED}"),
        &format!("map {S} --output=json --image-opts {DETACHED}"),
        &format!("compare {S} a.raw {json}"),
        "info h.img",
        "info -f luks p.img",
        &format!("map {S} --image-opts driver=luks,key-secret=s,file.filename=h.img"),
        &format!("check {S} --image-opts {DETACHED}"),
        "info --image-opts driver=luks,file.filename=p.img,header.filename=nope",
        "info --image-opts driver=luks,file.filename=p.img,header=h.img",
        "info --image-opts driver=luks,file.filename=p.img,header.filename=wrong.img",
        "info --image-opts driver=raw,file.filename=p.img,header.filename=h.img",
    ]);
    pair.same(&format!("resize {S} --image-opts {DETACHED} 2M"));
    let more = "--object secret,id=t,data=two";
    pair.same(&format!(
        "amend {S} {more} -o state=active,new-secret=t,iter-time=10 --image-opts {DETACHED}"
    ));
    let other = DETACHED.replace("key-secret=s", "key-secret=t");
    dir.qemu_img_ok(&words(&format!(
        "map {more} --output=json --image-opts {other}"
    )));
    // A header takes no data.
    let line = format!(
        "convert {S} -f raw -O luks -o key-secret=s,iter-time=10,detached-header=on a.raw new.img"
    );
    let ran = ours(&words(&line), dir.root());
    assert!(
        ran.code == 1 && ran.err.contains("A detached header takes no data"),
        "{ran:?}"
    );
    assert!(!dir.path("new.img").exists());
}

#[test]
fn secrets_come_as_text_file_base64_or_encrypted() {
    let pair = luks();
    pair.file("plain.txt", b"letmein");
    pair.file("coded.txt", b"bGV0bWVpbg==\n");
    // "letmein" under AES-256-CBC; the key is 32 bytes of 'k', the IV 16 bytes of 'i'.
    let key =
        "--object secret,id=k,format=base64,data=a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=";
    let convert = |objects: &str| format!("map {objects} --output=json --image-opts {LUKS}");
    pair.all_same(&[
        &convert("--object secret,id=s,file=plain.txt"),
        &convert("--object secret,id=s,file=plain.txt,format=raw"),
        &convert("--object secret,id=s,file=coded.txt,format=base64"),
        &convert("--object secret,id=s,file=coded.txt"),
        &convert("--object secret,id=s,data=bGV0bWVpbg==,format=base64"),
        &convert("--object secret,id=s,data=?,format=base64"),
        &convert("--object {\"qom-type\":\"secret\",\"id\":\"s\",\"data\":\"letmein\"}"),
        &convert("--object {\"qom-type\":\"secret\",\"id\":\"s\",\"file\":\"plain.txt\"}"),
        &convert("--object secret,id=s,data=bGV0bWVpbg==,format=base64,keyid=none"),
        &convert(&format!(
            "{key} --object secret,id=s,data=AAAA,format=base64,keyid=k"
        )),
        &convert(&format!(
            "{key} --object secret,id=s,format=base64,keyid=k,iv=aWlpaWlpaWlpaWlpaWlpaQ==,data={}",
            wrapped()
        )),
    ]);
}

/// "letmein" encrypted as above, in base64.
fn wrapped() -> String {
    use aes::cipher::{BlockModeEncrypt, KeyIvInit, block_padding::Pkcs7};
    use base64::Engine;
    let mut text = *b"letmein.........";
    let sealed = cbc::Encryptor::<aes::Aes256>::new(&[b'k'; 32].into(), &[b'i'; 16].into())
        .encrypt_padded::<Pkcs7>(&mut text, 7)
        .expect("room for the padding");
    base64::engine::general_purpose::STANDARD.encode(sealed)
}

#[test]
fn luks_converts_both_ways() {
    let pair = Pair::new();
    let plain: Vec<u8> = (0..1u32 << 20).map(|i| (i >> 7) as u8).collect();
    pair.file("a.raw", &plain);
    pair.same(&format!(
        "convert {S} -f raw -O luks -o key-secret=s,iter-time=10 a.raw l.luks"
    ));
    pair.same(&format!(
        "compare {S} --image-opts driver=raw,file.filename=a.raw {LUKS}"
    ));
    pair.same(&format!("convert {S} --image-opts {LUKS} -O qcow2 b.qcow2"));
    pair.same("compare -f raw a.raw b.qcow2");
    pair.same(&format!(
        "convert {S} -n --target-image-opts -f raw a.raw {LUKS}"
    ));
    // QEMU's tool opens what ours made.
    let line = format!("compare {S} --image-opts driver=raw,file.filename=a.raw {LUKS}");
    let args: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(pair.ours().qemu_img_ok(&args), "Images are identical.\n");
}

#[test]
fn no_message_repeats_a_secret() {
    let pair = luks();
    for object in [
        "secret,id=s,data=hunter22",
        "secret,id=s,data=hunter22,format=base64",
        "secret,id=s,data=hunter22,keyid=hunter23",
        "secret,id=s,data=hunter22,file=x",
        "secret,id=s,data=hunter22,iv=hunter22",
    ] {
        let args = ["map", "--object", object, "--image-opts", LUKS];
        let ran = crate::pair::ours(&args, pair.ours().root());
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(
            !ran.err.contains("hunter22") && !ran.out.contains("hunter22"),
            "{ran:?}"
        );
    }
}

const QCOW2: &str = "driver=qcow2,encrypt.key-secret=s,file.filename=q.qcow2";

#[test]
fn encrypted_qcow2_is_reported_as_qemu_img_does() {
    for format in ["luks,encrypt.iter-time=10", "aes"] {
        let create = format!(
            "create {S} -f qcow2 -o encrypt.key-secret=s,encrypt.format={format} q.qcow2 1M"
        );
        let overlay = "create -f qcow2 -b q.qcow2 -F qcow2 over.qcow2";
        let pair = pair(&[&create, overlay], &["q.qcow2", "over.qcow2"]);
        for line in [
            "info q.qcow2".to_owned(),
            "info --output=json q.qcow2".to_owned(),
            "info --backing-chain over.qcow2".to_owned(),
            format!("info {S} --image-opts {QCOW2}"),
            format!("info --output=json {S} --image-opts {QCOW2},encrypt.format=luks"),
        ] {
            pair.same_but(&line, Loose::DiskSize);
        }
        pair.all_same(&[
            "check q.qcow2",
            "map q.qcow2",
            "convert q.qcow2 o.raw",
            "convert over.qcow2 o.raw",
            &format!("check {S} --image-opts {QCOW2}"),
            &format!("check --image-opts {QCOW2}"),
            &format!("check {S} --image-opts {QCOW2},encrypt.format=luks"),
            &format!("check {S} --image-opts {QCOW2},encrypt.format=aes"),
            &format!("check {S} --image-opts {QCOW2},encrypt.format=rot13"),
            &format!(
                "check {S} --image-opts driver=qcow2,encrypt.format=aes,file.filename=q.qcow2"
            ),
            &format!("check --object secret,id=s,data=wrong --image-opts {QCOW2}"),
            &format!("map {S} --image-opts {QCOW2}"),
            &format!("map {S} --output=json --image-opts {QCOW2}"),
            &format!(
                "convert {S} --image-opts driver=qcow2,file.filename=over.qcow2,\
                 backing.encrypt.key-secret=s o.raw"
            ),
            "create -f qcow2 -b q.qcow2 -F qcow2 new.qcow2",
        ]);
    }
}

#[test]
fn encryption_options_are_refused_as_qemu_img_does() {
    let pair = Pair::new();
    pair.file("a.raw", &[7; 1024]);
    pair.qemu("create -f qcow2 q.qcow2 1M");
    let create = |options: &str| format!("create {S} -f qcow2 -o {options} new.qcow2 1M");
    pair.all_same(&[
        &create("encryption=on"),
        &create("encryption=off,encrypt.key-secret=s"),
        &create("encryption=on,encrypt.key-secret=t"),
        &create("encryption=on,encrypt.format=luks,encrypt.key-secret=s"),
        &create("encrypt.key-secret=s"),
        &create("encrypt.format=aes"),
        &create("encrypt.format=luks"),
        &create("encrypt.format=rot13,encrypt.key-secret=s"),
        &create("encrypt.format=vmdk,encrypt.key-secret=s"),
        &create("encrypt.format=qcow,encrypt.key-secret=s"),
        &create("encrypt.format=aes,encrypt.key-secret=s,encrypt.cipher-alg=aes-256"),
        &create("encrypt.format=aes,encrypt.key-secret=s,encrypt.iter-time=10"),
        &create("encrypt.format=luks,encrypt.key-secret=s,encrypt.cipher-alg=rot13"),
        &create("encrypt.format=luks,encrypt.key-secret=s,encrypt.cipher-alg=3des"),
        &create("encrypt.format=luks,encrypt.key-secret=t"),
        &create("encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"),
        &create("encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,compat=0.10"),
        &create("encrypt.format=aes,encrypt.key-secret=s"),
        &create("encryption=on,encrypt.key-secret=s"),
        &format!("convert {S} -f raw -O qcow2 -o encrypt.format=luks a.raw new.qcow2"),
        &format!(
            "convert {S} -f raw -O qcow2 -o encrypt.format=aes,encrypt.key-secret=t a.raw new.qcow2"
        ),
        &format!(
            "convert {S} -c -f raw -O qcow2 -o encrypt.format=aes,encrypt.key-secret=s a.raw new.qcow2"
        ),
        &format!("check {S} --image-opts {QCOW2}"),
        &format!("check {S} --image-opts {QCOW2},encrypt.format=luks"),
    ]);
}

#[test]
fn measured_sizes_count_the_encryption_header() {
    let pair = Pair::new();
    pair.all_same(&[
        &format!("measure {S} --size 1G -O luks -o key-secret=s,iter-time=10"),
        &format!("measure {S} --size 1G -O qcow2 -o encrypt.format=luks,encrypt.iter-time=10,encrypt.key-secret=s"),
        &format!(
            "measure {S} --size 1G -O qcow2 \
             -o encrypt.format=luks,encrypt.iter-time=10,encrypt.key-secret=s,encrypt.cipher-alg=aes-128"
        ),
        &format!("measure {S} --size 1G -O qcow2 -o encrypt.format=aes,encrypt.key-secret=s"),
        &format!("measure {S} --size 1G -O qcow2 -o encrypt.format=qcow,encrypt.key-secret=s"),
        "measure --size 1G -O qcow2 -o encrypt.format=luks",
        "measure --size 1G -O luks",
    ]);
}

#[test]
fn encrypted_images_lie_in_encrypted_images_and_have_snapshots() {
    let secret = "encrypt.key-secret=s";
    for format in ["luks,encrypt.iter-time=10", "aes"] {
        let options = format!("encrypt.format={format},{secret},cluster_size=4k");
        let pair = Pair::new();
        let plain: Vec<u8> = (0..300u32 << 10).map(|i| (i >> 5) as u8).collect();
        pair.file("a.raw", &plain);
        for line in [
            format!("convert {S} -f raw -O qcow2 -o {options} a.raw q.qcow2"),
            format!("snapshot {S} --image-opts -c first {QCOW2}"),
            format!("convert {S} -f raw -O qcow2 -o {options} q.qcow2 outer.qcow2"),
            format!("convert {S} -f raw -O luks -o key-secret=s,iter-time=10 q.qcow2 outer.luks"),
        ] {
            let args: Vec<&str> = line.split_whitespace().collect();
            pair.theirs().qemu_img_ok(&args);
        }
        for name in ["q.qcow2", "outer.qcow2", "outer.luks"] {
            let bytes = std::fs::read(pair.theirs().path(name)).expect("an image of the test");
            pair.file(name, &bytes);
        }
        let inner = format!("driver=qcow2,{secret}");
        for outer in [
            format!("{inner},file.driver=qcow2,file.{secret},file.file.filename=outer.qcow2"),
            format!("{inner},file.driver=luks,file.key-secret=s,file.file.filename=outer.luks"),
        ] {
            pair.same(&format!("map {S} --output=json --image-opts {outer}"));
            pair.same(&format!(
                "compare {S} --image-opts {outer} driver=raw,file.filename=a.raw"
            ));
        }
        pair.same(&format!(
            "convert {S} -l first --image-opts {QCOW2} -O raw first.raw"
        ));
        pair.same("compare -f raw -F raw a.raw first.raw");
    }
}

/// What other tools could not be given must not become the key of an image.
#[test]
fn passphrases_that_are_no_text_are_refused_for_new_volumes_and_slots() {
    let pair = luks();
    pair.qemu("create -q -f raw a.raw 1M");
    pair.qemu(&format!(
        "create -q {S} -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 q.qcow2 1M"
    ));
    const FIRST: &[u8] = b"\xff\xfeab";
    for text in [
        FIRST,
        b"ab\0cd",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
    ] {
        pair.file("key", text);
        let b = "--object secret,id=b,file=key,format=raw";
        let encrypt = "encrypt.key-secret=b,encrypt.format";
        for line in [
            format!("create {b} -f luks -o key-secret=b,iter-time=10 new.luks 1M"),
            format!("create {b} -f qcow2 -o {encrypt}=luks,encrypt.iter-time=10 new.qcow2 1M"),
            format!("create {b} -f qcow2 -o {encrypt}=aes new.qcow2 1M"),
            format!("convert {b} -f raw -O luks -o key-secret=b,iter-time=10 a.raw new.luks"),
            format!("amend {S} {b} --image-opts {LUKS} -o state=active,new-secret=b,iter-time=10"),
            format!(
                "amend {S} {b} --image-opts driver=qcow2,encrypt.key-secret=s,file.filename=q.qcow2 \
                 -o encrypt.state=active,encrypt.new-secret=b,encrypt.iter-time=10"
            ),
        ] {
            let ran = pair.same(&line);
            assert_eq!(ran.code, 1, "{line}: {ran:?}");
            assert!(ran.err.contains("is not valid UTF-8"), "{line}: {ran:?}");
            if text != FIRST {
                // The commands refuse alike; `qemu-img` takes its time with each.
                break;
            }
        }
        for name in ["new.luks", "new.qcow2"] {
            assert!(!pair.ours().path(name).exists(), "{name}");
        }
    }
    // Text of any language is a passphrase, and none at all is one too.
    for text in ["p\u{e4}ssw\u{f6}rd \u{1f511}", ""] {
        pair.file("key", text.as_bytes());
        let b = "--object secret,id=s,file=key,format=raw";
        pair.same(&format!(
            "create -q {b} -f luks -o key-secret=s,iter-time=10 t.luks 1M"
        ));
        let made = std::fs::read(pair.ours().path("t.luks")).expect("the new volume");
        pair.file("l.luks", &made);
        pair.same(&format!("map {b} --output=json --image-opts {LUKS}"));
    }
}

/// A passphrase that stands nowhere else.
const PASSPHRASE: &str = "correct-horse-battery-staple";

/// The tool with the search for a text in its memory at its end.
fn scanned(args: &[&str], dir: &crate::common::Dir) -> std::process::Output {
    let inverted: Vec<u8> = PASSPHRASE.bytes().map(|byte| !byte).collect();
    std::fs::write(dir.path("inverted"), inverted).unwrap();
    crate::pair::ours_command(args, dir.root())
        .env("LD_PRELOAD", crate::build::scan())
        .env("SCAN_FOR", dir.path("inverted"))
        .output()
        .unwrap()
}

#[test]
fn no_copy_of_a_secret_is_left_in_the_memory_of_the_tool() {
    let dir = crate::common::Dir::new();
    std::fs::write(dir.path("pass"), PASSPHRASE).unwrap();
    // The search finds what is there.
    let found = crate::pair::ours_command(&["info", PASSPHRASE], dir.root())
        .env("LD_PRELOAD", crate::build::scan())
        .env("SCAN_FOR", {
            let inverted: Vec<u8> = PASSPHRASE.bytes().map(|byte| !byte).collect();
            std::fs::write(dir.path("inverted"), inverted).unwrap();
            dir.path("inverted")
        })
        .output()
        .unwrap();
    assert_eq!(found.status.code(), Some(97), "{found:?}");
    let data = format!("secret,id=s,data={PASSPHRASE}");
    let json = format!("{{\"qom-type\":\"secret\",\"id\":\"s\",\"data\":\"{PASSPHRASE}\"}}");
    let coded = "secret,id=s,format=base64,data=Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ==";
    let coded_lines = "secret,id=s,format=base64,file=coded";
    std::fs::write(
        dir.path("coded"),
        "Y29ycmVjdC1ob3JzZS1i\nYXR0ZXJ5LXN0YXBsZQ==\n",
    )
    .unwrap();
    let forms = [&data, &json, coded, coded_lines, "secret,id=s,file=pass"];
    for object in forms {
        std::fs::remove_file(dir.path("l.luks")).ok();
        for args in [
            &[
                "create",
                "-q",
                "-f",
                "luks",
                "-o",
                "key-secret=s,iter-time=10",
                "l.luks",
                "1M",
            ][..],
            &[
                "map",
                "--image-opts",
                "driver=luks,key-secret=s,file.filename=l.luks",
            ],
            &["info", "l.luks"],
        ] {
            let args = [&args[..1], &["--object", object], &args[1..]].concat();
            let ran = scanned(&args, &dir);
            let expected = if args[0] == "map" { 1 } else { 0 };
            assert_eq!(
                ran.status.code(),
                Some(expected),
                "{object}: {args:?}: {ran:?}"
            );
        }
    }
    // What is refused leaves no copy and is not shown either.
    for object in [
        PASSPHRASE,
        &format!("secret,id=s,{PASSPHRASE}"),
        &format!("secret,id=s,data=x,{PASSPHRASE}=y"),
        &format!("secret,id=s,data={PASSPHRASE},file=pass"),
        &format!("secret,data={PASSPHRASE}"),
        &format!("{{\"qom-type\":\"{PASSPHRASE}\",\"id\":\"s\"}}"),
        &format!("{{\"qom-type\":\"secret\",\"id\":\"s\",\"data\":\"{PASSPHRASE}\""),
        &format!("{{\"qom-type\":\"secret\",\"id\":\"s\",\"data\":\"{PASSPHRASE}\\q\"}}"),
        &format!("{{{PASSPHRASE}"),
    ] {
        let ran = scanned(&["info", "--object", object, "l.luks"], &dir);
        assert_eq!(ran.status.code(), Some(1), "{object}: {ran:?}");
        assert!(!ran.stderr.is_empty());
        let text = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(!text.contains(PASSPHRASE), "{text}");
    }
}

/// A container that becomes longer shows noise in its new part, unlike a file: what is in it must not rely on zeroes.
#[test]
fn images_of_every_format_within_luks_hold_what_is_written() {
    use crate::pair::{ours, words};
    let pair = Pair::new();
    let dir = pair.ours();
    let run = |line: &str| {
        let ran = ours(&words(line), dir.root());
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
    };
    let mut disk = vec![0; 8 << 20];
    for at in (0..disk.len()).step_by(300 << 10) {
        disk[at + 4096..at + 5 * 1024].fill(at as u8 | 1);
    }
    pair.file("disk.raw", &disk);
    for format in [
        "qcow2",
        "qcow",
        "vmdk",
        "vdi",
        "vhdx",
        "vpc -o force_size=on",
        "qed",
        "parallels",
    ] {
        run(&format!("create -q -f {format} image 8M"));
        let format = format.split(' ').next().expect("a name");
        let whole = std::fs::read(dir.path("image")).expect("an image");
        let len = whole.len().next_multiple_of(512);
        pair.file("image", &[whole, vec![0; 512]].concat()[..len]);
        let _ = std::fs::remove_file(dir.path("l.luks"));
        run(&format!(
            "create -q {S} -f luks -o key-secret=s,iter-time=10 l.luks {len}"
        ));
        run(&format!(
            "convert {S} -n --target-image-opts -f raw image {LUKS}"
        ));
        let within =
            format!("driver={format},file.driver=luks,file.key-secret=s,file.file.filename=l.luks");
        run(&format!(
            "convert {S} -n --target-is-zero -S 4k --target-image-opts -f raw disk.raw {within}"
        ));
        run(&format!(
            "compare {S} --image-opts {within} driver=raw,file.filename=disk.raw"
        ));
    }
}

/// QEMU's tool leaves noise between the two ends there.
#[test]
fn a_commit_that_makes_a_luks_base_longer_leaves_no_noise() {
    use crate::pair::{ours, words};
    let pair = Pair::with(&["create -q zero.raw 1M"]);
    let dir = pair.ours();
    let run = |line: &str| {
        let ran = ours(&words(line), dir.root());
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
    };
    run(&format!(
        "create -q {S} -f luks -o key-secret=s,iter-time=10 l.luks 1M"
    ));
    run(&format!(
        "convert {S} -n --target-image-opts -f raw zero.raw {LUKS}"
    ));
    let base = r#"json:{"driver":"luks","key-secret":"s","file.filename":"l.luks"}"#;
    let create = format!("create -q {S} -f qcow2 -F luks -b");
    let mut create = words(&create);
    create.extend([base, "o.qcow2", "4M"]);
    let made = ours(&create, dir.root());
    assert_eq!(made.code, 0, "{made:?}");
    let mut write = words(S);
    write.extend(["-f", "qcow2", "-c", "write -P 7 2M 64k", "o.qcow2"]);
    let wrote = crate::common::run_in(dir.root(), "qemu-io", &write);
    assert_eq!(wrote.code, 0, "{wrote:?}");
    run(&format!("convert {S} -O raw o.qcow2 before.raw"));
    run(&format!("commit -q {S} o.qcow2"));
    run(&format!(
        "compare {S} --image-opts {LUKS} driver=raw,file.filename=before.raw"
    ));
}
