"""An excerpt shows some functions of a module, under their lines, and nothing passes for one that is not."""

from __future__ import annotations

import ast

import pytest

from florlog.source.edit.excerpt import calls_that_tell, excerpt, is_excerpt_of
from florlog.source.edit.loop_choice import choose
from florlog.source.edit.rewrite import reading
from florlog.source.names.excerpts import Origin, clock_keys, excerpt_of, is_excerpt, loops_of_excerpt, told

MODULE = """\
\"\"\"A framework.\"\"\"
import math, time
from os import path as where
from .inner import helper

LIMIT = 3


class Trainer(Base):
    rate = 1

    def other(self):
        return LIMIT

    @helper
    def fit(self, data):
        started = time.time()
        for epoch in range(LIMIT):
            if self.stop():
                break
            while data:

                print("left", data.pop(), math.pi)
        return where, started


def end():
    return 1
"""
ORIGIN = Origin("framework.trainer", "1.2", "ab" * 16)
FUNCTIONS = {"Trainer.fit": ("epoch", "step"), "end": ()}


def made() -> str:
    """The excerpt of the module."""
    return excerpt(MODULE, ORIGIN, FUNCTIONS, ("_seconds",))


def test_lines_stay_and_the_rest_is_empty() -> None:
    lines, shown = MODULE.split("\n"), made().split("\n")
    assert len(shown) == len(lines)
    assert shown[8] == "class Trainer(florlog_unseen.Rest):"
    assert shown[9:15] == ["", "", "", "", "", "    @helper"]
    assert shown[17] == "        for epoch in range(LIMIT):  # florlog: loop epoch"
    assert shown[16] == lines[16]
    assert shown[0].startswith(
        "import florlog_unseen; florlog_unseen.clock_keys = ('_seconds',); import math; "
    )
    assert "from framework.trainer import LIMIT, helper  # florlog" in shown[0]


def test_it_says_what_it_is() -> None:
    tree = ast.parse(made())
    assert excerpt_of(made()) == ORIGIN
    assert is_excerpt(tree)
    assert clock_keys(tree) == ("_seconds",)
    assert loops_of_excerpt(made()) == {18: "epoch", 21: "step"}
    assert excerpt_of(MODULE) is None
    assert not is_excerpt(ast.parse(MODULE))


def test_its_loops_are_chosen_next_to_those_of_the_program() -> None:
    program = "for i in data:\n    print(i)\n"
    choice = choose({"train.py": program, "trainer.py": made()})
    assert choice.loops == {"train.py": {1: "i"}, "trainer.py": {18: "epoch", 21: "step"}}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("        return where, started", "        return started, where"),
        ("            if self.stop():\n                break\n", "\n\n"),
        ("class Trainer(florlog_unseen.Rest):", "class Trainer(Base):"),
        ("  # florlog: loop epoch", "  # florlog: loop other; import os"),
        ("  # florlog: excerpt", "\rimport os  # florlog: excerpt"),
        ("def end():", "def end(a=1):"),
        ("    @helper\n", "\n"),
    ],
)
def test_nothing_else_passes_for_an_excerpt(old: str, new: str) -> None:
    assert is_excerpt_of(made(), MODULE)
    assert old in made()
    assert not is_excerpt_of(made().replace(old, new), MODULE)


@pytest.mark.parametrize("functions", [{"Trainer.fit": ("epoch",)}, {"Trainer.gone": ()}, {"Other.fit": ()}])
def test_a_text_without_these_functions_and_loops_is_refused(functions: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(LookupError):
        excerpt(MODULE, ORIGIN, functions)


def test_a_loop_that_has_no_name_is_shown_and_not_recorded() -> None:
    text = excerpt(MODULE, ORIGIN, {"Trainer.fit": ("", "step")})
    assert loops_of_excerpt(text) == {21: "step"}
    assert "for epoch in range(LIMIT):" in text
    assert is_excerpt_of(text, MODULE)


def test_of_what_it_tells_only_what_is_named_is_recorded() -> None:
    tells = calls_that_tell(MODULE, {"Trainer.fit": ("data.pop", "nothing")})
    assert tells == {23: "nothing"}
    with pytest.raises(LookupError):
        calls_that_tell(MODULE, {"Trainer.fit": ("data.push", "it")})
    text = excerpt(MODULE, ORIGIN, FUNCTIONS, (), {23: "math.pi"})
    assert told(ast.parse(text)) == {23: "math.pi"}
    assert is_excerpt_of(text, MODULE)
    rewritten = ast.unparse(reading({})(ast.parse(text), "trainer.py"))
    assert "said(__florlog__.begin(), print('left', data.pop(), __florlog__.see('*', math.pi)))" in rewritten
    assert "__florlog__" not in ast.unparse(reading({})(ast.parse(made()), "trainer.py"))


def test_around_a_run_that_the_script_opens_only_excerpts_are_rewritten() -> None:
    loops = {"trainer.py": {18: "epoch"}}
    how = reading(loops, excerpts_alone=True)
    assert "__florlog__.loop('epoch'" in ast.unparse(how(ast.parse(made()), "trainer.py"))
    script = "for i in data:\n    print(i)"
    assert ast.unparse(how(ast.parse(script), "train.py")) == script
