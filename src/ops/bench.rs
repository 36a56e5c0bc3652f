//! `bench`: many requests of one size on an image, several at a time, against the clock.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::job::Job;
use crate::ops::error_text::with_reason;
use crate::queue::{Buffer, Queue, QueueOptions, QueueTarget, Request};

/// Maximum of each number in a request.
pub const MAX_NUMBER: u64 = i32::MAX as u64;
/// Maximum memory for the buffers of all requests together.
const MAX_MEMORY: u64 = 4 << 30;
/// Requests between two checks of the job.
const TICK: u64 = 64;

/// What is to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BenchRequest {
    /// Total number of requests.
    pub count: u64,
    /// Number of requests in flight at a time.
    pub depth: u64,
    /// Bytes of each request.
    pub buffer_size: u64,
    /// Guest offset of the first request.
    pub offset: u64,
    /// Distance from the offset of one request to that of the next, which starts over at the end of the image; 0 stands
    /// for `buffer_size`.
    pub step: u64,
    /// Write this byte instead of reading.
    pub write: Option<u8>,
    /// Flush whenever the number of requests left is a multiple of this; 0 for never.
    pub flush_interval: u64,
    /// Wait for the requests in flight before a flush.
    pub drain: bool,
    /// Use io_uring if the kernel supports it.
    pub ring: bool,
}

impl Default for BenchRequest {
    fn default() -> Self {
        Self {
            count: 75_000,
            depth: 64,
            buffer_size: 4096,
            offset: 0,
            step: 0,
            write: None,
            flush_interval: 0,
            drain: true,
            ring: true,
        }
    }
}

/// The result of a benchmark.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BenchReport {
    /// Requests completed.
    pub requests: u64,
    /// Flushes completed.
    pub flushes: u64,
    /// Bytes read or written.
    pub bytes: u64,
    /// Elapsed time.
    pub time: Duration,
}

impl BenchRequest {
    /// Checks the request and fills in its step.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for numbers out of range.
    pub fn checked(mut self) -> Result<Self> {
        if self.step == 0 {
            self.step = self.buffer_size;
        }
        let ranges = [
            ("request count", self.count, 1),
            ("queue depth", self.depth, 1),
            ("buffer size", self.buffer_size, 1),
            ("step size", self.step, 0),
            ("flush interval", self.flush_interval, 0),
        ];
        for (what, number, least) in ranges {
            if !(least..=MAX_NUMBER).contains(&number) {
                return Err(Error::invalid(format!(
                    "The {what} {number} is not between {least} and {MAX_NUMBER}"
                )));
            }
        }
        if self.write.is_none() && self.flush_interval != 0 {
            return Err(Error::invalid("A flush interval is for writes alone"));
        }
        if self.flush_interval != 0 && self.flush_interval < self.depth {
            return Err(Error::invalid("Flush interval can't be smaller than depth"));
        }
        Ok(self)
    }

    /// The lines that `qemu-img bench` prints when it begins, joined by a newline.
    pub fn summary(&self) -> String {
        let mut text = format!(
            "Sending {} {} requests, {} bytes each, {} in parallel (starting at offset {}, step size {})",
            self.count,
            if self.write.is_some() {
                "write"
            } else {
                "read"
            },
            self.buffer_size,
            self.depth,
            self.offset,
            self.step,
        );
        if self.flush_interval != 0 {
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "\nSending flush every {} requests",
                self.flush_interval
            );
        }
        text
    }
}

/// Runs the requests on one thread's queue. What was written stays written, whatever happens. Progress counts requests.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for numbers out of range, [`crate::ErrorKind::Limit`] if the buffers would take too
/// much memory, [`crate::ErrorKind::Cancelled`], or the error of the first request that fails.
pub fn bench(
    target: Arc<dyn QueueTarget>,
    request: &BenchRequest,
    job: &mut Job,
) -> Result<BenchReport> {
    let request = request.checked()?;
    // No more requests than there are can be in flight.
    let depth = request.depth.min(request.count);
    if depth.saturating_mul(request.buffer_size) > MAX_MEMORY {
        return Err(Error::new(
            crate::ErrorKind::Limit,
            format!(
                "The buffers of {depth} requests of {} bytes would take more than {MAX_MEMORY} bytes",
                request.buffer_size
            ),
        ));
    }
    let mut run = Run::new(target, request, depth)?;
    job.control().set_total(request.count);
    job.tick()?;
    let begin = Instant::now();
    run.all(job)?;
    let time = begin.elapsed();
    job.finish()?;
    Ok(BenchReport {
        requests: request.count,
        flushes: run.flushes,
        bytes: request.count * request.buffer_size,
        time,
    })
}

/// Tokens that tell what a completion belongs to.
const DATA: u64 = 0;
const FLUSH: u64 = 1;

struct Run {
    queue: Queue,
    request: BenchRequest,
    depth: u64,
    len: u64,
    /// Buffers not used by any request.
    idle: Vec<Buffer>,
    offset: u64,
    /// Requests still to be submitted.
    left: u64,
    /// Data requests in flight.
    away: u64,
    flushes: u64,
}

