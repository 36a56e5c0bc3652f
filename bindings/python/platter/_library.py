"""The shared library: calls, errors, strings."""

from __future__ import annotations

import os
from typing import Any, Callable, List, Optional, Union

from ._native import ffi
from .errors import from_status

#: The shared object, with the one ABI that this package supports.
SONAME = "libplatter.so.0.1"

lib: Any = ffi.dlopen(os.environ.get("PLATTER_LIBRARY") or SONAME)

Name = Union[str, bytes, "os.PathLike[Any]"]

_STAGES = {
    lib.PLATTER_STAGE_OPEN: "open",
    lib.PLATTER_STAGE_READ: "read",
    lib.PLATTER_STAGE_BLOCK_STATUS: "block-status",
    lib.PLATTER_STAGE_VERIFY: "verify",
}


def call(function: Callable[..., int], *arguments: Any) -> None:
    """Calls a function whose last parameter receives an error."""
    error = ffi.new("platter_error **")
    status = function(*arguments, error)
    if status != 0:
        raise taken(error[0], status)


def taken(error: Any, status: int) -> Exception:
    """Converts an error to an exception, and frees the error."""
    if error == ffi.NULL:
        return from_status(name_of(status), f"Status {status}", 0, None, (), None)
    try:
        hints: List[str] = []
        while (hint := lib.platter_error_hint(error, len(hints))) != ffi.NULL:
            hints.append(text(hint))
        offset: Optional[int] = lib.platter_error_offset(error)
        if offset == lib.PLATTER_OFFSET_UNKNOWN:
            offset = None
        return from_status(
            name_of(status),
            text(lib.platter_error_message(error)),
            lib.platter_error_errno(error),
            offset,
            tuple(hints),
            optional_text(lib.platter_error_file(error)),
            _STAGES.get(lib.platter_error_stage(error)),
        )
    finally:
        lib.platter_error_free(error)


def name_of(status: int) -> str:
    """The name of a status, such as CORRUPT."""
    return text(lib.platter_status_name(status))


def text(string: Any) -> str:
    """A string of the library. Bytes that are not UTF-8 are preserved, as in file names."""
    return os.fsdecode(ffi.string(string))


def optional_text(string: Any) -> Optional[str]:
    """As text(); None if there is none."""
    return None if string == ffi.NULL else text(string)


def name(value: Name) -> bytes:
    """The bytes of a name."""
    encoded = os.fsencode(value)
    if b"\0" in encoded:
        raise ValueError("embedded null byte")
    return encoded


def optional_name(value: Optional[Name]) -> Any:
    """As name(); NULL for None."""
    return ffi.NULL if value is None else name(value)


def made(kind: str, function: Callable[..., int], *arguments: Any) -> Any:
    """An object of the library that a function creates; it is freed with the last reference."""
    place = ffi.new(f"{kind} **")
    call(function, place, *arguments)
    return ffi.gc(place[0], getattr(lib, f"{kind}_free"))


def number(kind: str, function: Callable[..., int], *arguments: Any) -> Any:
    """A number that a function stores."""
    place = ffi.new(f"{kind} *")
    call(function, place, *arguments)
    return place[0]
