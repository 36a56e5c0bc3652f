//! Turns a range of the sources into pieces: mapped, read, tested for zeroes, compressed.

use std::ops::Range;

use crate::codec::Encoder;
use crate::crew::Computing;
use crate::error::Result;
use crate::memory::IoBuf;
use crate::ops::zero::is_zero;

use super::buffer::Buffer;
use super::offload::Offload;
use super::piece::{Piece, PieceKind, Plain, Prepared, Span};
use super::plan::{Task, TaskKind};
use super::runs::{Run, RunKind};
use super::sink::Sink;
use super::sizes::{MIN_STEP, Shape};
use super::sources::Sources;

/// The shortest extent that is worth a system call of its own to share it.
const MIN_OFFLOAD: u64 = 64 << 10;

/// How a step of the range is treated. Ordered: a step that holds several kinds gets the last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Class {
    Untouched,
    Backed,
    Zero,
    Offload,
    Read,
}

/// A worker's tools for preparing.
pub(super) struct Preparer<'a> {
    sources: &'a Sources,
    offload: &'a Offload,
    sink: &'a dyn Sink,
    shape: Shape,
    computing: Option<&'a Computing>,
    encoder: Encoder,
    /// Plain bytes of a chunk that is being compressed.
    plain: Buffer,
    /// One compressed unit.
    unit: IoBuf,
    classes: Vec<Class>,
}

impl<'a> Preparer<'a> {
    pub fn new(
        sources: &'a Sources,
        offload: &'a Offload,
        sink: &'a dyn Sink,
        shape: Shape,
        computing: Option<&'a Computing>,
    ) -> Self {
        Self {
            sources,
            offload,
            sink,
            shape,
            computing,
            encoder: Encoder::default(),
            plain: Buffer::new(shape.chunk as usize),
            unit: IoBuf::new(),
            classes: Vec::new(),
        }
    }

    /// Maps, reads, tests and compresses the range of `task`; `buf` is a buffer to use.
    pub fn prepare(&mut self, task: &Task, buf: Buffer) -> Result<Prepared> {
        let mut prepared = Prepared {
            turn: task.turn,
            start: task.start,
            plain: Vec::new(),
            kept: None,
            len: task.len,
            moved: 0,
            buf,
            used: 0,
            pieces: Vec::new(),
            spans: Vec::new(),
            placed: Vec::new(),
        };
        match task.kind {
            TaskKind::Backed => {}
            TaskKind::Zero => {
                prepared.moved = self.shape.moved(&Run {
                    len: task.len,
                    kind: RunKind::Zero,
                });
                push_zero(&mut prepared, task.start, task.len);
            }
            TaskKind::Copy => self.copy(task, &mut prepared)?,
        }
        Ok(prepared)
    }

    fn copy(&mut self, task: &Task, prepared: &mut Prepared) -> Result<()> {
        let runs = self.runs(task)?;
        prepared.moved = runs.iter().map(|(_, run)| self.shape.moved(run)).sum();
        // A long task is one extent that is copied without being read.
        if task.len > self.shape.chunk {
            for (offset, run) in &runs {
                if let RunKind::Data {
                    plain: Some((storage, host_offset)),
                } = &run.kind
                {
                    prepared.pieces.push(Piece {
                        offset: *offset,
                        len: run.len,
                        kind: PieceKind::Offload {
                            storage: (*storage).clone(),
                            host_offset: *host_offset,
                        },
                    });
                }
            }
            return Ok(());
        }
        self.classify(task, &runs);
        let classes = std::mem::take(&mut self.classes);
        let mut first = 0;
        while first < classes.len() {
            let class = classes[first];
            let count = classes[first..].iter().take_while(|c| **c == class).count();
            let offset = task.start + first as u64 * self.shape.step;
            let end = (offset + count as u64 * self.shape.step).min(task.start + task.len);
            self.group(class, offset, end - offset, &runs, prepared)?;
            first += count;
        }
        self.classes = classes;
        Ok(())
    }

