"""Operations on whole images: create, convert, compare, commit, rebase, measure, info, inspect."""

from __future__ import annotations

import os
from typing import Any, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from . import jobs
from ._library import Name, call, lib, made, name, optional_name
from ._native import ffi
from ._options import (
    Location,
    Options,
    Policy,
    Secrets,
    Size,
    location as location_of,
    opening,
    options as options_of,
    secrets as secrets_of,
    size as size_of,
)
from .image import Image
from .jobs import Progress, Report
from .storage import Storages, named


def create(
    location: Location,
    format: str,
    size: Optional[Size] = None,
    *,
    options: Optional[Options] = None,
    backing: Optional[Name] = None,
    backing_format: Optional[str] = None,
    secrets: Optional[Secrets] = None,
    policy: Optional[Policy] = None,
    storages: Optional[Storages] = None,
    exclusive: bool = False,
    progress: Optional[Progress] = None,
) -> Report:
    """Creates a new image; an existing one is replaced, unless ``exclusive``."""
    where, flags = location_of(location)
    request = made("platter_create", lib.platter_create_new, where, name(format), flags)
    if size is not None:
        call(lib.platter_create_set_size, request, size_of(size), 0)
    bag = options_of(options)
    if bag != ffi.NULL:
        call(lib.platter_create_set_options, request, bag, 0)
    if backing is not None:
        form = optional_name(backing_format)
        call(lib.platter_create_set_backing, request, name(backing), form, 0)
    if policy is not None:
        call(lib.platter_create_set_policy, request, policy.handle, 0)
    call(lib.platter_create_set_secrets, request, secrets_of(secrets), 0)
    call(lib.platter_create_set_storages, request, named(storages), 0)
    flags = lib.PLATTER_CREATE_EXCLUSIVE if exclusive else 0
    job = made("platter_job", lib.platter_create_job_new, request, flags)
    return jobs.run(job, progress=progress)


class Conversion(NamedTuple):
    """What a conversion did."""

    #: Numbers of the report, by key: ``virtual-size``, ``data-bytes``, ``zero-bytes``…
    numbers: Mapping[str, int]
    #: The digest of the guest's bytes, if one was requested.
    checksum: Optional[str]
    warnings: Sequence[str]


_NUMBERS = (
    "virtual-size",
    "data-bytes",
    "offloaded-bytes",
    "zero-bytes",
    "backed-bytes",
    "compressed-units",
    "compressed-bytes",
)


