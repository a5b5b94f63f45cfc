"""Real scripts in real processes: record, kill, resume, replay, and what they leave behind."""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from florlog_wal import encode_value

import florlog
from florlog.reading.columns import RECORDED

EXAMPLES = Path(__file__).parents[2] / "examples"


def environment(store: Path) -> dict[str, str]:
    """One thread: two test processes share two cores, and sums are split by threads."""
    return {**os.environ, "FLORLOG_STORE": str(store), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


def python(store: Path, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run Python to its end."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env=environment(store),
        cwd=store.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{command} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done


def flor(store: Path, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command florlog, in a child of the shared nursery; its working directory is the store's."""
    nursery = shared_nursery()
    errors = nursery.directory / "errors.txt"
    code = nursery.order(store, "florlog", *command, errors=errors)["code"]
    done = subprocess.CompletedProcess([*command], code, nursery.output.read_text(), errors.read_text())
    if check and code != 0:
        raise AssertionError(f"{command} exited with {code}:\n{done.stdout}\n{done.stderr}")
    return done


@functools.cache
def shared_nursery() -> Nursery:
    """The one for all tests of this process."""
    directory = tempfile.TemporaryDirectory(prefix="florlog-nursery-")
    made = Nursery(Path(directory.name))
    atexit.register(directory.cleanup)
    atexit.register(made.close)
    return made


def replay(store: Path, script: Path, *options: str) -> dict[str, Any]:
    """What ``florlog replay`` answers."""
    answer: dict[str, Any] = json.loads(flor(store, "replay", script, "--format", "json", *options).stdout)
    return answer


def newest(store: Path) -> str:
    """The id of the newest run."""
    with florlog.open(store) as log:
        return log.run().id


class Nursery:
    """Runs real processes that share their imports (``nursery.py``); ``modules``: what else they import."""

    def __init__(self, directory: Path, *modules: str) -> None:
        self.directory = directory
        self.output = directory / "output.txt"  # of the command that ran last
        self._modules = modules
        self._process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, Path(__file__).with_name("nursery.py"), *self._modules],
            env=environment(self.directory / "unused"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        store: Path,
        *argv: str | Path,
        kill: float | None = None,
        code: int | None = 0,
        dense: bool = False,
        forget: str | None = None,
        unknown: bool = False,
    ) -> tuple[bool, float]:
        """Run a script (or "florlog" and its arguments); whether it was killed, and its seconds.

        ``kill``: seconds after the store exists at which it is killed; ``code``: the exit status it should have,
        None: any.  ``dense``, ``forget`` and ``unknown`` as ``nursery.py`` says.
        """
        answer = self.order(store, *argv, kill=kill, dense=dense, forget=forget, unknown=unknown)
        if code is not None and answer["code"] not in (code, -9):
            raise AssertionError(f"{argv} exited with {answer['code']}:\n{self.output.read_text()}")
        return answer["killed"], answer["seconds"]

    def order(
        self,
        store: Path,
        *argv: str | Path,
        kill: float | None = None,
        dense: bool = False,
        forget: str | None = None,
        unknown: bool = False,
        errors: Path | None = None,
    ) -> dict[str, Any]:
        """As `run`, without a look at the exit status: what ``nursery.py`` answers.

        ``errors``: the file that gets the standard error; None: the one of the standard output.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {
            "argv": [str(part) for part in argv],
            "store": str(store),
            "environment": environment(store),
            "kill": kill,
            "log": str(self.output),
            "errors": str(errors or self.output),
            "dense": dense,
            "forget": forget,
            "unknown": unknown,
        }
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        except BaseException:  # such as a timeout: what comes next would be the answer to this command
            self._process.kill()
            self._process.wait()
            self._process = self._start()
            raise
        return answer

    def close(self) -> None:
        """End the nursery."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@dataclass(frozen=True)
class Logged:
    """A logged value with its place, comparable bit for bit."""

    name: str
    path: tuple[tuple[str, int], ...]
    bits: bytes


def logged(store: Path, *names: str) -> list[Logged]:
    """The recorded values of the newest run, in timeline order."""
    from florlog.state.logged_values import plain

    with florlog.open(store) as log:
        return [
            Logged(value.name, value.path, encode_value(plain(value.value)))
            for value in log.run().logged()
            if value.trust == RECORDED and (not names or value.name in names)
        ]


def truth(script: Path, where: Path, *args: str) -> dict[tuple[str, tuple[tuple[str, int], ...]], list[Any]]:
    """What a full run of an instrumented script logs, by name and path."""
    store = where / "truth"
    python(store, script, *args)
    found: dict[tuple[str, tuple[tuple[str, int], ...]], list[Any]] = {}
    with florlog.open(store) as log:
        for value in log.run().logged():
            found.setdefault((value.name, value.path), []).append(value.value)
    return found
