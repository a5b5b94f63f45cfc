"""The tree that is run, and compared, in the place of an unmodified script's own.

    for epoch in range(9): ...      for epoch in __florlog__.loop("epoch", range(9)): ...
    while not done: ...             for _ in __florlog__.loop("loop", __florlog__.passes()):
    else: ENDED                         if not (not done): ENDED; break
                                        ...
    print("loss", loss)             __florlog__.said(__florlog__.begin(),
                                        print("loss", __florlog__.see("loss", loss)))

Everything is evaluated once, in its order, and every node keeps its line.  On a call of the runtime
(`florlog.bridges.plain_loops`), the attribute ``written`` is what the script has in its place.

Recorded values are those that calls tell (`florlog.source.names.telling`): the arguments of ``print``, of a logger's
methods and of a progress bar's ``set_postfix`` and ``set_description``, the values inside their f-strings, ``%`` and
``.format``, and what trackers are given.  A name that is computed is known when the call runs:

    writer.add_scalar(f"lr/{i}", lr)    __florlog__.said(__florlog__.begin(),
                                            writer.add_scalar(__florlog__.named(f"lr/{i}"), __florlog__.see("*", lr)))
"""

from __future__ import annotations

import ast
import contextlib
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from florlog.source.names.calls import COMPUTED_NAME
from florlog.source.names.excerpts import is_excerpt, told
from florlog.source.names.syntax import FUNCTIONS, LOOPS, is_while_test, parse_as_written
from florlog.source.names.telling import Form, Place, Telling, Tellings, argument

RUNTIME = "__florlog__"
_OPTIONS = {"sep", "end", "file", "flush", "exc_info", "extra", "stack_info", "stacklevel", "refresh"}

Rewrite = Callable[[ast.Module, str], ast.Module]


def reading(loops: Mapping[str, Mapping[int, str]], *, excerpts_alone: bool = False) -> Rewrite:
    """How a hands-free program is rewritten: its statements record values, and ``loops`` are florlog's.

    Of what a framework prints or logs in its own functions only what its excerpt names is recorded.

    ``loops``: file -> line -> the loop's name; ``excerpts_alone``: only excerpts of frameworks are rewritten, as for a
    script that opens its run itself.
    """

    def rewrite(tree: ast.Module, file: str) -> ast.Module:
        if excerpts_alone and not is_excerpt(tree):
            return tree
        tells = told(tree) if is_excerpt(tree) else None
        rewritten = _Rewriter(loops.get(file, {}), Tellings(tree), tells).visit(tree)
        assert isinstance(rewritten, ast.Module)
        return rewritten

    return rewrite


def statements(tree: ast.Module, file: str) -> ast.Module:
    """Rewrites statements only, no loops: in this form two texts are compared."""
    return reading({})(tree, file)


def executable(tree: ast.Module) -> ast.Module:
    """Makes a rewritten tree the one that is executed, in place; analyses read it without this.

    - A replay leaves out what is told to trackers: ``told(F)(...)`` for ``F(...)``.
    - The test of a while loop is not evaluated in a pass that is entered blindly: ``not (entered_blindly() or TEST)``.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node, "tells", False):
            node.func = _call("told", [node.func], node.func)
        elif is_while_test(node):
            assert isinstance(node, ast.If)
            assert isinstance(node.test, ast.UnaryOp)
            test = node.test.operand
            goes_on = ast.BoolOp(ast.Or(), [_call("entered_blindly", [], test), test])
            node.test.operand = ast.copy_location(goes_on, test)
    return tree


def logged_names(source: str, filename: str) -> set[str]:
    """The names under which a text, read hands-free, logs values.  Raises `SourceError`."""
    return {
        node.args[0].value
        for node in ast.walk(statements(parse_as_written(source, filename), filename))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func) == f"{RUNTIME}.see"
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


def rewritable_else(loop: ast.While) -> bool:
    """Whether a while loop's ``else`` may run inside of it: it does not leave, or go on with, a loop around it."""
    pending: list[ast.AST] = list(loop.orelse)
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.Break, ast.Continue)):
            return False
        if not isinstance(node, (*LOOPS, *FUNCTIONS, ast.ClassDef)):
            pending.extend(ast.iter_child_nodes(node))
        elif isinstance(node, LOOPS):
            pending.extend(node.orelse)
    return True


