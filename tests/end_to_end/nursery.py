"""A process that has the heavy imports behind it and forks one child per command: real processes, quickly.

Its arguments are modules to import in addition.  All of florlog is imported too; the two modules that note how their
process started do so again in each child.
Reads one JSON object a line: ``{"argv": [...], "store": DIR, "kill": SECONDS or null}``, with the child's environment
and the files that get its output and errors.  The child runs
``python ARGV``, or ``python -m florlog ARGV[1:]`` when ARGV starts with "florlog", and is killed with
SIGKILL so many seconds after the store came into being.  With ``"dense": true`` a hands-free run takes an image at
every boundary; ``"forget"`` names a number that its images do not have right, or is null.  With ``"unknown": true`` no
version of a framework is known.
What a replayed script says goes to a file named like the output, with ``.unheard``.
Answers ``{"killed": bool, "code": int, "seconds": float}``.
"""

import contextlib
import dataclasses
import functools
import gc
import importlib
import json
import math
import os
import pkgutil
import runpy
import signal
import sys
import time
import traceback

import florlog_recovery
import florlog_wal
import pandas  # noqa: F401
import sklearn.datasets
import sklearn.model_selection  # noqa: F401
import torch
import torch._dynamo  # noqa: F401 - the first optimizer imports it

import florlog

NOTES = ("florlog.program.opened_runs", "florlog.program.loading", "florlog.program.restart")
"""Modules that note when, where and with which environment their process started."""


def import_florlog() -> None:
    """Import the modules of florlog that can be imported here."""
    for package in (florlog_wal, florlog_recovery, florlog):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith(("__main__", "worker")):
                with contextlib.suppress(ImportError):
                    importlib.import_module(found.name)


def child(argv: list[str], store: str, log: str, errors: str) -> None:
    """Become ``python ARGV`` next to a store, the environment is set."""
    for number, name in ((1, log), (2, errors)):
        if name != log or number == 1:
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
    os.chdir(os.path.dirname(store))  # noqa: PTH120
    for name in NOTES:
        importlib.reload(importlib.import_module(name))
    code = 0
    sys.orig_argv = [
        sys.executable,
        *(["-m"] if argv[0] == "florlog" else []),
        *argv,
    ]  # a resume may start it over
    try:
        if argv[0] == "florlog":
            from florlog.commands import main
            from florlog.program import silence

            sys.path[0] = os.getcwd()  # noqa: PTH109
            silence._state.nowhere = open(f"{log}.unheard", "w", buffering=1)  # noqa: PTH123, SIM115
            code = main(argv[1:])
        else:
            sys.argv = argv
            sys.path[0] = os.path.dirname(argv[0])  # noqa: PTH120
            runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def take_every_image() -> None:
    """Let hands-free runs take an image at every boundary."""
    from florlog.programs import hands_free

    hands_free.open_around = functools.partial(hands_free.open_around, overhead=math.inf)


def forget(name: str) -> None:
    """Let images have 0 for every attribute of a name that is a number."""
    from florlog.state.heap.capture import _Walk

    named = _Walk.named

    def forgetful(self, attributes):  # type: ignore[no-untyped-def]
        held = attributes.get(name)
        return named(self, {**attributes, name: type(held)(0)} if type(held) in (int, float) else attributes)

    _Walk.named = forgetful  # type: ignore[method-assign]


def know_no_framework() -> None:
    """Let the installed frameworks be of versions that are not known."""
    from florlog.bridges.manifests import MANIFESTS
    from florlog.programs import adoption

    adoption.MANIFESTS = tuple(  # type: ignore[attr-defined]
        dataclasses.replace(
            manifest,
            modules=tuple(dataclasses.replace(module, known={"": "9.9.9"}) for module in manifest.modules),
        )
        for manifest in MANIFESTS
    )


def serve() -> None:
    """Answer commands until stdin ends."""
    for line in sys.stdin:
        order = json.loads(line)
        started = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            os.environ.clear()
            os.environ.update(order["environment"])  # which florlog notes, to start a process over
            if order["dense"]:
                take_every_image()
            if order["forget"]:
                forget(order["forget"])
            if order["unknown"]:
                know_no_framework()
            child(order["argv"], order["store"], order["log"], order["errors"])
        if order["kill"] is not None:
            manifest = os.path.join(order["store"], "FLORLOG")  # noqa: PTH118
            while not os.path.exists(manifest) and time.perf_counter() - started < 60:  # noqa: PTH110
                time.sleep(0.001)
            time.sleep(order["kill"])
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        killed = os.WIFSIGNALED(status)
        code = -os.WTERMSIG(status) if killed else os.WEXITSTATUS(status)
        answer = {"killed": killed, "code": code, "seconds": time.perf_counter() - started}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    for module in sys.argv[1:]:
        importlib.import_module(module)
    import_florlog()
    gc.freeze()  # a child's collections need not go through what all have
    serve()
