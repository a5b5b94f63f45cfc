"""The tree that is run, and compared, in the place of an unmodified script's own.

    for epoch in range(9): ...      for epoch in __florlog__.loop("epoch", range(9)): ...
    while not done: ...             for _ in __florlog__.loop("pass", __florlog__.passes()):
                                        if not (not done): break
                                        ...
    print("loss", loss)             __florlog__.said(__florlog__.begin(),
                                        print("loss", __florlog__.see("loss", loss)))

Everything is evaluated once, in its order, and every node keeps its line.  On a call of the runtime
(`florlog.bridges.plain_loops`), the attribute ``written`` is what the script has in its place.

Recorded values are the arguments of ``print``, of a logger's methods and of a progress bar's ``set_postfix`` and
``set_description``, and the values inside their f-strings, ``%`` and ``.format``.  Values that come from a clock are
left out: no re-execution repeats them.
"""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from florlog.source.names.excerpts import is_excerpt

RUNTIME = "__florlog__"
_LOGGER_METHODS = {"debug", "info", "warning", "error", "critical", "log"}
_PROGRESS_BAR_METHODS = {"set_postfix", "set_postfix_str", "set_description", "set_description_str"}
_CLOCK_FUNCTIONS = {"time", "perf_counter", "monotonic", "process_time", "now", "utcnow", "strftime", "perf_counter_ns",
           "time_ns", "ctime", "asctime", "elapsed_time"}  # fmt: skip
_OPTIONS = {"sep", "end", "file", "flush", "exc_info", "extra", "stack_info", "stacklevel", "refresh"}

Rewrite = Callable[[ast.Module, str], ast.Module]


def reading(loops: Mapping[str, Mapping[int, str]]) -> Rewrite:
    """How a hands-free program is rewritten: its statements record values, and ``loops`` are florlog's.

    What a framework prints or logs in its own functions is not recorded.

    ``loops``: file -> line -> the loop's name.
    """

    def rewrite(tree: ast.Module, file: str) -> ast.Module:
        rewritten = _Rewriter(loops.get(file, {}), _clock_names(tree), quiet=is_excerpt(tree)).visit(tree)
        assert isinstance(rewritten, ast.Module)
        return rewritten

    return rewrite


def statements(tree: ast.Module, file: str) -> ast.Module:
    """Rewrites statements only, no loops: in this form two texts are compared."""
    return reading({})(tree, file)


def shows_values(call: ast.Call) -> bool:
    """Whether a call prints values, logs them or puts them on a progress bar."""
    if isinstance(call.func, ast.Name):
        return call.func.id == "print"
    if not isinstance(call.func, ast.Attribute):
        return False
    if call.func.attr in _PROGRESS_BAR_METHODS:
        return True
    owner = ast.unparse(call.func.value)
    if call.func.attr == "write":
        return owner.rpartition(".")[2] == "tqdm"
    return (
        call.func.attr in _LOGGER_METHODS and re.search(r"(^|[._])log(ger|ging)?s?$", owner, re.I) is not None
    )


class _Rewriter(ast.NodeTransformer):
    def __init__(self, loops: Mapping[int, str], clocks: set[str], *, quiet: bool) -> None:
        self._loops = loops
        self._quiet = quiet
        self._clocks = clocks

    def visit_For(self, node: ast.For) -> ast.AST:
        self.generic_visit(node)
        if (name := self._loops.get(node.lineno)) is not None:
            node.iter = _call("loop", [_constant(name, node.iter), node.iter], node.iter, node.iter)
        return node

    def visit_While(self, node: ast.While) -> ast.AST:
        self.generic_visit(node)
        name = self._loops.get(node.lineno)
        if name is None or node.orelse:
            return node
        test = node.test
        body = node.body
        if not (isinstance(test, ast.Constant) and test.value):
            leave = ast.If(ast.UnaryOp(ast.Not(), test), [ast.copy_location(ast.Break(), test)], [])
            ast.copy_location(leave.test, test)
            body = [ast.copy_location(leave, test), *body]
        target = ast.copy_location(ast.Name("__florlog_pass__", ast.Store()), test)
        items = _call("loop", [_constant(name, test), _call("passes", [], test)], test)
        return ast.copy_location(ast.For(target, items, body, []), node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if self._quiet or not shows_values(node):
            return node
        seen: set[str] = set()
        logger = isinstance(node.func, ast.Attribute) and node.func.attr in _LOGGER_METHODS
        before = _texts_around(node.args[0]) if logger and node.args else []
        for index, argument in enumerate(node.args):
            if logger and index == 0 and isinstance(argument, ast.Name | ast.Attribute):
                continue  # a level, or a text made before
            previous = node.args[index - 1] if index else None
            text = before[index - 1] if 0 < index <= len(before) else _text(previous)
            node.args[index] = self._argument(argument, _label(text, alone=True), seen)
        for keyword in node.keywords:
            if keyword.arg is not None and keyword.arg not in _OPTIONS:
                keyword.value = self._argument(keyword.value, _Label(keyword.arg, sure=True), seen)
        return _call("said", [_call("begin", [], node), node], node, node) if seen else node

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
        if isinstance(node, (ast.Constant, ast.Starred)) or _reads_clock(node, self._clocks):
            return node
        name = base = _value_name(node, label)
        number = 1
        while name in seen:
            number += 1
            name = f"{base}_{number}"
        seen.add(name)
        return _call("see", [_constant(name, node), node], node, node)


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
    """The pieces of a %-format before its values."""
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


def _reads_clock(node: ast.AST, clocks: set[str]) -> bool:
    for part in ast.walk(node):
        if isinstance(part, ast.Call):
            name = part.func.attr if isinstance(part.func, ast.Attribute) else getattr(part.func, "id", "")
            if name in _CLOCK_FUNCTIONS:
                return True
        if _name_of(part) in clocks:
            return True
    return False


def _name_of(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _clock_names(tree: ast.AST) -> set[str]:
    """The variables that are computed from a clock."""
    found: set[str] = set()
    assignments = [
        (node.targets if isinstance(node, ast.Assign) else [node.target], node.value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)) and node.value is not None
    ]
    while True:
        more = {
            _name_of(target)
            for targets, value in assignments
            if _reads_clock(value, found)
            for target in targets
        } - found - {""}  # fmt: skip
        if not more:
            return found
        found |= more
