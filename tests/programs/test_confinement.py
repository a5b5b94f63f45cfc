"""What is executed unasked writes in its scratch directory, and reaches nobody."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

TCP = "a = (ctypes.c_uint8 * 16)(2, 0, {port} >> 8, {port} & 255, 127, 0, 0, 1)"


def outcome(scratch: Path, code: str) -> str:
    """What came of code in a process that is confined to a directory."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("confined.py"), scratch, code],
        capture_output=True, text=True, timeout=60, check=True, start_new_session=True,
    )  # fmt: skip
    if done.stdout == "no Landlock\n":
        pytest.skip("this kernel has no Landlock, or an old one")
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("open(sys.argv[1] + '/in', 'w')", "done"),
        ("open('/dev/null', 'w')", "done"),
        ("open(OUTSIDE).read()", "done"),
        ("open(OUTSIDE, 'w')", "PermissionError"),
        ("os.remove(OUTSIDE)", "PermissionError"),
        ("os.truncate(OUTSIDE, 0)", "PermissionError"),
        ("os.symlink('x', OUTSIDE + '2')", "PermissionError"),
        ("os.rename(OUTSIDE, sys.argv[1] + '/moved')", "PermissionError"),
        ("from multiprocessing import Process as P; p = P(target=print); p.start(); p.join()", "done"),
        ("from multiprocessing import Process as P; p = P(target=print); p.start(); p.terminate()", "done"),
        ("sqlite3.connect(':memory:')", "done"),
        ("sqlite3.connect(sys.argv[1] + '/db')", "done"),
        ("sqlite3.connect(OUTSIDE)", "refused: the script opens a database (sqlite3.connect)"),
        ("os.kill(os.getppid(), 15)", "refused: the script sends signals to other processes (os.kill)"),
        ("os.kill(os.getpid(), 0)", "done"),
        ("os.execv('/bin/true', ['true'])", "refused: the script starts other programs (os.exec)"),
        ("import fcntl; fcntl.flock(open(OUTSIDE), fcntl.LOCK_EX)", "refused: the script locks files (fcntl.flock)"),
        ("import fcntl; fcntl.flock(open(sys.argv[1] + '/in', 'w'), fcntl.LOCK_EX)", "done"),
        (
            "from multiprocessing.shared_memory import SharedMemory as S; S('x', create=True, size=1)",
            "refused: the script shares memory by name (shm_open)",
        ),
        (
            "socket.create_connection(('127.0.0.1', 9))",
            "refused: the script opens network connections (socket.connect)",
        ),
        (
            "socket.socket(socket.AF_UNIX).connect('/run/some')",
            "refused: the script opens network connections (socket.connect)",
        ),
        ("s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1] + '/s')", "done"),
    ],
)  # fmt: skip
def test_what_is_refused(code: str, expected: str, tmp_path: Path) -> None:
    scratch, outside = tmp_path / "scratch", tmp_path / "outside"
    scratch.mkdir()
    outside.write_text("kept")
    found = outcome(scratch, code.replace("OUTSIDE", repr(str(outside))))
    assert found.splitlines()[-1] == expected
    assert outside.read_text() == "kept"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["outside", "scratch"]


def test_a_library_in_c_reaches_no_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = TCP.format(port=server.getsockname()[1])
        code += "; s = libc.socket(2, 1, 0); r = libc.connect(s, a, 16); e = ctypes.get_errno()"
        code += "; raise PermissionError if (r, e) == (-1, 13) else ValueError((r, e))"
        code = code.replace("; raise", "\nraise")
        assert outcome(tmp_path, code) == "PermissionError"


def test_a_process_that_is_started_by_spawn_is_confined_too(tmp_path: Path) -> None:
    scratch, outside = tmp_path / "scratch", tmp_path / "outside"
    scratch.mkdir()
    code = (
        "import multiprocessing, os; "
        f"p = multiprocessing.get_context('spawn').Process(target=os.mkdir, args=({str(outside)!r},)); "
        "p.start(); p.join(); print(p.exitcode)"
    )
    assert outcome(scratch, f"if __name__ == '__main__': {code}").splitlines()[-2:] == ["1", "done"]
    assert not outside.exists()