class _Rewriter(ast.NodeTransformer):
    def __init__(self, loops: Mapping[int, str], tellings: Tellings, only: Mapping[int, str] | None) -> None:
        """``only``: of what the tree tells, the lines and variables that are recorded; None: all is."""
        self._loops = loops
        self._tellings = tellings
        self._only = only

    def visit_For(self, node: ast.For) -> ast.AST:
        self.generic_visit(node)
        if (name := self._loops.get(node.lineno)) is not None:
            node.iter = _call("loop", [_constant(name, node.iter), node.iter], node.iter, node.iter)
        return node

    def visit_While(self, node: ast.While) -> ast.AST:
        self.generic_visit(node)
        name = self._loops.get(node.lineno)
        if name is None or not rewritable_else(node):
            return node
        test = node.test
        body = node.body
        if not (isinstance(test, ast.Constant) and test.value):
            leave = ast.If(
                ast.UnaryOp(ast.Not(), test), [*node.orelse, ast.copy_location(ast.Break(), test)], []
            )
            ast.copy_location(leave.test, test)
            leave.tests_while = True  # type: ignore[attr-defined]
            body = [ast.copy_location(leave, test), *body]
        target = ast.copy_location(ast.Name("__florlog_pass__", ast.Store()), test)
        items = _call("loop", [_constant(name, test), _call("passes", [], test)], test)
        return ast.copy_location(ast.For(target, items, body, []), node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        telling = self._tellings.of(node)
        self.generic_visit(node)
        if self._only is not None:
            return self._of_framework(node, self._only.get(node.lineno))
        if telling is None:
            node.tells = self._tellings.opens_session(node)  # type: ignore[attr-defined]
            return node
        seen: set[str] = set()
        if telling.form is Form.WORDS:
            self._words(node, telling, seen)
        else:
            node.tells = True  # type: ignore[attr-defined]
            self._names_and_values(node, telling, seen)
        for keyword in node.keywords if telling.keywords else ():
            if keyword.arg is not None and keyword.arg not in _OPTIONS and keyword.arg != telling.value:
                keyword.value = self._argument(keyword.value, _Label(keyword.arg, sure=True), seen)
        if not seen:
            return node
        node.said = True  # type: ignore[attr-defined]
        return _call("said", [_call("begin", [], node), node], node, node)

    def _of_framework(self, node: ast.Call, variable: str | None) -> ast.expr:
        """A call in a framework's function; the values of a ``variable`` that it is given are recorded."""
        places = [i for i, given in enumerate(node.args) if variable and ast.unparse(given) == variable]
        for place in places:
            node.args[place] = self._see(node.args[place], COMPUTED_NAME, set())
        return _call("said", [_call("begin", [], node), node], node, node) if places else node

    def _words(self, node: ast.Call, telling: Telling, seen: set[str]) -> None:
        before = _texts_around(node.args[0]) if telling.logger and node.args else []
        for index, given in enumerate(node.args):
            if telling.logger and index == 0 and isinstance(given, ast.Name | ast.Attribute):
                continue  # a level, or a text made before
            previous = node.args[index - 1] if index else None
            text = before[index - 1] if 0 < index <= len(before) else _text(previous)
            node.args[index] = self._argument(given, _label(text, alone=True), seen)

    def _names_and_values(self, node: ast.Call, telling: Telling, seen: set[str]) -> None:
        assert telling.value is not None
        value = argument(node, telling.value)
        assert value is not None
        if telling.name is None:
            _replace(node, telling.value, self._mapping(value, "", seen))
            return
        name = argument(node, telling.name)
        assert name is not None
        word = _text(name)
        if telling.form is Form.GROUP:
            # A name that is computed is not known here; below it are those of the mapping.
            _replace(node, telling.value, self._mapping(value, word and f"{word}/", seen))
        elif word or not _comes_first(telling.name, telling.value):
            _replace(node, telling.value, self._see(value, word or _value_name(value, _NO_LABEL), seen))
        else:
            _replace(node, telling.name, _call("named", [name], name, name))
            _replace(node, telling.value, self._see(value, COMPUTED_NAME, seen))

    def _mapping(self, node: ast.expr, prefix: str, seen: set[str]) -> ast.expr:
        """A mapping whose values are recorded: each of a display by its own, any other as a whole."""
        if not isinstance(node, ast.Dict):
            return node if isinstance(node, ast.Constant) else self._see(node, COMPUTED_NAME, seen)
        for index, (key, value) in enumerate(zip(node.keys, node.values, strict=True)):
            if key is None:
                node.values[index] = self._see(value, COMPUTED_NAME, seen)
            elif word := _text(key):
                node.values[index] = self._see(value, prefix + word, seen)
            else:
                node.keys[index] = _call("named", [key], key, key)
                node.values[index] = self._see(value, COMPUTED_NAME, seen)
        return node

    def _argument(self, node: ast.expr, label: _Label, seen: set[str]) -> ast.expr:
        if isinstance(node, (ast.Constant, ast.Starred)):
            return node
        if isinstance(node, ast.JoinedStr):
            before = ""
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    part.value = self._recorded(part.value, _label(before), seen)
                    before = ""
                elif isinstance(part, ast.Constant):
                    before = str(part.value)
            return node
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and _is_string(node.left):
            texts = _texts_around(node.left)
            if isinstance(node.right, ast.Tuple):
                node.right.elts = self._all(node.right.elts, texts, seen)
            else:
                (node.right,) = self._all([node.right], texts, seen)
            return node
        if isinstance(node, ast.Call) and _is_format(node.func):
            assert isinstance(node.func, ast.Attribute)
            texts = [text for text, *_ in string.Formatter().parse(_text(node.func.value))]
            node.args = self._all(node.args, texts, seen)
            for keyword in node.keywords:
                keyword.value = self._recorded(keyword.value, _Label(keyword.arg or ""), seen)
            return node
        return self._recorded(node, label, seen)

    def _all(self, nodes: list[ast.expr], texts: list[str], seen: set[str]) -> list[ast.expr]:
        labels = [*map(_label, texts), *[_NO_LABEL] * len(nodes)]
        return [self._recorded(node, label, seen) for node, label in zip(nodes, labels, strict=False)]

    def _recorded(self, node: ast.expr, label: _Label, seen: set[str]) -> ast.expr:
        if isinstance(node, (ast.Constant, ast.Starred)):
            return node
        return self._see(node, _value_name(node, label), seen)

    def _see(self, node: ast.expr, base: str, seen: set[str]) -> ast.expr:
        name = base
        number = 1
        while name in seen and name != COMPUTED_NAME:
            number += 1
            name = f"{base}_{number}"
        seen.add(name)
        return _call("see", [_constant(name, node), node], node, node)


def _comes_first(one: Place, other: Place) -> bool:
    """Whether an argument is certainly evaluated before another one."""
    return isinstance(one, int) and (isinstance(other, str) or one < other)


def _replace(call: ast.Call, place: Place, by: ast.expr) -> None:
    if isinstance(place, int):
        call.args[place] = by
        return
    for keyword in call.keywords:
        if keyword.arg == place:
            keyword.value = by


def _call(
    method: str, arguments: list[ast.expr], place: ast.expr, written: ast.expr | None = None
) -> ast.Call:
    runtime = ast.copy_location(ast.Name(RUNTIME, ast.Load()), place)
    function = ast.copy_location(ast.Attribute(runtime, method, ast.Load()), place)
    # A frame names the line where the called expression starts.
    function.end_lineno, function.end_col_offset = place.lineno, place.col_offset
    made = ast.copy_location(ast.Call(function, arguments, []), place)
    made.written = written  # type: ignore[attr-defined]
    return made


def _constant(text: str, place: ast.expr) -> ast.Constant:
    return ast.copy_location(ast.Constant(text), place)


def _is_string(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_format(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and function.attr == "format" and _is_string(function.value)


def _text(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _texts_around(node: ast.expr) -> list[str]:
    """The pieces of a %-format, or of one with braces, before its values."""
    text = _text(node)
    if "{" in text and "%" not in text:
        with contextlib.suppress(ValueError):  # a text that is no format
            return [before for before, field, *_ in string.Formatter().parse(text) if field is not None]
    return re.split(r"%(?![ %])[^a-zA-Z%]*[a-zA-Z]", _text(node).replace("%%", ""))


@dataclass(frozen=True, slots=True)
class _Label:
    """The word before a value; ``sure``: it is written as the value's name."""

    text: str = ""
    sure: bool = False


_NO_LABEL = _Label()


def _label(before: str, *, alone: bool = False) -> _Label:
    """What the text before a value calls it: ``loss: ``, ``loss=``, or a word as an argument of its own (``alone``)."""
    words = re.findall(r"[A-Za-z_]\w*", before)
    if not words:
        return _NO_LABEL
    sure = re.search(r"[A-Za-z_]\w*\s*[:=]\s*$", before) is not None
    return _Label(words[-1].lower(), sure or (alone and before.strip() == words[-1]))


def _value_name(node: ast.expr, label: _Label) -> str:
    """The name of a value: what is written before it, as in ``loss: ``; ``loss`` of ``loss.item()``; else its code."""
    if label.sure:
        return label.text
    inner = node
    while isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute) and not inner.args:
        inner = inner.func.value
    if isinstance(inner, ast.Name):
        return inner.id
    if isinstance(inner, ast.Attribute):
        return inner.attr
    return label.text or re.sub(r"\W+", "_", ast.unparse(node)).strip("_")[:40] or "value"
