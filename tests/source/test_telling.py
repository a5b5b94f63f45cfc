"""Which calls tell values and under which names, whatever the object is called and wherever the call stands."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from florlog.source.diff.source_diff import compare
from florlog.source.edit.rewrite import statements
from florlog.source.names.calls import log_calls
from florlog.source.names.syntax import parse, read_as
from florlog.source.names.telling import is_tracker, only_tells

MADE = {
    "wandb": ["import wandb", "import wandb as w\nwandb = w", "from wandb import sdk\nimport wandb"],
    "run": ["import wandb\nrun = wandb.init(project='p')", "import trackio\nrun = trackio.init()", "run = make()"],
    "mine": [
        "import wandb\nmine = wandb.init()",
        "from wandb import init\nmine = init(name='n')",
        "import aim\nmine = aim.Run()",
        "import wandb\nmine = None\nif rank == 0:\n    mine = wandb.init()",
    ],
    "self.tracker": ["import mlflow", "tracker = None"],
    "w": ["from torch.utils.tensorboard import SummaryWriter\nw = SummaryWriter()", "w = given"],
}  # fmt: skip
"""What an object is called -> how it may have been made."""
FORMS = {
    'X.log({"a/b": A, "c": B}, step=step)': ("a/b", "c"),
    'X.log(data={"a": A})': ("a",),
    'X.log({f"lr/{i}": A, "c": B})': ("*", "c"),
    'X.log({"a": A, **more})': ("a", "*"),
    'X.log("a", A)': ("a",),
    'X.log(f"a/{i}", A)': ("*",),
    'X.add_scalar("a", A, step)': ("a",),
    'X.add_scalar(tag="a", scalar_value=A, global_step=step)': ("a",),
    "X.add_scalar(names[0], A)": ("*",),
    'X.add_scalars("g", {"a": A, "b": B}, step)': ("g/a", "g/b"),
    'X.log_metric("a", A, step=step)': ("a",),
    'X.log_metric(key="a", value=A)': ("a",),
    'X.log_metrics({"a": A, "b": 3})': ("a", "b"),
    "X.log_metrics(more, step=step)": ("*",),
    'X.log_dict({"a": A}, prog_bar=True)': ("a",),
    'X.track(A, name="a", step=step)': ("a",),
    'X.print("a:", A, f"b={B}")': ("a", "b"),
}
"""Calls -> the names of what they tell."""
KNOWN_ONLY = {"X.log(more)": ("*",), 'X["a"].append(A)': ("A",)}
"""Calls that tell only if the object is known to be a tracker's."""
PLACES = [
    "STATEMENT",
    "for i in range(3):\n    STATEMENT",
    "def f(i, names, more):\n    if i:\n        STATEMENT",
    "class T:\n    def g(self):\n        with torch.no_grad():\n            STATEMENT",
    "try:\n    STATEMENT\nfinally:\n    pass",
    "call = lambda: STATEMENT",
]
VALUES = ["loss", "loss.item()", "sum(losses) / 3", "model(x).norm()", "total"]


def told(text: str) -> list[tuple[str, ...]]:
    """The names that the telling calls of a module tell, each call's together."""
    with read_as(statements):
        return [call.names for call in log_calls(parse(text, "t.py"))]


@st.composite
def modules(
    draw: st.DrawFn, forms: dict[str, tuple[str, ...]], names: list[str]
) -> tuple[str, str, tuple[str, ...]]:
    """A module without a telling call, the same with it, and the names that it tells."""
    name = draw(st.sampled_from(names))
    form = draw(st.sampled_from(list(forms)))
    values = {letter: draw(st.sampled_from(VALUES)) for letter in "AB"}
    call = form.replace("X", name)
    expected = forms[form]
    for letter, value in values.items():
        call = call.replace(f"({letter}", f"({value}").replace(f" {letter}", f" {value}")
        call = call.replace(f"={letter}", f"={value}").replace(f"{{{letter}", f"{{{value}")
    expected = tuple(values["A"] if told == "A" else told for told in expected)
    head = draw(st.sampled_from(MADE[name]))
    place = draw(st.sampled_from(PLACES))
    return (
        f"{head}\n{place.replace('STATEMENT', 'pass' if 'lambda' not in place else '0')}\n",
        (f"{head}\n{place.replace('STATEMENT', call)}\n"),
        expected,
    )


@given(modules(FORMS, list(MADE)))
def test_a_call_of_a_telling_form_tells_its_values_under_their_names(
    case: tuple[str, str, tuple[str, ...]],
) -> None:
    before, after, names = case
    assert told(before) == []
    (found,) = told(after)
    assert len(found) == len(names)
    for name, expected in zip(found, names, strict=True):
        assert name == expected or expected in ("a", "b"), (name, expected)
        assert expected == "*" or name != "*"


@given(modules(FORMS, ["mine", "w"]))
def test_an_added_call_is_an_added_log_statement_and_no_change(
    case: tuple[str, str, tuple[str, ...]],
) -> None:
    before, after, _ = case
    if "lambda" in before:
        return
    with read_as(statements):
        diff = compare(before, after, filename="t.py")
    assert not diff.changed
    assert [len(added.log_calls) for added in diff.added] == [1]


