"""What a program writes, renames, removes and syncs below a folder, read from strace.

The trace has each write (file, offset, bytes), each sync, and each change of a directory, by the paths of that moment.
No system call shows what the log stores into mapped memory, so a workload may write that down in a file ``acks``
(`workload`), together with what it was promised.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.wal import injection

_CHANGES = (
    "openat,write,writev,pwrite64,pwritev,pwritev2,lseek,fsync,fdatasync,ftruncate,fallocate,"
    "rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat"
)
_UNREAD = "truncate,link,linkat,symlink,symlinkat,sendfile,copy_file_range,splice,creat,open,sync_file_range"
"""Calls that change files too, and that nothing here makes."""
_LINE = re.compile(r"^(\d+) +(.*)$")
_FD = re.compile(r"^(\d+|AT_FDCWD)<([^>]*)>(\(deleted\))?")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_MAX_STRING_BYTES = 1 << 26
_ACKS = "acks"


@dataclass
class Event:
    """A change of a file or directory, a sync, or an acknowledgement.  Paths are relative to the folder."""

    kind: str  # make, write, through (written and synced), cut, extend, folder, move, remove, sync, ack
    path: str
    other: str = ""
    offset: int = 0  # of a write; the size after a cut or an extension
    data: bytes = b""


class Trace(NamedTuple):
    """What was done, after ``standing`` events that make what was there before, durably."""

    events: list[Event]
    standing: int


def trace_of(work: Callable[[Path], None], template: Path | None = None) -> Trace:
    """Trace what ``work`` does in a folder, which begins as a copy of ``template``, if that is given."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        before: list[Event] = []
        if template is not None:
            shutil.copytree(template, root, dirs_exist_ok=True)
            before = list(_standing(root))
        status = injection.run(
            lambda: work(root),
            "main", "-f", "-y", "-xx", "-s", str(_MAX_STRING_BYTES), "-e", f"trace={_CHANGES},{_UNREAD}",
            "-o", f"{folder}/trace",
        )  # fmt: skip
        assert status == 0, f"the undisturbed work ended with {status}"
        lines = (root / "trace").read_text(errors="replace").splitlines()
        return Trace([*before, *_events(_whole(lines), folder)], len(before))


def _standing(root: Path) -> Iterator[Event]:
    """What there is below a folder, as events that are all durable."""
    folders = [""]
    for file in sorted(root.rglob("*")):
        path = file.relative_to(root).as_posix()
        if file.is_dir():
            folders.append(path)
            yield Event("folder", path)
        else:
            yield Event("make", path)
            yield Event("through", path, "", 0, file.read_bytes())
            yield Event("sync", path)
    for path in folders:
        yield Event("sync", path)


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
    through: set[str] = set()  # file descriptors whose writes are synced
    position: dict[str, int] = {}
    for call in calls:
        name, _, rest = call.partition("(")
        result = call.rpartition(" = ")[2].split("<")[0].split(" ")[0]
        if result.startswith("-"):
            continue
        strings = [bytes.fromhex(text.replace("\\x", "")) for text, _ in _STRING.findall(rest)]
        opened = _FD.match(rest)
        fd, path, deleted = opened.groups() if opened else ("", "", None)
        path = _text(path)
        data = name in ("write", "writev", "pwrite64", "pwritev", "pwritev2")
        names = [] if data else [str(Path(path) / text.decode()) for text in strings]
        inside = [_inside(text, root) for text in names or [path]]
        if deleted or None in inside or not inside:
            continue
        path, *other = (text or "" for text in inside)
        if path == _ACKS:
            if data:
                yield from _acknowledged(b"".join(strings)[: int(result)].decode())
            continue
        assert name not in _UNREAD.split(","), f"a call that is not read: {call[:200]}"
        if name == "openat":
            through.discard(result)
            if "O_DSYNC" in rest:
                through.add(result)
            position[result] = 0
            if "O_CREAT" in rest:
                yield Event("make", path)
            if "O_TRUNC" in rest:
                yield Event("cut", path)
        elif name == "lseek":
            position[fd] = int(result)
        elif data:
            written = b"".join(strings)[: int(result)]
            assert len(written) == int(result), f"{name} of {result} bytes, read {len(written)}"
            placed = name.startswith("p")
            numbers = rest.rpartition(")")[0].split(", ")
            offset = int(numbers[-2 if name == "pwritev2" else -1]) if placed else position[fd]
            if not placed:
                position[fd] = offset + len(written)
            yield Event("through" if fd in through else "write", path, "", offset, written)
        elif name in ("fsync", "fdatasync"):
            yield Event("sync", path)
        elif name == "ftruncate":
            yield Event("cut", path, "", int(rest.rpartition(")")[0].rpartition(", ")[2]))
        elif name == "fallocate":
            offset, size = map(int, rest.rpartition(")")[0].split(", ")[-2:])
            if "PUNCH_HOLE" in rest:
                yield Event("write", path, "", offset, bytes(size))
            else:
                yield Event("extend", path, "", offset + size)
        elif name.startswith("rename"):
            yield Event("move", path, other[0])
        elif name in ("unlink", "unlinkat", "rmdir"):
            yield Event("remove", path)
        elif name in ("mkdir", "mkdirat"):
            yield Event("folder", path)


def _acknowledged(text: str) -> Iterator[Event]:
    for line in text.splitlines(keepends=True):
        word, *rest = line.split()
        if word == "tail":
            yield Event("write", f"store/tail.{rest[0]}", "", int(rest[1]), bytes.fromhex(rest[2]))
        else:
            yield Event("ack", "", line)


def _text(path: str) -> str:
    return bytes.fromhex(path.replace("\\x", "")).decode() if "\\x" in path else path


def _inside(path: str, root: str) -> str | None:
    """A path relative to the folder; None outside."""
    if path != root and not path.startswith(f"{root}/"):
        return None
    return path.removeprefix(root).removeprefix("/")
