//! New images: options, size, and the writer that fills them. Space from a cursor, one open table, the upper table and
//! the header last.

use std::io::IoSlice;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::codec::{Compression, Encoder, Method};
use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageSlot;
use crate::format::blocks::main_slot;
use crate::format::crypt::NewEncryption;
use crate::format::driver::{check_no_preallocation, own_file};
use crate::format::{
    BackingRef, Bulk, Contents, CreateParams, InitialContent, Measured, NewImage, Outline,
    PlannedFile, PrepareContext, Reserved,
};
use crate::job::JobControl;
use crate::memory::{self, IoBuf};
use crate::options::{COMPRESSION_LEVEL, OptionKind, OptionSpec, Values, option};
use crate::size::SECTOR;
use crate::storage::data_cipher::DataCipher;
use crate::storage::{Durability, Preallocation, Storage, ZeroFlags, first_sector, write_fresh};

use super::backing::{NAME_START, check_name};
use super::disk::{Crypt, Geometry, HEADER_LEN, Header, most_tables, word_of, word_of_packed};
use super::packed::encode_cluster;

/// Cluster and table bits: small clusters over a backing file, so that little of it is copied.
const BITS: (u8, u8) = (12, 9);
const OVERLAY_BITS: (u8, u8) = (9, 12);

/// How far ahead the growth of the file is announced.
const EXPECTED: u64 = 256 << 20;

/// Creation options.
pub(super) const OPTIONS: &[OptionSpec] = &[
    option(
        "backing_file",
        OptionKind::Name,
        "File name of a base image",
    ),
    option(
        "backing_fmt",
        OptionKind::Str,
        "Format of the backing image",
    ),
    option(
        COMPRESSION_LEVEL,
        OptionKind::Num,
        "How hard compressed writes try: 1 to 12 (default by the size of clusters: 11 up to 2 KiB, 6 up to 16 KiB, else 2)",
    ),
    option(
        "encrypt.format",
        OptionKind::Str,
        "Encrypt the image, format choices: 'aes'",
    ),
    option(
        "encrypt.key-secret",
        OptionKind::Str,
        "ID of the secret that provides the AES encryption key",
    ),
    option(
        "encryption",
        OptionKind::Bool,
        "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
    ),
    option("size", OptionKind::Size, "Virtual disk size"),
];

/// Keys of the "Formatting" line.
pub(super) const SUMMARY: &[(&str, Option<&str>)] = &[
    ("size", None),
    ("backing_file", None),
    ("backing_fmt", None),
    ("encryption", None),
    ("encrypt.format", None),
    ("encrypt.key-secret", None),
    (COMPRESSION_LEVEL, None),
];

/// See [`Outline`].
pub(super) fn outline(values: &Values) -> Outline {
    Outline {
        encrypted: values.str("encrypt.format").is_some()
            || values.bool("encryption") == Some(true),
        ..Outline::default()
    }
}

/// The specification of a new image.
#[derive(Debug)]
struct Spec {
    header: Header,
    size: u64,
    compression: Compression,
    /// The ID of the secret, if the image is encrypted.
    secret: Option<String>,
}

impl Spec {
    fn new(params: &CreateParams<'_>, measured: bool) -> Result<Self> {
        let values = params.values;
        check_no_preallocation(values)?;
        if params.size == 0 {
            return Err(Error::invalid(
                "Image size is too small, cannot be zero length",
            ));
        }
        let secret = secret(values, measured)?;
        let (mut name_offset, mut name_len) = (0, 0);
        if let Some(backing) = params.backing {
            check_name(backing)?;
            (name_offset, name_len) = (NAME_START, backing.name.len() as u32);
        }
        let (cluster_bits, l2_bits) = match params.backing {
            Some(_) => OVERLAY_BITS,
            None => BITS,
        };
        let name_end = NAME_START + u64::from(name_len);
        let header = Header {
            name_offset,
            name_len,
            mtime: 0,
            size: params.size,
            cluster_bits,
            l2_bits,
            crypt: match secret {
                Some(_) => Crypt::Aes,
                None => Crypt::None,
            },
            // After the first sector, so that another name can replace this one in that sector.
            l1_offset: name_end.next_multiple_of(8).max(SECTOR),
        };
        if header.size > i64::MAX as u64 || header.tables() > most_tables() {
            return Err(Error::new(ErrorKind::Limit, "Image too large").with_errno(libc::EFBIG));
        }
        let level = values.num(COMPRESSION_LEVEL).map(u64::cast_signed);
        let cluster = header.geometry().cluster();
        Ok(Self {
            header,
            size: params.size,
            compression: Compression::of_units(Method::Deflate, level, cluster)?,
            secret,
        })
    }

