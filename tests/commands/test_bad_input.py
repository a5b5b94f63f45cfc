"""Wrong use is answered by one line that says what is wrong and what to do."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch

import florlog
from florlog.commands import main
from tests.end_to_end.harness import python

SCRIPT = """
import sys

import florlog

with florlog.run("small") as run:
    total = 0
    for i in run.loop("step", range(int(sys.argv[1]))):
        total += i
        run.log(total=total)
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLORLOG_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


def complaint(capsys: pytest.CaptureFixture[str], *command: str | Path) -> str:
    """The one line that a command which exits with 2 writes to stderr."""
    capsys.readouterr()  # what recordings have said
    assert main([str(part) for part in command]) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    lines = captured.err.splitlines()
    assert lines[-1].startswith("florlog: ")
    assert len([line for line in lines if line.startswith("florlog: ")]) == 1, lines
    return lines[-1]


def record(path: Path, *args: str) -> None:
    from florlog.programs.scripts import run_as_main

    path.write_text(SCRIPT)
    run_as_main(str(path), args)


def test_a_store_that_does_not_exist(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no store" in complaint(capsys, "runs")
    with pytest.raises(florlog.StoreError, match="there is no store"):
        florlog.open(store)


def test_a_directory_that_is_no_store(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.mkdir()
    (store / "notes.txt").write_text("mine")
    assert "is not a florlog store" in complaint(capsys, "runs")
    with pytest.raises(florlog.StoreError, match="is not a florlog store"):
        florlog.run("r", store=store, strict=True)
    assert [path.name for path in store.iterdir()] == ["notes.txt"]


def test_a_run_that_does_not_exist(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path / "train.py", "3")
    line = complaint(capsys, "inspect", "nothing-2026")
    assert "no run 'nothing-2026'" in line
    assert florlog.open().run().id in line
    assert "no run 'x'" in complaint(capsys, "replay", tmp_path / "train.py", "--run", "x")


def test_a_script_that_was_never_recorded(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path / "train.py", "3")
    (tmp_path / "other.py").write_text(SCRIPT)
    line = complaint(capsys, "explain", tmp_path / "other.py")
    assert "was recorded from" in line
    assert "--run" in line
    assert "there is no script" in complaint(capsys, "explain", tmp_path / "absent.py")


def test_a_script_to_which_nothing_was_added(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path / "train.py", "3")
    assert "no log statement was added" in complaint(capsys, "replay", tmp_path / "train.py")


def test_a_script_that_was_changed(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path / "train.py", "3")
    (tmp_path / "train.py").write_text(SCRIPT.replace("total += i", "total += 2 * i\n        run.log(i=i)"))
    line = complaint(capsys, "replay", tmp_path / "train.py")
    assert "train.py, line 9: `total += i` became `total += 2 * i`" in line


def test_a_script_that_does_not_parse(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path / "train.py", "3")
    (tmp_path / "train.py").write_text(SCRIPT + "if:\n")
    assert "train.py" in complaint(capsys, "replay", tmp_path / "train.py")


def test_an_iterable_whose_length_changed(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "count.txt"
    data.write_text("5")
    text = SCRIPT.replace("int(sys.argv[1])", f"int(open({str(data)!r}).read())")
    script = tmp_path / "train.py"
    script.write_text(text)
    python(store, script)  # in a process of its own: what this one has written before is not the run's
    data.write_text("4")
    script.write_text(text + "        run.log(i=i)\n")
    line = complaint(capsys, "replay", script)
    assert "loop 'step' had 5 items when recorded and has 4 now" in line


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("epoch == 1", "no loop or logged value is called 'epoch'; the run has loops: step"),
        ("step ==", "cannot read the condition"),
        ("__import__('os').system('true')", "is not allowed in a condition"),
        ("step < 'a'", "cannot be evaluated"),
    ],
)
def test_a_condition_that_cannot_be_used(
    condition: str, words: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path / "train.py", "3")
    (tmp_path / "train.py").write_text(SCRIPT + "        run.log(i=i)\n")
    assert words in complaint(capsys, "explain", tmp_path / "train.py", "--where", condition)


def test_a_run_that_is_complete_cannot_be_resumed(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path / "train.py", "3")
    assert "is complete: there is nothing to resume" in complaint(capsys, "resume", tmp_path / "train.py")


def test_functions_of_the_current_run_outside_a_run(store: Path) -> None:
    with pytest.raises(florlog.NoRunError, match=r"florlog\.loop\(\) was called outside a run"):
        florlog.loop("epoch", range(3))
    with pytest.raises(florlog.NoRunError, match=r"florlog\.log\(\) was called outside a run"):
        florlog.log(loss=1.0)


def test_an_object_without_state_is_refused_by_name(store: Path) -> None:
    class Meter:
        pass

    with (
        florlog.run("r", strict=True) as run,
        pytest.raises(florlog.TrackError, match="cannot track 'meter': a Meter has"),
    ):
        run.track(meter=Meter())


def test_a_value_that_cannot_be_encoded_is_refused_by_name(store: Path) -> None:
    with florlog.run("r", strict=True) as run:
        with pytest.raises(florlog.LogValueError, match="cannot log 'model'"):
            run.log(model=torch.nn.Linear(2, 2))
        with pytest.raises(florlog.LogValueError, match="cannot log 'nested'"):
            run.log(nested={"a": [1, object()]})

    with pytest.raises(florlog.LogValueError, match="cannot keep params"):
        florlog.run("r2", params={"f": print}, strict=True)


def test_a_second_writer_is_told_who_writes(store: Path) -> None:
    import subprocess
    import sys

    with florlog.run("first") as run:
        code = f"import florlog\nflorlog.run('first', store={str(store)!r}, resume={run.id!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        import os

        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert f"is in use by process {os.getpid()} on {socket.gethostname()}" in last
        with pytest.raises(florlog.FlorlogError, match="run 'first' is still open"):
            florlog.run("third", strict=True)


def test_a_loop_name_that_would_make_addresses_ambiguous(store: Path) -> None:
    with florlog.run("r", strict=True) as run:
        for name in ("", "a=b", "a,b", "x#2", "a/b"):
            with pytest.raises(florlog.LoopError):
                next(iter(run.loop(name, range(2))))
        for _ in run.loop("step", range(1)):
            with pytest.raises(florlog.LoopError, match="already open around this place"):
                next(iter(run.loop("step", range(2))))


def test_iterations_out_of_order_are_refused(store: Path) -> None:
    with florlog.run("r", strict=True) as run:
        with run.iteration("step", 0):
            pass
        with pytest.raises(florlog.LoopError, match="numbered 0, 1, 2"):
            run.iteration("step", 5).__enter__()


def test_a_run_needs_a_name_and_a_sensible_overhead(store: Path) -> None:
    with pytest.raises(florlog.FlorlogError, match="needs a name"):
        florlog.run("")
    with pytest.raises(florlog.FlorlogError, match="overhead"):
        florlog.run("r", overhead=-1.0)
    with pytest.raises(florlog.NoSuchRunError):
        florlog.run("r", resume="nothing-like-it")
