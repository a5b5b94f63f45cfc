"""A process gets its order and answers as data; its end is seen, and nothing that it started is left."""

from __future__ import annotations

import os
import pickle
import time
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
from florlog_wal import Array, CorruptValue

from florlog.errors import DivergedError, FlorlogError
from florlog.program.spawner import Child, Stderr
from florlog.program.wire import Wire

ROOT = Path(__file__).resolve().parents[2]
VALUE = {
    "path": (("epoch", 3), ("step", 17)),
    "array": Array("<f4", (2,), b"12345678"),
    "bits": b"\0",
    "none": None,
}


def child(then: str, stderr: Stderr = Stderr.KEPT, value: Any = None) -> Child:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    order = {"then": then, "value": value}
    return Child("tests.program.echo_worker", order, environment=environment, stderr=stderr)


def test_an_order_arrives_as_it_was_sent_and_what_is_printed_goes_nowhere(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with child("end", value=VALUE) as process:
        assert list(process.messages()) == [["echo", {"then": "end", "value": VALUE}]]
        assert process.status() == 0
        assert process.said() == "said\n"
    with child("end", Stderr.SHARED) as process:
        process.status()
    with child("end", Stderr.DROPPED) as process:
        process.status()
    assert capfd.readouterr() == ("", "said\n")


def test_an_order_larger_than_a_pipe_arrives_and_so_does_its_answer() -> None:
    with child("end", value=bytes(3_000_000)) as process:
        ((_, order),) = process.messages()
    assert len(order["value"]) == 3_000_000


@pytest.mark.parametrize(("then", "error"), [("fail", FlorlogError), ("differ", DivergedError)])
def test_what_a_process_says_went_wrong_is_raised(then: str, error: type[FlorlogError]) -> None:
    with child(then) as process, pytest.raises(FlorlogError, match=r"it failed|epoch=1") as raised:
        list(process.messages())
    assert type(raised.value) is error


@pytest.mark.crash
def test_the_death_of_a_process_ends_its_messages() -> None:
    with child("die") as process:
        assert [message[0] for message in process.messages()] == ["echo"]
        assert process.status() == -9


@pytest.mark.crash
def test_what_a_process_started_is_killed_with_it() -> None:
    with child("start another") as process:
        messages = process.messages()
        next(messages)
        _, pid = next(messages)
        assert runs(pid)
    stop = time.monotonic() + 20
    while runs(pid) and time.monotonic() < stop:
        time.sleep(0.01)
    assert not runs(pid)


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_nothing_that_arrives_is_unpickled(tmp_path: Path) -> None:
    ours, theirs = Pipe()
    theirs.send_bytes(pickle.dumps(Bomb(tmp_path / "touched")))
    with pytest.raises(CorruptValue):
        Wire(ours).receive()
    assert not (tmp_path / "touched").exists()


def test_a_message_that_breaks_off_is_the_end() -> None:
    ours, theirs = Pipe()
    os.write(theirs.fileno(), (100).to_bytes(4, "big") + b"half of it")
    theirs.close()
    assert Wire(ours).receive() is None
