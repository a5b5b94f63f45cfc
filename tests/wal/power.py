"""Power cuts, replayed from a recorded trace of what was written and synced.

The workload runs once under strace.  The trace gives each write (file, offset, bytes), each sync, and each
change of a directory.  No system call shows what the log stores into mapped memory, so the workload writes
it down after each append.  A cut after any event may leave:

* of a file's contents: everything that was synced, and any subset of the rest, each write torn between any 512-byte
  sectors; of mapped memory any earlier version of any sector;
* of a directory's changes: all before its last sync, and any prefix of the later changes of all directories, because
  journalling file systems keep their order (``specs/assumptions.md``);
* in LMDB's lock file: garbage.
"""

from __future__ import annotations

import random
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.wal import injection, legal, workload

SECTOR_BYTES = 512
FOLDERS = ("", "/log", "/pages", "/segments")
"""Of a store, with what stands before their names."""
_CALLS = "openat,close,write,pwrite64,pwritev2,writev,lseek,fsync,fdatasync,ftruncate,fallocate,rename,unlink,mkdir"
_LINE = re.compile(r"^(\d+) +(.*)$")
_FD = re.compile(r"^(\d+)<([^>]*)>")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass
class Event:
    """A change of a file or directory, a sync, or an acknowledgement."""

    kind: str  # write, sync, extend, make, move, remove, folder, folders, ack
    path: str
    other: str = ""
    offset: int = 0
    data: bytes = b""


@dataclass
class File:
    """The contents of a file that are certain, and the writes that may be on the disk."""

    sure: bytearray = field(default_factory=bytearray)
    loose: list[tuple[int, bytes]] = field(default_factory=list)


def trace(steps: int, durability: workload.Durability) -> list[Event]:
    """Record the workload and read its trace."""
    return trace_of(
        lambda root: workload.record(root / "store", root / "acks", steps, durability, mirror=True)
    )


