"""A process for `test_spawner`: what it does with its order is in the order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from florlog.errors import FlorlogError
from florlog.program.spawner import Order, serve
from florlog.program.wire import Wire


def handle(order: Order, wire: Wire) -> None:
    """Echo the order, and do what it says."""
    print("printed")
    print("said", file=sys.stderr)
    wire.send("echo", order)
    match order["then"]:
        case "fail":
            raise FlorlogError("it failed")
        case "differ":
            wire.send("differs", "epoch=1")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "start another":
            wire.send("started", subprocess.Popen(["sleep", "600"]).pid)
            signal.pause()


if __name__ == "__main__":
    serve(handle)