def convert(
    source: Union[Location, Sequence[Location], int],
    target: Union[Location, int],
    format: Optional[str] = None,
    *,
    source_format: Optional[str] = None,
    source_cache: Optional[str] = None,
    source_policy: Optional[Policy] = None,
    source_secrets: Optional[Secrets] = None,
    force_share: bool = False,
    decompress: Optional[str] = None,
    snapshot: Optional[str] = None,
    profile: Optional[str] = None,
    options: Optional[Options] = None,
    compress: bool = False,
    existing: bool = False,
    exclusive: bool = False,
    target_is_zero: bool = False,
    chain: bool = False,
    bitmaps: bool = False,
    skip_broken_bitmaps: bool = False,
    salvage: bool = False,
    copy_range: bool = False,
    out_of_order: bool = False,
    sparse_size: Optional[int] = None,
    backing: Optional[Name] = None,
    backing_format: Optional[str] = None,
    cache: Optional[str] = None,
    secrets: Optional[Secrets] = None,
    policy: Optional[Policy] = None,
    storages: Optional[Storages] = None,
    parallel: Optional[int] = None,
    checksum: Optional[str] = None,
    progress: Optional[Progress] = None,
    rate: Optional[int] = None,
    timeout: Optional[float] = None,
) -> Conversion:
    """Copies one image, or several concatenated, into another. ``storages`` apply to both sides. A number is a
    descriptor, which is read or written in order. The format is ``raw``, or that of the ``profile``. With ``chain``
    the target is a new directory, in which each layer becomes an image.

    >>> import tempfile
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = create(folder / "disk.qcow2", "qcow2", "1M")
    >>> convert(folder / "disk.qcow2", folder / "disk.raw").numbers["virtual-size"]
    1048576
    """
    request = made("platter_convert", lib.platter_convert_new, 0)
    if isinstance(source, int):
        call(lib.platter_convert_set_source_fd, request, source, 0)
    else:
        for one in _several(source):
            where, flags = location_of(one)
            call(lib.platter_convert_add_source, request, where, flags)
    how = opening(
        format=source_format,
        cache=source_cache,
        policy=source_policy,
        secrets=source_secrets,
        storages=storages,
        decompress=decompress,
    )
    flags = lib.PLATTER_OPEN_FORCE_SHARE if force_share else 0
    call(lib.platter_convert_set_source_options, request, how, flags)
    if isinstance(target, int):
        if format not in (None, "raw"):
            raise ValueError("a descriptor takes the bytes of the disk, and no format")
        call(lib.platter_convert_set_target_fd, request, target, 0)
    else:
        where, flags = location_of(target)
        form = "raw" if format is None and profile is None else format
        call(lib.platter_convert_set_target, request, where, optional_name(form), flags)
    call(lib.platter_convert_set_profile, request, optional_name(profile), 0)
    bag = options_of(options)
    if bag != ffi.NULL:
        call(lib.platter_convert_set_target_options, request, bag, 0)
    if snapshot is not None:
        call(lib.platter_convert_set_snapshot, request, name(snapshot), 0)
    if backing is not None:
        call(lib.platter_convert_set_backing, request, name(backing), optional_name(backing_format), 0)
    if cache is not None:
        call(lib.platter_convert_set_target_cache, request, name(cache), 0)
    if policy is not None:
        call(lib.platter_convert_set_target_policy, request, policy.handle, 0)
    call(lib.platter_convert_set_secrets, request, secrets_of(secrets), 0)
    call(lib.platter_convert_set_storages, request, named(storages), 0)
    if parallel is not None:
        call(lib.platter_convert_set_number, request, lib.PLATTER_CONVERT_PARALLEL, parallel, 0)
    if sparse_size is not None:
        call(lib.platter_convert_set_number, request, lib.PLATTER_CONVERT_SPARSE_SIZE, sparse_size, 0)
    if checksum is not None:
        call(lib.platter_convert_set_checksum, request, name(checksum), 0)
    flags = _flags(
        (compress, lib.PLATTER_CONVERT_COMPRESS),
        (existing, lib.PLATTER_CONVERT_TARGET_EXISTS),
        (exclusive, lib.PLATTER_CONVERT_EXCLUSIVE),
        (target_is_zero, lib.PLATTER_CONVERT_TARGET_IS_ZERO),
        (chain, lib.PLATTER_CONVERT_CHAIN),
        (bitmaps, lib.PLATTER_CONVERT_BITMAPS),
        (skip_broken_bitmaps, lib.PLATTER_CONVERT_SKIP_BROKEN_BITMAPS),
        (salvage, lib.PLATTER_CONVERT_SALVAGE),
        (copy_range, lib.PLATTER_CONVERT_COPY_RANGE),
        (out_of_order, lib.PLATTER_CONVERT_OUT_OF_ORDER),
    )
    job = made("platter_job", lib.platter_convert_job_new, request, flags)
    report = jobs.run(job, progress=progress, rate=rate, timeout=timeout)
    digest = report.string(checksum) if checksum is not None else None
    return Conversion(report.numbers(_NUMBERS), digest, report.warnings)


