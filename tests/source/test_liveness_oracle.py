"""beniget's def-use chains against the names that a loop carries (`florlog.source.carry`).

A definition must be carried by a loop if control can only get from it to one of its uses through the loop's head:

* both are in the loop, and the use comes first: the next iteration reads it;
* the definition is in the loop, the use after it;
* the definition is in an outer loop, before this one, and the use is in this one or after it: the image taken at the
  inner loop's head must hold it.

Carried names may be more than these, never fewer.  Not required, because florlog restores them otherwise: names that
only an import or a definition binds.  Where beniget and florlog differ although florlog is right:

* beniget lets a definition in a loop with ``break`` and ``else`` reach what follows both.  At the head such a name need
  not be live, as ``else`` may bind it again; so these loops are left out.
* beniget lets a definition in a loop reach what follows the loop even if the next statement binds the name again.
* beniget lets a definition reach what follows a ``try`` in which all ways bind the name again or leave.  Names that are
  bound in a ``try`` are left out.
* beniget lets a definition reach uses after a ``del`` of the name.  Names that are deleted are left out.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import beniget  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, assume, example, given, settings

from florlog.source.carry.carried import carried_names
from florlog.source.names.scopes import Scopes
from tests.source.random_modules import BLOCKS, LEAVES, indented
from tests.source.test_scopes_oracle import SCRIPTS, source_of

LIBRARY = ["bisect", "csv", "difflib", "fractions", "heapq", "random", "textwrap", "tokenize"]
LOOPS = (ast.For, ast.AsyncFor, ast.While)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Frame = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef


class Chains(beniget.DefUseChains):  # type: ignore[misc]
    """Def-use chains of a module, without warnings about names that are bound nowhere."""

    def unbound_identifier(self, name: str, node: ast.AST) -> None: ...


@dataclass(frozen=True)
class Pair:
    """A definition of a name and a use of it that it may reach."""

    name: str
    definition: ast.AST
    use: ast.AST


class Program:
    """A module with its def-use chains."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = ast.parse(text)
        chains = Chains()
        chains.visit(self.tree)
        self._locals = chains.locals
        self._parents = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}
        self._order = {node: index for index, node in enumerate(_in_text_order(self.tree))}
        self._left_out = {
            node.id
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Del)
        }
        for statement in ast.walk(self.tree):
            if isinstance(statement, (ast.Try, ast.TryStar)):
                self._left_out |= names_bound(statement)

    def frames(self) -> Iterator[Frame]:
        """The module and its functions."""
        yield self.tree
        yield from (node for node in ast.walk(self.tree) if isinstance(node, FUNCTIONS))

    def pairs(self, frame: Frame) -> Iterator[Pair]:
        """Definitions of a frame's names by assignment, with their uses in the frame."""
        declared = {
            name for n in ast.walk(frame) if isinstance(n, (ast.Global, ast.Nonlocal)) for name in n.names
        }
        for chain in self._locals[frame]:
            if not isinstance(chain.node, ast.Name) or chain.name() in declared | self._left_out:
                continue
            for user in chain.users():
                use = user.node
                if use not in self._parents or chain.node not in self._parents:
                    continue  # beniget parses annotations that are strings
                pair = Pair(chain.name(), chain.node, use)
                if (
                    isinstance(use, ast.Name)
                    and self.frame(chain.node) is frame
                    and not self._is_bound_again(pair)
                ):
                    yield pair

    def _is_bound_again(self, pair: Pair) -> bool:
        """Whether a statement after a loop with the definition certainly binds the name again before the use."""
        inner = pair.definition
        while inner is not self.tree:
            outer = self._parents[inner]
            if isinstance(outer, LOOPS) and inner not in outer.orelse:
                certain = any(certainly_binds(statement, pair.name) for statement in outer.orelse)
                if certain and not _has_break_and_else(outer) and not self._is_inside(pair.use, outer):
                    return True
            for name in ("body", "orelse"):
                block = getattr(outer, name, [])
                if isinstance(block, list) and inner in block:
                    for statement in block[block.index(inner) + 1 :]:
                        before_use = (
                            not self._order[pair.definition] < self._order[pair.use] < self._order[statement]
                        )
                        if before_use and certainly_binds(statement, pair.name):
                            return not jumps_out(inner)
            inner = outer
        return False

    def frame(self, node: ast.AST) -> Frame:
        """The frame that a node stands in; a class or a lambda counts as part of it."""
        while not isinstance(node, (ast.Module, *FUNCTIONS)):
            node = self._parents[node]
        return node

    def around(self, node: ast.AST, frame: Frame) -> list[ast.AST]:
        """The nodes of a frame around a node, innermost first, itself included."""
        found = []
        while node is not frame:
            found.append(node)
            node = self._parents[node]
        return found

    def loops_that_must_carry(self, pair: Pair, frame: Frame) -> Iterator[ast.For | ast.AsyncFor | ast.While]:
        """The loops through whose head control gets from the definition to the use."""
        defined_in = [
            n for n in self.around(pair.definition, frame) if self._is_loop_around(n, pair.definition)
        ]
        if self.frame(pair.use) is not frame:  # in a nested function, which may run at any time
            yield from defined_in  # type: ignore[misc]
            return
        used_in = [n for n in self.around(pair.use, frame) if self._is_loop_around(n, pair.use)]
        backwards = self._order[pair.use] < self._order[pair.definition]
        common = [loop for loop in defined_in if loop in used_in]
        if not common and self._are_in_different_cases(pair, frame):
            return  # beniget lets one case of a match follow the other
        if backwards:
            if common and isinstance(common[0], LOOPS) and not self._is_bound_by_else(pair, common[0]):
                yield common[0]
            return
        for loop in defined_in:
            if loop not in common and not _has_break_and_else(loop):
                yield loop  # type: ignore[misc]
        yield from self._inner_loops(pair, frame, common)

    def _is_bound_by_else(self, pair: Pair, around: ast.For | ast.AsyncFor | ast.While) -> bool:
        """Whether the ``else`` of a loop certainly binds the name in each pass of the one around, before the use.

        beniget does not see that it is executed always.
        """
        before = [s for s in around.body if not self._is_inside(pair.use, s)]
        return any(
            isinstance(statement, LOOPS)
            and self._order[statement] < self._order[pair.use]
            and certainly_binds(statement, pair.name)
            for statement in before
        )

    def _are_in_different_cases(self, pair: Pair, frame: Frame) -> bool:
        """Whether definition and use are in two cases of one ``match``, of which one alone is executed."""

        def cases(node: ast.AST) -> dict[ast.AST, ast.AST]:
            around = self.around(node, frame)
            return {self._parents[case]: case for case in around if isinstance(case, ast.match_case)}

        defined, used = cases(pair.definition), cases(pair.use)
        return any(used.get(match, case) is not case for match, case in defined.items())

    def _inner_loops(
        self, pair: Pair, frame: Frame, common: list[ast.AST]
    ) -> Iterator[ast.For | ast.AsyncFor | ast.While]:
        if not common:
            return
        block = self._parents[self._statement(pair.definition)]  # what contains the defining statement
        for loop in ast.walk(common[0]):
            if not isinstance(loop, LOOPS) or self.frame(loop) is not frame or loop in common:
                continue
            later = self._order[pair.definition] < self._order[loop] < self._order[pair.use]
            if (
                later
                and self._parents[loop] is block
                and not isinstance(block, (ast.If, ast.Try, ast.match_case))
            ):
                header = self._in_header(pair.use, loop)
                if not header and not _has_break_and_else(loop):
                    yield loop

    def _is_inside(self, node: ast.AST, outer: ast.AST) -> bool:
        while node is not self.tree:
            if node is outer:
                return True
            node = self._parents[node]
        return False

    def _in_header(self, node: ast.AST, loop: ast.AST) -> bool:
        headers = [loop.iter] if isinstance(loop, (ast.For, ast.AsyncFor)) else []
        return any(node is inner for header in headers for inner in ast.walk(header))

    def _statement(self, node: ast.AST) -> ast.AST:
        while not isinstance(node, ast.stmt):
            node = self._parents[node]
        return node

    def _is_loop_around(self, loop: ast.AST, node: ast.AST) -> bool:
        """Whether a node is in what a loop repeats: its body, its target, or the test of ``while``."""
        if not isinstance(loop, LOOPS):
            return False
        while self._parents[node] is not loop:
            node = self._parents[node]
        return node in loop.body or (node is (loop.test if isinstance(loop, ast.While) else loop.target))


