"""The changeset of a loop holds everything that the loop really changed, or names the statement that hides it."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from florlog.commands import main
from florlog.source.carry.changeset import LoopEffects, loop_effects, report

HEAD = """\
import random

class Box:
    def __init__(self, v):
        self.v = v
        self.items = []

    def put(self, x):
        self.items.append(x)
        return self

def grow(xs, y):
    xs.append(y)
    return y

def same(x):
    return x

def bump():
    counter[0] += 1

def setv(b, y):
    b.v = y

counter = [0]
a, b, c = 1, 2, 3
xs, ys = [1], [2]
zs = ys
d = {"k": [0], "n": 1}
p, q = Box(1), Box(xs)
fs = [grow]
"""

NUMBERS, LISTS, BOXES = (
    st.sampled_from("abc"),
    st.sampled_from(["xs", "ys", "zs", 'd["k"]']),
    st.sampled_from("pq"),
)
SIMPLE = st.one_of(
    st.tuples(NUMBERS, NUMBERS).map(lambda t: f"{t[0]} = {t[1]} + 1"),
    NUMBERS.map(lambda n: f"{n} += 1"),
    st.tuples(LISTS, NUMBERS).map(lambda t: f"{t[0]}.append({t[1]})"),
    st.tuples(LISTS, NUMBERS).map(lambda t: f"{t[0]} += [{t[1]}]"),
    st.tuples(LISTS, LISTS).map(lambda t: f"{t[0]} = {t[1]}"),
    st.tuples(LISTS, LISTS).map(lambda t: f"{t[0]} = {t[1]} if a else {t[0]}"),
    st.tuples(LISTS, NUMBERS).map(lambda t: f"c = grow({t[0]}, {t[1]})"),
    st.tuples(LISTS, NUMBERS).map(lambda t: f"fs[0]({t[0]}, {t[1]})"),
    st.tuples(LISTS, LISTS).map(lambda t: f"{t[0]} = same({t[1]})"),
    st.tuples(LISTS, BOXES).map(lambda t: f"{t[1]}.items = {t[0]}"),
    st.tuples(LISTS, BOXES).map(lambda t: f"{t[0]} = {t[1]}.items"),
    st.tuples(BOXES, NUMBERS).map(lambda t: f"{t[0]}.put({t[1]})"),
    st.tuples(BOXES, NUMBERS).map(lambda t: f"{t[0]}.put({t[1]}).put(0)"),
    st.tuples(BOXES, NUMBERS).map(lambda t: f"setv({t[0]}, {t[1]})"),
    st.tuples(BOXES, BOXES).map(lambda t: f"{t[0]} = {t[1]}"),
    st.tuples(BOXES, NUMBERS).map(lambda t: f"{t[0]}.v = {t[1]}"),
    st.tuples(NUMBERS, NUMBERS).map(lambda t: f"{t[0]}, {t[1]} = {t[1]}, {t[0]}"),
    st.tuples(LISTS, NUMBERS).map(lambda t: f"{t[1]} = {t[0]}[0]"),
    st.tuples(LISTS, NUMBERS).map(lambda t: f"{t[0]}[0] = {t[1]}"),
    LISTS.map(lambda n: f"[g.append(0) for g in [{n}]]"),
    LISTS.map(lambda n: f"(lambda: {n}.append(3))()"),
    NUMBERS.map(lambda n: f"if ({n} := 7): pass"),
    st.just("bump()"),
    st.just("fs.append(same)"),
    st.just('d.update(n=a)'),
    st.just("xs, *ys = [xs, 1, 2]"),
    st.just("a = random.random()"),
    st.just("del d['n']\nd['n'] = 0"),
    st.just("exec('b = 99')"),
)  # fmt: skip


def indented(lines: list[str]) -> str:
    return "".join(f"    {part}\n" for line in lines for part in line.splitlines())


def compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    body = st.lists(inner, min_size=1, max_size=3).map(indented)
    return st.one_of(
        body.map(lambda text: f"for j in range(2):\n{text}"),
        st.tuples(NUMBERS, body).map(lambda t: f"if {t[0]} > 1:\n{t[1]}"),
        st.tuples(LISTS, body).map(lambda t: f"for g in list({t[0]})[:2]:\n    j = g\n{t[1]}"),
        body.map(lambda text: f"try:\n{text}finally:\n    c = 5\n"),
        LISTS.map(lambda name: f"def inner(w={name}):\n    w.append(1)\ninner()\n"),
        LISTS.map(lambda name: f"def inner():\n    {name}.append(1)\nfs[:] = [grow, inner]\nfs[1]()\n"),
    )  # fmt: skip


BODY = st.lists(st.recursive(SIMPLE, compound, max_leaves=6), min_size=1, max_size=5)


def shape(value: Any, seen: dict[int, int]) -> Any:
    """A value with everything in it, comparable; a cycle or a second reference is a number."""
    if id(value) in seen:
        return ("again", seen[id(value)])
    if isinstance(value, (list, dict)) or (hasattr(value, "items") and hasattr(value, "v")):
        seen[id(value)] = len(seen)
    if isinstance(value, list):
        return [shape(v, seen) for v in value]
    if isinstance(value, dict):
        return {k: shape(v, seen) for k, v in value.items()}
    if hasattr(value, "v"):
        return ("box", shape(vars(value), seen))
    return value if isinstance(value, int | float) else repr(type(value))


def changed_by_running(program: str) -> set[str] | None:
    """The variables whose value is another one after the loop's second pass than before it; None if it fails."""
    passes: list[dict[str, Any]] = []

    def items() -> Any:
        for number in range(3):
            passes.append({
                name: copy.deepcopy(shape(value, {}))
                for name, value in names.items()
                if (not name.startswith("__") and isinstance(value, int | float | list | dict)) or hasattr(value, "v")
            })  # fmt: skip
            yield number

    names: dict[str, Any] = {"items": items, "print": lambda *_: None}
    try:
        exec(compile(program, "program.py", "exec"), names)
    except (NameError, TypeError, KeyError, IndexError, AttributeError, ValueError, RecursionError):
        return None
    return {
        name
        for before, after in itertools.pairwise(passes)
        for name in after
        if before.get(name) != after[name]
    }


