"""Parsed source, and the parts of a tree that all analyses use: blocks, headers and dumps.

A *block* is a list of statements that run one after the other.  A compound statement consists of a *header* (what is
evaluated to decide about the blocks) and its blocks.

Nodes are compared by ``ast.dump`` without positions, so comments, blank lines and formatting never matter.  The text of
a dump differs between minor versions of Python.  It is therefore compared within one process only, or hashed to an
identifier that is expected to be equal only under the Python version that recorded it.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from florlog.errors import FlorlogError

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LOOPS = (ast.For, ast.AsyncFor, ast.While)
WITHS = (ast.With, ast.AsyncWith)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
PLAIN_FIELDS = {
    "arg", "asname", "attr", "conversion", "ctx", "id", "is_async", "kind", "kwd_attrs", "level", "module", "op",
    "ops", "rest", "simple", "type_comment", "type_ignores",
}  # fmt: skip
BLOCK_FIELDS = ("body", "handlers", "orelse", "finalbody", "cases")
BLOCK_OWNERS = (ast.stmt, ast.ExceptHandler, ast.match_case, ast.Module)


class SourceError(FlorlogError):
    """A text is not Python.  Has the file, the line (0 if unknown) and what the parser says."""

    def __init__(self, file: str, line: int, text: str) -> None:
        super().__init__(f"{file}, line {line}: {text}")
        self.file = file
        self.line = line
        self.text = text


_readings: list[Callable[[ast.Module, str], ast.Module]] = []  # in force, the newest last


@contextmanager
def read_as(reading: Callable[[ast.Module, str], ast.Module]) -> Iterator[None]:
    """While this is entered, `parse` returns each tree as ``reading`` rewrites it (``florlog.source.edit.rewrite``)."""
    _readings.append(reading)
    try:
        yield
    finally:
        _readings.pop()


def reread(tree: ast.Module, filename: str) -> ast.Module:
    """A tree as the reading in force rewrites it; the tree itself if there is none."""
    return _readings[-1](tree, filename) if _readings else tree


def parse(source: str, filename: str) -> ast.Module:
    """The tree of a module's text, as the reading in force rewrites it.  Raises `SourceError` if it does not parse."""
    return reread(parse_as_written(source, filename), filename)


def parse_as_written(source: str, filename: str) -> ast.Module:
    """The tree of a module's text.  Raises `SourceError` if it does not parse."""
    try:
        return ast.parse(source, filename)
    except SyntaxError as error:
        raise SourceError(filename, error.lineno or 0, error.msg) from None
    except (ValueError, RecursionError) as error:  # null bytes; nesting beyond the parser's stack
        raise SourceError(filename, 0, str(error)) from None


def last_word(node: ast.AST) -> str:
    """The last word of a name such as ``self.loader``, "" of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


class _NodeFields(dict[type[ast.AST], tuple[str, ...]]):
    """For each kind of node, the fields that may contain other nodes of interest."""

    def __missing__(self, kind: type[ast.AST]) -> tuple[str, ...]:
        plain = kind._fields if kind is ast.Constant else PLAIN_FIELDS
        self[kind] = tuple(field for field in kind._fields if field not in plain)
        return self[kind]


_NODE_FIELDS = _NodeFields()


def children(node: ast.AST) -> list[ast.AST]:
    """The nodes directly below a node, without operators and contexts, which are no code of their own."""
    found: list[ast.AST] = []
    for field in _NODE_FIELDS[type(node)]:
        value = getattr(node, field, None)
        if isinstance(value, ast.AST):
            found.append(value)
        elif isinstance(value, list):
            found += [item for item in value if isinstance(item, ast.AST)]
    return found


def walk(*roots: ast.AST) -> list[ast.AST]:
    """The nodes and all that is below them, breadth first, without operators and contexts."""
    found = list(roots)
    for node in found:
        for field in _NODE_FIELDS[type(node)]:  # `children` inlined: analysis spends most time here
            value = getattr(node, field, None)
            if isinstance(value, ast.AST):
                found.append(value)
            elif isinstance(value, list):
                found += [item for item in value if isinstance(item, ast.AST)]
    return found


def blocks(node: ast.AST) -> Iterator[tuple[str, list[ast.AST]]]:
    """The non-empty blocks of a statement, handler, case or module, each with its field, in the order of the text."""
    if not isinstance(node, BLOCK_OWNERS):
        return
    for field in BLOCK_FIELDS:
        block = getattr(node, field, None)
        if isinstance(block, list) and block:
            yield field, block


def header_parts(node: ast.AST) -> Iterator[ast.AST]:
    """The direct children of a node that are not in its blocks."""
    owner = isinstance(node, BLOCK_OWNERS)
    for field, value in ast.iter_fields(node):
        if owner and field in BLOCK_FIELDS and isinstance(value, list):
            continue
        if isinstance(value, ast.AST):
            yield value
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, ast.AST):
                    yield item


def header_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The node and everything in its header.  For a simple statement that is the whole statement."""
    yield node
    for part in header_parts(node):
        yield from walk(part)


def dump_header(node: ast.AST) -> str:
    """A dump of a node without its blocks."""
    parts = [type(node).__name__]
    for field, value in ast.iter_fields(node):
        if field in BLOCK_FIELDS and isinstance(value, list):
            continue
        if isinstance(value, ast.AST):
            parts.append(f"{field}={ast.dump(value)}")
        elif isinstance(value, list):
            inner = ",".join(ast.dump(v) if isinstance(v, ast.AST) else repr(v) for v in value)
            parts.append(f"{field}=[{inner}]")
        else:
            parts.append(f"{field}={value!r}")
    return " ".join(parts)


def is_while_test(node: ast.AST) -> bool:
    """Whether a statement of a rewritten tree is what a while loop begins each pass with: its test."""
    return getattr(node, "tests_while", False)


class _AsWritten(ast.NodeTransformer):
    def visit(self, node: ast.AST) -> ast.AST:
        written = getattr(node, "written", None)  # the user's node, if a reading has replaced it
        made: ast.AST = super().visit(node if written is None else written)
        return made


def one_line(node: ast.AST) -> str:
    """A node's code as the user wrote it, for messages: one line of at most 100 characters, without its blocks."""
    text = ast.unparse(_AsWritten().visit(copy.deepcopy(node)))
    first = text.splitlines()[0] if text else ""
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        first = next((line for line in text.splitlines() if not line.startswith("@")), first)
    return first if len(first) <= 100 else first[:97] + "..."


def call_lines(call: ast.Call) -> frozenset[int]:
    """The lines that a frame may report while it executes a call.

    CPython reports the line on which the called expression starts.  If a method's name is on a later line than its
    object, it reports the line of the name.
    """
    return frozenset({call.lineno, call.func.end_lineno or call.lineno})


def own_nodes(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The nodes and what is below them, without the insides of nested functions, classes and lambdas."""
    pending = list(nodes)
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Lambda)):
            pending.extend(children(node))
