"""Long operations: run with progress, cancelled by an interrupt."""

from __future__ import annotations

import json
import select
from typing import Any, Callable, Dict, Iterable, List, Optional, Set, Tuple

from ._library import call, lib, made, number, optional_text, text
from ._native import ffi
from .errors import Error

#: Called with the number of bytes done and the total. An exception that it raises cancels the operation.
Progress = Callable[[int, int], object]

#: Called with each finding or warning as it arises, on the thread of the job.
Message = Callable[[str], object]

#: Milliseconds between two checks of the progress.
LOOK = 100


class Report:
    """The result of a job or a query; it is read as JSON, or by its keys."""

    def __init__(self, handle: Any, warnings: Tuple[str, ...] = ()) -> None:
        #: The object of the library.
        self.handle = handle
        self._warnings = warnings

    def __len__(self) -> int:
        return int(number("size_t", lib.platter_report_count, self.handle, 0))

    def json(self) -> Any:
        """The same values as the tool's ``--output=json``."""
        place = ffi.new("const char **")
        call(lib.platter_report_json, place, self.handle, 0)
        return json.loads(ffi.string(place[0]))

    def text(self) -> str:
        """What the tool prints."""
        place = ffi.new("const char **")
        call(lib.platter_report_text, place, self.handle, 0)
        return text(place[0])

    def number(self, key: str, index: int = 0) -> int:
        """A number by its key."""
        key_bytes = key.encode()
        return int(number("uint64_t", lib.platter_report_u64, self.handle, index, key_bytes, 0))

    def string(self, key: str, index: int = 0) -> str:
        """A string by its key."""
        place = ffi.new("const char **")
        call(lib.platter_report_string, place, self.handle, index, key.encode(), 0)
        return text(place[0])

    def flag(self, key: str, index: int = 0) -> bool:
        """A boolean by its key."""
        key_bytes = key.encode()
        return bool(number("uint32_t", lib.platter_report_bool, self.handle, index, key_bytes, 0))

    def numbers(self, keys: Iterable[str]) -> Dict[str, int]:
        """Those of the numbers that the report contains."""
        found = {}
        for key in keys:
            try:
                found[key] = self.number(key)
            except Error:
                continue
        return found

    @property
    def exit_code(self) -> int:
        """What the tool would exit with."""
        return int(number("int", lib.platter_report_exit_code, self.handle, 0))

    @property
    def warnings(self) -> Tuple[str, ...]:
        """What the user should know, one line each: the warnings of the job, and those of the report."""
        return self._warnings + lines(lib.platter_report_warning, self.handle)


def lines(function: Callable[..., Any], handle: Any) -> Tuple[str, ...]:
    """What a function returns for every index, up to the first that has none."""
    found: List[str] = []
    while (line := optional_text(function(handle, len(found)))) is not None:
        found.append(line)
    return tuple(found)


def query(function: Callable[..., int], *arguments: Any) -> Report:
    """The report that a function returns at once."""
    return Report(made("platter_report", function, *arguments))


def run(
    job: Any,
    *,
    progress: Optional[Progress] = None,
    message: Optional[Message] = None,
    rate: Optional[int] = None,
    timeout: Optional[float] = None,
) -> Report:
    """Runs a job on a thread of the library. ``KeyboardInterrupt``, or whatever ``progress`` raises, cancels it
    and waits until it has cleaned up."""
    if message is not None:
        handle = ffi.new_handle(message)
        _kept.add(handle)
        call(lib.platter_job_set_message, job, _message, handle, _free, 0)
    if rate is not None:
        call(lib.platter_job_set_rate, job, rate, 0)
    if timeout is not None:
        call(lib.platter_job_set_deadline, job, max(1, int(timeout * 1000)), 0)
    call(lib.platter_job_start, job, 0)
    try:
        ends = select.poll()
        ends.register(number("int", lib.platter_job_fd, job, 0), select.POLLIN)
        while not ends.poll(LOOK):
            _tell(job, progress)
    except BaseException:
        lib.platter_job_cancel(job)
        error = ffi.new("platter_error **")
        lib.platter_job_result(ffi.NULL, job, lib.PLATTER_JOB_WAIT, error)
        lib.platter_error_free(error[0])
        raise
    try:
        report = query(lib.platter_job_result, job, lib.PLATTER_JOB_WAIT)
    except Error as error:
        error.report = _left(job)
        error.warnings = lines(lib.platter_job_warning, job)
        raise
    report = Report(report.handle, lines(lib.platter_job_warning, job))
    _tell(job, progress)
    return report


_kept: Set[Any] = set()


def _said(message: Any, user_data: Any) -> None:
    ffi.from_handle(user_data)(text(message.text))


def _dropped(user_data: Any) -> None:
    _kept.discard(user_data)


_message = ffi.callback("platter_message_fn", _said)
_free = ffi.callback("platter_free_fn", _dropped)


def _left(job: Any) -> Optional[Report]:
    """The report of a job that failed, if it left one."""
    try:
        return query(lib.platter_job_failure_report, job, 0)
    except Error:
        return None


def _tell(job: Any, progress: Optional[Progress]) -> None:
    if progress is None:
        return
    place = ffi.new("platter_progress *")
    call(lib.platter_job_progress, place, job, 0)
    progress(place.done, place.total)
