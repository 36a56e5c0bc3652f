"""Exceptions, by the statuses of the library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional, Tuple

if TYPE_CHECKING:
    from .jobs import Report


class Error(Exception):
    """A call of the library failed."""

    #: The status, such as ``CORRUPT``.
    status: str = "INTERNAL"

    def __init__(
        self,
        message: str,
        errno: int = 0,
        offset: Optional[int] = None,
        hints: Tuple[str, ...] = (),
        file: Optional[str] = None,
        stage: Optional[str] = None,
    ) -> None:
        super().__init__(message)
        #: One line that names the file and the reason.
        self.message = message
        #: The errno that fits best.
        self.errno = errno
        #: The offset in the file, if known.
        self.offset = offset
        #: Possible remedies, one line each.
        self.hints = hints
        #: The file whose reading, writing or syncing failed, if any did.
        self.file = file
        #: The step that failed, as far as it is distinguished: ``open``, ``read`` or ``block-status``.
        self.stage = stage
        #: What was found before it failed: a repair that is refused leaves the report of the check.
        self.report: Optional[Report] = None
        #: The warnings of a job before it failed, one line each.
        self.warnings: Tuple[str, ...] = ()


class Invalid(Error):
    """A parameter is invalid."""

    status = "INVALID"


class OperatingSystemError(Error):
    """The operating system refused something: see ``errno``."""

    status = "OS"


class Unsupported(Error):
    """The format, the storage or the host does not support it."""

    status = "UNSUPPORTED"


class NotAnImage(Error):
    """The file is not an image of the format."""

    status = "NOT_AN_IMAGE"


class Corrupt(Error):
    """The image is damaged."""

    status = "CORRUPT"


class Locked(Error):
    """The image is in use elsewhere."""

    status = "LOCKED"


class ReadOnly(Error):
    """The image is not open for writing, or cannot be opened for it."""

    status = "READ_ONLY"


class Exists(Error):
    """Something of that name already exists."""

    status = "EXISTS"


class NotFound(Error):
    """Nothing of that name exists."""

    status = "NOT_FOUND"


class NoSpace(Error):
    """The host has no space left."""

    status = "NO_SPACE"


class NeedsSecret(Error):
    """The image is encrypted, and no secret was given."""

    status = "NEEDS_SECRET"


class WrongSecret(Error):
    """The secret is wrong."""

    status = "WRONG_SECRET"


class Denied(Error):
    """The policy does not allow it."""

    status = "DENIED"


class LimitExceeded(Error):
    """The image exceeds a limit of the policy or of its format."""

    status = "LIMIT"


class Busy(Error):
    """The object is in use."""

    status = "BUSY"


class Cancelled(Error):
    """The operation was cancelled, or its deadline has passed."""

    status = "CANCELLED"


class InternalError(Error):
    """A defect in the library."""

    status = "INTERNAL"


_BY_STATUS = {kind.status: kind for kind in Error.__subclasses__()}


def from_status(
    status: str,
    message: str,
    errno: int,
    offset: Optional[int],
    hints: Tuple[str, ...],
    file: Optional[str],
    stage: Optional[str] = None,
) -> Error:
    """The exception of a status."""
    return _BY_STATUS.get(status, Error)(message, errno, offset, hints, file, stage)
