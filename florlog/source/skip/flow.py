"""One pass over one function: how marks flow through its statements and expressions into the tables of a program."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import TYPE_CHECKING

from florlog.source.names.syntax import blocks
from florlog.source.skip.expressions import Expressions
from florlog.source.skip.marks import NONE, Marks

if TYPE_CHECKING:
    pass


class Flow(Expressions):
    """Reads one function by the tables, and adds to them."""

    def run(self) -> None:
        """Go through the function once."""
        block = self._function.block
        if isinstance(self._function.node, (ast.Lambda, ast.GeneratorExp)):
            self._noise.add(self._function, self.value(block[0]))
            return
        self._block(block, NONE)

    # -- statements --------------------------------------------------------------------------------

    def _block(self, block: Iterable[ast.AST], control: Marks) -> Marks:
        """Go through a block; under which marks it may be left early."""
        left = NONE
        for statement in block:
            self.stand_at(statement)
            self._noise.decided(statement, control | left)
            left |= self._visit(statement, control | left)
        return left

    def _visit(self, node: ast.AST, control: Marks) -> Marks:
        """Go through a statement; under which marks it may leave its block."""
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                return NONE
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._assign(target, value, control)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, value, control)
            case ast.AugAssign(target=target, value=value):
                marks = self.value(value) | self.value(target) | control
                self._bind(target, marks)
                self._change(target, marks)
            case ast.For() | ast.AsyncFor():
                return self._for(node, control)
            case ast.While(test=test, body=body, orelse=orelse):
                control |= self.value(test)
                left = self._block(body, control)
                self._block(body, control | left)
                self._block(orelse, control)
            case ast.If(test=test, body=body, orelse=orelse):
                control |= self.value(test).without_order()
                return self._block(body, control) | self._block(orelse, control)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    marks = self.value(item.context_expr)
                    if item.optional_vars is not None:
                        self._bind(item.optional_vars, marks | control)
                return self._block(node.body, control)
            case ast.Return(value=value):
                self._noise.add(self._function, (NONE if value is None else self.value(value)) | control)
                return control
            case ast.Break() | ast.Continue() | ast.Raise():
                self._parts(node)
                return control
            case ast.Match(subject=subject, cases=cases):
                control |= self.value(subject)
                for case in cases:
                    for name in (
                        n.name for n in ast.walk(case.pattern) if isinstance(n, (ast.MatchAs, ast.MatchStar))
                    ):
                        if name:
                            self._bind_name(name, case.pattern, control)
                return self._blocks(node, control)
            case ast.Expr(value=ast.Call(func=ast.Name() as called, args=args, keywords=keywords) as call):
                self.value(call)
                if "other" in self._noise.origins(
                    called, self._scopes
                ):  # an object that keeps what it is given
                    self._change(called, self._values([*args, *(k.value for k in keywords)]))
            case ast.expr():
                self.value(node)
            case _:
                self._parts(node)
                return self._blocks(node, control)
        return NONE

    def _blocks(self, node: ast.AST, control: Marks) -> Marks:
        left = NONE
        for _, block in blocks(node):
            for inner in block:
                if isinstance(inner, (ast.ExceptHandler, ast.match_case)):
                    left |= self._blocks(inner, control)
            left |= self._block([n for n in block if isinstance(n, ast.stmt)], control)
        return left

    def _parts(self, node: ast.AST) -> None:
        for part in ast.iter_child_nodes(node):
            if isinstance(part, ast.expr):
                self.value(part)

    def _for(self, node: ast.For | ast.AsyncFor, control: Marks) -> Marks:
        iterated = self.value(node.iter)
        if self._noise.is_florlog_loop(node):
            self._bind(node.target, Marks(item=True))
            self._block(node.body, control)
            self._block(node.orelse, control)
            return NONE
        iterated = iterated.ordered("a loop over a set", self._function.file, node.lineno).iterated()
        self._bind(node.target, iterated | control)
        left = self._block(node.body, control | iterated)
        self._block(node.body, control | iterated | left)
        self._block(node.orelse, control)
        return NONE

    def _assign(self, target: ast.expr, value: ast.expr, control: Marks) -> None:
        pairs = isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List))
        if pairs and len(target.elts) == len(value.elts):  # type: ignore[attr-defined]
            for inner, part in zip(target.elts, value.elts, strict=True):  # type: ignore[attr-defined]
                self._assign(inner, part, control)
            return
        self._bind(target, self.value(value) | control)
        key = self._key(target)
        if key is not None and isinstance(value, (ast.Name, ast.Attribute)):  # two names for one object
            self._change(value, self._noise.changed(key))
