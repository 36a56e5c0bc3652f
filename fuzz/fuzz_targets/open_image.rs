//! Any bytes as a file: opened as each format or as what they look like, read, checked and inspected.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use platter::format::{RepairMode, registry};
use platter::storage::Storage;
use platter::storage::memory::MemoryStorage;
use platter::{Image, OpenOptions};
use platter_fuzz::{check_image, inspect_file, look_at, policy};

fn file(bytes: &[u8]) -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::with_bytes("file", bytes.to_vec()))
}

fuzz_target!(|data: &[u8]| {
    let Some((first, bytes)) = data.split_first() else {
        return;
    };
    // Any other number leaves the format to be guessed.
    let format = registry::drivers().get(*first as usize);
    let options = OpenOptions {
        format: format.map(|driver| driver.name.to_owned()),
        policy: policy(),
        ..OpenOptions::default()
    };
    if let Ok(image) = Image::open_storage(file(bytes), &options) {
        look_at(&image);
    }
    let for_check = OpenOptions {
        for_check: true,
        ..options.clone()
    };
    if let Ok(image) = Image::open_storage(file(bytes), &for_check) {
        check_image(&image, RepairMode::Report);
    }
    if format.is_some() {
        let writable = OpenOptions {
            writable: true,
            ..options
        };
        if let Ok(image) = Image::open_storage(file(bytes), &writable) {
            let at = image.len() / 2;
            if image.len() >= 8192 {
                let _ = image.write_at(&[1; 4096], at);
                let _ = image.discard(0, 4096);
            }
            let _ = image.close();
        }
    }
    inspect_file(file(bytes), format.map(|driver| driver.name));
});