def trace_of(work: Callable[[Path], None], template: Path | None = None) -> list[Event]:
    """Trace what ``work`` does to the store in a folder, which begins as a copy of ``template``, if that is given.

    The events of the template's files come first: each file is made, written and synced.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        before = []
        if template is not None:
            shutil.copytree(template, root / "store")
            before = _standing(root)
        status = injection.run(
            lambda: work(root),
            "main", "-f", "-y", "-xx", "-s", "1000000", "-e", f"trace={_CALLS}", "-o", f"{folder}/trace",
        )  # fmt: skip
        assert status == 0
        lines = (root / "trace").read_text(errors="replace").splitlines()
        return [*before, *_events(_whole(lines), folder)]


def _standing(root: Path) -> list[Event]:
    """The files of a store, as events that are all durable."""
    events = []
    for file in sorted((root / "store").rglob("*")):
        if file.is_dir():
            events.append(Event("folder", str(file)))
        else:
            events += [Event("make", str(file)), Event("write", str(file), "", 0, file.read_bytes())]
            events.append(Event("sync", str(file)))
    return [*events, *(Event("folders", f"{root}/store{name}") for name in FOLDERS)]


def _whole(lines: list[str]) -> Iterator[str]:
    """Calls with their results.  A call that another thread interrupted counts when it returned."""
    waiting: dict[str, str] = {}
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        thread, text = match.groups()
        if text.endswith("<unfinished ...>"):
            waiting[thread] = text.removesuffix("<unfinished ...>").rstrip()
        elif text.startswith("<... "):
            yield waiting.pop(thread, "") + text.partition("resumed>")[2]
        else:
            yield text


def _events(calls: Iterator[str], root: str) -> Iterator[Event]:
    synced_fds: set[str] = set()
    position: dict[str, int] = {}
    for call in calls:
        name, _, rest = call.partition("(")
        result = call.rpartition(" = ")[2].split("<")[0].split(" ")[0]
        if result.startswith("-"):
            continue
        strings = [bytes.fromhex(text.replace("\\x", "")) for text in _STRING.findall(rest)]
        opened = _FD.match(rest)
        fd, path = opened.groups() if opened else ("", "")
        path = bytes.fromhex(path.replace("\\x", "")).decode() if "\\x" in path else path
        names = [text.decode() for text in strings] if name in ("openat", "rename", "unlink", "mkdir") else []
        if not any(text.startswith(root) for text in [path, *names]):
            continue
        if name == "openat":
            synced_fds.discard(result)
            if "O_DSYNC" in rest:
                synced_fds.add(result)
            position[result] = 0
            if "O_CREAT" in rest:
                yield Event("make", names[0])
            if "O_TRUNC" in rest:
                yield Event("make", names[0], "empty")
        elif name == "lseek":
            position[fd] = int(result)
        elif name in ("write", "writev", "pwrite64", "pwritev2"):
            data = b"".join(strings)[: int(result)]
            placed = name.startswith("p")
            numbers = rest.rpartition(")")[0].split(", ")
            offset = int(numbers[-2 if name == "pwritev2" else -1]) if placed else position[fd]
            if not placed:
                position[fd] = offset + len(data)
            if path.endswith("acks"):
                yield from _acknowledged(data.decode(), root)
            else:
                yield Event("write", path, "", offset, data)
                if fd in synced_fds:
                    yield Event("sync", path)
        elif name in ("fsync", "fdatasync"):
            yield Event("folders" if "O_DIRECTORY" in rest or _is_folder(path, root) else "sync", path)
        elif name == "fallocate" and "PUNCH_HOLE" in rest:
            offset, size = map(int, rest.rpartition(")")[0].split(", ")[-2:])
            yield Event("write", path, "", offset, bytes(size))
        elif name == "fallocate":
            yield Event("extend", path, "", int(rest.rpartition(")")[0].rpartition(", ")[2]))
        elif name == "rename":
            yield Event("move", names[0], names[1])
        elif name == "unlink":
            yield Event("remove", names[0])
        elif name == "mkdir":
            yield Event("folder", names[0])


def _is_folder(path: str, root: str) -> bool:
    return path.removeprefix(root) in ("", *(f"/store{name}" for name in FOLDERS))


def _acknowledged(text: str, root: str) -> Iterator[Event]:
    for line in text.splitlines(keepends=True):
        word, *rest = line.split()
        if word == "tail":
            yield Event("write", f"{root}/store/tail.{rest[0]}", "", int(rest[1]), bytes.fromhex(rest[2]))
        else:
            yield Event("ack", "", line)


def cut(events: list[Event], after: int, target: Path, choose: random.Random) -> str:
    """Build what a power cut after ``after`` events may leave; the acknowledgements given by then."""
    happened = events[:after]
    changes = [i for i, event in enumerate(happened) if event.kind in ("make", "move", "remove", "folder")]
    reached = choose.choice([-1, *changes])  # the last change that the journal took by itself
    synced = {event.path: i for i, event in enumerate(happened) if event.kind == "folders"}
    contents: dict[int, File] = {}  # by the event that made the file
    live: dict[str, int] = {}  # as the running system saw it
    disk: dict[str, int] = {}  # as the directories on the disk say
    acks = []
    for i, event in enumerate(happened):
        kind, path = event.kind, event.path
        kept = i <= reached or i < synced.get(str(Path(path).parent), -1)
        if kind in ("make", "folder"):
            if path not in live or event.other:
                contents.setdefault(live.setdefault(path, i), File())
            if event.other:
                contents[live[path]] = File()
            if kept:
                disk.setdefault(path, live[path])
        elif kind == "write":
            contents[live[path]].loose.append((event.offset, event.data))
        elif kind == "sync" and path in live:
            _settle(contents[live[path]])
        elif kind == "move":
            number = live[event.other] = live.pop(path)
            if kept:
                disk[event.other] = number
                disk.pop(path, None)
        elif kind == "remove":
            live.pop(path, None)
            if kept:
                disk.pop(path, None)
        elif kind == "ack":
            acks.append(event.other)
    _write_out(disk, contents, target, choose)
    return "".join(acks)


def _settle(file: File) -> None:
    for offset, data in file.loose:
        _apply(file.sure, offset, data)
    file.loose.clear()


def _apply(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _write_out(disk: dict[str, int], contents: dict[int, File], target: Path, choose: random.Random) -> None:
    keep = choose.choice([0.0, 0.1, 0.5, 0.9, 1.0])
    torn = choose.random() < 0.5
    for path, number in disk.items():
        inside = path.partition("/store/")[2]
        folder = str(Path(path).parent)
        if not inside or (folder not in disk and not folder.endswith("/store")) or f"/{inside}" in FOLDERS:
            continue
        file = contents[number]
        content = bytearray(file.sure)
        for offset, data in file.loose:
            if torn:
                for at in range(0, len(data), SECTOR_BYTES):
                    if choose.random() < keep:
                        _apply(content, offset + at, data[at : at + SECTOR_BYTES])
            elif choose.random() < keep:
                _apply(content, offset, data)
        where = target / inside
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_bytes(choose.randbytes(8192) if where.name == "lock.mdb" else content)


def try_cut(events: list[Event], after: int, seed: int, steps: int, durability: str) -> list[str]:
    """What is wrong after one cut."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "store"
        target.mkdir()
        acks = cut(events, after, target, random.Random(f"{after}:{seed}"))
        try:
            wrong = legal.check(target, legal.read_acks(acks), steps, power_cut=True, durability=durability)
        except Exception as error:  # whatever it is, the store should have opened
            wrong = [f"{type(error).__name__}: {error}"]
        return wrong
