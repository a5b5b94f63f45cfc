"""CPython's own answers about names against `florlog.source.names.scopes`.

`symtable` says for each name of each scope where it is bound, and the code objects of a compiled module carry their
qualified names.  Both are compared with what `Scopes` reads off the tree.

Not compared, because the two sides mean different things by it:

* ``__class__``, and other names that the compiler adds: the text does not contain them.
* ``.0``, the hidden parameter of a comprehension.
* A name that has an annotation in a module or class body.  symtable calls it local even where it gets no value; but
  then nothing is bound at run time and the name is looked up further out, as `Scopes` does.
* A free name that a scope only hands on to code inside it: the text of the scope does not contain it.
* A private name of the module (``__x``) that a class reads.  CPython looks for ``_C__x`` and fails; `Scopes` does not
  mangle, so it takes the name as written.  The random modules have no such names.
* ``*`` of ``from m import *``, which `Scopes` keeps as a name of its own.
"""

from __future__ import annotations

import ast
import importlib.util
import symtable
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings

from florlog.source.names.scopes import INLINED, Scope, Scopes
from tests.source.random_modules import MODULES

TESTS = Path(__file__).parents[1]
SCRIPTS = sorted(
    [
        *TESTS.glob("corpus/scripts/**/*.py"),
        *TESTS.glob("end_to_end/scripts/*.py"),
        *TESTS.glob("source/*.py"),
    ]
)
LIBRARY = [
    "asyncio.tasks", "bisect", "collections", "contextlib", "copy", "csv", "dataclasses", "difflib", "doctest", "enum",
    "fractions", "functools", "heapq", "http.client", "inspect", "json.decoder", "logging", "logging.config", "queue",
    "random", "shutil", "statistics", "tempfile", "textwrap", "threading", "tokenize", "traceback", "typing",
]  # fmt: skip
ADDED_BY_THE_COMPILER = {"__class__", "__classdict__", "__static_attributes__", "__conditional_annotations__"}
UNBOUND = "bound nowhere in the module"


def source_of(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


# -- where each name is bound: (kind, line of the scope; name; line of the scope that binds it) ------

Binding = tuple[str, int, str, object]


def mangled(name: str, around: list[str]) -> str:
    """A private name as the compiler spells it inside a class."""
    if not around or not name.startswith("__") or name.endswith("__"):
        return name
    owner = around[-1].lstrip("_")
    return f"_{owner}{name}" if owner else name


class TableReader:
    """The bindings that symtable reports for a module."""

    def __init__(self, text: str) -> None:
        self.top = symtable.symtable(text, "module.py", "exec")
        self.annotated = {symbol.get_name() for symbol in self.top.get_symbols() if symbol.is_annotated()}
        self.module_names = {
            symbol.get_name()
            for table in self._below(self.top)
            for symbol in table.get_symbols()
            if (table is self.top or symbol.is_declared_global())
            and (symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace())
        }

    def _below(self, table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
        yield table
        for child in table.get_children():
            yield from self._below(child)

    def bindings(self) -> Counter[Binding]:
        return Counter(self._read(self.top, []))

    def _read(self, table: symtable.SymbolTable, around: list[symtable.SymbolTable]) -> Iterator[Binding]:
        kind = "class" if table.get_type() == "class" else "module" if table is self.top else "function"
        for symbol in table.get_symbols():
            name = symbol.get_name()
            if name in ADDED_BY_THE_COMPILER or name.startswith("."):
                continue
            if name in self.annotated and (symbol.is_global() or kind == "module"):
                continue
            if kind == "class" and symbol.is_annotated():
                continue
            unused = not (symbol.is_referenced() or symbol.is_assigned() or symbol.is_imported())
            if kind == "module" and unused and not symbol.is_namespace():
                continue  # a function declares it global
            if symbol.is_free() and not (symbol.is_referenced() or symbol.is_nonlocal()):
                continue
            yield kind, table.get_lineno(), name, self._holder(symbol, table, around)
        for child in table.get_children():
            yield from self._read(child, [*around, table])

    def _holder(
        self, symbol: symtable.Symbol, table: symtable.SymbolTable, around: list[symtable.SymbolTable]
    ) -> object:
        name = symbol.get_name()
        if symbol.is_free():
            for outer in reversed(around):
                if outer.get_type() == "function" and name in outer.get_identifiers():
                    found = outer.lookup(name)
                    if found.is_local() and not found.is_free():
                        return outer.get_lineno()
            raise AssertionError(f"{name} is free and bound nowhere")
        if symbol.is_global() or table is self.top:
            return "the module" if name in self.module_names else UNBOUND
        return table.get_lineno()


def our_bindings(text: str, wanted: Counter[Binding], annotated: set[str]) -> Counter[Binding]:
    """The same by `Scopes`, for the names that symtable has; without annotated names of the module."""
    scopes = Scopes(ast.parse(text))
    names: dict[tuple[str, int], set[str]] = {}
    for kind, line, name, _ in wanted:
        names.setdefault((kind, line), set()).add(name)
    found: Counter[Binding] = Counter()
    mentioned = _mentioned(scopes)
    for scope in {scopes.root: None, **dict.fromkeys(scopes.inner.values())}:
        kind = scope.kind if scope.kind in ("class", "module") else "function"
        key = kind, _line(scope)
        owners = _classes_around(scope)
        for name in mentioned[scope] | set(scope.bound) | set(scope.outer):
            spelled = mangled(name, owners)
            if spelled in names.get(key, ()):
                holder = scope.holder(name)
                where: object = UNBOUND if holder is None else _line(holder)
                if holder is scopes.root:
                    where = "the module"
                if spelled in annotated and holder in (None, scopes.root):
                    continue
                found[(*key, spelled, where)] += 1
    return found


def _mentioned(scopes: Scopes) -> dict[Scope, set[str]]:
    found: dict[Scope, set[str]] = {scope: set() for scope in [scopes.root, *scopes.inner.values()]}
    for node, scope in scopes.of.items():
        if isinstance(node, ast.Name):
            found[scope].add(node.id)
        elif isinstance(node, ast.NamedExpr):
            while scope.kind == "comprehension" and scope.parent is not None:
                scope = scope.parent  # it binds further out, where symtable has the name too
            found[scope].add(node.target.id)
        elif isinstance(node, ast.Nonlocal | ast.Global):
            found[scope].update(node.names)
    return found


def _line(scope: Scope) -> int:
    return getattr(scope.node, "lineno", 0)


def _classes_around(scope: Scope | None) -> list[str]:
    names = []
    while scope is not None:
        if isinstance(scope.node, ast.ClassDef):
            names.append(scope.node.name)
        scope = scope.parent
    return names[::-1]


def assert_names_are_bound_where_cpython_binds_them(text: str) -> None:
    table = TableReader(text)
    theirs = table.bindings()
    ours = our_bindings(text, theirs, table.annotated)
    assert set(ours) == set(theirs), (sorted(set(theirs) ^ set(ours), key=str), text[:2000])


# -- qualified names ---------------------------------------------------------------------------------


def code_objects(code: types.CodeType) -> Iterator[tuple[str, int]]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant.co_qualname, constant.co_firstlineno
            yield from code_objects(constant)


def our_code_objects(text: str) -> Counter[tuple[str, int]]:
    found: Counter[tuple[str, int]] = Counter()
    for node, scope in Scopes(ast.parse(text)).inner.items():
        if not INLINED or scope.kind != "comprehension" or isinstance(node, ast.GeneratorExp):
            lines = [node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))]  # type: ignore[attr-defined]
            found[scope.qualname, min(lines)] += 1
    return found


