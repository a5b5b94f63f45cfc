"""A name for a value that recorded code computes is no change, and only where the program runs as it ran."""

from __future__ import annotations

import ast
import copy
import textwrap
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from florlog.source.diff.source_diff import SourceDiff, compare

STEP = textwrap.dedent("""\
    import florlog
    from torch.nn import functional as F

    def step(self, x, y):
        loss = F.cross_entropy(self.model(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        F.clip(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.losses.append(loss.item())
        return loss.item() / len(x)
""")


def edited(*edits: tuple[str, str]) -> SourceDiff:
    new = STEP
    for before, after in edits:
        assert before in new
        new = new.replace(before, after)
    return compare(STEP, new, filename="train.py")


LOSS, RETURN = "loss = F.cross_entropy(self.model(x), y)", "return loss.item() / len(x)"
CLIP, APPEND = "F.clip(self.model.parameters(), 1.0)", "self.losses.append(loss.item())"


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (CLIP, f"norm = {CLIP}", {8: 8}),
        (LOSS, "out = self.model(x)\n    loss = F.cross_entropy(out, y)", {5: 5, 6: 5}),
        (
            RETURN,
            "mean = loss.item() / len(x)\n    florlog.log(mean=mean)\n    return mean",
            {11: 11, 13: 11},
        ),
        (RETURN, "last = loss.item()\n    n = len(x)\n    return last / n", {11: 11, 12: 11, 13: 11}),
        (APPEND, "last = loss.item()\n    self.losses.append(last)", {10: 10, 11: 10}),
        (CLIP, "p = self.model.parameters()\n    n = F.clip(p, 1.0)", {8: 8, 9: 8}),
    ],
)
def test_a_name_for_a_recorded_value_is_no_change(before: str, after: str, lines: dict[int, int]) -> None:
    found = edited((before, after))
    assert found.changed == ()
    assert [added for added in found.added if not added.log_calls] == []
    assert lines.items() <= found.line_map.items()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # Something recorded stands between the name and its use.
        ("loss = F.cross_entropy(self.model(x), y)\n    self.optimizer.zero_grad()",
         "out = self.model(x)\n    self.optimizer.zero_grad()\n    loss = F.cross_entropy(out, y)"),
        # What came first comes second.
        ("return loss.item() / len(x)", "n = len(x)\n    return loss.item() / n"),
        ("return loss.item() / len(x)", "n = len(x)\n    last = loss.item()\n    return last / n"),
        # Recorded code has the name.
        ("loss = F.cross_entropy(self.model(x), y)", "y = self.model(x)\n    loss = F.cross_entropy(y, y)"),
        # It is computed once more, or not where it was.
        ("return loss.item() / len(x)", "last = loss.item()\n    return loss.item() / len(x) + last"),
        ("self.losses.append(loss.item())", "if x:\n        last = loss.item()\n        self.losses.append(last)"),
    ],
)  # fmt: skip
def test_what_changes_the_order_or_the_number_of_computations_is_a_change(before: str, after: str) -> None:
    assert edited((before, after)).changed


def test_a_computation_that_is_new_is_an_addition_with_its_name() -> None:
    again = ("self.optimizer.step()\n", "self.optimizer.step()\n    again = self.optimizer.step()\n")
    found = edited(again, ("return loss.item() / len(x)", "return loss.item()"))
    assert [ast.unparse(added.node) for added in found.added] == ["again = self.optimizer.step()"]
    assert [change.kind for change in found.changed] == ["altered"]


def test_two_values_with_names_are_told_apart() -> None:
    named = edited(
        (
            "loss = F.cross_entropy(self.model(x), y)",
            "out = self.model(x)\n    loss = F.cross_entropy(out, y)",
        ),
        ("F.clip(self", "norm = F.clip(self"),
    ).named
    assert [(held.name, held.line) for held in named] == [("out", 5), ("norm", 9)]


# -- whatever is read as the same program runs as the same --------------------------------------------------

