//! Reads the file system that a guest has left on the disk. Nothing in it is trusted: every cluster may belong to one
//! file only, and every name must be valid on the host.

use std::collections::HashSet;
use std::ops::Range;

use bstr::{BString, ByteSlice};

use super::aliases::{folded, storable};
use super::disk::boot::Volume;
use super::disk::entry::{self, Entry, LEN, ShortName};
use super::disk::long_name::{self, Pieces};
use super::disk::{FIRST_CLUSTER, SECTOR, table};
use super::scan::STAGING;
use crate::error::{Error, ErrorKind, Result};
use crate::memory;

/// Number of bytes of the table to read at once.
const PIECE: usize = 4096;

/// Maximum size of a directory in bytes.
const MAX_LISTING: u64 = 2 << 20;

/// Maximum depth of directories, and maximum length of a name on the host.
const MAX_DEPTH: usize = 128;
const MAX_NAME: usize = 255;

/// Characters of code page 437 from 128 on, in which DOS writes short names.
const CODE_PAGE: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// Reads bytes of the disk.
pub(super) type Read<'a> = &'a dyn Fn(&mut [u8], u64) -> Result<()>;

/// A file or directory on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// Path from the root, with slashes between names; empty for the root.
    pub(super) path: BString,
    pub(super) is_directory: bool,
    pub(super) size: u32,
    /// Its clusters, in order.
    pub(super) runs: Vec<Range<u32>>,
}

struct Reader<'a> {
    read: Read<'a>,
    volume: Volume,
    /// A bit for each cluster, set if it is in use.
    used: Vec<u64>,
    piece: Vec<u8>,
    /// Offset of the current piece of the table.
    piece_at: Option<u64>,
    max_bytes: u64,
    bytes: u64,
}

/// Reads everything on the disk but the root, parents before their contents; also returns the volume.
///
/// # Errors
/// [`ErrorKind::Corrupt`] if it is not a consistent file system, [`ErrorKind::Limit`] if the list of its files exceeds
/// `max_bytes`; errors of reading.
pub(super) fn read_volume(
    read: Read<'_>,
    len: u64,
    max_bytes: u64,
) -> Result<(Volume, Vec<Written>)> {
    let volume = find_volume(read, len)?;
    let words = (volume.clusters() as usize + FIRST_CLUSTER as usize).div_ceil(64);
    let mut reader = Reader {
        read,
        volume,
        used: memory::filled(words, 0)?,
        piece: memory::filled(PIECE, 0)?,
        piece_at: None,
        max_bytes,
        bytes: 0,
    };
    let mut all = Vec::new();
    let root = reader.root()?;
    reader.listing(&root, b"".into(), 0, &mut all)?;
    let mut next = 0;
    while let Some(file) = all.get(next) {
        if file.is_directory {
            let (path, runs) = (file.path.clone(), file.runs.clone());
            let depth = path.iter().filter(|byte| **byte == b'/').count() + 1;
            let mut listed = Vec::new();
            reader.listing(&reader.places(&runs), path, depth, &mut listed)?;
            memory::reserve(&mut all, listed.len())?;
            all.append(&mut listed);
        }
        next += 1;
    }
    Ok((volume, all))
}

fn torn(what: impl Into<String>) -> Error {
    Error::corrupt(format!(
        "The FAT file system on the disk is not consistent: {}",
        what.into()
    ))
    .with_hint("The directory was left as it was")
}

