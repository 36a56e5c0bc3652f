//! The check of an open image.

use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::format::qcow2::Qcow2;
use crate::format::{Check, CheckReport, RepairMode};
use crate::job::Job;

impl Check for Qcow2 {
    fn check(&self, repair: RepairMode, job: &mut Job) -> Result<CheckReport> {
        if repair != RepairMode::Report {
            return Err(Error::unsupported(
                "This version cannot repair qcow2 images",
            ));
        }
        // What is cached must be on disk, where the check looks.
        if !self.read_only && !self.broken.load(Ordering::Acquire) {
            self.flush_all(self.durability)?;
        }
        let header = self.header.lock().clone();
        super::check(&*self.storage, &header, job)
    }
}
