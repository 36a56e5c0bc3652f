"""Images for other programs and machines: an NBD server, files through FUSE, block devices for virtual machines."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple, Type

from . import jobs
from ._library import Name, call, lib, made, name, number, optional_name, taken, text
from ._native import ffi
from ._options import Location, Policy, Secrets, interruptible, location as location_of, opening
from ._options import secrets as secrets_of
from .image import Image


class Offered(NamedTuple):
    """An export of a server."""

    name: str
    size: int
    #: Where in the image it begins.
    offset: int
    #: How many clients have selected it.
    clients: int
    writable: bool


class Export:
    """What a server offers of an image: all of it, read-only, under the empty name, unless specified otherwise."""

    def __init__(
        self,
        image: Image,
        export: str = "",
        *,
        description: Optional[str] = None,
        writable: bool = False,
        offset: int = 0,
        length: Optional[int] = None,
        bitmaps: Iterable[str] = (),
        allocation_depth: bool = False,
    ) -> None:
        flags = lib.PLATTER_EXPORT_WRITE if writable else 0
        flags |= lib.PLATTER_EXPORT_ALLOCATION_DEPTH if allocation_depth else 0
        #: The object of the library.
        self.handle = made("platter_export", lib.platter_export_new, image.handle, flags)
        call(lib.platter_export_set_name, self.handle, name(export), 0)
        call(lib.platter_export_set_description, self.handle, optional_name(description), 0)
        if offset != 0 or length is not None:
            rest = lib.PLATTER_EXPORT_REST if length is None else length
            call(lib.platter_export_set_window, self.handle, offset, rest, 0)
        for bitmap in bitmaps:
            call(lib.platter_export_add_bitmap, self.handle, name(bitmap), 0)

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return int(lib.platter_export_size(self.handle))


class Server:
    """Serves images until it is stopped. Use it in a ``with`` statement, or call :meth:`stop`.

    It keeps the images that it offers alive; close them after it. Times are in seconds.

    >>> import platter, tempfile
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = platter.create(folder / "disk.qcow2", "qcow2", "1M")
    >>> with platter.open(folder / "disk.qcow2", format="qcow2") as image, Server() as server:
    ...     server.add(Export(image, "disk"))
    ...     server.listen(f"unix:{folder / 'socket'}")
    ...     [export["name"] for export in exports(f"nbd+unix://?socket={folder / 'socket'}")]
    ['disk']
    """

    def __init__(
        self,
        *,
        clients: Optional[int] = None,
        memory: Optional[int] = None,
        handshake: Optional[float] = None,
        stall: Optional[float] = None,
    ) -> None:
        limits = ffi.new("platter_server_limits *")
        call(lib.platter_server_limits_defaults, limits, 0)
        if clients is not None:
            limits.clients = clients
        if memory is not None:
            limits.memory = memory
        if handshake is not None:
            limits.handshake_ms = int(handshake * 1000)
        if stall is not None:
            limits.stall_ms = int(stall * 1000)
        #: The object of the library.
        self.handle = made("platter_server", lib.platter_server_new, limits, 0)

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.stop()

    def set_tls(
        self, secrets: Secrets, credentials: str, authorization: Optional[str] = None
    ) -> None:
        """Requires clients to start TLS before anything else, with the credentials of that ID among the secrets."""
        kept = secrets_of(secrets)
        rules = optional_name(authorization)
        call(lib.platter_server_set_tls, self.handle, kept, name(credentials), rules, 0)

    def add(self, export: Export) -> None:
        """Offers it to NBD clients from now on."""
        call(lib.platter_server_add_export, self.handle, export.handle, 0)

    def remove(self, export: str = "", timeout: Optional[float] = None) -> None:
        """Stops offering that export; requests in flight have ``timeout`` to complete."""
        wait = _milliseconds(timeout)
        call(lib.platter_server_remove_export, self.handle, name(export), wait, 0)

    def listen(self, address: str) -> None:
        """Accepts clients at ``unix:PATH``, ``inet:HOST:PORT``, ``vsock:CID:PORT`` or ``fd:NUMBER``."""
        call(lib.platter_server_listen, self.handle, name(address), 0)

    def serve(self, source: int, target: Optional[int] = None) -> None:
        """Serves a client that is already connected, through one socket or two descriptors."""
        output = source if target is None else target
        call(lib.platter_server_serve_fds, self.handle, source, output, 0)

    def mount(
        self, export: Export, path: Name, *, growable: bool = False, others: Optional[bool] = False
    ) -> None:
        """Shows it as a file mounted over ``path``. ``others`` gives other users access; None: if that is allowed."""
        flags = lib.PLATTER_MOUNT_GROWABLE if growable else 0
        if others is None:
            flags |= lib.PLATTER_MOUNT_OTHERS_IF_ALLOWED
        elif others:
            flags |= lib.PLATTER_MOUNT_OTHERS
        call(lib.platter_server_mount, self.handle, export.handle, name(path), flags)

    def listen_vhost_user(self, export: Export, path: Name, queues: int = 1) -> None:
        """Offers it as a block device to virtual machines, whose front ends connect to that local socket."""
        call(
            lib.platter_server_listen_vhost_user, self.handle, export.handle, name(path), queues, 0
        )

    @property
    def addresses(self) -> Tuple[str, ...]:
        """Where it accepts clients: a path, ``HOST:PORT`` or ``CID:PORT``, with the numbers that the system chose."""
        return jobs.lines(lib.platter_server_address, self.handle)

    @property
    def fd(self) -> int:
        """A descriptor that is readable if clients have connected or left since :attr:`statistics` was read."""
        return int(number("int", lib.platter_server_fd, self.handle, 0))

    @property
    def statistics(self) -> Mapping[str, int]:
        """What it has done so far: ``clients``, ``accepted``, ``requests``, ``failures``, ``bytes_read``…"""
        place = ffi.new("platter_server_statistics *")
        call(lib.platter_server_get_statistics, place, self.handle, 0)
        members = [key for key, _ in ffi.typeof(place[0]).fields if key != "reserved"]
        return {key: int(getattr(place, key)) for key in members}

    @property
    def last_error(self) -> Optional[Exception]:
        """Why a request of a client failed or a client was dropped, the last time that happened."""
        error = lib.platter_server_last_error(self.handle)
        return None if error == ffi.NULL else taken(error, lib.platter_error_status(error))

    def __iter__(self) -> Iterator[Offered]:
        """What is offered to NBD clients."""
        return iter(self._offered())

    def _offered(self) -> List[Offered]:
        found: List[Offered] = []
        for export in self._names():
            place = ffi.new("platter_offered *")
            call(lib.platter_server_get_export, place, self.handle, name(export), 0)
            writable = bool(place.flags & lib.PLATTER_EXPORT_WRITE)
            found.append(Offered(export, place.size, place.offset, place.clients, writable))
        return found

    def _names(self) -> List[str]:
        from .errors import NotFound

        names: List[str] = []
        place = ffi.new("char **")
        while True:
            try:
                call(lib.platter_server_export_name, place, self.handle, len(names), 0)
            except NotFound:
                return names
            names.append(text(ffi.gc(place[0], lib.platter_free)))

    def drain(self, timeout: Optional[float] = None) -> None:
        """Stops it gracefully: requests in flight are answered, for up to ``timeout``."""
        call(lib.platter_server_drain, self.handle, _milliseconds(timeout), 0)

    def stop(self) -> None:
        """Stops it: clients are dropped at once, and images are released."""
        call(lib.platter_server_stop, self.handle, 0)


def _milliseconds(timeout: Optional[float]) -> int:
    return -1 if timeout is None else int(timeout * 1000)


def exports(
    location: Location,
    *,
    policy: Optional[Policy] = None,
    secrets: Optional[Secrets] = None,
) -> List[Mapping[str, Any]]:
    """What an NBD server offers. Which of its exports ``location`` names does not matter. An interrupt cancels it."""
    place = ffi.new("platter_report **")
    where, flags = location_of(location)

    def arguments(control: Any) -> Tuple[Any, ...]:
        return place, where, opening(policy=policy, secrets=secrets, control=control), flags

    interruptible(lib.platter_export_list, arguments)
    report = jobs.Report(ffi.gc(place[0], lib.platter_report_free))
    return list(report.json())
