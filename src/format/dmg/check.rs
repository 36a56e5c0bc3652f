//! The check: every chunk decodes, and the decoded bytes match the checksum in the image. QEMU has none for this
//! format.

use crc32fast::Hasher;

use crate::error::{Error, ErrorKind, Result};
use crate::format::CheckReport;
use crate::format::read_only::{SizedStorage, Verify, decode};
use crate::job::Job;
use crate::memory::IoBuf;

use super::disk::{Checksum, Chunk, Coding, Table};
use super::{Dmg, unit};

/// Maximum number of bytes to read at a time.
const PIECE: u64 = 1 << 20;

/// The state of a check.
struct Course<'a> {
    source: &'a SizedStorage,
    job: &'a mut Job,
    report: CheckReport,
    buf: IoBuf,
}

impl Verify for Dmg {
    fn verify(&self, source: &SizedStorage, job: &mut Job) -> Result<CheckReport> {
        let held = self.runs.chunks().iter().map(|chunk| chunk.held);
        let work = held.fold(self.data.1, u64::saturating_add);
        job.control().expect(work);
        let mut course = Course {
            source,
            job,
            report: CheckReport::default(),
            buf: IoBuf::new(),
        };
        course.data_fork(self)?;
        for table in &self.tables {
            course.table(self, table)?;
        }
        course.master(self);
        if !self.runs.cover(self.len) {
            course.bad("ERROR: the tables do not describe all sectors of the disk".to_owned());
        }
        Ok(course.report)
    }
}

impl Course<'_> {
    /// Reports damage.
    fn bad(&mut self, line: String) {
        self.report.corruptions += 1;
        self.job.note(line);
    }

    /// Reports what cannot be checked.
    fn open(&mut self, line: String) {
        self.report.check_errors += 1;
        self.job.note(line);
    }

    fn compare(&mut self, what: &str, found: u32, recorded: Checksum) {
        match recorded {
            Checksum::Crc32(recorded) if recorded != found => self.bad(format!(
                "ERROR: the checksum of {what} is {found:08x}, and recorded as {recorded:08x}"
            )),
            Checksum::Other(kind) => self.open(format!(
                "The checksum of {what} is of the kind {kind}, which is not compared"
            )),
            Checksum::Crc32(_) | Checksum::None => {}
        }
    }

    /// Adds bytes of the file to a checksum.
    fn file(&mut self, at: u64, len: u64, sum: &mut Hasher) -> Result<()> {
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(PIECE);
            let buf = self.buf.room(piece as usize)?;
            self.source.storage.read_at(buf, at + done)?;
            sum.update(buf);
            done += piece;
            self.job.control().advance(piece);
            self.job.tick()?;
        }
        Ok(())
    }

    /// Checks the bytes as stored in the file.
    fn data_fork(&mut self, image: &Dmg) -> Result<()> {
        let (at, len) = image.data;
        if image.data_sum == Checksum::None {
            return Ok(());
        }
        if at.checked_add(len).is_none_or(|end| end > self.source.len) {
            self.bad("ERROR: the data fork ends behind the end of the file".to_owned());
            return Ok(());
        }
        let mut sum = Hasher::new();
        self.file(at, len, &mut sum)?;
        self.compare("the data fork", sum.finalize(), image.data_sum);
        Ok(())
    }

    /// Checks the bytes to which the chunks of a table decode.
    fn table(&mut self, image: &Dmg, table: &Table) -> Result<()> {
        let mut sum = Hasher::new();
        let mut is_whole = true;
        let chunks = image.runs.chunks().get(table.chunks.clone());
        for chunk in chunks.unwrap_or_default() {
            self.job.tick()?;
            match self.chunk(chunk, &mut sum) {
                Ok(()) => {}
                Err(error) => {
                    let line = format!("ERROR: {error}");
                    match error.kind() {
                        ErrorKind::Corrupt => self.bad(line),
                        ErrorKind::Unsupported => self.open(line),
                        _ => return Err(error),
                    }
                    is_whole = false;
                }
            }
        }
        if is_whole {
            let what = format!("the table of sector {}", table.first);
            self.compare(&what, sum.finalize(), table.sum);
        }
        Ok(())
    }

    fn chunk(&mut self, chunk: &Chunk, sum: &mut Hasher) -> Result<()> {
        let lost = |why| Error::corrupt(format!("the chunk of offset {} {why}", chunk.guest));
        match chunk.coding {
            Coding::Free => {}
            Coding::Zero => zeroes(sum, chunk.len),
            Coding::Raw => {
                let held = chunk.held.min(chunk.len);
                let end = chunk.host.checked_add(held);
                if end.is_none_or(|end| end > self.source.len) {
                    return Err(lost("lies behind the end of the file"));
                }
                self.file(chunk.host, held, sum)?;
                zeroes(sum, chunk.len - held);
            }
            Coding::Packed(packing) => {
                let mut plain = std::mem::take(&mut self.buf);
                let decoded = plain
                    .room(chunk.len as usize)
                    .and_then(|out| decode(self.source, &unit(chunk, packing), out));
                sum.update(&plain);
                self.buf = plain;
                decoded?;
                self.job.control().advance(chunk.held);
            }
            Coding::Unknown(kind) => {
                let why = format!(
                    "the chunk of offset {} is of the unknown type {kind:x}",
                    chunk.guest
                );
                return Err(Error::unsupported(why));
            }
        }
        Ok(())
    }

    /// Checks the checksum of the checksums of the tables.
    fn master(&mut self, image: &Dmg) {
        if let Some(found) = image.master_found {
            self.compare("all tables", found, image.master);
        }
    }
}

/// Adds any number of zeroes to a checksum.
fn zeroes(sum: &mut Hasher, len: u64) {
    let mut power = Hasher::new();
    power.update(&[0]);
    let mut left = len;
    while left > 0 {
        if left & 1 == 1 {
            sum.combine(&power);
        }
        power.combine(&power.clone());
        left >>= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_count_as_if_they_were_there() {
        for len in [0, 1, 5, 4096, 100_001] {
            let (mut counted, mut there) = (Hasher::new(), Hasher::new());
            counted.update(b"before");
            there.update(b"before");
            zeroes(&mut counted, len);
            there.update(&vec![0; len as usize]);
            counted.update(b"behind");
            there.update(b"behind");
            assert_eq!(counted.finalize(), there.finalize(), "{len}");
        }
        // They must not be processed one by one.
        zeroes(&mut Hasher::new(), i64::MAX as u64);
    }
}
