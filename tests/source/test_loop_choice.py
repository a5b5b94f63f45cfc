"""Loops are found wherever they stand, and each has a name that a condition can use."""

from __future__ import annotations

import keyword
import linecache
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
from florlog_recovery import Condition
from hypothesis import given, settings
from hypothesis import strategies as st

import florlog
from florlog.bridges.plain_loops import Runtime
from florlog.source.edit.instrument import Instrumenter
from florlog.source.edit.loop_choice import choose
from florlog.source.edit.rewrite import reading
from florlog.source.names.syntax import read_as

HEAD = """\
import asyncio, contextlib
done = []
def step(n):
    done.append(n)
def call(fn):
    return fn()
class Runner:
    def __init__(self, fn):
        self.fn = fn
    def run(self):
        self.fn()
"""
CORE = ["step(len(done))", 'print("n", len(done))']
Lines = list[str]


def indented(lines: Lines) -> Lines:
    return ["    " + line for line in lines]


def within(head: str) -> Callable[[Lines, str], Lines]:
    return lambda body, name: [*head.replace("NAME", name).split("\n"), *indented(body)]


def counted(test: str, end: str = "") -> Callable[[Lines, str], Lines]:
    """A while loop of three passes, as a function that may stand anywhere has it."""
    return lambda body, name: [
        f"{name} = 0",
        f"while {test.replace('NAME', name)}:",
        f"    if {name} == 3:",
        "        break",
        f"    {name} += 1",
        *indented(body),
        *([] if not end else ["else:", f"    done.append({end!r})"]),
    ]


def after(head: str, use: str) -> Callable[[Lines, str], Lines]:
    """A definition and its use."""
    return lambda body, name: [
        *within(head)(body, name),
        *use.replace("NAME", name).split("\n"),
    ]


LOOPS: dict[str, Callable[[Lines, str], Lines]] = {
    "for": within("for NAME in range(3):"),
    "unpacked": within("for NAME, letter in enumerate('abc'):"),
    "anonymous": within("for _ in range(3):"),
    "many": within("num_epochs = 3\nfor _ in range(num_epochs):"),
    "items": within("for (letter, other) in ('ab', 'cd', 'ef'):"),
    "while": counted("NAME < 3"),
    "forever": counted("True"),
    "ends": counted("NAME != 3", "else"),
}
PLACES: dict[str, Callable[[Lines, str], Lines]] = {
    "with": within("with contextlib.nullcontext():"),
    "try": lambda body, name: ["try:", *indented(body), "finally:", "    done.append('end')"],
    "function": after("def NAME():", "NAME()"),
    "method": after("class NAME:\n  def run(self):", "NAME().run()"),
    "callback": after("def NAME():", "call(NAME)"),
    "keyword": after("def NAME():", "call(fn=NAME)"),
    "held": after("def NAME():", "NAME_held = NAME\nNAME_held()"),
    "attribute": after("def NAME():", "Runner(NAME).run()"),
    "coroutine": after("async def NAME():", "asyncio.run(NAME())"),
    "generator": lambda body, name: [
        f"def {name}():", *indented(body), "    yield 1", f"for {name}_item in {name}():", f"    {name}_seen = 1",
    ],
}  # fmt: skip


def program(layers: list[str]) -> str:
    """A program whose loop nest, outermost layer first, stands in places; ``done`` is what it did."""
    lines = CORE
    for number, layer in reversed(list(enumerate(layers))):
        lines = (LOOPS | PLACES)[layer](lines, f"{'v' if layer in LOOPS else 'place'}{number}")
        if layer in PLACES and layer not in ("with", "try"):
            lines = ["def around():", *indented(lines), "around()"]  # names are a function's own
    return HEAD + "\n".join(lines) + "\n"


layers = st.lists(st.sampled_from([*LOOPS, *PLACES]), min_size=1, max_size=5).filter(
    lambda found: (
        1 <= sum(layer in LOOPS for layer in found) <= 3
        and found.count("coroutine") <= 1
        and found.count("generator") <= 1
    )
)


