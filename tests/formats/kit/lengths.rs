//! Where the files of images end.

use super::sample::samples;
use super::shelf::{self, Access};

/// Tools that read whole sectors, and devices that have nothing else, lose the rest of a file otherwise.
#[test]
fn files_of_images_end_with_a_whole_sector() {
    let mut wrong = Vec::new();
    for sample in samples() {
        let files = shelf::created(sample);
        let mut look = |when: &str| {
            for (bytes, file) in shelf::bytes(&files).iter().zip(shelf::FILES).take(2) {
                // A description of the disk is a text.
                let is_text = bytes.starts_with(b"# Disk DescriptorFile");
                if !bytes.len().is_multiple_of(512) && !is_text {
                    wrong.push(format!(
                        "{}, {when}: {file} has {}",
                        sample.name,
                        bytes.len()
                    ));
                }
            }
        };
        look("new");
        let image = shelf::open(sample, &files, Access::Write).expect("it opens");
        if let Some(compressor) = image.compressor() {
            let unit = compressor.encode_unit() as usize;
            let mut bytes = vec![0; unit];
            bytes[7..1000.min(unit)].fill(7);
            compressor.write_compressed(&bytes, 0).expect("a write");
        }
        if !sample.is_stream {
            image.write_at(&[9; 700], 1_000_001).expect("a write");
        }
        image.close().expect("a close");
        look("written");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
