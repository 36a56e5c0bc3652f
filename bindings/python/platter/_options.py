"""Arguments of calls: locations, sizes, options, secrets, policies."""

from __future__ import annotations

import errno
import json
import os
import threading
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Mapping,
    NamedTuple,
    Optional,
    Set,
    Tuple,
    Union,
)

from ._library import Name, call, lib, made, name, number, optional_name
from ._native import ffi
from .storage import Storages, named

#: A path (``os.PathLike``), a location as the tool accepts it (a path, ``json:…``, a URI), or its options.
Location = Union[str, bytes, "os.PathLike[Any]", Mapping[str, Any]]
#: Bytes, or text such as ``10G``.
Size = Union[int, str]
#: Secrets by ID, or a function that returns them. Other objects that options name by ID are given here too, as their
#: properties: ``{"tls": {"qom-type": "tls-creds-x509", "dir": "/etc/pki/nbd"}}``.
Secrets = Union[
    Mapping[str, Union[str, bytes, Mapping[str, str]]], Callable[[str], Optional[bytes]]
]
#: Options of formats and protocols, by name.
Options = Mapping[str, Union[str, int, bool]]


def location(value: Location) -> Tuple[bytes, int]:
    """The name and the flags of a location."""
    if isinstance(value, Mapping):
        return name("json:" + json.dumps(value)), 0
    if isinstance(value, os.PathLike):
        return name(value), lib.PLATTER_LOCATION_PATH
    return name(value), 0


def size(value: Size) -> int:
    """A size in bytes.

    >>> size("1.5k"), size(4096)
    (1536, 4096)
    """
    if isinstance(value, int):
        return value
    return int(number("uint64_t", lib.platter_size_parse, name(value), lib.PLATTER_SIZE_IMAGE))


def options(values: Optional[Options]) -> Any:
    """The options of the library; NULL for none."""
    if not values:
        return ffi.NULL
    bag = made("platter_options", lib.platter_options_new, 0)
    for key, value in values.items():
        if isinstance(value, bool):
            call(lib.platter_options_set_bool, bag, name(key), value, 0)
        elif isinstance(value, int):
            call(lib.platter_options_set_u64, bag, name(key), value, 0)
        else:
            call(lib.platter_options_set, bag, name(key), name(value), 0)
    return bag


_kept: Set[Any] = set()


def _asked(answer: Any, identifier: Any, user_data: Any) -> None:
    secret = ffi.from_handle(user_data)(os.fsdecode(ffi.string(identifier)))
    if secret is not None:
        data = _secret_bytes(secret)
        call(lib.platter_secret_answer_set, answer, data, len(data), 0)


def _dropped(user_data: Any) -> None:
    _kept.discard(user_data)


_secret = ffi.callback("platter_secret_fn", _asked)
_free = ffi.callback("platter_free_fn", _dropped)


def _secret_bytes(secret: Union[str, bytes]) -> bytes:
    return secret.encode() if isinstance(secret, str) else bytes(secret)


def secrets(values: Optional[Secrets]) -> Any:
    """The secrets of the library; NULL for none."""
    if values is None:
        return ffi.NULL
    known = made("platter_secrets", lib.platter_secrets_new, 0)
    if callable(values):
        handle = ffi.new_handle(values)
        _kept.add(handle)
        call(lib.platter_secrets_set_callback, known, _secret, handle, _free, 0)
        return known
    for key, secret in values.items():
        if isinstance(secret, Mapping):
            _define(known, key, dict(secret))
            continue
        data = _secret_bytes(secret)
        call(lib.platter_secrets_add, known, name(key), data, len(data), 0)
    return known


_KINDS = {
    "secret": lib.platter_secrets_define,
    "tls-creds-x509": lib.platter_secrets_add_tls_x509,
    "tls-creds-psk": lib.platter_secrets_add_tls_psk,
    "authz-simple": lib.platter_secrets_add_authorization,
    "authz-list": lib.platter_secrets_add_authorization,
    "throttle-group": lib.platter_secrets_add_throttle_group,
}


