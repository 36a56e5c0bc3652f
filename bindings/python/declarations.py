"""The declarations of the C header, as cffi accepts them."""

import re
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent


def header() -> str:
    """The header of this source tree, or of a source distribution."""
    for path in (HERE.parents[1] / "include/platter.h", HERE / "platter/platter.h"):
        if path.exists():
            return path.read_text(encoding="utf-8")
    raise FileNotFoundError("include/platter.h")


def declarations(text: str) -> str:
    """Leaves out comments, conditions and definitions that are not numbers."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    lines = ["struct iovec { void *iov_base; size_t iov_len; };"]
    in_cpp = False
    for line in text.splitlines():
        if line.startswith("#ifdef __cplusplus"):
            in_cpp = True
        elif line.startswith("#endif"):
            in_cpp = False
        elif line.startswith("#define"):
            if re.fullmatch(r"#define \w+ -?\d+(ull)?", line):
                lines.append(line.removesuffix("ull"))
        elif not in_cpp and not line.startswith("#"):
            lines.append(line)
    return "\n".join(lines)


ffi = FFI()
ffi.cdef(declarations(header()))
ffi.set_source("platter._native", None)

if __name__ == "__main__":
    ffi.compile(tmpdir=str(HERE), verbose=False)
