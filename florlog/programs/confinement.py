"""What a program may do that is executed again although nobody asked for it: nothing outside its scratch directory.

A replay is executed on its user's word; there the overlay of its files (`florlog.following.sandbox`) is enough, and
what that does not cover is written down.  The automatic audit is not asked for, so it has two more walls:

- **The kernel's** (Landlock, Linux 6.7 and newer): this thread, and all threads and processes that it starts from now
  on, write files below the scratch directory and in shared memory only, and neither open nor accept TCP connections.
  That holds for libraries in C and Rust too, such as HDF5, safetensors and database clients, which Python does not see.
- **Python's audit hooks**: other programs, connections of any kind, databases, signals to strangers, shared memory by
  name and locks on files that the training may want.  Whatever the script would make of an exception, it must not go on
  otherwise than the training did; so what is refused ends the whole process group.

Processes of `multiprocessing`, such as a DataLoader's workers, start and talk to each other.  Not covered: what a
library in C does by UDP, by signals before Linux 6.12, or to the shared memory of another process of this user.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

Refuse = Callable[[str], None]
"""Is given what the script does that is refused, as text, and does not return."""

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # system calls, the same on every architecture
_GET_VERSION, _PATH_BENEATH = 1, 1
_MIN_VERSION: Final = 4
"""Of Landlock: the first that knows TCP."""
_SCOPES_VERSION: Final = 6
_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
_CHANGES = _WRITE_FILE | _TRUNCATE | sum(1 << bit for bit in range(4, 14))
"""Writing files, and making, removing, renaming and linking entries of directories; reading stays free."""
_TCP = 1 << 0 | 1 << 1  # bind and connect
_SCOPES = 1 << 0 | 1 << 1  # abstract sockets, and signals
_NO_NEW_PRIVILEGES = 38  # for prctl
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full")
_SHARED_MEMORY = "/dev/shm"

_PROGRAMS = "the script starts other programs"
_NETWORK = "the script opens network connections"
_EVENTS = {
    "subprocess.Popen": _PROGRAMS, "os.system": _PROGRAMS, "os.exec": _PROGRAMS, "os.posix_spawn": _PROGRAMS,
    "os.spawn": _PROGRAMS, "pty.spawn": _PROGRAMS, "webbrowser.open": _PROGRAMS,
    "syslog.syslog": "the script writes to the system's log", "syslog.openlog": "the script writes to the system's log",
}  # fmt: skip
"""What is refused whatever its arguments are."""


def confine(scratch: str, refuse: Refuse) -> bool:
    """Confine this thread and what it starts; whether the kernel can do it.

    ``scratch`` is the directory that can be written to.  Python's audit hook cannot be taken back.
    """
    if not _restrict(scratch):
        return False
    sys.addaudithook(_hook(os.path.join(os.path.realpath(scratch), ""), refuse))  # noqa: PTH118
    _forbid_named_memory(refuse)
    return True


# -- the kernel ------------------------------------------------------------------------------------


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def _restrict(scratch: str) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, 0, _GET_VERSION)
    if version < _MIN_VERSION:
        return False
    rules = _Ruleset(_CHANGES, _TCP, _SCOPES)
    size = ctypes.sizeof(rules) if version >= _SCOPES_VERSION else _Ruleset.scoped.offset
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(rules), size, 0)
    if ruleset < 0:
        return False
    try:
        allowed = [_allow(libc, ruleset, path, _CHANGES) for path in (scratch, _SHARED_MEMORY)]
        allowed += [_allow(libc, ruleset, path, _WRITE_FILE | _TRUNCATE) for path in _DEVICES]
        return (
            all(allowed)
            and libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
            and libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0
        )
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> bool:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        rule = _PathBeneath(rights, fd)
        return bool(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0) == 0)
    finally:
        os.close(fd)


# -- Python ----------------------------------------------------------------------------------------


def _hook(scratch: str, refuse: Refuse) -> Callable[[str, tuple[Any, ...]], None]:
    rules: dict[str, Callable[..., str]] = {
        "socket.connect": lambda _, address: _unless_beneath(scratch, address, _NETWORK),
        "socket.bind": lambda _, address: _unless_beneath(scratch, address, _NETWORK),
        "socket.sendto": lambda _, address: _unless_beneath(scratch, address, _NETWORK),
        "socket.sendmsg": lambda _, address: "" if address is None else _unless_beneath(scratch, address, _NETWORK),
        "sqlite3.connect": lambda path, *_: _of_database(scratch, path),
        "os.kill": lambda pid, number: _of_signal(pid, number),
        "os.killpg": lambda group, number: _of_signal(group, number),
        "fcntl.flock": lambda fd, *_: _of_lock(scratch, fd),
        "fcntl.lockf": lambda fd, *_: _of_lock(scratch, fd),
    }  # fmt: skip

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in rules:
            why = rules[event](*arguments)
        else:
            why = _EVENTS.get(event, "")
        if why:
            refuse(f"{why} ({event})")

    return hook


def _unless_beneath(scratch: str, address: Any, what: str) -> str:
    """What is refused, unless an address or a path is one below the scratch directory."""
    path = os.fsdecode(address) if isinstance(address, str | bytes) else ""
    return "" if path and os.path.realpath(path.replace("\0", "/")).startswith(scratch) else what


def _of_database(scratch: str, path: Any) -> str:
    if path in (":memory:", "", b":memory:", b""):
        return ""
    return _unless_beneath(scratch, path, "the script opens a database")


def _of_signal(process: int, number: int) -> str:
    """Signals reach this session alone, which is this process's own."""
    try:
        ours = process == 0 or number == 0 or os.getsid(abs(process)) == os.getsid(0)
    except ProcessLookupError:  # nobody gets it
        ours = True
    return "" if ours and process != -1 else "the script sends signals to other processes"


def _of_lock(scratch: str, fd: Any) -> str:
    try:
        file = os.readlink(f"/proc/self/fd/{fd if isinstance(fd, int) else fd.fileno()}")  # noqa: PTH115
    except OSError:  # Python says so itself
        return ""
    return _unless_beneath(scratch, file, "the script locks files")


def _forbid_named_memory(refuse: Refuse) -> None:
    """The training may have a block of that name, or make it later."""
    import _posixshmem  # type: ignore[import-not-found]  # what `multiprocessing.shared_memory` calls

    def refused(*_: Any, **__: Any) -> None:
        refuse("the script shares memory by name (shm_open)")

    _posixshmem.shm_open = refused


def end_group() -> None:
    """Kill this process and what it has started, all of which lie in its process group."""
    os.killpg(0, signal.SIGKILL)
