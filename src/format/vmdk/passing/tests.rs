use super::*;

use crate::codec::{Compression, Encoder, Method};
use crate::error::ErrorKind;
use crate::format::vmdk::disk::marker::special;
use crate::format::vmdk::disk::sparse_header::{Flags, GD_AT_END};
use crate::format::vmdk::encode::encode_grain;

const GRAIN: usize = 4096;
/// Entries per grain table: few, so that there are several tables.
const ENTRIES: usize = 4;
const DESCRIPTOR: &str = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
    createType=\"streamOptimized\"\nRW 91 SPARSE \"a.vmdk\"\n";

/// Where the tables are.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Tables {
    InFront,
    Behind,
}

/// A guest whose last grain is short, with grains in the first and the third table.
fn guest() -> Vec<u8> {
    let mut bytes = vec![0; 11 * GRAIN + 3 * 512];
    for at in [1, 2, 9, 11] {
        let end = bytes.len().min((at + 1) * GRAIN);
        for (n, byte) in bytes[at * GRAIN..end].iter_mut().enumerate() {
            *byte = (n * (at + 3) / 7) as u8;
        }
    }
    bytes
}

struct Maker {
    file: Vec<u8>,
    words: Vec<u32>,
}

impl Maker {
    fn header(guest: &[u8], directory: u64) -> SparseHeader {
        SparseHeader {
            version: 3,
            flags: Flags::LINE_ENDS | Flags::COMPRESSED | Flags::MARKERS,
            capacity: (guest.len() / 512) as u64,
            grain: (GRAIN / 512) as u64,
            descriptor: 1,
            descriptor_len: 1,
            table_entries: ENTRIES as u32,
            redundant: 0,
            directory,
            has_footer: directory == GD_AT_END,
            overhead: 6,
            unclean: false,
            compression: 1,
        }
    }

    fn sector(&mut self, bytes: &[u8]) -> u32 {
        let place = (self.file.len() / 512) as u32;
        self.file.extend_from_slice(bytes);
        self.file.resize(self.file.len().next_multiple_of(512), 0);
        place
    }

    fn table(&self, table: usize) -> Vec<u8> {
        let words = self.words.iter().skip(table * ENTRIES).take(ENTRIES);
        words.flat_map(|word| word.to_le_bytes()).collect()
    }

    fn grain(&mut self, guest: &[u8], number: usize) {
        let start = number * GRAIN;
        let unit = &guest[start..guest.len().min(start + GRAIN)];
        let mut out = IoBuf::new();
        let compression = Compression::at_level(Method::Zlib, None).unwrap();
        encode_grain(
            &mut Encoder::default(),
            compression,
            start as u64,
            unit,
            &mut out,
        )
        .unwrap();
        self.words[number] = self.sector(&out);
    }
}

/// A stream with these grains, in this order.
fn stream(guest: &[u8], tables: Tables, grains: &[usize]) -> Vec<u8> {
    let count = guest.len().div_ceil(GRAIN).div_ceil(ENTRIES);
    let mut made = Maker {
        file: Vec::new(),
        words: vec![0; count * ENTRIES],
    };
    let directory = match tables {
        Tables::InFront => 2,
        Tables::Behind => GD_AT_END,
    };
    made.sector(&Maker::header(guest, directory).to_bytes());
    made.sector(DESCRIPTOR.as_bytes());
    made.file.resize(6 * 512, 0);
    let mut places = vec![0; count];
    for (n, number) in grains.iter().enumerate() {
        made.grain(guest, *number);
        let table = number / ENTRIES;
        let is_last = grains.get(n + 1).is_none_or(|next| next / ENTRIES != table);
        if tables == Tables::Behind && is_last {
            made.sector(&special(Special::Table, 1));
            places[table] = made.sector(&made.table(table));
        }
    }
    let of_places = |places: &[u32]| -> Vec<u8> {
        places
            .iter()
            .flat_map(|place| place.to_le_bytes())
            .collect()
    };
    match tables {
        Tables::InFront => {
            for (n, place) in (0..count).zip([3, 4, 5]) {
                let table = made.table(n);
                made.file[place * 512..][..table.len()].copy_from_slice(&table);
            }
            made.file[2 * 512..][..count * 4].copy_from_slice(&of_places(&[3, 4, 5]));
        }
        Tables::Behind => {
            made.sector(&special(Special::Progress, 1));
            made.sector(b"so far");
            made.sector(&special(Special::Directory, 1));
            let directory = made.sector(&of_places(&places));
            made.sector(&special(Special::Footer, 1));
            made.sector(&Maker::header(guest, u64::from(directory)).to_bytes());
        }
    }
    made.sector(&special(Special::EndOfStream, 0));
    made.file
}

