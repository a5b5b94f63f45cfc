"""florlog's calls in a module: log calls and loop calls, found by binding.

A *log call* is ``X.log(...)`` or a bare name bound to florlog's log, with keyword arguments only and at
least one.  Where the object's origin is unknown (a parameter, an attribute of ``self``) the shape decides;
an object known to be something else (``math``, ``wandb``, ``logging``) never counts.  With a mapping, as in
``X.log({"train/loss": loss})``, it is one only where the origin is known: other libraries log so too.

A *loop call* is ``X.loop(name, iterable)`` or ``X.iteration(name, index)``.  It is *certain* when the
binding says so, or when the object is unknown and the name is a string literal; the rest may be florlog's.
An analysis that takes code *out* of a region may rely on certain loops only.
"""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass

import xxhash

from florlog.source.names.scopes import Scopes, foreign
from florlog.source.names.syntax import call_lines


@dataclass(frozen=True)
class LogCall:
    """A log call: where it is and the names that it logs (``**values`` is ``*``)."""

    line: int
    end_line: int
    col: int
    names: tuple[str, ...]
    qualname: str  # of the code that holds it, as in co_qualname
    source_hash: bytes  # xxh3-64 of the dump of the call's statement


@dataclass(frozen=True)
class LoopCall:
    """A call that opens a florlog loop."""

    node: ast.Call
    form: str  # "loop", "iteration"
    name: str  # "" where it is not a literal
    certain: bool
    lines: frozenset[int]  # that a frame may name while executing the call
    qualname: str


def log_calls(tree: ast.Module) -> list[LogCall]:
    """All log calls of a module, in the order of the text."""
    return log_calls_in(tree, Scopes(tree))


def log_calls_in(node: ast.AST, scopes: Scopes) -> list[LogCall]:
    """The log calls at or below a node of the module that ``scopes`` describes."""
    found: list[LogCall] = []

    def search(node: ast.AST, statement: ast.stmt | None) -> None:
        if isinstance(node, ast.stmt):
            statement = node
        if isinstance(node, ast.Call) and is_log_call(node, scopes):
            names = said_names(node) or (
                *_mapped_names(node),
                *(keyword.arg or "*" for keyword in node.keywords),
            )
            found.append(LogCall(
                node.lineno, node.end_lineno or node.lineno, node.col_offset, names,
                scopes.of[node].qualname, statement_hash(statement or node),
            ))  # fmt: skip
        for child in ast.iter_child_nodes(node):
            search(child, statement)

    search(node, None)
    return sorted(found, key=lambda call: (call.line, call.col))


def statement_hash(statement: ast.AST) -> bytes:
    """The identity of a statement's text up to formatting, 8 bytes; equal only under one Python version."""
    return xxhash.xxh3_64_digest(ast.dump(statement).encode())


def said_names(call: ast.Call) -> tuple[str, ...]:
    """The names of the values that a turned statement tells (``florlog.source.edit.rewrite``)."""
    return tuple(name for name, _ in told(call))


def told(call: ast.Call) -> list[tuple[str, ast.expr]]:
    """The names and the code of the values that a turned statement tells; none for any other call."""
    if not _of_runtime(call, "said"):
        return []
    seen = (n for n in ast.walk(call.args[1]) if isinstance(n, ast.Call) and _of_runtime(n, "see"))
    return [(str(n.args[0].value), n.args[1]) for n in seen if isinstance(n.args[0], ast.Constant)]


def tells_more(before: ast.Call, after: ast.Call) -> bool:
    """Whether a turned statement tells all that another one tells, and does nothing else that it does not.

    Texts and formats may differ, as nothing depends on what is told to a person.
    """
    olds, news = told(before), told(after)
    if not olds or not news:
        return False
    missing = Counter((name, ast.dump(code)) for name, code in olds)
    missing -= Counter((name, ast.dump(code)) for name, code in news)
    return not missing and _beside(before.args[1]) == _beside(after.args[1])


def _beside(statement: ast.expr) -> Counter[str]:
    """What a turned statement computes beside the values that it tells."""
    assert isinstance(statement, ast.Call)
    found = Counter([ast.dump(statement.func)])
    ahead: list[ast.AST] = [*statement.args, *statement.keywords]
    while ahead:
        node = ahead.pop()
        if isinstance(node, ast.Call) and _of_runtime(node, "see"):
            continue
        if isinstance(node, (ast.Call, ast.Starred, ast.NamedExpr, ast.Await)) or (
            isinstance(node, ast.keyword) and not any(isinstance(n, ast.Call) for n in ast.walk(node.value))
        ):
            found[ast.dump(node)] += 1
        ahead.extend(ast.iter_child_nodes(node))
    return found


def _of_runtime(call: ast.Call, method: str) -> bool:
    function = call.func
    return (
        isinstance(function, ast.Attribute)
        and function.attr == method
        and isinstance(function.value, ast.Name)
        and function.value.id == "__florlog__"
    )


def _mapped_names(call: ast.Call) -> tuple[str, ...]:
    """The names in the mapping that a log call is given; ``*`` for those that the text does not say."""
    if not call.args:
        return ()
    mapping = call.args[0]
    keys: list[ast.expr | None] = [None] if not isinstance(mapping, ast.Dict) else mapping.keys
    return tuple(str(key.value) if isinstance(key, ast.Constant) else "*" for key in keys)


def is_log_call(call: ast.Call, scopes: Scopes) -> bool:
    """Whether a call logs values, by the rules of this module."""
    if said_names(call):
        return True
    if len(call.args) > 1 or not (call.args or call.keywords):
        return False
    origins = scopes.origins(call.func)
    if "log" in origins:
        return not any(isinstance(argument, ast.Starred) for argument in call.args)
    if call.args:
        return False
    if not isinstance(call.func, ast.Attribute) or call.func.attr != "log":
        return False
    return not all(map(foreign, scopes.origins(call.func.value)))


def loop_call(call: ast.Call, scopes: Scopes) -> LoopCall | None:
    """The call as one that opens a florlog loop, or None."""
    if len(call.args) + len(call.keywords) < 2:
        return None
    origins = scopes.origins(call.func)
    forms = origins & {"loop", "iteration"}
    named = isinstance(call.func, ast.Attribute) and call.func.attr in ("loop", "iteration")
    if not forms and not (named and not all(map(foreign, origins))):
        return None
    form = min(forms) if forms else call.func.attr  # type: ignore[attr-defined]
    first = call.args[0] if call.args else next((k.value for k in call.keywords if k.arg == "name"), None)
    literal = isinstance(first, ast.Constant) and isinstance(first.value, str)
    name = first.value if literal else ""  # type: ignore[union-attr]
    certain = bool(forms) or literal or isinstance(first, ast.JoinedStr)
    return LoopCall(call, form, name, certain, call_lines(call), scopes.of[call].qualname)