    /// Length of the file before any guest data.
    fn empty_len(&self) -> u64 {
        (self.header.l1_offset + self.header.tables() * 8).next_multiple_of(SECTOR)
    }
}

/// The ID of the secret, if the image is to be encrypted.
fn secret(values: &Values, measured: bool) -> Result<Option<String>> {
    let id = values.str("encrypt.key-secret");
    match (NewEncryption::of(values)?, id) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Error::invalid("Parameter 'encrypt.format' is missing")),
        (Some(NewEncryption::Aes), Some(id)) => Ok(Some(id.to_owned())),
        (Some(NewEncryption::Aes), None) if measured => Ok(Some(String::new())),
        (Some(NewEncryption::Aes), None) => Err(Error::needs_secret("encrypt.key-secret")),
        (Some(NewEncryption::Luks), _) => Err(Error::unsupported("Unsupported encryption format")),
    }
}

/// See [`crate::format::FormatDriver::measure`].
pub(super) fn measure(params: &CreateParams<'_>, contents: &mut Contents<'_>) -> Result<Measured> {
    let spec = Spec::new(params, true)?;
    let geometry = spec.header.geometry();
    let (data, tables) = match &mut contents.data_units {
        Some(count) => (count(geometry.cluster())?, count(geometry.covered())?),
        None => (0, 0),
    };
    let start = spec.empty_len();
    let len = |clusters: u64, tables: u64| {
        let tables = tables.saturating_mul(geometry.table_len());
        let data = clusters.saturating_mul(geometry.cluster());
        match tables.saturating_add(data) {
            0 => start,
            more => start
                .next_multiple_of(geometry.cluster())
                .saturating_add(more),
        }
    };
    Ok(Measured {
        required: len(data, tables),
        fully_allocated: len(spec.size.div_ceil(geometry.cluster()), spec.header.tables()),
        bitmaps: None,
    })
}

/// Checks the options.
pub(super) fn plan(params: &CreateParams<'_>) -> Result<Box<dyn NewImage>> {
    Ok(Box::new(NewQcow {
        spec: Spec::new(params, false)?,
        backing: params.backing.cloned(),
        cipher: None,
    }))
}

/// An image to be created.
#[derive(Debug)]
struct NewQcow {
    spec: Spec,
    backing: Option<BackingRef>,
    cipher: Option<DataCipher>,
}

impl NewImage for NewQcow {
    fn files(&self) -> Vec<PlannedFile> {
        vec![PlannedFile::own(self.spec.empty_len())]
    }

    fn prepare(&mut self, context: &PrepareContext<'_>) -> Result<()> {
        if let Some(id) = &self.spec.secret {
            let secret = context.objects.secret_text(id)?;
            self.cipher = Some(DataCipher::aes(secret.bytes())?);
        }
        Ok(())
    }

    fn start(
        self: Box<Self>,
        files: &[Arc<dyn Storage>],
        _control: &Arc<JobControl>,
    ) -> Result<Box<dyn Bulk>> {
        let storage = own_file(files)?.clone();
        let is_empty = storage.is_empty()?;
        let fresh = storage.limits().grown_is_zero && is_empty;
        if !is_empty {
            // A device: its old contents must not be taken for the header.
            storage.write_zeroes(0, 4096, ZeroFlags::empty())?;
        }
        let geometry = self.spec.header.geometry();
        Ok(Box::new(QcowBulk {
            storage,
            geometry,
            cipher: self.cipher,
            fresh,
            state: Mutex::new(State {
                tables: Vec::new(),
                words: memory::filled(geometry.per_table() as usize, 0)?,
                next: self.spec.empty_len(),
                next_guest: 0,
                expected: 0,
                finished: false,
            }),
            spec: self.spec,
            backing: self.backing,
        }))
    }
}

