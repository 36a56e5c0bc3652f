//! `blkverify`: an image and a raw copy of it, which get the same writes and must read alike.

use std::io::IoSliceMut;
use std::sync::Arc;

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageExtent;
use crate::filter::differ::difference;
use crate::filter::{FileNames, FilterContext, FilterDriver, FilterName, ParsedName};
use crate::format::ChildSpec;
use crate::format::inflight::InFlight;
use crate::memory::IoBuf;
use crate::storage::{
    Durability, HostFile, Identity, Limits, LockRequest, Preallocation, Storage, ZeroFlags,
};
use crate::value::Map;

/// The filter.
pub static DRIVER: FilterDriver = FilterDriver {
    name: "blkverify",
    children: &[
        ChildSpec::required(RAW),
        ChildSpec {
            is_image: true,
            ..ChildSpec::required(TEST)
        },
    ],
    shows: Some(RAW),
    contents: None,
    holds_file: false,
    // The copy would not get them.
    passes_compressed: false,
    keeps_writers_out: false,
    open_options: &[],
    weak_options: &[],
    events: &[],
    open,
    file_names: Some(FileNames {
        parse: parse_file_name,
        options: &[("x-raw", RAW), ("x-image", TEST)],
    }),
    file_name: Some(file_name),
};

const RAW: &str = "raw";
const TEST: &str = "test";

/// Longer reads are compared in pieces of this size.
const PIECE: usize = 1 << 20;

fn open(mut context: FilterContext<'_>) -> Result<Arc<dyn Storage>> {
    let raw = context.take(RAW)?.storage;
    let test = context.take(TEST)?.storage;
    Ok(Arc::new(Verified {
        name: format_name(raw.name(), test.name()),
        raw,
        test,
        busy: InFlight::default(),
    }))
}

/// `blkverify:RAW:TEST`.
fn parse_file_name(name: &BStr) -> Result<ParsedName> {
    let rest = name.strip_prefix(b"blkverify:").unwrap_or(name);
    let (raw, test) = rest
        .split_once_str(":")
        .ok_or_else(|| Error::invalid("blkverify requires raw copy and original image path"))?;
    Ok(ParsedName {
        options: Map::new(),
        children: vec![(RAW, raw.into()), (TEST, test.into())],
    })
}

fn file_name(name: &FilterName<'_>) -> Option<BString> {
    // The first colon would end the name of the copy.
    let raw = name.child(RAW).filter(|raw| !raw.contains(&b':'))?;
    Some(format_name(raw, name.child(TEST)?))
}

fn format_name(raw: &BStr, test: &BStr) -> BString {
    bstr::concat([b"blkverify:", &**raw, b":", &**test]).into()
}

/// The bytes of two storages that must be the same.
#[derive(Debug)]
struct Verified {
    name: BString,
    raw: Arc<dyn Storage>,
    test: Arc<dyn Storage>,
    /// Two writes to one range reach both in the same order, and nothing is compared between them.
    busy: InFlight,
}

impl Verified {
    /// The outcome of a request that both got; where only one failed, the error says so.
    fn both(&self, raw: Result<()>, test: Result<()>, done: &str) -> Result<()> {
        let (failed, other, error) = match (raw, test) {
            (Ok(()), Ok(())) => return Ok(()),
            (Err(error), Err(_)) => return Err(error),
            (Err(error), Ok(())) => (&self.raw, &self.test, error),
            (Ok(()), Err(error)) => (&self.test, &self.raw, error),
        };
        let (failed, other) = (failed.name(), other.name());
        Err(error.context(format!(
            "'{other}' could be {done} and '{failed}' could not"
        )))
    }

    fn compare(&self, piece: &mut [u8], memory: &mut IoBuf, offset: u64) -> Result<()> {
        let copy = memory.room(piece.len())?;
        let raw = self.raw.read_at(copy, offset);
        let test = self.test.read_at(piece, offset);
        self.both(raw, test, "read")?;
        match copy == piece {
            true => Ok(()),
            false => Err(difference(
                (self.raw.name(), copy),
                (self.test.name(), piece),
                offset,
            )),
        }
    }

    fn alone(&self, offset: u64, len: u64) -> crate::format::inflight::Reservation<'_> {
        self.busy.reserve(offset..offset.saturating_add(len))
    }
}

impl Storage for Verified {
    fn name(&self) -> &BStr {
        self.name.as_bstr()
    }