def _define(known: Any, key: str, properties: Dict[str, str]) -> None:
    kind = properties.pop("qom-type", "secret")
    if kind not in _KINDS:
        raise ValueError(f"{kind!r} is none of {', '.join(_KINDS)}")
    strings = [ffi.new("char[]", name(text)) for pair in properties.items() for text in pair]
    call(_KINDS[kind], known, name(key), ffi.new("char *[]", strings + [ffi.NULL]), 0)


class Nodes:
    """Named nodes of images that are opened with it in turn: names can refer to nodes of earlier images."""

    def __init__(self) -> None:
        #: The object of the library.
        self.handle = made("platter_nodes", lib.platter_nodes_new, 0)


class Implicit(NamedTuple):
    """A file that an image names."""

    #: The name as stored in the image.
    name: str
    #: The image.
    named_by: str
    #: ``backing``, ``data-file`` or ``extent``.
    role: str
    #: Whether it would be opened for writing.
    writable: bool


#: Decides about a file that an image names: true opens it by its name, a descriptor is used in its place and then
#: belongs to the library, and anything else refuses it. An OSError that it raises becomes that of the open.
Decide = Callable[[Implicit], Union[bool, int, None]]


def _decided(file: Any, fd: Any, user_data: Any) -> int:
    asked = Implicit(
        os.fsdecode(ffi.string(file.name)),
        os.fsdecode(ffi.string(file.named_by)),
        _ROLES.get(file.role, "other"),
        bool(file.writable),
    )
    try:
        answer = ffi.from_handle(user_data)(asked)
    except OSError as error:
        return -(error.errno or errno.EACCES)
    if answer is True:
        return int(lib.PLATTER_ANSWER_OPEN)
    if isinstance(answer, int) and not isinstance(answer, bool):
        fd[0] = answer
        return int(lib.PLATTER_ANSWER_FD)
    return int(lib.PLATTER_ANSWER_DENY)


_ROLES = {
    lib.PLATTER_ROLE_BACKING: "backing",
    lib.PLATTER_ROLE_DATA_FILE: "data-file",
    lib.PLATTER_ROLE_EXTENT: "extent",
}
# If it raises anything else, the exception is printed and the file is refused.
_decide = ffi.callback("platter_implicit_fn", _decided, error=lib.PLATTER_ANSWER_DENY)

_PROBING = {
    "never": lib.PLATTER_PROBING_NEVER,
    "read-only": lib.PLATTER_PROBING_READ_ONLY,
    "always": lib.PLATTER_PROBING_ALWAYS,
}


