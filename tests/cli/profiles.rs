//! What products want of the images that they take: made for them, and judged when made elsewhere.

use std::path::Path;

use crate::common::{Dir, Ran};
use crate::pair::{ours, words};

fn disk() -> Dir {
    let dir = Dir::new();
    dir.qemu_img_ok(&words("create -q -f qcow2 disk.qcow2 30M"));
    dir.qemu_io(
        "qcow2",
        "disk.qcow2",
        &["write -P 5 64k 200k", "write -P 7 9M 3M"],
    );
    dir
}

fn run(dir: &Dir, line: &str) -> Ran {
    ours(&words(line), dir.root())
}

/// The reasons of a product, in a report that must list some or none.
fn objections(dir: &Dir, line: &str) -> Vec<String> {
    let ran = run(dir, line);
    let json: serde_json::Value =
        serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
    let found: Vec<String> = json["objections"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|objection| {
            assert_ne!(objection["remedy"], "", "{json}");
            objection["reason"].as_str().expect("a reason").to_owned()
        })
        .collect();
    if !found.is_empty() {
        assert_eq!((ran.code, &json["verdict"]), (2, &"fail".into()), "{json}");
    }
    found
}

#[test]
fn help_lists_every_profile_with_what_it_needs() {
    let dir = Dir::new();
    for command in ["convert --profile help", "inspect --profile help"] {
        let ran = run(&dir, command);
        assert_eq!((ran.code, &*ran.err), (0, ""), "{command}");
        for line in [
            "esxi: VMware ESXi, import of a disk\n    format vmdk, options subformat=streamOptimized,adapter_type=lsilogic\n",
            "esxi-datastore: ",
        ] {
            assert!(ran.out.contains(line), "{}", ran.out);
        }
    }
    for line in [
        "convert --profile no disk.qcow2 x",
        "inspect --profile no x",
    ] {
        let ran = run(&dir, line);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.contains("no profile 'no'; there are "), "{ran:?}");
    }
}

