"""Five tasks with disk images. `python3 -m doctest tasks.py` runs the examples in their descriptions."""

import os
import platter


def take_upload(upload, format, target):
    """Copies an untrusted upload, an open file, into an image of one's own.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> _ = platter.create(f"{folder}/sent", "qcow2", "1M")
    >>> with open(f"{folder}/sent", "rb") as upload:
    ...     take_upload(upload, "qcow2", f"{folder}/kept")
    >>> _ = platter.create(f"{folder}/other", "qcow2", backing="sent", backing_format="qcow2",
    ...     policy=platter.Policy(directories=[folder]))
    >>> with open(f"{folder}/other", "rb") as upload:
    ...     take_upload(upload, "qcow2", f"{folder}/not-kept")
    Traceback (most recent call last):
    PermissionError: ...

    What cannot be inspected is refused as well: here a snapshot table whose stated size is too large.

    >>> with open(f"{folder}/sent", "r+b") as upload:
    ...     _ = upload.seek(60)
    ...     _ = upload.write((1).to_bytes(4, "big") + (16 << 16).to_bytes(8, "big"))
    ...     _ = upload.seek(16 << 16)
    ...     _ = upload.write((3 << 16).to_bytes(8, "big") + (4194305).to_bytes(4, "big") + bytes(52))
    >>> with open(f"{folder}/sent", "rb") as upload:
    ...     take_upload(upload, "qcow2", f"{folder}/not-kept")
    Traceback (most recent call last):
    PermissionError: backing-format, plain-names, header-consistent, key-derivation
    """
    storages = platter.Storages(upload=upload)
    report = platter.inspect("upload", format=format, storages=storages)
    if report["verdict"] != "pass":
        refused = [guard["id"] for guard in report["guards"] if guard["verdict"] != "pass"]
        raise PermissionError(", ".join(refused))
    platter.convert(
        "upload", target, "qcow2", source_format=format, storages=storages, timeout=600
    )


def read_chain(overlay, directory, offset, length):
    """Reads an overlay whose backing files lie in one directory, and nowhere else.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> _ = platter.create(f"{folder}/base", "qcow2", "1M")
    >>> with platter.open(f"{folder}/base", format="qcow2", writable=True) as base:
    ...     base.write(0, b"below")
    >>> _ = platter.create(f"{folder}/top", "qcow2", backing="base", backing_format="qcow2",
    ...     policy=platter.Policy(directories=[folder]))
    >>> read_chain(f"{folder}/top", folder, 0, 5)
    b'below'
    """
    policy = platter.Policy(directories=[directory])
    with platter.open(overlay, format="qcow2", policy=policy) as image:
        return image.read(offset, length)


class Memory:
    """A storage that the program provides: bytes in memory."""

    def __init__(self, contents=b""):
        self.contents = bytearray(contents)

    def size(self):
        return len(self.contents)

    def read(self, offset, length):
        return bytes(self.contents[offset : offset + length])

    def write(self, offset, data):
        end = offset + len(data)
        if end > len(self.contents):
            self.resize(end)
        self.contents[offset:end] = data

    def flush(self):
        pass

    def resize(self, size):
        self.contents.extend(bytes(max(0, size - len(self.contents))))
        del self.contents[size:]


def convert_in_memory(disk):
    """Converts a raw disk to a qcow2 image, both in memory.

    >>> convert_in_memory(bytes(1 << 20))[:4]
    b'QFI\\xfb'
    """
    image = Memory()
    storages = platter.Storages({"disk": Memory(disk), "image": image})
    platter.convert("disk", "image", "qcow2", source_format="raw", storages=storages)
    return bytes(image.contents)


def back_up(source, copy):
    """Copies what has changed since the last backup into a raw copy; returns the number of bytes.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> _ = platter.create(f"{folder}/disk", "qcow2", "1M")
    >>> _ = platter.create(f"{folder}/copy", "raw", "1M")
    >>> back_up(f"{folder}/disk", f"{folder}/copy")
    1048576
    >>> with platter.open(f"{folder}/disk", format="qcow2", writable=True) as image:
    ...     image.write(70000, b"changed")
    >>> back_up(f"{folder}/disk", f"{folder}/copy")
    65536
    """
    with platter.open(source, format="qcow2", writable=True) as image, platter.open(
        copy, format="raw", writable=True
    ) as target:
        try:
            runs = image.dirty("backup")
        except platter.NotFound:
            runs = [(0, image.size)]
            first = True
        else:
            first = False
        for offset, length in runs:
            for at in range(offset, offset + length, 1 << 20):
                part = min(1 << 20, offset + length - at)
                target.write(at, image.read(at, part))
        target.flush()
        # Only now, so that after a failed run the next one copies the same again.
        (image.add_bitmap if first else image.clear_bitmap)("backup")
        return sum(length for _, length in runs)


def read_encrypted(image, passphrase):
    """Reads the first sector of an encrypted image in an open file; the passphrase comes from a function.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> _ = platter.create(f"{folder}/disk", "qcow2", "1M", secrets={"key": "word"},
    ...     options={"encrypt.format": "luks", "encrypt.key-secret": "key", "encrypt.iter-time": 10})
    >>> with open(f"{folder}/disk", "rb") as image:
    ...     read_encrypted(image, lambda identifier: "word") == bytes(512)
    True
    >>> with open(f"{folder}/disk", "rb") as image:
    ...     read_encrypted(image, lambda identifier: "other")
    Traceback (most recent call last):
    platter.errors.WrongSecret: ...
    """
    description = {
        "driver": "qcow2",
        "file": {"driver": "file", "filename": "disk"},
        "encrypt": {"format": "luks", "key-secret": "passphrase"},
    }
    storages = platter.Storages(disk=image)
    with platter.open(description, secrets=passphrase, storages=storages) as opened:
        return opened.read(0, 512)