@settings(deadline=None, max_examples=40)
@given(layers)
def test_a_nest_is_recorded_wherever_it_stands(found: list[str]) -> None:
    text = program(found)
    plain: dict[str, Any] = {"__name__": "plain", "print": lambda *_: None}
    exec(compile(text, "train.py", "exec"), plain)
    linecache.cache["train.py"] = len(text), None, text.splitlines(keepends=True), "train.py"

    loops = choose({"train.py": text}).loops
    names = set(loops["train.py"].values())
    assert all(name.isidentifier() and not keyword.iskeyword(name) and name != "n" for name in names)
    recorded: dict[str, Any] = {"__name__": "recorded"}
    recorded["print"] = plain["print"]
    with tempfile.TemporaryDirectory() as store:
        with florlog.run("nest", store=store, overhead=0, audit=False) as run, read_as(reading(loops)):
            runtime = Runtime(run)
            runtime.install()
            try:
                exec(Instrumenter().code(text, "train.py"), recorded)
            finally:
                runtime.uninstall()
        with florlog.open(store) as log:
            values = [(value.path, value.value) for value in log.run().logged() if value.name == "n"]
            tree = {loop.name for loop in log.run().tree().loops()}
    assert recorded["done"] == plain["done"]
    depth = sum(layer in LOOPS or layer == "generator" for layer in found)
    assert len(values) == sum(isinstance(item, int) for item in plain["done"])
    assert {len(path) for path, _ in values} == {depth}, text
    assert len({path for path, _ in values}) == len(values)
    for path, _ in values:
        assert len({name for name, _ in path}) == depth
        Condition(" and ".join(f"{name} == {index}" for name, index in path), tree)(dict(path))


def named(text: str) -> list[str]:
    """The names of a program's loops, in the order of the text."""
    (loops,) = choose({"train.py": text}).loops.values()
    return [name for _, name in sorted(loops.items())]


@pytest.mark.parametrize(
    ("loop", "name"),
    [
        ("while step_number < total:\n    step()\n    step_number += 1", "step_number"),
        ("while self.at < self.total:\n    step()\n    self.at = self.at + 1", "at"),
        ("while True:\n    step()\n    n += 1\n    if n > 3:\n        break", "n"),
        ("while True:\n    step()\n    if lucky:\n        skipped += 1", "loop"),
        ("while True:\n    for x in xs:\n        step()\n        n += 1", "loop"),
        ("while (batch := fetch()) is not None:\n    step()", "batch"),
        ("while tokens < budget:\n    step()\n    tokens += 512", "tokens"),
        ("while tokens < budget:\n    step()\n    tokens += 512\n    print('tokens', tokens)", "loop"),
        ("while not done:\n    step()", "loop"),
        ("while error > 0.1:\n    step()", "loop"),
        ("for _ in range(num_epochs):\n    step()", "epoch"),
        ("for _ in range(config.max_tries):\n    step()", "step"),
        ("for _ in range(num_batches):\n    step()", "batch"),
        ("for _ in range(9):\n    step()", "step"),
        ("for _ in range(9):\n    step()\n    n += 1\n    print('step', n)", "iteration"),
        ("for x, y in data:\n    step()\n    print(f'step={n} iteration={m}')", "loop"),
        ("for i, (x, y) in tqdm(enumerate(data), total=3):\n    step()", "i"),
        ("for n, lr in zip(range(9), lrs):\n    step()", "n"),
        ("for self.epoch in range(9):\n    step()", "epoch"),
    ],
)  # fmt: skip
def test_a_loop_is_called_after_what_it_counts(loop: str, name: str) -> None:
    assert named(loop)[0] == name


def test_loops_of_a_nest_have_different_names() -> None:
    assert named("for _ in range(9):\n    for x, y in data:\n        step()") == ["step", "iteration"]
    assert named("for i in a:\n    for i in b:\n        step()") == ["i", "step"]
    assert named("for _ in range(9):\n    for step in b:\n        opt.step()") == ["iteration", "step"]


def test_a_while_whose_else_leaves_a_loop_around_it_is_named() -> None:
    text = "for x in xs:\n    while n < 3:\n        step()\n    else:\n        break\n"
    choice = choose({"train.py": text})
    assert choice.loops == {"train.py": {1: "x"}}
    assert choice.not_taken == ("train.py:2 is a while whose else leaves a loop around it",)


def test_no_loop_is_called_by_a_keyword() -> None:
    assert named("for _ in range(returns):\n    step()") == ["step"]