/// Finds the volume, either at the start of the disk or in the first partition of a FAT type.
fn find_volume(read: Read<'_>, len: u64) -> Result<Volume> {
    let mut sector = [0; SECTOR as usize];
    read(&mut sector, 0)?;
    if let Some(volume) = Volume::from_bytes(&sector, 0, len / SECTOR) {
        return Ok(volume);
    }
    let entries = sector.get(446..510).unwrap_or_default();
    for partition in entries.chunks_exact(16) {
        let number = |at: usize| {
            let bytes = [
                partition[at],
                partition[at + 1],
                partition[at + 2],
                partition[at + 3],
            ];
            u32::from_le_bytes(bytes)
        };
        let start = number(8);
        let is_fat = matches!(partition[4], 1 | 4 | 6 | 0x0b | 0x0c | 0x0e);
        let room = (len / SECTOR).saturating_sub(u64::from(start));
        if is_fat && start > 0 && room > 0 && sector[510..] == [0x55, 0xaa] {
            let mut boot = [0; SECTOR as usize];
            read(&mut boot, u64::from(start) * SECTOR)?;
            let volume = Volume::from_bytes(&boot, start, room);
            return volume.ok_or_else(|| torn("its boot sector describes no volume"));
        }
    }
    Err(torn("there is no partition with one"))
}