/// A new image that is being filled.
#[derive(Debug)]
struct QcowBulk {
    storage: Arc<dyn Storage>,
    spec: Spec,
    backing: Option<BackingRef>,
    geometry: Geometry,
    cipher: Option<DataCipher>,
    /// New space reads as zeroes.
    fresh: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The tables that hold anything, in order, each with its location. The last one is open.
    tables: Vec<(u32, u64)>,
    /// The entries of the open table.
    words: Vec<u64>,
    /// The end of everything allocated.
    next: u64,
    /// Guest bytes before this have been dealt with.
    next_guest: u64,
    /// The storage expects writes up to here.
    expected: u64,
    finished: bool,
}

impl QcowBulk {
    fn check_order(&self, state: &State, guest: u64, len: u64) -> Result<u64> {
        let cluster = self.geometry.cluster();
        let end = guest.checked_add(len).filter(|&end| {
            len > 0
                && end <= self.spec.size
                && guest.is_multiple_of(cluster)
                && (end.is_multiple_of(cluster) || end == self.spec.size)
        });
        match end {
            Some(end) if guest >= state.next_guest && !state.finished => Ok(end),
            _ => Err(Error::out_of_order(guest, len)),
        }
    }

    /// Writes the open table and begins another one, unless it has that number already.
    fn turn_to(&self, state: &mut State, table: u32) -> Result<()> {
        if state.tables.last().is_some_and(|(open, _)| *open == table) {
            return Ok(());
        }
        self.write_table(state)?;
        let host = place(state, self.geometry.table_len(), self.geometry.cluster())?;
        memory::push(&mut state.tables, (table, host))?;
        state.words.fill(0);
        Ok(())
    }

    fn write_table(&self, state: &State) -> Result<()> {
        match state.tables.last() {
            None => Ok(()),
            Some((_, host)) => {
                let bytes = memory::bytes_of(state.words.iter().copied())?;
                self.storage.write_at(&bytes, *host)
            }
        }
    }

    /// Announces the coming growth of the file to the storage, in large steps.
    fn hint_growth(&self, state: &mut State) {
        if state.next <= state.expected || !self.fresh {
            return;
        }
        let left = self.spec.size.saturating_sub(state.next_guest);
        state.expected = state.next.saturating_add(left.min(EXPECTED));
        if let Some(host) = self.storage.host() {
            host.hint_growth(state.expected);
        }
    }

    /// Writes the upper table; tables that hold nothing have no entry.
    fn write_l1(&self, state: &State) -> Result<()> {
        let start = self.spec.header.l1_offset;
        if !self.fresh {
            let len = self.spec.empty_len();
            self.storage.write_zeroes(0, len, ZeroFlags::empty())?;
        }
        // Neighbours together, in pieces.
        let mut run: (u64, IoBuf) = (0, IoBuf::new());
        for (index, host) in &state.tables {
            let at = start + u64::from(*index) * 8;
            if at != run.0 + run.1.len() as u64 || run.1.len() >= 1 << 20 {
                self.storage.write_at(&run.1, run.0)?;
                run.0 = at;
                run.1.clear();
            }
            run.1.extend_from_slice(&host.to_be_bytes())?;
        }
        self.storage.write_at(&run.1, run.0)
    }
}

/// Allocates that many bytes.
fn place(state: &mut State, len: u64, unit: u64) -> Result<u64> {
    let start = state.next.checked_next_multiple_of(unit);
    let found = start.and_then(|start| Some((start, start.checked_add(len)?)));
    match found.filter(|(_, end)| *end <= i64::MAX as u64) {
        Some((start, end)) => {
            state.next = end;
            Ok(start)
        }
        None => Err(too_large()),
    }
}

fn too_large() -> Error {
    Error::image_too_large().with_errno(libc::EFBIG)
}