@given(st.sampled_from(sorted(KNOWN_ONLY)), st.sampled_from(MADE["mine"]), st.sampled_from(PLACES))
def test_where_the_form_may_be_anybodys_the_object_decides(form: str, made: str, place: str) -> None:
    call = form.replace("X", "mine").replace("A", "loss")
    assert len(told(f"{made}\n{place.replace('STATEMENT', call)}")) == 1
    assert told(f"mine = Mine()\n{place.replace('STATEMENT', call)}") == []
    assert told(f"import os\nmine = os.thing()\n{place.replace('STATEMENT', call)}") == []


@pytest.mark.parametrize(
    "text",
    [
        "import math\ny = math.log(x)",
        "import torch\ny = torch.log(probs)",
        "y = probs.log()",
        "self.log(x)",
        "policy.log(state, action)",
        "history['loss'].append(loss)",
        "opt.add_param_group({'params': p})",
        "cv.track(frame)",
        "run.track(model=model)",
        "writer.add_scalar()",
        "writer.add_scalar(*both)",
        "from math import log\nlog({'a': 1})",
        "log_metric('a', 1)",
        "logits.info('a', x)",
        "console.clear('a', x)",
    ],
)
def test_a_false_friend_tells_nothing(text: str) -> None:
    assert told(text) == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("from mlflow import log_metric as note\nnote('a', x)", ("a",)),
        ("from wandb import log\nlog({'a': x})", ("a",)),
        ("from wandb import log\nlog(found)", ("*",)),
        ("from rich import print as show\nshow('loss', x)", ("loss",)),
        ("from loguru import logger as L\nL.info('loss {} of {n}', x, n=n)", ("loss", "n")),
        ("from loguru import logger\nlogger.success(f'loss {x}')", ("x",)),
        (
            "import structlog\nout = structlog.get_logger()\nout.info('done', loss=x, step=n)",
            ("loss", "step"),
        ),
        ("import structlog\nstructlog.get_logger().warning('done', loss=x)", ("loss",)),
        ("import logging\nlogging.getLogger('a').info('loss %s', x)", ("loss",)),
        ("from rich.console import Console\nout = Console()\nout.log('loss', x)", ("loss",)),
        ("console.print(f'loss={x:.3f}', style='bold')", ("loss",)),
        ("bar.set_postfix({'loss': x}, n=n)", ("loss", "n")),
        ("bar.set_postfix(loss=x)", ("loss",)),
    ],
)
def test_loggers_consoles_and_functions_are_known_by_what_was_imported(
    text: str, names: tuple[str, ...]
) -> None:
    assert told(text) == [names]


def test_values_added_to_a_call_that_is_there_are_an_added_statement() -> None:
    old = "import wandb\nfor i in x:\n    wandb.log({'loss': loss})\n"
    with read_as(statements):
        diff = compare(old, old.replace("loss})", "loss, 'norm': model.norm()})"), filename="t.py")
        other = compare(old, old.replace("loss})", "loss * 2})"), filename="t.py")
    assert not diff.changed
    assert [call.names for added in diff.added for call in added.log_calls] == [("norm",)]
    assert other.changed


def test_what_is_rewritten_evaluates_the_same_in_the_same_order() -> None:
    text = "run.log({f'a{note(1)}': note(2), **note({'b': 3}), 'c': note(4)}, step=note(5))"

    def trace(tree: ast.Module) -> tuple[list[object], list[object]]:
        class Run:
            def log(self, *args: object, **options: object) -> None:
                given.append((args, options))

        class Runtime:  # what the compiled module calls; recording is tested with the real one
            def __getattr__(self, name: str) -> object:
                return lambda *args: args[-1] if args else 0

        order: list[object] = []
        given: list[object] = []
        names = {"run": Run(), "note": lambda value: order.append(value) or value, "__florlog__": Runtime()}
        exec(compile(ast.fix_missing_locations(tree), "t.py", "exec"), names)
        return order, given

    assert trace(statements(ast.parse(text), "t.py")) == trace(ast.parse(text))


@pytest.mark.parametrize(
    ("names", "added", "left_out"),
    [
        (["wandb.sdk.wandb_run"], False, True),
        (["mlflow.tracking.fluent"], False, True),
        (["__main__", "torch.utils.tensorboard.writer"], False, False),
        (["torch.utils.tensorboard.writer"], True, True),
        (["lightning.pytorch.core.module"], False, False),
        (["lightning.pytorch.core.module"], True, True),
        (["lightning.fabric.fabric"], False, True),
        (["lightning.pytorch.core.module", "__main__", "lightning.fabric.utilities"], False, False),
        (["wandbox"], True, False),
        (["trainer"], True, False),
    ],
)
def test_only_what_does_nothing_for_the_training_is_left_out_of_a_replay(
    names: list[str], added: bool, left_out: bool
) -> None:
    assert is_tracker(names, added=added) is left_out


def test_a_library_that_computes_does_not_only_tell() -> None:
    assert only_tells("wandb.log")
    assert only_tells("structlog.get_logger")
    assert not only_tells("torch.log")
