"""Code from a store is executed only for the user who recorded it here, or who says so."""

from __future__ import annotations

import ast
import os
import stat
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from florlog_wal import Note, Record, RunBegin, RunLog

import florlog
from florlog.commands import main
from florlog.errors import UntrustedRunError
from florlog.program.signing import KEY_BYTES, SIGNATURE, key_path
from florlog.program.stores import tree_of
from florlog.programs.hands_free import record_script
from florlog.programs.permission import Trust, is_own, permit
from tests.run_directories import run_directory

ROOM = Path(florlog.__file__).parent

SCRIPT = """\
import florlog, subprocess, torch
subprocess.run(["touch", {marker!r}])
torch.manual_seed(0)
model = torch.nn.Linear(2, 1)
with florlog.run("own", store={store!r}, overhead=0.0) as run:
    run.track(model=model)
    for step in run.loop("step", range(4)):
        with torch.no_grad():
            model.weight += 1
        run.log(x=step)
        if step == 1:
            import later_module
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


@pytest.fixture
def recorded(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A store with a run, recorded by this user."""
    (home / "later_module.py").write_text("X = 1\n")
    script = home / "train.py"
    script.write_text(SCRIPT.format(marker=str(home / "marker"), store=str(home / "store")))
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.chdir(home)
    from florlog.programs.scripts import run_as_main

    run_as_main(str(script))
    sys.modules.pop("later_module", None)
    (home / "marker").unlink()
    yield home / "store"
    sys.modules.pop("later_module", None)


def stranger(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the user is another one."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "other"))


def own(store: Path) -> bool:
    with RunLog.open(run_directory(store)) as opened:
        return is_own(opened, tree_of(opened))


def forged(store: Path, change: Callable[[Record], Record], *, texts: tuple[bytes, ...] = ()) -> Path:
    """A store with the same records except what ``change`` gives, with the same pages and ``texts``."""
    path = store.with_name("forged")
    with RunLog.open(run_directory(store)) as old, RunLog.open(path, mode="w") as new:
        for entry in old.scan():
            for page in pages_of(entry.record):
                new.put_pages([old.get_page(page)])
            new.put_pages(list(texts))
            session = 0 if isinstance(entry.record, RunBegin) else entry.session
            new.append(change(entry.record), session=session, prev=entry.prev_lsn)
    return path


def pages_of(record: Record) -> list[bytes]:
    if isinstance(record, RunBegin):
        return [page for _, _, page in record.sources]
    return [record.data["page"]] if isinstance(record, Note) and record.kind == "source" else []


def test_the_first_recording_makes_a_key_that_only_the_user_reads(recorded: Path) -> None:
    path = key_path()
    assert path is not None
    assert len(path.read_bytes()) == KEY_BYTES
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]
    with RunLog.open(run_directory(recorded)) as store:
        later = [e.record for e in store.scan(types=[Note]) if e.record.kind == "source"]  # type: ignore[union-attr]
        assert len(later) == 1
    assert own(recorded)