/// Reads a whole file, in pieces of this length.
fn read(file: &[u8], piece: usize) -> Result<Vec<u8>> {
    let mut rest = file;
    let mut next = |buf: &mut [u8]| {
        let len = rest.len().min(buf.len());
        let (now, later) = rest.split_at(len);
        buf[..len].copy_from_slice(now);
        rest = later;
        Ok(len)
    };
    let mut image = open(&OpenPolicy::default(), &mut next)?;
    let len = image.virtual_size() as usize;
    // An image that lies about its size must not make this test allocate much memory.
    let mut guest = vec![0; len.min(1 << 20)];
    let mut at = 0;
    while at < guest.len() {
        let zeroes = image.zeroes(&mut next)?.min((guest.len() - at) as u64);
        if at % (2 * GRAIN) == 0 {
            image.pass(zeroes);
            at += zeroes as usize;
        }
        let end = guest.len().min(at + piece);
        image.read(&mut guest[at..end], &mut next)?;
        at = end;
    }
    image.end(&mut next)?;
    Ok(guest)
}

const GRAINS: [usize; 4] = [1, 2, 9, 11];
const LAYOUTS: [Tables; 2] = [Tables::InFront, Tables::Behind];

#[test]
fn the_guest_comes_out_whatever_the_pieces() {
    let guest = guest();
    for tables in LAYOUTS {
        let file = stream(&guest, tables, &GRAINS);
        for piece in [512, 4096, 1000, 1 << 20] {
            assert!(read(&file, piece).unwrap() == guest, "{tables:?} {piece}");
        }
        let mut padded = file.clone();
        padded.resize(file.len() + 5000, 0);
        assert!(read(&padded, 4096).unwrap() == guest);
        padded.push(1);
        assert_eq!(read(&padded, 4096).unwrap_err().kind(), ErrorKind::Corrupt);
        let empty = vec![0; guest.len()];
        assert!(read(&stream(&empty, tables, &[]), 4096).unwrap() == empty);
    }
}

#[test]
fn what_is_cut_off_is_told_wherever_it_ends() {
    let guest = guest();
    for tables in LAYOUTS {
        let file = stream(&guest, tables, &GRAINS);
        for len in 0..file.len() {
            match read(&file[..len], 4096) {
                // All grains to which the tables in front refer have been read.
                Ok(found) => {
                    assert!(tables == Tables::InFront && file.len() - len <= 2 * 512);
                    assert!(found == guest, "{len}");
                }
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotAnImage),
                    "{len}: {error}"
                ),
            }
        }
    }
}

#[test]
fn grains_that_are_missing_or_not_in_order_are_told() {
    let guest = guest();
    for tables in LAYOUTS {
        let whole = stream(&guest, tables, &GRAINS);
        let missing = stream(&guest, tables, &[1, 2, 11]);
        // Its tables refer to a grain that is missing.
        let cut: Vec<u8> = match tables {
            Tables::InFront => [&whole[..6 * 512], &missing[6 * 512..]].concat(),
            Tables::Behind => {
                let sectors = || (6..whole.len() / 512).map(|sector| sector * 512);
                let is_second = |at: &usize| whole[*at..].starts_with(&16u64.to_le_bytes());
                let is_table = |at: &usize| marker::is_special(&whole[*at..], Special::Table);
                let from = sectors().find(is_second).expect("the second grain");
                let to = sectors().find(is_table).expect("a table");
                [&whole[..from], &whole[to..]].concat()
            }
        };
        let error = read(&cut, 4096).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{tables:?}: {error}");
        let error = read(&stream(&guest, tables, &[2, 1, 9, 11]), 4096).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{tables:?}: {error}");
        let twice = read(&stream(&guest, tables, &[1, 1, 9, 11]), 4096).unwrap_err();
        assert_eq!(twice.kind(), ErrorKind::Unsupported, "{tables:?}: {twice}");
    }
}

#[test]
fn bytes_that_lie_are_errors_or_change_nothing_but_the_grain() {
    let guest = guest();
    for tables in LAYOUTS {
        let file = stream(&guest, tables, &GRAINS);
        for at in 0..file.len() {
            // Most of the descriptor's text does not matter here.
            if at % 512 >= 96 && at / 512 < 6 {
                continue;
            }
            let mut file = file.clone();
            file[at] ^= [0xff, 0x01, 0x80][at % 3];
            if let Ok(found) = read(&file, 4096) {
                assert!(found.len() <= 1 << 20, "{at}");
            }
        }
    }
}

#[test]
fn what_is_no_stream_is_refused_before_anything_is_made_of_it() {
    let guest = guest();
    let plain = SparseHeader {
        flags: Flags::LINE_ENDS,
        compression: 0,
        ..Maker::header(&guest, 2)
    };
    for (file, kind) in [
        (plain.to_bytes().to_vec(), ErrorKind::Unsupported),
        (DESCRIPTOR.as_bytes().to_vec(), ErrorKind::Unsupported),
        (b"COWD\x01\0\0\0".to_vec(), ErrorKind::Unsupported),
        (vec![7; 5000], ErrorKind::NotAnImage),
        (Vec::new(), ErrorKind::NotAnImage),
    ] {
        assert_eq!(read(&file, 512).unwrap_err().kind(), kind);
    }
    let mut child = stream(&guest, Tables::InFront, &GRAINS);
    let text = DESCRIPTOR.replace("ffffffff", "00000007");
    child[512..512 + text.len()].copy_from_slice(text.as_bytes());
    assert_eq!(
        read(&child, 512).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
}
