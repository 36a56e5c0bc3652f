//! The job that sends many requests to an image and measures the time.

use std::ffi::c_int;
use std::mem::MaybeUninit;

use crate::capi::boundary::{OutValue, call_out, check_flags, given};
use crate::capi::error::platter_error;
use crate::capi::image::{platter_image, shared_of};
use crate::capi::job::{NewJob, platter_job};
use crate::capi::report::Content;
use crate::capi::text::c_string;
use crate::error::{Error, Result};
use crate::ops::bench::{BenchRequest, bench};

/// Flag of `platter_bench_job_new()`: write instead of reading.
pub const PLATTER_BENCH_WRITE: u32 = 1;
/// Flag of `platter_bench_job_new()`: do not wait for the requests in flight before a flush.
pub const PLATTER_BENCH_NO_DRAIN: u32 = 2;
/// Flag of `platter_bench_job_new()`: as `PLATTER_QUEUE_THREADS`.
pub const PLATTER_BENCH_THREADS: u32 = 4;

/// The requests that `platter_bench_job_new()` sends. The caller owns it; `platter_bench_defaults()` fills it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct platter_bench {
    /// Total number of requests, by default 75000.
    pub count: u64,
    /// Number of requests in flight at a time, by default 64.
    pub depth: u64,
    /// Bytes of each request, by default 4096.
    pub buffer_size: u64,
    /// Guest offset of the first request, by default 0.
    pub offset: u64,
    /// Distance from the offset of one request to that of the next, which starts over at the end of the image. 0 stands
    /// for `buffer_size`.
    pub step: u64,
    /// Flush whenever the number of requests left is a multiple of this; by default 0, for never. Not below `depth`,
    /// and only for writes.
    pub flush_interval: u64,
    /// The byte to write, 0 to 255, by default 0.
    pub pattern: u32,
    /// 0.
    pub reserved: [u32; 9],
}

impl OutValue for platter_bench {
    fn empty() -> Self {
        Self::default()
    }
}

/// Fills `*out` with the defaults of `qemu-img bench`. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_bench_defaults(
    out: Option<&mut MaybeUninit<platter_bench>>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        let defaults = BenchRequest::default();
        Ok(platter_bench {
            count: defaults.count,
            depth: defaults.depth,
            buffer_size: defaults.buffer_size,
            offset: defaults.offset,
            step: defaults.step,
            flush_interval: defaults.flush_interval,
            ..platter_bench::default()
        })
    })
}

/// Creates a job that sends the requests of `bench` to `image` through a queue of its own and measures the time. With
/// `PLATTER_BENCH_WRITE` it overwrites the guest's data. `flags` are bits of `PLATTER_BENCH_*`. The job's summary
/// announces the test, in one line or two. The report has `requests`, `flushes`, `bytes`, `seconds` and
/// `requests-per-second`; progress counts requests. What a cancelled job has written stays written. The job keeps the
/// image alive. `*out` belongs to the caller, who frees it with `platter_job_free()`.
///
/// Statuses: INVALID; of the job: LIMIT where the buffers would take more than 4 GiB, and those of the
/// first request that fails. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_bench_job_new(
    out: Option<&mut MaybeUninit<*mut platter_job>>,
    image: Option<&platter_image>,
    bench: Option<&platter_bench>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(
            flags,
            PLATTER_BENCH_WRITE | PLATTER_BENCH_NO_DRAIN | PLATTER_BENCH_THREADS,
        )?;
        let images = vec![shared_of(image, "image")?];
        let request = request(given(bench, "bench")?, flags)?.checked()?;
        Ok(NewJob::with_rate().into_handle(
            "bench",
            Some(c_string(request.summary())),
            images,
            Box::new(move |job, images| {
                self::bench(images[0].clone(), &request, job).map(Content::Bench)
            }),
        ))
    })
}

fn request(from: &platter_bench, flags: u32) -> Result<BenchRequest> {
    if from.reserved != [0; 9] {
        return Err(Error::invalid(
            "Parameter 'bench' has reserved members that are not 0",
        ));
    }
    let pattern = u8::try_from(from.pattern).map_err(|_| {
        Error::invalid(format!(
            "The pattern {} is not a byte, 0 to 255",
            from.pattern
        ))
    })?;
    Ok(BenchRequest {
        count: from.count,
        depth: from.depth,
        buffer_size: from.buffer_size,
        offset: from.offset,
        step: from.step,
        write: (flags & PLATTER_BENCH_WRITE != 0).then_some(pattern),
        flush_interval: from.flush_interval,
        drain: flags & PLATTER_BENCH_NO_DRAIN == 0,
        ring: flags & PLATTER_BENCH_THREADS == 0,
    })
}
