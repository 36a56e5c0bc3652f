"""The package against the library."""

import doctest
import errno
import gc
import os
import signal
import tempfile
import threading
import unittest
import warnings
from pathlib import Path

import platter
import platter.image
import platter.log
import platter.operations
import platter.serving
import platter.storage
from platter import _options

MIB = 1 << 20


class Memory:
    """Bytes of the program."""

    def __init__(self, size=0):
        self.bytes = bytearray(size)
        self.lock = threading.Lock()
        self.fails = None

    def size(self):
        return len(self.bytes)

    def read(self, offset, length):
        if self.fails is not None:
            raise self.fails
        return self.bytes[offset : offset + length]

    def write(self, offset, data):
        with self.lock:
            end = offset + len(data)
            if end > len(self.bytes):
                self.bytes.extend(bytes(end - len(self.bytes)))
            self.bytes[offset:end] = data

    def flush(self):
        pass

    def resize(self, size):
        with self.lock:
            self.bytes.extend(bytes(max(0, size - len(self.bytes))))
            del self.bytes[size:]


class Reading:
    """Read-only bytes."""

    def __init__(self, data):
        self.data = data

    def size(self):
        return len(self.data)

    def read(self, offset, length):
        return self.data[offset : offset + length]


class TestPlatter(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.folder = Path(directory.name)

    def made_disk(self):
        platter.create(self.folder / "made.qcow2", "qcow2", "1M")
        return self.folder / "made.qcow2"

    def test_a_round_trip(self):
        disk = self.folder / "disk.qcow2"
        platter.create(disk, "qcow2", "4M", options={"cluster_size": 65536, "lazy_refcounts": True})
        with platter.open(disk, format="qcow2", writable=True) as image:
            self.assertEqual((image.size, len(image), image.format), (4 * MIB, 4 * MIB, "qcow2"))
            image.write(MIB, b"abc" * 1000, durable=True)
            image.write_zeroes(2 * MIB, MIB)
            self.assertEqual(image.read(MIB, 6), b"abcabc")
            buffer = bytearray(4)
            image.readinto(MIB + 1, memoryview(buffer)[1:])
            self.assertEqual(buffer, b"\0bca")
            self.assertEqual(image.cluster_size, 65536)
            self.assertFalse(image.read_only)
        with self.assertRaises(ValueError):
            image.read(0, 1)
        found = platter.info(disk, format="qcow2")
        self.assertEqual(found["format-specific"]["data"]["lazy-refcounts"], True)
        with platter.open(disk, format="qcow2") as image:
            runs = [(run.offset, run.data) for run in image.extents()]
            self.assertEqual(runs[:2], [(0, False), (MIB, True)])
            self.assertEqual(image.check().exit_code, 0)
            with self.assertRaises(platter.ReadOnly):
                image.write(0, b"x")
        self.assertEqual(platter.measure("qcow2", size="1G")["required"], 393216)

    def test_drivers_say_what_they_take(self):
        drivers = {driver.name: driver for driver in platter.drivers()}
        self.assertEqual([drivers[name].kind for name in ("vdi", "ssh", "quorum")], ["format", "protocol", "filter"])
        made = {option.name: option for option in drivers["qcow2"].options("create")}
        self.assertEqual((made["cluster_size"].type, made["cluster_size"].default), ("size", "65536"))
        opened = {option.name: option for option in drivers["qcow2"].options()}
        self.assertTrue(opened["encrypt.key-secret"].is_secret and opened["encrypt.key-secret"].selects)
        self.assertTrue(opened["read-only"].is_common)
        self.assertEqual(opened["detect-zeroes"].allowed, ("off", "on", "unmap"))
        with self.assertRaises(ValueError):
            drivers["qcow2"].options("close")
        children = {child.name: child for child in drivers["qcow2"].children()}
        self.assertTrue(children["file"].is_required)
        self.assertFalse(children["backing"].is_required)
        with platter.open(self.made_disk(), format="qcow2") as image:
            self.assertEqual(image.features & ~drivers["qcow2"].features, 0)

    def test_errors_say_what_and_where(self):
        missing = self.folder / "no such"
        with self.assertRaises(platter.NotFound) as caught:
            platter.open(missing)
        self.assertIn("no such", caught.exception.message)
        self.assertEqual(caught.exception.errno, errno.ENOENT)
        self.assertEqual(caught.exception.status, "NOT_FOUND")
        self.assertIsNone(caught.exception.file)
        self.assertEqual(caught.exception.stage, "open")
        self.assertEqual(caught.exception.message.count("no such"), 1)
        with self.assertRaises(platter.Error):
            platter.create(missing, "bogus", 1)
        with self.assertRaises(platter.Invalid):
            _options.size("1kb")
        with self.assertRaises(ValueError):
            platter.open(b"a\0b")

    def test_names_that_are_not_utf_8(self):
        disk = os.fsencode(self.folder) + b"/d\xff.raw"
        platter.create(Path(os.fsdecode(disk)), "raw", MIB)
        with platter.open(Path(os.fsdecode(disk)), format="raw") as image:
            self.assertEqual(os.fsencode(image.filename), disk)

    def test_a_chain_of_storages_in_python(self):
        base, overlay = Memory(), tempfile.TemporaryFile()
        self.addCleanup(overlay.close)
        storages = platter.Storages({"base": base, "overlay": overlay})
        policy = platter.Policy(permissive=True)
        platter.create("base", "vmdk", "2M", storages=storages)
        with platter.open("base", format="vmdk", writable=True, storages=storages) as image:
            image.write(0, b"below")
        platter.create(
            "overlay", "qcow2", backing="base", backing_format="vmdk", storages=storages, policy=policy
        )
        how = {"format": "qcow2", "storages": storages, "policy": policy}
        with platter.open("overlay", writable=True, **how) as image:
            self.assertEqual(image.read(0, 5), b"below")
            image.write(0, b"above")
            # The base is read by the overlay, so nobody writes to it.
            with self.assertRaises(platter.Locked):
                platter.open("base", format="vmdk", writable=True, storages=storages)
        target = Memory()
        storages.add("target", target)
        done = platter.convert(
            "overlay",
            "target",
            source_format="qcow2",
            source_policy=policy,
            storages=storages,
            checksum="sha256",
        )
        self.assertEqual(bytes(target.bytes[:5]), b"above")
        self.assertEqual(done.numbers["virtual-size"], 2 * MIB)
        self.assertEqual(len(done.checksum), 64)
        platter.commit("overlay", **how)
        with platter.open("base", format="vmdk", storages=storages) as image:
            self.assertEqual(image.read(0, 5), b"above")

    def test_a_storage_that_fails_and_one_that_is_only_read(self):
        failing = Memory(MIB)
        storages = platter.Storages(failing=failing, reading=Reading(bytes(MIB)))
        with platter.open("failing", format="raw", storages=storages) as image:
            failing.fails = OSError(errno.ETIMEDOUT, "away")
            with self.assertRaises(platter.Error) as caught:
                image.read(0, 512)
            self.assertEqual(caught.exception.errno, errno.ETIMEDOUT)
            self.assertIn("away", caught.exception.message)
            self.assertEqual(image.cluster_size, 0)
        with self.assertRaises(platter.ReadOnly):
            platter.open("reading", format="raw", writable=True, storages=storages)
        with platter.open("reading", format="raw", storages=storages) as image:
            self.assertEqual(image.read(MIB - 2, 2), b"\0\0")

    def test_an_encrypted_image_by_descriptor_and_callback(self):
        asked = []

        def secret(identifier):
            asked.append(identifier)
            return b"passphrase" if identifier == "key" else None

        with tempfile.TemporaryFile() as file:
            platter.create(
                "vault",
                "qcow2",
                "1M",
                options={
                    "encrypt.format": "luks",
                    "encrypt.key-secret": "key",
                    "encrypt.iter-time": 10,
                },
                secrets=secret,
                storages=platter.Storages(vault=file),
            )
            location = {"driver": "qcow2", "encrypt.key-secret": "key", "file.filename": "vault"}
            how = {"storages": platter.Storages(vault=file), "policy": platter.Policy(permissive=True)}
            with platter.open(location, writable=True, secrets=secret, **how) as image:
                image.write(0, b"hidden")
            with platter.open(location, secrets={"key": "passphrase"}, **how) as image:
                self.assertEqual(image.read(0, 6), b"hidden")
            options = {"encrypt.key-secret": "key"}
            with platter.open(
                file.fileno(), format="qcow2", options=options, secrets={"key": "passphrase"}
            ) as image:
                self.assertEqual(image.read(0, 6), b"hidden")
            with self.assertRaises(platter.WrongSecret):
                platter.open(location, secrets={"key": "guess"}, **how)
            file.seek(0)
            self.assertNotIn(b"hidden", file.read())
        self.assertIn("key", asked)

    def test_an_incremental_backup_by_a_dirty_bitmap(self):
        disk = self.folder / "disk.qcow2"
        platter.create(disk, "qcow2", "4M")
        with platter.open(disk, format="qcow2", writable=True) as image:
            image.write(0, b"\1" * MIB)
            image.add_bitmap("since", 65536)
            image.write(2 * MIB, b"\2" * 65536)
            image.write(3 * MIB + 5, b"\3")
            dirty = image.dirty("since")
            self.assertEqual(dirty, [(2 * MIB, 65536), (3 * MIB, 65536)])
            backup = {offset: image.read(offset, length) for offset, length in dirty}
            image.clear_bitmap("since")
            self.assertEqual(image.dirty("since"), [])
        self.assertEqual(backup[3 * MIB][5], 3)

    def test_snapshots_and_resize(self):
        disk = self.folder / "disk.qcow2"
        platter.create(disk, "qcow2", "1M")
        with platter.open(disk, format="qcow2", writable=True) as image:
            image.write(0, b"old")
            image.create_snapshot("first")
            image.write(0, b"new")
            self.assertEqual([one["name"] for one in image.snapshots()], ["first"])
            image.apply_snapshot("first")
            self.assertEqual(image.read(0, 3), b"old")
            image.delete_snapshot("first")
            self.assertEqual(image.snapshots(), [])
            image.resize("2M")
            self.assertEqual(image.size, 2 * MIB)
            with self.assertRaises(platter.Error):
                image.resize("1M")
            image.resize("1M", shrink=True)
            image.amend({"lazy_refcounts": True})

    def test_overlays_and_policies(self):
        base, overlay = self.folder / "base.raw", self.folder / "overlay.qcow2"
        base.write_bytes(b"\5" * MIB)
        platter.create(overlay, "qcow2", backing=base, backing_format="raw")
        with self.assertRaises(platter.Denied):
            platter.open(overlay, format="qcow2")
        policy = platter.Policy(directories=[self.folder], formats=["qcow2", "raw"])
        with platter.open(overlay, format="qcow2", policy=policy) as image:
            self.assertEqual(image.read(0, 1), b"\5")
            with platter.open(base, format="raw") as other:
                self.assertIsNone(platter.compare(image, other))
        with platter.open(overlay, format="qcow2", backing=False) as image:
            self.assertTrue(next(image.extents()).unknown)
        chain = platter.info(overlay, format="qcow2", chain=True, policy=policy)
        self.assertEqual([layer["format"] for layer in chain], ["qcow2", "raw"])
        platter.rebase(overlay, None, format="qcow2", policy=policy)
        with platter.open(overlay, format="qcow2") as image:
            self.assertEqual(image.read(MIB - 1, 1), b"\5")
        self.assertTrue(platter.inspect(overlay, format="qcow2"))

    def test_progress_moves_and_may_end_the_work(self):
        source = self.folder / "source.raw"
        source.write_bytes(os.urandom(4 * MIB))
        target = self.folder / "target.qcow2"
        seen = []
        platter.convert(
            source, target, "qcow2", source_format="raw", progress=lambda *at: seen.append(at)
        )
        self.assertEqual(seen[-1][0], seen[-1][1])

        def enough(done, total):
            raise LookupError("enough")

        with self.assertRaises(LookupError):
            platter.convert(
                source,
                self.folder / "other.qcow2",
                "qcow2",
                source_format="raw",
                progress=enough,
                rate=MIB,
            )
        self.assertFalse((self.folder / "other.qcow2").exists())
        with self.assertRaises(platter.Cancelled):
            platter.convert(
                source,
                self.folder / "late.qcow2",
                "qcow2",
                source_format="raw",
                rate=MIB // 4,
                timeout=0.2,
            )
        self.assertFalse((self.folder / "late.qcow2").exists())

    def test_an_interrupt_cancels_and_cleans_up(self):
        # Whoever runs the tests in the background may have it ignored.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGINT, before)
        source = self.folder / "source.raw"
        source.write_bytes(os.urandom(4 * MIB))
        target = self.folder / "target.qcow2"

        def interrupt(done, total):
            if target.exists():
                os.kill(os.getpid(), signal.SIGINT)

        with self.assertRaises(KeyboardInterrupt):
            platter.convert(
                source, target, "qcow2", source_format="raw", rate=MIB // 4, progress=interrupt
            )
        self.assertFalse(target.exists())

    def test_a_server_and_its_client(self):
        disk, socket = self.folder / "disk.qcow2", self.folder / "socket"
        platter.create(disk, "qcow2", "1M")
        keys = "someone:" + "ab" * 32
        ours = {
            "own": {"qom-type": "tls-creds-psk", "endpoint": "server", "keys": keys},
            "rules": {"qom-type": "authz-simple", "identity": "someone"},
        }
        theirs = {"tls": {"qom-type": "tls-creds-psk", "keys": keys, "username": "someone"}}
        location = {
            "driver": "nbd",
            "server": {"type": "unix", "path": str(socket)},
            "export": "disk",
            "tls-creds": "tls",
        }
        with platter.open(disk, format="qcow2", writable=True) as image:
            with platter.Server(clients=4, handshake=60, stall=60) as server:
                server.set_tls(ours, "own", "rules")
                server.add(platter.Export(image, "disk", description="of a test", writable=True))
                part = platter.Export(image, "part", offset=4096, length=8192)
                server.add(part)
                self.assertEqual(part.size, 8192)
                server.listen(f"unix:{socket}")
                self.assertEqual(server.addresses, (str(socket),))
                [first, second] = platter.exports(location, secrets=theirs)
                self.assertEqual((first["name"], first["description"]), ("disk", "of a test"))
                self.assertEqual((second["name"], second["size"]), ("part", 8192))
                with self.assertRaises(platter.Error):
                    platter.exports(f"nbd+unix://?socket={socket}")
                policy = platter.Policy(permissive=True)
                how = {"format": "raw", "policy": policy, "secrets": theirs}
                with platter.open({"driver": "raw", "file": location}, writable=True, **how) as client:
                    client.write(4096, b"from afar")
                    client.flush()
                    offered = {export.name: export for export in server}
                    self.assertEqual((offered["disk"].clients, offered["disk"].writable), (1, True))
                    self.assertEqual((offered["part"].offset, offered["part"].writable), (4096, False))
                self.assertGreaterEqual(server.statistics["requests"], 2)
                self.assertIsNone(server.last_error)
                self.assertGreaterEqual(server.fd, 3)
                server.remove("part")
                self.assertEqual([export.name for export in server], ["disk"])
                server.drain(60)
            self.assertEqual(image.read(4096, 9), b"from afar")

    def test_objects_beside_secrets(self):
        disk = self.folder / "disk.raw"
        disk.write_bytes(bytes(MIB))
        limits = {"slow": {"qom-type": "throttle-group", "limits.iops-total": "1000"}}
        options = {"throttle-group": "slow", "file.driver": "file", "file.filename": str(disk)}
        location = {"driver": "throttle", **options}
        policy = platter.Policy(permissive=True)
        with platter.open(location, policy=policy, secrets=limits) as image:
            self.assertEqual(image.read(0, 4), bytes(4))
        with self.assertRaises(platter.Error):
            platter.open(location, policy=policy)
        with self.assertRaisesRegex(ValueError, "bogus"):
            platter.open(disk, secrets={"x": {"qom-type": "bogus"}})
        coded = {"key": {"data": "c2VjcmV0", "format": "base64"}}
        luks = {"key-secret": "key", "iter-time": 10}
        platter.create(self.folder / "luks", "luks", "1M", options=luks, secrets=coded)
        platter.open(
            self.folder / "luks", format="luks", options={"key-secret": "key"}, secrets={"key": "secret"}
        ).close()

    def test_nodes_of_images_that_are_opened_one_after_the_other(self):
        disk = self.folder / "disk.raw"
        disk.write_bytes(b"below" + bytes(MIB - 5))
        nodes = platter.Nodes()
        below = {"driver": "file", "filename": str(disk), "node-name": "below"}
        policy = platter.Policy(permissive=True)
        with platter.open(below, nodes=nodes, policy=policy) as image:
            self.assertEqual(image.read(0, 5), b"below")
            above = {"driver": "raw", "file": "below"}
            with platter.open(above, nodes=nodes, policy=policy) as same:
                self.assertEqual(same.read(0, 5), b"below")
            with self.assertRaises(platter.Error):
                platter.open(above, policy=policy)

    def test_what_writes_are_looked_through_for(self):
        disk = self.folder / "disk.qcow2"
        platter.create(disk, "qcow2", "1M")
        how = {"detect_zeroes": "unmap", "discard": True, "compression_level": 9}
        with platter.open(disk, format="qcow2", writable=True, **how) as image:
            image.write(0, bytes(65536))
            run = next(image.extents())
            self.assertTrue(run.zero and not run.data)
        with self.assertRaisesRegex(platter.Invalid, "99"):
            platter.open(disk, format="qcow2", compression_level=99)

    def test_bitmaps(self):
        disk = self.folder / "disk.qcow2"
        platter.create(disk, "qcow2", "1M")
        with platter.open(disk, format="qcow2", writable=True) as image:
            image.add_bitmap("one")
            image.add_bitmap("two")
            image.disable_bitmap("two")
            image.write(65536, b"dirty")
            self.assertEqual((image.dirty("one"), image.dirty("two")), ([(65536, 65536)], []))
            image.merge_bitmap("two", "one")
            image.enable_bitmap("two")
            image.write(0, b"dirty")
            self.assertEqual(image.dirty("two"), [(0, 131072)])
            self.assertEqual([bitmap["name"] for bitmap in image.bitmaps()], ["one", "two"])
            self.assertEqual(image.info()["format"], "qcow2")
        copy = self.folder / "copy.qcow2"
        platter.convert(disk, copy, "qcow2", source_format="qcow2", bitmaps=True)
        with platter.open(copy, format="qcow2", writable=True) as image:
            self.assertEqual(len(image.bitmaps()), 2)
            image.merge_bitmap("one", "two")

    def test_a_snapshot_is_shown(self):
        disk = self.folder / "disk.qcow2"
        platter.create(disk, "qcow2", "1M")
        with platter.open(disk, format="qcow2", writable=True) as image:
            image.write(0, b"then")
            image.create_snapshot("s")
            image.write(0, b"now!")
        with platter.open(disk, format="qcow2") as image:
            image.show_snapshot("s")
            self.assertEqual(image.read(0, 4), b"then")

    def test_dd_and_conversions_of_descriptors(self):
        disk = self.folder / "disk"
        data = os.urandom(MIB)
        disk.write_bytes(data)
        with open(self.folder / "out", "w+b") as out:
            platter.dd(disk, out.fileno(), source_format="raw", block_size=1000, skip=3, count=5)
            out.seek(0)
            # To the end of a sector, as the size of a disk.
            self.assertEqual(out.read(), data[3000:8000] + bytes(120))
        with self.assertRaises(platter.Invalid):
            platter.dd(disk, self.folder / "x", block_size=0)
        with self.assertRaises(platter.Exists):
            platter.dd(disk, self.folder / "out", source_format="raw", exclusive=True)
        with open(disk, "rb") as source, open(self.folder / "out", "w+b") as out:
            platter.convert(source.fileno(), out.fileno())
            out.seek(0)
            self.assertEqual(out.read(), data)
        with self.assertRaises(ValueError):
            platter.convert(disk, 1, "qcow2")
        target = self.folder / "new.qcow2"
        platter.create(target, "qcow2", "1M", exclusive=True)
        with self.assertRaises(platter.Exists):
            platter.create(target, "qcow2", "1M", exclusive=True)
        with self.assertRaises(platter.Exists):
            platter.convert(disk, target, "qcow2", source_format="raw", exclusive=True)
        platter.convert(
            disk,
            target,
            "qcow2",
            source_format="raw",
            source_cache="none",
            existing=True,
            target_is_zero=True,
            sparse_size=0,
            out_of_order=True,
        )
        with platter.open(target, format="qcow2") as image:
            self.assertEqual(image.read(0, MIB), data)
            with open(target, "rb") as file:
                self.assertEqual(platter.inspect(file.fileno(), format="qcow2")["format"], "qcow2")

    def test_a_chain_and_a_product(self):
        base, over, moved = (self.folder / name for name in ("base.qcow2", "over.qcow2", "moved"))
        platter.create(base, "qcow2", "32M")
        permissive = platter.Policy(permissive=True)
        made = {"backing": base, "backing_format": "qcow2", "policy": permissive}
        platter.create(over, "qcow2", **made)
        platter.convert(
            over, moved, "qcow2", source_format="qcow2", source_policy=permissive, chain=True
        )
        self.assertEqual(sorted(path.name for path in moved.iterdir()), ["base.qcow2", "over.qcow2"])
        azure = self.folder / "azure.vhd"
        platter.convert(base, azure, profile="azure", source_format="qcow2")
        self.assertEqual(platter.inspect(azure, profile="azure")["objections"], [])
        with open(azure, "rb") as file:
            by_descriptor = platter.inspect(file.fileno(), profile="azure")
        self.assertEqual((by_descriptor["format"], by_descriptor["objections"]), ("vpc", []))
        self.assertNotEqual(platter.inspect(base, profile="azure", format="qcow2")["objections"], [])

    def test_warnings_of_a_job_stay(self):
        tiny = self.folder / "tiny.raw"
        tiny.write_bytes(bytes(512))
        done = platter.convert(tiny, self.folder / "azure.vhd", profile="azure", source_format="raw")
        [warning] = done.warnings
        self.assertIn("20 MiB", warning)
        with self.assertRaises(platter.Exists) as caught:
            platter.convert(
                tiny, self.folder / "azure.vhd", profile="azure", source_format="raw", exclusive=True
            )
        self.assertTrue(all("20 MiB" in line for line in caught.exception.warnings))

    def test_a_policy_that_asks(self):
        base, overlay = self.folder / "base.raw", self.folder / "overlay.qcow2"
        base.write_bytes(b"\5" * MIB)
        platter.create(overlay, "qcow2", backing=base, backing_format="raw")
        asked = []

        def opened(policy):
            with platter.open(overlay, format="qcow2", policy=policy) as image:
                return image.read(0, 1)

        def by_name(file):
            asked.append(file)
            return True

        self.assertEqual(opened(platter.Policy(implicit=by_name)), b"\5")
        [file] = asked
        self.assertEqual((file.name, file.role, file.writable), (str(base), "backing", False))
        self.assertEqual(file.named_by, str(overlay))
        self.assertEqual(
            opened(platter.Policy(implicit=lambda file: os.open(file.name, os.O_RDONLY))), b"\5"
        )
        for answer in (False, None):
            with self.assertRaises(platter.Denied):
                opened(platter.Policy(implicit=lambda file: answer))
        # What stands in the way of a descriptor is the error of the open.
        with self.assertRaisesRegex(platter.NotFound, "base.raw': No such file"):
            opened(platter.Policy(implicit=lambda file: os.open("nowhere", os.O_RDONLY)))
        with self.assertRaises(platter.Denied):
            platter.open(overlay, policy=platter.Policy(probing="never"))
        with self.assertRaises(ValueError):
            platter.Policy(probing="sometimes")
        limited = platter.Policy(limits={"chain_depth": 1}, implicit=True)
        self.assertEqual(limited.limit("chain_depth"), 1)
        with self.assertRaises(platter.LimitExceeded):
            opened(limited)

    def test_a_writer_that_is_to_be_alone(self):
        disk = self.folder / "disk.raw"
        disk.write_bytes(bytes(MIB))
        with platter.open(disk, format="raw", writable=True, deny_writers=True):
            with self.assertRaises(platter.Locked):
                platter.open(disk, format="raw", writable=True)

    def test_findings_of_a_check(self):
        disk = self.folder / "disk.qcow2"
        platter.create(disk, "qcow2", "1M")
        with open(disk, "r+b") as file:
            file.seek(0x20000 + 2 * 8)
            file.write(b"\0\1")
            file.truncate(9 * 65536)
        found = []
        with platter.open(disk, format="qcow2", writable=True, for_check=True) as image:
            self.assertEqual(image.check(message=found.append).number("leaks"), 1)
        self.assertTrue(any("Leaked cluster 8" in line for line in found), found)

    def test_numbers_of_a_bench(self):
        disk = self.folder / "disk.qcow2"
        platter.create(disk, "qcow2", "1M")
        with platter.open(disk, format="qcow2", writable=True) as image:
            report = image.bench(count=10, depth=2, buffer_size=512, write=True, pattern=7)
            self.assertEqual(report.number("requests"), 10)
            self.assertEqual(image.read(0, 2), b"\7\7")

    def test_a_log(self):
        lines = []
        platter.set_log(lambda level, line: lines.append((level, line)), "trace")
        try:
            self.assertGreater(platter.trace("*"), 0)
            platter.create(self.folder / "disk.qcow2", "qcow2", "1M")
        finally:
            platter.trace("*", on=False)
            platter.set_log(None)
        self.assertTrue({level for level, line in lines} & {"trace", "info"}, lines)

    def test_an_image_that_is_not_closed_is_closed_with_a_warning(self):
        disk = self.folder / "disk.raw"
        disk.write_bytes(bytes(MIB))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            platter.open(disk, format="raw", writable=True)
            gc.collect()
        self.assertTrue(any(one.category is ResourceWarning for one in caught))
        platter.open(disk, format="raw", writable=True).close()


def load_tests(loader, tests, pattern):
    for module in (
        platter,
        platter.image,
        platter.introspection,
        platter.log,
        platter.operations,
        platter.serving,
        platter.storage,
        _options,
    ):
        tests.addTests(doctest.DocTestSuite(module))
    return tests


if __name__ == "__main__":
    unittest.main()
