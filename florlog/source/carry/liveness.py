"""The names that a loop carries: what must be in an image so that a frame can go on from it.

An image of the tracked state is not the whole state of a run: a script also keeps plain variables (a best
loss, a list of losses, a counter).  At the point where a frame stands when an image is taken, a name must
be captured if

* it may *differ* from what the straight code before made of it: it is rebound inside the outermost loop
  around the point, or the object that it names may be changed there (without a loop: anywhere up to the
  point).  Any object that takes part in a call, is iterated, or is stored into counts as changed, and with
  it every name that may share a part with it by some assignment of the function;
* and it is *live*: it may be read later.  This is the usual backward analysis, done on the tree: loops to a
  fixed point, every statement of a ``try`` may jump to its handlers, a ``with`` may swallow an exception.
  Names that a nested function uses are always live and may always change; for a module, the globals that
  its functions use.

Both err towards more names; Flor's side-effect rules (Garcia et al., PVLDB 14(4), 2020, section 3) refuse
where a loop changes what they cannot see, here a call is taken to change all that it is given.  Not seen:
parameters that name the same object without an assignment saying so, objects reached only through another
module, and the state of an iterator other than by the name that holds it.  A name bound by ``import`` or
``def`` alone is left out unless something is stored into it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

from florlog.source.graph.functions import header_lines
from florlog.source.names.libraries import PLAIN_BUILTINS
from florlog.source.names.scopes import FLORLOG_NAMES, Scope, Scopes, foreign
from florlog.source.names.syntax import (
    FUNCTIONS,
    LOOPS,
    WITHS,
    blocks,
    children,
    header_nodes,
    header_parts,
    parse,
    walk,
)

Names = frozenset[str]

NOTHING: Names = frozenset()
STORES = (ast.Store, ast.Del)
DYNAMIC = {"locals", "vars", "eval", "exec", "globals", "dir"}


def carried_names(source: str | ast.Module, qualname: str, firstlineno: int, line: int) -> Names:
    """The names to capture in the frame of a code object that stands at a line.

    ``qualname`` and ``firstlineno`` are the code object's.  Code without statements (a lambda, a
    comprehension) carries nothing; `LookupError` where the source has no such code.
    """
    frame = _frame(source, qualname, firstlineno)
    return NOTHING if frame is None else frame.carried(line)


def shared_names(source: str) -> tuple[Names, Names]:
    """The globals of a module that its functions use, and those of them that its functions bind."""
    frame = _frame(source, "<module>", 1)
    if frame is None:
        return NOTHING, NOTHING
    declared = {
        name
        for node in walk(_scopes(source).root.node)
        if isinstance(node, ast.Global)
        for name in node.names
    }
    used = frame.captured - frame.quiet
    return used, used & declared


@lru_cache(maxsize=256)
def _frame(source: str | ast.Module, qualname: str, firstlineno: int) -> _FrameNames | None:
    if qualname.endswith(">") and qualname != "<module>":
        return None
    scopes = _scopes(source)
    if qualname == "<module>":
        return _FrameNames(scopes, scopes.root)
    for node, scope in scopes.inner.items():
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and scope.qualname == qualname:
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            if first == firstlineno:
                return _FrameNames(scopes, scope)
    raise LookupError(f"no code {qualname} at line {firstlineno}")


@lru_cache(maxsize=64)
def _scopes(source: str | ast.Module) -> Scopes:
    return Scopes(parse(source, "<source>") if isinstance(source, str) else source)


class _FrameNames:
    """One code object: what its statements change, and what is live before each."""

    def __init__(self, scopes: Scopes, scope: Scope) -> None:
        self._scopes, self._scope = scopes, scope
        self._body: list[ast.stmt] = scope.node.body  # type: ignore[attr-defined]
        self._own = frozenset(n for n in scope.bound if n not in scope.outer)
        self._quiet = frozenset(n for n in self._own if all(map(_is_definition, scope.bound[n])))
        self._captured = self._names_in_nested_code()
        self._liveness = _Liveness(self._reads, self._own if self._is_dynamic() else NOTHING)
        self._liveness.block(self._body, NOTHING)
        self._relatives = self._related_names()
        self._handed_out = self._names_handed_out()

    @property
    def captured(self) -> Names:
        """Names that code defined here uses."""
        return self._captured

    @property
    def quiet(self) -> Names:
        """Names that are bound by an import or a definition alone."""
        return self._quiet

    def carried(self, line: int) -> Names:
        """The names that may differ and are live, standing at a line."""
        statements = list(_all_statements(self._body))
        here = [s for s in statements if line in header_lines(s)]
        if not here:
            return self._own - self._quiet
        around = [s for s in self._body_path(here[0]) if isinstance(s, LOOPS)]
        region = [around[0]] if around else [s for s in statements if s.lineno <= line]
        differs = self._changed_in(region, whole=bool(around))
        live = self._captured.union(*(self._liveness.before[s] for s in here))
        return differs & live & self._own

    def changed_by(self, loop: ast.stmt) -> Names:
        """The names that a pass of a loop may change."""
        return self._changed_in([loop], whole=True) & self._own

    def changes(self, node: ast.AST) -> Names:
        """The names that a node by itself rebinds or may change."""
        return (self._rebound_by(node) | self._touched_by(node)) & self._own

    def live_around(self, loop: ast.stmt) -> Names:
        """The names that may be read after a pass of a loop: in the next one, behind it, or by code defined here."""
        target = _targets([loop.target]) if isinstance(loop, (ast.For, ast.AsyncFor)) else NOTHING
        again = self._liveness.before[loop.body[0]] - target  # type: ignore[attr-defined]
        return again | self._liveness.before[loop] | self._liveness.after[loop] | self._captured

    def read_first(self, block: Iterable[ast.AST]) -> Names:
        """The names that a block may read before it binds them."""
        return _Liveness(self._reads, NOTHING).block(block, NOTHING)

    def _body_path(self, statement: ast.stmt) -> list[ast.AST]:
        """The statements around a statement, outermost first, itself last."""

        def search(block: Iterable[ast.AST]) -> list[ast.AST]:
            for node in block:
                if node is statement:
                    return [node]
                if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
                    for _, inner in blocks(node):
                        if found := search(inner):
                            return [node, *found]
            return []

        return search(self._body)

    # -- which names a node uses --------------------------------------------------------------------

    def _is_own(self, name: str, scope: Scope) -> bool:
        return name in self._own and scope.holder(name) is self._scope

    def _reads(self, nodes: Iterable[ast.AST]) -> Names:
        """Own names loaded or deleted in expressions, also in code that they define."""
        found = set()
        for part in nodes:
            for node in walk(part):
                if not isinstance(node, ast.Name) or isinstance(node.ctx, ast.Store):
                    continue
                if self._is_own(node.id, self._scopes.of[node]):
                    found.add(node.id)
        return frozenset(found)

    def _names_in_nested_code(self) -> Names:
        found = set()
        for node, scope in self._scopes.of.items():
            if isinstance(node, ast.Name) and not self._runs_here(scope) and self._is_own(node.id, scope):
                found.add(node.id)
        return frozenset(found)

    def _runs_here(self, scope: Scope) -> bool:
        while scope.kind == "comprehension" and scope.parent is not None:
            if isinstance(scope.node, ast.GeneratorExp):
                return False
            scope = scope.parent
        return scope is self._scope

    def _is_dynamic(self) -> bool:
        names = (n for n in walk(self._scope.node) if isinstance(n, ast.Name))
        return any(name.id in DYNAMIC for name in names)

    # -- what may differ ---------------------------------------------------------------------------

    def _changed_in(self, region: Sequence[ast.stmt], *, whole: bool) -> Names:
        rebound: set[str] = set(self._captured - self._quiet)
        touched: set[str] = set(rebound)
        for statement in region:
            for node in walk(statement) if whole else _header_and_definitions(statement):
                rebound |= self._rebound_by(node)
                touched |= self._touched_by(node)
                if isinstance(node, ast.Call) and not self._is_plain(node):
                    touched |= self._handed_out
        if not whole:
            rebound -= self._quiet  # the straight code defines them again
        for name in touched & self._own:
            rebound |= self._relatives.get(name, NOTHING)
        return frozenset(rebound | touched)

    def _rebound_by(self, node: ast.AST) -> Names:
        names: list[str | None] = []
        if isinstance(node, ast.Name) and isinstance(node.ctx, STORES):
            return frozenset({node.id}) if self._is_own(node.id, self._scopes.of[node]) else NOTHING
        if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
            names = [node.name]
        elif isinstance(node, ast.MatchMapping):
            names = [node.rest]
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.asname or alias.name.partition(".")[0] for alias in node.names]
        return frozenset(n for n in names if n is not None)

    def _touched_by(self, node: ast.AST) -> Names:
        """Names whose object a node may change; import and def names only by a store into them."""
        if isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, STORES):
            return self._reads([node.value])
        parts: list[ast.AST] = []
        if isinstance(node, ast.Call):
            parts = [] if self._is_plain(node) else [node]
        elif isinstance(node, ast.AugAssign):
            parts = [node.target, node.value]
            if isinstance(node.target, ast.Name):
                return self._reads([node.value]) - self._quiet | {node.target.id}
        elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
            parts = [node.iter]
        elif isinstance(node, (ast.Starred, ast.Await, ast.Yield, ast.YieldFrom)):
            parts = [node.value] if node.value is not None else []
        elif isinstance(node, ast.Assign) and any(isinstance(t, (ast.Tuple, ast.List)) for t in node.targets):
            parts = [node.value]
        elif isinstance(node, ast.Compare) and any(isinstance(o, (ast.In, ast.NotIn)) for o in node.ops):
            parts = list(node.comparators)
        elif isinstance(node, ast.withitem):
            parts = [node.context_expr]
        return self._reads(parts) - self._quiet

    def _is_plain(self, call: ast.Call) -> bool:
        builtin = isinstance(call.func, ast.Name) and call.func.id in PLAIN_BUILTINS
        return builtin and self._scopes.origins(call.func) == {"builtin"}

    def _names_handed_out(self) -> Names:
        """Names whose object somebody may have kept: a call for its effect, or a function as a default."""
        kept: list[ast.AST] = []
        for node in walk(self._scope.node):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                kept += [] if self._is_plain(node.value) else [node.value]
            elif node is not self._scope.node and isinstance(node, (*FUNCTIONS, ast.Lambda)):
                kept += [d for d in (*node.args.defaults, *node.args.kw_defaults) if d is not None]
        return self._reads(kept) - self._quiet

    def _related_names(self) -> dict[str, Names]:
        """For each name, the names that may share a part of its object by some assignment or call."""
        groups: dict[str, set[str]] = {name: {name} for name in self._own}
        for node in walk(self._scope.node):
            names = self._joined_by(node) & self._own
            if len(names) > 1:
                union = set().union(*(groups[name] for name in names))
                for name in union:
                    groups[name] = union
        return {name: frozenset(group) for name, group in groups.items()}

    def _joined_by(self, node: ast.AST) -> Names:
        if isinstance(node, ast.Call):
            return NOTHING if self._is_plain(node) else self._reads([node]) - self._quiet
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.Assign):
            parts = [*node.targets, node.value]
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr, ast.AugAssign)):
            parts = [node.target, node.value]
        elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
            parts = [node.target, node.iter]
        elif isinstance(node, ast.withitem):
            parts = [node.context_expr, node.optional_vars]
        elif isinstance(node, ast.Match):
            parts = [node.subject, *(case.pattern for case in node.cases)]
        found: set[str] = set()
        for part in parts:
            if part is not None:
                found |= self._shared_by(part)
        return frozenset(found)

    def _shared_by(self, expr: ast.AST) -> set[str]:
        """Names whose object, or a part of it, the value of an expression may be or hold."""
        if isinstance(expr, (ast.Constant, ast.Compare, ast.JoinedStr)):
            return set()
        if isinstance(expr, ast.Call) and self._is_plain(expr):
            return set()
        found = set(self._rebound_by(expr))
        if isinstance(expr, ast.Name):
            found |= self._reads([expr]) - self._quiet
        for child in children(expr):
            found |= self._shared_by(child)
        return found


class _Liveness:
    """Live names before each statement, by one backward pass over the structure."""

    def __init__(self, reads: Callable[[Iterable[ast.AST]], Names], always: Names) -> None:
        self._reads = reads
        self._always = always
        self.before: dict[ast.AST, Names] = {}
        self.after: dict[ast.AST, Names] = {}  # of loops: behind their end
        self._break = self._continue = self._return = self._raise = NOTHING

    def block(self, block: Iterable[ast.AST], after: Names) -> Names:
        """What is live before a block, given what is live after it."""
        for node in reversed(list(block)):
            after = self._statement(node, after) | self._raise | self._always
            self.before[node] = self.before.get(node, NOTHING) | after
        return after

    def _statement(self, node: ast.AST, after: Names) -> Names:
        if isinstance(node, LOOPS):
            return self._loop(node, after)
        if isinstance(node, (ast.Try, ast.TryStar)):
            return self._try(node, after)
        if isinstance(node, WITHS):
            before = self._inside(node.body, after, self._raise | after)
            return before | self._reads(header_parts(node))
        if isinstance(node, ast.If):
            branches = self.block(node.body, after) | (
                self.block(node.orelse, after) if node.orelse else after
            )
            return branches | self._reads([node.test])
        if isinstance(node, ast.Match):
            branches = after.union(*(self.block(case.body, after) for case in node.cases))
            return branches | self._reads([node.subject, *_outside_blocks(node.cases)])
        if isinstance(node, (ast.Return, ast.Raise, ast.Break, ast.Continue)):
            after = {ast.Return: self._return, ast.Raise: self._raise, ast.Break: self._break,
                     ast.Continue: self._continue}[type(node)]  # fmt: skip
        return (after - _killed_by(node)) | self._reads([node]) | _augmented_by(node)

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While, after: Names) -> Names:
        header = self._reads([node.test] if isinstance(node, ast.While) else [node.iter, node.target])
        target = NOTHING if isinstance(node, ast.While) else _targets([node.target])
        ended = self.block(node.orelse, after) if node.orelse else after
        outer = self._break, self._continue
        head = ended | header
        while True:
            self._break, self._continue = after, head
            grown = head | (self.block(node.body, head) - target)
            if grown == head:
                break
            head = grown
        self._break, self._continue = outer
        self.after[node] = ended
        return self._entered(node, head, header | (self.before[node.body[0]] - target))

    def _entered(self, node: ast.AST, head: Names, running: Names) -> Names:
        """What is live before a loop: at its head, which may also be its end; ``running``: if it is not."""
        return head

    def _try(self, node: ast.Try | ast.TryStar, after: Names) -> Names:
        outer = self._break, self._continue, self._return, self._raise
        if node.finalbody:
            after = self.block(node.finalbody, after.union(*outer))
            self._break = self._continue = self._return = self._raise = after
        handlers = self._raise.union(
            *(self.block(handler.body, after) for handler in node.handlers),
            self._reads(_outside_blocks(node.handlers)),
        )
        ended = self.block(node.orelse, after) if node.orelse else after
        before = self._inside(node.body, ended, handlers)
        self._break, self._continue, self._return, self._raise = outer
        return before

    def _inside(self, block: list[ast.stmt], after: Names, raised: Names) -> Names:
        outer, self._raise = self._raise, raised
        before = self.block(block, after)
        self._raise = outer
        return before


def _killed_by(node: ast.AST) -> Names:
    """Names that a statement certainly binds anew, whatever they were."""
    if isinstance(node, ast.Assign):
        return _targets(node.targets)
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        return _targets([node.target])
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        return frozenset({node.name})
    return NOTHING


def _augmented_by(node: ast.AST) -> Names:
    return _targets([node.target]) if isinstance(node, ast.AugAssign) else NOTHING


def _targets(targets: Iterable[ast.AST]) -> Names:
    """The plain names among assignment targets."""
    found = set()
    for target in targets:
        for node in walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
    return frozenset(found)


def _is_definition(binding: str | ast.expr) -> bool:
    if isinstance(binding, ast.expr):
        return False
    return binding == "def" or binding in FLORLOG_NAMES.values() or binding == "florlog" or foreign(binding)


def _outside_blocks(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    for node in nodes:
        yield from header_parts(node)


def _all_statements(block: Iterable[ast.AST]) -> Iterator[ast.stmt]:
    """The statements of a code object, without those of code that it defines."""
    for node in block:
        if isinstance(node, ast.stmt):
            yield node
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            for _, inner in blocks(node):
                yield from _all_statements(inner)


def _header_and_definitions(statement: ast.stmt) -> Iterable[ast.AST]:
    if isinstance(statement, (*FUNCTIONS, ast.ClassDef)):
        return walk(statement)
    return header_nodes(statement)