def dd(
    source: Union[Location, int],
    target: Union[Location, int],
    format: str = "raw",
    *,
    source_format: Optional[str] = None,
    source_policy: Optional[Policy] = None,
    source_secrets: Optional[Secrets] = None,
    force_share: bool = False,
    snapshot: Optional[str] = None,
    block_size: Optional[int] = None,
    count: Optional[int] = None,
    skip: Optional[int] = None,
    input_size: Optional[int] = None,
    output_size: Optional[int] = None,
    existing: bool = False,
    exclusive: bool = False,
    cache: Optional[str] = None,
    secrets: Optional[Secrets] = None,
    policy: Optional[Policy] = None,
    storages: Optional[Storages] = None,
    progress: Optional[Progress] = None,
    rate: Optional[int] = None,
    timeout: Optional[float] = None,
) -> Conversion:
    """Copies blocks of an image, or of a descriptor, which is read in order.

    >>> import tempfile
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = create(folder / "disk.qcow2", "qcow2", "1M")
    >>> _ = dd(folder / "disk.qcow2", folder / "part", source_format="qcow2", skip=1, count=2)
    >>> (folder / "part").stat().st_size
    1024
    """
    request = made("platter_dd", lib.platter_dd_new, 0)
    how = opening(
        format=source_format, policy=source_policy, secrets=source_secrets, storages=storages
    )
    flags = lib.PLATTER_OPEN_FORCE_SHARE if force_share else 0
    call(lib.platter_dd_set_input_options, request, how, flags)
    if isinstance(source, int):
        call(lib.platter_dd_set_input_fd, request, source, 0)
    else:
        call(lib.platter_dd_set_input, request, *location_of(source))
    call(lib.platter_dd_set_snapshot, request, optional_name(snapshot), 0)
    if isinstance(target, int):
        if format != "raw":
            raise ValueError("a descriptor takes the bytes of the disk, and no format")
        call(lib.platter_dd_set_output_fd, request, target, 0)
    else:
        where, flags = location_of(target)
        call(lib.platter_dd_set_output, request, where, name(format), flags)
    if cache is not None:
        call(lib.platter_dd_set_output_cache, request, name(cache), 0)
    if policy is not None:
        call(lib.platter_dd_set_output_policy, request, policy.handle, 0)
    call(lib.platter_dd_set_secrets, request, secrets_of(secrets), 0)
    call(lib.platter_dd_set_output_storages, request, named(storages), 0)
    for which, value in (
        (lib.PLATTER_DD_BLOCK_SIZE, block_size),
        (lib.PLATTER_DD_COUNT, count),
        (lib.PLATTER_DD_SKIP, skip),
        (lib.PLATTER_DD_INPUT_SIZE, input_size),
        (lib.PLATTER_DD_OUTPUT_SIZE, output_size),
    ):
        if value is not None:
            call(lib.platter_dd_set_number, request, which, value, 0)
    flags = _flags(
        (existing, lib.PLATTER_DD_OUTPUT_EXISTS), (exclusive, lib.PLATTER_DD_EXCLUSIVE)
    )
    job = made("platter_job", lib.platter_dd_job_new, request, flags)
    report = jobs.run(job, progress=progress, rate=rate, timeout=timeout)
    return Conversion(report.numbers(_NUMBERS), None, report.warnings)


def _flags(*wanted: Tuple[bool, int]) -> int:
    """Combines the flags that are wanted."""
    return sum(flag for is_wanted, flag in wanted if is_wanted)


def _several(source: Union[Location, Sequence[Location]]) -> Sequence[Location]:
    if isinstance(source, (str, bytes, os.PathLike, Mapping)):
        return [source]
    return source


def compare(
    first: Image, second: Image, *, strict: bool = False, progress: Optional[Progress] = None
) -> Optional[int]:
    """None if both have the same guest bytes, otherwise the offset at which they differ."""
    flags = lib.PLATTER_COMPARE_STRICT if strict else 0
    job = made("platter_job", lib.platter_compare_job_new, first.handle, second.handle, flags)
    report = jobs.run(job, progress=progress)
    if report.flag("identical"):
        return None
    found = report.numbers(["offset"])
    return found.get("offset", min(first.size, second.size))