def test_a_run_of_somebody_else_is_read_and_not_executed(
    recorded: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger(home, monkeypatch)
    marker, script = home / "marker", str(home / "train.py")
    with florlog.open(recorded) as log:
        run = log.run().id
        assert len(log.values("x")) == 4
        with pytest.raises(UntrustedRunError, match="--trust"):
            log.state_at(step=2)
        with pytest.raises(UntrustedRunError):
            log.runs[-1].state_at(step=2)
    (home / "train.py").write_text((home / "train.py").read_text() + "        run.log(y=step)\n")
    state = ("--at", "step=2", "-o", str(home / "out.pt"))
    for command in (
        ("export", "state", *state),
        ("bisect", script, "--first", "norm(state['model.weight']) > 1e9"),
        ("replay", script, "--all"),
        ("replay", script, "--run", f"{run},{run}"),
    ):
        assert main([command[0], "--store", str(recorded), *command[1:]]) == 2
        said = capsys.readouterr().err
        assert f"run {run} " in said
        assert f"--trust {run}" in said
        assert len([line for line in said.splitlines() if "--trust" in line]) == 1
    assert not marker.exists()
    assert main(["explain", script, "--store", str(recorded)]) == 0
    assert main(["runs", "--store", str(recorded)]) == 0
    assert not marker.exists()


def test_what_the_user_trusts_is_executed(
    recorded: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger(home, monkeypatch)
    with florlog.open(recorded) as log:
        run = log.run().id
    with florlog.open(recorded, trust=run) as log:
        assert log.state_at(step=2).trust != "RECORDED"
    assert (home / "marker").exists()
    out = str(home / "out.pt")
    words = ["export", "--store", str(recorded), "state", "--at", "step=2", "-o", out]
    assert main([*words, "--trust", "another"]) == 2
    assert main([*words, "--trust", run]) == 0


def test_a_changed_beginning_or_source_is_not_the_users(recorded: Path) -> None:
    with RunLog.open(run_directory(recorded)) as store:
        page = store.sessions()[0].begin.sources[0][2]
        text = store.get_page(page)
    evil = text + b"import os\n"
    from florlog_wal import page_digest

    def sources(begin: RunBegin) -> RunBegin:
        return replace(begin, sources=tuple((p, m, page_digest(evil)) for p, m, _ in begin.sources))

    changes: list[Callable[[RunBegin], RunBegin]] = [
        lambda begin: replace(begin, argv=("--delete", "all")),
        lambda begin: replace(begin, cwd="/tmp"),
        lambda begin: replace(begin, run="another"),
        lambda begin: replace(begin, environment={**begin.environment, "module": "evil"}),
        lambda begin: replace(begin, environment={**begin.environment, SIGNATURE: b""}),
        lambda begin: replace(begin, environment={**begin.environment, SIGNATURE: "text"}),
        lambda begin: replace(begin, sources=tuple((p, "json", d) for p, _, d in begin.sources)),
        sources,
    ]
    import shutil

    for change in changes:
        made = forged(recorded, lambda r, c=change: c(r) if isinstance(r, RunBegin) else r, texts=(evil,))
        assert not own(made)
        shutil.rmtree(made)
    assert own(forged(recorded, lambda record: record))


def test_a_later_source_that_was_put_in_is_not_the_users(recorded: Path) -> None:
    import shutil

    from florlog_wal import page_digest

    evil = b"import os\n"

    def with_data(**more: Any) -> Callable[[Record], Record]:
        def change(record: Record) -> Record:
            if isinstance(record, Note) and record.kind == "source":
                return replace(record, data={**record.data, **more})
            return record

        return change

    for more in ({"page": page_digest(evil)}, {"path": "/elsewhere.py"}, {SIGNATURE: b"x" * 32}):
        made = forged(recorded, with_data(**more), texts=(evil,))
        assert not own(made)
        shutil.rmtree(made)


def test_without_a_key_recording_goes_on_and_such_a_run_needs_trust(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "file" / "below"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with florlog.run("plain", store=home / "store") as run:
            run.log(x=1)
    with RunLog.open(run_directory(home / "store")) as store:
        tree = tree_of(store)
        assert SIGNATURE not in tree.begin.environment
        with pytest.raises(UntrustedRunError):
            permit(store, tree, Trust())
        assert permit(store, tree, Trust(run.id)).run == run.id
        monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
        assert not is_own(store, tree)


def test_a_key_that_others_may_read_is_none(recorded: Path) -> None:
    path = key_path()
    assert path is not None
    assert own(recorded)
    path.chmod(0o640)
    assert not own(recorded)
    path.chmod(0o600)
    assert own(recorded)
    path.write_bytes(b"short")
    assert not own(recorded)
    path.unlink()
    os.mkfifo(path, 0o600)
    assert not own(recorded)


def test_a_terminal_is_asked_once(
    recorded: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger(home, monkeypatch)

    class Terminal:
        def __init__(self, *answers: str) -> None:
            self.answers = list(answers)

        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return self.answers.pop(0)

        def write(self, text: str) -> None:
            sys.stdout.write(text)

        def flush(self) -> None:
            pass

    monkeypatch.setattr(sys, "stderr", Terminal())
    with RunLog.open(run_directory(recorded)) as store:
        tree = tree_of(store)
        for answer, allowed in (("y\n", True), ("n\n", False), ("\n", False), ("", False)):
            monkeypatch.setattr(sys, "stdin", Terminal(answer))
            trust = Trust(ask=True)
            for _ in range(2):
                if allowed:
                    permit(store, tree, trust)
                else:
                    with pytest.raises(UntrustedRunError):
                        permit(store, tree, trust)
        assert capsys.readouterr().out.count("[y/N]") == 4
        with pytest.raises(UntrustedRunError):
            permit(store, tree, Trust())  # the interface for programs asks nobody


def test_a_hands_free_run_is_signed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = home / "plain.py"
    script.write_text("for step in range(3):\n    print('loss', step)\n")
    record_script(str(script), (), module=None, name="plain", store=home / "store", announce=False)
    assert own(home / "store")


# -- every way that leads to the execution of recorded code ------------------------------------------

EXECUTING = {
    "exec", "eval", "compile", "run_as_main", "replay_script", "replay_cells", "record_script", "record_cell",
    "RecordedFinder", "RecordedProgram", "SourceMirror", "visit", "answers", "import_module", "load",
    "run_path", "run_module", "exec_module", "functions_replaced", "kind_of", "Child", "replay_elsewhere", "guided_run",
}  # fmt: skip
METHODS = {"import_module", "run_path", "run_module", "exec_module"}
PERMIT = "takes a permit"
WAYS = {
    # recorded code, behind `permit`
    "programs/recorded_program.py:RecordedProgram.__init__": PERMIT,
    "programs/source_mirror.py:SourceMirror.__init__": PERMIT,
    "redo/boundary_visit.py:order_of": PERMIT,
    "redo/boundary_visit.py:visit": PERMIT,
    "questions/versions.py:_replayed": PERMIT,
    "questions/versions.py:replay_versions.version": PERMIT,
    "inspect/asking.py:replay": PERMIT,
    "notebook/magic.py:Magic._ask": PERMIT,
}
"""Where a permit is asked for or taken."""
CALLS = {
    # what a process that was permitted executes
    ("programs/recorded_program.py", "RecordedFinder"): "a RecordedProgram has a permit",
    ("programs/recorded_program.py", "guided_run"): "a RecordedProgram has a permit",
    ("programs/recorded_program.py", "kind_of"): "a RecordedProgram has a permit",
    ("redo/boundary_visit.py", "RecordedProgram"): "takes a permit",
    ("redo/boundary_visit.py", "Child"): "its order comes from order_of, and the process asks again",
    ("redo/past_state.py", "answers"): "its order comes from order_of",
    ("redo/state_worker.py", "visit"): "visit takes a permit",
    ("redo/early_audit_worker.py", "visit"): "visit takes a permit",
    (
        "recording/early_audit.py",
        "Child",
    ): "the run of this process itself, and the process asks for a permit",
    ("redo/auditing.py", "answers"): "its order comes from order_of",
    ("redo/audit_worker.py", "visit"): "visit takes a permit",
    ("state/heap/capture.py", "kind_of"): "the kind of a node, and of no program",
    ("questions/bisection.py", "answers"): "its order comes from order_of",
    ("questions/search_worker.py", "visit"): "visit takes a permit",
    ("questions/versions.py", "SourceMirror"): "takes a permit",
    ("questions/versions.py", "replay_elsewhere"): "_replayed takes a permit",
    ("inspect/asking.py", "SourceMirror"): "takes a permit",
    ("inspect/asking.py", "replay_elsewhere"): "replay takes a permit",
    ("notebook/magic.py", "replay_elsewhere"): "_ask takes a permit",
    # the user's own script, cells or functions
    ("programs/kinds.py", "run_as_main"): "own script; or the text of a RecordedProgram",
    ("programs/kinds.py", "replay_script"): "own script; or the text of a RecordedProgram",
    ("programs/kinds.py", "replay_cells"): "own script; or the text of a RecordedProgram",
    ("programs/kinds.py", "record_script"): "own script",
    ("programs/hands_free.py", "run_as_main"): "called by kinds",
    ("programs/scripts.py", "exec"): "called by kinds and hands_free",
    ("programs/scripts.py", "compile"): "called by kinds and hands_free",
    ("state/heap/names.py", "import_module"): "what a sealed image names, or one that the user trusts",
    ("programs/scripts.py", "import_module"): "the package of a module that is run",
    ("programs/adoption.py", "import_module"): "florlog's own modules",
    ("programs/finders.py", "exec_module"): "an installed module, as Python executes it",
    ("following/sandbox.py", "import_module"): "safetensors",
    ("bridges/hooks/attaching.py", "import_module"): "a framework that the program uses",
    ("programs/notebook_cells.py", "exec"): "called by kinds and the notebook",
    ("programs/notebook_cells.py", "compile"): "called by kinds and the notebook",
    ("programs/notebook_cells.py", "functions_replaced"): "called by kinds and the notebook",
    ("programs/notebook_cells.py", "import_module"): "florlog's own modules",
    ("notebook/magic.py", "record_cell"): "the user's cell",
    ("commands/resume.py", "kind_of"): "own script",
    ("redo/answer.py", "guided_run"): "own script, or one that was written with a permit",
    ("redo/answer.py", "kind_of"): "own script, or one that was written with a permit",
    ("redo/replaying.py", "Child"): "own script, or one that was written with a permit",
    ("redo/pool.py", "Child"): "own script, or one that was written with a permit",
    # nothing of a store
    ("source/edit/instrument.py", "compile"): "compiles only",
    ("programs/hands_free.py", "compile"): "the user's own script, as it is where it cannot be rewritten",
    ("program/loading.py", "import_module"): "florlog's own modules",
    ("state/loader_workers.py", "load"): "a DataLoader of the running program",
    ("program/extras.py", "import_module"): "optional dependencies",
    ("program/cell_history.py", "compile"): "compiles only",
    ("__init__.py", "load"): "florlog's own modules, or a notebook's extension",
    ("commands/__init__.py", "load"): "florlog's own modules",
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(ROOM.rglob("*.py")):
        yield str(file.relative_to(ROOM)), ast.parse(file.read_text(encoding="utf-8"))


def test_every_way_to_execute_recorded_code_is_known() -> None:
    found = set()
    for file, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                method = getattr(node.func, "attr", "")
                name = method if method in METHODS else getattr(node.func, "id", "")
                if name in EXECUTING:
                    found.add((file, name))
    assert found - CALLS.keys() == set(), "is it behind florlog.programs.permission.permit?"
    assert CALLS.keys() - found == set()


def test_every_way_to_execute_recorded_code_takes_a_permit() -> None:
    found = set()
    for file, tree in modules():
        if file == "programs/permission.py":
            continue
        for name, function in functions(tree):
            calls = [
                n for n in ast.walk(function) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
            ]
            assert not any(call.func.id == "Permit" for call in calls), f"{file}: {name} makes a permit"  # type: ignore[attr-defined]
            taken = any(
                isinstance(a.annotation, ast.Name) and a.annotation.id == "Permit" for a in function.args.args
            )
            if taken or any(call.func.id == "permit" for call in calls):  # type: ignore[attr-defined]
                found.add(f"{file}:{name}")
    assert {way for way in found if way != "questions/versions.py:replay_versions"} == set(WAYS)


def functions(tree: ast.AST, outer: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in ast.iter_child_nodes(tree):
        name = f"{outer}{getattr(node, 'name', '')}"
        if isinstance(node, ast.FunctionDef):
            yield name, node
        inner = isinstance(node, ast.FunctionDef | ast.ClassDef)
        yield from functions(node, f"{name}." if inner else outer)


def test_a_module_of_a_stranger_is_the_one_that_the_script_imports(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from florlog.hindsight.compared_files import compared

    project, dropped = home / "project", home / "dropped"
    for folder in (project, dropped):
        folder.mkdir()
        (folder / "helper.py").write_text(f"X = {folder.name!r}\n")
    script = project / "train.py"
    script.write_text("import helper\n")
    with RunLog.open(home / "store", mode="w") as store:
        pages = store.put_pages([b"import helper\n", b"X = 1\n"]).digests
        session = store.append(
            RunBegin(
                "run", "name", "record", str(script), (), str(home), {}, {},
                ((str(script), "__main__", pages[0]), (str(dropped / "helper.py"), "helper", pages[1])),
                0.0, 0, 1, 0,
            )
        )  # fmt: skip
        tree = tree_of(store)
        assert session == tree.sessions[0]
        found = compared(store, tree, str(script))
        assert [file.present for file in found] == [str(script), str(project / "helper.py")]
        monkeypatch.setattr("florlog.hindsight.compared_files.is_own", lambda store, tree: True)
        assert compared(store, tree, str(script))[1].present == str(dropped / "helper.py")
