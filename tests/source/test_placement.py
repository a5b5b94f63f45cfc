"""A statement goes where its neighbours went, or is refused with the reason."""

from __future__ import annotations

import ast
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from florlog.source.diff.placement import CannotPlaceError, Placed, Wanted, place
from florlog.source.diff.source_diff import compare

OLD = textwrap.dedent("""\
    import torch

    def train(run, model, loader):
        for epoch in run.loop("epoch", range(5)):
            for x in run.loop("step", loader):
                loss = model(x).sum()  # the older loss
                loss.backward()
            run.log(loss=loss)
""")
NEW = textwrap.dedent("""\
    import math
    import torch

    def clip(model):
        return 1

    def train(run, model, loader):
        best = math.inf
        for epoch in run.loop("epoch", range(9)):
            model.train()
            for x in run.loop("step", loader):
                loss = model(x).square().mean()
                loss.backward()
                # HERE
                clip(model)
            best = min(best, loss)
            run.log(loss=loss, best=best)
            # END
""")


def put(statement: str, mark: str = "# HERE", old: str = OLD, new: str = NEW) -> Placed:
    text = new.replace(mark, statement)
    line = next(i for i, part in enumerate(text.splitlines(), 1) if statement.splitlines()[0] in part)
    return place(ast.parse(old), old, ast.parse(text), [Wanted(line)], "train.py")


def test_it_stands_behind_the_counterpart_of_what_it_stood_behind() -> None:
    placed = put("run.log(grad=model.weight.grad)")
    assert placed.lines == (8,)
    lines = placed.text.splitlines()
    assert lines[7] == " " * 12 + "run.log(grad=model.weight.grad)"
    assert "\n".join(lines[:7] + lines[8:]) + "\n" == OLD  # comments too


def test_behind_a_loop_it_stays_behind_the_loop() -> None:
    placed = put("run.log(norm=model.weight.norm())", "best = min(best, loss)")
    assert placed.text.splitlines()[7] == " " * 8 + "run.log(norm=model.weight.norm())"


def test_before_what_has_a_counterpart_where_nothing_before_it_has_one() -> None:
    new = "def f(x):\n    a = 1\n    log(x=x)\n    return x\n"
    placed = put("log(x=x)", "log(x=x)", "import log\ndef f(x):\n    return x\n", new)
    assert placed.text == "import log\ndef f(x):\n    log(x=x)\n    return x\n"


@pytest.mark.parametrize(
    ("statement", "mark", "reason"),
    [
        ("run.log(best=best)", "# END", "it reads `best`, which train.py does not bind there"),
        (
            "run.log(best=1)",
            "return 1",
            "the code around it has no counterpart in train.py: `def clip(model):`",
        ),
    ],
)
def test_what_has_no_place_is_refused_with_the_reason(statement: str, mark: str, reason: str) -> None:
    with pytest.raises(CannotPlaceError) as refused:
        put(statement, mark)
    assert str(refused.value) == reason


def test_lines_with_several_statements_are_refused() -> None:
    new = "a = 1\nlog(a=a)\nb = 2\n"
    with pytest.raises(CannotPlaceError, match=r"line 2 of train\.py has more than one statement"):
        put("log(a=a)", "log(a=a)", "import log\na = 1; b = 2\n", new)
    with pytest.raises(CannotPlaceError, match=r"line 2 of train\.py has more than one statement"):
        put("log(i=i)", "log(i=i)", "import log\nfor i in x: f(i)\n", "for i in x:\n    f(i)\n    log(i=i)\n")


def test_new_keywords_of_a_log_call_become_a_call_of_their_own() -> None:
    new = NEW.replace("best=best)", "best=best, last=loss.item())")
    line = next(i for i, part in enumerate(new.splitlines(), 1) if "last=" in part)
    placed = place(ast.parse(OLD), OLD, ast.parse(new), [Wanted(line, ("last",))], "train.py")
    assert placed.text == OLD + "        run.log(last=loss.item())\n"


@given(st.lists(st.integers(0, 5), max_size=6), st.integers(0, 6))
def test_put_into_the_version_that_it_was_added_to_it_is_the_only_addition(
    body: list[int], place_at: int
) -> None:
    """The version it comes from has other statements as well; those are not taken along."""
    names = [f"s{n}{i}" for i, n in enumerate(body)]
    lines = [f"    {name} = {name[1]}" for name in names] or ["    pass"]
    old = "\n".join(["import log", "def f(a):", *lines]) + "\n"
    place_at = min(place_at, len(lines))
    added = [*lines[:place_at], "    log(a=a)", *lines[place_at:]]
    new = "\n".join(["import log", "def f(a):", *added]) + "\n"
    placed = place(ast.parse(old), old, ast.parse(new), [Wanted(place_at + 3)], "f.py")
    diff = compare(old, placed.text, filename="f.py")
    assert not diff.changed
    assert [ast.unparse(a.node) for a in diff.added] == ["log(a=a)"]
    assert placed.text == new