#[test]
fn what_is_made_for_esxi_is_taken_by_it_and_holds_the_same() {
    let dir = disk();
    for (profile, file) in [("esxi", "a.vmdk"), ("esxi-datastore", "b.vmdk")] {
        let ran = run(
            &dir,
            &format!("convert --profile {profile} disk.qcow2 {file}"),
        );
        assert_eq!((ran.code, &*ran.err), (0, ""), "{profile}");
        let line = format!("inspect --profile {profile} --output=json {file}");
        assert_eq!(objections(&dir, &line), Vec::<String>::new());
        if profile == "esxi" {
            // Of the datastore's two files QEMU's tools read the descriptor as well.
            assert_eq!(run(&dir, &line).code, 0);
        }
        dir.qemu_img_ok(&words(&format!("compare disk.qcow2 {file}")));
    }
    let text = std::fs::read(dir.path("a.vmdk")).expect("an image");
    let text = String::from_utf8_lossy(&text[512..4096]).into_owned();
    for line in [
        "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=",
        "ddb.adapterType = \"lsilogic\"\n",
        "ddb.geometry.heads = \"255\"\n",
        "ddb.toolsInstallType = \"4\"\n",
        "ddb.toolsVersion = \"2147483647\"\n",
        "ddb.virtualHWVersion = \"4\"\n",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    let cid = text.split("CID=").nth(1).expect("a content ID")[..8].to_owned();
    let long = text.split("longContentID = \"").nth(1).expect("a long one")[..32].to_owned();
    assert!(long.ends_with(&cid), "{cid} {long}");
    // The other product's.
    let found = objections(&dir, "inspect --profile esxi --output=json b.vmdk");
    assert!(found[0].contains("The type is vmfs"), "{found:?}");
    let found = objections(
        &dir,
        "inspect --profile esxi-datastore --output=json a.vmdk",
    );
    assert!(found[0].contains("disk type"), "{found:?}");
}

#[test]
fn what_is_made_for_hyperv_has_whole_physical_sectors() {
    let dir = disk();
    dir.qemu_img_ok(&words("resize -q disk.qcow2 31458816"));
    let ran = run(&dir, "convert --profile hyperv disk.qcow2 a.vhdx");
    assert_eq!((ran.code, &*ran.err), (0, ""));
    let line = "inspect --profile hyperv --output=json a.vhdx";
    assert_eq!(objections(&dir, line), Vec::<String>::new());
    assert_eq!(run(&dir, line).code, 0);
    let info = dir.qemu_img_ok(&words("info a.vhdx"));
    assert!(info.contains("(31461376 bytes)"), "{info}");
    let compared = dir.qemu_img_ok(&words("compare disk.qcow2 a.vhdx"));
    assert!(compared.contains("Images are identical."), "{compared}");
    let mut bytes = std::fs::read(dir.path("a.vhdx")).expect("an image");
    bytes[(64 << 10) + 8] ^= 1;
    std::fs::write(dir.path("a.vhdx"), bytes).expect("an image");
    let found = objections(&dir, line);
    assert_eq!(found, ["One of the two headers is damaged"]);
}

#[test]
fn what_is_made_for_azure_and_xen_has_a_size_that_counts() {
    let dir = disk();
    dir.qemu_img_ok(&words("resize -q disk.qcow2 31458816"));
    for (profile, file, size) in [("azure", "a.vhd", 31 << 20), ("xen", "x.vhd", 32u64 << 20)] {
        let ran = run(
            &dir,
            &format!("convert --profile {profile} disk.qcow2 {file}"),
        );
        assert_eq!((ran.code, &*ran.err), (0, ""), "{profile}");
        let line = format!("inspect --profile {profile} --output=json {file}");
        assert_eq!(objections(&dir, &line), Vec::<String>::new());
        let info = dir.qemu_img_ok(&words(&format!("info -f vpc {file}")));
        assert!(info.contains(&format!("({size} bytes)")), "{info}");
        let compare = format!("compare -F vpc disk.qcow2 {file}");
        let compared = dir.qemu_img_ok(&words(&compare));
        assert!(compared.contains("Images are identical."), "{compared}");
        if profile == "azure" {
            let len = std::fs::metadata(dir.path(file)).expect("a file").len();
            assert_eq!(len, size + 512);
        }
    }
    // As QEMU's tools make them, the size follows the geometry, and dynamic ones are not taken.
    for (options, reasons) in [
        ("subformat=fixed", &["no multiple of 1 MiB"][..]),
        (
            "subformat=dynamic,force_size=on",
            &["no multiple of", "a dynamic disk"],
        ),
    ] {
        dir.qemu_img_ok(&words(&format!(
            "convert -O vpc -o {options} disk.qcow2 q.vhd"
        )));
        let found = objections(&dir, "inspect --profile azure --output=json q.vhd");
        assert_eq!(found.len(), reasons.len(), "{found:?}");
        for (found, reason) in found.iter().zip(reasons) {
            assert!(found.contains(reason), "{found}");
        }
    }
}

/// Each profile, the multiple, least and most of its sizes, and the name of its product, as `help` tells them.
fn profiles(dir: &Dir) -> Vec<(String, [u64; 3], String)> {
    let help = run(dir, "convert --profile help").out;
    let mut found = Vec::new();
    let mut name = None;
    for line in help.lines() {
        if let Some(sizes) = line.trim_start().strip_prefix("sizes ") {
            let numbers: Vec<u64> = sizes
                .split(|byte: char| !byte.is_ascii_digit())
                .filter_map(|number| number.parse().ok())
                .collect();
            let (name, product): (&str, &str) = name.take().expect("a name");
            let sizes = [numbers[2], numbers[0], numbers[1]];
            found.push((name.to_owned(), sizes, product.to_owned()));
        } else if !line.starts_with(' ') {
            name = line.split_once(": ");
        }
    }
    assert_eq!(found.len(), 6, "{help}");
    found
}

#[test]
fn whatever_a_profile_makes_passes_its_own_check() {
    const MIB: u64 = 1 << 20;
    let dir = Dir::new();
    for (profile, [multiple, least, most], product) in profiles(&dir) {
        for size in [
            0,
            1,
            512,
            513,
            MIB - 512,
            MIB,
            MIB + 1,
            3 * MIB - 4096,
            19 * MIB,
            20 * MIB - 1,
            20 * MIB,
            21 * MIB,
            21 * MIB + 4095,
            least - 1,
            least + 1,
        ] {
            let file = std::fs::File::create(dir.path("source.raw")).expect("a file");
            file.set_len(size).expect("its length");
            if let Some(at) = size.checked_sub(3) {
                std::os::unix::fs::FileExt::write_all_at(&file, b"end", at).expect("its end");
            }
            let ran = run(
                &dir,
                &format!("convert -f raw --profile {profile} source.raw made"),
            );
            let sectors = size.next_multiple_of(512);
            let expected = sectors.max(least).next_multiple_of(multiple);
            let said = match sectors < least {
                true => {
                    format!(
                        "The disk has {expected} bytes instead of {sectors}: {product} takes none"
                    )
                }
                false => String::new(),
            };
            let what = format!("{profile} {size}: {ran:?}");
            assert!(ran.code == 0 && ran.err.contains(&said), "{what}");
            assert_eq!(
                ran.err.lines().count(),
                usize::from(sectors < least),
                "{what}"
            );
            let line = format!("inspect --profile {profile} --output=json made");
            assert_eq!(objections(&dir, &line), Vec::<String>::new(), "{what}");
            let format = match &*profile {
                "ova" => None,
                "hyperv" => Some("vhdx"),
                "azure" | "xen" => Some("vpc"),
                _ => Some("vmdk"),
            };
            if let Some(format) = format {
                let info = run(&dir, &format!("info -f {format} --output=json made"));
                let info: serde_json::Value = serde_json::from_str(&info.out).expect("JSON");
                assert_eq!(info["virtual-size"], expected, "{what}");
                let line = format!("compare -f raw -F {format} source.raw made");
                let compared = run(&dir, &line);
                assert!(
                    compared.out.contains("Images are identical."),
                    "{what} {compared:?}"
                );
            }
        }
        // As much as the product takes, where a file of the host can be so long.
        let null = format!(r#"json:{{"driver":"null-co","size":{most},"read-zeroes":true}}"#);
        std::fs::remove_file(dir.path("made")).unwrap_or_default();
        let ran = run(&dir, &format!("convert --profile {profile} {null} made"));
        if ran.code == 1 && ["azure", "esxi-datastore"].contains(&&*profile) {
            assert!(ran.err.contains("File too large"), "{profile} {ran:?}");
            assert!(!dir.path("made").exists(), "{profile}");
        } else {
            assert_eq!((ran.code, &*ran.err), (0, ""), "{profile}");
            let line = format!("inspect --profile {profile} --output=json made");
            assert_eq!(objections(&dir, &line), Vec::<String>::new(), "{profile}");
        }
        // More than the product takes is refused before anything is made, by a line that names the product.
        for size in [most + 1, most + multiple, 1 << 56] {
            let null = format!(r#"json:{{"driver":"null-co","size":{size},"read-zeroes":true}}"#);
            std::fs::remove_file(dir.path("made")).unwrap_or_default();
            let ran = run(&dir, &format!("convert --profile {profile} {null} made"));
            assert_eq!(
                (ran.code, ran.err.lines().count()),
                (1, 1),
                "{profile} {ran:?}"
            );
            assert!(
                ran.err.contains(&format!("{product} takes disks of ")),
                "{ran:?}"
            );
            assert!(!dir.path("made").exists(), "{profile} {size}");
        }
        // Neither does a size that is asked for lead past it.
        let ran = run(
            &dir,
            &format!("convert --profile {profile} -o size=512 source.raw made"),
        );
        if ran.code == 0 {
            let line = format!("inspect --profile {profile} --output=json made");
            assert_eq!(
                objections(&dir, &line),
                Vec::<String>::new(),
                "{profile} {ran:?}"
            );
        }
    }
}

#[test]
fn azure_takes_disks_of_more_than_two_tebibytes() {
    let dir = Dir::new();
    let sparse = |name: &str, len: u64| {
        let file = std::fs::File::create(dir.path(name)).expect("a file");
        file.set_len(len).expect("its length");
        std::os::unix::fs::FileExt::write_all_at(&file, b"end", len - 3).expect("its end");
    };
    sparse("big.raw", 3 << 40);
    let ran = run(&dir, "convert -f raw --profile azure big.raw big.vhd");
    assert_eq!((ran.code, &*ran.err), (0, ""));
    let len = std::fs::metadata(dir.path("big.vhd"))
        .expect("a file")
        .len();
    assert_eq!(len, (3 << 40) + 512);
    let line = "inspect --profile azure --output=json big.vhd";
    assert_eq!(objections(&dir, line), Vec::<String>::new());
    for line in [
        "compare -f raw -F vpc big.raw big.vhd",
        "check -f vpc big.vhd",
        "resize -q -f vpc big.vhd +1G",
    ] {
        let ran = run(&dir, line);
        assert_eq!((ran.code, &*ran.err), (0, ""), "{line}");
    }
    // What goes by its geometry, or has blocks, ends at 2040 GiB as before; and so does what Azure takes, later.
    for line in [
        "create -f vpc -o subformat=fixed a.vhd 2041G",
        "create -f vpc -o force_size=on a.vhd 2041G",
        "create -f vpc -o subformat=fixed,force_size=on a.vhd 32769G",
        "resize -f vpc big.vhd 32769G",
    ] {
        let ran = run(&dir, line);
        assert_eq!(ran.code, 1, "{line}");
        assert!(
            ran.err.contains("is too large for file format 'vpc'"),
            "{ran:?}"
        );
    }
    let ran = run(
        &dir,
        "measure -O vpc -o subformat=fixed,force_size=on --size 32T",
    );
    assert!(ran.out.contains("required size: 35184372089344"), "{ran:?}");
}

#[test]
fn what_esxi_would_refuse_in_a_foreign_file_is_said_with_the_remedy() {
    let dir = disk();
    dir.qemu_img_ok(&words(
        "convert -O vmdk -o subformat=streamOptimized disk.qcow2 ide.vmdk",
    ));
    let found = objections(&dir, "inspect --profile esxi --output=json ide.vmdk");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("The adapter is ide"), "{found:?}");
    dir.qemu_img_ok(&words("convert -O vmdk disk.qcow2 sparse.vmdk"));
    let found = objections(&dir, "inspect --profile esxi --output=json sparse.vmdk");
    assert!(
        found[0].contains("The type is monolithicSparse"),
        "{found:?}"
    );
    let found = objections(&dir, "inspect --profile esxi --output=json disk.qcow2");
    assert!(
        found[0].contains("no image in the format 'vmdk'"),
        "{found:?}"
    );
    // A stream whose grains are out of order: two entries of the first grain table change places.
    let ran = run(&dir, "convert --profile esxi disk.qcow2 stream.vmdk");
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut bytes = std::fs::read(dir.path("stream.vmdk")).expect("an image");
    let word = |bytes: &[u8], at: usize| {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes")) as usize
    };
    let table = word(&bytes, word(&bytes, 56) * 512) * 512;
    let (first, second) = (table + 4, table + 8);
    let words = [word(&bytes, first) as u32, word(&bytes, second) as u32];
    assert!(words[0] != 0 && words[0] < words[1]);
    bytes[first..first + 4].copy_from_slice(&words[1].to_le_bytes());
    bytes[second..second + 4].copy_from_slice(&words[0].to_le_bytes());
    std::fs::write(dir.path("stream.vmdk"), bytes).expect("an image");
    let found = objections(&dir, "inspect --profile esxi --output=json stream.vmdk");
    assert!(found[0].contains("out of order"), "{found:?}");
    let text = run(&dir, "inspect --profile esxi stream.vmdk").out;
    assert!(
        text.contains("    remedy: Convert it with the profile 'esxi'\n"),
        "{text}"
    );
    assert!(text.ends_with("1 objection)\n"), "{text}");
}

#[test]
fn tables_that_are_too_long_to_be_read_are_an_objection_and_no_failure() {
    let dir = Dir::new();
    let null = r#"json:{"driver":"null-co","size":2199023255552,"read-zeroes":true}"#;
    let ran = run(&dir, &format!("convert --profile esxi {null} sparse.vmdk"));
    assert_eq!((ran.code, &*ran.err), (0, ""));
    // Without the holes that say at once that most tables are empty.
    let bytes = std::fs::read(dir.path("sparse.vmdk")).expect("bytes");
    std::fs::write(dir.path("whole.vmdk"), bytes).expect("a copy");
    let found = |file: &str| {
        let line = format!("inspect --profile esxi --output=json {file}");
        objections(&dir, &line)
    };
    assert_eq!(found("sparse.vmdk"), Vec::<String>::new());
    let told = found("whole.vmdk");
    assert!(
        told.len() == 1 && told[0].starts_with("Whether grains are in order cannot be told"),
        "{told:?}"
    );
}

#[test]
fn what_a_profile_decides_cannot_be_decided_otherwise() {
    let dir = disk();
    for (line, reason) in [
        (
            "convert --profile esxi -O qcow2 disk.qcow2 x.vmdk",
            "--profile",
        ),
        ("convert --profile esxi -n disk.qcow2 x.vmdk", "--profile"),
        (
            "convert --profile esxi -o adapter_type=ide disk.qcow2 x.vmdk",
            "needs adapter_type=lsilogic, not ide",
        ),
    ] {
        let ran = run(&dir, line);
        assert_eq!(ran.code, 1, "{line}: {ran:?}");
        assert!(ran.err.contains(reason), "{line}: {ran:?}");
        assert!(!Path::new(&dir.path("x.vmdk")).exists(), "{line}");
    }
    let ran = run(
        &dir,
        "convert --profile esxi -o adapter_type=lsilogic,hwversion=6 disk.qcow2 x.vmdk",
    );
    assert_eq!((ran.code, &*ran.err), (0, ""));
}