def of(program: str) -> LoopEffects:
    return next(loop for loop in loop_effects({"program.py": program}) if loop.line > HEAD.count("\n"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@example(["xs.append(a)"])
@example(["zs.append(a)"])
@example(["p.items = xs", "p.put(a)"])
@example(["(lambda: ys.append(3))()"])
@given(BODY)
def test_the_changeset_holds_everything_that_a_random_program_changed(body: list[str]) -> None:
    program = f"{HEAD}for i in items():\n{indented(body)}print(a, b, c, xs, ys, zs, d, p, q, fs, counter)\n"
    really = changed_by_running(program)
    if really is None:
        return
    found = of(program)
    hidden = really - set(found.changeset) - set(found.scoped)
    assert not hidden or found.unknown, (hidden, program)


def test_what_is_bound_anew_in_each_pass_is_scoped_and_what_is_read_later_is_not() -> None:
    program = (
        "total = 1\nfor i in range(3):\n    y = i * 2\n    total += y\n    last = y\nprint(total, last)\n"
    )
    (found,) = loop_effects({"program.py": program})
    assert found.changeset == ("last", "total")
    assert found.scoped == ("i", "y")


TRAINING = """\
import torch
import florlog

def one(model, optimizer, x):
    loss = model(x).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss

def main(callback):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with florlog.run("r") as run:
        for epoch in run.loop("epoch", range(3)):
            x = torch.randn(4, 2)
            loss = one(model, optimizer, x)
            scheduler.step()
            callback(model)
            exec("x = 1")
            run.log(loss=loss)
"""


def test_libraries_effects_are_known_also_inside_the_programs_functions() -> None:
    (found,) = loop_effects({"train.py": TRAINING})
    by_line = {effect.line: effect for effect in found.effects}
    assert {"model", "optimizer", "scheduler"} <= set(found.changeset)
    assert "run" not in found.changeset
    assert by_line[17].hidden == ("random numbers",)
    assert {"gradients", "buffers", "parameters, moments or learning rate"} <= set(by_line[18].hidden)
    assert by_line[22].names == ()


def test_what_cannot_be_known_is_named_by_statement_and_line() -> None:
    (found,) = loop_effects({"train.py": TRAINING})
    assert [(e.line, e.text) for e in found.unknown] == [(20, "callback(model)"), (21, "exec('x = 1')")]
    text = "\n".join(report(found, TRAINING))
    assert "unknown: line 20: `callback(model)`: callback is called for its effect" in text


@pytest.mark.parametrize("name", ["class_fit.py", "callbacks.py"])
def test_explain_prints_the_source_with_the_changes_beside_it(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Path(__file__).parents[1] / "corpus" / "scripts" / name
    assert main(["explain", "--effects", str(script)]) == 0
    text = capsys.readouterr().out
    assert "  | " in text
    assert "changes: " in text
    assert main(["explain", "--effects", "--format", "json", str(script)]) == 0
    loops = json.loads(capsys.readouterr().out)["loops"]
    assert loops
    assert all(loop["changeset"] for loop in loops)
