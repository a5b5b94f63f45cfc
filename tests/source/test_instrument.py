"""Instrumented code behaves as the source does, and can be left by SkipRest."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path
from typing import Any

import pytest

from florlog.programs.finders import LocalModuleFinder
from florlog.programs.scripts import run_as_main
from florlog.recording import session as _session
from florlog.source.edit.edits import Edits
from florlog.source.edit.instrument import Instrumenter, instrument
from florlog.source.edit.skip_signal import SkipRest
from florlog.source.reach.regions import Exit
from florlog.source.skip.acts import Items, Mode
from florlog.source.skip.pieces import Piece
from florlog.source.skip.skipping import Skipped

HEAD = """
class Run:
    def loop(self, name, items):
        return iter(items)
run = Run()
"""


def execute(source: str, edits: Edits | None = None) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "script", "SkipRest": SkipRest}
    exec(instrument(textwrap.dedent(source), "script.py", edits or Edits()).code, namespace)
    return namespace


def test_skip_rest_ends_one_pass_of_the_enclosing_florlog_loop() -> None:
    space = execute(
        HEAD
        + textwrap.dedent("""
        seen = []
        for epoch in run.loop("epoch", range(3)):
            seen.append(("start", epoch))
            if epoch == 1:
                raise SkipRest
            seen.append(("end", epoch))
    """)
    )
    assert space["seen"] == [("start", 0), ("end", 0), ("start", 1), ("start", 2), ("end", 2)]


def test_skip_rest_passes_plain_loops_and_is_caught_by_the_innermost_florlog_loop() -> None:
    space = execute(
        HEAD
        + textwrap.dedent("""
        seen = []
        for epoch in run.loop("epoch", range(2)):
            for i, step in enumerate(run.loop("step", range(2))):
                for part in range(3):
                    if part == 1:
                        raise SkipRest
                    seen.append((epoch, step, part))
                seen.append("never")
            seen.append(epoch)
    """)
    )
    assert space["seen"] == [(0, 0, 0), (0, 1, 0), 0, (1, 0, 0), (1, 1, 0), 1]


def test_break_continue_return_and_else_mean_what_they_meant() -> None:
    source = HEAD + textwrap.dedent("""
        def search(stop):
            seen = []
            for i in run.loop("i", range(5)):
                if i == 1:
                    continue
                if i == stop == 3:
                    break
                if i == stop:
                    return seen + ["returned"]
                seen.append(i)
            else:
                seen.append("else")
            return seen
        results = [search(2), search(3), search(9)]
    """)
    plain: dict[str, Any] = {}
    exec(source, plain)
    assert execute(source)["results"] == plain["results"]


@pytest.mark.parametrize(("head", "loop", "wrapped"), [
    ("from florlog import loop as L", 'L("e", x)', True),
    ("def f(r, tqdm): pass", 'tqdm(r.loop("e", x), desc="d")', True),
    ("import florlog as f", 'f.loop("e", x)', True),
    ("import wandb", 'wandb.loop("e", x)', False),
    ("", "range(3)", False),
    ("", 'obj.loop("e")', False),
])  # fmt: skip
def test_which_loops_are_wrapped_is_decided_by_binding(head: str, loop: str, wrapped: bool) -> None:
    instrumenter = Instrumenter()
    instrumenter.code(f"{head}\nif 0:\n  for a in {loop}:\n    pass\n", "case.py")
    assert instrumenter.files == {"case.py": frozenset({3}) if wrapped else frozenset()}


def test_lines_docstring_and_future_flags_are_those_of_the_source(tmp_path: Path) -> None:
    source = textwrap.dedent('''\
        """The docstring."""
        from __future__ import annotations
        import sys
        class Run:
            def loop(self, name, items): return items
        run = Run()
        def f(x: not_defined) -> int: return sys._getframe().f_lineno
        lines = []
        for i in run.loop(
            "epoch",
            range(1),
        ):
            lines.append(sys._getframe().f_lineno)

            # a comment
            lines.append(f(1))
            1 / 0
    ''')
    path = tmp_path / "script.py"
    path.write_text(source)
    space: dict[str, Any] = {}
    result = instrument(source, str(path), Edits())
    assert result.wrapped == {9}
    with pytest.raises(ZeroDivisionError) as caught:
        exec(result.code, space)
    assert space["__doc__"] == "The docstring."
    assert space["lines"] == [13, 7]
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (last.lineno, last.line) == (17, "1 / 0")


def test_a_module_without_loops_compiles_to_the_same_code() -> None:
    source = '"""Doc."""\nx = 1\nfor i in range(3):\n    x += i\n'
    assert instrument(source, "m.py", Edits()).code == compile(source, "m.py", "exec", dont_inherit=True)


SHOW = '''
"""Shows how it was started."""
import json, os, sys
import helper
class Thing: pass
print(json.dumps({
    "argv": sys.argv, "path0": sys.path[0], "file": __file__, "name": __name__, "spec": __spec__,
    "package": __package__, "cached": __cached__, "doc": __doc__, "module": Thing.__module__,
    "main": sys.modules["__main__"].Thing is Thing, "builtins": type(__builtins__).__name__,
    "names": sorted(n for n in globals() if n != "__annotations__"),
    "helper": helper.VALUE, "cwd": os.getcwd(),
}))
if "fail" in sys.argv:
    raise SystemExit(7)
'''


@pytest.mark.parametrize("instrumented", [False, True])
def test_run_as_main_shows_the_script_what_python_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], instrumented: bool
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "helper.py").write_text("VALUE = 5\n")
    (tmp_path / "sub" / "train.py").write_text(SHOW)
    monkeypatch.chdir(tmp_path)
    arguments = ["sub/train.py", "--lr", "1", "fail"]
    expected = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert expected.returncode == 7
    main, path, argv = sys.modules["__main__"], sys.path[:], sys.argv
    with pytest.raises(SystemExit) as caught:
        run_as_main(arguments[0], arguments[1:], instrumenter=Instrumenter() if instrumented else None)
    sys.modules.pop("helper")
    assert caught.value.code == 7
    assert json.loads(capsys.readouterr().out) == json.loads(expected.stdout)
    assert (sys.modules["__main__"], sys.path, sys.argv) == (main, path, argv)


def test_a_traceback_shows_the_source_that_ran_even_after_an_edit(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("def f():\n    open(__file__, 'w').write('edited')\n    1 / 0\nf()\n")
    with pytest.raises(ZeroDivisionError) as caught:
        run_as_main(str(script), instrumenter=Instrumenter())
    assert "    1 / 0\n" in "".join(traceback.format_exception(caught.value))


def test_local_modules_are_instrumented_on_import_and_leave_no_byte_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "local_pkg"
    package.mkdir()
    (package / "__init__.py").write_text("from . import inner\n")
    inner = package / "inner.py"
    inner.write_text("def train(run):\n    for i in run.loop('i', range(2)):\n        pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    instrumenter = Instrumenter()
    finder = LocalModuleFinder({str(inner), str(package / "__init__.py")}, instrumenter)
    try:
        with finder:
            module = importlib.import_module("local_pkg.inner")
            outside = importlib.import_module("colorsys")
    finally:
        for name in ("local_pkg", "local_pkg.inner"):
            sys.modules.pop(name)
    assert module.__file__ == str(inner)
    assert instrumenter.files == {str(package / "__init__.py"): frozenset(), str(inner): frozenset({2})}
    assert "__florlog_skip__" in vars(module)
    assert "__florlog_skip__" not in vars(outside)
    assert not list(tmp_path.rglob("*.pyc"))
    assert finder not in sys.meta_path


def test_runs_of_added_statements_are_isolated_and_control_flow_means_what_it_meant() -> None:
    import torch

    source = HEAD + textwrap.dedent("""
        import torch
        def numbers():
            for epoch in run.loop("epoch", range(3)):
                torch.manual_seed(0)
                first = torch.rand(())
                if epoch == 1:
                    continue
                yield first, torch.rand(())
        def early():
            return torch.rand(())
        found = list(numbers())
        drawn = early()
    """)
    tree = ast.parse(source)
    added = [
        statement
        for node in ast.walk(tree)
        for statement in getattr(node, "body", ())
        if ast.unparse(statement).startswith(("torch.manual_seed", "first =", "if epoch", "return torch"))
    ]
    edits = Edits(added={"script.py": frozenset((s.lineno, s.col_offset) for s in added)})
    torch.manual_seed(5)
    before = torch.get_rng_state()
    space = execute(source, edits)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = torch.rand(())
    torch.set_rng_state(before)
    assert space["found"] == [(first, torch.rand(())), (first, torch.rand(()))]  # one run: seed, then draw
    assert space["drawn"] == torch.rand(())


def test_a_piece_is_run_or_passed_over_and_an_iteration_left_behind_it_either_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = HEAD + textwrap.dedent("""
        class Model:
            part = [7]
        model, seen = Model(), []
        def evaluate(items):
            seen.append(items)
        for epoch in run.loop("epoch", range(3)):
            evaluate(epoch)
            seen.append("rest")
    """)
    line = 1 + source.splitlines().index("    evaluate(epoch)")
    acts = (Items("model.part[0]", whole=True), Mode("model", training=True, first=False))
    asked: list[Any] = []

    def passed(number: int, objects: tuple[Any, ...]) -> bool:
        asked.append((number, objects[0], type(objects[1]).__name__))
        return len(asked) == 2

    def leave(file: str, at: int) -> None:
        assert (file, at) == ("script.py", line)
        raise SkipRest

    monkeypatch.setattr(_session, "passed", passed)
    monkeypatch.setattr(_session, "leave", leave)
    pieces = (Piece("script.py", "<module>", line, 4, "evaluate(epoch)", acts, Skipped()),)
    assert execute(source, Edits(pieces=pieces))["seen"] == [0, "rest", "rest", 2, "rest"]
    assert asked == [(0, 7, "Model")] * 3
    asked.clear()
    exits = (Exit("script.py", line, frozenset({(line, 4)}), 0.5),)
    assert execute(source, Edits(exits=exits, pieces=pieces))["seen"] == [0, 2]
    assert execute(source)["seen"] == [0, "rest", 1, "rest", 2, "rest"]


def test_a_statement_that_may_fail_asks_to_be_excused_and_its_return_gives_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = textwrap.dedent("""
        def last():
            return missing
        found = [last()]
        missing
        found.append("rest")
    """)
    asked: list[str] = []
    monkeypatch.setattr(_session, "excuse", lambda: asked.append(str(sys.exc_info()[1])))
    places = frozenset({("script.py", 3, 4), ("script.py", 5, 0)})
    assert execute(source, Edits(may_fail=places))["found"] == [None, "rest"]
    assert asked == ["name 'missing' is not defined"] * 2
    with pytest.raises(NameError):
        execute(source, Edits(may_fail=frozenset({("other.py", 3, 4), ("other.py", 5, 0)})))