impl Reader<'_> {
    /// Where the root directory is located on the disk.
    fn root(&mut self) -> Result<Vec<Range<u64>>> {
        if self.volume.root_cluster != 0 {
            let runs = self.chain(self.volume.root_cluster, "the root directory")?;
            return Ok(self.places(&runs));
        }
        let hidden = u64::from(self.volume.hidden);
        let start = (hidden + self.volume.root_start()) * SECTOR;
        let end = start + u64::from(self.volume.root_entries) * LEN as u64;
        Ok(std::iter::once(start..end).collect())
    }

    fn places(&self, runs: &[Range<u32>]) -> Vec<Range<u64>> {
        let offset = |cluster| self.volume.cluster_offset(cluster);
        runs.iter()
            .map(|run| offset(run.start)..offset(run.end))
            .collect()
    }

    fn table_entry(&mut self, cluster: u32) -> Result<u32> {
        let (at, len) = table::place(self.volume.fat, cluster);
        let start = (u64::from(self.volume.hidden) + u64::from(self.volume.reserved)) * SECTOR;
        let mut bytes = [0; 4];
        for (n, byte) in (at..).zip(bytes.iter_mut().take(len)) {
            let piece = n / PIECE as u64 * PIECE as u64;
            if self.piece_at != Some(piece) {
                self.piece_at = None;
                (self.read)(&mut self.piece, start + piece)?;
                self.piece_at = Some(piece);
            }
            *byte = self.piece[(n - piece) as usize];
        }
        Ok(table::from_bytes(self.volume.fat, cluster, bytes))
    }

    /// Follows a chain, and marks its clusters as used.
    fn chain(&mut self, first: u32, name: &str) -> Result<Vec<Range<u32>>> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        let mut cluster = first;
        let end = self.volume.clusters() + FIRST_CLUSTER;
        loop {
            if !(FIRST_CLUSTER..end).contains(&cluster) {
                return Err(torn(format!("the clusters of {name} do not end")));
            }
            let (word, bit) = ((cluster / 64) as usize, 1u64 << (cluster % 64));
            if self.used[word] & bit != 0 {
                return Err(torn(format!(
                    "a cluster of {name} belongs to something else too"
                )));
            }
            self.used[word] |= bit;
            match runs.last_mut() {
                Some(run) if run.end == cluster => run.end += 1,
                _ => {
                    self.count(size_of::<Range<u32>>())?;
                    memory::push(&mut runs, cluster..cluster + 1)?;
                }
            }
            let next = self.table_entry(cluster)?;
            if next > self.volume.fat.bad_cluster() {
                return Ok(runs);
            }
            cluster = next;
        }
    }

    fn count(&mut self, bytes: usize) -> Result<()> {
        self.bytes += bytes as u64;
        if self.bytes > self.max_bytes {
            return Err(Error::new(
                ErrorKind::Limit,
                "The list of files on the disk is too large for the open policy",
            ));
        }
        Ok(())
    }

    /// Adds the entries of a directory.
    fn listing(
        &mut self,
        places: &[Range<u64>],
        path: BString,
        depth: usize,
        all: &mut Vec<Written>,
    ) -> Result<()> {
        let length: u64 = places.iter().map(|place| place.end - place.start).sum();
        if length > MAX_LISTING || depth > MAX_DEPTH {
            return Err(torn(format!(
                "'{path}' is too large or too deep for a directory"
            )));
        }
        let mut names = HashSet::new();
        let mut pieces = Pieces::default();
        for place in places {
            let mut bytes = memory::filled((place.end - place.start) as usize, 0)?;
            (self.read)(&mut bytes, place.start)?;
            for bytes in bytes.as_chunks::<LEN>().0 {
                match (bytes[0], bytes[11]) {
                    (entry::END, _) => return Ok(()),
                    (entry::DELETED, _) => pieces.clear(),
                    (_, attributes) if attributes & 0x3f == long_name::ATTRIBUTES => {
                        pieces.take(bytes);
                    }
                    (_, attributes) if attributes & entry::VOLUME != 0 => pieces.clear(),
                    _ => {
                        let is_32 = self.volume.root_cluster != 0;
                        let found = Entry::from_bytes(bytes, is_32);
                        let is_dots = found.name == entry::DOT || found.name == entry::DOT_DOT;
                        if is_dots && depth > 0 {
                            pieces.clear();
                            continue;
                        }
                        let name = name_of(&found, &mut pieces)?;
                        names.try_reserve(1).map_err(|_| memory::lack())?;
                        if !names.insert(folded(&name)) {
                            return Err(torn(format!("two files in '{path}' are called '{name}'")));
                        }
                        let file = self.file(&found, &path, &name)?;
                        memory::push(all, file)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, found: &Entry, above: &BString, name: &str) -> Result<Written> {
        let mut path = above.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        self.count(size_of::<Written>() + path.len())?;
        let is_directory = found.attributes & entry::DIRECTORY != 0;
        let shown = format!("'{path}'");
        let runs = match found.cluster {
            0 if is_directory || found.size != 0 => {
                return Err(torn(format!("{shown} has no clusters")));
            }
            0 => Vec::new(),
            first => self.chain(first, &shown)?,
        };
        let clusters: u64 = runs.iter().map(|run| u64::from(run.end - run.start)).sum();
        let size = if is_directory { 0 } else { found.size };
        if u64::from(size) > clusters * self.volume.cluster_bytes() {
            return Err(torn(format!("{shown} is longer than its clusters")));
        }
        Ok(Written {
            path,
            is_directory,
            size,
            runs,
        })
    }
}

/// The name of an entry, checked to be valid on the host.
fn name_of(found: &Entry, pieces: &mut Pieces) -> Result<String> {
    let name = match pieces.finish(&found.name) {
        Some(units) => String::from_utf16(units).map_err(|_| torn("a name in it is no Unicode"))?,
        None => short_text(&found.name, found.small),
    };
    let good = storable(name.as_bytes()).is_ok()
        && !name.is_empty()
        && name.len() <= MAX_NAME
        && !name.starts_with(STAGING);
    match good {
        true => Ok(name),
        false => Err(Error::corrupt(format!(
            "The disk has a file '{}', and the host can have none of that name",
            name.as_bytes().escape_ascii()
        ))
        .with_hint("The directory was left as it was")),
    }
}

fn short_text(name: &ShortName, small: (bool, bool)) -> String {
    let part = |bytes: &[u8], small: bool| {
        let mut text = String::new();
        for byte in bytes.trim_end_with(|c| c == ' ') {
            let c = match byte.checked_sub(128) {
                None => char::from(*byte),
                Some(at) => CODE_PAGE.chars().nth(usize::from(at)).unwrap_or('_'),
            };
            text.push(if small { c.to_ascii_lowercase() } else { c });
        }
        text
    };
    let mut name = *name;
    if name[0] == 0x05 {
        // Stands for a first byte that would mark the entry as deleted.
        name[0] = entry::DELETED;
    }
    let (base, extension) = (part(&name[..8], small.0), part(&name[8..], small.1));
    match extension.is_empty() {
        true => base,
        false => format!("{base}.{extension}"),
    }
}
