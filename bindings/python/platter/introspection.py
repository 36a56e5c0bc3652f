"""The available formats, protocols and filters, and their options."""

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
    #: The value that applies if it is not given; None if that is determined otherwise.
    default: Optional[str]
    #: The values that it accepts; empty if there are many.
    allowed: Tuple[str, ...]
    #: Whether its value is the ID of a secret.
    is_secret: bool
    #: Whether every driver accepts it.
    is_common: bool
    #: Whether it determines what is read.
    selects: bool


class Child(NamedTuple):
    """A node below another one, described by options under its name, such as ``file.driver``."""

    #: The name of a list is given without its numbers.
    name: str
    #: Whether nothing is opened without it.
    is_required: bool
    #: Whether there are several: ``children.0``, ``children.1``…
    is_list: bool
    #: Whether it is an image, whose format is determined from its contents if none is named.
    is_image: bool


class Driver(NamedTuple):
    """A format, protocol or filter."""

    name: str
    #: ``format``, ``protocol`` or ``filter``.
    kind: str
    #: Bits of ``PLATTER_FEATURE_*``.
    features: int

    def options(self, operation: str = "open") -> List[Option]:
        """The options that it accepts when an image is opened (``open``), created (``create``) or changed (``amend``).

        >>> [nbd] = [driver for driver in drivers() if driver.name == "nbd"]
        >>> next(option.allowed for option in nbd.options() if option.name == "server.type")
        ('inet', 'unix', 'vsock', 'fd')
        """
        if operation not in _OPERATIONS:
            raise ValueError(f"{operation!r} is none of {', '.join(_OPERATIONS)}")
        code = _OPERATIONS[operation]
        return _all("platter_option_info", _option, lib.platter_option_describe, name(self.name), code)

    def children(self) -> List[Child]:
        """The nodes below a node of this driver.

        >>> [quorum] = [driver for driver in drivers() if driver.name == "quorum"]
        >>> [(child.name, child.is_list) for child in quorum.children()]
        [('children', True)]
        """
        return _all("platter_child_info", _child, lib.platter_child_describe, name(self.name))


def drivers() -> List[Driver]:
    """The formats, then the protocols, then the filters.

    >>> "qcow2" in [driver.name for driver in drivers() if driver.kind == "format"]
    True
    """
    return _all("platter_driver_info", _driver, lib.platter_driver_describe)


class Profile(NamedTuple):
    """A product, with the images that it accepts."""

    name: str
    #: The name of the product, for display.
    product: str
    format: str
    #: The options of creation, as ``key=value,…``.
    options: str
    #: What else users have to know, one sentence each.
    notes: Tuple[str, ...]
    #: Virtual sizes are multiples of this, from the least to the most.
    size_multiple: int
    size_least: int
    size_most: int
    #: What the image is packaged in, ``ova``; empty if the file is the image itself.
    package: str


def profiles() -> List[Profile]:
    """The products for which :func:`convert` creates images and :func:`inspect` assesses them.

    >>> next(profile.format for profile in profiles() if profile.name == "azure")
    'vpc'
    """
    return _all("platter_profile_info", _profile, lib.platter_profile_describe)


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


def _child(info: Any) -> Child:
    return Child(
        text(info.name),
        bool(info.properties & lib.PLATTER_CHILD_REQUIRED),
        bool(info.properties & lib.PLATTER_CHILD_LIST),
        bool(info.properties & lib.PLATTER_CHILD_IMAGE),
    )


def _profile(info: Any) -> Profile:
    return Profile(
        text(info.name),
        text(info.product),
        text(info.format),
        text(info.options),
        tuple(text(info.notes).splitlines()),
        info.size_multiple,
        info.size_least,
        info.size_most,
        text(info.package),
    )


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
