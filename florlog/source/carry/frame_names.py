"""The names of one code object: which a statement reads, rebinds or may change, and which may share an object.

Any object that takes part in a call, is iterated, or is stored into counts as changed, and with it every name that may
share a part with it by some assignment of the function.  This errs towards more names: where Flor's side-effect rules
(Garcia et al., PVLDB 14(4), 2020, section 3) give up because a loop changes what they cannot see, here a call is taken
to change everything that it is given.

Not seen: two parameters that name the same object without an assignment that shows it, objects that are reached only
through another module, and the state of an iterator, except by the name that holds it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence

from florlog.source.carry.liveness import NOTHING, Liveness, Names, assigned_names
from florlog.source.graph.functions import header_lines
from florlog.source.names.by_text import READING_BUILTINS
from florlog.source.names.libraries import PLAIN_BUILTINS
from florlog.source.names.origins import FLORLOG_NAMES, is_foreign
from florlog.source.names.scopes import Scope, Scopes
from florlog.source.names.syntax import FUNCTIONS, LOOPS, blocks, children, header_nodes, walk

STORES = (ast.Store, ast.Del)


class FrameNames:
    """One code object: what its statements change, and what is live before each."""

    def __init__(self, scopes: Scopes, scope: Scope) -> None:
        self._scopes, self._scope = scopes, scope
        self._body: list[ast.stmt] = scope.node.body  # type: ignore[attr-defined]
        self._own = frozenset(n for n in scope.bound if n not in scope.outer)
        self._definitions = frozenset(n for n in self._own if all(map(_is_definition, scope.bound[n])))
        self._captured = self._names_in_nested_code()
        self._liveness = Liveness(self._reads, self._own if self._is_dynamic() else NOTHING)
        self._liveness.block(self._body, NOTHING)
        self._relatives = self._related_names()
        self._handed_out = self._names_handed_out()

    @property
    def captured(self) -> Names:
        """The names that code defined here uses."""
        return self._captured

    @property
    def definitions(self) -> Names:
        """The names that only imports and definitions bind."""
        return self._definitions

    def carried(self, line: int) -> Names:
        """The names that may differ and are live where a frame stands at a line."""
        statements = list(own_statements(self._body))
        here = [s for s in statements if line in header_lines(s)]
        if not here:
            return self._own - self._definitions
        around = [s for s in self.enclosing_statements(here[0]) if isinstance(s, LOOPS)]
        region = [around[0]] if around else [s for s in statements if s.lineno <= line]
        differs = self._changed_in(region, whole=bool(around))
        live = self._captured.union(*(self._liveness.before[s] for s in here))
        return differs & live & self._own

    def changed_by(self, loop: ast.stmt) -> Names:
        """The names that one pass of a loop may change."""
        return self._changed_in([loop], whole=True) & self._own

    def changes(self, node: ast.AST) -> Names:
        """The names that a node itself rebinds or may change, without the nodes below it."""
        return (self.rebound_by(node) | self._touched_by(node)) & self._own

    def live_around(self, loop: ast.stmt) -> Names:
        """The names that may be read after a pass of a loop: in the next pass, after it, or by code defined here."""
        target = assigned_names([loop.target]) if isinstance(loop, (ast.For, ast.AsyncFor)) else NOTHING
        again = self._liveness.before[loop.body[0]] - target  # type: ignore[attr-defined]
        return again | self._liveness.before[loop] | self._liveness.after[loop] | self._captured

    def read_first(self, block: Iterable[ast.AST]) -> Names:
        """The names that a block may read before it binds them."""
        return Liveness(self._reads, NOTHING).block(block, NOTHING)

    def enclosing_statements(self, statement: ast.stmt) -> list[ast.AST]:
        """The statements around a statement, the outermost first, itself last."""

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
        """The own names that expressions read or delete, also in code that they define."""
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
        return any(name.id in READING_BUILTINS for name in names)

    # -- what may differ ---------------------------------------------------------------------------

    def _changed_in(self, region: Sequence[ast.stmt], *, whole: bool) -> Names:
        rebound: set[str] = set(self._captured - self._definitions)
        touched: set[str] = set(rebound)
        for statement in region:
            for node in walk(statement) if whole else _header_and_definitions(statement):
                rebound |= self.rebound_by(node)
                touched |= self._touched_by(node)
                if isinstance(node, ast.Call) and not self._is_plain(node):
                    touched |= self._handed_out
        if not whole:
            rebound -= self._definitions  # the straight code binds them again
        for name in touched & self._own:
            rebound |= self._relatives.get(name, NOTHING)
        return frozenset(rebound | touched)

    def rebound_by(self, node: ast.AST) -> Names:
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
        """The names whose object a node may change.  Only a store changes an imported or defined name."""
        if isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, STORES):
            return self._reads([node.value])
        parts: list[ast.AST] = []
        if isinstance(node, ast.Call):
            parts = [] if self._is_plain(node) else [node]
        elif isinstance(node, ast.AugAssign):
            parts = [node.target, node.value]
            if isinstance(node.target, ast.Name):
                return self._reads([node.value]) - self._definitions | {node.target.id}
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
        return self._reads(parts) - self._definitions

    def _is_plain(self, call: ast.Call) -> bool:
        builtin = isinstance(call.func, ast.Name) and call.func.id in PLAIN_BUILTINS
        return builtin and self._scopes.origins(call.func) == {"builtin"}

    def _names_handed_out(self) -> Names:
        """The names whose object other code may have kept: by a call for its effect, or as a default."""
        kept: list[ast.AST] = []
        for node in walk(self._scope.node):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                kept += [] if self._is_plain(node.value) else [node.value]
            elif node is not self._scope.node and isinstance(node, (*FUNCTIONS, ast.Lambda)):
                kept += [d for d in (*node.args.defaults, *node.args.kw_defaults) if d is not None]
        return self._reads(kept) - self._definitions

    def _related_names(self) -> dict[str, Names]:
        """For each name, the names that may share a part of its object because of some assignment or call."""
        groups: dict[str, set[str]] = {name: {name} for name in self._own}
        for node in walk(self._scope.node):
            names = self._names_joined_by(node) & self._own
            if len(names) > 1:
                union = set().union(*(groups[name] for name in names))
                for name in union:
                    groups[name] = union
        return {name: frozenset(group) for name, group in groups.items()}

    def _names_joined_by(self, node: ast.AST) -> Names:
        if isinstance(node, ast.Call):
            return NOTHING if self._is_plain(node) else self._reads([node]) - self._definitions
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
                found |= self._names_shared_by(part)
        return frozenset(found)

    def _names_shared_by(self, expr: ast.AST) -> set[str]:
        """The names whose object, or a part of it, may be the value of an expression or a part of the value."""
        if isinstance(expr, (ast.Constant, ast.Compare, ast.JoinedStr)):
            return set()
        if isinstance(expr, ast.Call) and self._is_plain(expr):
            return set()
        found = set(self.rebound_by(expr))
        if isinstance(expr, ast.Name):
            found |= self._reads([expr]) - self._definitions
        for child in children(expr):
            found |= self._names_shared_by(child)
        return found


def _is_definition(binding: str | ast.expr) -> bool:
    if isinstance(binding, ast.expr):
        return False
    return (
        binding == "def" or binding in FLORLOG_NAMES.values() or binding == "florlog" or is_foreign(binding)
    )


def own_statements(block: Iterable[ast.AST]) -> Iterator[ast.stmt]:
    """The statements of a block and those nested in it, without those of functions and classes defined there."""
    for node in block:
        if isinstance(node, ast.stmt):
            yield node
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            for _, inner in blocks(node):
                yield from own_statements(inner)


def _header_and_definitions(statement: ast.stmt) -> Iterable[ast.AST]:
    if isinstance(statement, (*FUNCTIONS, ast.ClassDef)):
        return walk(statement)
    return header_nodes(statement)
