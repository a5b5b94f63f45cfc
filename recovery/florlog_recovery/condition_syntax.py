"""What a condition on iterations may say: the text is read and checked here, and never compiled.

``step in [10:20]`` means ``step in range(10, 20)``; either end may be open (`_sliced`).  A name that is no Python word
is written ``loop['train-step']`` or ``value['train/loss']``.
"""

from __future__ import annotations

import ast
import io
import keyword
import re
import tokenize

from florlog_recovery.three_valued import BINARY, COMPARE, FUNCTIONS

REDUCTIONS = frozenset({"norm", "min", "max", "mean"})
"""Functions of ``state[...]`` alone."""

_OPERATORS = {"and", "or", "not", "in", "is", "True", "False", "None", "if", "else"}
_SPAN_MAX_ARGUMENTS = {"range": 3, "slice": 3}


class WhereError(ValueError):
    """The condition cannot be used; the message says which part and what is possible."""


def read(text: str) -> ast.expr:
    """The syntax tree of a condition, which may contain what `check` forbids.  Raises `WhereError`."""
    try:
        tree = ast.parse(_sliced(text.strip()), mode="eval")
        return _Quoted().visit(tree).body  # type: ignore[no-any-return]
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError) as error:
        hint = next((f"; write loop[{word!r}] or value[{word!r}]" for word in _words(text)), "")
        raise WhereError(f"cannot read the condition {text!r}: {error}{hint}") from None


class _Quoted(ast.NodeTransformer):
    """Names in quotes become names."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        match node:
            case ast.Subscript(value=ast.Name(id="loop" | "value"), slice=ast.Constant(value=str(name))):
                return ast.copy_location(ast.Name(name, ast.Load()), node)
        return node


def _words(text: str) -> list[str]:
    """The keywords in a condition that it may have meant as names."""
    words = re.findall(r"(?<!['\"\w])[A-Za-z_]\w*(?!['\"\w])", text)
    return [word for word in words if keyword.iskeyword(word) and word not in _OPERATORS]


def check(node: ast.expr, *, state: bool) -> None:
    """Raise `WhereError` for whatever a condition may not contain; with ``state`` it may contain ``state[...]``."""
    match node:
        case ast.Name():
            pass
        case ast.Constant(value=value) if isinstance(value, (int, float, str)):
            pass
        case ast.BoolOp(values=parts) | ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            for part in parts:
                check(part, state=state)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            check(operand, state=state)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            check(left, state=state)
            check(right, state=state)
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            check(left, state=state)
            for compare, right in zip(ops, comparators, strict=True):
                if isinstance(compare, (ast.In, ast.NotIn)):
                    _check_container(right, state=state)
                elif type(compare) in COMPARE:
                    check(right, state=state)
                else:
                    raise _forbidden(node, state=state)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
            check(argument, state=state)
        case ast.Call(func=ast.Name(id=name), args=[ast.Subscript() as argument], keywords=[]) if (
            name in REDUCTIONS and state
        ):
            check(argument, state=state)
        case ast.Subscript() if state:
            pass  # its key has been read
        case _:
            raise _forbidden(node, state=state)


def key_of(node: ast.Subscript) -> str:
    """The key in ``state[...]``.  Raises `WhereError` for a subscript of something else."""
    match node:
        case ast.Subscript(value=ast.Name(id="state"), slice=ast.Constant(value=str(key))):
            return key
    raise _forbidden(node, state=True)


def _check_container(node: ast.expr, *, state: bool) -> None:
    match node:
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _SPAN_MAX_ARGUMENTS:
            if not 1 <= len(arguments) <= _SPAN_MAX_ARGUMENTS[name]:
                raise WhereError(f"{name} takes one to three numbers: {ast.unparse(node)!r}")
            for argument in arguments:
                if not (isinstance(argument, ast.Constant) and argument.value is None):
                    check(argument, state=state)
        case ast.Tuple() | ast.List() | ast.Set():
            check(node, state=state)
        case ast.Constant(value=str()):
            pass
        case _:
            raise WhereError(
                f"{ast.unparse(node)!r} cannot come after 'in': use (3, 7), range(10, 20) or [10:20]"
            )


def _more(*, state: bool) -> str:
    if not state:
        return ""
    return f", state['model.weight'], and {', '.join(sorted(REDUCTIONS))} of that"


def _forbidden(node: ast.expr, *, state: bool) -> WhereError:
    return WhereError(
        f"{ast.unparse(node)!r} is not allowed in a condition: use names of loops and logged values, numbers, "
        f"comparisons, + - * / // %, in, and, or, not, {', '.join(sorted(FUNCTIONS))}{_more(state=state)}"
    )


def _sliced(text: str) -> str:
    """The text with ``in [a:b:c]`` written as ``in slice(a, b, c)``."""
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    cuts: list[tuple[int, int, str]] = []
    for position, token in enumerate(tokens[:-1]):
        if token.string != "in" or tokens[position + 1].string != "[":
            continue
        opened, depth, parts, colon = tokens[position + 1], 0, [""], False
        for inner in tokens[position + 1 :]:
            depth += (inner.string in "([{") - (inner.string in ")]}") if inner.type == tokenize.OP else 0
            if depth == 0:
                if colon:
                    numbers = ", ".join(part.strip() or "None" for part in parts)
                    cuts.append((opened.start[1], inner.end[1], f"slice({numbers})"))
                break
            if depth == 1 and inner.string == ":":
                colon = True
                parts.append("")
            elif inner is not opened:
                parts[-1] += inner.string + " "
    for start, stop, replacement in reversed(cuts):
        text = text[:start] + replacement + text[stop:]
    return text