    fn driver(&self) -> &'static str {
        DRIVER.name
    }

    fn identity(&self) -> Option<Identity> {
        // A read may fail here and succeed elsewhere, so these are not the same bytes.
        None
    }

    fn read_only(&self) -> bool {
        self.raw.read_only() || self.test.read_only()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let _alone = self.alone(offset, buf.len() as u64);
        let mut memory = IoBuf::new();
        let mut at = offset;
        for piece in buf.chunks_mut(PIECE) {
            self.compare(piece, &mut memory, at)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn try_read(&self, _: &mut [IoSliceMut<'_>], _: u64) -> Result<bool> {
        // Every read is compared.
        Ok(false)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let _alone = self.alone(offset, buf.len() as u64);
        let raw = self.raw.write_at(buf, offset);
        self.both(raw, self.test.write_at(buf, offset), "written")
    }

    fn len(&self) -> Result<u64> {
        self.test.len()
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        let _alone = self.alone(0, u64::MAX);
        let old = self.raw.len()?;
        if len < old {
            // What one has cut off cannot be put back when the other one refuses.
            self.raw.check_shrink(len)?;
            self.test.check_shrink(len)?;
        }
        self.raw.set_len(len, preallocation)?;
        self.test.set_len(len, preallocation).inspect_err(|_| {
            // The error to report is the first one.
            let _ = self.raw.set_len(old, Preallocation::Off);
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        let _alone = self.alone(offset, len);
        let raw = self.raw.write_zeroes(offset, len, flags);
        let test = self.test.write_zeroes(offset, len, flags);
        let slow = |done: &Result<()>| {
            let kind = done.as_ref().err().map(Error::kind);
            flags.contains(ZeroFlags::NO_FALLBACK) && kind == Some(ErrorKind::Unsupported)
        };
        // The caller then writes to both.
        match slow(&raw) {
            true => raw,
            false if slow(&test) => test,
            false => self.both(raw, test, "zeroed"),
        }
    }

    fn discard(&self, _: u64, _: u64) -> Result<()> {
        Err(Error::unsupported(format!(
            "'{}': what is discarded may read as something else in each of the two",
            self.name
        )))
    }

    fn sync(&self, durability: Durability) -> Result<()> {
        let raw = self.raw.sync(durability);
        raw.and(self.test.sync(durability))
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        let held = self.raw.len()?.saturating_sub(offset);
        if held == 0 {
            // A copy that is too short is found when the range is read.
            return Ok(StorageExtent {
                len,
                zero: false,
                allocated: true,
            });
        }
        self.raw.extent(offset, len.min(held))
    }

    fn limits(&self) -> Limits {
        Limits {
            writes_to_memory: false,
            ..self.raw.limits().both(self.test.limits())
        }
    }

    fn allocated_size(&self) -> Option<u64> {
        // As with QEMU's, which does not ask its children.
        None
    }

    fn lock(&self, request: LockRequest) -> Result<()> {
        self.raw.lock(request)?;
        self.test.lock(request)
    }

    fn host(&self) -> Option<&dyn HostFile> {
        // Calls on one descriptor would bypass the other storage.
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;
    use crate::storage::testing::{Calls, Fault, FaultyStorage};

    fn memories(raw: u8, test: u8) -> [Arc<MemoryStorage>; 2] {
        let memory = |name: &str, byte| MemoryStorage::with_bytes(name, vec![byte; 8192]);
        [memory("copy", raw), memory("image", test)].map(Arc::new)
    }

    fn over(raw: Arc<dyn Storage>, test: Arc<dyn Storage>) -> Verified {
        Verified {
            name: format_name(raw.name(), test.name()),
            raw,
            test,
            busy: InFlight::default(),
        }
    }

    #[test]
    fn file_names_have_the_copy_and_the_image() {
        let parsed = parse_file_name(BStr::new("blkverify:a:b:c")).unwrap();
        assert_eq!(parsed.children, [(RAW, "a".into()), (TEST, "b:c".into())]);
        assert!(parsed.options.is_empty());
        let error = parse_file_name(BStr::new("blkverify:a")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "blkverify requires raw copy and original image path"
        );
        let name = |raw: &str, test: &str| {
            file_name(&FilterName {
                options: &Map::new(),
                children: &[(RAW, Some(raw.into())), (TEST, Some(test.into()))],
            })
        };
        assert_eq!(name("a", "b:c"), Some("blkverify:a:b:c".into()));
        assert_eq!(name("a:b", "c"), None);
    }

    #[test]
    fn both_get_what_is_written_and_must_read_alike() {
        let [raw, test] = memories(0, 0);
        let verified = over(raw.clone(), test.clone());
        verified.write_at(&[7; 100], 1000).unwrap();
        verified.write_zeroes(1050, 10, ZeroFlags::empty()).unwrap();
        assert_eq!(raw.to_vec(), test.to_vec());
        let mut buf = [0; 300];
        verified.read_at(&mut buf, 900).unwrap();
        assert_eq!((buf[99], buf[100], buf[155], buf[199]), (0, 7, 0, 7));
        raw.write_at(&[1], 1024).unwrap();
        let error = verified.read_at(&mut buf, 900).unwrap_err();
        assert_eq!(
            error.to_string(),
            "'copy' and 'image' differ at offset 1024"
        );
        assert_eq!(error.offset(), Some(1024));
        verified.discard(0, 4096).unwrap_err();
    }

    #[test]
    fn a_failure_of_one_alone_names_both() {
        for nth in [0, 1] {
            let [raw, test] = memories(3, 3);
            let faulty = Arc::new(FaultyStorage::new(test));
            faulty.set_fault(Some(Fault {
                calls: Calls::READ | Calls::WRITE,
                nth,
                errno: libc::EIO,
                for_good: false,
                torn: false,
            }));
            let verified = over(raw, faulty);
            let mut buf = [0; 10];
            let read = verified.read_at(&mut buf, 0);
            let wrote = verified.write_at(&[3; 10], 0);
            let (failed, done) = if nth == 0 {
                (read, "read")
            } else {
                (wrote, "written")
            };
            let text = failed.unwrap_err().to_string();
            let expected =
                format!("'copy' could be {done} and 'image' could not: Input/output error");
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn both_change_their_length_or_none() {
        let [raw, test] = memories(1, 1);
        let verified = over(raw.clone(), test.clone());
        verified.set_len(10_000, Preallocation::Off).unwrap();
        assert_eq!((raw.len().unwrap(), test.len().unwrap()), (10_000, 10_000));
        let fixed: Arc<dyn Storage> =
            Arc::new(MemoryStorage::with_bytes("fixed", vec![1; 10_000]).into_read_only());
        let verified = over(raw.clone(), fixed);
        verified.set_len(20_000, Preallocation::Off).unwrap_err();
        assert_eq!(raw.len().unwrap(), 10_000);
    }
}