names = st.sampled_from(["a", "b", "c"])


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> str:
    """Code whose value and effects depend on the order in which its parts are computed."""
    inner = expressions(depth - 1)
    kinds = ["name", "attribute", "call", "call", "call"] + [
        "sum",
        "choice",
        "or",
        "list",
        "method",
        "each",
    ] * (depth > 1)
    match draw(st.sampled_from(kinds if depth else ["name", "attribute"])):
        case "name":
            return draw(names)
        case "attribute":
            return "o.n"
        case "call":
            return f"f({', '.join(draw(st.lists(inner, max_size=2)))})"
        case "sum":
            return f"({draw(inner)} + {draw(inner)})"
        case "choice":
            return f"({draw(inner)} if {draw(inner)} else {draw(inner)})"
        case "or":
            return f"({draw(inner)} or {draw(inner)})"
        case "list":
            return f"sum([{draw(inner)}, {draw(inner)}])"
        case "method":
            return f"o.f({draw(inner)})"
    return f"sum([{draw(inner)} for _ in (1, 2)])"


@st.composite
def statements(draw: st.DrawFn) -> str:
    code = draw(expressions())
    form = draw(st.sampled_from(["{}", "{}", "a = {}", "b += {}", "o.n = {}", "o.n += {}", "c = b = {}"]))
    return form.format(code)


@st.composite
def edits(draw: st.DrawFn) -> tuple[str, str]:
    """A program, and the same with parts of its expressions named before the statements that use them, or earlier."""
    old = "\n".join(draw(st.lists(statements(), min_size=1, max_size=4)))
    new = ast.parse(old)
    for number in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(new.body) - 1))
        statement = new.body[place]
        parts = [
            n
            for n in ast.walk(statement)
            if isinstance(n, ast.expr) and not isinstance(getattr(n, "ctx", None), ast.Store)
        ]
        if not parts:
            continue
        part = draw(st.sampled_from(parts))
        name = f"new{number}"
        value = copy.deepcopy(part)
        if isinstance(statement, ast.Expr) and statement.value is part:
            new.body[place] = ast.Assign([ast.Name(name, ast.Store())], value)
        else:
            new.body[place] = _Replaced(part, name).visit(statement)
            ahead = max(0, place - draw(st.sampled_from([0, 0, 0, 1])))
            new.body.insert(ahead, ast.Assign([ast.Name(name, ast.Store())], value))
    return old, ast.unparse(ast.fix_missing_locations(new))


class _Replaced(ast.NodeTransformer):
    def __init__(self, part: ast.expr, name: str) -> None:
        self._part, self._name = part, name

    def visit(self, node: ast.AST) -> Any:
        return ast.Name(self._name, ast.Load()) if node is self._part else super().visit(node)


def run(program: str) -> list[Any]:
    """What a program does, and what its variables are at the end."""
    done: list[Any] = []
    o = SimpleNamespace(n=1)

    def f(*values: int) -> int:
        done.append(values)
        o.n += len(done)
        return (3 * len(done) + sum(values) + int(o.n)) % 5

    o.f = f
    variables: dict[str, Any] = {"o": o, "f": f, "a": 0, "b": 1, "c": 2}
    exec(program, variables)
    return [done, o.n, *(variables[name] for name in "abc")]


@given(edits())
@example(("b += f()", "new0 = f()\nb += new0"))
@example(("o.n += f()", "new0 = f()\no.n += new0"))
@example(("a = (f() if a else b)", "new0 = f()\na = (new0 if a else b)"))
@example(("a = a", "new1 = new0\nnew0 = a\na = new1"))
@example(("f(o.n, f())", "new0 = f()\nf(o.n, new0)"))
def test_an_edit_that_is_no_change_runs_as_the_recorded_program(edit: tuple[str, str]) -> None:
    old, new = edit
    found = compare(old, new, filename="program.py")
    if not found.changed and not found.added:
        assert run(new) == run(old)