class Policy:
    """What opening an image may do.

    The default is strict: nothing that an image names is opened, and the format of an image that is written to is
    not guessed. ``permissive`` is what the command line does. ``implicit`` says whether the files that an image names
    are opened, or is called for each. ``probing`` says when a format is guessed: ``never``, ``read-only`` or
    ``always``; ``probe_footers`` looks at the end of files for it too. ``implicit_protocols`` allows backing files
    whose names are not plain paths.
    """

    def __init__(
        self,
        *,
        permissive: bool = False,
        formats: Iterable[str] = (),
        protocols: Iterable[str] = (),
        hosts: Iterable[str] = (),
        directories: Iterable[Name] = (),
        implicit: Union[bool, Decide, None] = None,
        implicit_protocols: Optional[bool] = None,
        probing: Optional[str] = None,
        probe_footers: Optional[bool] = None,
        limits: Optional[Mapping[str, int]] = None,
    ) -> None:
        preset = lib.PLATTER_POLICY_PERMISSIVE if permissive else lib.PLATTER_POLICY_STRICT
        #: The object of the library.
        self.handle = made("platter_policy", lib.platter_policy_new, preset, 0)
        for one in formats:
            call(lib.platter_policy_allow_format, self.handle, name(one), 0)
        for one in protocols:
            call(lib.platter_policy_allow_protocol, self.handle, name(one), 0)
        for one in hosts:
            call(lib.platter_policy_allow_host, self.handle, name(one), 0)
        if probing is not None:
            if probing not in _PROBING:
                raise ValueError(f"{probing!r} is none of {', '.join(_PROBING)}")
            call(lib.platter_policy_set_probing, self.handle, _PROBING[probing], 0)
        if probe_footers is not None:
            call(lib.platter_policy_set_probe_footers, self.handle, probe_footers, 0)
        if implicit_protocols is not None:
            call(lib.platter_policy_set_implicit_protocols, self.handle, implicit_protocols, 0)
        if callable(implicit):
            asked = ffi.new_handle(implicit)
            _kept.add(asked)
            call(lib.platter_policy_set_callback, self.handle, _decide, asked, _free, 0)
        elif implicit is not None:
            mode = lib.PLATTER_IMPLICIT_ALLOW if implicit else lib.PLATTER_IMPLICIT_DENY
            call(lib.platter_policy_set_implicit, self.handle, mode, 0)
        for directory in directories:
            call(lib.platter_policy_add_directory, self.handle, name(directory), 0)
        for key, value in (limits or {}).items():
            limit = getattr(lib, "PLATTER_LIMIT_" + key.upper())
            call(lib.platter_policy_set_limit, self.handle, limit, value, 0)

    def limit(self, key: str) -> int:
        """A limit as it is set, or as the preset has it.

        >>> Policy().limit("chain_depth")
        200
        """
        limit = getattr(lib, "PLATTER_LIMIT_" + key.upper())
        return int(number("uint64_t", lib.platter_policy_get_limit, self.handle, limit, 0))


_bag = options


def opening(
    *,
    format: Optional[str] = None,
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
    control: Any = None,
) -> Any:
    """The options of an open."""
    made_options = made("platter_open_options", lib.platter_open_options_new, 0)
    call(lib.platter_open_options_set_format, made_options, optional_name(format), 0)
    if cache is not None:
        call(lib.platter_open_options_set_cache, made_options, name(cache), 0)
    if policy is not None:
        call(lib.platter_open_options_set_policy, made_options, policy.handle, 0)
    call(lib.platter_open_options_set_secrets, made_options, _secrets(secrets), 0)
    call(lib.platter_open_options_set_storages, made_options, named(storages), 0)
    if decompress is not None:
        call(lib.platter_open_options_set_decompress, made_options, name(decompress), 0)
    call(lib.platter_open_options_set_options, made_options, _bag(options), 0)
    if discard is not None:
        call(lib.platter_open_options_set_discard, made_options, discard, 0)
    if detect_zeroes is not None:
        call(lib.platter_open_options_set_detect_zeroes, made_options, name(detect_zeroes), 0)
    if compression_level is not None:
        call(lib.platter_open_options_set_compression_level, made_options, compression_level, 0)
    if nodes is not None:
        call(lib.platter_open_options_set_nodes, made_options, nodes.handle, 0)
    if control is not None:
        call(lib.platter_open_options_set_control, made_options, control, 0)
    return made_options


_secrets = secrets


def interruptible(function: Callable[..., int], make: Callable[[Any], Tuple[Any, ...]]) -> None:
    """Calls a function that can take long on a thread of its own, so that an interrupt can cancel it."""
    control = made("platter_control", lib.platter_control_new, 0)
    arguments = make(control)
    failed: Dict[str, BaseException] = {}

    def run() -> None:
        try:
            call(function, *arguments)
        except BaseException as error:  # It is raised again below.
            failed["error"] = error

    thread = threading.Thread(target=run, name="platter")
    thread.start()
    try:
        thread.join()
    except BaseException:
        lib.platter_control_cancel(control)
        thread.join()
        raise
    if "error" in failed:
        raise failed["error"]
