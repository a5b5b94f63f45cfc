"""Conditions: what is true, what is unknown, and that a million rows say what one row says."""

from __future__ import annotations

import numpy as np
import pytest
from florlog_recovery import Condition, WhereError
from hypothesis import given, settings
from hypothesis import strategies as st

LOOPS, LOGGED = ("epoch", "step"), ("loss", "name")


def holds(text: str, **values: object) -> bool:
    return Condition(text, LOOPS, LOGGED)(values)


def test_slices_ranges_values_and_sets_select() -> None:
    assert holds("epoch in (3, 7) and step % 50 == 0 and loss > 2", epoch=7, step=100, loss=2.5)
    assert not holds("epoch in (3, 7) and step % 50 == 0 and loss > 2", epoch=7, step=100, loss=1.5)
    for text in ("step in [10:20]", "step in range(10, 20)", "step in [10:]", "10 <= step < 20"):
        assert [index for index in range(30) if holds(text, step=index)][:1] == [10], text
    assert [index for index in range(30) if holds("step in [:20:5]", step=index)] == [0, 5, 10, 15]
    assert [index for index in range(9) if holds("step not in [2:8]", step=index)] == [0, 1, 8]
    assert holds("not isfinite(loss)", loss=float("nan"))
    assert holds("name in ('a', 'b') and 'a' in 'cat'", name="a")


def test_what_is_not_known_is_not_selected_in_either_sense() -> None:
    assert not holds("loss > 2")
    assert not holds("not loss > 2")
    assert holds("loss > 2 or epoch == 1", epoch=1)
    assert not holds("1 / step > 0", step=0)
    assert not holds("not 1 / step > 0", step=0)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "epoch.__class__",
        "(lambda: 1)()",
        "[x for x in (1, 2)]",
        "epoch ** 9",
        "step in [-5:]",
        "step in epoch",
        "step[1:2]",
        "step in [1:2",
        "range(3)",
        "isnan(epoch, 2)",
        "epoch if step else 1",
        "f'{epoch}'",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(WhereError):
        holds(text, epoch=1, step=1)


def test_a_name_that_is_no_python_word_is_quoted() -> None:
    loops, logged = ("train-step", "pass", "über"), ("train/loss", "class")
    text = "loop['train-step'] in [2:] and loop['pass'] == 1 and über == 4 and value['train/loss'] > 2"
    condition = Condition(text, loops, logged)
    assert condition({"train-step": 3, "pass": 1, "über": 4, "train/loss": 2.5})
    assert not condition({"train-step": 3, "pass": 1, "über": 4, "train/loss": 1.5})
    with pytest.raises(WhereError, match=r"write loop\['pass'\] or value\['pass'\]"):
        Condition("pass == 3", loops, logged)
    with pytest.raises(WhereError, match="no loop or logged value is called 'other'"):
        Condition("value['other'] > 1", loops, logged)


def test_a_wrong_name_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(WhereError, match=r"'los'; the run has loops: epoch, step; logged values: loss, name"):
        Condition("los > 2", LOOPS, LOGGED)


NUMBERS = st.one_of(st.none(), st.integers(-3, 3), st.floats(allow_nan=True, allow_infinity=True, width=16))
ATOMS = st.sampled_from(
    ["epoch", "step", "loss", "2", "0", "step % 2", "loss / step", "step // epoch", "-loss", "loss * step",
     "abs(loss)", "step % epoch", "step - epoch"]
)  # fmt: skip
COMPARISONS = st.one_of(
    st.builds("{} {} {}".format, ATOMS, st.sampled_from(["<", "<=", "==", "!=", ">", ">="]), ATOMS),
    st.builds("{} in {}".format, ATOMS, st.sampled_from(["(1, 2)", "[1:3]", "range(0, 4, 2)", "(loss, 3)"])),
    st.builds("{} not in {}".format, ATOMS, st.sampled_from(["(0, 2)", "[:2]", "(epoch, step)"])),
    st.builds("{} < {} <= {}".format, ATOMS, ATOMS, ATOMS),
    st.builds("isfinite({})".format, ATOMS),
)
CONDITIONS = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("not {}".format, inner),
    ),
    max_leaves=4,
)


@settings(max_examples=400, deadline=None)
@given(CONDITIONS, st.lists(NUMBERS, min_size=1, max_size=6), st.one_of(st.none(), st.integers(0, 3)))
def test_many_rows_at_once_say_what_each_says_alone(
    text: str, losses: list[int | float | None], epoch: int | None
) -> None:
    condition = Condition(text, LOOPS, LOGGED)
    size = len(losses)
    column = np.ma.MaskedArray(
        np.array([0 if loss is None else loss for loss in losses]), [loss is None for loss in losses]
    )
    together = condition.select({"epoch": epoch, "step": np.ma.arange(size), "loss": column}, size)
    alone = [
        condition(
            {"epoch": epoch, "step": index, "loss": None if loss is None else column.data[index].item()}
        )
        for index, loss in enumerate(losses)
    ]
    assert together.tolist() == alone
