"""What formats, protocols and filters there are, and what they take."""

from __future__ import annotations

from typing import Any, Callable, List, NamedTuple, Optional, Tuple

from ._library import call, lib, name, optional_text, text
from ._native import ffi
from .errors import NotFound

_KINDS = {
    lib.PLATTER_DRIVER_FORMAT: "format",
    lib.PLATTER_DRIVER_PROTOCOL: "protocol",
    lib.PLATTER_DRIVER_FILTER: "filter",
}
_OPERATIONS = {
    "create": lib.PLATTER_OPERATION_CREATE,
    "open": lib.PLATTER_OPERATION_OPEN,
    "amend": lib.PLATTER_OPERATION_AMEND,
}
_TYPES = {
    lib.PLATTER_OPTION_STRING: "string",
    lib.PLATTER_OPTION_NUMBER: "number",
    lib.PLATTER_OPTION_SIZE: "size",
    lib.PLATTER_OPTION_BOOL: "bool",
}


class Option(NamedTuple):
    """An option of a driver."""

    #: The key; a number stands for each ``*``.
    name: str
    #: ``string``, ``number``, ``size`` or ``bool``.
    type: str
    #: One line.
    help: str
    #: What holds where it is not given; None where that is settled otherwise.
    default: Optional[str]
    #: The values that it takes; empty where they are many.
    allowed: Tuple[str, ...]
    #: Whether its value is the ID of a secret.
    is_secret: bool
    #: Whether every driver takes it.
    is_common: bool
    #: Whether it decides what is read.
    selects: bool


class Driver(NamedTuple):
    """A format, protocol or filter."""

    name: str
    #: ``format``, ``protocol`` or ``filter``.
    kind: str
    #: Bits of ``PLATTER_FEATURE_*``.
    features: int

    def options(self, operation: str = "open") -> List[Option]:
        """What it takes when an image is opened (``open``), made (``create``) or changed (``amend``).

        >>> [nbd] = [driver for driver in drivers() if driver.name == "nbd"]
        >>> next(option.allowed for option in nbd.options() if option.name == "server.type")
        ('inet', 'unix', 'vsock', 'fd')
        """
        if operation not in _OPERATIONS:
            raise ValueError(f"{operation!r} is none of {', '.join(_OPERATIONS)}")
        code = _OPERATIONS[operation]
        return _all("platter_option_info", _option, lib.platter_option_describe, name(self.name), code)


def drivers() -> List[Driver]:
    """The formats, then the protocols, then the filters.

    >>> "qcow2" in [driver.name for driver in drivers() if driver.kind == "format"]
    True
    """
    return _all("platter_driver_info", _driver, lib.platter_driver_describe)


def _all(kind: str, told: Callable[[Any], Any], describe: Callable[..., int], *of: Any) -> List[Any]:
    found: List[Any] = []
    place = ffi.new(f"const {kind} **")
    while True:
        try:
            call(describe, place, *of, len(found), 0)
        except NotFound:
            return found
        found.append(told(place[0]))


def _driver(info: Any) -> Driver:
    return Driver(text(info.name), _KINDS.get(info.kind, "other"), info.features)


def _option(info: Any) -> Option:
    allowed: List[str] = []
    while info.allowed != ffi.NULL and info.allowed[len(allowed)] != ffi.NULL:
        allowed.append(text(info.allowed[len(allowed)]))
    properties = info.properties
    return Option(
        text(info.name),
        _TYPES.get(info.kind, "other"),
        text(info.help),
        optional_text(info.default_value),
        tuple(allowed),
        bool(properties & lib.PLATTER_OPTION_PROPERTY_SECRET),
        bool(properties & lib.PLATTER_OPTION_PROPERTY_COMMON),
        bool(properties & lib.PLATTER_OPTION_PROPERTY_SELECTS),
    )