def commit(
    location: Location,
    *,
    base: Optional[Name] = None,
    format: Optional[str] = None,
    policy: Optional[Policy] = None,
    secrets: Optional[Secrets] = None,
    storages: Optional[Storages] = None,
    keep: bool = False,
    progress: Optional[Progress] = None,
    rate: Optional[int] = None,
) -> Report:
    """Copies what an overlay holds into an image of its chain; ``keep`` leaves the overlay as it is."""
    where, flags = location_of(location)
    how = opening(format=format, policy=policy, secrets=secrets, storages=storages)
    flags |= lib.PLATTER_COMMIT_KEEP if keep else 0
    job = made("platter_job", lib.platter_commit_job_new, where, optional_name(base), how, flags)
    return jobs.run(job, progress=progress, rate=rate)


def rebase(
    location: Location,
    backing: Optional[Name],
    backing_format: Optional[str] = None,
    *,
    format: Optional[str] = None,
    policy: Optional[Policy] = None,
    secrets: Optional[Secrets] = None,
    storages: Optional[Storages] = None,
    name_only: bool = False,
    compress: bool = False,
    backing_cache: Optional[str] = None,
    progress: Optional[Progress] = None,
) -> Report:
    """Gives an overlay another backing file, or none; the guest sees the same bytes unless ``name_only``."""
    where, flags = location_of(location)
    how = opening(format=format, policy=policy, secrets=secrets, storages=storages)
    flags |= lib.PLATTER_REBASE_NAME_ONLY if name_only else 0
    flags |= lib.PLATTER_REBASE_COMPRESS if compress else 0
    job = made(
        "platter_job",
        lib.platter_rebase_job_new,
        where,
        name("" if backing is None else backing),
        optional_name(backing_format),
        optional_name(backing_cache),
        how,
        flags,
    )
    return jobs.run(job, progress=progress)


def measure(
    format: str,
    *,
    image: Optional[Image] = None,
    size: Optional[Size] = None,
    options: Optional[Options] = None,
) -> Mapping[str, int]:
    """How large a new image would be, of a given size or with the contents of an image.

    >>> measure("raw", size="1M")["required"]
    1048576
    """
    handle = ffi.NULL if image is None else image.handle
    wanted = 0 if size is None else size_of(size)
    job = made(
        "platter_job",
        lib.platter_measure_job_new,
        handle,
        wanted,
        name(format),
        options_of(options),
        0,
    )
    found: Mapping[str, int] = jobs.run(job).json()
    return found


def info(
    location: Location,
    *,
    format: Optional[str] = None,
    chain: bool = False,
    policy: Optional[Policy] = None,
    secrets: Optional[Secrets] = None,
    storages: Optional[Storages] = None,
    force_share: bool = False,
) -> Union[Mapping[str, Any], List[Mapping[str, Any]]]:
    """Describes an image, as ``info --output=json`` does; with ``chain`` a list that includes its backing files."""
    where, flags = location_of(location)
    how = opening(format=format, policy=policy, secrets=secrets, storages=storages)
    flags |= lib.PLATTER_INFO_CHAIN if chain else 0
    flags |= lib.PLATTER_OPEN_FORCE_SHARE if force_share else 0
    report = jobs.query(lib.platter_image_describe, where, how, flags)
    found: Union[Mapping[str, Any], List[Mapping[str, Any]]] = report.json()
    return found


def inspect(
    location: Union[Location, int],
    *,
    format: Optional[str] = None,
    profile: Optional[str] = None,
    policy: Optional[Policy] = None,
    storages: Optional[Storages] = None,
) -> Mapping[str, Any]:
    """Whether a file from elsewhere is safe to use as an image, and the product of a ``profile`` would accept it.
    Nothing that it names is opened. The location may be a descriptor."""
    if isinstance(location, int) and profile is not None:
        # Inspection for a profile requires a name.
        storages = Storages({f"/dev/fd/{location}": location})
        location = f"/dev/fd/{location}"
    how = opening(format=format, policy=policy, storages=storages)
    if isinstance(location, int):
        report = jobs.query(lib.platter_inspect_fd, location, ffi.NULL, how, 0)
    else:
        where, flags = location_of(location)
        report = (
            jobs.query(lib.platter_inspect, where, how, flags)
            if profile is None
            else jobs.query(lib.platter_inspect_for_profile, where, name(profile), how, flags)
        )
    found: Mapping[str, Any] = report.json()
    return found