    /// The runs of the task's range, in order.
    fn runs(&self, task: &Task) -> Result<Vec<(u64, Run<'a>)>> {
        let end = task.start + task.len;
        let mut runs = Vec::new();
        let mut at = task.start;
        while at < end {
            let run = self.sources.map(at, end - at)?;
            let len = run.len;
            runs.push((at, run));
            at += len;
        }
        Ok(runs)
    }

    /// Finds for each step of the range how it is treated.
    fn classify(&mut self, task: &Task, runs: &[(u64, Run<'_>)]) {
        let step = self.shape.step;
        let index = |offset: u64| ((offset - task.start) / step) as usize;
        self.classes.clear();
        self.classes
            .resize(index(task.start + task.len + step - 1), Class::Untouched);
        for (offset, run) in runs {
            let class = match run.kind {
                RunKind::Backed => Class::Backed,
                RunKind::Zero if self.shape.keeps_sparse() => Class::Zero,
                RunKind::Zero | RunKind::Data { .. } => Class::Read,
            };
            for slot in &mut self.classes[index(*offset)..=index(offset + run.len - 1)] {
                *slot = match (*slot, class) {
                    (Class::Untouched, class) => class,
                    (old, class) if old == class => class,
                    // Mixed: what the step holds must be put together from its parts.
                    _ => Class::Read,
                };
            }
        }
        for (offset, run) in runs {
            if let Some((from, to)) = self.offloadable(task, *offset, run) {
                self.classes[index(from)..index(to)].fill(Class::Offload);
            }
        }
    }

    /// The steps of a run of data that are copied without being read.
    fn offloadable(&self, task: &Task, offset: u64, run: &Run<'_>) -> Option<(u64, u64)> {
        let RunKind::Data {
            plain: Some((storage, host_offset)),
        } = run.kind
        else {
            return None;
        };
        let skip = offset.next_multiple_of(self.shape.step) - offset;
        let to = offset + run.len;
        // The last step of the whole range may be short, the last block cannot be shared then.
        let to = to - to % self.shape.step;
        let from = offset + skip;
        let fits = !self.shape.compress
            && self.offload.covers(storage)
            && from >= task.start
            && to >= from + MIN_OFFLOAD
            && (host_offset + skip).is_multiple_of(MIN_STEP);
        fits.then_some((from, to))
    }

    fn group(
        &mut self,
        class: Class,
        offset: u64,
        len: u64,
        runs: &[(u64, Run<'_>)],
        prepared: &mut Prepared,
    ) -> Result<()> {
        match class {
            Class::Untouched | Class::Backed => {}
            Class::Zero => push_zero(prepared, offset, len),
            Class::Offload => {
                for (start, run) in runs {
                    let from = offset.max(*start);
                    let to = (offset + len).min(start + run.len);
                    if let RunKind::Data {
                        plain: Some((storage, host_offset)),
                    } = run.kind
                        && from < to
                    {
                        prepared.pieces.push(Piece {
                            offset: from,
                            len: to - from,
                            kind: PieceKind::Offload {
                                storage: storage.clone(),
                                host_offset: host_offset + (from - start),
                            },
                        });
                    }
                }
            }
            Class::Read if self.shape.compress && self.shape.encode_early => {
                if self.sources.checksum().is_some() {
                    return self.encode_and_keep(offset, len as usize, runs, prepared);
                }
                let mut plain = std::mem::replace(&mut self.plain, Buffer::new(0));
                let bytes = plain.room(0, len as usize)?;
                self.read(bytes, offset, runs)?;
                let place = self.computing.map(Computing::enter);
                self.encode(bytes, offset, prepared)?;
                drop(place);
                self.plain = plain;
            }
            Class::Read => {
                let at = prepared.used;
                self.read(prepared.buf.room(at, len as usize)?, offset, runs)?;
                prepared.used += len as usize;
                if self.sources.checksum().is_some() {
                    let len = len as usize;
                    prepared.plain.push(Plain { offset, len, at });
                }
                if self.shape.compress {
                    self.split_units(at, offset, prepared);
                } else {
                    self.split_plain(at, offset, prepared);
                }
            }
        }
        Ok(())
    }

    /// Reads and compresses a group; the bytes stay with the task until their checksum was taken.
    fn encode_and_keep(
        &mut self,
        offset: u64,
        len: usize,
        runs: &[(u64, Run<'_>)],
        prepared: &mut Prepared,
    ) -> Result<()> {
        let chunk = self.shape.chunk as usize;
        let mut kept = prepared.kept.take().unwrap_or_else(|| Buffer::new(chunk));
        let at = prepared.plain.iter().map(|plain| plain.len).sum();
        let bytes = kept.room(at, len)?;
        self.read(bytes, offset, runs)?;
        let place = self.computing.map(Computing::enter);
        self.encode(bytes, offset, prepared)?;
        drop(place);
        prepared.plain.push(Plain { offset, len, at });
        prepared.kept = Some(kept);
        Ok(())
    }

    /// Fills `buf` with guest bytes; runs of zeroes are not read.
    fn read(&self, buf: &mut [u8], offset: u64, runs: &[(u64, Run<'_>)]) -> Result<()> {
        let end = offset + buf.len() as u64;
        // Neighbouring runs that must be read are read at once.
        let mut pending = offset..offset;
        for (start, run) in runs {
            let (from, to) = ((*start).max(offset), (start + run.len).min(end));
            if from >= to {
                continue;
            }
            if matches!(run.kind, RunKind::Zero) {
                buf[(from - offset) as usize..(to - offset) as usize].fill(0);
                continue;
            }
            if from > pending.end {
                self.read_range(buf, offset, &pending)?;
                pending.start = from;
            }
            pending.end = to;
        }
        self.read_range(buf, offset, &pending)
    }

    fn read_range(&self, buf: &mut [u8], offset: u64, range: &Range<u64>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let part = &mut buf[(range.start - offset) as usize..(range.end - offset) as usize];
        self.sources.read(part, range.start)
    }

    /// Compresses whole units; units of zeroes are left out, units that do not shrink stay plain.
    fn encode(&mut self, plain: &[u8], offset: u64, prepared: &mut Prepared) -> Result<()> {
        for (n, unit) in plain.chunks(self.shape.encode_unit as usize).enumerate() {
            let offset = offset + n as u64 * self.shape.encode_unit;
            let len = unit.len() as u64;
            if self.shape.keeps_sparse() && is_zero(unit) {
                push_zero(prepared, offset, len);
                continue;
            }
            self.unit.clear();
            let shrunk = self
                .sink
                .encode(&mut self.encoder, offset, unit, &mut self.unit)?;
            let at = prepared.used;
            let bytes = if shrunk { &self.unit } else { unit };
            let room = prepared.buf.room(at, bytes.len())?;
            room.copy_from_slice(bytes);
            prepared.used += bytes.len();
            if shrunk {
                let kind = PieceKind::Encoded {
                    at,
                    len: self.unit.len(),
                };
                prepared.pieces.push(Piece { offset, len, kind });
            } else {
                push_data(prepared, offset, len);
                push_span(prepared, offset, unit.len(), at);
            }
        }
        Ok(())
    }

    /// Units for a sink that compresses them itself.
    fn split_units(&self, at: usize, offset: u64, prepared: &mut Prepared) {
        let unit = self.shape.encode_unit as usize;
        let mut from = at;
        while from < prepared.used {
            let to = (from + unit).min(prepared.used);
            let offset = offset + (from - at) as u64;
            if self.shape.keeps_sparse() && is_zero(prepared.buf.get(from, to - from)) {
                push_zero(prepared, offset, (to - from) as u64);
            } else {
                prepared.pieces.push(Piece {
                    offset,
                    len: (to - from) as u64,
                    kind: PieceKind::Encoded {
                        at: from,
                        len: to - from,
                    },
                });
            }
            from = to;
        }
    }

    /// Finds the units that hold data, and within them the bytes to write.
    fn split_plain(&self, at: usize, offset: u64, prepared: &mut Prepared) {
        let end = offset + (prepared.used - at) as u64;
        if !self.shape.keeps_sparse() {
            push_data(prepared, offset, end - offset);
            push_span(prepared, offset, (end - offset) as usize, at);
            return;
        }
        let unit = self.shape.zero_unit;
        let spans = data_spans(prepared.buf.get(at, prepared.used - at), self.shape.sparse);
        // Up to here everything has its piece.
        let mut done = offset;
        for (from, to) in spans {
            let (from, to) = (offset + from as u64, offset + to as u64);
            let unit_from = (from - from % unit).max(done);
            let unit_to = to.next_multiple_of(unit).min(end);
            if unit_from > done {
                push_zero(prepared, done, unit_from - done);
            }
            if unit_to > unit_from.max(done) {
                push_data(prepared, unit_from, unit_to - unit_from);
                if !self.shape.unwritten_is_zero {
                    let at = at + (unit_from - offset) as usize;
                    push_span(prepared, unit_from, (unit_to - unit_from) as usize, at);
                }
            }
            if self.shape.unwritten_is_zero {
                push_span(
                    prepared,
                    from,
                    (to - from) as usize,
                    at + (from - offset) as usize,
                );
            }
            done = done.max(unit_to);
        }
        if end > done {
            push_zero(prepared, done, end - done);
        }
    }
}

/// The parts of `buf` without runs of zeroes of `sparse` bytes or more.
fn data_spans(buf: &[u8], sparse: u64) -> Vec<(usize, usize)> {
    let grain = if sparse >= MIN_STEP {
        MIN_STEP as usize
    } else {
        512
    };
    let mut spans: Vec<(usize, usize)> = Vec::new();
    let mut from = 0;
    for piece in buf.chunks(grain) {
        let to = from + piece.len();
        if !is_zero(piece) {
            let gap = (from - spans.last().map_or(0, |last| last.1)) as u64;
            match spans.last_mut() {
                // A shorter run of zeroes is not worth leaving out.
                Some(last) if gap < sparse => last.1 = to,
                None if gap < sparse => spans.push((0, to)),
                _ => spans.push((from, to)),
            }
        }
        from = to;
    }
    if let Some(last) = spans.last_mut()
        && ((buf.len() - last.1) as u64) < sparse
    {
        last.1 = buf.len();
    }
    spans
}

fn push_zero(prepared: &mut Prepared, offset: u64, len: u64) {
    match prepared.pieces.last_mut() {
        Some(last) if matches!(last.kind, PieceKind::Zero) && last.offset + last.len == offset => {
            last.len += len;
        }
        _ => prepared.pieces.push(Piece {
            offset,
            len,
            kind: PieceKind::Zero,
        }),
    }
}

fn push_data(prepared: &mut Prepared, offset: u64, len: u64) {
    match prepared.pieces.last_mut() {
        Some(last) if matches!(last.kind, PieceKind::Data) && last.offset + last.len == offset => {
            last.len += len;
        }
        _ => prepared.pieces.push(Piece {
            offset,
            len,
            kind: PieceKind::Data,
        }),
    }
}

fn push_span(prepared: &mut Prepared, offset: u64, len: usize, at: usize) {
    match prepared.spans.last_mut() {
        Some(last) if last.offset + last.len as u64 == offset && last.at + last.len == at => {
            last.len += len;
        }
        _ => prepared.spans.push(Span { offset, len, at }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_runs_of_zeroes_stay_in_their_span() {
        let mut buf = vec![0; 64 << 10];
        assert!(data_spans(&buf, 4096).is_empty());
        buf[5000] = 1;
        buf[20480] = 1;
        assert_eq!(data_spans(&buf, 4096), [(4096, 8192), (20480, 24576)]);
        assert_eq!(data_spans(&buf, 16384), [(0, 24576)]);
        assert_eq!(data_spans(&buf, 65536), [(0, 65536)]);
        assert_eq!(data_spans(&buf, 512), [(4608, 5120), (20480, 20992)]);
        // A short rest at the end belongs to the data before it.
        buf.truncate(25000);
        assert_eq!(data_spans(&buf, 4096), [(4096, 8192), (20480, 25000)]);
    }
}
