"""A process for `test_confinement`: confines itself to argv[1], executes argv[2], and prints what came of it."""

import ctypes
import os
import socket  # noqa: F401
import sqlite3  # noqa: F401
import sys

from florlog.programs.confinement import confine


def refuse(why: str) -> None:
    """Say why, and end."""
    os.write(1, f"refused: {why}\n".encode())
    os._exit(0)


if not confine(sys.argv[1], refuse):
    os.write(1, b"no Landlock\n")
    os._exit(0)
libc = ctypes.CDLL(None, use_errno=True)
try:
    exec(sys.argv[2])
except OSError as error:
    print(type(error).__name__)
else:
    print("done")
