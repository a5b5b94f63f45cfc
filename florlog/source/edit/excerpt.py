"""The excerpt of a library's module: the few functions of it that are part of a program.

A module of a framework has thousands of lines, of which two functions have the loops of a training.  Its excerpt is a
text with the same line numbers that has these functions alone.  It is recorded, analysed and compiled in the place of
the module's text (``specs/adoption.md``):

- Lines of the functions are as they are in the module.  A loop that is recorded has its name in a comment at the end of
  its first line.
- A class that has one of the functions has its first line, with a base that nobody knows: the rest of it is not shown.
- The first line imports the names that the functions use, which are from elsewhere, and says what the excerpt is of:
  the module, its version, the xxh3-128 of its text, the keys of mappings in which it keeps the clock's times, and the
  lines of calls whose values are recorded.
- All other lines are empty.

An excerpt is never executed as a module: the functions of the module get the code of the excerpt's functions.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator, Mapping, Sequence

from florlog.source.edit.loop_names import LoopStatement
from florlog.source.names.excerpts import (
    MARK,
    Definition,
    Origin,
    clock_keys,
    excerpt_of,
    functions_of_excerpt,
    loops_of_excerpt,
    told,
)
from florlog.source.names.syntax import FUNCTIONS, LOOPS, own_nodes


def excerpt(
    text: str,
    origin: Origin,
    functions: Mapping[str, Sequence[str]],
    clocks: tuple[str, ...] = (),
    tells: Mapping[int, str] | None = None,
) -> str:
    """The excerpt of a module's text.

    ``functions``: qualified name -> the names of its loops, in the order of the text, "" for one that is not recorded;
    ``clocks``: its `clock_keys`;
    ``tells``: what is `told`.

    Raises `LookupError` where the text has not these functions with so many loops.
    """
    tree = ast.parse(text)
    lines = text.split("\n")
    shown = [""] * len(lines)
    used: set[str] = set()
    for qualname, names in functions.items():
        classes, function = _found(tree, qualname)
        first = min([function.lineno, *(node.lineno for node in function.decorator_list)])
        shown[first - 1 : function.end_lineno] = lines[first - 1 : function.end_lineno]
        for owner in classes:
            indent = " " * owner.col_offset
            shown[owner.lineno - 1] = f"{indent}class {owner.name}({MARK}.Rest):"
        loops = _loops(function)
        if len(loops) != len(names):
            raise LookupError(f"{qualname} has {len(loops)} loops, and not {len(names)}")
        for loop, name in zip(loops, names, strict=True):
            shown[loop.lineno - 1] += f"  # florlog: loop {name}" if name else ""
        used |= _free_names(function)
    imports = "; ".join(_imports(tree, origin.module, used))
    said = f"{MARK}.clock_keys = {clocks!r}" + (f"; {MARK}.told = {dict(tells)!r}" if tells else "")
    shown[0] = f"import {MARK}; {said}; {imports}  # florlog: excerpt of {origin}"
    return "\n".join(shown)


def calls_that_tell(text: str, calls: Mapping[str, tuple[str, str]]) -> dict[int, str]:
    """Where a module's text tells values: line -> the variable that has their mapping.

    ``calls``: the qualified name of a function -> what it calls, as text, and the variable that it gives it.  Raises
    `LookupError` where there is no such call, or more than one.
    """
    tree, found = ast.parse(text), {}
    for qualname, (called, variable) in calls.items():
        nodes = ast.walk(_found(tree, qualname)[1])
        lines = [n.lineno for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func) == called]
        if len(lines) != 1:
            raise LookupError(f"{qualname} calls {called} {len(lines)} times")
        found[lines[0]] = variable
    return found


def is_excerpt_of(made: str, text: str) -> bool:
    """Whether a text is an excerpt, and what `excerpt` makes of another text: no line is more or less."""
    if (origin := excerpt_of(made)) is None:
        return False
    try:
        tree, loops = ast.parse(made), loops_of_excerpt(made)
        functions = {
            qualname: [loops.get(loop.lineno, "") for loop in _loops(node)]
            for qualname, node in functions_of_excerpt(tree)
        }
        return excerpt(text, origin, functions, clock_keys(tree), told(tree)) == made
    except (SyntaxError, ValueError, LookupError):
        return False


def _loops(function: Definition) -> list[LoopStatement]:
    """The loops of a function, in the order of the text."""
    return sorted((node for node in own_nodes(function.body) if isinstance(node, LOOPS)), key=_line)


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0))


def _found(tree: ast.Module, qualname: str) -> tuple[list[ast.ClassDef], Definition]:
    """A function, and the classes around it, the outermost first."""
    classes: list[ast.ClassDef] = []
    body: Sequence[ast.stmt] = tree.body
    *owners, name = qualname.split(".")
    for owner in owners:
        inner = [node for node in body if isinstance(node, ast.ClassDef) and node.name == owner]
        if len(inner) != 1:
            raise LookupError(f"there is no class {owner} of {qualname}")
        classes += inner
        body = inner[0].body
    functions = [node for node in body if isinstance(node, FUNCTIONS) and node.name == name]
    if len(functions) != 1:
        raise LookupError(f"there is no function {qualname}")
    return classes, functions[0]


def _free_names(function: Definition) -> set[str]:
    """The names that a function reads and does not bind."""
    nodes = list(ast.walk(function))
    bound = {node.arg for node in nodes if isinstance(node, ast.arg)}
    bound |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {name for node in nodes if isinstance(node, ast.stmt) for name, _ in _bound(node)}
    return {node.id for node in nodes if isinstance(node, ast.Name)} - bound


def _imports(tree: ast.Module, module: str, used: Iterable[str]) -> Iterator[str]:
    """Imports of the names among ``used`` that a module binds at its top level."""
    rest = set()
    future = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    if future:
        raise LookupError("a module with imports from __future__ has no excerpt yet")
    bound = {name: made for statement in tree.body for name, made in _bound(statement)}
    for name in sorted(used):
        if made := bound.get(name, ""):
            yield made
        elif name in bound or not hasattr(builtins, name):
            rest.add(name)
    if rest:
        yield f"from {module} import {', '.join(sorted(rest))}"


def _bound(statement: ast.stmt) -> Iterator[tuple[str, str]]:
    """The names that a statement of a module binds, each with its import where it is a plain one of another library."""
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            own = ast.Import([alias])
            yield alias.asname or alias.name.partition(".")[0], ast.unparse(own)
    elif isinstance(statement, ast.ImportFrom):
        for alias in statement.names:
            own_from = ast.ImportFrom(statement.module, [alias], 0)
            yield alias.asname or alias.name, "" if statement.level else ast.unparse(own_from)