def names_bound(node: ast.AST) -> set[str]:
    """The variables that a node assigns."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def jumps_out(node: ast.AST) -> bool:
    """Whether a ``break`` or ``continue`` in a node belongs to a loop around it."""
    if isinstance(node, (ast.Break, ast.Continue)):
        return True
    inside = node.orelse if isinstance(node, LOOPS) else ast.iter_child_nodes(node)
    return any(map(jumps_out, inside))


def certainly_binds(statement: ast.AST, name: str) -> bool:
    """Whether all ways through a statement assign a variable."""
    if isinstance(statement, (ast.Assign, ast.AnnAssign)):
        return name in names_bound(statement)
    if isinstance(statement, ast.If):
        return all(
            any(certainly_binds(s, name) for s in block) for block in (statement.body, statement.orelse)
        )
    if isinstance(statement, LOOPS) and not _has_break_and_else(statement):
        return any(certainly_binds(s, name) for s in statement.orelse)
    return False


def _in_text_order(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes in the order in which they are evaluated, as far as that is fixed."""
    if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.NamedExpr)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if node.value is not None:
            yield from _in_text_order(node.value)
        for target in targets:
            yield from _in_text_order(target)
        if isinstance(node, ast.AnnAssign):
            yield from _in_text_order(node.annotation)
        yield node
        return
    yield node
    fields = (
        ["iter", "target", "body", "orelse"] if isinstance(node, (ast.For, ast.AsyncFor)) else node._fields
    )
    for name in fields:
        value = getattr(node, name, None)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _in_text_order(child)


