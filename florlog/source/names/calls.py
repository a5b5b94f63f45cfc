"""florlog's calls in a module: log calls and loop calls, found by binding.

A *log call* is ``X.log(...)``, or a call of a bare name that is bound to florlog's log.  It has keyword arguments
only, and at least one.  If the origin of the object is unknown (a parameter, an attribute of ``self``), the form of
the call decides.  An object known to be something else (``math``, ``wandb``, ``logging``) never counts.  With a
mapping, as in ``X.log({"train/loss": loss})``, it is one only if the origin is known: other libraries log so too.

A *loop call* is ``X.loop(name, iterable)`` or ``X.iteration(name, index)``.  It is *certain* if the binding shows that
it is florlog's, or if the object is unknown and the name is a string literal.  Other calls of this form may be
florlog's.  An analysis that takes code *out* of a region may rely on certain loops only.

A statement that shows values to a person (``print``, a call of a logger) may have been *rewritten* by
``florlog.source.edit.rewrite`` so that florlog sees the values.  It then counts as a log call of them.
"""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass

import xxhash

from florlog.source.names.origins import is_foreign
from florlog.source.names.scopes import Scopes
from florlog.source.names.syntax import call_lines

COMPUTED_NAME = "*"
"""Stands for names that the text does not say, as of ``**values``."""


@dataclass(frozen=True)
class LogCall:
    """Where a log call is and the names that it logs; ``**values`` is the name ``*``."""

    line: int
    end_line: int
    col: int
    names: tuple[str, ...]
    qualname: str  # of the code that contains it, as in co_qualname
    source_hash: bytes  # xxh3-64 of the dump of the call's statement


@dataclass(frozen=True)
class LoopCall:
    """A call that opens a florlog loop."""

    node: ast.Call
    form: str  # "loop", "iteration"
    name: str  # "" if it is not a literal
    certain: bool
    lines: frozenset[int]  # a frame that executes the call may report any of these
    qualname: str


def log_calls(tree: ast.Module) -> list[LogCall]:
    """All log calls of a module, in the order of its text."""
    return log_calls_in(tree, Scopes(tree))


def log_calls_in(node: ast.AST, scopes: Scopes) -> list[LogCall]:
    """The log calls at or below a node of the module that ``scopes`` describes."""
    found: list[LogCall] = []

    def search(node: ast.AST, statement: ast.stmt | None) -> None:
        if isinstance(node, ast.stmt):
            statement = node
        if isinstance(node, ast.Call) and is_log_call(node, scopes):
            names = shown_names(node) or (
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


def shown_names(call: ast.Call) -> tuple[str, ...]:
    """The names of the values that a rewritten statement shows."""
    return tuple(name for name, _ in shown_values(call))


def shown_values(call: ast.Call) -> list[tuple[str, ast.expr]]:
    """The names and the code of the values that a rewritten statement shows; none for any other call."""
    if not _calls_runtime(call, "said"):
        return []
    seen = (n for n in ast.walk(call.args[1]) if isinstance(n, ast.Call) and _calls_runtime(n, "see"))
    return [(str(n.args[0].value), n.args[1]) for n in seen if isinstance(n.args[0], ast.Constant)]


def logged_values(call: ast.Call) -> list[tuple[str, ast.expr]]:
    """The names and the code of the values that a log call logs; `COMPUTED_NAME` for names that the text lacks."""
    if shown := shown_values(call):
        return shown
    values = [(keyword.arg or COMPUTED_NAME, keyword.value) for keyword in call.keywords]
    return [*((COMPUTED_NAME, given) for given in call.args), *values]


def told(call: ast.Call) -> ast.expr | None:
    """What a rewritten statement calls to tell its values; None for any other call."""
    inner = call.args[1] if _calls_runtime(call, "said") else None
    return inner.func if isinstance(inner, ast.Call) else None


def shows_more(before: ast.Call, after: ast.Call) -> bool:
    """Whether ``after`` shows all values that ``before`` shows, and otherwise does the same.

    Both are rewritten statements.  Texts and formats may differ, because nothing depends on what a person is shown.
    """
    olds, news = shown_values(before), shown_values(after)
    if not olds or not news:
        return False
    missing = Counter((name, ast.dump(code)) for name, code in olds)
    missing -= Counter((name, ast.dump(code)) for name, code in news)
    return not missing and _other_code(before.args[1]) == _other_code(after.args[1])


def _other_code(statement: ast.expr) -> Counter[str]:
    """What a rewritten statement computes in addition to the values that it shows, as dumps."""
    assert isinstance(statement, ast.Call)
    found = Counter([ast.dump(statement.func)])
    pending: list[ast.AST] = [*statement.args, *statement.keywords]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Call) and _calls_runtime(node, "see"):
            continue
        if isinstance(node, (ast.Call, ast.Starred, ast.NamedExpr, ast.Await)) or (
            isinstance(node, ast.keyword) and not any(isinstance(n, ast.Call) for n in ast.walk(node.value))
        ):
            found[ast.dump(node)] += 1
        pending.extend(ast.iter_child_nodes(node))
    return found


def _calls_runtime(call: ast.Call, method: str) -> bool:
    """Whether a call is ``__florlog__.method(...)``."""
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
    """Whether a call is a log call, as this module defines it."""
    if shown_names(call):
        return True
    if getattr(call, "said", False):  # the call in a rewritten statement, which is one already
        return False
    if len(call.args) > 1 or not (call.args or call.keywords):
        return False
    origins = scopes.origins(call.func)
    if "log" in origins:
        starred = any(isinstance(argument, ast.Starred) for argument in call.args)
        return not call.args or (origins == {"log"} and not starred)
    if call.args:
        return False
    if not isinstance(call.func, ast.Attribute) or call.func.attr != "log":
        return False
    return not all(map(is_foreign, scopes.origins(call.func.value)))


def loop_call(call: ast.Call, scopes: Scopes) -> LoopCall | None:
    """The call as a loop call, or None if it is none."""
    if len(call.args) + len(call.keywords) < 2:
        return None
    origins = scopes.origins(call.func)
    forms = origins & {"loop", "iteration"}
    named = isinstance(call.func, ast.Attribute) and call.func.attr in ("loop", "iteration")
    if not forms and not (named and not all(map(is_foreign, origins))):
        return None
    form = min(forms) if forms else call.func.attr  # type: ignore[attr-defined]
    first = call.args[0] if call.args else next((k.value for k in call.keywords if k.arg == "name"), None)
    literal = isinstance(first, ast.Constant) and isinstance(first.value, str)
    name = first.value if literal else ""  # type: ignore[union-attr]
    certain = bool(forms) or literal or isinstance(first, ast.JoinedStr)
    return LoopCall(call, form, name, certain, call_lines(call), scopes.of[call].qualname)
