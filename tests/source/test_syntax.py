"""Walking over code: what `ast.walk` finds, in its order, but for operators and contexts."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from florlog.source.names.syntax import children, walk

NO_CODE = (ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop, ast.type_ignore)
STATEMENTS = """
match point:
    case Point(x=0, y=[a, *rest]) | {"k": (1 | 2) as b, **more} if -a < b <= 3 and not more:
        x: int = f"{a!r:>{b}}"
    case None: pass
async def f(a, /, b: int = 1, *c, d=2, **e) -> str:
    async with a as (g, h), b: yield {**e, 1: [i async for i in c if i]}
    try: x += lambda q: q @ 2
    except* (A, B) as error: raise error from None
    finally: del a.b[1:2, ...]
class C(Base, metaclass=M):
    from . import name as other
    global z; (y := 1)
"""
SCRIPTS = Path(__file__).parents[1] / "corpus" / "scripts"


@pytest.mark.parametrize("text", [STATEMENTS, *(p.read_text() for p in sorted(SCRIPTS.rglob("*.py")))])
def test_walking_finds_all_code_in_the_usual_order(text: str) -> None:
    tree = ast.parse(text)
    everything = [node for node in ast.walk(tree) if not isinstance(node, NO_CODE)]
    assert walk(tree) == everything
    for node in everything:
        below = [child for child in ast.iter_child_nodes(node) if not isinstance(child, NO_CODE)]
        assert children(node) == below
        assert [node, *walk(*below)] == walk(node)
