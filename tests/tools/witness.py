"""Reads disk images with the readers of other projects.

Takes a list in JSON from its input: of each image a reader, the name of the image with those of its
parents behind it, the nearest first, and the raw disk that it must equal; of a disk that is too large
for that, its size and ranges (offset, length), which the raw file holds one after the other. Prints a
line for each: "ok", or what is wrong. Of these readers, only what their documents say is used.

    witness.py stream RAW TARGET      makes a streamOptimized VMDK
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

PART = 1 << 20

# The size and the ranges that are asked for, where that is not all.
asked = None


def parts(file, size, at_once=PART):
    if asked is None:
        yield from run(file, size, at_once)
        return
    expected, ranges = asked
    if size != expected:
        raise EOFError(f"the disk has {size} bytes in place of {expected}")
    for offset, length in ranges:
        file.seek(offset)
        yield from run(file, length, at_once)


def run(file, size, at_once):
    while size > 0:
        part = file.read(min(size, at_once))
        if not part:
            raise EOFError(f"{size} bytes are missing")
        size -= len(part)
        yield part


def libvhdi(names):
    import pyvhdi

    files = []
    for name in names:
        file = pyvhdi.file()
        file.open(name)
        files.append(file)
    for child, parent in zip(files, files[1:]):
        child.set_parent(parent)
    yield from parts(files[0], files[0].get_media_size())


def libvmdk(names):
    import pyvmdk

    handles = []
    for name in names:
        handle = pyvmdk.handle()
        handle.open(name)
        handle.open_extent_data_files()
        handles.append(handle)
    for child, parent in zip(handles, handles[1:]):
        child.set_parent(parent)
    yield from parts(handles[0], handles[0].get_media_size())


def libqcow(names):
    import pyqcow

    file = pyqcow.file()
    file.open(names[0])
    yield from parts(file, file.get_media_size())


def libqcow_aes(names):
    import pyqcow

    file = pyqcow.file()
    file.set_password("correct horse")
    file.open(names[0])
    yield from parts(file, file.get_media_size())


def dissect(stream, at_once=PART):
    yield from parts(stream, stream.size, at_once)


def dissect_vhd(names):
    from dissect.hypervisor.disk.vhd import VHD

    with open(names[0], "rb") as file:
        yield from dissect(VHD(file))


def dissect_vhdx(names):
    from dissect.hypervisor.disk.vhdx import VHDX

    # It finds parents by itself. In larger parts it mixes up what lies in several blocks.
    yield from dissect(VHDX(Path(names[0])), 4096)


def dissect_vmdk(names):
    from dissect.hypervisor.disk.vmdk import VMDK

    # It finds parents by itself.
    yield from dissect(VMDK(Path(names[0])))


def dissect_vdi(names):
    from dissect.hypervisor.disk.vdi import VDI

    stream = None
    for name in reversed(names):
        stream = VDI(Path(name), stream).open()
    # As with VHDX.
    yield from dissect(stream, 4096)


def dissect_hds(names):
    from dissect.hypervisor.disk.hdd import HDS

    with open(names[0], "rb") as file:
        yield from dissect(HDS(file))


def dissect_hdd(names):
    from dissect.hypervisor.disk.hdd import HDD

    # In larger parts it mixes up what lies in several files.
    yield from dissect(HDD(Path(names[0])).open(), 4096)


def dissect_asif(names):
    from dissect.hypervisor.disk.asif import ASIF

    with open(names[0], "rb") as file:
        yield from dissect(ASIF(file).open())


def libphdi(names):
    import pyphdi

    handle = pyphdi.handle()
    handle.open(names[0] + "/DiskDescriptor.xml")
    handle.open_extent_data_files()
    yield from parts(handle, handle.get_media_size())


def libewf(names):
    import pyewf

    handle = pyewf.handle()
    handle.open(names)
    yield from parts(handle, handle.get_media_size())


def libmodi(names):
    import pymodi

    handle = pymodi.handle()
    handle.open(names[0])
    yield from parts(handle, handle.get_media_size())


def dmg2img(number, names):
    # What it makes of a whole image differs from the disk behind the first partition: one at a time.
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory, "part")
        command = ["dmg2img", "-s", "-p", number, names[0], str(target)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        yield target.read_bytes()


def seven_zip(kind, names):
    # It finds parents by itself.
    ran = subprocess.run(["7zz", "e", "-so", "-t" + kind, names[0]], capture_output=True)
    if ran.returncode != 0:
        raise OSError(ran.stderr.decode(errors="replace").strip())
    yield ran.stdout


def compare(chunks, name):
    at = 0
    with open(name, "rb") as raw:
        for chunk in chunks:
            expected = raw.read(len(chunk))
            if chunk != expected:
                bytes_of_both = enumerate(zip(chunk, expected))
                wrong = next((n for n, (a, b) in bytes_of_both if a != b), len(expected))
                return f"differs at byte {at + wrong}"
            at += len(chunk)
        left = len(raw.read())
    return f"ends {left} bytes early" if left else "ok"


def main():
    if sys.argv[1:2] == ["stream"]:
        import VMDKstream

        VMDKstream.convert_to_stream(*sys.argv[2:])
        return
    global asked
    for reader, names, expected, *of_it in json.load(sys.stdin):
        asked = of_it or None
        if reader.startswith("7-Zip "):
            chunks = seven_zip(reader.removeprefix("7-Zip "), names)
        elif reader.startswith("dmg2img "):
            chunks = dmg2img(reader.removeprefix("dmg2img "), names)
        else:
            chunks = globals()[reader](names)
        try:
            line = compare(chunks, expected)
        except Exception as error:
            line = f"{type(error).__name__}: {error}"
        print(line.replace("\n", " "), flush=True)


main()
