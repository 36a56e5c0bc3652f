"""Open images."""

from __future__ import annotations

import warnings
from types import TracebackType
from typing import Any, Iterator, List, Mapping, NamedTuple, Optional, Tuple, Type, Union

from . import jobs
from ._library import call, lib, made, name, number, optional_name, text
from ._native import ffi
from ._options import (
    Location,
    Nodes,
    Options,
    Policy,
    Secrets,
    Size,
    interruptible,
    location as location_of,
    opening,
    options as options_of,
    size as size_of,
)
from .errors import NotFound
from .jobs import Message, Progress, Report
from .storage import Storages

Readable = Union[bytes, bytearray, memoryview]


class Extent(NamedTuple):
    """A run of guest bytes of one kind."""

    offset: int
    length: int
    #: It occupies space in some layer.
    data: bool
    #: It reads as zeroes.
    zero: bool
    #: Some layer of the chain defines its contents.
    present: bool
    #: It is stored compressed.
    compressed: bool
    #: The layer that holds it: 0 is the image.
    depth: int
    #: Its offset in that layer's file, if it is stored there as is.
    host_offset: Optional[int]
    #: What a read would return is not known: a backing file is not open.
    unknown: bool


class Image:
    """An open image. Use it in a ``with`` statement, or call :meth:`close`.

    Reads and writes may come from several threads at once.

    >>> import platter, tempfile
    >>> from pathlib import Path
    >>> disk = Path(tempfile.mkdtemp()) / "disk.qcow2"
    >>> _ = platter.create(disk, "qcow2", "1M")
    >>> with platter.open(disk, format="qcow2", writable=True) as image:
    ...     image.write(4096, b"hello")
    ...     image.read(4094, 9)
    b'\\x00\\x00hello\\x00\\x00'
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def __enter__(self) -> Image:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if getattr(self, "_handle", None) is not None:
            _warn(f"unclosed image {self.filename!r}", ResourceWarning, source=self)
            self.close()

    @property
    def handle(self) -> Any:
        """The object of the library."""
        if self._handle is None:
            raise ValueError("the image is closed")
        return self._handle

    def close(self) -> None:
        """Writes out what is cached and closes the image. A failure means that data may be lost."""
        handle, self._handle = self._handle, None
        if handle is not None:
            call(lib.platter_image_close, handle, 0)

    @property
    def size(self) -> int:
        """The virtual size in bytes."""
        return int(number("uint64_t", lib.platter_image_size, self.handle, 0))

    @property
    def cluster_size(self) -> int:
        """The allocation unit in bytes; 0 if there is none."""
        try:
            return int(number("uint32_t", lib.platter_image_cluster_size, self.handle, 0))
        except NotFound:
            return 0

    @property
    def features(self) -> int:
        """What it supports: bits of ``PLATTER_FEATURE_*``, as those of :class:`Driver`."""
        return int(number("uint32_t", lib.platter_image_features, self.handle, 0))

    @property
    def format(self) -> str:
        """The name of the format."""
        return text(lib.platter_image_format(self.handle))

    @property
    def filename(self) -> str:
        """The name that opens it again."""
        return text(lib.platter_image_filename(self.handle))

    @property
    def read_only(self) -> bool:
        """Whether the image cannot be written to."""
        return bool(lib.platter_image_is_read_only(self.handle))

    @property
    def warnings(self) -> Tuple[str, ...]:
        """What was unusual when it was opened, one line each."""
        return jobs.lines(lib.platter_image_warning, self.handle)

    def __len__(self) -> int:
        return self.size

    def read(self, offset: int, length: int) -> bytes:
        """Reads ``length`` bytes at an offset; the range must lie within the image."""
        data = bytearray(length)
        self.readinto(offset, data)
        return bytes(data)

    def readinto(self, offset: int, buffer: Union[bytearray, memoryview]) -> None:
        """Fills a buffer with the bytes at an offset."""
        place = ffi.from_buffer(buffer, require_writable=True)
        call(lib.platter_image_read, self.handle, place, len(place), offset, 0)

    def write(self, offset: int, data: Readable, *, durable: bool = False) -> None:
        """Writes bytes at an offset; ``durable`` waits until they are on disk."""
        flags = lib.PLATTER_WRITE_FUA if durable else 0
        place = ffi.from_buffer(data)
        call(lib.platter_image_write, self.handle, place, len(place), offset, flags)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool = False) -> None:
        """Makes a range read as zeroes; ``unmap`` allows it to become a hole."""
        flags = lib.PLATTER_ZERO_MAY_UNMAP if unmap else 0
        call(lib.platter_image_write_zeroes, self.handle, offset, length, flags)

    def discard(self, offset: int, length: int) -> None:
        """Releases the space of a range."""
        call(lib.platter_image_discard, self.handle, offset, length, 0)

    def prefetch(self, offset: int, length: int) -> None:
        """Prefetches a range, so that reading it soon takes less time."""
        call(lib.platter_image_prefetch, self.handle, offset, length, 0)

    def flush(self) -> None:
        """Makes everything that was written durable."""
        call(lib.platter_image_flush, self.handle, 0)

    def extents(self, offset: int = 0, length: Optional[int] = None) -> Iterator[Extent]:
        """Yields the runs of a range, one after the other.

        >>> import platter, tempfile
        >>> from pathlib import Path
        >>> disk = Path(tempfile.mkdtemp()) / "disk.qcow2"
        >>> _ = platter.create(disk, "qcow2", "1M")
        >>> with platter.open(disk, format="qcow2", writable=True) as image:
        ...     image.write(65536, bytes(range(256)) * 256)
        ...     [(run.offset, run.length, run.data) for run in image.extents()]
        [(0, 65536, False), (65536, 65536, True), (131072, 917504, False)]
        """
        end = self.size if length is None else offset + length
        place = ffi.new("platter_extent *")
        while offset < end:
            call(lib.platter_image_extent, place, self.handle, offset, end - offset, 0)
            flags = place.flags
            has_offset = flags & lib.PLATTER_EXTENT_HOST_OFFSET
            yield Extent(
                offset=place.offset,
                length=place.length,
                data=bool(flags & lib.PLATTER_EXTENT_DATA),
                zero=bool(flags & lib.PLATTER_EXTENT_ZERO),
                present=bool(flags & lib.PLATTER_EXTENT_PRESENT),
                compressed=bool(flags & lib.PLATTER_EXTENT_COMPRESSED),
                depth=place.depth,
                host_offset=place.host_offset if has_offset else None,
                unknown=bool(flags & lib.PLATTER_EXTENT_UNKNOWN),
            )
            offset += place.length

    def check(
        self,
        *,
        repair: Optional[str] = None,
        hold_changes: bool = False,
        progress: Optional[Progress] = None,
        message: Optional[Message] = None,
    ) -> Report:
        """Checks the consistency; ``repair`` is ``leaks`` or ``all``. ``message`` is called with each finding.

        If other threads change the image in the meantime, this fails with ``BUSY``, unless they are held back.
        """
        flags = {
            None: 0,
            "leaks": lib.PLATTER_CHECK_REPAIR_LEAKS,
            "all": lib.PLATTER_CHECK_REPAIR_ALL,
        }[repair]
        if hold_changes:
            flags |= lib.PLATTER_CHECK_HOLD_CHANGES
        job = made("platter_job", lib.platter_check_job_new, self.handle, flags)
        return jobs.run(job, progress=progress, message=message)

    def resize(
        self,
        size: Size,
        *,
        shrink: bool = False,
        preallocation: Optional[str] = None,
        progress: Optional[Progress] = None,
    ) -> Report:
        """Changes the virtual size; a smaller one loses data, and requires ``shrink``."""
        flags = lib.PLATTER_RESIZE_SHRINK if shrink else 0
        job = made(
            "platter_job",
            lib.platter_resize_job_new,
            self.handle,
            size_of(size),
            optional_name(preallocation),
            flags,
        )
        return jobs.run(job, progress=progress)

    def amend(
        self, options: Options, *, secrets: Optional[Secrets] = None, force: bool = False
    ) -> Report:
        """Changes options of the format; ``force`` overwrites a key slot that is in use, and erases the last one."""
        from ._options import secrets as secrets_of

        job = made(
            "platter_job",
            lib.platter_amend_job_new,
            self.handle,
            options_of(options),
            secrets_of(secrets),
            lib.PLATTER_AMEND_FORCE if force else 0,
        )
        return jobs.run(job)

    def snapshots(self) -> List[Mapping[str, Any]]:
        """The internal snapshots, as ``info`` reports them."""
        found = jobs.query(lib.platter_snapshot_list, self.handle, 0).json()
        return list(found)

    def show_snapshot(self, snapshot: str) -> None:
        """Shows an internal snapshot in place of the current disk, read-only, until the image is closed."""
        call(lib.platter_snapshot_show, self.handle, name(snapshot), 0)

    def info(self) -> Mapping[str, Any]:
        """Describes the image, as ``info --output=json`` does."""
        found: Mapping[str, Any] = jobs.query(lib.platter_image_info, self.handle, 0).json()
        return found

    def bench(
        self,
        *,
        write: bool = False,
        drain: bool = True,
        threads: bool = False,
        progress: Optional[Progress] = None,
        **numbers: int,
    ) -> Report:
        """Sends many requests and measures the time; ``write`` overwrites the disk. ``numbers`` are ``count``,
        ``depth``, ``buffer_size``, ``offset``, ``step``, ``flush_interval`` and ``pattern``."""
        request = ffi.new("platter_bench *")
        call(lib.platter_bench_defaults, request, 0)
        for key, value in numbers.items():
            setattr(request, key, value)
        flags = lib.PLATTER_BENCH_WRITE if write else 0
        flags |= 0 if drain else lib.PLATTER_BENCH_NO_DRAIN
        flags |= lib.PLATTER_BENCH_THREADS if threads else 0
        job = made("platter_job", lib.platter_bench_job_new, self.handle, request, flags)
        return jobs.run(job, progress=progress)

    def create_snapshot(self, snapshot: str) -> None:
        """Takes an internal snapshot."""
        self._snapshot(lib.platter_snapshot_create_job_new, snapshot)

    def apply_snapshot(self, snapshot: str) -> None:
        """Reverts to an internal snapshot, by ID or name."""
        self._snapshot(lib.platter_snapshot_apply_job_new, snapshot)

    def delete_snapshot(self, snapshot: str) -> None:
        """Deletes an internal snapshot."""
        self._snapshot(lib.platter_snapshot_delete_job_new, snapshot)

    def _snapshot(self, function: Any, snapshot: str) -> None:
        jobs.run(made("platter_job", function, self.handle, name(snapshot), 0))

    def add_bitmap(self, bitmap: str, granularity: int = 0) -> None:
        """Adds a persistent dirty bitmap that records what is written from now on."""
        call(lib.platter_bitmap_add, self.handle, name(bitmap), granularity, 0)

    def remove_bitmap(self, bitmap: str) -> None:
        """Removes a dirty bitmap."""
        call(lib.platter_bitmap_remove, self.handle, name(bitmap), 0)

    def bitmaps(self) -> List[Mapping[str, Any]]:
        """The persistent dirty bitmaps: ``name``, ``granularity`` and ``flags``."""
        return list(jobs.query(lib.platter_bitmap_list, self.handle, 0).json())

    def enable_bitmap(self, bitmap: str) -> None:
        """Makes a dirty bitmap record again."""
        call(lib.platter_bitmap_enable, self.handle, name(bitmap), 0)

    def disable_bitmap(self, bitmap: str) -> None:
        """Stops a dirty bitmap from recording; what it has recorded stays."""
        call(lib.platter_bitmap_disable, self.handle, name(bitmap), 0)

    def merge_bitmap(self, bitmap: str, source: str, image: Optional[Image] = None) -> None:
        """Adds what is dirty in another bitmap, of this image or of another."""
        other = ffi.NULL if image is None else image.handle
        call(lib.platter_bitmap_merge, self.handle, name(bitmap), other, name(source), 0)

    def clear_bitmap(self, bitmap: str) -> None:
        """Marks everything as clean."""
        call(lib.platter_bitmap_clear, self.handle, name(bitmap), 0)

    def dirty(
        self, bitmap: str, offset: int = 0, length: Optional[int] = None
    ) -> List[Tuple[int, int]]:
        """Offset and length of the runs that are dirty in a bitmap."""
        length = self.size - offset if length is None else length
        report = jobs.query(
            lib.platter_bitmap_dirty, self.handle, name(bitmap), offset, length, 0
        )
        return [
            (report.number("start", index), report.number("length", index))
            for index in range(len(report))
        ]


def open(  # As the built-in function of the same name.
    location: Union[Location, int],
    *,
    format: Optional[str] = None,
    writable: bool = False,
    cache: Optional[str] = None,
    policy: Optional[Policy] = None,
    secrets: Optional[Secrets] = None,
    storages: Optional[Storages] = None,
    decompress: Optional[str] = None,
    options: Optional[Options] = None,
    discard: Optional[bool] = None,
    detect_zeroes: Optional[str] = None,
    compression_level: Optional[int] = None,
    nodes: Optional[Nodes] = None,
    force_share: bool = False,
    backing: bool = True,
    for_check: bool = False,
    deny_writers: bool = False,
) -> Image:
    """Opens an image by its location or by a descriptor. ``options`` are those of its driver. An interrupt aborts an
    open that takes long."""
    flags = 0
    for wanted, flag in (
        (writable, lib.PLATTER_OPEN_WRITE),
        (force_share, lib.PLATTER_OPEN_FORCE_SHARE),
        (not backing, lib.PLATTER_OPEN_NO_BACKING),
        (for_check, lib.PLATTER_OPEN_FOR_CHECK),
        (deny_writers, lib.PLATTER_OPEN_DENY_WRITERS),
    ):
        flags |= flag if wanted else 0
    place = ffi.new("platter_image **")

    def arguments(control: Any) -> Tuple[Any, ...]:
        how = opening(
            format=format,
            cache=cache,
            policy=policy,
            secrets=secrets,
            storages=storages,
            decompress=decompress,
            options=options,
            discard=discard,
            detect_zeroes=detect_zeroes,
            compression_level=compression_level,
            nodes=nodes,
            control=control,
        )
        if isinstance(location, int):
            return place, location, ffi.NULL, how, flags
        where, kind = location_of(location)
        return place, where, how, flags | kind

    function = lib.platter_image_open_fd if isinstance(location, int) else lib.platter_image_open
    interruptible(function, arguments)
    return Image(place[0])