def assert_qualified_names_are_those_of_the_code_objects(text: str) -> None:
    """The compiler drops code that never runs and repeats that of ``finally``, so only what it has is compared."""
    compiled = set(code_objects(compile(text, "module.py", "exec", dont_inherit=True)))
    assert compiled <= set(our_code_objects(text)), compiled - set(our_code_objects(text))


# -- the tests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.name)
def test_scripts_bind_their_names_where_cpython_does(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert_names_are_bound_where_cpython_binds_them(text)
    assert_qualified_names_are_those_of_the_code_objects(text)


@pytest.mark.parametrize("module", LIBRARY)
def test_the_standard_library_binds_its_names_where_cpython_does(module: str) -> None:
    text = source_of(module)
    assert_names_are_bound_where_cpython_binds_them(text)
    assert_qualified_names_are_those_of_the_code_objects(text)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@example("def f():\n    a = 0\n    def g():\n        global a\n        a = 1\n        return [a for b in c]")
@example("class C:\n    global a\n    a = 1\n    def f(self):\n        return a")
@example("def f():\n    a: int\n    def g():\n        return a")
@example("def f():\n    def g():\n        return a\n    del a")
@example("a = [0 for b[c] in d]")
@example("f = [(lambda: [x for x in y]) for y in z]")
@example("def f():\n    global g\n    def g(): pass")
@given(MODULES)
def test_random_modules_bind_their_names_where_cpython_does(text: str) -> None:
    try:
        compile(text, "module.py", "exec", dont_inherit=True)
    except SyntaxError:
        assume(False)
    assert_names_are_bound_where_cpython_binds_them(text)
    assert_qualified_names_are_those_of_the_code_objects(text)


def test_a_nonlocal_assignment_counts_for_a_name_that_is_bound_further_down() -> None:
    text = "def f():\n    def g():\n        nonlocal a\n        a = len\n    a = 1\n    a()\n"
    tree = ast.parse(text)
    call = next(n for n in ast.walk(tree) if isinstance(n, ast.Call))
    assert Scopes(tree).origins(call.func) == {"other", "builtin"}
