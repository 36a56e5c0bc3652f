//! Turns a range of the sources into pieces: mapped, read, tested for zeroes, compressed.

use crate::codec::Encoder;
use crate::crew::Computing;
use crate::error::Result;
use crate::memory::IoBuf;
use crate::storage::ReadRange;
use crate::zero::is_zero;

use super::buffer::Buffer;
use super::offload::Offload;
use super::piece::{Piece, PieceKind, Plain, Prepared, Span};
use super::plan::{Task, TaskKind};
use super::runs::{Run, RunKind};
use super::sink::Sink;
use super::sizes::{CopySizes, MIN_STEP};
use super::sources::Sources;

/// Minimum length of an extent that is worth a system call of its own to share it.
const MIN_OFFLOAD: u64 = 64 << 10;

/// How a step of the range is handled. Ordered: a step with several kinds gets the last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Class {
    Untouched,
    Backed,
    Zero,
    Offload,
    Read,
}

/// Adjacent steps that are handled alike.
#[derive(Clone, Copy)]
struct Group {
    class: Class,
    offset: u64,
    len: usize,
}

/// What a worker needs for preparing ranges.
pub(super) struct Preparer<'a> {
    sources: &'a Sources,
    offload: &'a Offload,
    sink: &'a dyn Sink,
    sizes: CopySizes,
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
        sizes: CopySizes,
        computing: Option<&'a Computing>,
    ) -> Self {
        Self {
            sources,
            offload,
            sink,
            sizes,
            computing,
            encoder: Encoder::default(),
            plain: Buffer::new(sizes.chunk as usize),
            unit: IoBuf::new(),
            classes: Vec::new(),
        }
    }

    /// Maps, reads, tests and compresses the range of `task`; `buf` is the buffer to use.
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
                prepared.moved = self.sizes.moved(&Run {
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
        prepared.moved = runs.iter().map(|(_, run)| self.sizes.moved(run)).sum();
        // A long task is one extent that is copied without being read.
        if task.len > self.sizes.chunk {
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
        let groups = self.groups(task);
        let early = self.sizes.compress && self.sizes.encode_early;
        let mut bytes = match early {
            true if self.sources.checksum().is_some() => Buffer::new(self.sizes.chunk as usize),
            true => std::mem::replace(&mut self.plain, Buffer::new(0)),
            false => std::mem::replace(&mut prepared.buf, Buffer::new(0)),
        };
        self.read(&mut bytes, &groups, &runs)?;
        if early {
            self.encode_groups(&groups, &bytes, prepared)?;
            match self.sources.checksum().is_some() {
                true => prepared.kept = Some(bytes),
                false => self.plain = bytes,
            }
            return Ok(());
        }
        prepared.buf = bytes;
        for group in &groups {
            self.group(group, &runs, prepared);
        }
        Ok(())
    }

    /// Adjacent steps that are handled alike.
    fn groups(&self, task: &Task) -> Vec<Group> {
        let step = self.sizes.step;
        let end = task.start + task.len;
        let mut groups = Vec::new();
        let mut offset = task.start;
        for alike in self.classes.chunk_by(|a, b| a == b) {
            let to = (offset + alike.len() as u64 * step).min(end);
            groups.push(Group {
                class: alike[0],
                offset,
                len: (to - offset) as usize,
            });
            offset = to;
        }
        groups
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

    /// Determines how each step of the range is handled.
    fn classify(&mut self, task: &Task, runs: &[(u64, Run<'_>)]) {
        let step = self.sizes.step;
        let index = |offset: u64| ((offset - task.start) / step) as usize;
        self.classes.clear();
        self.classes
            .resize(index(task.start + task.len + step - 1), Class::Untouched);
        for (offset, run) in runs {
            let class = match run.kind {
                RunKind::Backed => Class::Backed,
                RunKind::Zero if self.sizes.keeps_sparse() => Class::Zero,
                RunKind::Zero | RunKind::Data { .. } => Class::Read,
            };
            for slot in &mut self.classes[index(*offset)..=index(offset + run.len - 1)] {
                *slot = match (*slot, class) {
                    (Class::Untouched, class) => class,
                    (old, class) if old == class => class,
                    // Mixed: the contents of the step must be assembled from its parts.
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
        let skip = offset.next_multiple_of(self.sizes.step) - offset;
        let to = offset + run.len;
        // The last step of the whole range may be short, and then its block cannot be shared.
        let to = to - to % self.sizes.step;
        let from = offset + skip;
        let fits = !self.sizes.compress
            && self.offload.covers(storage)
            && from >= task.start
            && to >= from + MIN_OFFLOAD
            && (host_offset + skip).is_multiple_of(MIN_STEP);
        fits.then_some((from, to))
    }

    /// Handles a group; if it is read, its bytes come next in the buffer.
    fn group(&self, group: &Group, runs: &[(u64, Run<'_>)], prepared: &mut Prepared) {
        let Group { class, offset, len } = *group;
        match class {
            Class::Untouched | Class::Backed => {}
            Class::Zero => push_zero(prepared, offset, len as u64),
            Class::Offload => {
                for (start, run) in runs {
                    let from = offset.max(*start);
                    let to = (offset + len as u64).min(start + run.len);
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
            Class::Read => {
                let at = prepared.used;
                prepared.used += len;
                if self.sources.checksum().is_some() {
                    prepared.plain.push(Plain { offset, len, at });
                }
                if self.sizes.compress {
                    self.split_units(at, offset, prepared);
                } else {
                    self.split_plain(at, offset, prepared);
                }
            }
        }
    }

    /// Compresses what was read; if a checksum is computed, the plain bytes stay with the task until then.
    fn encode_groups(
        &mut self,
        groups: &[Group],
        bytes: &Buffer,
        prepared: &mut Prepared,
    ) -> Result<()> {
        let mut at = 0;
        for Group { class, offset, len } in groups.iter().copied() {
            match class {
                Class::Zero => push_zero(prepared, offset, len as u64),
                Class::Read => {
                    let place = self.computing.map(Computing::enter);
                    self.encode(bytes.get(at, len), offset, prepared)?;
                    drop(place);
                    if self.sources.checksum().is_some() {
                        prepared.plain.push(Plain { offset, len, at });
                    }
                    at += len;
                }
                // Data that is compressed is never copied as it is.
                Class::Untouched | Class::Backed | Class::Offload => {}
            }
        }
        Ok(())
    }

    /// Fills `buffer` with the guest bytes of the groups that are read, one after the other: everything they need is
    /// requested at once, and runs of zeroes are not read.
    fn read(&self, buffer: &mut Buffer, groups: &[Group], runs: &[(u64, Run<'_>)]) -> Result<()> {
        let read = || groups.iter().filter(|group| group.class == Class::Read);
        let total = read().map(|group| group.len).sum();
        if total == 0 {
            return Ok(());
        }
        let mut rest = buffer.room(0, total)?;
        let mut ranges = Vec::new();
        for group in read() {
            let (bytes, behind) = rest.split_at_mut(group.len);
            cut(bytes, group.offset, runs, &mut ranges);
            rest = behind;
        }
        self.sources.read_many(&mut ranges)
    }

    /// Compresses whole units; units of zeroes are left out, units that do not shrink stay plain.
    fn encode(&mut self, plain: &[u8], offset: u64, prepared: &mut Prepared) -> Result<()> {
        for (n, unit) in plain.chunks(self.sizes.encode_unit as usize).enumerate() {
            let offset = offset + n as u64 * self.sizes.encode_unit;
            let len = unit.len() as u64;
            if self.sizes.keeps_sparse() && is_zero(unit) {
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

    /// Splits into units for a sink that compresses them itself.
    fn split_units(&self, at: usize, offset: u64, prepared: &mut Prepared) {
        let unit = self.sizes.encode_unit as usize;
        let mut from = at;
        while from < prepared.used {
            let to = (from + unit).min(prepared.used);
            let offset = offset + (from - at) as u64;
            if self.sizes.keeps_sparse() && is_zero(prepared.buf.get(from, to - from)) {
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

    /// Finds the units that hold data, and the bytes to write within them.
    fn split_plain(&self, at: usize, offset: u64, prepared: &mut Prepared) {
        let end = offset + (prepared.used - at) as u64;
        if !self.sizes.keeps_sparse() {
            push_data(prepared, offset, end - offset);
            push_span(prepared, offset, (end - offset) as usize, at);
            return;
        }
        let unit = self.sizes.zero_unit;
        let spans = data_spans(prepared.buf.get(at, prepared.used - at), self.sizes.sparse);
        // Everything up to here has its piece.
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
                if !self.sizes.unwritten_is_zero {
                    let at = at + (unit_from - offset) as usize;
                    push_span(prepared, unit_from, (unit_to - unit_from) as usize, at);
                }
            }
            if self.sizes.unwritten_is_zero {
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

/// Splits the guest bytes at `offset` into parts that must be read, with adjacent runs merged, and runs of zeroes,
/// which are filled in.
fn cut<'b>(
    mut buf: &'b mut [u8],
    offset: u64,
    runs: &[(u64, Run<'_>)],
    ranges: &mut Vec<ReadRange<'b>>,
) {
    let end = offset + buf.len() as u64;
    let is_zero = |run: &Run<'_>| matches!(run.kind, RunKind::Zero);
    let mut at = offset;
    for alike in runs.chunk_by(|a, b| is_zero(&a.1) == is_zero(&b.1)) {
        let [(_, first), ..] = alike else { continue };
        let to = alike
            .last()
            .map_or(at, |(start, run)| start + run.len)
            .min(end);
        if to <= at {
            continue;
        }
        let (part, behind) = buf.split_at_mut((to - at) as usize);
        match is_zero(first) {
            true => part.fill(0),
            false => ranges.push((at, part)),
        }
        (buf, at) = (behind, to);
    }
}

/// The parts of `buf` between runs of zeroes of at least `sparse` bytes.
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
        // A short remainder at the end belongs to the data before it.
        buf.truncate(25000);
        assert_eq!(data_spans(&buf, 4096), [(4096, 8192), (20480, 25000)]);
    }
}