impl Bulk for QcowBulk {
    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        main_slot(&self.storage, slot)
    }

    fn data_storages(&self) -> Vec<&Arc<dyn Storage>> {
        vec![&self.storage]
    }

    fn takes_raw_writes(&self) -> bool {
        self.cipher.is_none()
    }

    fn write_data(
        &self,
        (_, host): (StorageSlot, u64),
        guest_offset: u64,
        bufs: &[IoSlice<'_>],
    ) -> Result<()> {
        match &self.cipher {
            Some(cipher) => cipher.write(&*self.storage, bufs, host, guest_offset),
            None => write_fresh(&*self.storage, bufs, host),
        }
    }

    fn write_zero_data(
        &self,
        (_, host): (StorageSlot, u64),
        guest_offset: u64,
        len: u64,
    ) -> Result<()> {
        match &self.cipher {
            Some(cipher) => cipher.write_zeroes(&*self.storage, len, host, guest_offset),
            None => self.storage.write_zeroes(host, len, ZeroFlags::empty()),
        }
    }

    fn encode_unit(&self) -> Option<u32> {
        Some(self.geometry.cluster() as u32)
    }

    fn zero_unit(&self) -> u32 {
        self.geometry.cluster() as u32
    }

    fn alignment(&self) -> u64 {
        self.geometry.cluster()
    }

    fn initial_content(&self) -> InitialContent {
        InitialContent {
            unreserved_is_zero: true,
            // Zeroes on the host decrypt to noise.
            unwritten_is_zero: self.fresh && self.cipher.is_none(),
        }
    }

    fn encode(
        &self,
        scratch: &mut Encoder,
        _guest_offset: u64,
        unit: &[u8],
        out: &mut IoBuf,
    ) -> Result<bool> {
        if self.cipher.is_some() {
            return Err(Error::no_compression());
        }
        let cluster = self.geometry.cluster();
        encode_cluster(scratch, self.spec.compression, unit, cluster, out)
    }

    fn reserve(&self, guest_offset: u64, len: u64) -> Result<Reserved> {
        let state = &mut *self.state.lock();
        let end = self.check_order(state, guest_offset, len)?;
        let (table, first) = self.geometry.indices(guest_offset);
        self.turn_to(state, table)?;
        let cluster = self.geometry.cluster();
        let covered = self.geometry.covered();
        let end = end.min((guest_offset / covered + 1) * covered);
        let count = (end - guest_offset).div_ceil(cluster);
        let host = place(state, count * cluster, cluster)?;
        let words = state.words.iter_mut().skip(first as usize);
        for (n, word) in (0..count).zip(words) {
            *word = word_of(host + n * cluster).ok_or_else(too_large)?;
        }
        state.next_guest = end;
        self.hint_growth(state);
        Ok(Reserved {
            slot: StorageSlot::MAIN,
            offset: host,
            len: end - guest_offset,
        })
    }

    fn reserve_encoded(&self, guest_offset: u64, encoded_len: u32) -> Result<(StorageSlot, u64)> {
        let state = &mut *self.state.lock();
        let cluster = self.geometry.cluster();
        let len = cluster.min(self.spec.size.saturating_sub(guest_offset));
        let end = self.check_order(state, guest_offset, len)?;
        let (table, entry) = self.geometry.indices(guest_offset);
        self.turn_to(state, table)?;
        let len = u64::from(encoded_len);
        let host = place(state, len, SECTOR)?;
        let word = word_of_packed(host, len, self.geometry).ok_or_else(too_large)?;
        if let Some(place) = state.words.get_mut(entry as usize) {
            *place = word;
        }
        state.next_guest = end;
        self.hint_growth(state);
        Ok((StorageSlot::MAIN, host))
    }

    fn reserve_zero(&self, guest_offset: u64, len: u64) -> Result<()> {
        let state = &mut *self.state.lock();
        let end = self.check_order(state, guest_offset, len)?;
        if self.backing.is_some() {
            return Err(Error::unsupported(
                "The format has no clusters of zeroes without data",
            ));
        }
        state.next_guest = end;
        Ok(())
    }

    fn finish(&self, durability: Durability) -> Result<()> {
        let state = &mut *self.state.lock();
        state.finished = true;
        let out = &*self.storage;
        self.write_table(state)?;
        self.write_l1(state)?;
        let end = state.next.next_multiple_of(SECTOR);
        if !out.limits().fixed_len && out.len()? < end {
            out.set_len(end, Preallocation::Off)?;
        }
        let mut bytes = memory::zeroed(HEADER_LEN)?;
        bytes.copy_from_slice(&self.spec.header.to_bytes());
        if let Some(backing) = &self.backing {
            bytes.extend_from_slice(&backing.name)?;
        }
        let (first, rest) = first_sector(&bytes);
        if !rest.is_empty() {
            out.write_at(rest, SECTOR)?;
        }
        if durability == Durability::Synced {
            // The header must not reach the disk before what it points to.
            out.sync(durability)?;
        }
        out.write_at(first, 0)?;
        out.sync(durability)
    }
}
