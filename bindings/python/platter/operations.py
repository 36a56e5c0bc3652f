"""What is done with whole images: create, convert, compare, commit, rebase, measure, info, inspect."""

from __future__ import annotations

import os
from typing import Any, List, Mapping, NamedTuple, Optional, Sequence, Union

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
    progress: Optional[Progress] = None,
) -> Report:
    """Makes a new image; what is there already is replaced."""
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
    job = made("platter_job", lib.platter_create_job_new, request, 0)
    return jobs.run(job, progress=progress)


class Conversion(NamedTuple):
    """What a conversion did."""

    #: Numbers of the report, by their keys: ``virtual-size``, ``data-bytes``, ``zero-bytes``…
    numbers: Mapping[str, int]
    #: The digest of the guest's bytes, where one was asked for.
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
    source: Union[Location, Sequence[Location]],
    target: Location,
    format: str = "raw",
    *,
    source_format: Optional[str] = None,
    source_policy: Optional[Policy] = None,
    source_secrets: Optional[Secrets] = None,
    decompress: Optional[str] = None,
    snapshot: Optional[str] = None,
    options: Optional[Options] = None,
    compress: bool = False,
    existing: bool = False,
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
    """Copies one image, or several behind each other, into another. ``storages`` hold for both sides.

    >>> import tempfile
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = create(folder / "disk.qcow2", "qcow2", "1M")
    >>> convert(folder / "disk.qcow2", folder / "disk.raw").numbers["virtual-size"]
    1048576
    """
    request = made("platter_convert", lib.platter_convert_new, 0)
    for one in _several(source):
        where, flags = location_of(one)
        call(lib.platter_convert_add_source, request, where, flags)
    how = opening(
        format=source_format,
        policy=source_policy,
        secrets=source_secrets,
        storages=storages,
        decompress=decompress,
    )
    call(lib.platter_convert_set_source_options, request, how, 0)
    where, flags = location_of(target)
    call(lib.platter_convert_set_target, request, where, name(format), flags)
    bag = options_of(options)
    if bag != ffi.NULL:
        call(lib.platter_convert_set_target_options, request, bag, 0)
    if snapshot is not None:
        call(lib.platter_convert_set_snapshot, request, name(snapshot), 0)
    if backing is not None:
        form = optional_name(backing_format)
        call(lib.platter_convert_set_backing, request, name(backing), form, 0)
    if cache is not None:
        call(lib.platter_convert_set_target_cache, request, name(cache), 0)
    if policy is not None:
        call(lib.platter_convert_set_target_policy, request, policy.handle, 0)
    call(lib.platter_convert_set_secrets, request, secrets_of(secrets), 0)
    call(lib.platter_convert_set_storages, request, named(storages), 0)
    if parallel is not None:
        call(lib.platter_convert_set_number, request, lib.PLATTER_CONVERT_PARALLEL, parallel, 0)
    if checksum is not None:
        call(lib.platter_convert_set_checksum, request, name(checksum), 0)
    flags = lib.PLATTER_CONVERT_COMPRESS if compress else 0
    flags |= lib.PLATTER_CONVERT_TARGET_EXISTS if existing else 0
    job = made("platter_job", lib.platter_convert_job_new, request, flags)
    report = jobs.run(job, progress=progress, rate=rate, timeout=timeout)
    digest = report.string(checksum) if checksum is not None else None
    return Conversion(report.numbers(_NUMBERS), digest, report.warnings)


def _several(source: Union[Location, Sequence[Location]]) -> Sequence[Location]:
    if isinstance(source, (str, bytes, os.PathLike, Mapping)):
        return [source]
    return source


def compare(
    first: Image, second: Image, *, strict: bool = False, progress: Optional[Progress] = None
) -> Optional[int]:
    """None where both have the same guest bytes, else the offset at which they differ."""
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
    progress: Optional[Progress] = None,
) -> Report:
    """Gives an overlay another backing file, or none; the guest sees the same bytes unless ``name_only``."""
    where, flags = location_of(location)
    how = opening(format=format, policy=policy, secrets=secrets, storages=storages)
    flags |= lib.PLATTER_REBASE_NAME_ONLY if name_only else 0
    job = made(
        "platter_job",
        lib.platter_rebase_job_new,
        where,
        name("" if backing is None else backing),
        optional_name(backing_format),
        ffi.NULL,
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
    """How large a new image would be: of a given size, or with the content of an image.

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
    """What an image is, as ``info --output=json`` tells; with ``chain`` a list with its backing files."""
    where, flags = location_of(location)
    how = opening(format=format, policy=policy, secrets=secrets, storages=storages)
    flags |= lib.PLATTER_INFO_CHAIN if chain else 0
    flags |= lib.PLATTER_OPEN_FORCE_SHARE if force_share else 0
    report = jobs.query(lib.platter_image_describe, where, how, flags)
    found: Union[Mapping[str, Any], List[Mapping[str, Any]]] = report.json()
    return found


def inspect(
    location: Location,
    *,
    format: Optional[str] = None,
    policy: Optional[Policy] = None,
    storages: Optional[Storages] = None,
) -> Mapping[str, Any]:
    """Whether a file from elsewhere is safe to use as an image. Nothing that it names is opened."""
    where, flags = location_of(location)
    how = opening(format=format, policy=policy, storages=storages)
    found: Mapping[str, Any] = jobs.query(lib.platter_inspect, where, how, flags).json()
    return found
