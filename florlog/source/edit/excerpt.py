"""The excerpt of a library's module: the few functions of it that are part of a program.

A module of a framework has thousands of lines, of which two functions have the loops of a training.  Its excerpt is a
text with the same line numbers that has these functions alone.  It is recorded, analysed and compiled in the place of
the module's text (``specs/adoption.md``):

- Lines of the functions are as they are in the module.  A loop that is recorded has its name in a comment at the end of
  its first line.
- A class that has one of the functions has its first line, with a base that nobody knows: the rest of it is not shown.
- The first line imports the names that the functions use, which are from elsewhere, and says what the excerpt is of:
  the module, its version, the xxh3-128 of its text, and the keys of mappings in which it keeps the clock's times.
- All other lines are empty.

An excerpt is never executed as a module: the functions of the module get the code of the excerpt's functions.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from florlog.source.names.syntax import FUNCTIONS, LOOPS, own_nodes

_MARK = "florlog_unseen"
_HEAD = re.compile(rf"^import {_MARK}; .*# florlog: excerpt of (\S+) (\S+) (\S+); clocks:(.*)$")
_LOOP = re.compile(r"  # florlog: loop (\w+)$")
_CLASS = re.compile(rf"(\s*class \w+)\({_MARK}\.Rest\):$")

Definition = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Origin:
    """What an excerpt is of; ``digest``: the xxh3-128 of the module's bytes."""

    module: str
    version: str
    digest: str
    clocks: tuple[str, ...] = ()
    """How the keys end under which it keeps what it read from the clock."""

    def __str__(self) -> str:
        return f"{self.module} {self.version} {self.digest}; clocks: {' '.join(self.clocks)}"


def excerpt(text: str, origin: Origin, functions: Mapping[str, Sequence[str]]) -> str:
    """The excerpt of a module's text; ``functions``: qualified name -> the names of its loops, in the order of the text.

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
            shown[owner.lineno - 1] = f"{indent}class {owner.name}({_MARK}.Rest):"
        loops = sorted((node for node in own_nodes(function.body) if isinstance(node, LOOPS)), key=_line)
        if len(loops) != len(names):
            raise LookupError(f"{qualname} has {len(loops)} loops, and not {len(names)}")
        for loop, name in zip(loops, names, strict=True):
            shown[loop.lineno - 1] += f"  # florlog: loop {name}"
        used |= _free_names(function)
    imports = "; ".join(_imports(tree, origin.module, used))
    shown[0] = f"{imports}  # florlog: excerpt of {origin}"
    return "\n".join(shown)


def excerpt_of(text: str) -> Origin | None:
    """What a text is an excerpt of; None for any other text."""
    found = _HEAD.search(text.partition("\n")[0])
    return None if found is None else Origin(*found.groups()[:3], clocks=tuple(found[4].split()))


def is_excerpt(tree: ast.Module) -> bool:
    """Whether a tree is that of an excerpt."""
    return any(
        isinstance(node, ast.Import) and node.lineno == 1 and node.names[0].name == _MARK for node in tree.body[:2]
    )


def loops_of_excerpt(text: str) -> dict[int, str]:
    """The recorded loops of an excerpt: line -> name."""
    return {
        number: found[1]
        for number, line in enumerate(text.split("\n"), 1)
        if (found := _LOOP.search(line)) is not None
    }


def differing_line(made: str, text: str) -> int:
    """The first line of an excerpt that a module's text does not have, 0 if it is an excerpt of the text."""
    lines = text.split("\n")
    for number, (shown, line) in enumerate(zip(made.split("\n"), lines, strict=False), 1):
        if number > 1 and shown and not _shows(shown, line):
            return number
    return 0 if len(made.split("\n")) <= len(lines) else len(lines) + 1


def functions_of_excerpt(tree: ast.Module) -> Iterator[str]:
    """The qualified names of the functions of an excerpt's tree."""
    pending: list[tuple[str, Sequence[ast.stmt]]] = [("", tree.body)]
    while pending:
        prefix, body = pending.pop()
        for node in body:
            if isinstance(node, FUNCTIONS):
                yield f"{prefix}{node.name}"
            elif isinstance(node, ast.ClassDef):
                pending.append((f"{prefix}{node.name}.", node.body))


def _shows(shown: str, line: str) -> bool:
    if (owner := _CLASS.match(shown)) is not None:
        return re.match(rf"{re.escape(owner[1])}\b", line) is not None
    return _LOOP.sub("", shown) == line


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
    yield f"import {_MARK}"
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
