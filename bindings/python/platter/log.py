"""What the library logs about its work."""

from __future__ import annotations

import os
from typing import Any, Callable, Optional, Set

from ._library import call, lib, name, number
from ._native import ffi

#: Called with the level and the line, on any thread.
Log = Callable[[str, str], object]

_LEVELS = {
    "error": lib.PLATTER_LOG_ERROR,
    "warning": lib.PLATTER_LOG_WARNING,
    "info": lib.PLATTER_LOG_INFO,
    "debug": lib.PLATTER_LOG_DEBUG,
    "trace": lib.PLATTER_LOG_TRACE,
}
_NAMES = {code: level for level, code in _LEVELS.items()}
_kept: Set[Any] = set()


def _told(level: int, line: Any, user_data: Any) -> None:
    ffi.from_handle(user_data)(_NAMES.get(level, "error"), os.fsdecode(ffi.string(line)))


def _dropped(user_data: Any) -> None:
    _kept.discard(user_data)


_line = ffi.callback("platter_log_fn", _told)
_free = ffi.callback("platter_free_fn", _dropped)


def set_log(log: Optional[Log], level: str = "warning") -> None:
    """Sends the lines of a level and of more severe ones to a function, for the whole process; None stops that.

    >>> lines = []
    >>> set_log(lambda level, line: lines.append(level), "debug")
    >>> set_log(None)
    """
    if log is None:
        call(lib.platter_log_set, ffi.NULL, ffi.NULL, ffi.NULL, _LEVELS[level], 0)
        return
    handle = ffi.new_handle(log)
    _kept.add(handle)
    call(lib.platter_log_set, _line, handle, _free, _LEVELS[level], 0)


def trace(pattern: str, on: bool = True) -> int:
    """Switches trace events by name (``*`` and ``?``); they are lines of the level ``trace``. Returns their
    number."""
    return int(number("size_t", lib.platter_trace_switch, name(pattern), on, 0))
