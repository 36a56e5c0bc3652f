//! VMDK images with edits of headers, descriptors, directories, tables and compressed grains.
#![no_main]

use libfuzzer_sys::fuzz_target;
use platter_fuzz::by_hand::{redo_log, se_sparse, stream};
use platter_fuzz::kit::sample::{SAMPLES, Sample};
use platter_fuzz::kit::shelf;
use platter_fuzz::structures::{Case, Kind, Target};

static TARGET: Target = Target::new(Kind {
    format: "vmdk",
    big_endian: false,
    seal: |_| {},
    more: by_hand,
});

fn sample(name: &str) -> Sample {
    *SAMPLES
        .iter()
        .find(|sample| sample.name == name)
        .expect("a sample")
}

/// A descriptor of one extent, which stands in the second file.
fn descriptor(kind: &str, parent: &str, extent: &str) -> Vec<u8> {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID={parent}\ncreateType=\"{kind}\"\n\
         parentFileNameHint=\"base\"\nRW {extent} \"image-extent\"\n"
    )
    .into_bytes()
}

/// What is not created here.
fn by_hand() -> Vec<(Sample, Vec<Vec<u8>>)> {
    let (plain, overlay) = (sample("vmdk"), sample("vmdk overlay"));
    let mut guest = vec![0; 200 << 10];
    for (n, byte) in guest[64 << 10..].iter_mut().enumerate() {
        *byte = (n / 100) as u8;
    }
    let base = shelf::base(&overlay);
    let text = String::from_utf8_lossy(&base);
    let (_, cid) = text.split_once("\nCID=").expect("a descriptor");
    let redo = descriptor("vmfsSparse", &cid[..8], "8192 VMFSSPARSE");
    let sparse = descriptor("seSparse", &cid[..8], "32776 SESPARSE");
    vec![
        (plain, vec![stream(&guest, false), Vec::new(), Vec::new()]),
        (plain, vec![stream(&guest, true), Vec::new(), Vec::new()]),
        (overlay, vec![redo, redo_log(), base.clone()]),
        (overlay, vec![sparse, se_sparse(0), base.clone()]),
    ]
}

fuzz_target!(|case: Case| TARGET.run(&case));
