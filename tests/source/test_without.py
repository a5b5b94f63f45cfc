"""A text without some of its statements: what is left is read as before, at the same places."""

from __future__ import annotations

import ast
import random

import pytest

from florlog.source.edit.without import without_statements

TEXTS = [
    "print(1)\n",
    "x = 1; print(x); y = 2\n",
    "if x: print(x)\nelse:\n    print(\n        x,\n    )\n    y = 3\n",
    "for é in 'äö': print('ü', é); z = 'ß'\n",
    "def f():\r\n    print(1)\r\n    return 2\r\n",
    'print(f"""a\n  {x}\n""", "ü"); print(2)\n',
    "try:\n    (print)(1)\nfinally:\n    (  # why\n      print(2)\n    )\n",
    "class A:\n    'said'\n    print(3)\n",
]


def places_of(text: str) -> list[tuple[int, int]]:
    """Where the expression statements of a text begin."""
    return [
        (node.lineno, node.col_offset) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr)
    ]


class Emptied(ast.NodeTransformer):
    """The model: the same tree with an empty tuple for a statement."""

    def __init__(self, places: set[tuple[int, int]]) -> None:
        self.places = places

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        if (node.lineno, node.col_offset) in self.places:
            node.value = ast.Tuple([], ast.Load())
        return node


def shape(tree: ast.AST) -> list[tuple[str, object, object]]:
    """The nodes of a tree with their places; of an empty tuple only that it is one."""
    return [
        (ast.dump(node), getattr(node, "lineno", None), getattr(node, "col_offset", None))
        if not isinstance(node, ast.Expr | ast.Tuple)
        else (type(node).__name__, None, None)
        for node in ast.walk(tree)
    ]


@pytest.mark.parametrize("text", TEXTS)
def test_all_other_code_keeps_its_place(text: str) -> None:
    places = places_of(text)
    for number in range(2 ** len(places)):
        some = {place for at, place in enumerate(places) if number >> at & 1}
        left = without_statements(text, some)
        assert len(left.encode()) == len(text.encode())
        assert shape(ast.parse(left)) == shape(Emptied(some).visit(ast.parse(text)))


@pytest.mark.parametrize("statement", ["print(y := 1)", "(yield)", "await f()", "(yield from g())"])
def test_a_statement_that_does_more_stays(statement: str) -> None:
    text = f"async def h():\n    {statement}\n" if "await" in statement else f"def h():\n    {statement}\n"
    assert without_statements(text, {(2, 4), (2, 5)}) == text


def test_a_large_text() -> None:
    with open(random.__file__, encoding="utf-8") as file:  # noqa: PTH123
        text = file.read()
    some = set(random.Random(1).sample(places_of(text), 40))
    assert shape(ast.parse(without_statements(text, some))) == shape(Emptied(some).visit(ast.parse(text)))
