"""What goes wrong, by the statuses of the library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional, Tuple

if TYPE_CHECKING:
    from .jobs import Report


class Error(Exception):
    """A call of the library failed."""

    #: The status, as ``CORRUPT``.
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
        #: Where in the file it is, if that is known.
        self.offset = offset
        #: What can be done, a line each.
        self.hints = hints
        #: The file whose reading, writing or syncing failed, if any did.
        self.file = file
        #: What was being done where it failed, as far as that is told apart: ``open``, ``read`` or ``block-status``.
        self.stage = stage
        #: What was found before it failed: a repair that is refused leaves what the check says.
        self.report: Optional[Report] = None
        #: What a job has warned of before it failed, a line each.
        self.warnings: Tuple[str, ...] = ()


class Invalid(Error):
    """A parameter makes no sense."""

    status = "INVALID"


class OperatingSystemError(Error):
    """The operating system refused something: see ``errno``."""

    status = "OS"


class Unsupported(Error):
    """The format, the storage or the host cannot do it."""

    status = "UNSUPPORTED"


class NotAnImage(Error):
    """The file is no image of the format."""

    status = "NOT_AN_IMAGE"


class Corrupt(Error):
    """The image is damaged."""

    status = "CORRUPT"


class Locked(Error):
    """Somebody else uses the image."""

    status = "LOCKED"


class ReadOnly(Error):
    """The image is not open for writing, or cannot be."""

    status = "READ_ONLY"


class Exists(Error):
    """There is one of that name already."""

    status = "EXISTS"


class NotFound(Error):
    """There is none of that name."""

    status = "NOT_FOUND"


class NoSpace(Error):
    """The host has no space left."""

    status = "NO_SPACE"


class NeedsSecret(Error):
    """The image is encrypted, and no secret was given."""

    status = "NEEDS_SECRET"


class WrongSecret(Error):
    """The secret does not fit."""

    status = "WRONG_SECRET"


class Denied(Error):
    """The policy does not allow it."""

    status = "DENIED"


class LimitExceeded(Error):
    """The image is beyond a limit of the policy or of its format."""

    status = "LIMIT"


class Busy(Error):
    """The object is in use."""

    status = "BUSY"


class Cancelled(Error):
    """The work was cancelled, or its deadline has come."""

    status = "CANCELLED"


class InternalError(Error):
    """A defect of the library."""

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
