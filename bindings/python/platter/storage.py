"""Storages that the program provides under names of its own: descriptors, Python objects, open images."""

from __future__ import annotations

import errno
import sys
import threading
from typing import IO, TYPE_CHECKING, Any, Callable, Mapping, Optional, Protocol, Set, Union

from ._library import call, lib, made, name
from ._native import ffi

if TYPE_CHECKING:
    from .image import Image


class Storage(Protocol):
    """Bytes that the program stores. Methods may be called from any thread, and from several at once.

    Besides these methods an object may have ``write(offset, data)`` with ``flush()``, without which it is
    read-only, and ``resize(size)``, without which its size is fixed. The errno and the message of an ``OSError`` are
    passed on to whoever reads or writes.
    """

    def size(self) -> int:
        """The size in bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """Returns exactly ``length`` bytes, which lie within the size."""


#: What a name may stand for: a descriptor or a file with one, a storage, or an image.
Kept = Union[int, IO[Any], Storage, "Image"]

_kept: Set[Any] = set()
_members = dict(ffi.typeof("platter_storage_ops").fields)

#: The message of the last method that failed on a thread.
_failed = threading.local()


def _callback(kind: Any) -> Callable[[Callable[..., Any]], Any]:
    """Makes a callback of one of the library's types."""

    def made_callback(function: Callable[..., Any]) -> Any:
        return ffi.callback(kind, function)

    return made_callback


def _status(function: Any) -> Any:
    """Calls a method of a storage; returns 0 or a negative errno."""

    def guarded(*arguments: Any) -> int:
        try:
            function(*arguments)
            return 0
        except OSError as error:
            words = str(error.strerror or error)
            _failed.words = ffi.new("char[]", words.encode(errors="replace").replace(b"\0", b" "))
            return -(error.errno or errno.EIO)
        except BaseException:  # No exception may propagate into the library.
            sys.unraisablehook(
                type(
                    "Unraisable",
                    (),
                    {
                        "exc_type": sys.exc_info()[0],
                        "exc_value": sys.exc_info()[1],
                        "exc_traceback": sys.exc_info()[2],
                        "err_msg": "Exception ignored in a storage of platter",
                        "object": function,
                    },
                )()
            )
            return -errno.EIO

    return guarded


@_callback(_members["read"].type)
@_status
def _read(buffer: Any, length: int, offset: int, user_data: Any) -> None:
    data = ffi.from_handle(user_data).read(offset, length)
    if len(data) != length:
        raise OSError(errno.EIO, f"read gave {len(data)} of {length} bytes")
    ffi.memmove(buffer, data, length)


@_callback(_members["size"].type)
@_status
def _size(size: Any, user_data: Any) -> None:
    size[0] = ffi.from_handle(user_data).size()


@_callback(_members["write"].type)
@_status
def _write(buffer: Any, length: int, offset: int, user_data: Any) -> None:
    ffi.from_handle(user_data).write(offset, bytes(ffi.buffer(buffer, length)))


@_callback(_members["flush"].type)
@_status
def _flush(user_data: Any) -> None:
    ffi.from_handle(user_data).flush()


@_callback(_members["set_size"].type)
@_status
def _resize(size: int, user_data: Any) -> None:
    ffi.from_handle(user_data).resize(size)


@_callback(_members["message"].type)
def _message(code: int, user_data: Any) -> Any:
    # It is read before the next call on this thread.
    _failed.told = getattr(_failed, "words", ffi.NULL)
    _failed.words = ffi.NULL
    return _failed.told


@_callback("platter_free_fn")
def _free(user_data: Any) -> None:
    _kept.discard(user_data)


def _operations(storage: Storage) -> Any:
    operations = ffi.new("platter_storage_ops *")
    operations.read = _read
    operations.size = _size
    operations.message = _message
    if hasattr(storage, "write"):
        operations.write = _write
        operations.flush = _flush
    if hasattr(storage, "resize"):
        operations.set_size = _resize
    return operations


class Storages:
    """Storages under names: if such a name is the path of an image, a target or a backing file, the storage
    is used instead of a file.

    Images that use a storage of the same set exclude each other as those in one file do. The set keeps what was
    added alive; so does an image that was opened with it.

    >>> import platter, tempfile
    >>> with tempfile.TemporaryFile() as file:
    ...     storages = Storages(disk=file)
    ...     _ = platter.create("disk", "qcow2", "1M", storages=storages)
    ...     platter.info("disk", format="qcow2", storages=storages)["virtual-size"]
    1048576
    """

    def __init__(self, known: Optional[Mapping[str, Kept]] = None, **named: Kept) -> None:
        #: The object of the library.
        self.handle = made("platter_storages", lib.platter_storages_new, 0)
        for key, kept in {**(known or {}), **named}.items():
            self.add(key, kept)

    def add(self, key: str, kept: Kept) -> None:
        """Adds one under a name that is not in use."""
        from .image import Image

        if isinstance(kept, Image):
            call(lib.platter_storages_add_image, self.handle, name(key), kept.handle, 0)
        elif isinstance(kept, int):
            call(lib.platter_storages_add_fd, self.handle, name(key), kept, 0)
        elif hasattr(kept, "fileno"):
            call(lib.platter_storages_add_fd, self.handle, name(key), kept.fileno(), 0)
        else:
            handle = ffi.new_handle(kept)
            # The library holds the address alone, until it calls _free.
            _kept.add(handle)
            operations = _operations(kept)
            function = lib.platter_storages_add_storage
            call(function, self.handle, name(key), operations, handle, _free, 0)


def named(storages: Optional[Storages]) -> Any:
    """The object of the library; NULL for None."""
    return ffi.NULL if storages is None else storages.handle