def _has_break_and_else(loop: ast.AST) -> bool:
    return bool(getattr(loop, "orelse", [])) and any(isinstance(node, ast.Break) for node in ast.walk(loop))


def assert_everything_that_beniget_carries_is_carried(text: str) -> int:
    """Returns the number of pairs of a definition and a loop that were compared."""
    program = Program(text)
    compared = 0
    qualnames = {
        (node.lineno, node.col_offset): scope.qualname  # type: ignore[attr-defined]
        for node, scope in Scopes(program.tree).inner.items()
    }
    for frame in program.frames():
        qualname, first = "<module>", 1
        if not isinstance(frame, ast.Module):
            qualname = qualnames[frame.lineno, frame.col_offset]
            first = min([frame.lineno, *(decorator.lineno for decorator in frame.decorator_list)])
        for pair in program.pairs(frame):
            for loop in program.loops_that_must_carry(pair, frame):
                compared += 1
                carried = carried_names(text, qualname, first, loop.lineno)
                assert pair.name in carried, (
                    f"`{pair.name}` is bound in line {getattr(pair.definition, 'lineno', 0)} and read in line "
                    f"{getattr(pair.use, 'lineno', 0)}, but the loop in line {loop.lineno} of {qualname} does not "
                    f"carry it:\n{text[:3000]}"
                )
    return compared


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.name)
def test_loops_of_scripts_carry_what_beniget_says_is_used_later(file: Path) -> None:
    assert_everything_that_beniget_carries_is_carried(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", LIBRARY)
def test_loops_of_the_standard_library_carry_what_beniget_says_is_used_later(module: str) -> None:
    assert assert_everything_that_beniget_carries_is_carried(source_of(module)) > 0


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(LEAVES, BLOCKS, BLOCKS, BLOCKS, BLOCKS)
@example(
    ["a = 0"],
    ["a = 0"],
    ["a = 0"],
    ["a = 0"],
    [
        "match a:",
        "    case 0:",
        "        for c in items(a):",
        "            pass",
        "    case a:",
        "        a = c",
    ],
)
@example(
    ["a = 0"],
    ["a = 0", "while tick():", "    a = 0", "else:", "    a, d = a, 0"],
    ["a = d"],
    ["d = 0"],
    ["a = 0"],
)
def test_loops_of_random_programs_carry_what_beniget_says_is_used_later(
    head: list[str], before: list[str], body: list[str], behind: list[str], after: list[str]
) -> None:
    inner = [*before, "for y in items(b):", *indented(body), *behind]
    text = "\n".join(
        ["def program(a, b, c, d):", *indented([*head, "for x in items(a):", *indented(inner), *after])]
    )
    try:
        compile(text, "program.py", "exec")
    except SyntaxError:
        assume(False)
    assert_everything_that_beniget_carries_is_carried(text)