impl Run {
    fn new(target: Arc<dyn QueueTarget>, request: BenchRequest, depth: u64) -> Result<Self> {
        let len = target.image().len();
        let options = QueueOptions {
            depth: u32::try_from(depth).map_or(crate::queue::MAX_DEPTH, |depth| {
                depth.min(crate::queue::MAX_DEPTH)
            }),
            event: false,
            ring: request.ring,
        };
        let fill = request.write.unwrap_or(0);
        let idle = (0..depth)
            .map(|_| Buffer::aligned(request.buffer_size as usize, fill))
            .collect::<Result<_, _>>()
            .map_err(|error| Error::io(&error))?;
        Ok(Self {
            queue: Queue::new(target, options)?,
            idle,
            offset: request.offset,
            left: request.count,
            away: 0,
            flushes: 0,
            request,
            depth,
            len,
        })
    }

    fn all(&mut self, job: &mut Job) -> Result<()> {
        while self.left > 0 {
            if self.left.is_multiple_of(TICK) {
                job.tick()?;
            }
            job.control().throttle(self.request.buffer_size)?;
            self.submit()?;
            let interval = self.request.flush_interval;
            if interval != 0 && self.left.is_multiple_of(interval) {
                if self.request.drain {
                    self.reap(self.away, job)?;
                }
                self.queue.submit(FLUSH, Request::Flush, false);
                self.flushes += 1;
                if self.request.drain {
                    self.reap_all(job)?;
                }
            }
            // Room for the next one.
            let min = u64::from(self.away >= self.depth);
            self.reap(min, job)?;
        }
        self.reap_all(job)
    }

    fn submit(&mut self) -> Result<()> {
        let offset = self.offset;
        let end = offset.checked_add(self.request.buffer_size);
        if end.is_none_or(|end| end > self.len) {
            // QEMU's error for a request past the end.
            return Err(failed(Error::os(libc::EIO)));
        }
        let Some(buffer) = self.idle.pop() else {
            return Ok(());
        };
        // If there is room, the next request follows at once.
        let more = self.left > 1 && self.away + 1 < self.depth;
        let request = if self.request.write.is_some() {
            Request::Write {
                buffer,
                offset,
                durable: false,
            }
        } else {
            Request::Read { buffer, offset }
        };
        self.queue.submit(DATA, request, more);
        self.left -= 1;
        self.away += 1;
        self.offset = self.offset.saturating_add(self.request.step);
        if self.len > 0 && self.offset >= self.len {
            self.offset %= self.len;
        }
        Ok(())
    }

    fn reap_all(&mut self, job: &mut Job) -> Result<()> {
        while self.queue.outstanding() > 0 {
            self.reap(1, job)?;
        }
        Ok(())
    }

    /// Takes at least `min` completions.
    fn reap(&mut self, min: u64, job: &mut Job) -> Result<()> {
        let mut taken = 0;
        loop {
            while let Some(done) = self.queue.pop() {
                taken += 1;
                done.result.map_err(failed)?;
                self.idle.extend(done.buffer);
                if done.token == DATA {
                    self.away -= 1;
                    job.control().advance(1);
                }
            }
            if taken >= min {
                return Ok(());
            }
            // Return to the job now and then, which may have been cancelled.
            self.queue.wait(1, Some(Duration::from_millis(100)))?;
            job.tick()?;
        }
    }
}

fn failed(error: Error) -> Error {
    with_reason("Failed request".into(), error)
}

impl BenchReport {
    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.time.as_secs_f64().max(1e-9)
    }

    /// The line that `qemu-img bench` prints when it ends.
    pub fn text(&self) -> String {
        format!("Run completed in {:.3} seconds.\n", self.time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{MemoryStorage, Storage};
    use crate::{ErrorKind, Image, OpenOptions, OpenPolicy};

    fn image(len: usize) -> Arc<Image> {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::with_bytes("m", vec![0; len]));
        let options = OpenOptions {
            format: Some("raw".into()),
            writable: true,
            policy: OpenPolicy::permissive(),
            ..OpenOptions::default()
        };
        Arc::new(Image::open_storage(storage, &options).unwrap())
    }

    #[test]
    fn every_request_is_done_and_offsets_begin_anew_at_the_end() {
        let image = image(1 << 20);
        let request = BenchRequest {
            count: 24,
            depth: 3,
            buffer_size: 512,
            offset: 1 << 19,
            step: 65536 + 512,
            write: Some(7),
            flush_interval: 4,
            ..BenchRequest::default()
        };
        let report = bench(image.clone(), &request, &mut Job::new()).unwrap();
        assert_eq!((report.requests, report.flushes), (24, 6));
        assert_eq!(report.bytes, 24 * 512);
        let mut bytes = vec![0; 1 << 20];
        image.read_at(&mut bytes, 0).unwrap();
        let mut expected = vec![0; 1 << 20];
        for n in 0..24 {
            let at = ((1 << 19) + n * (65536 + 512)) % (1 << 20);
            expected[at..at + 512].fill(7);
        }
        assert!(bytes == expected);
    }

    #[test]
    fn what_passes_the_end_fails_and_a_cancelled_job_ends() {
        let image = image(1 << 20);
        let request = BenchRequest {
            offset: 1 << 20,
            ..BenchRequest::default()
        };
        let error = bench(image.clone(), &request, &mut Job::new()).unwrap_err();
        assert_eq!(error.to_string(), "Failed request: Input/output error");
        let mut job = Job::new();
        job.control().set_deadline(Some(Duration::from_nanos(1)));
        let endless = BenchRequest {
            count: MAX_NUMBER,
            ..BenchRequest::default()
        };
        let error = bench(image.clone(), &endless, &mut job).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        let huge = BenchRequest {
            buffer_size: MAX_NUMBER,
            ..BenchRequest::default()
        };
        let error = bench(image, &huge, &mut Job::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
    }
}
