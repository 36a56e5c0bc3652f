//! The check: every chunk decodes and matches its checksum, and the disk matches the digests in the image.

use crate::crypto::{Hash, Hasher};
use crate::error::{ErrorKind, Result};
use crate::format::CheckReport;
use crate::format::read_only::{SizedStorage, Verify, decode};
use crate::job::Job;
use crate::memory::IoBuf;

use super::Ewf;

impl Verify for Ewf {
    fn verify(&self, source: &SizedStorage, job: &mut Job) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        let mut bad = |job: &mut Job, line: String| {
            report.corruptions += 1;
            job.note(line);
        };
        job.control().expect(self.volume.len);
        let mut md5 = self.hashes.md5.map(|found| (found, Hash::Md5.hasher()));
        let mut sha1 = self.hashes.sha1.map(|found| (found, Hash::Sha1.hasher()));
        if self.hashes.is_damaged {
            let line = "ERROR: the section with the digest of the disk does not have its checksum";
            bad(job, line.to_owned());
        }
        let mut is_whole = true;
        let mut buf = IoBuf::new();
        for number in 0..self.volume.chunks() {
            job.tick()?;
            let unit = match self.chunk(source, number) {
                Ok(Some(unit)) => Ok(unit),
                Ok(None) => {
                    let line = format!("ERROR: no table has chunk {number} and those behind it");
                    bad(job, line);
                    is_whole = false;
                    break;
                }
                Err(error) => Err(error),
            };
            let decoded = unit.and_then(|unit| {
                let plain = buf.room(unit.len as usize)?;
                decode(source, &unit, plain)
            });
            match decoded {
                Ok(()) => {
                    if let Some((_, hasher)) = &mut md5 {
                        hasher.update(&buf);
                    }
                    if let Some((_, hasher)) = &mut sha1 {
                        hasher.update(&buf);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    bad(job, format!("ERROR: {error}"));
                    is_whole = false;
                }
                Err(error) => return Err(error),
            }
            job.control().advance(buf.len() as u64);
        }
        if is_whole {
            compare("MD5", md5, |line| bad(job, line));
            compare("SHA1", sha1, |line| bad(job, line));
        }
        Ok(report)
    }
}

/// Compares a digest, if one is recorded.
fn compare<const LEN: usize>(
    name: &str,
    recorded: Option<([u8; LEN], Hasher)>,
    mut bad: impl FnMut(String),
) {
    let Some((recorded, hasher)) = recorded else {
        return;
    };
    let found = hasher.finish();
    if *found != recorded {
        bad(format!(
            "ERROR: the {name} of the disk is {}, and recorded as {}",
            hex(&found),
            hex(&recorded)
        ));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
