"""Virtual-machine disk images: create, read, write, convert and check them.

>>> import platter, tempfile
>>> from pathlib import Path
>>> folder = Path(tempfile.mkdtemp())
>>> _ = platter.create(folder / "disk.qcow2", "qcow2", "10G")
>>> platter.info(folder / "disk.qcow2", format="qcow2")["virtual-size"]
10737418240
"""

from ._library import lib as _lib
from ._library import text as _text
from ._options import Implicit, Location, Nodes, Options, Policy, Secrets, Size
from .errors import (
    Busy,
    Cancelled,
    Corrupt,
    Denied,
    Error,
    Exists,
    InternalError,
    Invalid,
    LimitExceeded,
    Locked,
    NeedsSecret,
    NoSpace,
    NotAnImage,
    NotFound,
    OperatingSystemError,
    ReadOnly,
    Unsupported,
    WrongSecret,
)
from .image import Extent, Image, open
from .introspection import Child, Driver, Option, Profile, drivers, profiles
from .jobs import Message, Progress, Report
from .operations import (
    Conversion,
    commit,
    compare,
    convert,
    create,
    dd,
    info,
    inspect,
    measure,
    rebase,
)
from .log import Log, set_log, trace
from .serving import Export, Offered, Server, exports
from .storage import Storage, Storages

#: The version of the library.
__version__ = _text(_lib.platter_version_string())

__all__ = [
    "Busy",
    "Cancelled",
    "Child",
    "Conversion",
    "Corrupt",
    "Denied",
    "Driver",
    "Error",
    "Exists",
    "Export",
    "Extent",
    "Image",
    "Implicit",
    "InternalError",
    "Invalid",
    "LimitExceeded",
    "Location",
    "Locked",
    "Log",
    "Message",
    "NeedsSecret",
    "NoSpace",
    "Nodes",
    "NotAnImage",
    "NotFound",
    "Offered",
    "OperatingSystemError",
    "Option",
    "Options",
    "Policy",
    "Profile",
    "Progress",
    "ReadOnly",
    "Report",
    "Secrets",
    "Server",
    "Size",
    "Storage",
    "Storages",
    "Unsupported",
    "WrongSecret",
    "commit",
    "compare",
    "convert",
    "create",
    "dd",
    "drivers",
    "exports",
    "info",
    "inspect",
    "measure",
    "open",
    "profiles",
    "rebase",
    "set_log",
    "trace",
]
